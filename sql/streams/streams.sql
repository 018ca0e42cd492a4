-- What each sink is. Outlives its stream's description: a sink is one context's and kind's for ever.
CREATE TABLE sea_mq.sinks (
    sink bigint PRIMARY KEY,
    context text NOT NULL,
    kind text NOT NULL,
    UNIQUE (context, kind)
);

-- Streams as they should be. The relay provisions them; sea_mq.stream_progress and sea_mq.stream_state say how that went.
CREATE TABLE sea_mq.streams (
    name text PRIMARY KEY CHECK (name ~ E'^[^[:space:].*>/\\\\]{1,255}$')
        CONSTRAINT streams_name_not_reserved CHECK (name <> 'SEA_MQ_RELAYS'),
    context text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('event', 'dlq')),
    sink bigint NOT NULL UNIQUE REFERENCES sea_mq.sinks,
    subjects text[] NOT NULL CHECK (cardinality(subjects) > 0),
    retention text NOT NULL CHECK (retention IN ('limits', 'interest', 'workqueue')),
    max_age interval NOT NULL CHECK (max_age = '0' OR max_age BETWEEN '100 ms' AND '100 years'),
    max_bytes bigint NOT NULL CHECK (max_bytes = -1 OR max_bytes > 0),
    max_msgs bigint NOT NULL CHECK (max_msgs = -1 OR max_msgs > 0),
    max_msg_size integer NOT NULL CHECK (max_msg_size = -1 OR max_msg_size > 0),
    storage text NOT NULL CHECK (storage IN ('file', 'memory')),
    replicas integer NOT NULL CHECK (replicas BETWEEN 1 AND 5),
    duplicate_window interval NOT NULL CHECK (duplicate_window >= '100 ms' AND duplicate_window <= '100 years'),
    body text NOT NULL CHECK (body IN ('payload', 'envelope')),
    metadata text NOT NULL CHECK (metadata IN ('minimal', 'cloudevents', 'full')),
    atomic_transactions boolean NOT NULL,
    managed boolean NOT NULL,
    owner uuid NOT NULL,
    take_over boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (context, kind)
) WITH (fillfactor = 50);

-- Backends keep what emit must know of a stream.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sea_mq.streams
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.table_changed();
ALTER TABLE sea_mq.streams ENABLE ALWAYS TRIGGER changed;
COMMENT ON TRIGGER changed ON sea_mq.streams IS 'Tells backends to read the streams again';

CREATE FUNCTION sea_mq.register_sink() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    other record;
BEGIN
    INSERT INTO sea_mq.sinks (sink, context, kind) VALUES (NEW.sink, NEW.context, NEW.kind) ON CONFLICT DO NOTHING;
    SELECT s.context, s.kind INTO other FROM sea_mq.sinks s
    WHERE s.sink = NEW.sink AND (s.context, s.kind) IS DISTINCT FROM (NEW.context, NEW.kind);
    IF FOUND THEN
        RAISE EXCEPTION 'context "%" (%) has the sink id of context "%" (%)', NEW.context, NEW.kind, other.context, other.kind
            USING ERRCODE = 'duplicate_object', HINT = 'Give the context another name.';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION sea_mq.register_sink IS 'Trigger function: a sink is that of one context and kind. Error 42710';
CREATE TRIGGER register_sink BEFORE INSERT ON sea_mq.streams FOR EACH ROW EXECUTE FUNCTION sea_mq.register_sink();
ALTER TABLE sea_mq.streams ENABLE ALWAYS TRIGGER register_sink;
COMMENT ON TRIGGER register_sink ON sea_mq.streams IS 'A sink is that of one context and kind';

-- How far each reader has come in the log: the stream of a sink, or (without a broker) a subscription of this database. For whom a
-- row of the log is, its sink says; who has read it, the cursors say. That of a stream outlives its description, so that a stream
-- that is dropped and described again does not get the retained events a second time.
--
-- A position is appended, and the one with the greatest number counts: a row that is updated for ever leaves its dead versions
-- behind for as long as somebody's snapshot is older, and each save would walk past them. There are two slots. When one has
-- grown, the other is emptied by TRUNCATE and gets the newest row of each reader, in one transaction that excludes all who write
-- here (src/log/positions.rs). So it does not matter which slot a row is appended to.
CREATE TABLE sea_mq.cursor_log (
    slot smallint NOT NULL,
    number bigint NOT NULL DEFAULT nextval('sea_mq.position_number'),
    reader_kind text COLLATE "C" NOT NULL,
    reader bigint NOT NULL,
    done pg_snapshot NOT NULL,
    next_xid bigint NOT NULL,
    floor bigint NOT NULL,
    batch_upto pg_snapshot,
    batch_next_xid bigint,
    batch_ceiling bigint,
    batch_at bigint,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY LIST (slot);

-- What each stream has got, in a ring as that of sea_mq.cursor_log.
CREATE TABLE sea_mq.stream_progress_log (
    slot smallint NOT NULL,
    number bigint NOT NULL DEFAULT nextval('sea_mq.position_number'),
    sink bigint NOT NULL,
    stream_sequence bigint NOT NULL DEFAULT 0,
    stream_created_us bigint,
    published bigint NOT NULL DEFAULT 0,
    tail_from bigint,
    refilling boolean NOT NULL DEFAULT false,
    not_atomic bigint NOT NULL DEFAULT 0,
    last_not_atomic text,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY LIST (slot);
DO $$
DECLARE
    ring record;
BEGIN
    FOR ring IN SELECT * FROM (VALUES ('cursor_log', 'reader_kind, reader', 'the cursors'),
        ('stream_progress_log', 'sink', 'the streams'' progress')) AS r(name, key, words)
    LOOP
        FOR slot IN 0 .. 1 LOOP
            EXECUTE format('CREATE TABLE sea_mq.%I PARTITION OF sea_mq.%I (PRIMARY KEY (%s, number)) FOR VALUES IN (%s)'
                ' WITH (autovacuum_vacuum_insert_threshold = -1)', ring.name || '_' || slot, ring.name, ring.key, slot);
            EXECUTE format('COMMENT ON TABLE sea_mq.%I IS %L', ring.name || '_' || slot, 'Slot ' || slot || ' of ' || ring.words);
            EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.' || ring.name || '_' || slot);
        END LOOP;
    END LOOP;
END $$;

-- The rows that count.
CREATE VIEW sea_mq.stream_progress AS
SELECT k.sink, p.stream_sequence, p.stream_created_us, p.published, p.tail_from, p.refilling, p.not_atomic, p.last_not_atomic,
    p.updated_at
FROM sea_mq.sinks k
CROSS JOIN LATERAL (SELECT l.* FROM sea_mq.stream_progress_log l WHERE l.sink = k.sink ORDER BY l.number DESC LIMIT 1) p;

CREATE TABLE sea_mq.stream_state (
    sink bigint PRIMARY KEY,
    state text NOT NULL,
    error_kind text,
    error text,
    hint text,
    ordering text NOT NULL DEFAULT 'strict',
    differences jsonb NOT NULL DEFAULT '{}',
    losses bigint NOT NULL DEFAULT 0,
    last_loss text,
    marked_us bigint,
    since timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- One row that the relay writes when its state changes; a heartbeat would be a write of an idle relay.
CREATE TABLE sea_mq.relay_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    state text NOT NULL,
    error_kind text,
    error text,
    hint text,
    failures integer NOT NULL DEFAULT 0,
    server_name text,
    server_version text,
    server_address text,
    max_payload integer,
    pid integer,
    since timestamptz NOT NULL DEFAULT now(),
    expiring_setting text,
    expires_at timestamptz
) WITH (fillfactor = 50);

CREATE TABLE sea_mq.consumers (
    stream text NOT NULL REFERENCES sea_mq.streams ON DELETE CASCADE ON UPDATE CASCADE,
    name text NOT NULL CHECK (name ~ E'^[^[:space:].*>/\\\\]{1,255}$')
        CONSTRAINT consumers_name_not_reserved CHECK (name !~ '^sea_mq__'),
    filter text NOT NULL,
    ack_wait interval NOT NULL DEFAULT '120 s' CHECK (ack_wait BETWEEN '1 ms' AND '1 day'),
    max_deliver integer NOT NULL DEFAULT 20 CHECK (max_deliver = -1 OR max_deliver > 0),
    max_ack_pending integer NOT NULL DEFAULT 50 CHECK (max_ack_pending = -1 OR max_ack_pending > 0),
    deliver_policy text NOT NULL DEFAULT 'all' CHECK (deliver_policy IN ('all', 'new')),
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'ready', 'refused', 'removing')),
    error text,
    take_over boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, name)
);

-- Contexts whose stream could not be described by the emitting transaction itself, because another open transaction
-- was doing so. The key is a number, so nobody waits here. The relay turns them into streams.
CREATE TABLE sea_mq.stream_requests (
    context text NOT NULL,
    kind text NOT NULL,
    number bigint PRIMARY KEY DEFAULT nextval('sea_mq.position_number')
);

-- Streams whose deletion in NATS was asked for, until the broker has confirmed it.
CREATE TABLE sea_mq.stream_deletions (
    name text PRIMARY KEY,
    stream_created_us bigint,
    error text,
    requested_at timestamptz NOT NULL DEFAULT now()
);

-- What a stream holds, published by this installation, and the database does not know: after a recovery to an earlier
-- time, or a failover that lost the last transactions.
CREATE TABLE sea_mq.stream_divergences (
    sink bigint NOT NULL,
    stream text NOT NULL,
    stream_created_us bigint NOT NULL,
    events bigint NOT NULL,
    first_id text NOT NULL,
    first_sequence bigint NOT NULL,
    last_id text NOT NULL,
    last_sequence bigint NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz,
    PRIMARY KEY (sink, stream_created_us, last_sequence)
);

SELECT pg_catalog.pg_extension_config_dump('sea_mq.streams', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.sinks', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.consumers', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.stream_requests', '');

COMMENT ON TABLE sea_mq.streams IS 'JetStream streams as they should be; change them with create_stream, alter_stream, drop_stream';
COMMENT ON COLUMN sea_mq.streams.name IS 'Name in JetStream; {CONTEXT}_EVENTS and {CONTEXT}_DLQ unless given';
COMMENT ON COLUMN sea_mq.streams.context IS 'Bounded context whose events it holds';
COMMENT ON COLUMN sea_mq.streams.kind IS 'event or dlq';
COMMENT ON COLUMN sea_mq.streams.sink IS 'sea_mq.sink_id(context, kind)';
COMMENT ON COLUMN sea_mq.streams.subjects IS 'Subjects; {context}.event.> or {context}.dlq.> unless given';
COMMENT ON COLUMN sea_mq.streams.retention IS 'limits, interest or workqueue; cannot be changed once it exists';
COMMENT ON COLUMN sea_mq.streams.max_age IS 'Age at which messages are removed; 0 for never, 100 years at most';
COMMENT ON COLUMN sea_mq.streams.max_bytes IS 'Size at which the oldest messages are removed, in bytes; -1 for no limit';
COMMENT ON COLUMN sea_mq.streams.max_msgs IS 'Number at which the oldest messages are removed; -1 for no limit';
COMMENT ON COLUMN sea_mq.streams.max_msg_size IS 'Largest message in bytes, headers included; -1 for the server''s limit';
COMMENT ON COLUMN sea_mq.streams.storage IS 'file or memory; cannot be changed once it exists';
COMMENT ON COLUMN sea_mq.streams.replicas IS 'Number of servers that keep a copy; 3 in production';
COMMENT ON COLUMN sea_mq.streams.duplicate_window IS 'How long the broker remembers message ids; sea_mq does not depend on it';
COMMENT ON COLUMN sea_mq.streams.body IS 'payload, or envelope (a CloudEvents 1.0 event)';
COMMENT ON COLUMN sea_mq.streams.metadata IS 'Headers that say what an event is: minimal (X-…), cloudevents (ce-…), or full (both)';
COMMENT ON COLUMN sea_mq.streams.atomic_transactions IS 'Whether each transaction''s events are published as one atomic batch (nats-server 2.12 and later)';
COMMENT ON COLUMN sea_mq.streams.managed IS 'Whether the relay creates and updates it; if not, it is verified only';
COMMENT ON COLUMN sea_mq.streams.owner IS 'install_id of the installation that described it; another one than ours shows a restored copy';
COMMENT ON COLUMN sea_mq.streams.take_over IS 'Whether the relay may take the stream over from another installation (sea_mq.adopt)';
COMMENT ON COLUMN sea_mq.streams.created_at IS 'When it was described';
COMMENT ON COLUMN sea_mq.streams.updated_at IS 'When its description changed last';

COMMENT ON TABLE sea_mq.sinks IS 'The context and kind that each sink stands for';
COMMENT ON COLUMN sea_mq.sinks.sink IS 'sea_mq.sink_id(context, kind)';
COMMENT ON COLUMN sea_mq.sinks.context IS 'Context';
COMMENT ON COLUMN sea_mq.sinks.kind IS 'event or dlq';
COMMENT ON TABLE sea_mq.cursor_log IS 'How far each reader has come in the log: appended by relay and consumer, the greatest number counts. Query sea_mq.cursors instead';
COMMENT ON COLUMN sea_mq.cursor_log.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.cursor_log.number IS 'Of a reader''s rows the one with the greatest counts';
COMMENT ON TABLE sea_mq.stream_progress_log IS 'What each stream has got: appended by the relay, the greatest number counts. Query sea_mq.stream_progress instead';
COMMENT ON COLUMN sea_mq.stream_progress_log.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.stream_progress_log.number IS 'Of a stream''s rows the one with the greatest counts';
COMMENT ON VIEW sea_mq.stream_progress IS 'What each stream has got, as the relay saved it last. Nothing in a transaction whose snapshot is older than a whole turn of the ring';
COMMENT ON COLUMN sea_mq.stream_progress.sink IS 'sea_mq.sink_id(context, kind)';
COMMENT ON COLUMN sea_mq.stream_progress.stream_sequence IS 'Greatest stream sequence of the events before the stream''s cursor';
COMMENT ON COLUMN sea_mq.stream_progress.stream_created_us IS 'Creation time of the stream (microseconds since 1970 UTC): another one means that it was created again';
COMMENT ON COLUMN sea_mq.stream_progress.published IS 'Events stored so far';
COMMENT ON COLUMN sea_mq.stream_progress.tail_from IS 'Stream sequence beyond which later events may be stored already; null: beyond stream_sequence';
COMMENT ON COLUMN sea_mq.stream_progress.refilling IS 'Whether what was published is looked at once more, and published if the stream does not hold it';
COMMENT ON COLUMN sea_mq.stream_progress.not_atomic IS 'Transactions of several events that were published one by one although the stream is to be atomic';
COMMENT ON COLUMN sea_mq.stream_progress.last_not_atomic IS 'The last of them, and why';
COMMENT ON COLUMN sea_mq.stream_progress.updated_at IS 'When the relay saved it';

-- The table of the view, of which the same is true.
DO $$
DECLARE
    remark record;
BEGIN
    FOR remark IN
        SELECT t.attname AS col, col_description(v.attrelid, v.attnum) AS words
        FROM pg_catalog.pg_attribute t
        JOIN pg_catalog.pg_attribute v ON v.attrelid = 'sea_mq.stream_progress'::regclass AND v.attname = t.attname
        WHERE t.attrelid = 'sea_mq.stream_progress_log'::regclass AND t.attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN sea_mq.stream_progress_log.%I IS %L', remark.col, remark.words);
    END LOOP;
END $$;

COMMENT ON TABLE sea_mq.stream_state IS 'What the relay found when it provisioned each stream';
COMMENT ON COLUMN sea_mq.stream_state.sink IS 'sea_mq.sink_id(context, kind)';
COMMENT ON COLUMN sea_mq.stream_state.state IS 'ready, refused or paused';
COMMENT ON COLUMN sea_mq.stream_state.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.stream_state.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.stream_state.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.stream_state.ordering IS 'strict: every publish names the sequence it expects; shared: others publish to the stream too, and a lost message can be overtaken';
COMMENT ON COLUMN sea_mq.stream_state.differences IS 'Settings that differ from the description and were left alone: {name: [wanted, found]}';
COMMENT ON COLUMN sea_mq.stream_state.losses IS 'How often the broker had lost data that it had acknowledged';
COMMENT ON COLUMN sea_mq.stream_state.last_loss IS 'What was lost last';
COMMENT ON COLUMN sea_mq.stream_state.marked_us IS 'Creation time of the stream (microseconds since 1970 UTC) when it last carried this installation''s mark';
COMMENT ON COLUMN sea_mq.stream_state.since IS 'When this state began';

COMMENT ON TABLE sea_mq.stream_divergences IS 'Events that a stream holds and this database has lost, by a recovery to an earlier time or a failover; a row each time that some were found';
COMMENT ON COLUMN sea_mq.stream_divergences.sink IS 'sea_mq.sink_id(context, kind)';
COMMENT ON COLUMN sea_mq.stream_divergences.stream IS 'Name in JetStream';
COMMENT ON COLUMN sea_mq.stream_divergences.stream_created_us IS 'Creation time of the stream (microseconds since 1970 UTC)';
COMMENT ON COLUMN sea_mq.stream_divergences.events IS 'How many';
COMMENT ON COLUMN sea_mq.stream_divergences.first_id IS 'Id of the first';
COMMENT ON COLUMN sea_mq.stream_divergences.first_sequence IS 'Stream sequence of the first';
COMMENT ON COLUMN sea_mq.stream_divergences.last_id IS 'Id of the last';
COMMENT ON COLUMN sea_mq.stream_divergences.last_sequence IS 'Stream sequence of the last';
COMMENT ON COLUMN sea_mq.stream_divergences.found_at IS 'When they were found';
COMMENT ON COLUMN sea_mq.stream_divergences.accepted_at IS 'When it was decided to publish behind them (sea_mq.adopt); null: the relay is paused';

COMMENT ON TABLE sea_mq.relay_state IS 'State of the relay as of its last change';
COMMENT ON COLUMN sea_mq.relay_state.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.relay_state.state IS 'unconfigured, disabled, connecting, connected, waiting or paused';
COMMENT ON COLUMN sea_mq.relay_state.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.relay_state.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.relay_state.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.relay_state.failures IS 'Failed connection attempts in a row, as of the last change of error';
COMMENT ON COLUMN sea_mq.relay_state.server_name IS 'Name of the nats-server connected to last';
COMMENT ON COLUMN sea_mq.relay_state.server_version IS 'Its version';
COMMENT ON COLUMN sea_mq.relay_state.server_address IS 'Its host and port';
COMMENT ON COLUMN sea_mq.relay_state.max_payload IS 'Its largest message in bytes, headers included';
COMMENT ON COLUMN sea_mq.relay_state.pid IS 'Process that wrote this';
COMMENT ON COLUMN sea_mq.relay_state.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.relay_state.expiring_setting IS 'Of the credentials and certificates of the last connection: the setting that names the file of the one that expires first';
COMMENT ON COLUMN sea_mq.relay_state.expires_at IS 'When it expires; NULL: none does';

COMMENT ON TABLE sea_mq.consumers IS 'Durable pull consumers as they should be; see sea_mq.create_consumer';
COMMENT ON COLUMN sea_mq.consumers.stream IS 'Stream that it reads';
COMMENT ON COLUMN sea_mq.consumers.name IS 'Durable name in JetStream';
COMMENT ON COLUMN sea_mq.consumers.filter IS 'Subject filter';
COMMENT ON COLUMN sea_mq.consumers.ack_wait IS 'Time after which an unacknowledged message is delivered again; a day at most';
COMMENT ON COLUMN sea_mq.consumers.max_deliver IS 'Deliveries of one message at most; -1 for no limit';
COMMENT ON COLUMN sea_mq.consumers.max_ack_pending IS 'Unacknowledged messages at most; -1 for no limit';
COMMENT ON COLUMN sea_mq.consumers.deliver_policy IS 'all: from the stream''s first message; new: from the next one';
COMMENT ON COLUMN sea_mq.consumers.state IS 'pending, ready, refused or removing';
COMMENT ON COLUMN sea_mq.consumers.error IS 'Why it was refused, or could not be removed';
COMMENT ON COLUMN sea_mq.consumers.take_over IS 'Whether it may be taken over from another installation (sea_mq.adopt)';
COMMENT ON COLUMN sea_mq.consumers.updated_at IS 'When the row changed last';

COMMENT ON TABLE sea_mq.stream_requests IS 'Contexts whose stream the relay is still to describe; normally empty';
COMMENT ON COLUMN sea_mq.stream_requests.context IS 'Context';
COMMENT ON COLUMN sea_mq.stream_requests.kind IS 'event or dlq';
COMMENT ON COLUMN sea_mq.stream_requests.number IS 'Number of the request';
COMMENT ON TABLE sea_mq.stream_deletions IS 'Streams that the relay is still to delete in NATS; normally empty';
COMMENT ON COLUMN sea_mq.stream_deletions.name IS 'Stream';
COMMENT ON COLUMN sea_mq.stream_deletions.stream_created_us IS 'Creation time of the stream that is meant (microseconds since 1970 UTC); NULL: not known';
COMMENT ON COLUMN sea_mq.stream_deletions.error IS 'Why the last attempt failed, or why it is not deleted: sea_mq deletes only what carries this installation''s mark';
COMMENT ON COLUMN sea_mq.stream_deletions.requested_at IS 'When it was asked for';

-- Who may use it.
GRANT SELECT ON sea_mq.streams TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.consumers, sea_mq.stream_divergences TO sea_mq_operator, sea_mq_monitor;
