-- The log: rows are appended at pre-commit and never updated or deleted. See docs/concepts.md.
CREATE SEQUENCE sea_mq.outbox_seq AS bigint;
COMMENT ON SEQUENCE sea_mq.outbox_seq IS 'Order of the log; taken at pre-commit, after the transaction id';
CREATE SEQUENCE sea_mq.position_number AS bigint;
COMMENT ON SEQUENCE sea_mq.position_number IS 'Numbers of rows that are only told apart by them, as those of positions: the newest has the greatest';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.position_number', '');

CREATE TABLE sea_mq.outbox_log (
    seq bigint NOT NULL,
    xid xid8 NOT NULL,
    sink bigint NOT NULL,
    created_at timestamptz NOT NULL,
    available_at timestamptz,
    id uuid NOT NULL,
    event_version integer NOT NULL,
    origin integer NOT NULL,
    slot smallint NOT NULL,
    context text NOT NULL,
    subject text,
    aggregate_type text NOT NULL,
    -- Ordered by its bytes, which costs the writer's index less than the rules of a language.
    aggregate_id text COLLATE "C" NOT NULL,
    event_type text NOT NULL,
    payload json NOT NULL,
    headers json,
    correlation_id text,
    causation_id text,
    visibility text NOT NULL
) PARTITION BY LIST (slot);

-- Why and by whom each event was published: one row per run of events that took consecutive places in the stream.
CREATE TABLE sea_mq.relay_journal (
    slot smallint NOT NULL,
    sink bigint NOT NULL,
    done pg_snapshot NOT NULL,
    upto pg_snapshot NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    events bigint NOT NULL,
    first_stream_seq bigint,
    published_at timestamptz NOT NULL,
    number bigint NOT NULL DEFAULT nextval('sea_mq.position_number')
) PARTITION BY LIST (slot);

DO $$
DECLARE
    slots CONSTANT integer := 8;
BEGIN
    FOR slot IN 0 .. slots - 1 LOOP
        EXECUTE format('CREATE TABLE sea_mq.outbox_log_%s PARTITION OF sea_mq.outbox_log FOR VALUES IN (%s)'
            ' WITH (autovacuum_vacuum_insert_threshold = -1)', slot, slot);
        -- By place in the log, for each sink: the relay's reading order.
        EXECUTE format('CREATE INDEX outbox_log_%s_sink_seq ON sea_mq.outbox_log_%s (sink, seq)', slot, slot);
        -- By transaction: the events of those that were in progress when the cursor passed, and that have ended since.
        EXECUTE format('CREATE INDEX outbox_log_%s_xid_seq ON sea_mq.outbox_log_%s (xid, seq)', slot, slot);
        EXECUTE format('CREATE INDEX outbox_log_%s_id ON sea_mq.outbox_log_%s (id)', slot, slot);
        -- What people ask sea_mq.outbox_events for: the latest events, and those of an aggregate.
        EXECUTE format('CREATE INDEX outbox_log_%s_seq ON sea_mq.outbox_log_%s (seq)', slot, slot);
        EXECUTE format('CREATE INDEX outbox_log_%s_aggregate_seq ON sea_mq.outbox_log_%s (aggregate_id, seq)', slot, slot);
        EXECUTE format('COMMENT ON TABLE sea_mq.outbox_log_%s IS %L', slot, 'Slot ' || slot || ' of the outbox log''s ring');
        -- Rows are deleted, so they have a key: a publication FOR ALL TABLES asks for one.
        EXECUTE format('CREATE TABLE sea_mq.relay_journal_%s PARTITION OF sea_mq.relay_journal (PRIMARY KEY (number)) FOR VALUES IN (%s)',
            slot, slot);
        EXECUTE format('CREATE INDEX relay_journal_%s_sink_seq ON sea_mq.relay_journal_%s (sink, last_seq)', slot, slot);
        EXECUTE format('CREATE INDEX relay_journal_%s_sink_stream ON sea_mq.relay_journal_%s (sink, first_stream_seq)', slot, slot);
        EXECUTE format('COMMENT ON TABLE sea_mq.relay_journal_%s IS %L', slot, 'Slot ' || slot || ' of the relay''s journal');
        EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.outbox_log_' || slot);
        EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.relay_journal_' || slot);
    END LOOP;
END $$;

COMMENT ON TABLE sea_mq.outbox_log IS 'The outbox: an append-only log in a ring of slots. Query sea_mq.outbox_events instead';
COMMENT ON COLUMN sea_mq.outbox_log.seq IS 'Place in the log; follows the serialisation order of transactions that waited for each other';
COMMENT ON COLUMN sea_mq.outbox_log.xid IS 'The top-level transaction that wrote the event';
COMMENT ON COLUMN sea_mq.outbox_log.sink IS 'Where the event goes: sea_mq.sink_id(context, kind)';
COMMENT ON COLUMN sea_mq.outbox_log.created_at IS 'When emit was called';
COMMENT ON COLUMN sea_mq.outbox_log.available_at IS 'Until when the event was held back, if it was';
COMMENT ON COLUMN sea_mq.outbox_log.id IS 'Event id; sent as Nats-Msg-Id';
COMMENT ON COLUMN sea_mq.outbox_log.event_version IS 'Version of the event type, from 1';
COMMENT ON COLUMN sea_mq.outbox_log.origin IS 'Installation that wrote it, as in sea_mq.outbox_ring: another one shows a restored copy, whose seq and xid mean nothing here';
COMMENT ON COLUMN sea_mq.outbox_log.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.outbox_log.context IS 'Bounded context that the event belongs to';
COMMENT ON COLUMN sea_mq.outbox_log.subject IS 'NATS subject where it is not {context}.event.{event_type}.v{event_version}';
COMMENT ON COLUMN sea_mq.outbox_log.aggregate_type IS 'Type of the aggregate that changed';
COMMENT ON COLUMN sea_mq.outbox_log.aggregate_id IS 'Id of the aggregate that changed';
COMMENT ON COLUMN sea_mq.outbox_log.event_type IS 'Normalised name of the event';
COMMENT ON COLUMN sea_mq.outbox_log.payload IS 'Content, sent as it stands here';
COMMENT ON COLUMN sea_mq.outbox_log.headers IS 'The caller''s headers: an object of strings';
COMMENT ON COLUMN sea_mq.outbox_log.correlation_id IS 'Correlation id; NULL stands for the event''s own id';
COMMENT ON COLUMN sea_mq.outbox_log.causation_id IS 'Id of the event or command that caused this one';
COMMENT ON COLUMN sea_mq.outbox_log.visibility IS 'public, partner, internal or sensitive';

COMMENT ON TABLE sea_mq.relay_journal IS 'What the relay has stored in the streams: runs of events at consecutive stream sequences';
COMMENT ON COLUMN sea_mq.relay_journal.slot IS 'Slot of the ring that was current';
COMMENT ON COLUMN sea_mq.relay_journal.sink IS 'Where the events went';
COMMENT ON COLUMN sea_mq.relay_journal.done IS 'The run consists of the sink''s events that this snapshot does not show …';
COMMENT ON COLUMN sea_mq.relay_journal.upto IS '… and this one does …';
COMMENT ON COLUMN sea_mq.relay_journal.first_seq IS '… from this place in the log …';
COMMENT ON COLUMN sea_mq.relay_journal.last_seq IS '… to this one';
COMMENT ON COLUMN sea_mq.relay_journal.events IS 'How many they are';
COMMENT ON COLUMN sea_mq.relay_journal.first_stream_seq IS 'Stream sequence of the first; the others follow. NULL: refused by the broker';
COMMENT ON COLUMN sea_mq.relay_journal.published_at IS 'When the broker had acknowledged all of them';
COMMENT ON COLUMN sea_mq.relay_journal.number IS 'Number of the row';

SELECT pg_catalog.pg_extension_config_dump('sea_mq.outbox_seq', '');

-- The ring: which slot writers append to, and the mark that they put on their rows. Like the installation's identity, and
-- with it, not part of a dump.
CREATE TABLE sea_mq.outbox_ring (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    current_slot smallint NOT NULL,
    origin integer NOT NULL
) WITH (fillfactor = 10);
INSERT INTO sea_mq.outbox_ring (current_slot, origin)
SELECT 0, ('x' || left(md5(i.install_id::text), 8))::bit(32)::integer FROM sea_mq.installation i;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sea_mq.outbox_ring
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.table_changed();
ALTER TABLE sea_mq.outbox_ring ENABLE ALWAYS TRIGGER changed;
COMMENT ON TRIGGER changed ON sea_mq.outbox_ring IS 'Tells backends to read the ring again';
CREATE TABLE sea_mq.outbox_slots (
    slot smallint PRIMARY KEY,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz
) WITH (fillfactor = 10);
COMMENT ON TABLE sea_mq.outbox_ring IS 'Which slot of the ring writers append to; one row, not part of a dump';
COMMENT ON COLUMN sea_mq.outbox_ring.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.outbox_ring.current_slot IS 'The slot that writers append to';
COMMENT ON COLUMN sea_mq.outbox_ring.origin IS 'Mark of this installation on the rows of the log';
COMMENT ON TABLE sea_mq.outbox_slots IS 'History of the ring''s slots; no row for slot 0 until writers leave it for the first time';
COMMENT ON COLUMN sea_mq.outbox_slots.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.outbox_slots.opened_at IS 'When writers began to append to it';
COMMENT ON COLUMN sea_mq.outbox_slots.closed_at IS 'When writers moved on; NULL for the current slot';

-- Events held back until their time; they enter the log when it comes, so they hold up neither cursor nor rotation.
CREATE TABLE sea_mq.scheduled_events (
    available_at timestamptz NOT NULL,
    seq bigint NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    sink bigint NOT NULL,
    event_version integer NOT NULL,
    context text NOT NULL,
    subject text,
    aggregate_type text NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    event_type text NOT NULL,
    payload json NOT NULL,
    headers json,
    correlation_id text,
    causation_id text,
    visibility text NOT NULL,
    -- What adopt() queues again may have the seq of another installation.
    PRIMARY KEY (available_at, seq, id)
);
CREATE INDEX scheduled_events_id ON sea_mq.scheduled_events (id);
CREATE INDEX scheduled_events_sink ON sea_mq.scheduled_events (sink);
CREATE INDEX scheduled_events_aggregate ON sea_mq.scheduled_events (aggregate_id);
SELECT pg_catalog.pg_extension_config_dump('sea_mq.scheduled_events', '');
COMMENT ON TABLE sea_mq.scheduled_events IS 'Events whose available_at has not come; columns as in sea_mq.outbox_log';
COMMENT ON COLUMN sea_mq.scheduled_events.available_at IS 'When the event enters the log';
COMMENT ON COLUMN sea_mq.scheduled_events.seq IS 'Order among those that become due together';

-- Events that the broker will never take as they are.
CREATE TABLE sea_mq.publish_failures (
    event_id uuid NOT NULL,
    seq bigint NOT NULL,
    sink bigint NOT NULL,
    attempts integer NOT NULL,
    error text NOT NULL,
    failed_at timestamptz NOT NULL,
    event jsonb,
    resolved_at timestamptz,
    PRIMARY KEY (event_id, seq)
);
CREATE INDEX publish_failures_open ON sea_mq.publish_failures (sink) WHERE resolved_at IS NULL;
CREATE INDEX publish_failures_resolved ON sea_mq.publish_failures (resolved_at) WHERE resolved_at IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('sea_mq.publish_failures', '');
COMMENT ON TABLE sea_mq.publish_failures IS 'Events that the broker refused for a reason of their own; the others went on';
COMMENT ON COLUMN sea_mq.publish_failures.event_id IS 'The event';
COMMENT ON COLUMN sea_mq.publish_failures.seq IS 'Its place in the log: tried again, it has another';
COMMENT ON COLUMN sea_mq.publish_failures.sink IS 'Where it was to go';
COMMENT ON COLUMN sea_mq.publish_failures.attempts IS 'How often it was tried';
COMMENT ON COLUMN sea_mq.publish_failures.error IS 'The broker''s words';
COMMENT ON COLUMN sea_mq.publish_failures.failed_at IS 'When it was given up';
COMMENT ON COLUMN sea_mq.publish_failures.event IS 'The whole event, which is thus kept when its slot is emptied';
COMMENT ON COLUMN sea_mq.publish_failures.resolved_at IS 'When it was tried again, replayed with a corrected payload, or discarded; NULL: nothing was decided';

-- Who may use it.
GRANT SELECT ON sea_mq.publish_failures TO sea_mq_operator, sea_mq_monitor;
