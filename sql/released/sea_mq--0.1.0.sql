-- The schema is created here and without IF NOT EXISTS: one that somebody made beforehand is an error.
CREATE SCHEMA sea_mq;
COMMENT ON SCHEMA sea_mq IS 'sea_mq: transactional messaging over NATS JetStream';
CREATE SCHEMA sea_mq_inside;
COMMENT ON SCHEMA sea_mq_inside IS 'What functions of sea_mq do as the extension''s owner; nobody else has a right on it';

CREATE FUNCTION sea_mq.library_version() RETURNS text LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'library_version_wrapper';
COMMENT ON FUNCTION sea_mq.library_version IS
'Version of the library that this session has loaded. The version of the SQL is in pg_extension; sea_mq.problems says when they differ';

CREATE FUNCTION sea_mq.check_library() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- While a script runs, this is the version that it leads to.
    needed text := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'sea_mq');
BEGIN
    IF string_to_array(sea_mq.library_version(), '.')::integer[] < string_to_array(needed, '.')::integer[] THEN
        RAISE EXCEPTION 'the SQL is of version % and the library of version %', needed, sea_mq.library_version()
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = format('Install version %s of the library (the package of this server''s major), restart the server, and say it again.', needed);
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_library IS 'Refuses a script that is newer than the library; for internal use';

DO $$
BEGIN
    PERFORM sea_mq.check_library();
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'sea_mq needs a database with the encoding UTF8, this one has %', current_setting('server_encoding')
            USING ERRCODE = 'feature_not_supported', HINT = 'NATS subjects, headers and JSON are UTF-8.';
    END IF;
END $$;

-- Roles belong to the cluster, so another database may have created them already. DROP EXTENSION leaves them.
DO $$
DECLARE
    role record;
BEGIN
    FOR role IN
        SELECT * FROM (VALUES
            ('sea_mq_producer', 'sea_mq: may emit events'),
            ('sea_mq_consumer', 'sea_mq: may receive events'),
            ('sea_mq_operator', 'sea_mq: may manage streams, consumers and the workers'),
            ('sea_mq_monitor', 'sea_mq: may read the status views'),
            ('sea_mq_viewer', 'sea_mq: may read states and counts, no payload and no text of an error'),
            ('sea_mq_owner', 'sea_mq: owns the messages; the workers act as it, and nobody is a member')) AS r(name, purpose)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role.name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role.name);
            EXECUTE format('COMMENT ON ROLE %I IS %L', role.name, role.purpose);
        END IF;
    END LOOP;
    -- Somebody may have made it beforehand, with more rights than it is meant to have.
    IF EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'sea_mq_owner'
        AND (r.rolsuper OR r.rolcanlogin OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls))
        OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = 'sea_mq_owner'::regrole)
    THEN
        RAISE EXCEPTION 'role "sea_mq_owner" has rights that the owner of messages must not have'
            USING ERRCODE = 'invalid_grant_operation',
                HINT = 'ALTER ROLE sea_mq_owner NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS, and revoke from it what it was made a member of.';
    END IF;
END $$;

-- Who called: inside the door (sql/api/door.sql, src/host/door.rs) the role in force is the owner's.
CREATE FUNCTION sea_mq.caller() RETURNS oid
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'caller_wrapper';
COMMENT ON FUNCTION sea_mq.caller IS 'The role that called a function of the extension which does its work as the extension''s owner; for internal use';

-- Behind a gateway or a pooler everybody has the same session_user.
CREATE FUNCTION sea_mq.caller_name() RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT pg_get_userbyid(sea_mq.caller())';
COMMENT ON FUNCTION sea_mq.caller_name IS 'The name of the role in force when a function of the extension was called; for internal use';

CREATE FUNCTION sea_mq.actor() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT left(nullif(btrim(regexp_replace(current_setting('sea_mq.actor', true), '[[:cntrl:]]+', ' ', 'g')), ''), 200)
$$;
COMMENT ON FUNCTION sea_mq.actor IS 'Whom the caller claims to act for (sea_mq.actor), one line of 200 characters at most; for internal use';

CREATE FUNCTION sea_mq.may_be(role oid, other oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    -- From 16 on a membership need not give the right to become the other role, nor its rights.
    SELECT coalesce(CASE WHEN current_setting('server_version_num')::integer < 160000 THEN pg_has_role($1, $2, 'MEMBER')
        ELSE pg_has_role($1, $2, 'SET') OR pg_has_role($1, $2, 'USAGE') END, false)
$$;
COMMENT ON FUNCTION sea_mq.may_be IS 'Whether one role can act as another; false if one of them does not exist; for internal use';

-- Roles are known by their OIDs, which a dump does not have: this is for what it brings, and for nothing that decides later.
CREATE FUNCTION sea_mq.role_named(name name) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT r.oid FROM pg_roles r WHERE r.rolname = $1';
COMMENT ON FUNCTION sea_mq.role_named IS 'The role of a name; NULL if there is none; for internal use';

CREATE FUNCTION sea_mq.pin_creator() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.created_by_oid := sea_mq.role_named(NEW.created_by);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION sea_mq.pin_creator IS 'Trigger function: which role created it';
-- The owner, and operators, may do what concerns it.
CREATE FUNCTION sea_mq.may_manage(creator oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_has_role(sea_mq.caller(), 'sea_mq_operator', 'USAGE') OR sea_mq.may_be(sea_mq.caller(), $1)
$$;
COMMENT ON FUNCTION sea_mq.may_manage IS 'Whether the caller is an operator or a member of the role that created something; for internal use';

-- Backends keep what they have read of some tables; this tells them, at the commit, to read one of them again.
CREATE FUNCTION sea_mq.table_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'table_changed_wrapper';
COMMENT ON FUNCTION sea_mq.table_changed IS 'Trigger function: backends are to read the table again; for internal use';

-- Who this installation is. Deliberately not part of a dump: a restored copy gets an identity of its own, and what it
-- carries of the original's (streams.owner, the xids in the log) shows that it is a copy.
CREATE TABLE sea_mq.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    install_id uuid NOT NULL DEFAULT gen_random_uuid(),
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now(),
    lease_epoch bigint NOT NULL DEFAULT 0,
    cleared_server text,
    fenced text,
    adopting boolean NOT NULL DEFAULT false,
    test_mode boolean NOT NULL DEFAULT false
);
INSERT INTO sea_mq.installation (system_identifier, database_oid)
SELECT s.system_identifier, d.oid
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
WHERE d.datname = current_database();

COMMENT ON TABLE sea_mq.installation IS 'Identity of this installation; one row, not part of a dump';
COMMENT ON COLUMN sea_mq.installation.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.installation.install_id IS 'Written into the metadata of the streams that this installation owns';
COMMENT ON COLUMN sea_mq.installation.system_identifier IS 'The cluster''s system identifier when the identity was taken: another one means that the database was moved to another cluster';
COMMENT ON COLUMN sea_mq.installation.database_oid IS 'The database''s OID when the identity was taken: another one means that the database was copied';
COMMENT ON COLUMN sea_mq.installation.installed_at IS 'When the identity was taken';
COMMENT ON COLUMN sea_mq.installation.lease_epoch IS 'The last epoch in which this database''s relay had the installation''s lease at the broker';
COMMENT ON COLUMN sea_mq.installation.cleared_server IS 'The run of the server in which the relay found that no other relay is in the way';
COMMENT ON COLUMN sea_mq.installation.fenced IS 'Why this database publishes and receives nothing: another relay has the lease; sea_mq.adopt() clears it';
COMMENT ON COLUMN sea_mq.installation.adopting IS 'Whether the relay is to take the lease whoever has it (sea_mq.adopt)';
COMMENT ON COLUMN sea_mq.installation.test_mode IS 'Whether there is no broker for this database and its copies, whatever the settings say (sea_mq.test_mode)';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.library_version TO sea_mq_operator, sea_mq_monitor;

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

-- What is committed and not published, found through the cursors and never by looking at what is published: every view and
-- function that asks for it asks here. Without plans, which are made while tables are empty and serve when they are full.

CREATE FUNCTION sea_mq.backlog_of(sink bigint, up_to bigint, OUT pending bigint, OUT first bigint, OUT oldest timestamptz)
RETURNS SETOF record LANGUAGE c STABLE STRICT PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'backlog_of_wrapper';
COMMENT ON FUNCTION sea_mq.backlog_of IS
'What of a sink is committed and not published, as of the cursor last saved, in one row: how many, counted to up_to, the first place,
and since when; for internal use';

CREATE FUNCTION sea_mq.unpublished_sinks(OUT sink bigint, OUT first bigint)
RETURNS SETOF record LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 2 AS 'MODULE_PATHNAME', 'unpublished_sinks_wrapper';
COMMENT ON FUNCTION sea_mq.unpublished_sinks IS 'The sinks of which something in the log is not published, with its first place; for internal use';

CREATE FUNCTION sea_mq.pending_count(sink bigint, up_to bigint DEFAULT 10000) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT b.pending FROM sea_mq.backlog_of($1, $2 + 1) b';
COMMENT ON FUNCTION sea_mq.pending_count IS
'How many events of a sink are committed and not yet published, as of the cursor last saved; counts up to up_to + 1';

-- 0 stands for what sea_mq.outbox_events shows and does not find in the log.
CREATE FUNCTION sea_mq.unpublished(OUT sinks bigint[], OUT first bigint)
RETURNS record LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(u.sink), '{}') || 0::bigint, coalesce(min(u.first), 9223372036854775807)
    FROM sea_mq.unpublished_sinks() u
$$;
COMMENT ON FUNCTION sea_mq.unpublished IS
'The sinks of which something is not published, and before which place in the log all is; as of the cursors last saved. For internal use';

CREATE FUNCTION sea_mq.pending_events_of(sink bigint, OUT pending bigint, OUT oldest timestamptz)
RETURNS record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT b.pending, b.oldest FROM sea_mq.backlog_of($1, 10001) b
$$;
COMMENT ON FUNCTION sea_mq.pending_events_of IS 'Unpublished events of a sink: how many (10,001 stands for more than 10,000) and since when';

-- What sea_mq.outbox_events shows of a place in the log: looked up for each row that is shown, without a plan, once under a snapshot.
CREATE FUNCTION sea_mq.is_passed(sink bigint, seq bigint, xid xid8) RETURNS boolean
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'is_passed_wrapper';
COMMENT ON FUNCTION sea_mq.is_passed IS 'Whether the cursor of an event''s sink has passed it; for internal use';
CREATE FUNCTION sea_mq.stored_at(sink bigint, seq bigint, xid xid8) RETURNS timestamptz
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stored_at_wrapper';
COMMENT ON FUNCTION sea_mq.stored_at IS 'When the relay recorded that an event was stored; for internal use';
CREATE FUNCTION sea_mq.stored_as(sink bigint, seq bigint, xid xid8) RETURNS bigint
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stored_as_wrapper';
COMMENT ON FUNCTION sea_mq.stored_as IS 'An event''s sequence in its stream; for internal use';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.unpublished, sea_mq.is_passed, sea_mq.stored_at, sea_mq.stored_as TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.pending_events_of TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;

CREATE FUNCTION sea_mq.emit(
    aggregate_type text, aggregate_id text, event_type text, payload jsonb,
    event_version integer DEFAULT 1, context text DEFAULT NULL, event_id uuid DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, headers jsonb DEFAULT NULL,
    visibility text DEFAULT NULL, available_at timestamptz DEFAULT NULL)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'emit_wrapper';
-- What drivers bind to emit as it is: an integer or a uuid as aggregate_id, and JSON as text or json. Each form is a function of
-- its own, and none may be in the way of the one above, which literals and parameters without a type mean. PostgreSQL's rules
-- see to it (10.3 of its manual):
--   * where both fit, an exact type wins, then the preferred type of its kind. text is that of strings, a domain over text is not:
--     so the forms with plain_text are chosen only where the others do not fit.
--   * a literal without a type goes to text where a form takes text. json_text is of jsonb's kind (U), not of the strings', so it
--     takes no such literal away from jsonb, and a parameter without a type is a jsonb.
CREATE DOMAIN sea_mq.plain_text AS text;
COMMENT ON DOMAIN sea_mq.plain_text IS 'text that PostgreSQL does not prefer when it chooses between functions';
CREATE TYPE sea_mq.json_text;
CREATE FUNCTION sea_mq.json_text_in(cstring) RETURNS sea_mq.json_text LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'json_in';
CREATE FUNCTION sea_mq.json_text_out(sea_mq.json_text) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'json_out';
COMMENT ON FUNCTION sea_mq.json_text_in(cstring) IS 'Input of sea_mq.json_text; for internal use';
COMMENT ON FUNCTION sea_mq.json_text_out(sea_mq.json_text) IS 'Output of sea_mq.json_text; for internal use';
CREATE TYPE sea_mq.json_text (INPUT = sea_mq.json_text_in, OUTPUT = sea_mq.json_text_out, LIKE = json, CATEGORY = 'U');
COMMENT ON TYPE sea_mq.json_text IS 'JSON in whatever type a driver sends it: text, varchar, json or jsonb';
CREATE CAST (text AS sea_mq.json_text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (varchar AS sea_mq.json_text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (json AS sea_mq.json_text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (jsonb AS sea_mq.json_text) WITH INOUT AS IMPLICIT;
COMMENT ON CAST (text AS sea_mq.json_text) IS 'For arguments of sea_mq.emit; emit checks that it is JSON';
COMMENT ON CAST (varchar AS sea_mq.json_text) IS 'For arguments of sea_mq.emit; emit checks that it is JSON';
COMMENT ON CAST (json AS sea_mq.json_text) IS 'For arguments of sea_mq.emit';
COMMENT ON CAST (jsonb AS sea_mq.json_text) IS 'For arguments of sea_mq.emit';

-- The same for ids: a uuid in whatever type a driver sends it. It is stored as one.
CREATE TYPE sea_mq.id_text;
CREATE FUNCTION sea_mq.id_text_in(cstring) RETURNS sea_mq.id_text LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'uuid_in';
CREATE FUNCTION sea_mq.id_text_out(sea_mq.id_text) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'uuid_out';
COMMENT ON FUNCTION sea_mq.id_text_in(cstring) IS 'Input of sea_mq.id_text; for internal use';
COMMENT ON FUNCTION sea_mq.id_text_out(sea_mq.id_text) IS 'Output of sea_mq.id_text; for internal use';
CREATE TYPE sea_mq.id_text (INPUT = sea_mq.id_text_in, OUTPUT = sea_mq.id_text_out, LIKE = uuid, CATEGORY = 'U');
COMMENT ON TYPE sea_mq.id_text IS 'A uuid in whatever type a driver sends it: text, varchar or uuid';
CREATE CAST (text AS sea_mq.id_text) WITH INOUT AS IMPLICIT;
CREATE CAST (varchar AS sea_mq.id_text) WITH INOUT AS IMPLICIT;
CREATE CAST (uuid AS sea_mq.id_text) WITHOUT FUNCTION AS IMPLICIT;
COMMENT ON CAST (text AS sea_mq.id_text) IS 'For arguments of sea_mq.emit. Error 22P02: no uuid';
COMMENT ON CAST (varchar AS sea_mq.id_text) IS 'For arguments of sea_mq.emit. Error 22P02: no uuid';
COMMENT ON CAST (uuid AS sea_mq.id_text) IS 'For arguments of sea_mq.emit';

CREATE FUNCTION sea_mq.emit(
    aggregate_type text, aggregate_id anynonarray, event_type text, payload jsonb,
    event_version integer DEFAULT 1, context text DEFAULT NULL, event_id uuid DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, headers jsonb DEFAULT NULL,
    visibility text DEFAULT NULL, available_at timestamptz DEFAULT NULL)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'emit_key_wrapper';
CREATE FUNCTION sea_mq.emit(
    aggregate_type sea_mq.plain_text, aggregate_id text, event_type sea_mq.plain_text, payload sea_mq.json_text,
    event_version integer DEFAULT 1, context text DEFAULT NULL, event_id sea_mq.id_text DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, headers sea_mq.json_text DEFAULT NULL,
    visibility text DEFAULT NULL, available_at timestamptz DEFAULT NULL)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'emit_text_wrapper';
CREATE FUNCTION sea_mq.emit(
    aggregate_type sea_mq.plain_text, aggregate_id anynonarray, event_type sea_mq.plain_text, payload sea_mq.json_text,
    event_version integer DEFAULT 1, context text DEFAULT NULL, event_id sea_mq.id_text DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, headers sea_mq.json_text DEFAULT NULL,
    visibility text DEFAULT NULL, available_at timestamptz DEFAULT NULL)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'emit_key_text_wrapper';

DO $$
DECLARE
    form record;
BEGIN
    FOR form IN
        SELECT p.oid::regprocedure AS name,
            concat_ws(' and ', CASE WHEN p.proargtypes[1] <> 'text'::regtype THEN 'an aggregate_id that is an integer, a uuid or an enum' END,
                CASE WHEN p.proargtypes[3] <> 'jsonb'::regtype THEN 'JSON as text or json, and event_id as text' END) AS takes
        FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'sea_mq'::regnamespace AND p.proname = 'emit'
    LOOP
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', form.name, CASE form.takes WHEN '' THEN
'Emits an event in the current transaction and returns its id. It exists if and only if the transaction commits, and is then
published on {context}.event.{event_type}.v{event_version}. With event_id, repeating the same event is a no-op for as
long as the first is retained (sea_mq.retention). event_version: NULL stands for 1. visibility: NULL stands for the registered one
(sea_mq.event_types), else internal.
sea_mq.contracts says whether the event is checked against its contract. Errors: 22004 (a required argument is NULL), 22023 (a value
cannot be used), 23514 (the contract is broken), 42704 (no context, or not registered), 54000 (too large), 23505 (event_id used for
other content), 25006 (read-only transaction), 55000 (the transaction is already committing)'
            ELSE 'emit with ' || form.takes || '. Errors: as the form with text and jsonb; 22P02 (no JSON), 42804 (no such id)' END);
    END LOOP;
END $$;

CREATE FUNCTION sea_mq.emit_many(events jsonb[]) RETURNS SETOF uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'emit_many_wrapper';
COMMENT ON FUNCTION sea_mq.emit_many IS
'Emits many events in order; each is an object whose keys are emit''s parameters. Returns their ids in the same order. If one is
refused, none is emitted. Errors are those of emit, with the place of the event in the array';

-- Not a second emit_many: a parameter without a type could then be either.
CREATE FUNCTION sea_mq.emit_array(events jsonb) RETURNS SETOF uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'emit_array_wrapper';
COMMENT ON FUNCTION sea_mq.emit_array IS
'emit_many for one JSON array of objects, as jsonb_agg gives it. Errors: as emit_many; 22023 (no array)';

CREATE FUNCTION sea_mq.pending_events(
    OUT id uuid, OUT context text, OUT subject text, OUT aggregate_type text, OUT aggregate_id text, OUT event_type text,
    OUT event_version integer, OUT payload jsonb, OUT headers jsonb, OUT created_at timestamptz, OUT available_at timestamptz,
    OUT correlation_id text, OUT causation_id text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pending_events_wrapper';
COMMENT ON FUNCTION sea_mq.pending_events IS
'The events that the current transaction will send if it commits, in the order in which they will be stored; those of captured tables are
shown to those who may read the table';

CREATE FUNCTION sea_mq.event_name(name text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'event_name_wrapper';
COMMENT ON FUNCTION sea_mq.event_name IS 'The normalised form of an event name: OrderCreated → order_created. Error 22023: NATS cannot carry it';

CREATE FUNCTION sea_mq.context_name(name text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'context_name_wrapper';
COMMENT ON FUNCTION sea_mq.context_name IS 'The normalised form of a context name. Error 22023: NATS cannot carry it';

CREATE FUNCTION sea_mq.sink_id(context text, kind text) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'sink_id_wrapper';
COMMENT ON FUNCTION sea_mq.sink_id IS 'The id under which a context''s events (kind event) or dead letters (kind dlq) stand in the log';

-- The view is written so that what people ask it is answered from an index, whatever is retained and whatever the planner knows:
--   * what it reads is one UNION ALL of tables without a condition or join of their own, so that ORDER BY seq LIMIT merges the
--     slots' indexes, and conditions go down to them;
--   * the rest of the columns is looked up for the rows that are shown, by functions that have their own plans;
--   * NOT published becomes conditions on sink and seq (sea_mq.unpublished) before a row is looked at.
-- What the broker has refused stands in publish_failures: shown from there, it does not pull that range down to its place.
-- reader 0 and the greatest place stand for what is not published and not looked for in the log.
CREATE VIEW sea_mq.outbox_events AS
SELECT l.id, l.seq, l.context, l.aggregate_type, l.aggregate_id, l.event_type, l.event_version,
    coalesce(l.subject, l.context || '.event.' || l.event_type || '.v' || l.event_version) AS subject,
    l.payload::jsonb AS payload, l.headers::jsonb AS headers,
    coalesce(l.correlation_id, l.id::text) AS correlation_id, l.causation_id, l.visibility, l.created_at, l.available_at,
    -- What is not passed decides. The first two conditions say the same to an index, and the next two to the planner alone:
    -- that there are few, and no query worth compiling.
    NOT (l.reader = ANY ((SELECT u.sinks FROM sea_mq.unpublished() u)::bigint[])
        AND l.place BETWEEN (SELECT u.first FROM sea_mq.unpublished() u) AND 9223372036854775807
        AND l.place + 0 BETWEEN 0 AND (SELECT 9223372036854775807)
        AND l.place - 0 BETWEEN 0 AND (SELECT 9223372036854775807)
        AND NOT p.passed) AS published,
    sea_mq.stored_at(l.sink, l.seq, l.xid) AS published_at,
    l.publish_error,
    coalesce(l.attempts, p.passed::integer) AS attempts,
    (SELECT s.name FROM sea_mq.streams s WHERE s.sink = l.sink) AS stream,
    sea_mq.stored_as(l.sink, l.seq, l.xid) AS stream_seq
FROM (
    SELECT o.id, o.seq, o.seq AS place, o.xid, o.sink, o.sink AS reader, o.context, o.aggregate_type, o.aggregate_id, o.event_type,
        o.event_version, o.subject, o.payload, o.headers, o.correlation_id, o.causation_id, o.visibility, o.created_at,
        o.available_at, NULL::text AS publish_error, NULL::integer AS attempts, false AS refused
    FROM sea_mq.outbox_log o
    UNION ALL
    SELECT e.id, NULL, 9223372036854775807, NULL, e.sink, 0::bigint, e.context, e.aggregate_type, e.aggregate_id, e.event_type,
        e.event_version, e.subject, e.payload, e.headers, e.correlation_id, e.causation_id, e.visibility, e.created_at,
        e.available_at, NULL, 0, NULL
    FROM sea_mq.scheduled_events e
    UNION ALL
    SELECT r.id, f.seq, 9223372036854775807, NULL, r.sink, 0::bigint, r.context, r.aggregate_type, r.aggregate_id, r.event_type,
        r.event_version, r.subject, r.payload, r.headers, r.correlation_id, r.causation_id, r.visibility, r.created_at,
        r.available_at, f.error, f.attempts, true
    FROM sea_mq.publish_failures f
    CROSS JOIN LATERAL jsonb_populate_record(NULL::sea_mq.outbox_log, f.event) r
    WHERE r.id IS NOT NULL AND f.seq >= (SELECT min(o.seq) FROM sea_mq.outbox_log o)
) l
CROSS JOIN LATERAL (SELECT sea_mq.is_passed(l.sink, l.seq, l.xid) AS passed) p
WHERE l.refused IS DISTINCT FROM false OR l.seq <> ALL (ARRAY(SELECT f.seq FROM sea_mq.publish_failures f
    WHERE f.event ->> 'id' IS NOT NULL));

COMMENT ON VIEW sea_mq.outbox_events IS
'One row per retained event. INSERT (aggregate_type, aggregate_id, event_type, payload, …) emits an event';
COMMENT ON COLUMN sea_mq.outbox_events.id IS 'Event id; sent as Nats-Msg-Id';
COMMENT ON COLUMN sea_mq.outbox_events.seq IS 'Place in the log; NULL while the event is held back';
COMMENT ON COLUMN sea_mq.outbox_events.context IS 'Bounded context';
COMMENT ON COLUMN sea_mq.outbox_events.aggregate_type IS 'Type of the aggregate that changed';
COMMENT ON COLUMN sea_mq.outbox_events.aggregate_id IS 'Id of the aggregate that changed';
COMMENT ON COLUMN sea_mq.outbox_events.event_type IS 'Normalised event name';
COMMENT ON COLUMN sea_mq.outbox_events.event_version IS 'Version of the event type';
COMMENT ON COLUMN sea_mq.outbox_events.subject IS 'NATS subject';
COMMENT ON COLUMN sea_mq.outbox_events.payload IS 'Content';
COMMENT ON COLUMN sea_mq.outbox_events.headers IS 'The caller''s headers';
COMMENT ON COLUMN sea_mq.outbox_events.correlation_id IS 'Correlation id';
COMMENT ON COLUMN sea_mq.outbox_events.causation_id IS 'Causation id';
COMMENT ON COLUMN sea_mq.outbox_events.visibility IS 'public, partner, internal or sensitive';
COMMENT ON COLUMN sea_mq.outbox_events.created_at IS 'When emit was called';
COMMENT ON COLUMN sea_mq.outbox_events.available_at IS 'Until when the event is or was held back';
COMMENT ON COLUMN sea_mq.outbox_events.published IS 'Whether the broker has acknowledged it, as of the cursor last saved';
COMMENT ON COLUMN sea_mq.outbox_events.published_at IS 'When the relay recorded the acknowledgement';
COMMENT ON COLUMN sea_mq.outbox_events.publish_error IS 'Why the broker will never take it';
COMMENT ON COLUMN sea_mq.outbox_events.attempts IS 'Attempts that count: the one that succeeded, or those that failed by the event''s own fault';
COMMENT ON COLUMN sea_mq.outbox_events.stream IS 'Stream that it goes to';
COMMENT ON COLUMN sea_mq.outbox_events.stream_seq IS 'Its sequence in the stream';

CREATE FUNCTION sea_mq.outbox_events_insert() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.id := sea_mq.emit(NEW.aggregate_type, NEW.aggregate_id, NEW.event_type, NEW.payload, coalesce(NEW.event_version, 1),
        NEW.context, NEW.id, NEW.correlation_id, NEW.causation_id, NEW.headers, NEW.visibility, NEW.available_at);
    NEW.published := false;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION sea_mq.outbox_events_insert IS 'Trigger function: INSERT into sea_mq.outbox_events is emit';
CREATE TRIGGER emit INSTEAD OF INSERT ON sea_mq.outbox_events
FOR EACH ROW EXECUTE FUNCTION sea_mq.outbox_events_insert();

CREATE FUNCTION sea_mq.outbox_events_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the outbox is append-only: % is not possible', TG_OP
        USING ERRCODE = 'feature_not_supported', HINT = 'Emit a further event that corrects the first.';
END $$;
COMMENT ON FUNCTION sea_mq.outbox_events_refuse IS 'Trigger function: the outbox is append-only';
CREATE TRIGGER append_only INSTEAD OF UPDATE OR DELETE ON sea_mq.outbox_events
FOR EACH ROW EXECUTE FUNCTION sea_mq.outbox_events_refuse();
COMMENT ON TRIGGER emit ON sea_mq.outbox_events IS 'INSERT is emit';
COMMENT ON TRIGGER append_only ON sea_mq.outbox_events IS 'UPDATE and DELETE are errors';

-- Who may use it.
GRANT EXECUTE ON FUNCTION
    sea_mq.emit(text, text, text, jsonb, integer, text, uuid, text, text, jsonb, text, timestamptz),
    sea_mq.emit(text, anynonarray, text, jsonb, integer, text, uuid, text, text, jsonb, text, timestamptz),
    sea_mq.emit(sea_mq.plain_text, text, sea_mq.plain_text, sea_mq.json_text, integer, text, sea_mq.id_text, text, text, sea_mq.json_text,
        text, timestamptz),
    sea_mq.emit(sea_mq.plain_text, anynonarray, sea_mq.plain_text, sea_mq.json_text, integer, text, sea_mq.id_text, text, text,
        sea_mq.json_text, text, timestamptz)
    TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.emit_many, sea_mq.emit_array, sea_mq.pending_events TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.event_name, sea_mq.context_name TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.outbox_events TO sea_mq_operator, sea_mq_monitor;
-- The ids are for INSERT … RETURNING id.
GRANT INSERT, SELECT (id) ON sea_mq.outbox_events TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.sink_id TO sea_mq_operator, sea_mq_monitor;
-- A parameter whose value is known when the statement is planned is cast by these, with the rights of the caller.
GRANT EXECUTE ON FUNCTION sea_mq.json_text_in, sea_mq.json_text_out, sea_mq.id_text_in, sea_mq.id_text_out
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator;

-- ASCII letters alone become capitals: others would by the rules of the database's locale, where two contexts may have the
-- same capitals (i and ı) and two databases have different rules for one context.
CREATE FUNCTION sea_mq.default_stream(context text, kind text) RETURNS sea_mq.streams
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT upper($1 COLLATE "C") || CASE $2 WHEN 'event' THEN '_EVENTS' ELSE '_DLQ' END, $1, $2, sea_mq.sink_id($1, $2),
        ARRAY[$1 || '.' || $2 || '.>'], 'limits', interval '7 days',
        CASE $2 WHEN 'event' THEN 10737418240 ELSE 1073741824 END, -1::bigint, -1, 'file', 1, interval '2 minutes',
        'payload', 'minimal', false, true, i.install_id, false, now(), now()
    FROM sea_mq.installation i
$$;
COMMENT ON FUNCTION sea_mq.default_stream IS 'The description of a context''s stream with all defaults';

-- Called by emit's pre-commit hook, as the extension's owner, for a context that has no stream yet.
CREATE FUNCTION sea_mq.describe_default_stream(context text, kind text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.streams
    SELECT (sea_mq.default_stream($1, k)).* FROM (VALUES ('event'), ('dlq')) AS kinds(k)
    WHERE k = $2 OR k = 'dlq'
    ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION sea_mq.describe_default_stream IS
'Describes the stream of a context with the defaults, unless there is one; an event stream comes with its dead-letter stream.
For internal use';

CREATE FUNCTION sea_mq.create_stream(
    context text, name text DEFAULT NULL, subjects text[] DEFAULT NULL, kind text DEFAULT 'event',
    retention text DEFAULT 'limits', max_age interval DEFAULT '7 days', max_bytes bigint DEFAULT NULL,
    max_msgs bigint DEFAULT -1, max_msg_size integer DEFAULT -1, storage text DEFAULT 'file', replicas integer DEFAULT 1,
    duplicate_window interval DEFAULT '2 minutes', body text DEFAULT 'payload', managed boolean DEFAULT true,
    atomic_transactions boolean DEFAULT false, metadata text DEFAULT 'minimal')
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ctx text := sea_mq.context_name(context);
    new_name text;
BEGIN
    IF ctx IS NULL THEN
        RAISE EXCEPTION 'context must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Pass the name of the bounded context, as in ''orders''.';
    END IF;
    IF kind IS NULL OR kind NOT IN ('event', 'dlq') THEN
        RAISE EXCEPTION 'kind "%" is not known', kind
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use event or dlq.';
    END IF;
    new_name := coalesce(create_stream.name, upper(ctx COLLATE "C") || CASE kind WHEN 'event' THEN '_EVENTS' ELSE '_DLQ' END);
    IF new_name = 'SEA_MQ_RELAYS' THEN
        RAISE EXCEPTION 'the name "%" is reserved', new_name
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the stream another name: sea_mq keeps in that one which relay publishes.';
    END IF;
    INSERT INTO sea_mq.streams (name, context, kind, sink, subjects, retention, max_age, max_bytes, max_msgs, max_msg_size,
        storage, replicas, duplicate_window, body, metadata, atomic_transactions, managed, owner)
    SELECT new_name, ctx, create_stream.kind, sea_mq.sink_id(ctx, create_stream.kind),
        coalesce(create_stream.subjects, ARRAY[ctx || '.' || create_stream.kind || '.>']), create_stream.retention,
        create_stream.max_age, coalesce(create_stream.max_bytes, d.max_bytes), create_stream.max_msgs, create_stream.max_msg_size, create_stream.storage,
        create_stream.replicas, create_stream.duplicate_window, create_stream.body, create_stream.metadata, create_stream.atomic_transactions,
        create_stream.managed, i.install_id
    FROM sea_mq.installation i, sea_mq.default_stream(ctx, create_stream.kind) d;
    IF create_stream.kind = 'event' THEN
        PERFORM sea_mq.describe_default_stream(ctx, 'dlq');
    END IF;
    PERFORM sea_mq.wake_at_commit();
    RETURN new_name;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'there is a stream for context "%" already, or one with that name', ctx
        USING ERRCODE = 'duplicate_object', HINT = 'See sea_mq.streams; change it with sea_mq.alter_stream.';
WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the stream cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'max_age is 0 to 100 years, duplicate_window 100 ms to 100 years; see the constraints of sea_mq.streams for the others.';
END $$;
COMMENT ON FUNCTION sea_mq.create_stream IS
'Describes a context''s stream and returns its name; the relay creates it in JetStream. Parameters are the columns of
sea_mq.streams. max_bytes is 10 GiB, and 1 GiB for dead letters, unless given. A context''s event stream comes with its dead-letter stream. Errors: 22004, 22023, 42710 (exists already)';

CREATE FUNCTION sea_mq.alter_stream(
    name text, subjects text[] DEFAULT NULL, max_age interval DEFAULT NULL, max_bytes bigint DEFAULT NULL,
    max_msgs bigint DEFAULT NULL, max_msg_size integer DEFAULT NULL, storage text DEFAULT NULL, retention text DEFAULT NULL,
    replicas integer DEFAULT NULL, duplicate_window interval DEFAULT NULL, body text DEFAULT NULL, managed boolean DEFAULT NULL,
    atomic_transactions boolean DEFAULT NULL, metadata text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    UPDATE sea_mq.streams s SET
        subjects = coalesce(alter_stream.subjects, s.subjects), max_age = coalesce(alter_stream.max_age, s.max_age),
        max_bytes = coalesce(alter_stream.max_bytes, s.max_bytes), max_msgs = coalesce(alter_stream.max_msgs, s.max_msgs),
        max_msg_size = coalesce(alter_stream.max_msg_size, s.max_msg_size), storage = coalesce(alter_stream.storage, s.storage),
        retention = coalesce(alter_stream.retention, s.retention), replicas = coalesce(alter_stream.replicas, s.replicas),
        duplicate_window = coalesce(alter_stream.duplicate_window, s.duplicate_window),
        body = coalesce(alter_stream.body, s.body), metadata = coalesce(alter_stream.metadata, s.metadata), managed = coalesce(alter_stream.managed, s.managed),
        atomic_transactions = coalesce(alter_stream.atomic_transactions, s.atomic_transactions), updated_at = now()
    WHERE s.name = alter_stream.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no stream "%"', alter_stream.name
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.streams.';
    END IF;
    PERFORM sea_mq.wake_at_commit();
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'the stream cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'max_age is 0 to 100 years, duplicate_window 100 ms to 100 years; see the constraints of sea_mq.streams for the others.';
END $$;
COMMENT ON FUNCTION sea_mq.alter_stream IS
'Changes the description of a stream; NULL leaves a setting as it is. The relay updates the stream in JetStream; what JetStream
refuses to change (storage, retention) shows in sea_mq.stream_status. Errors: 42704 (no such stream), 22023';

-- Any slot will do: see sea_mq.cursor_log.
CREATE FUNCTION sea_mq.move_cursor(reader_kind text, reader bigint, done pg_snapshot) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.cursor_log (slot, reader_kind, reader, done, next_xid, floor) VALUES (0, $1, $2, $3, 0, 0)
$$;
COMMENT ON FUNCTION sea_mq.move_cursor IS 'Puts a reader''s cursor behind what a snapshot shows; for internal use';

CREATE FUNCTION sea_mq.forget_stream(sink bigint, from_start boolean) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.stream_progress_log (slot, sink, stream_sequence, published, tail_from, refilling, not_atomic, last_not_atomic,
        updated_at)
    SELECT 0, p.sink, CASE WHEN $2 THEN 0 ELSE p.stream_sequence END, p.published, CASE WHEN NOT $2 THEN p.tail_from END, p.refilling, p.not_atomic,
        p.last_not_atomic, p.updated_at
    FROM sea_mq.stream_progress p WHERE p.sink = $1
$$;
COMMENT ON FUNCTION sea_mq.forget_stream IS
'The stream that a sink finds in JetStream may be another one than so far; from_start: it holds nothing that was stored. For internal use';

CREATE FUNCTION sea_mq.rename_stream(name text, new_name text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    renamed sea_mq.streams;
BEGIN
    IF rename_stream.new_name IS NULL THEN
        RAISE EXCEPTION 'new_name must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.rename_stream(''ORDERS_EVENTS'', ''ORDERS_MIRROR'').';
    END IF;
    SELECT * INTO renamed FROM sea_mq.streams s WHERE s.name = rename_stream.name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no stream "%"', rename_stream.name
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.streams.';
    END IF;
    IF renamed.name = rename_stream.new_name THEN
        RETURN renamed.name;
    END IF;
    UPDATE sea_mq.streams s SET name = rename_stream.new_name, updated_at = now() WHERE s.name = renamed.name;
    UPDATE sea_mq.consumers c SET state = 'pending', error = NULL WHERE c.stream = rename_stream.new_name AND c.state <> 'removing';
    UPDATE sea_mq.stream_state s SET state = 'pending', error_kind = NULL, error = NULL, hint = NULL, differences = '{}', marked_us = NULL
    WHERE s.sink = renamed.sink;
    -- One that is to be used again is not to be deleted.
    DELETE FROM sea_mq.stream_deletions d WHERE d.name = rename_stream.new_name;
    -- This database's own subscriptions go along. What they have handled they know by its id.
    INSERT INTO sea_mq.consumer_deletions (stream, name)
    SELECT b.stream, b.subscription FROM sea_mq.subscriptions b WHERE b.stream = renamed.name ON CONFLICT DO NOTHING;
    UPDATE sea_mq.subscriptions b SET stream = rename_stream.new_name,
        source = CASE b.source WHEN renamed.name THEN rename_stream.new_name ELSE b.source END
    WHERE b.stream = renamed.name;
    PERFORM sea_mq.forget_stream(renamed.sink, from_start => true);
    -- Whatever the other stream lacks, as a mirror may that was promoted, is published there, ahead of the backlog.
    IF sea_mq.has_broker() AND renamed.kind = 'event' AND renamed.retention = 'limits' THEN
        PERFORM sea_mq.republish(rename_stream.new_name);
    END IF;
    PERFORM sea_mq.wake_at_commit();
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN rename_stream.new_name;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'there is a stream "%" already', rename_stream.new_name
        USING ERRCODE = 'duplicate_object', HINT = 'See sea_mq.streams.';
WHEN check_violation THEN
    RAISE EXCEPTION 'a stream cannot have the name "%"', rename_stream.new_name
        USING ERRCODE = 'invalid_parameter_value', HINT = 'White space, ., *, >, / and \ are not allowed, 255 characters at most, and SEA_MQ_RELAYS is reserved.';
END $$;
COMMENT ON FUNCTION sea_mq.rename_stream IS
'Has a context''s events published to the stream of another name from now on, such as a mirror that was promoted, and returns that
name. The backlog is kept. What is retained and is not in that stream is published there first. Subscriptions and consumers of this
database go along. The stream of the old name stays in JetStream as it is. Errors: 22004, 22023, 42704 (no such stream), 42710 (the
name is another one''s)';

CREATE FUNCTION sea_mq.drop_stream(name text, delete_remote boolean DEFAULT false, discard_pending boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    dropped sea_mq.streams;
    pending bigint;
BEGIN
    SELECT * INTO dropped FROM sea_mq.streams s WHERE s.name = drop_stream.name FOR UPDATE;
    IF NOT FOUND THEN
        IF NOT delete_remote THEN
            -- It stays in JetStream after all.
            DELETE FROM sea_mq.stream_deletions d WHERE d.name = drop_stream.name;
            IF FOUND THEN
                RETURN;
            END IF;
        END IF;
        RAISE EXCEPTION 'there is no stream "%"', drop_stream.name
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.streams.';
    END IF;
    pending := sea_mq.pending_count(dropped.sink);
    IF pending > 0 AND NOT discard_pending THEN
        RAISE EXCEPTION 'stream "%" has % unpublished events', drop_stream.name, pending
            USING ERRCODE = 'object_in_use',
                HINT = 'Wait until they are published, or give them up with discard_pending => true.';
    END IF;
    PERFORM sea_mq.restart_at_commit();
    IF pending > 0 THEN
        PERFORM sea_mq.move_cursor('stream', dropped.sink, pg_current_snapshot());
    END IF;
    DELETE FROM sea_mq.stream_deletions d WHERE d.name = dropped.name;
    IF delete_remote THEN
        INSERT INTO sea_mq.stream_deletions (name, stream_created_us)
        VALUES (dropped.name, (SELECT p.stream_created_us FROM sea_mq.stream_progress p WHERE p.sink = dropped.sink));
        -- A stream that takes its place has not lost anything.
        PERFORM sea_mq.forget_stream(dropped.sink, from_start => true);
    END IF;
    -- Removals that were asked for go on without the description.
    INSERT INTO sea_mq.consumer_deletions (stream, name)
    SELECT c.stream, c.name FROM sea_mq.consumers c WHERE c.stream = dropped.name AND c.state = 'removing' AND NOT delete_remote
    ON CONFLICT DO NOTHING;
    DELETE FROM sea_mq.streams s WHERE s.name = dropped.name;
    DELETE FROM sea_mq.stream_state s WHERE s.sink = dropped.sink;
    PERFORM sea_mq.wake_at_commit();
END $$;
COMMENT ON FUNCTION sea_mq.drop_stream IS
'Removes the description of a stream. The stream in JetStream stays unless delete_remote is true; then the relay deletes it, if it
carries this installation''s mark. Called again without delete_remote, it takes back a deletion that has not happened. Refused while
events are unpublished unless discard_pending is true. Errors: 42704 (no such stream), 55006 (unpublished events)';

CREATE FUNCTION sea_mq.create_consumer(
    context text, name text DEFAULT NULL, filter text DEFAULT NULL, ack_wait interval DEFAULT '120 s',
    max_deliver integer DEFAULT 20, max_ack_pending integer DEFAULT 50, deliver_policy text DEFAULT 'all')
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ctx text := sea_mq.context_name(context);
    stream_name text;
    new_name text := coalesce(create_consumer.name, ctx || '__default');
BEGIN
    IF ctx IS NULL THEN
        RAISE EXCEPTION 'context must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Pass the name of the bounded context, as in ''orders''.';
    END IF;
    IF new_name LIKE 'sea\_mq\_\_%' THEN
        RAISE EXCEPTION 'names that begin with sea_mq__ are reserved'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the consumer another name.';
    END IF;
    SELECT s.name INTO stream_name FROM sea_mq.streams s WHERE s.context = ctx AND s.kind = 'event';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'context "%" has no stream', context
            USING ERRCODE = 'undefined_object', HINT = 'Create it first: SELECT sea_mq.create_stream(''orders'').';
    END IF;
    INSERT INTO sea_mq.consumers (stream, name, filter, ack_wait, max_deliver, max_ack_pending, deliver_policy)
    VALUES (stream_name, new_name, coalesce(create_consumer.filter, ctx || '.event.>'), create_consumer.ack_wait,
        create_consumer.max_deliver, create_consumer.max_ack_pending, create_consumer.deliver_policy)
    ON CONFLICT (stream, name) DO UPDATE SET filter = excluded.filter, ack_wait = excluded.ack_wait,
        max_deliver = excluded.max_deliver, max_ack_pending = excluded.max_ack_pending,
        deliver_policy = excluded.deliver_policy, state = 'pending', error = NULL, updated_at = now();
    PERFORM sea_mq.wake_at_commit();
    RETURN new_name;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the consumer cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'ack_wait is 1 ms to 1 day; see the constraints of sea_mq.consumers for the others.';
END $$;
COMMENT ON FUNCTION sea_mq.create_consumer IS
'Describes (or changes) a durable pull consumer with explicit acks on a context''s event stream and returns its name,
{context}__default unless given; the relay creates it in JetStream and reports in sea_mq.consumers. Errors: 42704 (the context
has no stream), 22023';

CREATE FUNCTION sea_mq.drop_consumer(stream text, name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    UPDATE sea_mq.consumers c SET state = 'removing', error = NULL, updated_at = now()
    WHERE c.stream = drop_consumer.stream AND c.name = drop_consumer.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no consumer "%" on stream "%"', drop_consumer.name, drop_consumer.stream
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.consumers.';
    END IF;
    PERFORM sea_mq.wake_at_commit();
END $$;
COMMENT ON FUNCTION sea_mq.drop_consumer IS
'Removes a consumer here and in JetStream, where only one that carries this installation''s mark is removed. Error 42704: no such
consumer';

CREATE FUNCTION sea_mq.wake_at_commit() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'wake_at_commit_wrapper';
COMMENT ON FUNCTION sea_mq.wake_at_commit IS 'Makes the relay read the descriptions again when this transaction commits; for internal use';
CREATE FUNCTION sea_mq.restart_at_commit() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'restart_at_commit_wrapper';
COMMENT ON FUNCTION sea_mq.restart_at_commit IS 'Restarts the relay when this transaction commits; for internal use';

CREATE FUNCTION sea_mq.start() RETURNS text LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'start_wrapper';
COMMENT ON FUNCTION sea_mq.start IS
'Starts this database''s relay if it is not running, and says so. Without shared_preload_libraries it runs until the server
restarts. Errors: 25006 (on a standby), 53400 (no free worker slot, max_worker_processes; no free place, sea_mq.max_databases), 55000
(a template database, or one that takes no connections)';
CREATE FUNCTION sea_mq.stop() RETURNS text LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'stop_wrapper';
COMMENT ON FUNCTION sea_mq.stop IS
'Stops this database''s relay until start() or a restart of the server, and says so. Events are kept meanwhile. Error 25006: on a standby';
CREATE FUNCTION sea_mq.reload() RETURNS text LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'reload_wrapper';
COMMENT ON FUNCTION sea_mq.reload IS
'Makes this database''s relay take up changed settings, those of ALTER DATABASE … SET included. Error 25006: on a standby';
CREATE FUNCTION sea_mq.preloaded() RETURNS boolean LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'preloaded_wrapper';
COMMENT ON FUNCTION sea_mq.preloaded IS 'Whether sea_mq is in shared_preload_libraries';
CREATE FUNCTION sea_mq.has_broker() RETURNS boolean LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'has_broker_wrapper';
COMMENT ON FUNCTION sea_mq.has_broker IS 'Whether sea_mq.nats_url is set and the database is not in test mode; for internal use';
CREATE FUNCTION sea_mq.worker_problem(OUT problem text, OUT hint text) RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'worker_problem_wrapper';
COMMENT ON FUNCTION sea_mq.worker_problem IS
'Why no worker can serve this database: it is a template, all places (sea_mq.max_databases) are taken, no worker slot
(max_worker_processes) is free. No row: nothing is in the way';
CREATE FUNCTION sea_mq.announce() RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'announce_wrapper';
COMMENT ON FUNCTION sea_mq.announce IS 'Tells the launcher at commit that this database has the extension; for internal use';

CREATE FUNCTION sea_mq.begin_outbox_again() RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moved bigint := 0;
BEGIN
    IF EXISTS (SELECT FROM sea_mq.streams s, sea_mq.installation i WHERE s.owner <> i.install_id)
        OR EXISTS (SELECT FROM sea_mq.outbox_log l, sea_mq.outbox_ring r WHERE l.origin <> r.origin)
    THEN
        LOCK TABLE sea_mq.outbox_log, sea_mq.relay_journal, sea_mq.cursor_log, sea_mq.stream_progress_log, sea_mq.streams IN ACCESS EXCLUSIVE MODE;
        -- A restored dump. What is unpublished is queued again and gets places and transaction ids of this cluster; the rest
        -- is history of another cluster, in terms that mean nothing here. What was emitted here has waited; what came with
        -- the copy is judged by the cursor that came with it.
        INSERT INTO sea_mq.scheduled_events (available_at, seq, id, created_at, sink, event_version, context, subject,
            aggregate_type, aggregate_id, event_type, payload, headers, correlation_id, causation_id, visibility)
        SELECT now(), l.seq, l.id, l.created_at, l.sink, l.event_version, l.context, l.subject, l.aggregate_type, l.aggregate_id,
            l.event_type, l.payload, l.headers, l.correlation_id, l.causation_id, l.visibility
        FROM sea_mq.outbox_log l
        CROSS JOIN sea_mq.outbox_ring r
        LEFT JOIN sea_mq.cursors c ON c.reader_kind = 'stream' AND c.reader = l.sink
        WHERE c.sink IS NULL OR l.origin = r.origin OR NOT (pg_visible_in_snapshot(l.xid, c.done)
            OR (c.batch_upto IS NOT NULL AND l.seq <= c.batch_at AND pg_visible_in_snapshot(l.xid, c.batch_upto)));
        GET DIAGNOSTICS moved = ROW_COUNT;
        PERFORM sea_mq.keep_for_endpoints();
        TRUNCATE sea_mq.outbox_log, sea_mq.relay_journal;
        PERFORM sea_mq.move_cursor(c.reader_kind, c.reader, '1:1:') FROM sea_mq.cursors c;
        PERFORM sea_mq.forget_stream(p.sink, from_start => false) FROM sea_mq.stream_progress p;
        PERFORM sea_mq.pin_names(strange => true);
    END IF;
    RETURN moved;
END $$;
COMMENT ON FUNCTION sea_mq.begin_outbox_again IS
'In a restored dump: queues unpublished events again, and drops the rest of the log. Returns how many were queued. For internal use';

CREATE FUNCTION sea_mq.adopt() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moved bigint := 0;
BEGIN
    LOCK TABLE sea_mq.outbox_log, sea_mq.relay_journal, sea_mq.cursor_log, sea_mq.stream_progress_log, sea_mq.streams IN ACCESS EXCLUSIVE MODE;
    moved := sea_mq.begin_outbox_again();
    -- A copied data directory or database brings its identity along, which belongs to the original.
    UPDATE sea_mq.installation i SET install_id = gen_random_uuid(), system_identifier = here.system_identifier, database_oid = here.oid
    FROM (SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()) here
    WHERE (i.system_identifier, i.database_oid) <> (here.system_identifier, here.oid);
    -- The relay takes the lease from whoever has it, and publishes behind what its streams hold by then.
    UPDATE sea_mq.installation SET fenced = NULL, cleared_server = NULL, adopting = true;
    UPDATE sea_mq.stream_divergences SET accepted_at = now() WHERE accepted_at IS NULL;
    UPDATE sea_mq.streams SET owner = (SELECT install_id FROM sea_mq.installation), take_over = true;
    PERFORM sea_mq.pin_names(strange => false);
    UPDATE sea_mq.subscriptions s SET take_over = true;
    UPDATE sea_mq.consumers SET take_over = true, state = CASE state WHEN 'removing' THEN state ELSE 'pending' END;
    UPDATE sea_mq.stream_state SET state = 'pending', error_kind = NULL, error = NULL, hint = NULL;
    PERFORM sea_mq.come_home();
    PERFORM sea_mq.restart_at_commit();
    RETURN format('adopted: %s unpublished events queued again', moved);
END $$;
COMMENT ON FUNCTION sea_mq.adopt IS
'Lets this database publish where its relay has paused: in a copy (restored dump, cloned data directory, copy by template), beside or
after another relay of the same installation, which is stopped by it, and after a recovery or a failover that lost events which the
streams hold. In a restored dump, unpublished events are queued again, in order, and retained published ones are dropped from the log.
Call it when this database is to go on and no other';

-- Kept in the database, and not as a setting of it: CREATE DATABASE … TEMPLATE copies the one and not the other.
CREATE FUNCTION sea_mq.test_mode(enabled boolean DEFAULT true) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF enabled IS NULL THEN
        RAISE EXCEPTION 'enabled must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'SELECT sea_mq.test_mode(), or sea_mq.test_mode(false) to end it.';
    END IF;
    UPDATE sea_mq.installation i SET test_mode = enabled WHERE i.test_mode <> enabled;
    IF enabled AND (FOUND OR EXISTS (SELECT FROM sea_mq.outbox_log l, sea_mq.outbox_ring r WHERE l.origin <> r.origin)) THEN
        -- What came with a restored dump is in terms of another cluster.
        PERFORM sea_mq.begin_outbox_again();
    END IF;
    PERFORM sea_mq.restart_at_commit();
    PERFORM sea_mq.announce();
    RETURN CASE WHEN enabled THEN 'on' ELSE 'off' END;
END $$;
COMMENT ON FUNCTION sea_mq.test_mode IS
'For databases of tests: no broker, whatever the settings say, here and in databases that are copied from this one. Events go to the
subscriptions of the same database. Starts the workers at once, in a restored dump as well. With false it ends, and what was emitted meanwhile is published if
there is a broker. Error 22004';

CREATE FUNCTION sea_mq.workers(
    OUT pid integer, OUT backend_type text, OUT state text, OUT wait_event text, OUT backend_start timestamptz)
RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.pid, a.backend_type, a.state, a.wait_event, a.backend_start
    FROM pg_stat_activity a
    WHERE starts_with(a.backend_type, 'sea_mq') AND (a.datname = current_database() OR a.datname IS NULL)
$$;
COMMENT ON FUNCTION sea_mq.workers IS 'The processes of sea_mq that serve this database: the launcher, the relay, the consumer and its handlers';

CREATE FUNCTION sea_mq.worker_failures(
    OUT worker text, OUT failures integer, OUT since timestamptz, OUT last_at timestamptz, OUT error text)
RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'worker_failures_wrapper';
COMMENT ON FUNCTION sea_mq.worker_failures IS
'Workers of this database that failed and have not worked for a minute since then without failing again: how often, since when, and
the last error that is known. None without shared_preload_libraries';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.workers TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.worker_problem, sea_mq.worker_failures TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.preloaded TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.create_stream, sea_mq.alter_stream, sea_mq.rename_stream, sea_mq.drop_stream,
    sea_mq.create_consumer, sea_mq.drop_consumer, sea_mq.start, sea_mq.stop, sea_mq.reload, sea_mq.adopt, sea_mq.test_mode
    TO sea_mq_operator;

-- Who reads the log for endpoints (19_endpoints.sql).

-- An endpoint reads the log of each context apart.
CREATE TABLE sea_mq.endpoint_readers (
    reader bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    endpoint_id bigint NOT NULL,
    context text COLLATE "C" NOT NULL,
    UNIQUE (endpoint_id, context)
);
COMMENT ON SEQUENCE sea_mq.endpoint_readers_reader_seq IS 'Numbers of readers';
COMMENT ON TABLE sea_mq.endpoint_readers IS 'Who reads the log for which endpoint';
COMMENT ON COLUMN sea_mq.endpoint_readers.reader IS 'Number of the reader';
COMMENT ON COLUMN sea_mq.endpoint_readers.endpoint_id IS 'Number of the endpoint';
COMMENT ON COLUMN sea_mq.endpoint_readers.context IS 'Context whose events it reads';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.endpoint_readers', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.endpoint_readers_reader_seq', '');

-- Subscriptions as they should be. The consumer provisions and serves them; sea_mq.subscription_state says how that goes.

-- What a handler gets: f(sea_mq.event) RETURNS void.
CREATE TYPE sea_mq.event AS (
    id uuid,
    message_id text,
    subscription text,
    source_context text,
    event_type text,
    event_version integer,
    subject text,
    aggregate_type text,
    aggregate_id text,
    payload jsonb,
    headers jsonb,
    correlation_id text,
    causation_id text,
    visibility text,
    attempt integer,
    stream_seq bigint,
    created_at timestamptz
);
COMMENT ON TYPE sea_mq.event IS 'A received event, as handlers get it';
COMMENT ON COLUMN sea_mq.event.id IS 'The message id as a uuid; NULL if it is none (only sea_mq''s own are certain to be)';
COMMENT ON COLUMN sea_mq.event.message_id IS 'Nats-Msg-Id; without one, {stream}:{sequence}:{time in nanoseconds}';
COMMENT ON COLUMN sea_mq.event.subscription IS 'Subscription that it is handled for';
COMMENT ON COLUMN sea_mq.event.source_context IS 'Context that emitted it';
COMMENT ON COLUMN sea_mq.event.event_type IS 'Normalised event name';
COMMENT ON COLUMN sea_mq.event.event_version IS 'Version of the event type; NULL if the message does not say';
COMMENT ON COLUMN sea_mq.event.subject IS 'NATS subject';
COMMENT ON COLUMN sea_mq.event.aggregate_type IS 'Type of the aggregate that changed';
COMMENT ON COLUMN sea_mq.event.aggregate_id IS 'Id of the aggregate that changed';
COMMENT ON COLUMN sea_mq.event.payload IS 'Content, taken out of the envelope if there is one';
COMMENT ON COLUMN sea_mq.event.headers IS 'All headers: an object of strings';
COMMENT ON COLUMN sea_mq.event.correlation_id IS 'Correlation id; what the handler emits gets the same';
COMMENT ON COLUMN sea_mq.event.causation_id IS 'Id of what caused the event; what the handler emits gets the event''s message id';
COMMENT ON COLUMN sea_mq.event.visibility IS 'public, partner, internal or sensitive';
COMMENT ON COLUMN sea_mq.event.attempt IS 'Which attempt this is, from 1';
COMMENT ON COLUMN sea_mq.event.stream_seq IS 'Sequence in the stream; NULL if it came another way';
COMMENT ON COLUMN sea_mq.event.created_at IS 'When the stream stored it; inside the database: when it was emitted';

CREATE TABLE sea_mq.subscriptions (
    id bigint GENERATED BY DEFAULT AS IDENTITY UNIQUE,
    subscription text COLLATE "C" PRIMARY KEY CHECK (subscription ~ E'^[^[:space:].*>/\\\\]{1,255}$' AND subscription NOT LIKE 'ingest:%' AND subscription NOT LIKE 'endpoint:%' AND subscription !~ '^sea_mq__'),
    source text NOT NULL,
    stream text NOT NULL CHECK (stream ~ E'^[^[:space:].*>/\\\\]{1,255}$'),
    source_context text,
    subject_filter text NOT NULL CHECK (subject_filter ~ '^(([^[:space:].*>]+|[*])[.])*([^[:space:].*>]+|[*]|>)$'),
    handler text,
    handler_oid oid,
    endpoint text COLLATE "C" CHECK (endpoint IS NULL OR handler IS NULL),
    owner name NOT NULL,
    owner_oid oid,
    context text NOT NULL CHECK (context = sea_mq.context_name(context)),
    filter text,
    priority integer NOT NULL,
    max_deliver integer NOT NULL CHECK (max_deliver = -1 OR max_deliver > 0),
    ack_wait interval NOT NULL CHECK (ack_wait >= '1 s' AND ack_wait <= '1 day'),
    max_ack_pending integer NOT NULL CHECK (max_ack_pending > 0),
    max_ack_pending_given boolean NOT NULL DEFAULT true,
    start_from text NOT NULL,
    start_at timestamptz CHECK (start_at >= '1970-01-01 00:00:00+00' AND start_at < '2262-01-01 00:00:00+00'),
    start_sequence bigint CHECK (start_sequence > 0),
    workers integer NOT NULL CHECK (workers BETWEEN 1 AND 6),
    timeout interval CHECK (timeout >= '1 ms' AND timeout <= '1 day'),
    retry_delay interval CHECK (retry_delay >= '0' AND retry_delay <= '1 day'),
    retry_delay_max interval CHECK (retry_delay_max >= '0' AND retry_delay_max <= '1 day'),
    contracts text NOT NULL DEFAULT 'off' CHECK (contracts IN ('off', 'warn', 'enforce')),
    max_retrying integer CHECK (max_retrying > 0),
    paused boolean NOT NULL DEFAULT false,
    take_over boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON SEQUENCE sea_mq.subscriptions_id_seq IS 'Numbers of subscriptions';
COMMENT ON TABLE sea_mq.subscriptions IS 'What this database receives; change it with subscribe, alter_subscription, pause_subscription, unsubscribe';
COMMENT ON COLUMN sea_mq.subscriptions.id IS 'Number of the subscription';
COMMENT ON COLUMN sea_mq.subscriptions.subscription IS 'Name, and durable name of the consumer in JetStream; by convention {service}__{purpose}';
COMMENT ON COLUMN sea_mq.subscriptions.source IS 'Context or stream, as given';
COMMENT ON COLUMN sea_mq.subscriptions.stream IS 'Stream that it reads';
COMMENT ON COLUMN sea_mq.subscriptions.source_context IS 'Context that it reads; NULL if a stream was given that is not described here';
COMMENT ON COLUMN sea_mq.subscriptions.subject_filter IS 'Subjects that it receives';
COMMENT ON COLUMN sea_mq.subscriptions.handler IS 'Function f(sea_mq.event); NULL: an endpoint handles, or messages wait for sea_mq.receive';
COMMENT ON COLUMN sea_mq.subscriptions.handler_oid IS 'The function that handler names: no other is run under its name';
COMMENT ON COLUMN sea_mq.subscriptions.endpoint IS 'Endpoint that handles, in the place of a function';
COMMENT ON COLUMN sea_mq.subscriptions.owner IS 'Role that the handler runs as, by the name that it had';
COMMENT ON COLUMN sea_mq.subscriptions.owner_oid IS 'The role that owner names: it may be renamed, and no other is taken for it';
COMMENT ON COLUMN sea_mq.subscriptions.context IS 'Context whose dead letter queue gets what cannot be handled';
COMMENT ON COLUMN sea_mq.subscriptions.filter IS 'Filter, as given';
COMMENT ON COLUMN sea_mq.subscriptions.priority IS 'Of several handlers of one event, the one with the greater number runs first';
COMMENT ON COLUMN sea_mq.subscriptions.max_deliver IS 'Attempts before a message is a dead letter; -1 for no limit';
COMMENT ON COLUMN sea_mq.subscriptions.ack_wait IS 'Time after which the broker delivers again what was neither acknowledged nor reported as in progress; a day at most';
COMMENT ON COLUMN sea_mq.subscriptions.max_ack_pending IS 'Messages under way at most: delivered, waiting to be received, or waiting for another attempt. The broker sends no more ahead';
COMMENT ON COLUMN sea_mq.subscriptions.max_ack_pending_given IS 'Whether somebody gave that number: then the broker has to allow it. Otherwise it is the default, and fewer will do';
COMMENT ON COLUMN sea_mq.subscriptions.max_retrying IS 'Messages that wait for another attempt at most; then nothing new is tried. NULL: 50, or max_ack_pending if that is less';
COMMENT ON COLUMN sea_mq.subscriptions.start_from IS 'Where it began, as given: new, all, a stream sequence or a time';
COMMENT ON COLUMN sea_mq.subscriptions.start_at IS 'Messages stored before this are left out; NULL for no such bound';
COMMENT ON COLUMN sea_mq.subscriptions.start_sequence IS 'Messages before this stream sequence are left out; NULL for no such bound';
COMMENT ON COLUMN sea_mq.subscriptions.workers IS 'How many messages are handled at the same time; events of one aggregate stay in order';
COMMENT ON COLUMN sea_mq.subscriptions.timeout IS 'Longest run of the handler, a day at most; NULL: sea_mq.handler_timeout';
COMMENT ON COLUMN sea_mq.subscriptions.retry_delay IS 'Pause before the second attempt, doubled before each further one; NULL: sea_mq.retry_delay';
COMMENT ON COLUMN sea_mq.subscriptions.retry_delay_max IS 'Longest pause between attempts; NULL: sea_mq.retry_delay_max';
COMMENT ON COLUMN sea_mq.subscriptions.contracts IS 'Whether messages are checked against the registered contracts: off, warn or enforce (what breaks its contract is poison)';
COMMENT ON COLUMN sea_mq.subscriptions.paused IS 'Whether handling is paused';
COMMENT ON COLUMN sea_mq.subscriptions.take_over IS 'Whether its consumer may be taken over from another installation (sea_mq.adopt)';
COMMENT ON COLUMN sea_mq.subscriptions.created_at IS 'When it was subscribed';
COMMENT ON COLUMN sea_mq.subscriptions.updated_at IS 'When its description changed last';

CREATE TABLE sea_mq.subscription_health (
    subscription text COLLATE "C" PRIMARY KEY,
    state text NOT NULL,
    error_kind text,
    error text,
    hint text,
    since timestamptz NOT NULL DEFAULT now(),
    lanes smallint,
    stream_max_age interval,
    max_ack_pending bigint
) WITH (fillfactor = 50);

-- How the calls of those that an endpoint handles are doing.
CREATE TABLE sea_mq.call_health (
    subscription text COLLATE "C" PRIMARY KEY REFERENCES sea_mq.subscriptions ON DELETE CASCADE ON UPDATE CASCADE,
    state text NOT NULL,
    error_kind text,
    error text,
    hint text,
    since timestamptz NOT NULL DEFAULT now(),
    in_flight integer NOT NULL DEFAULT 0,
    "window" integer NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE sea_mq.call_health IS 'How the calls of endpoints that handle messages are doing; see sea_mq.subscription_status';
COMMENT ON COLUMN sea_mq.call_health.subscription IS 'Subscription';
COMMENT ON COLUMN sea_mq.call_health.state IS 'active, waiting (the service does not answer, or asks for time) or blocked (it refuses all)';
COMMENT ON COLUMN sea_mq.call_health.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.call_health.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.call_health.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.call_health.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.call_health.in_flight IS 'Calls in flight';
COMMENT ON COLUMN sea_mq.call_health."window" IS 'Calls that may be in flight';

-- How far each subscription has come in its stream, and what it has done so far: appended by the consumer in the transaction of each batch, in a ring as that of sea_mq.cursor_log.
CREATE TABLE sea_mq.progress_log (
    slot smallint NOT NULL,
    number bigint NOT NULL DEFAULT nextval('sea_mq.position_number'),
    subscription_id bigint NOT NULL,
    stream_sequence bigint NOT NULL DEFAULT 0,
    stream_created_us bigint,
    pending bigint,
    processed bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    dead bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    redelivered bigint NOT NULL DEFAULT 0,
    last_processed_at timestamptz
) PARTITION BY LIST (slot);
DO $$
BEGIN
    FOR slot IN 0 .. 1 LOOP
        EXECUTE format('CREATE TABLE sea_mq.progress_log_%s PARTITION OF sea_mq.progress_log (PRIMARY KEY (subscription_id, number))'
            ' FOR VALUES IN (%s) WITH (autovacuum_vacuum_insert_threshold = -1)', slot, slot);
        EXECUTE format('COMMENT ON TABLE sea_mq.progress_log_%s IS %L', slot, 'Slot ' || slot || ' of the subscriptions'' progress');
        EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.progress_log_' || slot);
    END LOOP;
END $$;
COMMENT ON TABLE sea_mq.progress_log IS 'How far each subscription has come: appended by the consumer, the greatest number counts. Query sea_mq.subscription_state instead';
COMMENT ON COLUMN sea_mq.progress_log.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.progress_log.number IS 'Of a subscription''s rows the one with the greatest counts';
COMMENT ON COLUMN sea_mq.progress_log.subscription_id IS 'Number of the subscription, which no other ever has';

-- Who reads the log. Each has a cursor once it has read something.
CREATE VIEW sea_mq.readers AS
SELECT 'stream' COLLATE "C" AS reader_kind, k.sink AS reader, k.sink FROM sea_mq.sinks k
UNION ALL
SELECT 'subscription' COLLATE "C", s.id, sea_mq.sink_id(s.source_context, 'event') FROM sea_mq.subscriptions s WHERE s.source_context IS NOT NULL
UNION ALL
SELECT 'endpoint' COLLATE "C", e.reader, sea_mq.sink_id(e.context, 'event') FROM sea_mq.endpoint_readers e;
COMMENT ON VIEW sea_mq.readers IS 'Who reads this database''s log: the relay for each stream, the dispatcher for endpoints and, without a broker, subscriptions';
COMMENT ON COLUMN sea_mq.readers.reader_kind IS 'stream, subscription or endpoint';
COMMENT ON COLUMN sea_mq.readers.reader IS 'sea_mq.sink_id(context, kind) of a stream, sea_mq.subscriptions.id of a subscription, sea_mq.endpoint_readers.reader of an endpoint';
COMMENT ON COLUMN sea_mq.readers.sink IS 'The sink whose rows it reads';

CREATE VIEW sea_mq.cursors AS
SELECT r.reader_kind, r.reader, r.sink, p.done, p.next_xid, p.floor, p.batch_upto, p.batch_next_xid, p.batch_ceiling, p.batch_at,
    p.updated_at
FROM sea_mq.readers r
CROSS JOIN LATERAL (SELECT l.* FROM sea_mq.cursor_log l WHERE l.reader_kind = r.reader_kind AND l.reader = r.reader
    ORDER BY l.number DESC LIMIT 1) p;
COMMENT ON VIEW sea_mq.cursors IS 'How far each reader has come in the log, as it was saved last. Nothing in a transaction whose snapshot is older than a whole turn of the ring';
COMMENT ON COLUMN sea_mq.cursors.reader_kind IS 'stream, subscription or endpoint';
COMMENT ON COLUMN sea_mq.cursors.reader IS 'As in sea_mq.readers';
COMMENT ON COLUMN sea_mq.cursors.sink IS 'The sink whose rows it reads';
COMMENT ON COLUMN sea_mq.cursors.done IS 'The reader has got all events that are visible in this snapshot';
COMMENT ON COLUMN sea_mq.cursors.next_xid IS 'Transactions with this id or a greater one began after done was taken';
COMMENT ON COLUMN sea_mq.cursors.floor IS 'Events of transactions from next_xid on have a greater seq';
COMMENT ON COLUMN sea_mq.cursors.batch_upto IS 'Snapshot that the batch under way ends with, if one is';
COMMENT ON COLUMN sea_mq.cursors.batch_next_xid IS 'As next_xid, for batch_upto';
COMMENT ON COLUMN sea_mq.cursors.batch_ceiling IS 'No event of the batch has a greater seq';
COMMENT ON COLUMN sea_mq.cursors.batch_at IS 'The reader has got the events of the batch up to this seq';
COMMENT ON COLUMN sea_mq.cursors.updated_at IS 'When it was saved';

CREATE VIEW sea_mq.subscription_state AS
SELECT h.subscription, h.state, h.error_kind, h.error, h.hint, h.since, h.lanes, p.stream_created_us,
    coalesce(p.stream_sequence, 0) AS stream_sequence, h.stream_max_age, h.max_ack_pending, p.pending, coalesce(p.processed, 0) AS processed,
    coalesce(p.skipped, 0) AS skipped, coalesce(p.failed, 0) AS failed, coalesce(p.dead, 0) AS dead,
    coalesce(p.duplicates, 0) AS duplicates, coalesce(p.redelivered, 0) AS redelivered, p.last_processed_at
FROM sea_mq.subscription_health h
LEFT JOIN sea_mq.subscriptions s ON s.subscription = h.subscription
LEFT JOIN LATERAL (SELECT l.* FROM sea_mq.progress_log l WHERE l.subscription_id = s.id ORDER BY l.number DESC LIMIT 1) p ON true;
COMMENT ON TABLE sea_mq.subscription_health IS 'Whether each subscription can receive and handle';
COMMENT ON VIEW sea_mq.subscription_state IS 'How each subscription is doing, what is in sea_mq.inbox_tally left out; see sea_mq.subscription_status';
COMMENT ON COLUMN sea_mq.subscription_state.subscription IS 'Subscription';
COMMENT ON COLUMN sea_mq.subscription_state.state IS 'pending, active, waiting, blocked or refused';
COMMENT ON COLUMN sea_mq.subscription_state.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.subscription_state.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.subscription_state.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.subscription_state.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.subscription_state.lanes IS 'Number of workers in force; a change of it waits until what was dealt out is handled, so that aggregates stay in order';
COMMENT ON COLUMN sea_mq.subscription_state.stream_created_us IS 'Creation time of the stream (microseconds since 1970 UTC)';
COMMENT ON COLUMN sea_mq.subscription_state.stream_sequence IS 'All up to this stream sequence is in the inbox: where to go on should the consumer be lost in NATS';
COMMENT ON COLUMN sea_mq.subscription_state.stream_max_age IS 'How long the stream keeps messages; NULL: for ever, or not known';
COMMENT ON COLUMN sea_mq.subscription_state.max_ack_pending IS 'Unacknowledged messages that the broker lets it have at most; NULL: not known';
COMMENT ON COLUMN sea_mq.subscription_state.pending IS 'Messages not delivered yet, as the broker said last';
COMMENT ON COLUMN sea_mq.subscription_state.processed IS 'Messages handled so far';
COMMENT ON COLUMN sea_mq.subscription_state.skipped IS 'Messages skipped so far';
COMMENT ON COLUMN sea_mq.subscription_state.failed IS 'Failed attempts so far';
COMMENT ON COLUMN sea_mq.subscription_state.dead IS 'Dead letters so far';
COMMENT ON COLUMN sea_mq.subscription_state.duplicates IS 'Messages so far that came again and were not handled again';
COMMENT ON COLUMN sea_mq.subscription_state.redelivered IS 'Deliveries so far that were not the first of their message';
COMMENT ON COLUMN sea_mq.subscription_state.last_processed_at IS 'When the last message was handled';

-- The tables of the view, of which the same is true.
DO $$
DECLARE
    remark record;
BEGIN
    FOR remark IN
        SELECT t.attrelid::regclass AS tab, t.attname AS col, col_description(v.attrelid, v.attnum) AS words
        FROM pg_catalog.pg_attribute t
        JOIN pg_catalog.pg_attribute v ON v.attrelid = 'sea_mq.subscription_state'::regclass AND v.attname = t.attname
        WHERE t.attrelid IN ('sea_mq.subscription_health'::regclass, 'sea_mq.progress_log'::regclass) AND t.attnum > 0
        UNION ALL
        SELECT t.attrelid::regclass, t.attname, col_description(v.attrelid, v.attnum)
        FROM pg_catalog.pg_attribute t
        JOIN pg_catalog.pg_attribute v ON v.attrelid = 'sea_mq.cursors'::regclass AND v.attname = t.attname
        WHERE t.attrelid = 'sea_mq.cursor_log'::regclass AND t.attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', remark.tab, remark.col, remark.words);
    END LOOP;
END $$;

SELECT pg_catalog.pg_extension_config_dump('sea_mq.subscriptions', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.subscriptions_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.subscription_health', '');

-- Consumers of subscriptions that are gone, to be removed in NATS; until the broker has confirmed it.
CREATE TABLE sea_mq.consumer_deletions (
    stream text NOT NULL,
    name text NOT NULL,
    error text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, name)
);
COMMENT ON TABLE sea_mq.consumer_deletions IS 'Consumers that are still to be removed in NATS; normally empty';
COMMENT ON COLUMN sea_mq.consumer_deletions.stream IS 'Stream';
COMMENT ON COLUMN sea_mq.consumer_deletions.name IS 'Consumer';
COMMENT ON COLUMN sea_mq.consumer_deletions.error IS 'Why the last attempt failed';
COMMENT ON COLUMN sea_mq.consumer_deletions.requested_at IS 'When it was asked for';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.consumer_deletions', '');

CREATE FUNCTION sea_mq.log_position() RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'log_position_wrapper';
COMMENT ON FUNCTION sea_mq.log_position IS 'The end of the log as this statement sees it: {done, next_xid, floor}; for internal use';

CREATE FUNCTION sea_mq.subject_filter(context text, filter text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parts text[];
BEGIN
    IF filter IS NULL THEN
        RETURN coalesce(context || '.event.>', '>');
    END IF;
    -- A type, or a type and a version.
    parts := regexp_match(filter, '^([^[:space:].*>]+)(?:[.](v[0-9]+|[*]))?$');
    IF context IS NOT NULL AND parts IS NOT NULL THEN
        RETURN format('%s.event.%s.%s', context, sea_mq.event_name(parts[1]), coalesce(parts[2], '*'));
    END IF;
    IF filter !~ '^(([^[:space:].*>]+|[*])[.])*([^[:space:].*>]+|[*]|>)$' THEN
        RAISE EXCEPTION 'filter "%" is not a NATS subject', filter
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Use an event type (OrderCreated), a type and a version (order_created.v2), or a subject with wildcards (orders.event.order_*.> is none: * stands for a whole token).';
    END IF;
    RETURN filter;
END $$;
COMMENT ON FUNCTION sea_mq.subject_filter IS
'The subject that a subscription''s filter stands for: OrderCreated, order_created.v2 or a subject with the wildcards of NATS.
Error 22023';

-- A function by its qualified name, whatever the role in force may use.
CREATE FUNCTION sea_mq.find_handler(name text) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.proname = (parse_ident($1))[2] AND n.nspname = (parse_ident($1))[1]
        AND p.proargtypes = 'sea_mq.event'::regtype::oid::text::oidvector AND p.prokind = 'f'
$$;
COMMENT ON FUNCTION sea_mq.find_handler IS 'The function f(sea_mq.event) of a qualified name; NULL if there is none; for internal use';

-- Roles and functions are known by their OIDs, which mean nothing in another cluster: what a dump brings is looked up by name.
CREATE FUNCTION sea_mq.pin_subscription() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.owner <> OLD.owner THEN
        NEW.owner_oid := sea_mq.role_named(NEW.owner);
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.handler_oid := sea_mq.find_handler(NEW.handler);
    ELSE
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION sea_mq.pin_subscription IS 'Trigger function: which role and which function a subscription means';
CREATE FUNCTION sea_mq.pin_owner() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.owner_oid := sea_mq.role_named(NEW.owner);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION sea_mq.pin_owner IS 'Trigger function: which role a name means';
CREATE TRIGGER pin BEFORE INSERT OR UPDATE ON sea_mq.subscriptions FOR EACH ROW EXECUTE FUNCTION sea_mq.pin_subscription();
COMMENT ON TRIGGER pin ON sea_mq.subscriptions IS 'Which role and which function a subscription means';

-- A copied data directory has the roles' OIDs still, and names that roles may have given away since. A dump has the names alone.
CREATE FUNCTION sea_mq.pin_names(strange boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE sea_mq.subscriptions s SET owner_oid = CASE WHEN strange OR s.owner_oid IS NULL THEN sea_mq.role_named(s.owner) ELSE s.owner_oid END,
        handler_oid = sea_mq.find_handler(s.handler);
    UPDATE sea_mq.accepted_names a SET owner_oid = sea_mq.role_named(a.owner) WHERE strange OR a.owner_oid IS NULL;
    UPDATE sea_mq.endpoint_definitions e SET created_by_oid = sea_mq.role_named(e.created_by) WHERE strange OR e.created_by_oid IS NULL;
    WITH found AS MATERIALIZED (SELECT c.name, sea_mq.role_named(c.name) AS oid
        FROM (SELECT DISTINCT l.created_by AS name FROM sea_mq.entity_links l WHERE strange OR l.created_by_oid IS NULL) c)
    UPDATE sea_mq.entity_links l SET created_by_oid = f.oid FROM found f
    WHERE f.name = l.created_by AND (strange OR l.created_by_oid IS NULL) AND l.created_by_oid IS DISTINCT FROM f.oid;
END $$;
COMMENT ON FUNCTION sea_mq.pin_names IS
'After a restore: looks up which roles and functions are meant, by their names. strange: all of them; else the roles that were not found before. For internal use';

-- The subscription, if the caller may change it: members of its owner may, and operators what does not decide who runs what.
CREATE FUNCTION sea_mq.own_subscription(subscription text, decides boolean DEFAULT false) RETURNS sea_mq.subscriptions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s sea_mq.subscriptions;
    locks boolean;
BEGIN
    -- First without a lock: those who may not change it neither lock the row nor wait for it. Then with it, and all is asked
    -- again: while somebody else had the lock, the subscription may have got another owner, or gone.
    FOREACH locks IN ARRAY ARRAY[false, true] LOOP
        IF locks THEN
            SELECT t.* INTO s FROM sea_mq.subscriptions t WHERE t.subscription = own_subscription.subscription FOR UPDATE;
        ELSE
            SELECT t.* INTO s FROM sea_mq.subscriptions t WHERE t.subscription = own_subscription.subscription;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no subscription "%"', subscription
                USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.subscriptions.';
        ELSIF sea_mq.may_be(sea_mq.caller(), s.owner_oid) OR (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = sea_mq.caller()) THEN
            CONTINUE;
        ELSIF NOT pg_has_role(sea_mq.caller(), 'sea_mq_operator', 'USAGE') THEN
            RAISE EXCEPTION 'subscription "%" belongs to "%"', subscription, s.owner
                USING ERRCODE = 'insufficient_privilege', HINT = 'Members of that role and of sea_mq_operator may change it.';
        ELSIF decides THEN
            -- An operator's function would run with rights that are not the operator's.
            RAISE EXCEPTION 'only "%" can change what subscription "%" runs', s.owner, subscription
                USING ERRCODE = 'insufficient_privilege', HINT = 'Have a member of that role do it.';
        END IF;
    END LOOP;
    RETURN s;
END $$;
COMMENT ON FUNCTION sea_mq.own_subscription IS
'A subscription that the caller may change, locked. decides: the change decides what runs or as whom. Errors 42501, 42704; for internal use';

-- Who may handle the messages of a subscription without a handler: members of its owner; and where a superuser has made it for
-- others, every consumer.
CREATE FUNCTION sea_mq.check_receiver(subscription text, strictly boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s sea_mq.subscriptions;
BEGIN
    SELECT t.* INTO s FROM sea_mq.subscriptions t WHERE t.subscription = check_receiver.subscription;
    IF NOT FOUND OR sea_mq.may_be(sea_mq.caller(), s.owner_oid)
        OR (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = sea_mq.caller())
        OR (NOT strictly AND (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = s.owner_oid))
    THEN
        RETURN;
    END IF;
    RAISE EXCEPTION 'subscription "%" belongs to "%"', subscription, s.owner
        USING ERRCODE = 'insufficient_privilege', HINT = 'Its messages are for members of that role.';
END $$;
COMMENT ON FUNCTION sea_mq.check_receiver IS
'An error unless the caller may handle messages of a subscription. strictly: also if a superuser owns it. Error 42501; for internal use';

-- Whoever owns a function can change what it does, so it runs as nobody whom its owner could not act as anyway.
CREATE FUNCTION sea_mq.check_runner(handler regproc, owner oid) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT sea_mq.may_be((SELECT p.proowner FROM pg_proc p WHERE p.oid = handler), owner) THEN
        RAISE EXCEPTION 'function % would run as "%", and its owner "%" is no member of that role', handler, pg_get_userbyid(owner),
            (SELECT pg_get_userbyid(p.proowner) FROM pg_proc p WHERE p.oid = handler)
            USING ERRCODE = 'insufficient_privilege',
                HINT = 'Subscribe as the function''s owner, or have the subscription''s owner own the function.';
    END IF;
    IF NOT has_function_privilege(owner, handler, 'EXECUTE') THEN
        RAISE EXCEPTION 'permission denied for function %', handler
            USING ERRCODE = 'insufficient_privilege', HINT = 'GRANT EXECUTE on it to the role that subscribes.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_runner IS 'An error unless a function may run as a role. Error 42501; for internal use';

CREATE FUNCTION sea_mq.inbox_wake_at_commit() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'inbox_wake_at_commit_wrapper';
COMMENT ON FUNCTION sea_mq.inbox_wake_at_commit IS 'Makes the consumer look for work when this transaction commits; for internal use';

-- The handler as it is kept: qualified, after a look at whether it can be one.
CREATE FUNCTION sea_mq.handler_name(handler regproc) RETURNS text
-- The same name in every session.
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
DECLARE
    f record;
BEGIN
    IF handler IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT p.prokind, p.proretset, p.pronargs, p.proargtypes[0] AS argument, format('%I.%I', n.nspname, p.proname) AS name INTO f
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = handler;
    IF f.prokind IS DISTINCT FROM 'f' OR f.proretset OR f.pronargs <> 1 OR f.argument <> 'sea_mq.event'::regtype THEN
        RAISE EXCEPTION '% cannot be a handler', handler
            USING ERRCODE = 'invalid_function_definition', HINT = 'A handler is a function with one argument of type sea_mq.event that returns no set: CREATE FUNCTION f(event sea_mq.event) RETURNS void. What it returns is not looked at.';
    END IF;
    RETURN f.name;
END $$;
COMMENT ON FUNCTION sea_mq.handler_name IS 'The qualified name of a function that can be a handler. Error 42P13: it cannot';

-- Names under which applications with a NATS client of their own accept messages (sea_mq.inbox_accept): the first to use one owns it.
CREATE TABLE sea_mq.accepted_names (
    subscription text COLLATE "C" PRIMARY KEY,
    owner name NOT NULL,
    owner_oid oid,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER pin BEFORE INSERT ON sea_mq.accepted_names FOR EACH ROW EXECUTE FUNCTION sea_mq.pin_owner();
COMMENT ON TRIGGER pin ON sea_mq.accepted_names IS 'Which role owns the name';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.accepted_names', '');
COMMENT ON TABLE sea_mq.accepted_names IS 'Names that sea_mq.inbox_accept was called with, and whose they are';
COMMENT ON COLUMN sea_mq.accepted_names.subscription IS 'Name';
COMMENT ON COLUMN sea_mq.accepted_names.owner IS 'Role that used it first, by the name that it had';
COMMENT ON COLUMN sea_mq.accepted_names.owner_oid IS 'That role; once it is gone, the next one to use the name owns it';
COMMENT ON COLUMN sea_mq.accepted_names.claimed_at IS 'When it was used first';

-- The name is the caller's from here on, unless it is somebody else's.
CREATE FUNCTION sea_mq.claim_name(subscription text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    claim sea_mq.accepted_names;
BEGIN
    IF EXISTS (SELECT FROM sea_mq.subscriptions s WHERE s.subscription = claim_name.subscription) THEN
        PERFORM sea_mq.check_receiver(claim_name.subscription, strictly => true);
        RETURN;
    END IF;
    SELECT a.* INTO claim FROM sea_mq.accepted_names a WHERE a.subscription = claim_name.subscription;
    IF NOT FOUND THEN
        INSERT INTO sea_mq.accepted_names (subscription, owner) VALUES (claim_name.subscription, pg_get_userbyid(sea_mq.caller()))
        ON CONFLICT DO NOTHING;
        SELECT a.* INTO claim FROM sea_mq.accepted_names a WHERE a.subscription = claim_name.subscription;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = claim.owner_oid) THEN
        UPDATE sea_mq.accepted_names a SET owner = pg_get_userbyid(sea_mq.caller()), owner_oid = sea_mq.caller(), claimed_at = clock_timestamp()
        WHERE a.subscription = claim_name.subscription;
    ELSIF NOT sea_mq.may_be(sea_mq.caller(), claim.owner_oid) THEN
        RAISE EXCEPTION 'messages are accepted as "%" by "%"', claim_name.subscription, claim.owner
            USING ERRCODE = 'insufficient_privilege', HINT = 'Use another name, or be a member of that role.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.claim_name IS 'Makes a name the caller''s; an error if it is another role''s. Error 42501; for internal use';

-- The broker counts nanoseconds from 1970 on in 64 bits, and no message is older than that or younger than now.
CREATE FUNCTION sea_mq.start_time(start_from text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at timestamptz;
BEGIN
    BEGIN
        at := start_from::timestamptz;
    EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow OR invalid_time_zone_displacement_value OR invalid_parameter_value THEN
        RAISE EXCEPTION 'start_from "%" is not known', start_from
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use new, all, a stream sequence or a time.';
    END;
    IF at >= '1970-01-01 00:00:00+00' AND at < '2262-01-01 00:00:00+00' THEN
        RETURN at;
    END IF;
    RAISE EXCEPTION 'start_from "%" is a time at which no message is stored', start_from
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Use all for whatever the stream holds, new for what comes from now on, or a time from 1970 to 2261.';
END $$;
COMMENT ON FUNCTION sea_mq.start_time IS 'The time that a start_from names. Error 22023: none, or one at which no message is stored; for internal use';

CREATE FUNCTION sea_mq.subscribe(
    subscription text, source text, handler regproc DEFAULT NULL, filter text DEFAULT NULL, priority integer DEFAULT 0,
    max_deliver integer DEFAULT 20, ack_wait interval DEFAULT '120 s', max_ack_pending integer DEFAULT NULL,
    start_from text DEFAULT 'new', workers integer DEFAULT 1, timeout interval DEFAULT NULL,
    retry_delay interval DEFAULT NULL, retry_delay_max interval DEFAULT NULL, context text DEFAULT NULL,
    contracts text DEFAULT 'off', max_retrying integer DEFAULT NULL, endpoint text DEFAULT NULL)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    new sea_mq.subscriptions;
    old sea_mq.subscriptions;
BEGIN
    IF subscribe.subscription IS NULL OR subscribe.source IS NULL OR subscribe.start_from IS NULL THEN
        RAISE EXCEPTION 'subscription, source and start_from must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.subscribe(''billing__orders'', ''orders'', ''handle_order'').';
    END IF;
    new.subscription := subscribe.subscription;
    new.source := subscribe.source;
    SELECT s.name, s.context INTO new.stream, new.source_context FROM sea_mq.streams s
    WHERE s.name = subscribe.source OR (s.kind = 'event' AND s.context = subscribe.source)
    ORDER BY s.name = subscribe.source DESC LIMIT 1;
    IF NOT FOUND THEN
        -- Capital letters are for streams.
        new.source_context := CASE WHEN subscribe.source = lower(subscribe.source) THEN sea_mq.context_name(subscribe.source) END;
        new.stream := coalesce(upper(new.source_context COLLATE "C") || '_EVENTS', subscribe.source);
    END IF;
    new.filter := subscribe.filter;
    new.subject_filter := sea_mq.subject_filter(new.source_context, subscribe.filter);
    new.handler := sea_mq.handler_name(subscribe.handler);
    IF subscribe.endpoint IS NOT NULL THEN
        PERFORM sea_mq.check_called(subscribe.endpoint);
    END IF;
    new.context := sea_mq.context_name(coalesce(subscribe.context, nullif(current_setting('sea_mq.context', true), ''),
        nullif(substring(subscribe.subscription FROM '^(.+?)__'), ''), new.source_context));
    IF new.context IS NULL THEN
        RAISE EXCEPTION 'the context whose dead letter queue is to be used is not known'
            USING ERRCODE = 'undefined_object', HINT = 'Set it for the database, ALTER DATABASE ... SET sea_mq.context = ''billing'', or pass context => ''billing''.';
    END IF;
    new.max_ack_pending := coalesce(subscribe.max_ack_pending, 1000);
    new.max_ack_pending_given := subscribe.max_ack_pending IS NOT NULL;
    new.start_from := subscribe.start_from;
    new.start_at := CASE WHEN subscribe.start_from = 'new' THEN clock_timestamp()
        WHEN subscribe.start_from = 'all' OR subscribe.start_from ~ '^[0-9]+$' THEN NULL
        ELSE sea_mq.start_time(subscribe.start_from) END;
    new.start_sequence := CASE WHEN subscribe.start_from ~ '^[0-9]+$' THEN subscribe.start_from::bigint END;
    SELECT s.* INTO old FROM sea_mq.subscriptions s WHERE s.subscription = new.subscription;
    IF FOUND THEN
        IF (old.stream, old.subject_filter, old.handler, old.priority, old.max_deliver, old.ack_wait, old.max_ack_pending, old.max_ack_pending_given,
                old.start_from, old.workers, old.timeout, old.retry_delay, old.retry_delay_max, old.context, old.contracts, old.max_retrying, old.endpoint)
            IS DISTINCT FROM (new.stream, new.subject_filter, new.handler, subscribe.priority, subscribe.max_deliver,
                subscribe.ack_wait, new.max_ack_pending, new.max_ack_pending_given, subscribe.start_from, subscribe.workers, subscribe.timeout,
                subscribe.retry_delay, subscribe.retry_delay_max, new.context, subscribe.contracts, subscribe.max_retrying, subscribe.endpoint)
            OR NOT sea_mq.may_be(sea_mq.caller(), old.owner_oid)
        THEN
            RAISE EXCEPTION 'there is a subscription "%" already, and it is another one', subscription
                USING ERRCODE = 'duplicate_object', HINT = 'Change it with sea_mq.alter_subscription, or unsubscribe first.';
        END IF;
        RETURN subscribe.subscription;
    END IF;
    -- A superuser's subscription does not make somebody else's function run as superuser.
    new.owner_oid := coalesce((SELECT p.proowner FROM pg_proc p JOIN pg_roles r ON r.oid = sea_mq.caller() AND r.rolsuper
        WHERE p.oid = subscribe.handler), sea_mq.caller());
    IF subscribe.handler IS NOT NULL THEN
        PERFORM sea_mq.check_runner(subscribe.handler, new.owner_oid);
    END IF;
    IF EXISTS (SELECT FROM sea_mq.accepted_names a WHERE a.subscription = new.subscription) THEN
        PERFORM sea_mq.claim_name(new.subscription);
    END IF;
    INSERT INTO sea_mq.subscriptions (subscription, source, stream, source_context, subject_filter, handler, owner, context, filter,
        priority, max_deliver, ack_wait, max_ack_pending, max_ack_pending_given, start_from, start_at, start_sequence, workers, timeout, retry_delay,
        retry_delay_max, contracts, max_retrying, endpoint)
    VALUES (new.subscription, new.source, new.stream, new.source_context, new.subject_filter, new.handler,
        pg_get_userbyid(new.owner_oid), new.context, new.filter, subscribe.priority, subscribe.max_deliver, subscribe.ack_wait, new.max_ack_pending,
        new.max_ack_pending_given, new.start_from,
        new.start_at, new.start_sequence, subscribe.workers, subscribe.timeout, subscribe.retry_delay, subscribe.retry_delay_max,
        subscribe.contracts, subscribe.max_retrying, subscribe.endpoint);
    PERFORM sea_mq.begin_subscription(new.subscription, subscribe.start_from = 'new');
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN subscribe.subscription;
EXCEPTION
WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the subscription cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'timeout is 1 ms to 1 day, ack_wait 1 s to 1 day, retry_delay and retry_delay_max are 0 to 1 day, workers 1 to 6, and either a function handles or an endpoint; see the constraints of sea_mq.subscriptions for the others.';
WHEN numeric_value_out_of_range THEN
    RAISE EXCEPTION 'start_from "%" is not known', start_from
        USING ERRCODE = 'invalid_parameter_value', HINT = 'Stream sequences go from 1 to 9223372036854775807.';
END $$;
COMMENT ON FUNCTION sea_mq.subscribe IS
'Receives the events of a context (or of a stream, by its name). With a handler, f(sea_mq.event), each is handled exactly once in
effect, as the role that subscribes; with an endpoint, that is called for each; without both, messages wait for sea_mq.receive. filter: an event type, a type and a version
(order_created.v2) or a subject with wildcards. start_from: new, all, a stream sequence or a time. contracts: off, warn or enforce
(what breaks its registered contract, or has none, is poison). max_retrying: how many messages may wait for another attempt before
nothing new is tried (50). max_ack_pending: how many messages may be under way; NULL: 1000, or as many as the broker allows if those
are fewer. Returns the subscription''s name. Repeating the same call is a
no-op. Errors: 22004, 22023, 42710 (another one has that name), 42P13 (not a handler), 42501, 42704 (no context)';

CREATE FUNCTION sea_mq.begin_subscription(subscription text, from_now boolean) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.subscription_health (subscription, state, lanes)
    SELECT $1, 'pending', s.workers FROM sea_mq.subscriptions s WHERE s.subscription = $1 ON CONFLICT DO NOTHING;
    INSERT INTO sea_mq.cursor_log (slot, reader_kind, reader, done, next_xid, floor)
    SELECT 0, 'subscription', s.id, (p.log_position ->> 'done')::pg_snapshot, (p.log_position ->> 'next_xid')::bigint,
        (p.log_position ->> 'floor')::bigint
    FROM sea_mq.subscriptions s, sea_mq.log_position() AS p(log_position)
    WHERE $2 AND s.subscription = $1 AND s.start_from = 'new'
        AND NOT EXISTS (SELECT FROM sea_mq.cursor_log l WHERE l.reader_kind = 'subscription' AND l.reader = s.id);
$$;
COMMENT ON FUNCTION sea_mq.begin_subscription IS 'Where a new subscription begins; for internal use';

CREATE FUNCTION sea_mq.unsubscribe(subscription text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM sea_mq.own_subscription(unsubscribe.subscription);
    DELETE FROM sea_mq.subscriptions s WHERE s.subscription = unsubscribe.subscription;
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN unsubscribe.subscription;
END $$;
COMMENT ON FUNCTION sea_mq.unsubscribe IS
'Ends a subscription, returns its name, and removes its consumer in JetStream, if it carries this installation''s mark. What it has received stays in the inbox for as long as that is
retained, so that a later subscription of the same name handles nothing again; what waits there for an attempt is given up.
Errors: 42704, 42501';

-- Runs for each deleted subscription, so that a DELETE does the same.
CREATE FUNCTION sea_mq.end_subscription() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO sea_mq.consumer_deletions (stream, name) VALUES (OLD.stream, OLD.subscription) ON CONFLICT DO NOTHING;
    DELETE FROM sea_mq.inbox_pending p WHERE p.subscription = OLD.subscription;
    DELETE FROM sea_mq.subscription_health t WHERE t.subscription = OLD.subscription;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION sea_mq.end_subscription IS 'Trigger function: what goes with a subscription';
CREATE TRIGGER clean_up AFTER DELETE ON sea_mq.subscriptions
FOR EACH ROW EXECUTE FUNCTION sea_mq.end_subscription();
COMMENT ON TRIGGER clean_up ON sea_mq.subscriptions IS 'What goes with a subscription';

-- The function that a subscription runs: the one that it was given, for as long as its name means that one; and if that was
-- dropped, the one of its name. Whether the owner of either may still act as the subscription's owner is asked each time.
CREATE FUNCTION sea_mq.current_handler(s sea_mq.subscriptions) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p.oid IS NULL THEN sea_mq.find_handler(($1).handler)
        WHEN format('%I.%I', n.nspname, p.proname) = ($1).handler THEN p.oid END
    FROM (VALUES (($1).handler_oid)) h(oid) LEFT JOIN pg_proc p ON p.oid = h.oid LEFT JOIN pg_namespace n ON n.oid = p.pronamespace
$$;
COMMENT ON FUNCTION sea_mq.current_handler IS 'The function that a subscription runs; NULL if it is gone or another has its name; for internal use';

CREATE FUNCTION sea_mq.alter_subscription(
    subscription text, handler regproc DEFAULT NULL, filter text DEFAULT NULL, priority integer DEFAULT NULL,
    max_deliver integer DEFAULT NULL, ack_wait interval DEFAULT NULL, max_ack_pending integer DEFAULT NULL,
    workers integer DEFAULT NULL, timeout interval DEFAULT NULL, retry_delay interval DEFAULT NULL,
    retry_delay_max interval DEFAULT NULL, context text DEFAULT NULL, owner name DEFAULT NULL, contracts text DEFAULT NULL,
    max_retrying integer DEFAULT NULL, endpoint text DEFAULT NULL)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    decides boolean := alter_subscription.handler IS NOT NULL OR alter_subscription.owner IS NOT NULL OR alter_subscription.endpoint IS NOT NULL;
    old sea_mq.subscriptions := sea_mq.own_subscription(alter_subscription.subscription, decides);
    runner oid := coalesce(sea_mq.role_named(alter_subscription.owner), old.owner_oid);
    runs oid := coalesce(alter_subscription.handler::oid, sea_mq.current_handler(old));
BEGIN
    IF alter_subscription.owner IS NOT NULL AND sea_mq.role_named(alter_subscription.owner) IS NULL THEN
        RAISE EXCEPTION 'role "%" does not exist', alter_subscription.owner
            USING ERRCODE = 'undefined_object', HINT = 'Create it first.';
    ELSIF alter_subscription.owner IS NOT NULL AND NOT sea_mq.may_be(sea_mq.caller(), runner) THEN
        RAISE EXCEPTION 'role "%" may not make subscriptions that run as "%"', pg_get_userbyid(sea_mq.caller()), alter_subscription.owner
            USING ERRCODE = 'insufficient_privilege', HINT = 'Be a member of that role.';
    END IF;
    IF alter_subscription.endpoint IS NOT NULL AND old.endpoint IS NULL THEN
        RAISE EXCEPTION 'subscription "%" is not handled by an endpoint', alter_subscription.subscription
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Unsubscribe, and subscribe with endpoint => ….';
    ELSIF alter_subscription.handler IS NOT NULL AND old.endpoint IS NOT NULL THEN
        RAISE EXCEPTION 'subscription "%" is handled by an endpoint', alter_subscription.subscription
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Unsubscribe, and subscribe with a function.';
    ELSIF alter_subscription.endpoint IS NOT NULL THEN
        PERFORM sea_mq.check_called(alter_subscription.endpoint);
    END IF;
    IF decides AND runs IS NOT NULL THEN
        PERFORM sea_mq.check_runner(runs, runner);
    END IF;
    UPDATE sea_mq.subscriptions s SET
        handler = coalesce(sea_mq.handler_name(alter_subscription.handler), s.handler), handler_oid = runs, owner_oid = runner,
        filter = coalesce(alter_subscription.filter, s.filter),
        subject_filter = sea_mq.subject_filter(s.source_context, coalesce(alter_subscription.filter, s.filter)),
        priority = coalesce(alter_subscription.priority, s.priority),
        max_deliver = coalesce(alter_subscription.max_deliver, s.max_deliver),
        ack_wait = coalesce(alter_subscription.ack_wait, s.ack_wait),
        max_ack_pending = coalesce(alter_subscription.max_ack_pending, s.max_ack_pending),
        max_ack_pending_given = alter_subscription.max_ack_pending IS NOT NULL OR s.max_ack_pending_given,
        workers = coalesce(alter_subscription.workers, s.workers),
        timeout = coalesce(alter_subscription.timeout, s.timeout),
        retry_delay = coalesce(alter_subscription.retry_delay, s.retry_delay),
        retry_delay_max = coalesce(alter_subscription.retry_delay_max, s.retry_delay_max),
        context = coalesce(sea_mq.context_name(alter_subscription.context), s.context),
        owner = coalesce(alter_subscription.owner, s.owner),
        contracts = coalesce(alter_subscription.contracts, s.contracts),
        max_retrying = coalesce(alter_subscription.max_retrying, s.max_retrying),
        endpoint = coalesce(alter_subscription.endpoint, s.endpoint)
    WHERE s.subscription = alter_subscription.subscription;
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN alter_subscription.subscription;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the subscription cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'timeout is 1 ms to 1 day, ack_wait 1 s to 1 day, retry_delay and retry_delay_max are 0 to 1 day, workers 1 to 6; see the constraints of sea_mq.subscriptions for the others.';
END $$;
COMMENT ON FUNCTION sea_mq.alter_subscription IS
'Changes a subscription, and returns its name; NULL leaves a setting as it is. Where it began and what it reads cannot be changed. Errors: 22023, 42501,
42704, 42P13';

CREATE FUNCTION sea_mq.set_paused(subscription text, paused boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM sea_mq.own_subscription(set_paused.subscription);
    UPDATE sea_mq.subscriptions s SET paused = set_paused.paused WHERE s.subscription = set_paused.subscription;
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN set_paused.subscription;
END $$;
COMMENT ON FUNCTION sea_mq.set_paused IS 'What pause_subscription and resume_subscription do; for internal use';
CREATE FUNCTION sea_mq.pause_subscription(subscription text) RETURNS text
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT sea_mq.set_paused($1, true)';
COMMENT ON FUNCTION sea_mq.pause_subscription IS
'Stops handling and fetching until resume_subscription; what comes meanwhile waits in the stream. Errors: 42501, 42704';
CREATE FUNCTION sea_mq.resume_subscription(subscription text) RETURNS text
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT sea_mq.set_paused($1, false)';
COMMENT ON FUNCTION sea_mq.resume_subscription IS 'Ends a pause. Errors: 42501, 42704';

-- What a subscription never got, until somebody has decided what becomes of it.
CREATE TABLE sea_mq.removed_messages (
    subscription text COLLATE "C" PRIMARY KEY REFERENCES sea_mq.subscriptions ON DELETE CASCADE ON UPDATE CASCADE,
    stream text NOT NULL,
    messages bigint NOT NULL,
    at_most boolean NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    found_at timestamptz NOT NULL DEFAULT now()
);
SELECT pg_catalog.pg_extension_config_dump('sea_mq.removed_messages', '');
COMMENT ON TABLE sea_mq.removed_messages IS 'Messages that were removed from a stream before a subscription got them; see sea_mq.forget_removed';
COMMENT ON COLUMN sea_mq.removed_messages.subscription IS 'Subscription';
COMMENT ON COLUMN sea_mq.removed_messages.stream IS 'Stream that it reads';
COMMENT ON COLUMN sea_mq.removed_messages.messages IS 'How many';
COMMENT ON COLUMN sea_mq.removed_messages.at_most IS 'Whether it may be fewer: the subscription has a filter, and not all that was removed need be for it';
COMMENT ON COLUMN sea_mq.removed_messages.first_sequence IS 'Stream sequence of the first of them';
COMMENT ON COLUMN sea_mq.removed_messages.last_sequence IS 'Stream sequence of the last of them';
COMMENT ON COLUMN sea_mq.removed_messages.since IS 'When the first was found to be missing';
COMMENT ON COLUMN sea_mq.removed_messages.found_at IS 'When the last was found to be missing';

CREATE FUNCTION sea_mq.forget_removed(subscription text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    forgotten bigint;
BEGIN
    PERFORM sea_mq.own_subscription(forget_removed.subscription);
    DELETE FROM sea_mq.removed_messages r WHERE r.subscription = forget_removed.subscription RETURNING r.messages INTO forgotten;
    RETURN coalesce(forgotten, 0);
END $$;
COMMENT ON FUNCTION sea_mq.forget_removed IS
'Ends the problem that messages were removed before a subscription got them: republished, or given up. Returns how many. Errors: 42501, 42704';

-- Who subscribes owns the subscription. Nobody writes to the tables: who may do what is for the functions to say.
GRANT SELECT ON sea_mq.subscriptions, sea_mq.removed_messages TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.subscribe, sea_mq.unsubscribe, sea_mq.alter_subscription, sea_mq.set_paused,
    sea_mq.pause_subscription, sea_mq.resume_subscription, sea_mq.forget_removed TO sea_mq_consumer, sea_mq_operator;

-- The inbox: every received message once for each subscription. What waits is in inbox_pending, which is small; what is done
-- is in inbox_log, an append-only ring of slots. docs/inbox.md has the states of a message.
CREATE SEQUENCE sea_mq.inbox_id AS bigint;
COMMENT ON SEQUENCE sea_mq.inbox_id IS 'Numbers of inbox messages';

CREATE TABLE sea_mq.inbox_pending (
    id bigint PRIMARY KEY DEFAULT nextval('sea_mq.inbox_id'),
    subscription text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    status text NOT NULL CHECK (status IN ('received', 'processing', 'failed')),
    lane smallint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    -- A first attempt is always due: the clock does not say which of two comes first. Only the consumer stores such rows, one
    -- transaction after the other, so that none appears with a smaller id than one that is there.
    due_at timestamptz NOT NULL DEFAULT 'epoch',
    lease_until timestamptz,
    source_context text,
    event_type text NOT NULL,
    event_version integer,
    subject text NOT NULL,
    aggregate_type text,
    aggregate_id text,
    payload jsonb NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    stream_seq bigint,
    event_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at timestamptz,
    processing_error text,
    errors jsonb NOT NULL DEFAULT '[]'
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX inbox_pending_message ON sea_mq.inbox_pending (message_id, subscription);
CREATE INDEX inbox_pending_due ON sea_mq.inbox_pending (subscription, lane, due_at, id);

CREATE TABLE sea_mq.inbox_log (
    slot smallint NOT NULL,
    id bigint NOT NULL,
    subscription text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    status text NOT NULL,
    attempts integer NOT NULL,
    source_context text,
    event_type text NOT NULL,
    event_version integer,
    subject text NOT NULL,
    aggregate_type text,
    aggregate_id text,
    payload jsonb NOT NULL,
    headers jsonb NOT NULL,
    stream_seq bigint,
    event_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    delivered_at timestamptz,
    processed_at timestamptz NOT NULL,
    processing_error text,
    errors jsonb
) PARTITION BY LIST (slot);

-- Which slot is appended to.
CREATE TABLE sea_mq.inbox_ring (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    current_slot smallint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO sea_mq.inbox_ring (current_slot) VALUES (0);
CREATE TABLE sea_mq.inbox_slots (
    slot smallint PRIMARY KEY,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz
) WITH (fillfactor = 10);

DO $$
DECLARE
    slots CONSTANT integer := 4;
BEGIN
    FOR slot IN 0 .. slots - 1 LOOP
        EXECUTE format('CREATE TABLE sea_mq.inbox_log_%s PARTITION OF sea_mq.inbox_log FOR VALUES IN (%s)'
            ' WITH (autovacuum_vacuum_insert_threshold = -1)', slot, slot);
        -- Also what makes a second message with the same id impossible; between slots, the lock of sea_mq.inbox_slot does.
        EXECUTE format('CREATE UNIQUE INDEX inbox_log_%s_message ON sea_mq.inbox_log_%s (message_id, subscription)', slot, slot);
        -- What people ask sea_mq.inbox_messages for: the latest, and those that were not processed. What the consumer appends
        -- directly is processed, and is not entered into the second (see Appender in src/sys/relation.rs).
        EXECUTE format('CREATE INDEX inbox_log_%s_id ON sea_mq.inbox_log_%s (id)', slot, slot);
        EXECUTE format('CREATE INDEX inbox_log_%s_unprocessed ON sea_mq.inbox_log_%s (status, id) WHERE status <> ''processed''',
            slot, slot);
        EXECUTE format('COMMENT ON TABLE sea_mq.inbox_log_%s IS %L', slot, 'Slot ' || slot || ' of the inbox''s ring');
        EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.inbox_log_' || slot);
    END LOOP;
END $$;
SELECT pg_catalog.pg_extension_config_dump('sea_mq.inbox_id', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.inbox_pending', '');

COMMENT ON TABLE sea_mq.inbox_pending IS 'Messages that wait: to be received, for another attempt, or while they are processed. Query sea_mq.inbox_messages instead';
COMMENT ON COLUMN sea_mq.inbox_pending.lane IS 'Which of the subscription''s lanes it is in, from 0; follows from the aggregate';
COMMENT ON COLUMN sea_mq.inbox_pending.due_at IS 'When it may be handled; 1970 before the first attempt of what the consumer stored';
COMMENT ON COLUMN sea_mq.inbox_pending.lease_until IS 'Until when the application that received it has it; NULL while a worker has it';
COMMENT ON COLUMN sea_mq.inbox_pending.event_at IS 'When the stream stored it; inside the database: when it was emitted';
COMMENT ON TABLE sea_mq.inbox_log IS 'Messages that are done: processed, skipped or dead. Query sea_mq.inbox_messages instead';
COMMENT ON COLUMN sea_mq.inbox_log.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.inbox_log.event_at IS 'When the stream stored it; inside the database: when it was emitted';
COMMENT ON TABLE sea_mq.inbox_ring IS 'Which slot of the inbox''s ring is appended to; one row, not part of a dump';
COMMENT ON COLUMN sea_mq.inbox_ring.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.inbox_ring.current_slot IS 'The slot that is appended to';
COMMENT ON TABLE sea_mq.inbox_slots IS 'History of the inbox ring''s slots; not part of a dump';
COMMENT ON COLUMN sea_mq.inbox_slots.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.inbox_slots.opened_at IS 'When it became the current one';
COMMENT ON COLUMN sea_mq.inbox_slots.closed_at IS 'When the next took over; NULL for the current slot';

-- Of two plain tables, so that an order by id comes from their indexes and conditions on the status go down to them.
CREATE VIEW sea_mq.inbox_messages AS
SELECT m.id, m.message_id, m.subscription, m.source_context, m.event_type, m.event_version, m.subject, m.aggregate_type,
    m.aggregate_id, m.payload, m.headers, m.headers ->> 'X-Correlation-Id' AS correlation_id,
    m.headers ->> 'X-Causation-Id' AS causation_id, m.status,
    -- The condition on id says something to the planner alone: NOT processed is about few, and there is an index of those.
    NOT (m.status IN ('received', 'processing', 'failed', 'skipped', 'dead')
        AND m.id BETWEEN 0 AND (SELECT 9223372036854775807)) AS processed, m.processing_error, m.errors,
    m.attempts, m.next_attempt_at, m.created_at, m.delivered_at, m.processed_at, m.stream_seq
FROM (
    SELECT l.id, l.message_id, l.subscription, l.source_context, l.event_type, l.event_version, l.subject, l.aggregate_type,
        l.aggregate_id, l.payload, l.headers, l.status, l.processing_error, l.errors, l.attempts,
        NULL::timestamptz AS next_attempt_at, l.created_at, l.delivered_at, l.processed_at, l.stream_seq
    FROM sea_mq.inbox_log l
    UNION ALL
    SELECT p.id, p.message_id, p.subscription, p.source_context, p.event_type, p.event_version, p.subject, p.aggregate_type,
        p.aggregate_id, p.payload, p.headers, p.status, p.processing_error, p.errors, p.attempts,
        CASE WHEN p.status <> 'processing' THEN greatest(p.due_at, p.created_at) END, p.created_at, p.delivered_at, NULL, p.stream_seq
    FROM sea_mq.inbox_pending p
) m;
COMMENT ON VIEW sea_mq.inbox_messages IS 'One row per received message and subscription, for as long as it is retained';
COMMENT ON COLUMN sea_mq.inbox_messages.id IS 'Number of the row; what sea_mq.complete and its like take';
COMMENT ON COLUMN sea_mq.inbox_messages.message_id IS 'Nats-Msg-Id; unique together with subscription';
COMMENT ON COLUMN sea_mq.inbox_messages.subscription IS 'Subscription';
COMMENT ON COLUMN sea_mq.inbox_messages.source_context IS 'Context that emitted it';
COMMENT ON COLUMN sea_mq.inbox_messages.event_type IS 'Normalised event name; the subject if the message does not say';
COMMENT ON COLUMN sea_mq.inbox_messages.event_version IS 'Version of the event type';
COMMENT ON COLUMN sea_mq.inbox_messages.subject IS 'NATS subject';
COMMENT ON COLUMN sea_mq.inbox_messages.aggregate_type IS 'Type of the aggregate that changed';
COMMENT ON COLUMN sea_mq.inbox_messages.aggregate_id IS 'Id of the aggregate that changed';
COMMENT ON COLUMN sea_mq.inbox_messages.payload IS 'Content';
COMMENT ON COLUMN sea_mq.inbox_messages.headers IS 'Headers: an object of strings';
COMMENT ON COLUMN sea_mq.inbox_messages.correlation_id IS 'Correlation id';
COMMENT ON COLUMN sea_mq.inbox_messages.causation_id IS 'Causation id';
COMMENT ON COLUMN sea_mq.inbox_messages.status IS 'received, processing, failed (another attempt follows), processed, skipped or dead';
COMMENT ON COLUMN sea_mq.inbox_messages.processed IS 'Whether it was handled successfully';
COMMENT ON COLUMN sea_mq.inbox_messages.processing_error IS 'What went wrong last, or why it was skipped';
COMMENT ON COLUMN sea_mq.inbox_messages.errors IS 'The last 20 failures: [{at, attempt, kind, sqlstate, error, detail}]';
COMMENT ON COLUMN sea_mq.inbox_messages.attempts IS 'Attempts so far that count';
COMMENT ON COLUMN sea_mq.inbox_messages.next_attempt_at IS 'When it is handled next';
COMMENT ON COLUMN sea_mq.inbox_messages.created_at IS 'When it was received';
COMMENT ON COLUMN sea_mq.inbox_messages.delivered_at IS 'When it was handed to the handler or application last';
COMMENT ON COLUMN sea_mq.inbox_messages.processed_at IS 'When it was done';
COMMENT ON COLUMN sea_mq.inbox_messages.stream_seq IS 'Sequence in the stream; NULL if it came another way';

-- The two tables of the view, of which the same is true.
DO $$
DECLARE
    remark record;
BEGIN
    FOR remark IN
        SELECT t.attrelid::regclass AS tab, t.attname AS col, col_description(v.attrelid, v.attnum) AS words
        FROM pg_catalog.pg_attribute t
        JOIN pg_catalog.pg_attribute v ON v.attrelid = 'sea_mq.inbox_messages'::regclass AND v.attname = t.attname
        WHERE t.attrelid IN ('sea_mq.inbox_pending'::regclass, 'sea_mq.inbox_log'::regclass) AND t.attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', remark.tab, remark.col, remark.words);
    END LOOP;
END $$;

CREATE FUNCTION sea_mq.inbox_slot() RETURNS smallint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'inbox_slot_wrapper';
COMMENT ON FUNCTION sea_mq.inbox_slot IS
'The slot to append to, locked until the transaction ends so that no other becomes the current one meanwhile; for internal use';
CREATE FUNCTION sea_mq.inbox_holds(message_id text, subscription text) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'inbox_holds_wrapper';
COMMENT ON FUNCTION sea_mq.inbox_holds IS 'Whether the inbox has this message for this subscription, as of now; for internal use';

-- Moves a message from what waits to what is done.
CREATE FUNCTION sea_mq.settle(message sea_mq.inbox_pending, status text, error text DEFAULT NULL) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM sea_mq.inbox_pending p WHERE p.id = ($1).id;
    INSERT INTO sea_mq.inbox_log (slot, id, subscription, message_id, status, attempts, source_context, event_type, event_version,
        subject, aggregate_type, aggregate_id, payload, headers, stream_seq, event_at, created_at, delivered_at, processed_at,
        processing_error, errors)
    VALUES (sea_mq.inbox_slot(), ($1).id, ($1).subscription, ($1).message_id, $2, ($1).attempts, ($1).source_context,
        ($1).event_type, ($1).event_version, ($1).subject, ($1).aggregate_type, ($1).aggregate_id, ($1).payload, ($1).headers,
        ($1).stream_seq, ($1).event_at, ($1).created_at, ($1).delivered_at, clock_timestamp(), $3,
        nullif(($1).errors, '[]'));
$$;
COMMENT ON FUNCTION sea_mq.settle IS 'Moves a message from what waits to what is done; for internal use';

-- Counts not added to the subscriptions' progress yet. Appended to, since transactions that counted in one row would wait for
-- each other. The consumer adds up a slot that has grown and empties it by TRUNCATE, in one transaction. Writers move on by the
-- clock, so that a slot gets free of them; which one they append to makes no difference to the sum.
CREATE TABLE sea_mq.outcome_log (
    slot smallint NOT NULL,
    subscription_id bigint NOT NULL,
    processed bigint NOT NULL,
    skipped bigint NOT NULL,
    failed bigint NOT NULL,
    dead bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY LIST (slot);
DO $$
BEGIN
    FOR slot IN 0 .. 3 LOOP
        EXECUTE format('CREATE TABLE sea_mq.outcome_log_%s PARTITION OF sea_mq.outcome_log FOR VALUES IN (%s)'
            ' WITH (autovacuum_vacuum_insert_threshold = -1)', slot, slot);
        EXECUTE format('COMMENT ON TABLE sea_mq.outcome_log_%s IS %L', slot, 'Slot ' || slot || ' of the outcomes');
        EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.outcome_log_' || slot);
    END LOOP;
END $$;
COMMENT ON TABLE sea_mq.outcome_log IS 'Outcomes not added to sea_mq.progress_log yet';
COMMENT ON COLUMN sea_mq.outcome_log.slot IS 'Slot of the ring: sea_mq.outcome_slot()';
COMMENT ON COLUMN sea_mq.outcome_log.subscription_id IS 'Number of the subscription';

CREATE VIEW sea_mq.inbox_tally AS
SELECT s.subscription, o.processed, o.skipped, o.failed, o.dead, o.at
FROM sea_mq.outcome_log o JOIN sea_mq.subscriptions s ON s.id = o.subscription_id;
COMMENT ON VIEW sea_mq.inbox_tally IS 'Outcomes not added to sea_mq.subscription_state yet';
COMMENT ON COLUMN sea_mq.inbox_tally.subscription IS 'Subscription';
DO $$
DECLARE
    remark record;
BEGIN
    FOR remark IN
        SELECT * FROM (VALUES ('processed', 'Messages handled'), ('skipped', 'Messages skipped'), ('failed', 'Failed attempts'),
            ('dead', 'Dead letters'), ('at', 'When')) AS r(col, words)
    LOOP
        EXECUTE format('COMMENT ON COLUMN sea_mq.inbox_tally.%I IS %L', remark.col, remark.words);
        EXECUTE format('COMMENT ON COLUMN sea_mq.outcome_log.%I IS %L', remark.col, remark.words);
    END LOOP;
END $$;

CREATE FUNCTION sea_mq.outcome_slot() RETURNS smallint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (extract(epoch FROM clock_timestamp())::bigint / 4 % 4)::smallint
$$;
COMMENT ON FUNCTION sea_mq.outcome_slot IS 'The slot of sea_mq.outcome_log to append to: each for four seconds; for internal use';

CREATE FUNCTION sea_mq.count_outcomes(subscription text, processed bigint DEFAULT 0, skipped bigint DEFAULT 0,
    failed bigint DEFAULT 0, dead bigint DEFAULT 0) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.outcome_log (slot, subscription_id, processed, skipped, failed, dead)
    SELECT sea_mq.outcome_slot(), s.id, $2, $3, $4, $5 FROM sea_mq.subscriptions s WHERE s.subscription = $1
$$;
COMMENT ON FUNCTION sea_mq.count_outcomes IS 'Adds to a subscription''s counters; for internal use';

-- One more failure in the history, which keeps the last 20.
CREATE FUNCTION sea_mq.with_error(errors jsonb, attempt integer, kind text, sqlstate text, error text, detail text) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_array_length($1) >= 20 THEN $1 - 0 ELSE $1 END || jsonb_strip_nulls(jsonb_build_object(
        'at', clock_timestamp(), 'attempt', $2, 'kind', $3, 'sqlstate', $4, 'error', left($5, 2000), 'detail', left($6, 2000)))
$$;
COMMENT ON FUNCTION sea_mq.with_error IS 'Adds a failure to a message''s history, which keeps the last 20; for internal use';

-- What follows from a failed attempt: another one, or the dead letter queue. The attempt has been counted already.
CREATE FUNCTION sea_mq.attempt_failed(message sea_mq.inbox_pending, kind text, sqlstate text, error text, detail text DEFAULT NULL,
    retry_in interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s sea_mq.subscriptions;
    first_delay interval;
    longest_delay interval;
BEGIN
    SELECT * INTO s FROM sea_mq.subscriptions t WHERE t.subscription = message.subscription;
    message.processing_error := left(error, 2000);
    message.errors := sea_mq.with_error(message.errors, message.attempts, kind, sqlstate, error, detail);
    PERFORM sea_mq.count_outcomes(message.subscription, failed => 1);
    IF s.max_deliver > 0 AND message.attempts >= s.max_deliver THEN
        PERFORM sea_mq.bury(message, 'exhausted', error);
        RETURN 'dead';
    END IF;
    -- At most what the table allows, whatever was restored into it: an error here would stop the worker and not the message.
    first_delay := least(coalesce(s.retry_delay, current_setting('sea_mq.retry_delay')::interval), '1 day');
    longest_delay := least(coalesce(s.retry_delay_max, current_setting('sea_mq.retry_delay_max')::interval), '1 day');
    -- Doubled each time up to the longest, half of it random, so that what failed together does not come back together.
    retry_in := coalesce(retry_in, least(first_delay * pow(2, least(message.attempts, 30) - 1), longest_delay)
        * (0.5 + random() / 2));
    UPDATE sea_mq.inbox_pending p SET status = 'failed', lease_until = NULL, due_at = clock_timestamp() + retry_in,
        attempts = message.attempts, processing_error = message.processing_error, errors = message.errors
    WHERE p.id = message.id;
    RETURN 'failed';
END $$;
COMMENT ON FUNCTION sea_mq.attempt_failed IS
'Notes a failed attempt and plans the next, or moves the message to the dead letter queue; for internal use';

CREATE FUNCTION sea_mq.poison(reason text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%', coalesce(reason, 'no reason given') USING ERRCODE = 'SM001',
        HINT = 'In a handler, this moves the message to the dead letter queue.';
END $$;
COMMENT ON FUNCTION sea_mq.poison IS
'Called by a handler: the message can never be handled. Ends the handler (SQLSTATE SM001), undoes what it has done, and moves the
message to the dead letter queue without another attempt';
CREATE FUNCTION sea_mq.skip(reason text DEFAULT NULL) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%', coalesce(reason, 'no reason given') USING ERRCODE = 'SM002',
        HINT = 'In a handler, this marks the message as skipped.';
END $$;
COMMENT ON FUNCTION sea_mq.skip IS
'Called by a handler: the message is of no interest. Ends the handler (SQLSTATE SM002), undoes what it has done, and marks the
message as skipped';

-- For applications that handle messages themselves.

CREATE FUNCTION sea_mq.release_expired(subscription text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    message sea_mq.inbox_pending;
BEGIN
    FOR message IN SELECT p.* FROM sea_mq.inbox_pending p
        WHERE p.subscription = release_expired.subscription AND p.status = 'processing' AND p.lease_until < clock_timestamp()
        ORDER BY p.id LIMIT 1000 FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM sea_mq.attempt_failed(message, 'lease', NULL, 'the lease ran out', retry_in => '0');
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.release_expired IS 'Gives messages back whose lease has run out; for internal use';

CREATE FUNCTION sea_mq.check_lease(lease interval) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF lease IS NULL OR lease <= '0' OR lease > '1 day' THEN
        RAISE EXCEPTION 'lease must be positive, and a day at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in ''30 s''; sea_mq.extend_lease keeps a message for longer.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_lease IS 'An error unless a message can be leased for so long. Error 22023; for internal use';

-- How a receiver waits: it looks again and again, each time with a snapshot of its own and without a lock on a row or an xid. What
-- holds its statement's snapshot is the statement, so it does not last long.
CREATE FUNCTION sea_mq.await_messages(subscription text, wait interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    until timestamptz := clock_timestamp() + wait;
    began timestamptz;
    pause double precision := 0.005;
BEGIN
    IF wait < '0' OR wait > '30 s' THEN
        RAISE EXCEPTION 'wait must not be negative, and 30 s at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in ''5 s''; call sea_mq.receive again when nothing has come.';
    END IF;
    IF wait > '0' AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'receive can only wait at the isolation level READ COMMITTED'
            USING ERRCODE = 'feature_not_supported', HINT = 'At others, a transaction does not see what comes after its first statement.';
    END IF;
    LOOP
        began := clock_timestamp();
        EXIT WHEN wait IS NULL OR began >= until OR EXISTS (SELECT FROM sea_mq.inbox_pending p
            WHERE p.subscription = await_messages.subscription
                AND CASE p.status WHEN 'processing' THEN p.lease_until ELSE p.due_at END <= clock_timestamp());
        -- To look takes a twentieth of the time at most, however much is under way.
        pause := greatest(pause, 20 * extract(epoch FROM clock_timestamp() - began));
        PERFORM pg_sleep(least(pause, extract(epoch FROM until - clock_timestamp())));
        pause := least(pause * 1.5, 0.05);
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.await_messages IS
'Waits until a subscription has a message to receive, or the time has passed. Errors: 22023, 0A000 (not READ COMMITTED); for internal use';

CREATE FUNCTION sea_mq.receive(subscription text, max integer DEFAULT 10, lease interval DEFAULT '30 s',
    wait interval DEFAULT NULL, per_aggregate boolean DEFAULT false)
RETURNS TABLE (id bigint, message_id text, source_context text, event_type text, event_version integer, subject text,
    aggregate_type text, aggregate_id text, payload jsonb, headers jsonb, correlation_id text, causation_id text,
    attempts integer, created_at timestamptz, lease_until timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    first bigint[];
BEGIN
    IF max IS NULL OR max < 1 THEN
        RAISE EXCEPTION 'max must be positive'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in sea_mq.receive(''billing__orders'', 10, ''30 s'').';
    END IF;
    PERFORM sea_mq.check_lease(lease);
    IF NOT EXISTS (SELECT FROM sea_mq.subscriptions s WHERE s.subscription = receive.subscription AND s.handler IS NULL AND s.endpoint IS NULL) THEN
        RAISE EXCEPTION 'there is no subscription "%" without a handler', subscription
            USING ERRCODE = 'undefined_object', HINT = 'Make it with sea_mq.subscribe(subscription, source), without a handler.';
    END IF;
    PERFORM sea_mq.check_receiver(receive.subscription);
    PERFORM sea_mq.await_messages(receive.subscription, wait);
    PERFORM sea_mq.release_expired(receive.subscription);
    IF per_aggregate THEN
        -- Of each aggregate the oldest that is not done, whoever has it: the next is nobody's before that one is settled.
        first := ARRAY(SELECT DISTINCT ON (p.aggregate_type, p.aggregate_id, CASE WHEN p.aggregate_id IS NULL THEN p.id END) p.id
            FROM sea_mq.inbox_pending p WHERE p.subscription = receive.subscription
            ORDER BY p.aggregate_type, p.aggregate_id, CASE WHEN p.aggregate_id IS NULL THEN p.id END, p.id);
    END IF;
    RETURN QUERY
    WITH taken AS (
        UPDATE sea_mq.inbox_pending p SET status = 'processing', attempts = p.attempts + 1, delivered_at = clock_timestamp(),
            lease_until = clock_timestamp() + lease
        WHERE p.id IN (SELECT w.id FROM sea_mq.inbox_pending w
            WHERE w.subscription = receive.subscription AND w.status <> 'processing' AND w.due_at <= clock_timestamp()
                AND (first IS NULL OR w.id = ANY (first))
            ORDER BY w.id LIMIT receive.max FOR UPDATE SKIP LOCKED)
        RETURNING p.*)
    SELECT t.id, t.message_id, t.source_context, t.event_type, t.event_version, t.subject, t.aggregate_type, t.aggregate_id,
        t.payload, t.headers, t.headers ->> 'X-Correlation-Id', t.headers ->> 'X-Causation-Id', t.attempts, t.event_at, t.lease_until
    FROM taken t ORDER BY t.id;
END $$;
COMMENT ON FUNCTION sea_mq.receive IS
'Takes up to max messages of a subscription without a handler, oldest first, for as long as lease; many clients may call it at
once. Commit at once: until then nobody else sees that they are taken. wait: how long to wait for the first, 30 s at most.
per_aggregate: of each aggregate only the oldest that is not done, so that no two clients have events of one, and a failed one is
handled before those that follow it. Then call complete, fail or reject for each, in the
transaction that has the effects. A message whose lease runs out is given back, and that counts as a failed attempt. Errors: 0A000 (it is to wait and cannot), 22023, 42704';

CREATE FUNCTION sea_mq.taken(id bigint) RETURNS sea_mq.inbox_pending
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    message sea_mq.inbox_pending;
BEGIN
    SELECT p.* INTO message FROM sea_mq.inbox_pending p
    JOIN sea_mq.subscriptions s ON s.subscription = p.subscription AND s.handler IS NULL AND s.endpoint IS NULL
    WHERE p.id = taken.id AND p.attempts > 0 FOR UPDATE OF p;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'message % is not under way', id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'It was completed or rejected already, perhaps by somebody who received it after its lease had run out. Roll back.';
    END IF;
    PERFORM sea_mq.check_receiver(message.subscription);
    RETURN message;
END $$;
COMMENT ON FUNCTION sea_mq.taken IS 'A message that an application has received, locked. Error 55000; for internal use';

CREATE FUNCTION sea_mq.complete(id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    message sea_mq.inbox_pending := sea_mq.taken(id);
BEGIN
    PERFORM sea_mq.settle(message, 'processed');
    PERFORM sea_mq.count_outcomes(message.subscription, processed => 1);
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN 'processed';
END $$;
COMMENT ON FUNCTION sea_mq.complete IS
'Marks a received message as processed, and returns this status. Called in the transaction that has the effects, both commit or neither: of two clients
that have the same message, the second gets an error (55000) and rolls back';

CREATE FUNCTION sea_mq.fail(id bigint, error text, retry_in interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF retry_in < '0' OR retry_in > '1 year' THEN
        RAISE EXCEPTION 'retry_in must not be negative, and a year at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in ''10 s''; leave it out for the subscription''s own delay.';
    END IF;
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN sea_mq.attempt_failed(sea_mq.taken(id), 'error', NULL, coalesce(error, 'no reason given'), retry_in => retry_in);
END $$;
COMMENT ON FUNCTION sea_mq.fail IS
'Gives a received message back after a failure, for another attempt after retry_in (or the subscription''s backoff), or, if
max_deliver is reached, to the dead letter queue. Call it in a transaction of its own, after rolling back. Returns the status that
follows: failed or dead. Errors: 22023 (retry_in is negative, or more than a year), 55000';

CREATE FUNCTION sea_mq.reject(id bigint, reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    message sea_mq.inbox_pending := sea_mq.taken(id);
BEGIN
    message.errors := sea_mq.with_error(message.errors, message.attempts, 'poison', NULL, reason, NULL);
    PERFORM sea_mq.bury(message, 'poison', coalesce(reason, 'no reason given'));
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN 'dead';
END $$;
COMMENT ON FUNCTION sea_mq.reject IS
'Moves a received message to the dead letter queue without another attempt, and returns the status: dead. Error 55000';

CREATE FUNCTION sea_mq.extend_lease(id bigint, lease interval DEFAULT '30 s') RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    message sea_mq.inbox_pending := sea_mq.taken(id);
    until timestamptz;
BEGIN
    PERFORM sea_mq.check_lease(lease);
    until := clock_timestamp() + lease;
    IF message.status <> 'processing' THEN
        RAISE EXCEPTION 'the lease of message % has run out', id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Roll back; the message comes again.';
    END IF;
    UPDATE sea_mq.inbox_pending p SET lease_until = until WHERE p.id = message.id;
    RETURN until;
END $$;
COMMENT ON FUNCTION sea_mq.extend_lease IS 'Keeps a received message for longer, from now on. Returns until when. Errors: 22023 (not
positive, or more than a day), 55000 (the lease has run out)';

CREATE FUNCTION sea_mq.is_reserved(subscription text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT $1 LIKE 'ingest:%' OR $1 LIKE 'endpoint:%' $$;
COMMENT ON FUNCTION sea_mq.is_reserved IS 'Whether a name is not for subscriptions and applications: those that begin with "ingest:" or "endpoint:"; for internal use';

CREATE FUNCTION sea_mq.accept_once(message_id text, source_context text, event_type text, payload jsonb, subscription text,
    event_version integer, subject text, headers jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    slot smallint := sea_mq.inbox_slot();
    accepted bigint;
BEGIN
    IF sea_mq.inbox_holds(accept_once.message_id, accept_once.subscription) THEN
        RETURN false;
    END IF;
    INSERT INTO sea_mq.inbox_log (slot, id, subscription, message_id, status, attempts, source_context, event_type, event_version,
        subject, payload, headers, event_at, created_at, delivered_at, processed_at)
    VALUES (slot, nextval('sea_mq.inbox_id'), accept_once.subscription, accept_once.message_id, 'processed', 1,
        accept_once.source_context, accept_once.event_type, accept_once.event_version,
        coalesce(accept_once.subject, concat_ws('.', accept_once.source_context, 'event', accept_once.event_type,
            'v' || coalesce(accept_once.event_version, 1))),
        coalesce(accept_once.payload, 'null'), coalesce(accept_once.headers, '{}'), clock_timestamp(), clock_timestamp(),
        clock_timestamp(), clock_timestamp())
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS accepted = ROW_COUNT;
    RETURN accepted = 1;
END $$;
COMMENT ON FUNCTION sea_mq.accept_once IS 'Stores a message as processed; false if the inbox has it; for internal use';

CREATE FUNCTION sea_mq.inbox_accept(message_id text, source_context text, event_type text, payload jsonb, subscription text,
    event_version integer DEFAULT NULL, subject text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    -- Other publishers may have names that are no token of a subject.
    kind text := CASE WHEN inbox_accept.event_type ~ '^[^[:space:].*>]+$' THEN sea_mq.event_name(inbox_accept.event_type)
        ELSE inbox_accept.event_type END;
BEGIN
    IF inbox_accept.message_id IS NULL OR inbox_accept.subscription IS NULL OR inbox_accept.event_type IS NULL THEN
        RAISE EXCEPTION 'message_id, event_type and subscription must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'message_id is the Nats-Msg-Id of the message.';
    END IF;
    IF sea_mq.is_reserved(inbox_accept.subscription) THEN
        RAISE EXCEPTION 'the name "%" is reserved', inbox_accept.subscription
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Names that begin with "ingest:" stand for the messages of partners (sea_mq.ingest): choose another.';
    END IF;
    PERFORM sea_mq.claim_name(inbox_accept.subscription);
    RETURN sea_mq.accept_once(inbox_accept.message_id, inbox_accept.source_context, kind, inbox_accept.payload,
        inbox_accept.subscription, inbox_accept.event_version, inbox_accept.subject, inbox_accept.headers);
END $$;
COMMENT ON FUNCTION sea_mq.inbox_accept(text, text, text, jsonb, text, integer, text, jsonb) IS
'For applications with a NATS consumer of their own: true the first time that a message is accepted for a subscription, false
afterwards. Call it in the transaction that has the effects, and acknowledge the message after the commit. Waits for a concurrent
transaction that accepts the same message. A name belongs to the role that uses it first, or that has subscribed under it. Errors:
22004, 22023 (a name of sea_mq.ingest), 42501 (another role''s name)';

-- As the forms of emit: chosen only where the one above does not fit.
CREATE FUNCTION sea_mq.inbox_accept(message_id sea_mq.plain_text, source_context text, event_type text, payload sea_mq.json_text,
    subscription text, event_version integer DEFAULT NULL, subject text DEFAULT NULL, headers sea_mq.json_text DEFAULT NULL) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT sea_mq.inbox_accept($1::text, $2, $3, $4::text::jsonb, $5, $6, $7, $8::text::jsonb)
$$;
COMMENT ON FUNCTION sea_mq.inbox_accept(sea_mq.plain_text, text, text, sea_mq.json_text, text, integer, text, sea_mq.json_text) IS
'inbox_accept with JSON as text or json. Errors: as the form with jsonb; 22P02 (no JSON)';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.poison, sea_mq.skip, sea_mq.receive, sea_mq.complete, sea_mq.fail, sea_mq.reject,
    sea_mq.extend_lease,
    sea_mq.inbox_accept(sea_mq.plain_text, text, text, sea_mq.json_text, text, integer, text, sea_mq.json_text),
    sea_mq.inbox_accept(text, text, text, jsonb, text, integer, text, jsonb) TO sea_mq_consumer;
GRANT SELECT ON sea_mq.inbox_messages TO sea_mq_operator, sea_mq_monitor;

-- The dead letter queue: what could not be handled here, and what others put on {context}.dlq.>.
CREATE TABLE sea_mq.dlq_messages (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    context text NOT NULL,
    original_subject text NOT NULL,
    subscription text,
    message_id text,
    source_context text,
    event_type text,
    event_version integer,
    aggregate_type text,
    aggregate_id text,
    payload jsonb NOT NULL,
    headers jsonb NOT NULL,
    reason text NOT NULL CHECK (reason IN ('poison', 'exhausted', 'foreign', 'unpublishable')),
    failure_count integer NOT NULL,
    error text,
    errors jsonb NOT NULL DEFAULT '[]',
    first_failed_at timestamptz,
    last_failed_at timestamptz,
    dlq_message_id text COLLATE "C" NOT NULL UNIQUE,
    stream text,
    stream_seq bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    replayed_at timestamptz,
    replay_event_id uuid,
    replayed_by name,
    discarded_at timestamptz,
    discard_reason text,
    discarded_by name,
    actor text
);
CREATE INDEX dlq_messages_open ON sea_mq.dlq_messages (id) WHERE replayed_at IS NULL AND discarded_at IS NULL;
CREATE INDEX dlq_messages_open_of ON sea_mq.dlq_messages (context, (coalesce(subscription, '')), id)
    WHERE replayed_at IS NULL AND discarded_at IS NULL;
CREATE INDEX dlq_messages_replayed ON sea_mq.dlq_messages (id) WHERE replayed_at IS NOT NULL;
CREATE INDEX dlq_messages_replay ON sea_mq.dlq_messages (replay_event_id) WHERE replay_event_id IS NOT NULL;
CREATE INDEX dlq_messages_place ON sea_mq.dlq_messages (stream, stream_seq) WHERE stream_seq IS NOT NULL;
CREATE INDEX dlq_messages_decided ON sea_mq.dlq_messages (coalesce(replayed_at, discarded_at))
    WHERE coalesce(replayed_at, discarded_at) IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('sea_mq.dlq_messages', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.dlq_messages_id_seq', '');
COMMENT ON SEQUENCE sea_mq.dlq_messages_id_seq IS 'Numbers of dead letters';
COMMENT ON TABLE sea_mq.dlq_messages IS 'Dead letters: what could not be handled here, and what other services put on {context}.dlq.>';
COMMENT ON COLUMN sea_mq.dlq_messages.id IS 'Number; what dlq_replay and dlq_discard take';
COMMENT ON COLUMN sea_mq.dlq_messages.context IS 'Context whose dead letter queue it is in';
COMMENT ON COLUMN sea_mq.dlq_messages.original_subject IS 'Subject on which the message had come';
COMMENT ON COLUMN sea_mq.dlq_messages.subscription IS 'Subscription that could not handle it; NULL if the message does not say';
COMMENT ON COLUMN sea_mq.dlq_messages.message_id IS 'Id of the message that could not be handled';
COMMENT ON COLUMN sea_mq.dlq_messages.source_context IS 'Context that emitted it';
COMMENT ON COLUMN sea_mq.dlq_messages.event_type IS 'Normalised event name';
COMMENT ON COLUMN sea_mq.dlq_messages.event_version IS 'Version of the event type';
COMMENT ON COLUMN sea_mq.dlq_messages.aggregate_type IS 'Type of the aggregate that changed';
COMMENT ON COLUMN sea_mq.dlq_messages.aggregate_id IS 'Id of the aggregate that changed';
COMMENT ON COLUMN sea_mq.dlq_messages.payload IS 'Content; what is not JSON is a JSON string, see the header X-Sea-Body';
COMMENT ON COLUMN sea_mq.dlq_messages.headers IS 'Headers of the original message: an object of strings';
COMMENT ON COLUMN sea_mq.dlq_messages.reason IS 'poison (cannot be handled), exhausted (max_deliver was reached), foreign (put there by another service) or unpublishable (the broker will not take an event of this database)';
COMMENT ON COLUMN sea_mq.dlq_messages.failure_count IS 'Failed attempts since it was received';
COMMENT ON COLUMN sea_mq.dlq_messages.error IS 'The last error, or the reason given';
COMMENT ON COLUMN sea_mq.dlq_messages.errors IS 'History: [{at, attempt, kind, sqlstate, error, detail}], that before a replay included';
COMMENT ON COLUMN sea_mq.dlq_messages.first_failed_at IS 'When it failed first, before a replay included';
COMMENT ON COLUMN sea_mq.dlq_messages.last_failed_at IS 'When it failed last';
COMMENT ON COLUMN sea_mq.dlq_messages.dlq_message_id IS 'Nats-Msg-Id of the dead letter in the DLQ stream';
COMMENT ON COLUMN sea_mq.dlq_messages.stream IS 'DLQ stream; NULL until it has been seen there';
COMMENT ON COLUMN sea_mq.dlq_messages.stream_seq IS 'Its sequence in the DLQ stream';
COMMENT ON COLUMN sea_mq.dlq_messages.created_at IS 'When it became a dead letter here';
COMMENT ON COLUMN sea_mq.dlq_messages.replayed_at IS 'When it was replayed';
COMMENT ON COLUMN sea_mq.dlq_messages.replay_event_id IS 'Message id that the replay has';
COMMENT ON COLUMN sea_mq.dlq_messages.replayed_by IS 'Role in force when it was replayed';
COMMENT ON COLUMN sea_mq.dlq_messages.discarded_at IS 'When it was discarded';
COMMENT ON COLUMN sea_mq.dlq_messages.discard_reason IS 'Why it was discarded';
COMMENT ON COLUMN sea_mq.dlq_messages.discarded_by IS 'Role in force when it was discarded';
COMMENT ON COLUMN sea_mq.dlq_messages.actor IS 'Whom that role claimed to act for: the setting sea_mq.actor';

-- How many there are, so that nobody has to count what is retained. Appended to, since transactions that counted in one row
-- would wait for each other; the consumer adds rows up.
CREATE TABLE sea_mq.dlq_tally (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    context text NOT NULL,
    subscription text,
    open bigint NOT NULL,
    replayed bigint NOT NULL,
    discarded bigint NOT NULL,
    returned bigint NOT NULL DEFAULT 0,
    last_failed_at timestamptz
);
COMMENT ON TABLE sea_mq.dlq_tally IS 'Numbers of dead letters: the sum of a context''s and subscription''s rows. Not part of a dump: letters that are restored are counted';
COMMENT ON SEQUENCE sea_mq.dlq_tally_id_seq IS 'Numbers of the rows of sea_mq.dlq_tally';
COMMENT ON COLUMN sea_mq.dlq_tally.id IS 'Number of the row';
COMMENT ON COLUMN sea_mq.dlq_tally.context IS 'Context whose dead letter queue they are in';
COMMENT ON COLUMN sea_mq.dlq_tally.subscription IS 'Subscription that could not handle them';
COMMENT ON COLUMN sea_mq.dlq_tally.open IS 'How many more there are about which nothing was decided; negative: fewer';
COMMENT ON COLUMN sea_mq.dlq_tally.replayed IS 'How many more there are that were replayed';
COMMENT ON COLUMN sea_mq.dlq_tally.discarded IS 'How many more there are that were discarded';
COMMENT ON COLUMN sea_mq.dlq_tally.returned IS 'How many more there are that are replays which failed again';
COMMENT ON COLUMN sea_mq.dlq_tally.last_failed_at IS 'When the newest of them failed last';

CREATE FUNCTION sea_mq.count_dead_letters() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM sea_mq.dlq_tally;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO sea_mq.dlq_tally (context, subscription, open, replayed, discarded, returned, last_failed_at)
        SELECT d.context, d.subscription, count(*) FILTER (WHERE d.replayed_at IS NULL AND d.discarded_at IS NULL),
            count(d.replayed_at), count(d.discarded_at), count(*) FILTER (WHERE d.headers ? 'X-Replayed-From'), max(d.last_failed_at)
        FROM after d GROUP BY d.context, d.subscription;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO sea_mq.dlq_tally (context, subscription, open, replayed, discarded, returned)
        SELECT d.context, d.subscription, -count(*) FILTER (WHERE d.replayed_at IS NULL AND d.discarded_at IS NULL),
            -count(d.replayed_at), -count(d.discarded_at), -count(*) FILTER (WHERE d.headers ? 'X-Replayed-From')
        FROM before d GROUP BY d.context, d.subscription;
    ELSE
        INSERT INTO sea_mq.dlq_tally (context, subscription, open, replayed, discarded, returned, last_failed_at)
        SELECT d.context, d.subscription, coalesce(sum(d.n) FILTER (WHERE d.replayed_at IS NULL AND d.discarded_at IS NULL), 0),
            coalesce(sum(d.n) FILTER (WHERE d.replayed_at IS NOT NULL), 0),
            coalesce(sum(d.n) FILTER (WHERE d.discarded_at IS NOT NULL), 0),
            coalesce(sum(d.n) FILTER (WHERE d.returned), 0), max(d.last_failed_at)
        FROM (SELECT 1 AS n, a.context, a.subscription, a.replayed_at, a.discarded_at, a.headers ? 'X-Replayed-From' AS returned,
                a.last_failed_at FROM after a
            UNION ALL SELECT -1, b.context, b.subscription, b.replayed_at, b.discarded_at, b.headers ? 'X-Replayed-From', NULL
            FROM before b) d
        GROUP BY d.context, d.subscription
        -- Most changes are of where a letter stands in the stream.
        HAVING sum(d.n) <> 0 OR sum(d.n) FILTER (WHERE d.replayed_at IS NOT NULL) <> 0
            OR sum(d.n) FILTER (WHERE d.discarded_at IS NOT NULL) <> 0 OR sum(d.n) FILTER (WHERE d.returned) <> 0;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION sea_mq.count_dead_letters IS 'Trigger function: keeps the numbers of dead letters';
CREATE TRIGGER count_new AFTER INSERT ON sea_mq.dlq_messages REFERENCING NEW TABLE AS after
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.count_dead_letters();
CREATE TRIGGER count_changed AFTER UPDATE ON sea_mq.dlq_messages REFERENCING OLD TABLE AS before NEW TABLE AS after
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.count_dead_letters();
CREATE TRIGGER count_gone AFTER DELETE ON sea_mq.dlq_messages REFERENCING OLD TABLE AS before
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.count_dead_letters();
CREATE TRIGGER count_none AFTER TRUNCATE ON sea_mq.dlq_messages
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.count_dead_letters();
ALTER TABLE sea_mq.dlq_messages ENABLE ALWAYS TRIGGER count_new, ENABLE ALWAYS TRIGGER count_changed,
    ENABLE ALWAYS TRIGGER count_gone, ENABLE ALWAYS TRIGGER count_none;
COMMENT ON TRIGGER count_new ON sea_mq.dlq_messages IS 'Keeps the numbers in sea_mq.dlq_tally';
COMMENT ON TRIGGER count_changed ON sea_mq.dlq_messages IS 'Keeps the numbers in sea_mq.dlq_tally';
COMMENT ON TRIGGER count_gone ON sea_mq.dlq_messages IS 'Keeps the numbers in sea_mq.dlq_tally';
COMMENT ON TRIGGER count_none ON sea_mq.dlq_messages IS 'Keeps the numbers in sea_mq.dlq_tally';

-- Called by the consumer every second; does something when there are many rows to a sum.
CREATE FUNCTION sea_mq.fold_dlq_tally() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH counted AS (DELETE FROM sea_mq.dlq_tally t
        WHERE (SELECT count(*) > 100 + 2 * count(DISTINCT (s.context, s.subscription)) FROM sea_mq.dlq_tally s) RETURNING *)
    INSERT INTO sea_mq.dlq_tally (context, subscription, open, replayed, discarded, returned, last_failed_at)
    SELECT c.context, c.subscription, sum(c.open), sum(c.replayed), sum(c.discarded), sum(c.returned), max(c.last_failed_at)
    FROM counted c GROUP BY c.context, c.subscription
    HAVING sum(c.open) <> 0 OR sum(c.replayed) <> 0 OR sum(c.discarded) <> 0
$$;
COMMENT ON FUNCTION sea_mq.fold_dlq_tally IS 'Adds up the numbers of dead letters; for internal use';

-- Single messages to be removed from streams: dead letters that were replayed or discarded.
CREATE TABLE sea_mq.message_deletions (
    stream text NOT NULL,
    sequence bigint NOT NULL,
    error text,
    PRIMARY KEY (stream, sequence)
);
COMMENT ON TABLE sea_mq.message_deletions IS 'Messages that are still to be removed from their streams; normally empty';
COMMENT ON COLUMN sea_mq.message_deletions.stream IS 'Stream';
COMMENT ON COLUMN sea_mq.message_deletions.sequence IS 'Sequence of the message';
COMMENT ON COLUMN sea_mq.message_deletions.error IS 'Why the last attempt failed';

CREATE FUNCTION sea_mq.emit_raw(kind text, context text, subject text, event_id uuid, event_type text, event_version integer,
    aggregate_type text, aggregate_id text, payload jsonb, headers jsonb, correlation_id text, causation_id text, visibility text, created_at timestamptz DEFAULT NULL)
RETURNS boolean LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'emit_raw_wrapper';
COMMENT ON FUNCTION sea_mq.emit_raw IS
'Emits a message on a subject of its own to the event stream (kind event) or dead-letter stream (kind dlq) of a context, in the
current transaction. The caller has checked all of it but the size: false, and nothing emitted, if an event is too large; for
internal use';

-- The headers of a message but for those that sea_mq sets again when it sends it on.
CREATE FUNCTION sea_mq.own_headers(headers jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(h.key, h.value), '{}') FROM jsonb_each($1) h
    WHERE lower(h.key) !~ '^(nats-|x-original-|x-failure-|x-replay)' AND lower(h.key) NOT IN ('x-correlation-id',
        'x-causation-id', 'x-event-version', 'x-event-type', 'x-aggregate-type', 'x-aggregate-id', 'x-source-context',
        'x-sea-visibility', 'x-subscription', 'x-error', 'x-errors', 'x-first-failed-at', 'x-last-failed-at')
$$;
COMMENT ON FUNCTION sea_mq.own_headers IS 'A message''s headers without those that sea_mq sets when it sends it on; for internal use';

CREATE FUNCTION sea_mq.header_value(value text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT left(btrim(regexp_replace($1, '[[:cntrl:]]+', ' ', 'g')), 500)
$$;
COMMENT ON FUNCTION sea_mq.header_value IS 'A text as a header can carry it: one line, 500 characters; for internal use';

CREATE FUNCTION sea_mq.header_time(at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
COMMENT ON FUNCTION sea_mq.header_time IS 'A time as RFC 3339 has it, in UTC; for internal use';

CREATE FUNCTION sea_mq.as_uuid(id text) RETURNS uuid
-- Without a search_path of its own, so that it can be inlined; those who call it have one.
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN $1 ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN $1::uuid END
$$;
COMMENT ON FUNCTION sea_mq.as_uuid IS 'A message id as a uuid; NULL if it is none; for internal use';

-- To the dead letter queue: the record, the message for the DLQ stream and the end in the inbox, all in this transaction.
CREATE FUNCTION sea_mq.bury(message sea_mq.inbox_pending, reason text, error text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    dlq_context text := coalesce((SELECT s.context FROM sea_mq.subscriptions s WHERE s.subscription = message.subscription),
        message.source_context, split_part(message.subject, '.', 1));
    before sea_mq.dlq_messages;
    letter sea_mq.dlq_messages;
    dead_id uuid := gen_random_uuid();
BEGIN
    -- A replay that failed again comes back with its history.
    SELECT d.* INTO before FROM sea_mq.dlq_messages d
    WHERE d.replay_event_id = sea_mq.as_uuid(message.message_id) AND d.subscription IS NOT DISTINCT FROM message.subscription;
    INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, message_id, source_context, event_type,
        event_version, aggregate_type, aggregate_id, payload, headers, reason, failure_count, error, errors, first_failed_at,
        last_failed_at, dlq_message_id)
    VALUES (dlq_context, message.subject, message.subscription, message.message_id, message.source_context, message.event_type,
        message.event_version, message.aggregate_type, message.aggregate_id, message.payload, message.headers, bury.reason,
        message.attempts, left(bury.error, 2000), coalesce(before.errors, '[]') || message.errors,
        coalesce(before.first_failed_at, (message.errors -> 0 ->> 'at')::timestamptz, clock_timestamp()),
        coalesce((message.errors -> -1 ->> 'at')::timestamptz, clock_timestamp()), dead_id::text)
    RETURNING * INTO letter;
    PERFORM sea_mq.emit_raw('dlq', dlq_context, dlq_context || '.dlq.' || message.subject, dead_id, message.event_type,
        message.event_version, message.aggregate_type, message.aggregate_id, message.payload,
        sea_mq.own_headers(message.headers) || jsonb_strip_nulls(jsonb_build_object(
            'X-Original-Subject', message.subject, 'X-Original-Message-Id', sea_mq.header_value(message.message_id),
            'X-Original-Source-Context', message.source_context, 'X-Original-Causation-Id', message.headers ->> 'X-Causation-Id',
            'X-Original-Stream-Sequence', message.stream_seq::text, 'X-Subscription', message.subscription,
            'X-Failure-Reason', bury.reason, 'X-Failure-Count', letter.failure_count::text,
            'X-Error', sea_mq.header_value(letter.error),
            'X-Errors', sea_mq.header_value((SELECT string_agg(concat_ws(' ', e.value ->> 'sqlstate', e.value ->> 'error'), '; '
                ORDER BY e.place DESC) FROM jsonb_array_elements(letter.errors) WITH ORDINALITY e(value, place))),
            'X-First-Failed-At', sea_mq.header_time(letter.first_failed_at),
            'X-Last-Failed-At', sea_mq.header_time(letter.last_failed_at))),
        message.headers ->> 'X-Correlation-Id', message.message_id,
        coalesce(message.headers ->> 'X-Sea-Visibility', 'internal'));
    PERFORM sea_mq.settle(message, 'dead', bury.error);
    PERFORM sea_mq.count_outcomes(message.subscription, dead => 1);
    RAISE LOG 'sea_mq: message % of subscription % is a dead letter (%, % attempts): %', message.message_id, message.subscription,
        bury.reason, message.attempts, bury.error USING HINT = format('See sea_mq.dlq_messages, id %s.', letter.id);
    RETURN letter.id;
END $$;
COMMENT ON FUNCTION sea_mq.bury IS 'Moves a message to the dead letter queue and returns its number there; for internal use';

-- What the consumer found in the context's DLQ stream.
CREATE FUNCTION sea_mq.mirror_dead_letter(stream text, stream_seq bigint, subject text, dlq_message_id text, stored_at timestamptz,
    event_type text, event_version integer, aggregate_type text, aggregate_id text, payload jsonb, headers jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    letter sea_mq.dlq_messages;
BEGIN
    INSERT INTO sea_mq.dlq_messages AS d (context, original_subject, subscription, message_id, source_context, event_type,
        event_version, aggregate_type, aggregate_id, payload, headers, reason, failure_count, error, first_failed_at,
        last_failed_at, dlq_message_id, stream, stream_seq)
    VALUES (split_part(subject, '.', 1), coalesce(headers ->> 'X-Original-Subject', substring(subject FROM '^[^.]+[.][^.]+[.](.+)$'), subject),
        headers ->> 'X-Subscription', coalesce(headers ->> 'X-Original-Message-Id', dlq_message_id),
        coalesce(headers ->> 'X-Original-Source-Context', headers ->> 'X-Source-Context'),
        event_type, event_version, aggregate_type, aggregate_id, payload, headers, 'foreign',
        coalesce(substring(headers ->> 'X-Failure-Count' FROM '^[0-9]{1,9}$')::integer, 1), headers ->> 'X-Error', stored_at,
        stored_at, dlq_message_id, stream, stream_seq)
    ON CONFLICT ON CONSTRAINT dlq_messages_dlq_message_id_key DO UPDATE SET stream = excluded.stream, stream_seq = excluded.stream_seq
    RETURNING * INTO letter;
    IF letter.replayed_at IS NOT NULL OR letter.discarded_at IS NOT NULL THEN
        PERFORM sea_mq.remove_dead_letter(letter);
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.mirror_dead_letter IS 'Notes a message of the DLQ stream; for internal use';

CREATE FUNCTION sea_mq.remove_dead_letter(letter sea_mq.dlq_messages) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF letter.stream_seq IS NOT NULL THEN
        INSERT INTO sea_mq.message_deletions (stream, sequence) VALUES (letter.stream, letter.stream_seq) ON CONFLICT DO NOTHING;
    END IF;
    PERFORM sea_mq.inbox_wake_at_commit();
END $$;
COMMENT ON FUNCTION sea_mq.remove_dead_letter IS 'Has a dead letter removed from the DLQ stream, if it is there; for internal use';

CREATE FUNCTION sea_mq.next_removals() RETURNS TABLE (stream text, sequence bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off AS $$
    SELECT m.stream, m.sequence FROM sea_mq.message_deletions m ORDER BY m.stream, m.sequence LIMIT 1000
$$;
COMMENT ON FUNCTION sea_mq.next_removals IS 'Messages that are to be removed from their streams, some at once; for internal use';

CREATE FUNCTION sea_mq.note_removals(gone json, failed json) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    DELETE FROM sea_mq.message_deletions m USING json_to_recordset($1) AS r(stream text, sequence bigint)
    WHERE m.stream = r.stream AND m.sequence = r.sequence;
    UPDATE sea_mq.dlq_messages d SET stream_seq = NULL FROM json_to_recordset($1) AS r(stream text, sequence bigint)
    WHERE d.stream = r.stream AND d.stream_seq = r.sequence;
    UPDATE sea_mq.message_deletions m SET error = r.error
    FROM json_to_recordset($2) AS r(stream text, sequence bigint, error text)
    WHERE m.stream = r.stream AND m.sequence = r.sequence AND m.error IS DISTINCT FROM r.error;
$$;
COMMENT ON FUNCTION sea_mq.note_removals IS 'Notes which messages were removed from their streams, and which could not be; for internal use';

CREATE FUNCTION sea_mq.open_dead_letter(id bigint) RETURNS sea_mq.dlq_messages
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    letter sea_mq.dlq_messages;
BEGIN
    SELECT d.* INTO letter FROM sea_mq.dlq_messages d WHERE d.id = open_dead_letter.id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no dead letter %', id
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.dlq_list().';
    ELSIF letter.replayed_at IS NOT NULL THEN
        RAISE EXCEPTION 'dead letter % was replayed at %', id, letter.replayed_at
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format('As message %s; if that failed, it is a dead letter of its own.', letter.replay_event_id);
    ELSIF letter.discarded_at IS NOT NULL THEN
        RAISE EXCEPTION 'dead letter % was discarded at %', id, letter.discarded_at
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Its row in sea_mq.dlq_messages still has the payload.';
    END IF;
    RETURN letter;
END $$;
COMMENT ON FUNCTION sea_mq.open_dead_letter IS 'A dead letter about which nothing was decided, locked. Errors 42704, 55000; for internal use';

CREATE FUNCTION sea_mq.resolve_failure(letter sea_mq.dlq_messages) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF letter.reason = 'unpublishable' THEN
        UPDATE sea_mq.publish_failures f SET resolved_at = clock_timestamp()
        WHERE f.event_id = sea_mq.as_uuid(letter.message_id) AND f.resolved_at IS NULL;
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.resolve_failure IS 'Something was decided about an event that the broker had refused; for internal use';

CREATE FUNCTION sea_mq.dlq_replay(id bigint, payload jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    letter sea_mq.dlq_messages := sea_mq.open_dead_letter(id);
    new_id uuid := gen_random_uuid();
    new_headers jsonb;
    origin text := split_part(letter.original_subject, '.', 1);
    emitted boolean := false;
BEGIN
    IF letter.subscription LIKE 'endpoint:%' THEN
        RETURN sea_mq.replay_delivery(letter, payload);
    END IF;
    new_headers := sea_mq.own_headers(letter.headers) || jsonb_strip_nulls(jsonb_build_object(
        'X-Replayed-From', sea_mq.header_value(coalesce(letter.message_id, letter.dlq_message_id)),
        -- The others have handled it: they leave the replay alone.
        'X-Replay-For', CASE WHEN letter.subscription NOT LIKE 'ingest:%' THEN letter.subscription END));
    IF payload IS NOT NULL THEN
        new_headers := new_headers - 'X-Sea-Body';
    END IF;
    -- Before it is sent on: what fails at once finds its history by this.
    UPDATE sea_mq.dlq_messages d SET replayed_at = clock_timestamp(), replay_event_id = new_id,
        replayed_by = sea_mq.caller_name(), actor = sea_mq.actor()
    WHERE d.id = letter.id;
    IF letter.original_subject LIKE origin || '.event.%'
        AND EXISTS (SELECT FROM sea_mq.streams s WHERE s.kind = 'event' AND s.managed AND s.context = origin)
    THEN
        emitted := sea_mq.emit_raw('event', origin, letter.original_subject, new_id, letter.event_type, letter.event_version,
            letter.aggregate_type, letter.aggregate_id, coalesce(dlq_replay.payload, letter.payload), new_headers,
            letter.headers ->> 'X-Correlation-Id', letter.headers ->> 'X-Causation-Id',
            coalesce(letter.headers ->> 'X-Sea-Visibility', 'internal'));
    END IF;
    IF emitted THEN
        NULL;
    ELSIF letter.subscription LIKE 'ingest:%' THEN
        PERFORM sea_mq.ingest_once(substr(letter.subscription, 8), coalesce(dlq_replay.payload, letter.payload), new_id::text, new_id,
            letter.headers ->> 'X-Correlation-Id', new_headers);
    ELSIF EXISTS (SELECT FROM sea_mq.subscriptions s WHERE s.subscription = letter.subscription) THEN
        -- The stream belongs to another database, and publishing there would take its relay's place in the order; or the
        -- message does not fit any more with the headers of a replay.
        INSERT INTO sea_mq.inbox_pending (subscription, message_id, status, lane, source_context, event_type, event_version, subject,
            aggregate_type, aggregate_id, payload, headers, event_at, due_at)
        VALUES (letter.subscription, new_id::text, 'received', sea_mq.lane(letter.aggregate_type, letter.aggregate_id, new_id::text,
                (SELECT coalesce(t.lanes, s.workers) FROM sea_mq.subscriptions s
                    LEFT JOIN sea_mq.subscription_health t ON t.subscription = s.subscription
                    WHERE s.subscription = letter.subscription)), letter.source_context, letter.event_type, letter.event_version,
            letter.original_subject, letter.aggregate_type, letter.aggregate_id, coalesce(dlq_replay.payload, letter.payload),
            letter.headers || new_headers || jsonb_build_object('Nats-Msg-Id', new_id)
                || CASE WHEN letter.headers ? 'ce-id' THEN jsonb_build_object('ce-id', new_id) ELSE '{}' END, clock_timestamp(),
            -- Not the epoch, which only the consumer gives: see Served::floor.
            clock_timestamp());
    ELSE
        RAISE EXCEPTION 'dead letter % can be replayed neither to a subscription nor to a stream of this database', id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = format('Replay it where context "%s" is emitted, or subscribe as "%s" again.', origin, letter.subscription);
    END IF;
    PERFORM sea_mq.remove_dead_letter(letter);
    PERFORM sea_mq.resolve_failure(letter);
    RETURN new_id;
END $$;
COMMENT ON FUNCTION sea_mq.dlq_replay IS
'Replays a dead letter, with a corrected payload if one is given, in the current transaction, and returns the new message id. Subject
and headers stay, attempts count again, X-Replayed-From names the original, and the DLQ stream gives the message up. To the
original subject if this database emits that context (other subscriptions of sea_mq leave it alone, by X-Replay-For), else to the
subscription that had failed; a partner''s message (sea_mq.ingest) is ingested again. Errors: 42704, 55000 (replayed or discarded already, or nowhere to replay it to)';

CREATE FUNCTION sea_mq.dlq_discard(id bigint, reason text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    letter sea_mq.dlq_messages := sea_mq.open_dead_letter(id);
BEGIN
    UPDATE sea_mq.dlq_messages d SET discarded_at = clock_timestamp(), discard_reason = dlq_discard.reason,
        discarded_by = sea_mq.caller_name(), actor = sea_mq.actor()
    WHERE d.id = letter.id;
    PERFORM sea_mq.remove_dead_letter(letter);
    PERFORM sea_mq.resolve_failure(letter);
    PERFORM sea_mq.discard_delivery(letter.id) WHERE letter.subscription LIKE 'endpoint:%';
END $$;
COMMENT ON FUNCTION sea_mq.dlq_discard IS
'Gives a dead letter up: it is removed from the DLQ stream, and its row is kept until sea_mq.dlq_retention. Errors: 42704, 55000';

CREATE FUNCTION sea_mq.dlq_list(context text DEFAULT NULL, subscription text DEFAULT NULL, event_type text DEFAULT NULL,
    error text DEFAULT NULL, older_than interval DEFAULT NULL, replayed boolean DEFAULT false, max bigint DEFAULT 1000)
RETURNS SETOF sea_mq.dlq_messages
-- Planned each time, for the filters that are there; and each way to ask has its own condition, which an index has as well.
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    of_context text := sea_mq.context_name($1);
    of_type text := sea_mq.event_name($3);
BEGIN
    IF $6 THEN
        RETURN QUERY SELECT d.* FROM sea_mq.dlq_messages d
        WHERE d.replayed_at IS NOT NULL AND ($1 IS NULL OR d.context = of_context) AND ($2 IS NULL OR d.subscription = $2)
            AND ($3 IS NULL OR d.event_type = of_type) AND ($4 IS NULL OR d.error ILIKE '%' || $4 || '%')
            AND ($5 IS NULL OR d.last_failed_at < now() - greatest(least($5, '1000 years'), '-1000 years'))
        ORDER BY d.id LIMIT $7;
    ELSIF NOT $6 THEN
        RETURN QUERY SELECT d.* FROM sea_mq.dlq_messages d
        WHERE d.replayed_at IS NULL AND d.discarded_at IS NULL AND ($1 IS NULL OR d.context = of_context)
            AND ($2 IS NULL OR coalesce(d.subscription, '') = $2)
            AND ($3 IS NULL OR d.event_type = of_type) AND ($4 IS NULL OR d.error ILIKE '%' || $4 || '%')
            AND ($5 IS NULL OR d.last_failed_at < now() - greatest(least($5, '1000 years'), '-1000 years'))
        ORDER BY d.id LIMIT $7;
    ELSE
        RETURN QUERY SELECT d.* FROM sea_mq.dlq_messages d
        WHERE ($1 IS NULL OR d.context = of_context) AND ($2 IS NULL OR d.subscription = $2)
            AND ($3 IS NULL OR d.event_type = of_type) AND ($4 IS NULL OR d.error ILIKE '%' || $4 || '%')
            AND ($5 IS NULL OR d.last_failed_at < now() - greatest(least($5, '1000 years'), '-1000 years'))
        ORDER BY d.id LIMIT $7;
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.dlq_list IS
'Dead letters, oldest first: of a context, a subscription, an event type, with a part of the error''s text, that failed last longer
ago than older_than. replayed: false for those about which nothing was decided, true for the replayed, NULL for all';

CREATE FUNCTION sea_mq.dlq_replay_all(context text DEFAULT NULL, subscription text DEFAULT NULL, event_type text DEFAULT NULL,
    error text DEFAULT NULL, older_than interval DEFAULT NULL) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(sea_mq.dlq_replay(d.id)) FROM (SELECT l.id FROM sea_mq.dlq_list($1, $2, $3, $4, $5, false, NULL) l ORDER BY l.id) d
$$;
COMMENT ON FUNCTION sea_mq.dlq_replay_all IS
'Replays all dead letters that dlq_list shows for the same filters, in one transaction, and returns how many. Errors: those of dlq_replay';

-- What the consumer's processes call. A plan made while a table is empty would read it from end to end until the next
-- ANALYZE, so what looks for single rows is planned without that (here, and in the functions of the pull API). The processes
-- are the only callers, as the extension's owner.

-- lane: that in which they are handled just now; what only waits is dealt out here.
CREATE FUNCTION sea_mq.store_messages(subscription text, status text, messages json, lane smallint DEFAULT NULL) RETURNS SETOF bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.inbox_pending (subscription, status, attempts, delivered_at, lane, message_id, source_context, event_type,
        event_version, subject, aggregate_type, aggregate_id, payload, headers, stream_seq, event_at)
    SELECT $1, $2, CASE $2 WHEN 'processing' THEN 1 ELSE 0 END, CASE $2 WHEN 'processing' THEN clock_timestamp() END,
        coalesce($4, sea_mq.lane(m.aggregate_type, m.aggregate_id, m.message_id, coalesce(t.lanes, s.workers))),
        m.message_id, m.source_context, m.event_type, m.event_version, m.subject, m.aggregate_type, m.aggregate_id,
        m.payload::jsonb, m.headers::jsonb, m.stream_seq,
        '2000-01-01 00:00:00+00'::timestamptz + m.event_at * interval '1 microsecond'
    FROM ROWS FROM (json_to_recordset($3) AS (message_id text, source_context text, event_type text, event_version integer,
        subject text, aggregate_type text, aggregate_id text, payload text, headers text, stream_seq bigint, event_at bigint))
        WITH ORDINALITY AS m(message_id, source_context, event_type, event_version, subject, aggregate_type, aggregate_id, payload,
            headers, stream_seq, event_at, place)
    CROSS JOIN sea_mq.subscriptions s LEFT JOIN sea_mq.subscription_health t ON t.subscription = s.subscription
    WHERE s.subscription = $1
    ORDER BY m.place
    RETURNING id
$$;
COMMENT ON FUNCTION sea_mq.store_messages IS 'Stores messages among what waits, in order; for internal use';

CREATE FUNCTION sea_mq.lane(aggregate_type text, aggregate_id text, message_id text, workers integer) RETURNS smallint
-- Without a search_path of its own, so that it can be inlined; those who call it have one.
LANGUAGE sql IMMUTABLE AS $$
    SELECT (abs(hashtextextended(coalesce($1 || '/' || $2, $3), 0) % $4))::smallint
$$;
COMMENT ON FUNCTION sea_mq.lane IS 'Which of a subscription''s lanes a message is in: the same for all of an aggregate';

CREATE FUNCTION sea_mq.assign_lanes(subscription text, lanes integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Later events must not overtake what was dealt out to others before them.
    IF EXISTS (SELECT FROM sea_mq.inbox_pending p WHERE p.subscription = assign_lanes.subscription
        AND p.status IN ('received', 'processing') AND p.lease_until IS NULL)
    THEN
        RETURN false;
    END IF;
    UPDATE sea_mq.subscription_health t SET lanes = assign_lanes.lanes WHERE t.subscription = assign_lanes.subscription;
    -- What is left are retries, which keep no order.
    UPDATE sea_mq.inbox_pending p SET lane = sea_mq.lane(p.aggregate_type, p.aggregate_id, p.message_id, assign_lanes.lanes)
    WHERE p.subscription = assign_lanes.subscription;
    RETURN true;
END $$;
COMMENT ON FUNCTION sea_mq.assign_lanes IS 'Puts another number of workers in force, unless first attempts wait that were dealt out to the number before; for internal use';

CREATE FUNCTION sea_mq.conclude(id bigint, attempt integer, outcome text, sqlstate text, error text, detail text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    message sea_mq.inbox_pending;
BEGIN
    SELECT p.* INTO message FROM sea_mq.inbox_pending p
    WHERE p.id = conclude.id AND p.status = 'processing' AND p.attempts = conclude.attempt FOR UPDATE;
    IF NOT FOUND THEN
        -- The subscription has ended meanwhile, or the attempt was taken for one whose process is gone.
        IF outcome = 'processed' THEN
            RAISE EXCEPTION 'message % is not this attempt''s any more', id
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'What the handler did is undone.';
        END IF;
        RETURN;
    END IF;
    -- A copy of it that names another aggregate was handled in another lane meanwhile.
    IF sqlstate = '23505' AND EXISTS (SELECT FROM sea_mq.inbox_log l
        WHERE l.message_id = message.message_id AND l.subscription = message.subscription)
    THEN
        DELETE FROM sea_mq.inbox_pending p WHERE p.id = conclude.id;
        RETURN;
    END IF;
    CASE outcome
    WHEN 'processed' THEN
        PERFORM sea_mq.settle(message, 'processed');
        PERFORM sea_mq.count_outcomes(message.subscription, processed => 1);
    WHEN 'skipped' THEN
        PERFORM sea_mq.settle(message, 'skipped', error);
        PERFORM sea_mq.count_outcomes(message.subscription, skipped => 1);
    WHEN 'poison' THEN
        message.errors := sea_mq.with_error(message.errors, message.attempts, 'poison', sqlstate, error, detail);
        PERFORM sea_mq.bury(message, 'poison', error);
    ELSE
        PERFORM sea_mq.attempt_failed(message, outcome, sqlstate, error, detail);
    END CASE;
END $$;
COMMENT ON FUNCTION sea_mq.conclude IS 'Does what follows from an attempt that was counted; for internal use';

CREATE FUNCTION sea_mq.settle_processed(ids json) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH done AS (
        -- As an array, whatever the statistics say: a join would read the whole index, with all that was deleted.
        DELETE FROM sea_mq.inbox_pending p
        WHERE p.id = ANY (ARRAY(SELECT i.value::text::bigint FROM json_array_elements($1) i))
        RETURNING p.*),
    logged AS (
        INSERT INTO sea_mq.inbox_log (slot, id, subscription, message_id, status, attempts, source_context, event_type,
            event_version, subject, aggregate_type, aggregate_id, payload, headers, stream_seq, event_at, created_at, delivered_at,
            processed_at)
        SELECT s.slot, d.id, d.subscription, d.message_id, 'processed', d.attempts + 1, d.source_context, d.event_type,
            d.event_version, d.subject, d.aggregate_type, d.aggregate_id, d.payload, d.headers, d.stream_seq, d.event_at,
            d.created_at, now(), clock_timestamp()
        FROM (SELECT sea_mq.inbox_slot() AS slot) s, done d
        RETURNING subscription)
    INSERT INTO sea_mq.outcome_log (slot, subscription_id, processed, skipped, failed, dead)
    SELECT sea_mq.outcome_slot(), t.id, l.count, 0, 0, 0
    FROM (SELECT g.subscription, count(*) FROM logged g GROUP BY g.subscription) l
    JOIN sea_mq.subscriptions t ON t.subscription = l.subscription
$$;
COMMENT ON FUNCTION sea_mq.settle_processed IS 'Moves messages that were handled at the first attempt to what is done; for internal use';

CREATE FUNCTION sea_mq.forget_letters(age interval) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    DELETE FROM sea_mq.dlq_messages d
    WHERE coalesce(d.replayed_at, d.discarded_at) IS NOT NULL AND coalesce(d.replayed_at, d.discarded_at) < now() - $1
$$;
COMMENT ON FUNCTION sea_mq.forget_letters IS 'Removes dead letters that were decided about longer ago than this; for internal use';

CREATE FUNCTION sea_mq.forget_failures(age interval) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    DELETE FROM sea_mq.publish_failures f WHERE f.resolved_at < now() - $1
$$;
COMMENT ON FUNCTION sea_mq.forget_failures IS 'Removes refused events that were decided about longer ago than this; for internal use';

CREATE FUNCTION sea_mq.advance_inbox(current smallint, next smallint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.inbox_slots AS s (slot, opened_at, closed_at) SELECT $1, i.installed_at, clock_timestamp() FROM sea_mq.installation i
    ON CONFLICT (slot) DO UPDATE SET closed_at = excluded.closed_at;
    INSERT INTO sea_mq.inbox_slots AS s (slot, opened_at) VALUES ($2, clock_timestamp())
    ON CONFLICT (slot) DO UPDATE SET opened_at = excluded.opened_at, closed_at = NULL;
    UPDATE sea_mq.inbox_ring SET current_slot = $2;
$$;
COMMENT ON FUNCTION sea_mq.advance_inbox IS 'Makes the next slot of the inbox''s ring the current one; for internal use';

-- For how long a message that is done must be kept, whatever the setting says: as long as it may come again. From the stream,
-- until its max_age, and half a minute more, because that may have been raised since the consumer asked (every 15 s); from
-- the log, which refills streams and is what subscriptions read without a broker, until it is emptied.
CREATE FUNCTION sea_mq.inbox_floor() RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT least(
        now() - (SELECT max(t.stream_max_age) + interval '30 s' FROM sea_mq.subscription_health t),
        (SELECT min(coalesce(s.opened_at, i.installed_at)) FROM sea_mq.installation i CROSS JOIN generate_series(0, 7) n(slot)
            LEFT JOIN sea_mq.outbox_slots s ON s.slot = n.slot
            WHERE pg_relation_size(format('sea_mq.outbox_log_%s', n.slot)::regclass) > 0))
$$;
COMMENT ON FUNCTION sea_mq.inbox_floor IS 'Messages that were done since then may come again; for internal use';

CREATE FUNCTION sea_mq.spent_inbox_slots(retention interval) RETURNS SETOF smallint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT n.slot::smallint FROM generate_series(0, 3) n(slot)
    CROSS JOIN sea_mq.inbox_ring r CROSS JOIN sea_mq.installation i
    LEFT JOIN sea_mq.inbox_slots s ON s.slot = n.slot
    WHERE n.slot <> r.current_slot
        AND coalesce(s.closed_at, i.installed_at) < least(clock_timestamp() - $1, coalesce(sea_mq.inbox_floor(), 'infinity'))
$$;
COMMENT ON FUNCTION sea_mq.spent_inbox_slots IS 'Slots of the inbox''s ring that nothing needs any more; for internal use';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.dlq_list TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_replay, sea_mq.dlq_discard, sea_mq.dlq_replay_all TO sea_mq_operator;
GRANT SELECT ON sea_mq.dlq_messages TO sea_mq_operator, sea_mq_monitor;

-- What to look at on the receiving side. All of it is cheap: what waits is counted up to a bound, what is done is kept as counts.
CREATE FUNCTION sea_mq.inbox_counts(subscription text, OUT received bigint, OUT processing bigint, OUT failed bigint,
    OUT oldest_at timestamptz, OUT next_attempt_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT count(*) FILTER (WHERE w.status = 'received'), count(*) FILTER (WHERE w.status = 'processing'),
        count(*) FILTER (WHERE w.status = 'failed'), min(w.created_at), min(w.due_at) FILTER (WHERE w.status = 'failed')
    FROM (SELECT p.status, p.created_at, p.due_at FROM sea_mq.inbox_pending p WHERE p.subscription = $1 LIMIT 10001) w
$$;
COMMENT ON FUNCTION sea_mq.inbox_counts IS 'Messages of a subscription that wait, by status; looks at 10,001 at most';

CREATE FUNCTION sea_mq.inbox_size(OUT bytes bigint, OUT dead_tuples bigint)
RETURNS record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- An empty slot's indexes are a page each, and not worth opening them.
    SELECT sum(CASE WHEN pg_relation_size(i.inhrelid) > 0 THEN pg_total_relation_size(i.inhrelid) ELSE 0 END)::bigint,
        sum(pg_stat_get_dead_tuples(i.inhrelid))::bigint
    FROM pg_inherits i WHERE i.inhparent = 'sea_mq.inbox_log'::regclass
$$;
COMMENT ON FUNCTION sea_mq.inbox_size IS 'Bytes that the done part of the inbox takes, indexes included, and its dead tuples';

CREATE VIEW sea_mq.subscription_status AS
SELECT s.subscription, s.source, s.stream, s.subject_filter, s.handler, s.endpoint, coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = s.owner_oid), s.owner) AS owner, s.priority, s.workers,
    CASE WHEN s.paused THEN 'paused' WHEN c.state IS NOT NULL THEN c.state WHEN r.running THEN coalesce(t.state, 'pending') ELSE 'stopped' END AS state,
    CASE WHEN c.state IS NOT NULL THEN c.error_kind WHEN r.running THEN t.error_kind END AS error_kind,
    CASE WHEN c.state IS NOT NULL THEN c.error WHEN r.running THEN t.error ELSE 'the consumer is not running' END AS error,
    CASE WHEN c.state IS NOT NULL THEN c.hint WHEN r.running THEN t.hint ELSE 'See sea_mq.problems.' END AS hint, coalesce(c.since, t.since) AS since,
    t.pending, w.received, w.processing, w.failed AS retrying, w.oldest_at AS oldest_waiting_at, w.next_attempt_at,
    coalesce(t.processed, 0) + coalesce(y.processed, 0) AS processed, coalesce(t.skipped, 0) + coalesce(y.skipped, 0) AS skipped,
    coalesce(t.failed, 0) + coalesce(y.failed, 0) AS failures, coalesce(t.dead, 0) + coalesce(y.dead, 0) AS dead,
    coalesce(t.duplicates, 0) AS duplicates, coalesce(t.redelivered, 0) AS redelivered,
    greatest(t.last_processed_at, y.at) AS last_processed_at, t.stream_sequence AS last_sequence,
    coalesce(m.messages, 0) AS removed, CASE WHEN t.max_ack_pending > 0 THEN least(t.max_ack_pending, s.max_ack_pending) ELSE s.max_ack_pending END AS max_ack_pending
FROM sea_mq.subscriptions s
LEFT JOIN sea_mq.subscription_state t ON t.subscription = s.subscription
LEFT JOIN sea_mq.removed_messages m ON m.subscription = s.subscription
LEFT JOIN sea_mq.call_health c ON c.subscription = s.subscription AND c.state <> 'active' AND t.state = 'active'
CROSS JOIN LATERAL sea_mq.inbox_counts(s.subscription) w
-- What was recorded last may be long ago, or in the database that this one was copied from.
CROSS JOIN (SELECT count(*) > 0 AS running FROM sea_mq.workers() p WHERE p.backend_type = 'sea_mq consumer') r
LEFT JOIN (SELECT z.subscription, sum(z.processed)::bigint AS processed, sum(z.skipped)::bigint AS skipped,
        sum(z.failed)::bigint AS failed, sum(z.dead)::bigint AS dead, max(z.at) FILTER (WHERE z.processed > 0) AS at
    FROM sea_mq.inbox_tally z GROUP BY z.subscription) y ON y.subscription = s.subscription;
COMMENT ON VIEW sea_mq.subscription_status IS 'Each subscription and how it is doing';
COMMENT ON COLUMN sea_mq.subscription_status.subscription IS 'Subscription';
COMMENT ON COLUMN sea_mq.subscription_status.source IS 'Context or stream, as given';
COMMENT ON COLUMN sea_mq.subscription_status.stream IS 'Stream that it reads';
COMMENT ON COLUMN sea_mq.subscription_status.subject_filter IS 'Subjects that it receives';
COMMENT ON COLUMN sea_mq.subscription_status.handler IS 'Function that handles; NULL: an endpoint does, or messages wait for sea_mq.receive';
COMMENT ON COLUMN sea_mq.subscription_status.endpoint IS 'Endpoint that handles, in the place of a function';
COMMENT ON COLUMN sea_mq.subscription_status.owner IS 'Role that the handler runs as';
COMMENT ON COLUMN sea_mq.subscription_status.priority IS 'The greater number goes first';
COMMENT ON COLUMN sea_mq.subscription_status.workers IS 'Processes that handle in parallel';
COMMENT ON COLUMN sea_mq.subscription_status.state IS 'stopped (the consumer is not running), pending (not looked at yet), active, waiting (for the broker or the stream), blocked (the handler cannot be run, or its service refuses all), refused (by the broker) or paused';
COMMENT ON COLUMN sea_mq.subscription_status.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.subscription_status.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.subscription_status.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.subscription_status.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.subscription_status.pending IS 'Messages in the stream that are not delivered yet, as the broker said last';
COMMENT ON COLUMN sea_mq.subscription_status.received IS 'Messages that wait in the inbox for their first attempt; this and the next two count up to 10,001 together';
COMMENT ON COLUMN sea_mq.subscription_status.processing IS 'Messages that an application or a worker has';
COMMENT ON COLUMN sea_mq.subscription_status.retrying IS 'Messages that wait for another attempt';
COMMENT ON COLUMN sea_mq.subscription_status.oldest_waiting_at IS 'When the oldest of the three was received';
COMMENT ON COLUMN sea_mq.subscription_status.next_attempt_at IS 'When the next retry is due';
COMMENT ON COLUMN sea_mq.subscription_status.processed IS 'Messages handled so far';
COMMENT ON COLUMN sea_mq.subscription_status.skipped IS 'Messages skipped so far';
COMMENT ON COLUMN sea_mq.subscription_status.failures IS 'Failed attempts so far';
COMMENT ON COLUMN sea_mq.subscription_status.dead IS 'Dead letters so far';
COMMENT ON COLUMN sea_mq.subscription_status.duplicates IS 'Messages so far that came again and were not handled again';
COMMENT ON COLUMN sea_mq.subscription_status.redelivered IS 'Deliveries so far that were not the first of their message';
COMMENT ON COLUMN sea_mq.subscription_status.last_processed_at IS 'When the last message was handled';
COMMENT ON COLUMN sea_mq.subscription_status.last_sequence IS 'All up to this stream sequence is in the inbox';
COMMENT ON COLUMN sea_mq.subscription_status.removed IS 'Messages that were removed from the stream before the subscription got them; see sea_mq.removed_messages';
COMMENT ON COLUMN sea_mq.subscription_status.max_ack_pending IS 'Messages that may be under way at once: as described, or as many as the broker allows if those are fewer and nobody asked for more';

CREATE VIEW sea_mq.inbox_status AS
SELECT count(s.subscription) AS subscriptions, count(*) FILTER (WHERE s.state = 'active') AS active,
    coalesce(sum(s.received), 0)::bigint AS received, coalesce(sum(s.processing), 0)::bigint AS processing,
    coalesce(sum(s.retrying), 0)::bigint AS retrying, min(s.oldest_waiting_at) AS oldest_waiting_at,
    coalesce(sum(s.processed), 0)::bigint AS processed, coalesce(sum(s.skipped), 0)::bigint AS skipped,
    coalesce(sum(s.failures), 0)::bigint AS failures, coalesce(sum(s.dead), 0)::bigint AS dead,
    max(s.last_processed_at) AS last_processed_at,
    (SELECT count(*) FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq consumer') > 0 AS consumer_running,
    (SELECT r.current_slot FROM sea_mq.inbox_ring r) AS current_slot, min(z.bytes) AS log_bytes, min(z.dead_tuples) AS log_dead_tuples
FROM sea_mq.inbox_size() z
LEFT JOIN sea_mq.subscription_status s ON true;
COMMENT ON VIEW sea_mq.inbox_status IS 'The inbox as a whole; one row';
COMMENT ON COLUMN sea_mq.inbox_status.subscriptions IS 'Subscriptions';
COMMENT ON COLUMN sea_mq.inbox_status.active IS 'Those that are receiving';
COMMENT ON COLUMN sea_mq.inbox_status.received IS 'Messages that wait for their first attempt';
COMMENT ON COLUMN sea_mq.inbox_status.processing IS 'Messages that an application or a worker has';
COMMENT ON COLUMN sea_mq.inbox_status.retrying IS 'Messages that wait for another attempt';
COMMENT ON COLUMN sea_mq.inbox_status.oldest_waiting_at IS 'When the oldest of the three was received';
COMMENT ON COLUMN sea_mq.inbox_status.processed IS 'Messages handled so far';
COMMENT ON COLUMN sea_mq.inbox_status.skipped IS 'Messages skipped so far';
COMMENT ON COLUMN sea_mq.inbox_status.failures IS 'Failed attempts so far';
COMMENT ON COLUMN sea_mq.inbox_status.dead IS 'Dead letters so far';
COMMENT ON COLUMN sea_mq.inbox_status.last_processed_at IS 'When the last message was handled';
COMMENT ON COLUMN sea_mq.inbox_status.consumer_running IS 'Whether the consumer''s process is there';
COMMENT ON COLUMN sea_mq.inbox_status.current_slot IS 'Slot of the ring that is appended to';
COMMENT ON COLUMN sea_mq.inbox_status.log_bytes IS 'Size of the messages that are done, indexes included, in bytes';
COMMENT ON COLUMN sea_mq.inbox_status.log_dead_tuples IS 'Dead tuples among them, by the statistics; expected to stay near 0';

-- What is decided is counted (sea_mq.dlq_tally) and not looked at. The oldest and the newest open letter are looked up by all
-- columns of one index, in its order, so that no plan reads those of others.
CREATE VIEW sea_mq.dlq_status AS
SELECT t.context, t.subscription, t.open, t.replayed, t.discarded,
    (SELECT d.last_failed_at FROM sea_mq.dlq_messages d
        WHERE d.replayed_at IS NULL AND d.discarded_at IS NULL
            AND (d.context, coalesce(d.subscription, '')) >= (t.context, coalesce(t.subscription, ''))
            AND (d.context, coalesce(d.subscription, '')) <= (t.context, coalesce(t.subscription, ''))
        ORDER BY d.context, coalesce(d.subscription, ''), d.id LIMIT 1) AS oldest_open_at,
    t.last_failed_at,
    (SELECT d.error FROM sea_mq.dlq_messages d
        WHERE d.replayed_at IS NULL AND d.discarded_at IS NULL
            AND (d.context, coalesce(d.subscription, '')) >= (t.context, coalesce(t.subscription, ''))
            AND (d.context, coalesce(d.subscription, '')) <= (t.context, coalesce(t.subscription, ''))
        ORDER BY d.context DESC, coalesce(d.subscription, '') DESC, d.id DESC LIMIT 1) AS last_error,
    t.returned
FROM (SELECT c.context, c.subscription, sum(c.open)::bigint AS open, sum(c.replayed)::bigint AS replayed,
        sum(c.discarded)::bigint AS discarded, sum(c.returned)::bigint AS returned, max(c.last_failed_at) AS last_failed_at
    FROM sea_mq.dlq_tally c GROUP BY c.context, c.subscription
    HAVING sum(c.open) <> 0 OR sum(c.replayed) <> 0 OR sum(c.discarded) <> 0) t;
COMMENT ON VIEW sea_mq.dlq_status IS 'Dead letters, a row for each context and subscription that has some';
COMMENT ON COLUMN sea_mq.dlq_status.context IS 'Context whose dead letter queue it is';
COMMENT ON COLUMN sea_mq.dlq_status.subscription IS 'Subscription that could not handle them';
COMMENT ON COLUMN sea_mq.dlq_status.open IS 'Those about which nothing was decided';
COMMENT ON COLUMN sea_mq.dlq_status.replayed IS 'Those that were replayed, as far as they are retained';
COMMENT ON COLUMN sea_mq.dlq_status.discarded IS 'Those that were discarded, as far as they are retained';
COMMENT ON COLUMN sea_mq.dlq_status.oldest_open_at IS 'When the oldest open one failed last';
COMMENT ON COLUMN sea_mq.dlq_status.last_failed_at IS 'When the newest failed last';
COMMENT ON COLUMN sea_mq.dlq_status.last_error IS 'The error of the newest open one';
COMMENT ON COLUMN sea_mq.dlq_status.returned IS 'Those that are replays which failed again, as far as they are retained';

-- Who may use it.
GRANT SELECT ON sea_mq.subscription_status, sea_mq.inbox_status, sea_mq.dlq_status TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.inbox_counts, sea_mq.inbox_size TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer;

-- What sea_mq.problems says of endpoints. The body is looked at when it is called: the tables come later.
CREATE FUNCTION sea_mq.endpoint_problems() RETURNS TABLE (rank integer, problem text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT CASE s.state WHEN 'copied' THEN 2 ELSE 4 END, format('endpoint %s is %s%s', s.endpoint, s.state, ': ' || s.error),
        coalesce(s.hint, CASE s.state WHEN 'paused' THEN 'sea_mq.resume_endpoint ends that.' ELSE 'See its row in sea_mq.endpoint_status.' END)
    FROM (SELECT e.endpoint, CASE WHEN h.state IN ('copied', 'disabled') THEN h.state WHEN e.paused THEN 'paused' ELSE h.state END AS state, h.error, h.hint
        FROM sea_mq.endpoint_definitions e JOIN sea_mq.endpoint_health h ON h.endpoint_id = e.id) s
    WHERE s.state IN ('open', 'probing', 'refused', 'gone', 'copied')
    UNION ALL
    SELECT 4, format('subscription %s is %s: %s', c.subscription, c.state, c.error), coalesce(c.hint, 'Look into the log of the service.')
    FROM sea_mq.call_health c WHERE c.state <> 'active'
    UNION ALL
    SELECT 4, format('%s events from %s to %s were dropped from the log before they were delivered to endpoint %s', d.events,
            date_trunc('second', d.first_at), date_trunc('second', d.last_at), e.endpoint),
        format('Send what it needs in another way, as by sea_mq.deliver, or give it up; then call sea_mq.forget_dropped(%L). sea_mq.endpoint_backlog_age and endpoint_backlog_size say how much waits.', e.endpoint)
    FROM sea_mq.dropped_deliveries d JOIN sea_mq.endpoint_definitions e ON e.id = d.endpoint_id
    UNION ALL
    SELECT 3, format('endpoint %s will lose events: some have waited since %s, and %s', w.endpoint, date_trunc('second', w.oldest_at),
            CASE WHEN w.oldest_at < now() - w.age / 2 THEN format('after %s they are dropped', w.age)
                ELSE format('the log has %s of %s', pg_size_pretty(w.bytes), pg_size_pretty(w.most)) END),
        'See its row in sea_mq.endpoint_status. Fix it, raise sea_mq.endpoint_backlog_age or endpoint_backlog_size, or drop it.'
    FROM (SELECT e.endpoint, u.oldest_at, b.*, CASE WHEN b.most > 0 THEN z.bytes END AS bytes
        FROM (SELECT CASE WHEN a.age > '0' THEN greatest(a.age, 2 * r.retention) END AS age, r.retention, m.most
            FROM (SELECT current_setting('sea_mq.endpoint_backlog_age')::interval AS age) a,
                (SELECT current_setting('sea_mq.retention')::interval AS retention) r,
                (SELECT pg_size_bytes(current_setting('sea_mq.endpoint_backlog_size')) AS most) m) b
        CROSS JOIN sea_mq.log_size() z
        CROSS JOIN sea_mq.endpoint_definitions e
        CROSS JOIN LATERAL (SELECT min(f.oldest_at) AS oldest_at FROM sea_mq.endpoint_readers r
            CROSS JOIN LATERAL sea_mq.reader_unread(r.reader, r.context) f WHERE r.endpoint_id = e.id) u) w
    WHERE w.oldest_at < now() - w.age / 2 OR (w.oldest_at < now() - w.retention AND w.bytes > w.most / 10 * 8)
    UNION ALL
    SELECT 3, 'dispatcher is not running', 'Call sea_mq.start(); if that fails, look for sea_mq in the server''s log.'
    WHERE EXISTS (SELECT FROM sea_mq.endpoint_definitions)
        AND EXISTS (SELECT FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq consumer' AND w.backend_start < clock_timestamp() - interval '30 s')
        AND NOT EXISTS (SELECT FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq dispatcher');
END $$;
COMMENT ON FUNCTION sea_mq.endpoint_problems IS 'What is wrong with endpoints, for sea_mq.problems; for internal use';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.endpoint_problems TO sea_mq_operator, sea_mq_monitor;

CREATE FUNCTION sea_mq.log_size(OUT bytes bigint, OUT dead_tuples bigint)
RETURNS record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- An empty slot's indexes are a page each, and not worth opening them.
    SELECT sum(CASE WHEN pg_relation_size(i.inhrelid) > 0 THEN pg_total_relation_size(i.inhrelid) ELSE 0 END)::bigint,
        sum(pg_stat_get_dead_tuples(i.inhrelid))::bigint
    FROM pg_inherits i WHERE i.inhparent = 'sea_mq.outbox_log'::regclass
$$;
COMMENT ON FUNCTION sea_mq.log_size IS 'Bytes that the log takes, indexes included, and its dead tuples';

CREATE FUNCTION sea_mq.unpublished_bytes(sink bigint DEFAULT NULL) RETURNS bigint
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'unpublished_bytes_wrapper';
COMMENT ON FUNCTION sea_mq.unpublished_bytes IS
'About how many bytes of the log are not published yet, of a sink or (NULL) of all: estimated from samples, indexes not counted';

CREATE VIEW sea_mq.outbox_status AS
SELECT s.context, s.kind, s.name AS stream, p.pending, p.oldest AS oldest_pending_at, greatest(now() - p.oldest, '0') AS oldest_pending_age,
    coalesce(c.published, 0) AS published, c.updated_at AS last_published_at,
    (SELECT count(*) FROM (SELECT FROM sea_mq.scheduled_events e WHERE e.sink = s.sink LIMIT 10001) w) AS scheduled,
    (SELECT count(*) FROM sea_mq.publish_failures f WHERE f.sink = s.sink AND f.resolved_at IS NULL) AS failed,
    coalesce((SELECT r.current_slot FROM sea_mq.outbox_ring r), 0::smallint) AS current_slot,
    z.bytes AS log_bytes, z.dead_tuples AS log_dead_tuples, sea_mq.unpublished_bytes(s.sink) AS unpublished_bytes
FROM sea_mq.streams s
LEFT JOIN sea_mq.stream_progress c ON c.sink = s.sink
CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) p
CROSS JOIN sea_mq.log_size() z;
COMMENT ON VIEW sea_mq.outbox_status IS 'What is waiting to be published, a row per stream';
COMMENT ON COLUMN sea_mq.outbox_status.context IS 'Bounded context';
COMMENT ON COLUMN sea_mq.outbox_status.kind IS 'event or dlq';
COMMENT ON COLUMN sea_mq.outbox_status.stream IS 'Stream';
COMMENT ON COLUMN sea_mq.outbox_status.pending IS 'Committed events not yet published; counted up to 10,001';
COMMENT ON COLUMN sea_mq.outbox_status.oldest_pending_at IS 'When the oldest of them was emitted';
COMMENT ON COLUMN sea_mq.outbox_status.oldest_pending_age IS 'How long ago that was';
COMMENT ON COLUMN sea_mq.outbox_status.published IS 'Events published so far';
COMMENT ON COLUMN sea_mq.outbox_status.last_published_at IS 'When the last of them was recorded';
COMMENT ON COLUMN sea_mq.outbox_status.scheduled IS 'Events whose available_at has not come; counted up to 10,001';
COMMENT ON COLUMN sea_mq.outbox_status.failed IS 'Events that the broker refused for a reason of their own, and about which nothing was decided';
COMMENT ON COLUMN sea_mq.outbox_status.current_slot IS 'Slot of the ring that writers append to';
COMMENT ON COLUMN sea_mq.outbox_status.log_bytes IS 'Size of the whole log with its indexes, in bytes';
COMMENT ON COLUMN sea_mq.outbox_status.log_dead_tuples IS 'Dead tuples in the log, by the statistics; expected to stay 0';
COMMENT ON COLUMN sea_mq.outbox_status.unpublished_bytes IS 'About how much of the log is not published yet; all streams together are held against sea_mq.max_outbox_size';

CREATE FUNCTION sea_mq.worker_pauses(OUT worker text, OUT state text, OUT since timestamptz)
RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'worker_pauses_wrapper';
COMMENT ON FUNCTION sea_mq.worker_pauses IS
'Relay and consumer of this database, where the process is not there and nothing is wrong: resting (it had nothing to do for
sea_mq.idle_timeout), queued (it waits for a free worker slot), or starting; and since when';

CREATE VIEW sea_mq.relay_status AS
SELECT w.pid IS NOT NULL AS running, w.pid, w.backend_start AS started_at,
    coalesce(CASE WHEN pg_is_in_recovery() THEN 'standby' WHEN w.pid IS NOT NULL THEN NULL
        WHEN p.state = 'resting' AND r.state = 'connected' THEN 'idle' WHEN p.state IN ('queued', 'starting') THEN p.state
        WHEN p.state IS NULL THEN 'stopped' END, r.state, 'starting') AS state,
    CASE WHEN w.pid IS NULL AND p.since IS NOT NULL THEN p.since ELSE r.since END AS since,
    r.error_kind, r.error, r.hint, r.failures,
    r.server_name, r.server_version, r.server_address, r.max_payload, sea_mq.preloaded() AS preloaded, r.expiring_setting, r.expires_at
FROM (VALUES (1)) AS one
LEFT JOIN sea_mq.relay_state r ON true
LEFT JOIN sea_mq.workers() w ON w.backend_type = 'sea_mq relay'
LEFT JOIN sea_mq.worker_pauses() p ON p.worker = 'relay';
COMMENT ON VIEW sea_mq.relay_status IS 'The relay of this database; one row';
COMMENT ON COLUMN sea_mq.relay_status.running IS 'Whether its process is there';
COMMENT ON COLUMN sea_mq.relay_status.pid IS 'Its process';
COMMENT ON COLUMN sea_mq.relay_status.started_at IS 'When the process started';
COMMENT ON COLUMN sea_mq.relay_status.state IS 'standby (nothing runs here until it is promoted), stopped, queued (it waits for a free worker slot), starting, idle (it ended with nothing to do, and starts when there is something), unconfigured, disabled, connecting, connected, waiting or paused';
COMMENT ON COLUMN sea_mq.relay_status.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.relay_status.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.relay_status.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.relay_status.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.relay_status.failures IS 'Failed connection attempts in a row, as of the last change of error';
COMMENT ON COLUMN sea_mq.relay_status.server_name IS 'nats-server connected to last';
COMMENT ON COLUMN sea_mq.relay_status.server_version IS 'Its version';
COMMENT ON COLUMN sea_mq.relay_status.server_address IS 'Its host and port';
COMMENT ON COLUMN sea_mq.relay_status.max_payload IS 'Its largest message in bytes, headers included';
COMMENT ON COLUMN sea_mq.relay_status.preloaded IS 'Whether sea_mq is in shared_preload_libraries';
COMMENT ON COLUMN sea_mq.relay_status.expiring_setting IS 'Of the credentials and certificates with which it is connected: the setting that names the file of the one that expires first';
COMMENT ON COLUMN sea_mq.relay_status.expires_at IS 'When it expires; NULL: none does';

CREATE VIEW sea_mq.stream_status AS
SELECT s.name AS stream, s.context, s.kind, coalesce(t.state, 'pending') AS state, t.error_kind, t.error, t.hint,
    coalesce(t.ordering, 'strict') AS ordering, t.differences, coalesce(t.losses, 0) AS losses, t.last_loss,
    c.stream_sequence AS last_sequence, coalesce(c.published, 0) AS published, p.pending, s.managed, t.since,
    s.atomic_transactions, coalesce(c.not_atomic, 0) AS not_atomic, c.last_not_atomic, p.oldest AS oldest_pending_at
FROM sea_mq.streams s
LEFT JOIN sea_mq.stream_state t ON t.sink = s.sink
LEFT JOIN sea_mq.stream_progress c ON c.sink = s.sink
CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) p;
COMMENT ON VIEW sea_mq.stream_status IS 'Each stream as the relay found it';
COMMENT ON COLUMN sea_mq.stream_status.stream IS 'Name in JetStream';
COMMENT ON COLUMN sea_mq.stream_status.context IS 'Bounded context';
COMMENT ON COLUMN sea_mq.stream_status.kind IS 'event or dlq';
COMMENT ON COLUMN sea_mq.stream_status.state IS 'pending, ready, refused or paused';
COMMENT ON COLUMN sea_mq.stream_status.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.stream_status.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.stream_status.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.stream_status.ordering IS 'strict or shared; see docs/guarantees.md';
COMMENT ON COLUMN sea_mq.stream_status.differences IS 'Settings that differ from the description and were left alone';
COMMENT ON COLUMN sea_mq.stream_status.losses IS 'How often the broker had lost data that it had acknowledged';
COMMENT ON COLUMN sea_mq.stream_status.last_loss IS 'What was lost last';
COMMENT ON COLUMN sea_mq.stream_status.last_sequence IS 'Stream sequence of the last event stored by the relay';
COMMENT ON COLUMN sea_mq.stream_status.published IS 'Events published so far';
COMMENT ON COLUMN sea_mq.stream_status.pending IS 'Committed events not yet published; counted up to 10,001';
COMMENT ON COLUMN sea_mq.stream_status.oldest_pending_at IS 'When the first of them was emitted';
COMMENT ON COLUMN sea_mq.stream_status.managed IS 'Whether the relay creates and updates the stream';
COMMENT ON COLUMN sea_mq.stream_status.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.stream_status.atomic_transactions IS 'Whether transactions are to be published as atomic batches';
COMMENT ON COLUMN sea_mq.stream_status.not_atomic IS 'Transactions of several events that were published one by one all the same';
COMMENT ON COLUMN sea_mq.stream_status.last_not_atomic IS 'The last of them, and why';

-- What is wrong, the most urgent first.
CREATE VIEW sea_mq.problems AS
SELECT 1 AS rank, 'relay is not running' || coalesce(': ' || w.problem, '')
        || CASE WHEN r.state = 'queued' THEN format('; it waits for one in turn, since %s', date_trunc('second', r.since)) ELSE '' END AS problem,
    CASE WHEN w.problem IS NOT NULL THEN w.hint
        WHEN r.preloaded THEN 'Call sea_mq.start(); if that fails, look for sea_mq in the server''s log.'
        ELSE 'Add sea_mq to shared_preload_libraries and restart the server; until then, call sea_mq.start().' END AS hint
FROM sea_mq.relay_status r LEFT JOIN sea_mq.worker_problem() w ON true
WHERE NOT r.running AND r.state NOT IN ('standby', 'idle', 'unconfigured', 'starting')
UNION ALL
-- Once is no problem: it is tried again at once, and most of what can be in the way of a transaction passes.
SELECT 2, format('the %s has failed %s times since %s: %s', f.worker, f.failures, date_trunc('second', f.since),
        coalesce(f.error, 'its process ended; see the server''s log')),
    'It tries again by itself. If that does not help, look for sea_mq in the server''s log; once the cause is fixed, it goes on.'
FROM sea_mq.worker_failures() f WHERE f.failures > 2
UNION ALL
SELECT CASE WHEN v.library < v.script THEN 1 ELSE 5 END,
    format('the library is version %s and the SQL of this database %s', array_to_string(v.library, '.'), array_to_string(v.script, '.')),
    CASE WHEN v.library < v.script THEN format('Install version %s of the library and restart the server.', array_to_string(v.script, '.'))
        ELSE 'ALTER EXTENSION sea_mq UPDATE; in this database. Until then it works as before.' END
FROM (SELECT string_to_array(sea_mq.library_version(), '.')::integer[] AS library, string_to_array(e.extversion, '.')::integer[] AS script
    FROM pg_catalog.pg_extension e WHERE e.extname = 'sea_mq') v WHERE v.library <> v.script
UNION ALL
SELECT 1, format('emit refuses events: about %s MB are not published yet, and sea_mq.max_outbox_size is %s MB', b.bytes >> 20, m.bytes >> 20),
    'Fix what holds them up (see the other problems), or raise sea_mq.max_outbox_size.'
FROM (SELECT pg_size_bytes(current_setting('sea_mq.max_outbox_size')) AS bytes) m
CROSS JOIN LATERAL (SELECT CASE WHEN m.bytes > 0 THEN sea_mq.unpublished_bytes() END AS bytes) b
WHERE b.bytes >= m.bytes
UNION ALL
SELECT 2, coalesce('relay: ' || r.error, 'relay is ' || r.state),
    coalesce(r.hint, CASE r.state
        WHEN 'unconfigured' THEN format('ALTER DATABASE %I SET sea_mq.nats_url = ''nats://localhost:4222''; then SELECT sea_mq.reload().', current_database())
        WHEN 'disabled' THEN 'Set sea_mq.enabled = on, then call sea_mq.reload().'
        ELSE 'Wait a moment; the relay retries by itself.' END)
FROM sea_mq.relay_status r
WHERE (r.running AND r.state <> 'connected' OR r.state = 'unconfigured')
    -- Without a broker, events go to the subscriptions of the same database.
    AND NOT (r.state = 'unconfigured' AND (EXISTS (SELECT FROM sea_mq.subscriptions) OR EXISTS (SELECT FROM sea_mq.endpoint_readers) OR (SELECT i.test_mode FROM sea_mq.installation i)))
UNION ALL
SELECT 3, 'stream ' || t.stream || ': ' || coalesce(t.error, t.state), coalesce(t.hint, 'See its row in sea_mq.stream_status, and the server''s log.')
FROM (SELECT s.name AS stream, x.* FROM sea_mq.streams s JOIN sea_mq.stream_state x ON x.sink = s.sink) t
WHERE t.state IN ('refused', 'paused')
UNION ALL
SELECT 4, format('stream %s is not as described, and is used as it is: %s', s.name, x.error),
    coalesce(x.hint, 'Change the stream in NATS or its description with sea_mq.alter_stream until they agree.')
FROM sea_mq.streams s JOIN sea_mq.stream_state x ON x.sink = s.sink WHERE x.state = 'ready' AND x.error IS NOT NULL
UNION ALL
SELECT 4, format('stream %s has lost this installation''s mark: others may take it for nobody''s', s.name),
    format('Let sea_mq manage it, as in sea_mq.alter_stream(%L, managed => true), or set metadata sea_mq.install to %s in NATS.',
        s.name, x.differences -> 'sea_mq.install' ->> 0)
FROM sea_mq.streams s JOIN sea_mq.stream_state x ON x.sink = s.sink WHERE x.differences ? 'sea_mq.install'
UNION ALL
SELECT 4, format('%s events of stream %s were refused by the broker', f.events, s.name),
    'See sea_mq.dlq_list() for the reasons; once fixed, sea_mq.retry_failed() sends them.'
FROM (SELECT p.sink, count(*) AS events FROM sea_mq.publish_failures p WHERE p.resolved_at IS NULL GROUP BY p.sink) f
JOIN sea_mq.streams s ON s.sink = f.sink
UNION ALL
SELECT 5, format('what %s names expires at %s', r.expiring_setting, r.expires_at),
    'Replace the file, then call sea_mq.reload(): it is read when a connection is made.'
FROM sea_mq.relay_status r WHERE r.state IN ('connected', 'idle') AND r.expires_at < now() + interval '7 days'
UNION ALL
SELECT 5, format('more than 1000 events wait for stream %s', s.name),
    'If the number does not fall, see sea_mq.relay_status and the broker''s load.'
FROM sea_mq.relay_status r, sea_mq.streams s CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) o
WHERE o.pending > 1000 AND r.state <> 'unconfigured'
UNION ALL
SELECT 6, format('consumer %s on stream %s: %s', c.name, c.stream, c.error),
    'Describe it again with sea_mq.create_consumer under the same name, or give it up with sea_mq.drop_consumer.'
FROM sea_mq.consumers c WHERE c.state = 'refused'
UNION ALL
SELECT 6, format('stream %s could not be deleted in NATS: %s', d.name, d.error),
    format('Delete it there by hand, or wait; the relay tries again. If it is to stay: SELECT sea_mq.drop_stream(%L).', d.name)
FROM sea_mq.stream_deletions d WHERE d.error IS NOT NULL
UNION ALL
SELECT 6, format('consumer %s on stream %s could not be removed in NATS: %s', d.name, d.stream, d.error),
    'Remove it there by hand, or wait; it is tried again.'
FROM (SELECT c.name, c.stream, c.error FROM sea_mq.consumer_deletions c
    UNION ALL SELECT c.name, c.stream, c.error FROM sea_mq.consumers c WHERE c.state = 'removing') d WHERE d.error IS NOT NULL
UNION ALL
SELECT 6, format('%s dead letters could not be removed from stream %s: %s', d.letters, d.stream, d.error),
    'They were replayed or discarded, and other services still see them. It is tried again by itself; look at the permissions in docs/streams.md.'
FROM (SELECT m.stream, count(*) AS letters, max(m.error) AS error FROM sea_mq.message_deletions m WHERE m.error IS NOT NULL GROUP BY m.stream) d
UNION ALL
SELECT 3, 'consumer is not running' || coalesce(': ' || w.problem, '') || coalesce(format('; it waits for one in turn, since %s', date_trunc('second', p.since)), ''),
    coalesce(w.hint, 'Call sea_mq.start(); if that fails, look for sea_mq in the server''s log.')
FROM sea_mq.relay_status r LEFT JOIN sea_mq.worker_problem() w ON true
LEFT JOIN sea_mq.worker_pauses() p ON p.worker = 'consumer' AND p.state = 'queued'
WHERE (r.running OR r.state IN ('idle', 'unconfigured')) AND EXISTS (SELECT FROM sea_mq.subscriptions)
    AND NOT EXISTS (SELECT FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq consumer')
UNION ALL
SELECT 4, format('subscription %s is %s%s', s.subscription, s.state, ': ' || s.error), coalesce(s.hint, 'See its row in sea_mq.subscription_status, and the server''s log.')
FROM (SELECT b.subscription, CASE WHEN b.paused THEN 'paused' ELSE x.state END AS state, x.error_kind, x.error, x.hint
    FROM sea_mq.subscriptions b JOIN sea_mq.subscription_state x ON x.subscription = b.subscription) s
WHERE s.state IN ('blocked', 'refused') OR (s.state = 'waiting' AND s.error_kind IN ('ConsumerPaused', 'SlowConsumer', 'StreamVanished'))
UNION ALL
SELECT 4, format(CASE WHEN m.at_most THEN 'up to ' ELSE '' END || '%s messages were removed from stream %s before subscription %s got them (sequences %s to %s)',
        m.messages, m.stream, m.subscription, m.first_sequence, m.last_sequence),
    CASE WHEN EXISTS (SELECT FROM sea_mq.streams s WHERE s.name = m.stream)
        THEN format('What this database still retains is published once more by sea_mq.republish(%L, ''time before the first of them''); then', m.stream)
        ELSE 'Have whoever owns the stream publish them once more, or give them up; then' END
    || format(' call sea_mq.forget_removed(%L). Look for a lowered limit, a purge or deletions in NATS, or max_age.', m.subscription)
FROM sea_mq.removed_messages m
UNION ALL
SELECT 5, format(CASE d.open WHEN 1 THEN '%s dead letter of %s waits for a decision: %s' ELSE '%s dead letters of %s wait for a decision: %s' END, d.open, coalesce('subscription ' || d.subscription, 'context ' || d.context), d.last_error),
    'Look with sea_mq.dlq_list(), then call dlq_replay or dlq_discard.'
FROM sea_mq.dlq_status d WHERE d.open > 0
UNION ALL
SELECT 6, format('more than 1000 messages wait for subscription %s', s.subscription), CASE
    WHEN b.paused THEN 'It is paused; sea_mq.resume_subscription ends that.'
    WHEN b.endpoint IS NOT NULL THEN 'Raise max_in_flight of its endpoint, or make the service faster.'
    WHEN b.handler IS NULL THEN 'Receive more at a time or with more clients, or raise max_ack_pending.'
    ELSE 'Raise max_ack_pending or workers, or make the handler faster.' END
FROM sea_mq.subscription_state s JOIN sea_mq.subscriptions b ON b.subscription = s.subscription WHERE s.pending > 1000
UNION ALL
SELECT 6, format('transactions are not published to stream %s as one: allow_atomic is %s', t.stream, t.differences -> 'allow_atomic' ->> 1),
    'Use nats-server 2.12 or later and allow atomic publishing in the stream, or call sea_mq.alter_stream(..., atomic_transactions => false).'
FROM (SELECT s.name AS stream, s.atomic_transactions, x.differences
    FROM sea_mq.streams s JOIN sea_mq.stream_state x ON x.sink = s.sink) t
WHERE t.atomic_transactions AND t.differences ? 'allow_atomic'
UNION ALL
SELECT e.rank, e.problem, e.hint FROM sea_mq.endpoint_problems() e
UNION ALL
SELECT 7, 'sea_mq is not preloaded: the relay ends with the server and is not woken by commits',
    'Add sea_mq to shared_preload_libraries and restart the server.'
FROM sea_mq.relay_status r WHERE r.running AND NOT r.preloaded;
COMMENT ON VIEW sea_mq.problems IS 'Everything that is wrong just now, the most urgent first; no row: all is well';
COMMENT ON COLUMN sea_mq.problems.rank IS 'Urgency; 1 is the most urgent';
COMMENT ON COLUMN sea_mq.problems.problem IS 'What is wrong';
COMMENT ON COLUMN sea_mq.problems.hint IS 'What to do about it';

CREATE VIEW sea_mq.status AS
SELECT p.problem IS NULL AS ok, coalesce(p.problem, CASE WHEN r.state = 'standby' THEN 'this server is a standby: nothing is published or received here'
        WHEN (SELECT i.test_mode FROM sea_mq.installation i) THEN 'all is well; in test mode, so nothing goes to a broker' END,
        'all is well') AS summary,
    coalesce(p.hint, CASE r.state WHEN 'standby' THEN 'Look at the primary. Here, the workers start by themselves when this server is promoted.' END) AS hint,
    p.problems,
    r.state AS relay, r.pid AS relay_pid, r.server_address AS broker, o.pending, o.oldest_pending_age, o.published, o.scheduled,
    o.failed, o.streams, (SELECT z.bytes FROM sea_mq.log_size() z) AS log_bytes,
    (SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'sea_mq') AS version
FROM sea_mq.relay_status r
CROSS JOIN (SELECT coalesce(sum(s.pending), 0)::bigint AS pending, max(s.oldest_pending_age) AS oldest_pending_age,
        coalesce(sum(s.published), 0)::bigint AS published, coalesce(sum(s.scheduled), 0)::bigint AS scheduled,
        coalesce(sum(s.failed), 0)::bigint AS failed, count(*) AS streams FROM sea_mq.outbox_status s) o
CROSS JOIN (SELECT (array_agg(q.problem ORDER BY q.rank))[1] AS problem, (array_agg(q.hint ORDER BY q.rank))[1] AS hint,
        count(*) AS problems FROM sea_mq.problems q) p;
COMMENT ON VIEW sea_mq.status IS 'One row: is everything all right, and if not, what to do';
COMMENT ON COLUMN sea_mq.status.ok IS 'Whether all is well';
COMMENT ON COLUMN sea_mq.status.summary IS 'The most urgent problem, or "all is well", or that this server is a standby';
COMMENT ON COLUMN sea_mq.status.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.status.problems IS 'How many problems there are; see sea_mq.problems';
COMMENT ON COLUMN sea_mq.status.relay IS 'State of the relay; see sea_mq.relay_status';
COMMENT ON COLUMN sea_mq.status.relay_pid IS 'Process of the relay';
COMMENT ON COLUMN sea_mq.status.broker IS 'nats-server connected to last';
COMMENT ON COLUMN sea_mq.status.pending IS 'Committed events not yet published, over all streams';
COMMENT ON COLUMN sea_mq.status.oldest_pending_age IS 'How long ago the oldest of them was emitted';
COMMENT ON COLUMN sea_mq.status.published IS 'Events published so far';
COMMENT ON COLUMN sea_mq.status.scheduled IS 'Events whose available_at has not come';
COMMENT ON COLUMN sea_mq.status.failed IS 'Events that the broker refused for a reason of their own';
COMMENT ON COLUMN sea_mq.status.streams IS 'Streams described';
COMMENT ON COLUMN sea_mq.status.log_bytes IS 'Size of the log with its indexes, in bytes';
COMMENT ON COLUMN sea_mq.status.version IS 'Version of the extension';

CREATE FUNCTION sea_mq.fate_of(event_id uuid, OUT seq bigint, OUT sink bigint, OUT passed boolean, OUT subject text,
    OUT created_at timestamptz, OUT available_at timestamptz, OUT published_at timestamptz, OUT stream_seq bigint)
RETURNS SETOF record LANGUAGE c STABLE STRICT ROWS 1 AS 'MODULE_PATHNAME', 'fate_of_wrapper';
COMMENT ON FUNCTION sea_mq.fate_of IS
'What became of an event of the log (the last, if the id stands there more than once): whether the cursor has passed it, and when and
where it was stored; no row: it is not there. For internal use';

CREATE FUNCTION sea_mq.event_status(event_id uuid)
RETURNS TABLE (id uuid, status text, subject text, created_at timestamptz, available_at timestamptz, published_at timestamptz,
    attempts integer, error text, stream text, stream_seq bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT $1,
        CASE WHEN f.error IS NOT NULL THEN 'failed'
            WHEN e.passed THEN 'delivered'
            WHEN w.error IS NOT NULL THEN 'retrying'
            ELSE 'pending' END,
        e.subject, e.created_at, e.available_at, CASE WHEN f.error IS NULL THEN e.published_at END,
        coalesce(f.attempts, e.passed::integer), coalesce(f.error, CASE WHEN NOT e.passed THEN w.error END), s.name,
        CASE WHEN f.error IS NULL THEN e.stream_seq END
    -- What was tried again stands in two places, of which the last counts.
    FROM (SELECT l.* FROM sea_mq.fate_of($1) l
        UNION ALL
        SELECT NULL, h.sink, false, coalesce(h.subject, h.context || '.event.' || h.event_type || '.v' || h.event_version),
            h.created_at, h.available_at, NULL, NULL
        FROM sea_mq.scheduled_events h WHERE h.id = $1) e
    LEFT JOIN sea_mq.publish_failures f ON f.event_id = $1 AND f.seq = e.seq
    LEFT JOIN sea_mq.streams s ON s.sink = e.sink
    CROSS JOIN LATERAL (SELECT coalesce((SELECT t.error FROM sea_mq.stream_state t WHERE t.sink = e.sink),
        (SELECT r.error FROM sea_mq.relay_state r)) AS error) w
    ORDER BY e.seq DESC NULLS LAST LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.event_status IS
'What became of an event: pending, retrying (the broker or the stream is not available), delivered or failed (refused for good),
with times, error, stream and sequence. No row: the event is not, or no longer, in the log';

CREATE FUNCTION sea_mq.broker_settings(OUT name text, OUT setting text) RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'broker_settings_wrapper';
COMMENT ON FUNCTION sea_mq.broker_settings IS
'The settings of the broker''s connection, which PostgreSQL hides from all but superusers: URLs without their credentials, and the paths
of files; for internal use';

CREATE FUNCTION sea_mq.install_report() RETURNS TABLE (section text, item text, value text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'extension', 'version', e.extversion FROM pg_extension e WHERE e.extname = 'sea_mq'
    UNION ALL SELECT 'extension', 'install_id', i.install_id::text FROM sea_mq.installation i
    UNION ALL SELECT 'extension', 'preloaded', sea_mq.preloaded()::text
    UNION ALL SELECT * FROM (
        SELECT 'table', c.oid::regclass::text,
            format('%s rows (estimate), %s indexes, %s', greatest(c.reltuples, 0)::bigint,
                (SELECT count(*) FROM pg_index x WHERE x.indrelid = c.oid), pg_size_pretty(pg_total_relation_size(c.oid)))
        FROM pg_class c WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind = 'r' ORDER BY c.relname) AS tables
    UNION ALL SELECT * FROM (
        SELECT 'index', x.indexrelid::regclass::text, CASE WHEN x.indisvalid THEN 'valid' ELSE 'INVALID' END
        FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid
        WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind = 'r' ORDER BY 2) AS indexes
    UNION ALL SELECT * FROM (
        -- Those of the broker are hidden from all but superusers, the extension's owner included.
        SELECT 'setting', g.name, g.setting FROM (
            SELECT p.name, p.setting || coalesce(' ' || p.unit, '') AS setting FROM pg_settings p WHERE starts_with(p.name, 'sea_mq.')
            UNION SELECT b.name, b.setting FROM sea_mq.broker_settings() b) g ORDER BY g.name) AS settings
    UNION ALL SELECT 'worker', w.backend_type, format('pid %s, started %s', w.pid, w.backend_start) FROM sea_mq.workers() w
    UNION ALL SELECT 'worker', 'problem', p.problem FROM sea_mq.worker_problem() p
    UNION ALL SELECT 'relay', 'state', concat_ws(': ', r.state, r.error) FROM sea_mq.relay_status r
    UNION ALL SELECT 'broker', coalesce(r.server_address, 'none'), concat_ws(' ', r.server_name, r.server_version)
        FROM sea_mq.relay_status r
    UNION ALL SELECT 'stream', t.stream, concat_ws(': ', t.state, t.error) FROM sea_mq.stream_status t
    UNION ALL SELECT 'role', a.rolname, shobj_description(a.oid, 'pg_authid') FROM pg_roles a WHERE starts_with(a.rolname, 'sea_mq_')
$$;
COMMENT ON FUNCTION sea_mq.install_report IS
'What is installed and whether it works: tables, indexes, row counts, settings, workers, broker, streams, roles';

-- Who may use it.
GRANT SELECT ON sea_mq.outbox_status, sea_mq.relay_status, sea_mq.stream_status, sea_mq.problems, sea_mq.status
    TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.log_size, sea_mq.unpublished_bytes TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.worker_pauses, sea_mq.event_status, sea_mq.install_report TO sea_mq_operator, sea_mq_monitor;

-- The registry: which versions of which event types there are, and what their payloads look like. What is registered never
-- changes its meaning, so a version can be checked against, cached and relied on.
CREATE TABLE sea_mq.event_types (
    context text COLLATE "C" NOT NULL CHECK (context = sea_mq.context_name(context)),
    event_type text COLLATE "C" NOT NULL CHECK (event_type = sea_mq.event_name(event_type)),
    version integer NOT NULL CHECK (version > 0),
    schema jsonb NOT NULL,
    visibility text NOT NULL CHECK (visibility IN ('public', 'partner', 'internal', 'sensitive')),
    description text,
    registered_at timestamptz NOT NULL DEFAULT now(),
    registered_by name NOT NULL DEFAULT sea_mq.caller_name(),
    deprecated_at timestamptz,
    deprecation text,
    subject text GENERATED ALWAYS AS (context || '.event.' || event_type || '.v' || version) STORED,
    PRIMARY KEY (context, event_type, version)
);
COMMENT ON TABLE sea_mq.event_types IS 'Registered event types and versions; see sea_mq.register_event';
COMMENT ON COLUMN sea_mq.event_types.context IS 'Context that emits it';
COMMENT ON COLUMN sea_mq.event_types.event_type IS 'Normalised event name';
COMMENT ON COLUMN sea_mq.event_types.version IS 'Version, from 1';
COMMENT ON COLUMN sea_mq.event_types.schema IS 'JSON Schema (draft 2020-12) of the payload';
COMMENT ON COLUMN sea_mq.event_types.visibility IS 'Widest audience: public, partner, internal or sensitive; what emit gives an event for which the caller says nothing';
COMMENT ON COLUMN sea_mq.event_types.description IS 'What the event says';
COMMENT ON COLUMN sea_mq.event_types.registered_at IS 'When it was registered';
COMMENT ON COLUMN sea_mq.event_types.registered_by IS 'Role that registered it';
COMMENT ON COLUMN sea_mq.event_types.deprecated_at IS 'Since when it is deprecated; NULL: it is not';
COMMENT ON COLUMN sea_mq.event_types.deprecation IS 'What to use instead, or why it is deprecated';
COMMENT ON COLUMN sea_mq.event_types.subject IS 'NATS subject of its events';

CREATE TABLE sea_mq.schema_definitions (
    uri text COLLATE "C" PRIMARY KEY CHECK (uri ~ '^[A-Za-z][A-Za-z0-9+.-]*:[^[:space:]#]+$'),
    schema jsonb NOT NULL,
    description text,
    registered_at timestamptz NOT NULL DEFAULT now(),
    registered_by name NOT NULL DEFAULT sea_mq.caller_name()
);
COMMENT ON TABLE sea_mq.schema_definitions IS 'Schemas that are no event''s but that events'' schemas refer to; see sea_mq.register_schema';
COMMENT ON COLUMN sea_mq.schema_definitions.uri IS 'URI that a $ref names it by';
COMMENT ON COLUMN sea_mq.schema_definitions.schema IS 'JSON Schema (draft 2020-12)';
COMMENT ON COLUMN sea_mq.schema_definitions.description IS 'What it describes';
COMMENT ON COLUMN sea_mq.schema_definitions.registered_at IS 'When it was registered';
COMMENT ON COLUMN sea_mq.schema_definitions.registered_by IS 'Role that registered it';

-- A schema may give itself another URI by $id, and be referred to by that one.
CREATE INDEX event_types_schema_id ON sea_mq.event_types ((schema ->> '$id')) WHERE schema ? '$id';
CREATE INDEX schema_definitions_schema_id ON sea_mq.schema_definitions ((schema ->> '$id')) WHERE schema ? '$id';

SELECT pg_catalog.pg_extension_config_dump('sea_mq.event_types', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.schema_definitions', '');

-- Backends keep what they have read of the registry.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sea_mq.event_types
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.table_changed();
ALTER TABLE sea_mq.event_types ENABLE ALWAYS TRIGGER changed;
COMMENT ON TRIGGER changed ON sea_mq.event_types IS 'Tells backends to read the registry again';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sea_mq.schema_definitions
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.table_changed();
ALTER TABLE sea_mq.schema_definitions ENABLE ALWAYS TRIGGER changed;
COMMENT ON TRIGGER changed ON sea_mq.schema_definitions IS 'Tells backends to read the registry again';

-- A version's meaning never changes. Also not by hand.
CREATE FUNCTION sea_mq.refuse_change_of_contract() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'a registered schema cannot be changed'
        USING ERRCODE = 'feature_not_supported', HINT = 'Register the changed meaning as the next version.';
END $$;
COMMENT ON FUNCTION sea_mq.refuse_change_of_contract IS 'Trigger function: a version''s meaning never changes';
CREATE TRIGGER immutable BEFORE UPDATE OF context, event_type, version, schema, visibility ON sea_mq.event_types
FOR EACH ROW WHEN ((OLD.context, OLD.event_type, OLD.version, OLD.schema, OLD.visibility)
    IS DISTINCT FROM (NEW.context, NEW.event_type, NEW.version, NEW.schema, NEW.visibility))
EXECUTE FUNCTION sea_mq.refuse_change_of_contract();
COMMENT ON TRIGGER immutable ON sea_mq.event_types IS 'A version''s meaning never changes';
CREATE TRIGGER immutable BEFORE UPDATE OF uri, schema ON sea_mq.schema_definitions
FOR EACH ROW WHEN ((OLD.uri, OLD.schema) IS DISTINCT FROM (NEW.uri, NEW.schema))
EXECUTE FUNCTION sea_mq.refuse_change_of_contract();
COMMENT ON TRIGGER immutable ON sea_mq.schema_definitions IS 'What others refer to never changes its meaning';

CREATE FUNCTION sea_mq.find_contract(context text, event_type text, version integer,
    OUT schema text, OUT visibility text, OUT deprecated boolean, OUT deprecation text)
RETURNS SETOF record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.schema::text, t.visibility, t.deprecated_at IS NOT NULL, t.deprecation
    FROM sea_mq.event_types t WHERE t.context = $1 AND t.event_type = $2 AND t.version = $3
$$;
COMMENT ON FUNCTION sea_mq.find_contract IS 'What a backend keeps of a registered version; for internal use';

CREATE FUNCTION sea_mq.find_schema(uri text, context text DEFAULT NULL, event_type text DEFAULT NULL, version integer DEFAULT NULL)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.schema::text FROM (
        SELECT t.schema, 1 AS rank FROM sea_mq.event_types t WHERE t.context = $2 AND t.event_type = $3 AND t.version = $4
        UNION ALL SELECT d.schema, 2 FROM sea_mq.schema_definitions d WHERE d.uri = $1
        UNION ALL SELECT t.schema, 3 FROM sea_mq.event_types t WHERE t.schema ? '$id' AND t.schema ->> '$id' = $1
        UNION ALL SELECT d.schema, 4 FROM sea_mq.schema_definitions d WHERE d.schema ? '$id' AND d.schema ->> '$id' = $1
    ) s ORDER BY s.rank LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.find_schema IS 'The schema that a $ref names: by the place of an event''s schema, by the URI of a definition, or by $id; for internal use';

CREATE FUNCTION sea_mq.check_schema(schema jsonb, uri text) RETURNS void
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'check_schema_wrapper';
COMMENT ON FUNCTION sea_mq.check_schema IS 'An error unless the schema, whose own URI is given, can be used. Errors: 22023 (no JSON Schema), 42704 (it refers to what is not registered)';

CREATE FUNCTION sea_mq.contract_uri(context text, event_type text, version integer) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_uri_wrapper';
COMMENT ON FUNCTION sea_mq.contract_uri IS 'The URI of a version''s schema: sea-mq:/schemas/events/{context}/{name}.v{version}.schema.json; dataschema in the envelope. Errors: 22023, 54000';

CREATE FUNCTION sea_mq.contract_of(schema jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_typeof($1) = 'object' THEN $1 - '{description,x-sea-visibility}'::text[] ELSE $1 END
$$;
COMMENT ON FUNCTION sea_mq.contract_of IS 'What of a schema makes the contract: all but the description and visibility at its root, which are columns of the registry';

CREATE FUNCTION sea_mq.register_event(
    context text, event_type text, version integer, schema jsonb, visibility text DEFAULT NULL, description text DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    new sea_mq.event_types;
    old sea_mq.event_types;
BEGIN
    IF register_event.context IS NULL OR register_event.event_type IS NULL OR register_event.version IS NULL OR register_event.schema IS NULL THEN
        RAISE EXCEPTION 'context, event_type, version and schema must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.register_event(''orders'', ''OrderCreated'', 1, ''{"type": "object"}'').';
    END IF;
    new.context := sea_mq.context_name(register_event.context);
    new.event_type := sea_mq.event_name(register_event.event_type);
    new.version := register_event.version;
    new.schema := register_event.schema;
    new.visibility := coalesce(register_event.visibility, new.schema ->> 'x-sea-visibility', 'internal');
    new.description := coalesce(register_event.description, new.schema ->> 'description');
    IF new.visibility NOT IN ('public', 'partner', 'internal', 'sensitive') THEN
        RAISE EXCEPTION 'visibility "%" is not known', new.visibility
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use one of public, partner, internal, sensitive.';
    END IF;
    PERFORM sea_mq.check_schema(new.schema, sea_mq.contract_uri(new.context, new.event_type, new.version));
    INSERT INTO sea_mq.event_types (context, event_type, version, schema, visibility, description)
    VALUES (new.context, new.event_type, new.version, new.schema, new.visibility, new.description)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM sea_mq.notice_differences(new.context, new.event_type, new.version);
        RETURN true;
    END IF;
    SELECT t.* INTO old FROM sea_mq.event_types t
    WHERE t.context = new.context AND t.event_type = new.event_type AND t.version = new.version;
    IF (sea_mq.contract_of(old.schema), old.visibility) IS DISTINCT FROM (sea_mq.contract_of(new.schema), new.visibility) THEN
        RAISE EXCEPTION 'version % of % is registered with another %', new.version, new.event_type,
                CASE WHEN old.visibility <> new.visibility THEN 'visibility' ELSE 'schema' END
            USING ERRCODE = 'unique_violation', HINT = format('A version''s meaning never changes: register this one as version %s.',
                (SELECT max(t.version) + 1 FROM sea_mq.event_types t WHERE t.context = new.context AND t.event_type = new.event_type));
    END IF;
    IF new.description IS DISTINCT FROM old.description AND new.description IS NOT NULL THEN
        UPDATE sea_mq.event_types t SET description = new.description
        WHERE t.context = new.context AND t.event_type = new.event_type AND t.version = new.version;
    END IF;
    RETURN false;
END $$;
COMMENT ON FUNCTION sea_mq.register_event IS
'Registers a version of an event type: a JSON Schema (draft 2020-12) for its payloads. Returns true if it is new, false if the
same was registered already. visibility: the widest audience; NULL: the schema''s "x-sea-visibility", else internal. A $ref names
what is registered and nothing else: another event''s schema (relative to this one''s place, ../billing/invoice_paid.v1.schema.json),
a definition of sea_mq.register_schema, or a $id. Errors: 22004, 22023 (no JSON Schema, a name that NATS cannot carry), 23505 (this
version is registered with another content: the hint names the next one), 42704 (a $ref to what is not registered)';

CREATE FUNCTION sea_mq.register_schema(uri text, schema jsonb, description text DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    old jsonb;
BEGIN
    IF register_schema.uri IS NULL OR register_schema.schema IS NULL THEN
        RAISE EXCEPTION 'uri and schema must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.register_schema(''sea-mq:/schemas/events/common/money.schema.json'', ''{"type": "object"}'').';
    END IF;
    PERFORM sea_mq.check_schema(register_schema.schema, register_schema.uri);
    INSERT INTO sea_mq.schema_definitions (uri, schema, description)
    VALUES (register_schema.uri, register_schema.schema, coalesce(register_schema.description, register_schema.schema ->> 'description'))
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN true;
    END IF;
    SELECT d.schema INTO old FROM sea_mq.schema_definitions d WHERE d.uri = register_schema.uri;
    IF sea_mq.contract_of(old) IS DISTINCT FROM sea_mq.contract_of(register_schema.schema) THEN
        RAISE EXCEPTION '"%" is registered with another schema', register_schema.uri
            USING ERRCODE = 'unique_violation', HINT = 'What others refer to never changes its meaning: register it under another URI.';
    END IF;
    RETURN false;
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION '"%" is not an absolute URI without fragment', register_schema.uri
        USING ERRCODE = 'invalid_parameter_value', HINT = 'As in sea-mq:/schemas/events/common/money.schema.json.';
END $$;
COMMENT ON FUNCTION sea_mq.register_schema IS
'Registers a schema that is no event''s, for events'' schemas to refer to by its URI. Returns true if it is new, false if the same
was registered already. Errors: 22004, 22023, 23505 (registered with another content), 42704 (a $ref to what is not registered)';

CREATE FUNCTION sea_mq.deprecate_event(context text, event_type text, version integer, reason text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE sea_mq.event_types t SET deprecated_at = coalesce(t.deprecated_at, now()), deprecation = coalesce($4, t.deprecation)
    WHERE t.context = sea_mq.context_name($1) AND t.event_type = sea_mq.event_name($2) AND t.version = $3;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'version % of event type "%" is not registered in context "%"', $3, $2, $1
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.event_types.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.deprecate_event IS
'Says that a version should not be used any more, and why or what to use instead. It can still be emitted; where sea_mq.contracts is
warn or enforce, each session that does is warned once. Errors: 22023, 42704 (it is not registered)';

CREATE FUNCTION sea_mq.contract_violations(context text, event_type text, event_version integer, payload jsonb,
    OUT pointer text, OUT message text)
RETURNS SETOF record LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'contract_violations_wrapper';
COMMENT ON FUNCTION sea_mq.contract_violations IS
'How a payload breaks the contract of a registered version: JSON Pointers into the payload and what is wrong there, 20 at most; no
row if it does not. Errors: 22023, 42704 (it is not registered)';

-- The registry is open to all who use the extension; what is agreed on is registered by operators.
GRANT SELECT ON sea_mq.event_types, sea_mq.schema_definitions TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.contract_uri, sea_mq.contract_violations
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.register_event, sea_mq.register_schema, sea_mq.deprecate_event TO sea_mq_operator;

-- Contracts against each other and against what is emitted; and in and out of files, so that they can be kept in git. The same
-- checks without a server are those of the command `sea-mq contracts`.
CREATE FUNCTION sea_mq.compare_schemas(old jsonb, new jsonb, OUT pointer text, OUT change text, OUT compatibility text)
RETURNS SETOF record LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'compare_schemas_wrapper';
COMMENT ON FUNCTION sea_mq.compare_schemas IS
'The differences between two JSON Schemas, those that break first: JSON Pointer into the new one (into the old one for what is gone),
what changed, compatible or breaking. Breaking: a payload of the new one may be one that a consumer written for the old one cannot
take, or that cannot be decided. Errors: 22023 (no JSON Schema)';

CREATE FUNCTION sea_mq.compare_versions(context text, event_type text, old_version integer, new_version integer)
RETURNS TABLE (pointer text, change text, compatibility text)
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted integer;
    schemas jsonb[] := '{}';
BEGIN
    FOREACH wanted IN ARRAY ARRAY[$3, $4] LOOP
        schemas := array_append(schemas, (SELECT sea_mq.contract_file(t.schema, t.description, t.visibility) FROM sea_mq.event_types t
            WHERE (t.context, t.event_type, t.version) = (sea_mq.context_name($1), sea_mq.event_name($2), wanted)));
        IF schemas[cardinality(schemas)] IS NULL THEN
            RAISE EXCEPTION 'version % of event type "%" is not registered in context "%"', wanted, $2, $1
                USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.event_types.';
        END IF;
    END LOOP;
    RETURN QUERY SELECT d.pointer, d.change, d.compatibility FROM sea_mq.compare_schemas(schemas[1], schemas[2]) d;
END $$;
COMMENT ON FUNCTION sea_mq.compare_versions IS
'The differences between two registered versions of an event type, as sea_mq.compare_schemas gives them. Errors: 22023, 42704 (a
version is not registered)';

CREATE FUNCTION sea_mq.notice_differences(context text, event_type text, version integer)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before integer := (SELECT max(t.version) FROM sea_mq.event_types t WHERE t.context = $1 AND t.event_type = $2 AND t.version < $3);
    found record;
BEGIN
    SELECT count(*) FILTER (WHERE d.compatibility = 'breaking') AS breaking, count(*) AS all_of_them,
        string_agg(format('%s: %s: %s', d.compatibility, d.pointer, d.change), chr(10) ORDER BY d.place) FILTER (WHERE d.place <= 20) AS list
    INTO found
    FROM (SELECT c.*, row_number() OVER () AS place FROM sea_mq.event_types old, sea_mq.event_types new,
            sea_mq.compare_schemas(sea_mq.contract_of(old.schema), sea_mq.contract_of(new.schema)) c
        WHERE (old.context, old.event_type, old.version) = ($1, $2, before) AND (new.context, new.event_type, new.version) = ($1, $2, $3)) d;
    IF found.all_of_them > 0 THEN
        RAISE NOTICE 'version % of % differs from version %: % breaking, % compatible', version, event_type, before,
                found.breaking, found.all_of_them - found.breaking
            USING DETAIL = found.list, HINT = format('sea_mq.compare_versions(%L, %L, %s, %s) lists them.', context, event_type, before, version);
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.notice_differences IS 'Says what a version changes since the one before it, those that break first, 20 at most; for internal use';

-- A directory's paths and the registry's names. The grammar of both is in contracts/src/set.rs.
CREATE FUNCTION sea_mq.contract_path(uri text, is_definition boolean) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_path_wrapper';
COMMENT ON FUNCTION sea_mq.contract_path IS 'The file below schemas/events in which the schema with this URI stands; for internal use';

CREATE FUNCTION sea_mq.contract_files(files jsonb, OUT path text, OUT uri text, OUT context text, OUT event_type text, OUT version integer)
RETURNS SETOF record LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_files_wrapper';
COMMENT ON FUNCTION sea_mq.contract_files IS
'What stands in files (path: schema), what is referred to first; context, event_type and version are NULL for definitions; for internal
use. Errors: 22023';

CREATE FUNCTION sea_mq.contract_file(schema jsonb, description text, visibility text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN f.said = '{}' THEN $1 WHEN jsonb_typeof($1) = 'object' THEN $1 || f.said
        ELSE jsonb_build_object('allOf', jsonb_build_array($1)) || f.said END
    FROM (SELECT CASE WHEN $2 IS NULL OR $2 = $1 ->> 'description' THEN '{}' ELSE jsonb_build_object('description', $2) END
        || CASE WHEN $3 = coalesce($1 ->> 'x-sea-visibility', 'internal') THEN '{}' ELSE jsonb_build_object('x-sea-visibility', $3) END) AS f (said)
$$;
COMMENT ON FUNCTION sea_mq.contract_file IS 'A schema that says itself what the registry''s columns say of it; for internal use';

CREATE FUNCTION sea_mq.export_contracts() RETURNS TABLE (path text, schema jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT sea_mq.contract_path(sea_mq.contract_uri(t.context, t.event_type, t.version), false) COLLATE "C" AS path,
        sea_mq.contract_file(t.schema, t.description, t.visibility)
    FROM sea_mq.event_types t
    UNION ALL
    SELECT sea_mq.contract_path(d.uri, true), sea_mq.contract_file(d.schema, d.description, coalesce(d.schema ->> 'x-sea-visibility', 'internal'))
    FROM sea_mq.schema_definitions d
    ORDER BY path
$$;
COMMENT ON FUNCTION sea_mq.export_contracts IS
'The registry as files below schemas/events: {context}/{name}.v{version}.schema.json, and definitions at the places that their URIs
name. Description and visibility stand in the schema. That a version is deprecated is not in it';

CREATE FUNCTION sea_mq.import_contracts(files jsonb) RETURNS TABLE (path text, result text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    file record;
    present jsonb;
    is_new boolean;
    message text;
    hint text;
BEGIN
    IF jsonb_typeof(files) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'files must be an object of schemas'
            USING ERRCODE = CASE WHEN files IS NULL THEN 'null_value_not_allowed' ELSE 'invalid_parameter_value' END,
                HINT = 'As in {"orders/order_created.v1.schema.json": {"type": "object"}}.';
    END IF;
    SELECT coalesce(jsonb_object_agg(e.path, e.schema), '{}') INTO present FROM sea_mq.export_contracts() e;
    FOR file IN SELECT f.*, files -> f.path AS schema FROM sea_mq.contract_files(files) f LOOP
        BEGIN
            is_new := CASE
                WHEN present -> file.path = file.schema THEN false
                WHEN file.context IS NULL THEN sea_mq.register_schema(file.uri, file.schema)
                ELSE sea_mq.register_event(file.context, file.event_type, file.version, file.schema) END;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
            RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = file.path || ': ' || message, HINT = hint;
        END;
        path := file.path;
        result := CASE WHEN is_new THEN 'registered' ELSE 'unchanged' END;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.import_contracts IS
'Registers what stands in files (path below schemas/events: schema), all or nothing, what is referred to first; for each: registered
or unchanged. Errors: 22004, 22023 (no JSON Schema, a path that names no contract), 23505 (registered with another content), 42704';

CREATE FUNCTION sea_mq.lint_contracts(files jsonb, OUT rule text, OUT severity text, OUT path text, OUT message text, OUT hint text)
RETURNS SETOF record LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lint_contracts_wrapper';
COMMENT ON FUNCTION sea_mq.lint_contracts IS 'What is wrong with a set of contracts (path: schema); for internal use. Errors: 22023';

-- What cannot be fixed any more, because it is registered, is a warning.
CREATE FUNCTION sea_mq.lint() RETURNS TABLE (rule text, severity text, path text, message text, hint text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH emitted AS (
        SELECT e.context, e.event_type, e.event_version, count(*) AS events
        FROM sea_mq.outbox_events e WHERE starts_with(e.subject, e.context || '.event.') GROUP BY 1, 2, 3
    ), used AS (
        SELECT sea_mq.contract_path(sea_mq.contract_uri(e.context, e.event_type, e.event_version), false) AS path, e.events,
            t.version IS NULL AS unregistered, t.deprecated_at IS NOT NULL AS deprecated, t.deprecation
        FROM emitted e LEFT JOIN sea_mq.event_types t
            ON (t.context, t.event_type, t.version) = (e.context, e.event_type, e.event_version)
    )
    SELECT f.rule, CASE WHEN f.rule IN ('schema', 'reference', 'version-gap') THEN f.severity ELSE 'warning' END, f.path, f.message, f.hint
    FROM (SELECT jsonb_object_agg(e.path, e.schema) AS files FROM sea_mq.export_contracts() e) r, sea_mq.lint_contracts(r.files) f
    UNION ALL
    SELECT 'unregistered', 'warning', u.path, format('%s retained events are of this version, which is not registered', u.events),
        'Register it with sea_mq.register_event; sea_mq.contracts = enforce refuses what is not registered.'
    FROM used u WHERE u.unregistered
    UNION ALL
    SELECT 'deprecated', 'warning', u.path, format('%s retained events are of this version, which is deprecated', u.events),
        coalesce(u.deprecation, 'Emit a newer version.')
    FROM used u WHERE u.deprecated
    ORDER BY 3, 1, 4
$$;
COMMENT ON FUNCTION sea_mq.lint IS
'What is wrong with the registry, by the file in which a contract would stand: the rules of sea-mq contracts lint, and what retained
events show: emitted types that are not registered or are deprecated. Reads all retained events';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.compare_schemas, sea_mq.compare_versions, sea_mq.contract_path, sea_mq.contract_file,
    sea_mq.export_contracts TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.lint_contracts, sea_mq.lint TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.contract_files, sea_mq.import_contracts TO sea_mq_operator;

-- Capture: changes of a table's rows become events. Statement triggers hand the rows over (src/emit/capture); what is captured,
-- under which names and in which versions, stands here. See docs/capture.md.
CREATE TABLE sea_mq.captures (
    "table" regclass PRIMARY KEY,
    context text NOT NULL,
    aggregate_type text NOT NULL,
    key text[] NOT NULL CHECK (cardinality(key) > 0),
    events jsonb NOT NULL,
    columns text[],
    "when" text,
    visibility text,
    versions jsonb NOT NULL DEFAULT '{}',
    known jsonb NOT NULL,
    captured_by name NOT NULL,
    captured_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sea_mq.captures IS 'Captured tables; change it with capture_table and stop_capture, look at sea_mq.captured_tables';
COMMENT ON COLUMN sea_mq.captures."table" IS 'Captured table; its partitions and children are captured with it';
COMMENT ON COLUMN sea_mq.captures.context IS 'Context of the events';
COMMENT ON COLUMN sea_mq.captures.aggregate_type IS 'Aggregate type of the events';
COMMENT ON COLUMN sea_mq.captures.key IS 'Columns whose values make the aggregate id';
COMMENT ON COLUMN sea_mq.captures.events IS 'Event type of each operation (insert, update, delete, truncate); null: not captured';
COMMENT ON COLUMN sea_mq.captures.columns IS 'Columns that are sent; NULL: all';
COMMENT ON COLUMN sea_mq.captures."when" IS 'Condition over the rows old and new; NULL: none';
COMMENT ON COLUMN sea_mq.captures.visibility IS 'Visibility of the events, as given; NULL: what is registered, else internal';
COMMENT ON COLUMN sea_mq.captures.versions IS 'Registered version of each event type that is sent';
COMMENT ON COLUMN sea_mq.captures.known IS 'Names of the columns by their number, by which a renamed column is found';
COMMENT ON COLUMN sea_mq.captures.captured_by IS 'Role that called capture_table last';
COMMENT ON COLUMN sea_mq.captures.captured_at IS 'When capture_table was called last';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.captures', '');

CREATE FUNCTION sea_mq.capture() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'capture_wrapper';
COMMENT ON FUNCTION sea_mq.capture IS 'Trigger function of captured tables; refuses to work for others';

CREATE FUNCTION sea_mq.capture_changed("table" regclass) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'capture_changed_wrapper';
COMMENT ON FUNCTION sea_mq.capture_changed IS 'Makes all sessions read again what is captured of a table; for internal use';

CREATE FUNCTION sea_mq.capture_condition("table" regclass, condition text, names jsonb DEFAULT NULL, captured regclass DEFAULT NULL) RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'capture_condition_wrapper';
COMMENT ON FUNCTION sea_mq.capture_condition IS
'A condition over the rows old and new with all names qualified, read as the role that owns the table. names: what its columns were called
when it was written. captured: the captured table that the table is a partition of. Errors: 22023 (not one expression, or something
temporary), 42501 (the caller does not own the table), 42601, 42703 and others of the parser; for internal use';

CREATE FUNCTION sea_mq.make_capture_trigger("table" oid, name text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'make_capture_trigger_wrapper';
COMMENT ON FUNCTION sea_mq.make_capture_trigger IS 'Makes one of capture_triggers on a table; works inside the door alone; for internal use';

CREATE FUNCTION sea_mq.remove_capture_trigger("table" oid, name text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'remove_capture_trigger_wrapper';
COMMENT ON FUNCTION sea_mq.remove_capture_trigger IS 'Removes one of capture_triggers from a table; works inside the door alone; for internal use';

CREATE FUNCTION sea_mq.lock_captured("table" oid) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'lock_captured_wrapper';
COMMENT ON FUNCTION sea_mq.lock_captured IS
'Waits until nobody writes to a table, its partitions and children, and keeps it so until the transaction ends; works inside the door
alone; for internal use';

-- The table itself, or the nearest captured one that it is a partition or child of. What captures there are is asked by their
-- key, so that this does not depend on how many there are.
CREATE FUNCTION sea_mq.capture_root(relation oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH RECURSIVE line (relation, depth) AS (
        SELECT $1, 0
        UNION SELECT i.inhparent, l.depth + 1 FROM line l JOIN pg_inherits i ON i.inhrelid = l.relation WHERE NOT i.inhdetachpending),
    captured AS MATERIALIZED (
        SELECT (SELECT c."table"::oid FROM sea_mq.captures c WHERE c."table" = l.relation) AS "table", l.depth FROM line l)
    SELECT "table" FROM captured WHERE "table" IS NOT NULL ORDER BY depth, 1 LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.capture_root IS 'The captured table that a table belongs to, NULL if there is none; for internal use';

CREATE FUNCTION sea_mq.capture_left(relation bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE line (relation, pending) AS (
        SELECT $1::oid, false
        UNION SELECT i.inhparent, l.pending OR i.inhdetachpending FROM line l JOIN pg_inherits i ON i.inhrelid = l.relation)
    SELECT EXISTS (SELECT FROM line l WHERE l.pending AND EXISTS (SELECT FROM sea_mq.captures c WHERE c."table" = l.relation))
$$;
COMMENT ON FUNCTION sea_mq.capture_left IS
'Whether a table is being detached from a captured one (DETACH PARTITION CONCURRENTLY, not finished); for internal use';

CREATE FUNCTION sea_mq.capture_members("table" oid) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE family (relation) AS (
        SELECT $1
        UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.relation
        WHERE NOT i.inhdetachpending AND NOT EXISTS (SELECT FROM sea_mq.captures c WHERE c."table" = i.inhrelid))
    SELECT relation FROM family
$$;
COMMENT ON FUNCTION sea_mq.capture_members IS 'A captured table, and its partitions and children that are captured with it; for internal use';

CREATE FUNCTION sea_mq.capture_plan(relation bigint) RETURNS text
-- The table's name is sent.
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
    SELECT jsonb_build_object(
        'root', c."table"::oid::bigint,
        'table', $1::oid::regclass::text,
        'ancestors', (WITH RECURSIVE line (relation) AS (
            SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = $1::oid AND $1::oid <> c."table"
            UNION SELECT i.inhparent FROM line l JOIN pg_inherits i ON i.inhrelid = l.relation WHERE l.relation <> c."table")
            SELECT coalesce(jsonb_agg(l.relation::bigint), '[]') FROM line l),
        'context', c.context, 'aggregate_type', c.aggregate_type, 'when', c."when",
        'key', (SELECT jsonb_agg(a.attnum ORDER BY k.place) FROM unnest(c.key) WITH ORDINALITY k (name, place)
            JOIN pg_attribute a ON a.attrelid = $1::oid AND a.attname = k.name AND NOT a.attisdropped),
        'columns', (SELECT jsonb_agg(a.attnum ORDER BY r.attnum) FROM pg_attribute r
            JOIN pg_attribute a ON a.attrelid = $1::oid AND a.attname = r.attname AND NOT a.attisdropped
            WHERE r.attrelid = c."table" AND r.attnum > 0 AND NOT r.attisdropped AND (c.columns IS NULL OR r.attname = ANY (c.columns))),
        'events', (SELECT jsonb_object_agg(e.key, CASE WHEN e.value IS NOT NULL THEN
                jsonb_build_object('name', e.value, 'version', c.versions -> e.value) END)
            FROM jsonb_each_text(c.events) e))::text
    FROM sea_mq.captures c WHERE c."table" = sea_mq.capture_root($1::oid)
$$;
COMMENT ON FUNCTION sea_mq.capture_plan IS 'What the trigger function must know of a table; for internal use';

-- What to_json makes of a type, as JSON Schema.
-- A type that is nested deeper than depth allows may be anything.
CREATE FUNCTION sea_mq.json_schema(type oid, nullable boolean, depth integer DEFAULT 16) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t pg_type;
    schema jsonb;
BEGIN
    IF depth <= 0 THEN
        RETURN '{}';
    END IF;
    LOOP
        SELECT * INTO t FROM pg_type WHERE oid = type;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no type with the OID %', type
                USING ERRCODE = 'undefined_object', HINT = 'It was dropped meanwhile.';
        END IF;
        EXIT WHEN t.typtype <> 'd';
        type := t.typbasetype;
    END LOOP;
    schema := CASE
        WHEN type = 'bool'::regtype THEN '{"type": "boolean"}'
        WHEN type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN '{"type": "integer"}'
        -- Which have values that are no number in JSON.
        WHEN type IN ('numeric'::regtype, 'float4'::regtype, 'float8'::regtype)
            THEN '{"type": ["number", "string"], "pattern": "^(NaN|-?Infinity)$"}'
        WHEN type IN ('json'::regtype, 'jsonb'::regtype) THEN '{}'
        WHEN type = 'date'::regtype THEN '{"type": "string", "format": "date"}'
        WHEN type = 'timestamptz'::regtype THEN '{"type": "string", "format": "date-time"}'
        WHEN type = 'uuid'::regtype THEN '{"type": "string", "format": "uuid"}'
        WHEN t.typtype = 'e' THEN (SELECT jsonb_build_object('enum', jsonb_agg(e.enumlabel ORDER BY e.enumsortorder))
            FROM pg_enum e WHERE e.enumtypid = type)
        -- The number of dimensions is not fixed.
        WHEN t.typsubscript = 'array_subscript_handler'::regproc THEN jsonb_build_object('type', 'array', 'items',
            jsonb_build_object('anyOf', jsonb_build_array(sea_mq.json_schema(t.typelem, true, depth - 1), '{"type": "array"}'::jsonb)))
        WHEN t.typtype = 'c' THEN (SELECT jsonb_build_object('type', 'object',
                'properties', coalesce(jsonb_object_agg(a.attname, sea_mq.json_schema(a.atttypid, true, depth - 1)), '{}'),
                'required', coalesce(jsonb_agg(a.attname ORDER BY a.attnum), '[]'))
            FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
        WHEN EXISTS (SELECT FROM pg_cast c WHERE c.castsource = type AND c.casttarget = 'json'::regtype AND c.castmethod = 'f') THEN '{}'
        ELSE '{"type": "string"}'
    END;
    IF nullable AND schema ? 'type' THEN
        schema := schema || jsonb_build_object('type', (schema -> 'type') || '["null"]');
    ELSIF nullable AND schema ? 'enum' THEN
        schema := schema || jsonb_build_object('enum', (schema -> 'enum') || '[null]');
    END IF;
    RETURN schema;
END $$;
COMMENT ON FUNCTION sea_mq.json_schema IS 'A JSON Schema for what values of a type look like in events; for internal use';

CREATE FUNCTION sea_mq.capture_schema(capture sea_mq.captures, event_type text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    operations text[] := ARRAY(SELECT e.key FROM jsonb_each_text(capture.events) e WHERE e.value = event_type);
    properties jsonb;
    schema jsonb := jsonb_build_object('$schema', 'https://json-schema.org/draft/2020-12/schema', 'title', event_type, 'type', 'object');
BEGIN
    IF 'truncate' = ANY (operations) THEN
        RETURN schema || '{"properties": {"table": {"type": "string"}, "whole": {"type": "boolean"}}, "required": ["table", "whole"]}';
    END IF;
    SELECT jsonb_build_object(
        'key', sea_mq.capture_object(capture."table", capture.key, true),
        'row', sea_mq.capture_object(capture."table", capture.columns, true),
        'old', sea_mq.capture_object(capture."table", CASE WHEN capture.columns IS NOT NULL THEN capture.columns || capture.key END, false)) INTO properties;
    RETURN schema || CASE operations
        WHEN '{update}' THEN jsonb_build_object('properties', properties, 'required', '["key", "row", "old"]'::jsonb)
        ELSE jsonb_build_object('properties', CASE WHEN 'update' = ANY (operations) THEN properties ELSE properties - 'old' END,
            'required', '["key", "row"]'::jsonb)
    END;
END $$;
COMMENT ON FUNCTION sea_mq.capture_schema IS 'JSON Schema of a captured table''s event; for internal use';

CREATE FUNCTION sea_mq.capture_object("table" oid, columns text[], complete boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('type', 'object', 'properties', jsonb_object_agg(a.attname, sea_mq.json_schema(a.atttypid, NOT a.attnotnull)))
        || CASE WHEN complete THEN jsonb_build_object('required', jsonb_agg(a.attname ORDER BY a.attnum)) ELSE '{}' END
    FROM pg_attribute a
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND ($2 IS NULL OR a.attname = ANY ($2))
$$;
COMMENT ON FUNCTION sea_mq.capture_object IS 'JSON Schema of an object that has columns of a table as members; NULL: all columns; for internal use';

CREATE FUNCTION sea_mq.register_capture(capture sea_mq.captures) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    event text;
    schema jsonb;
    latest sea_mq.event_types;
    version integer;
    versions jsonb := '{}';
BEGIN
    FOR event IN SELECT DISTINCT e.value FROM jsonb_each_text(capture.events) e WHERE e.value IS NOT NULL ORDER BY 1 LOOP
        schema := sea_mq.capture_schema(capture, event);
        SELECT t.* INTO latest FROM sea_mq.event_types t
        WHERE t.context = capture.context AND t.event_type = event ORDER BY t.version DESC LIMIT 1;
        version := coalesce(latest.version, 1);
        IF latest.version IS NOT NULL AND (sea_mq.contract_of(latest.schema) IS DISTINCT FROM sea_mq.contract_of(schema)
            OR capture.visibility <> latest.visibility)
        THEN
            version := latest.version + 1;
        END IF;
        IF version IS DISTINCT FROM latest.version THEN
            PERFORM sea_mq.register_event(capture.context, event, version, schema, coalesce(capture.visibility, latest.visibility),
                format('Captured from table %s', capture."table"));
        END IF;
        IF version > coalesce((capture.versions ->> event)::integer, 1) THEN
            RAISE NOTICE '% of table % is version % from now on', event, capture."table", version;
        END IF;
        versions := versions || jsonb_build_object(event, version);
    END LOOP;
    RETURN versions;
END $$;
COMMENT ON FUNCTION sea_mq.register_capture IS 'Registers what a captured table''s events look like now, and returns their versions; for internal use';

CREATE FUNCTION sea_mq.guard_capture() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    captured regclass := CASE TG_OP WHEN 'DELETE' THEN OLD."table" ELSE NEW."table" END;
BEGIN
    IF TG_WHEN = 'AFTER' THEN
        PERFORM sea_mq.capture_changed(captured);
        RETURN NULL;
    END IF;
    -- Numbers are another matter after a restore, so they are never taken over.
    NEW.known := (SELECT jsonb_object_agg(a.attnum, a.attname) FROM pg_attribute a
        WHERE a.attrelid = captured AND a.attnum > 0 AND NOT a.attisdropped);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION sea_mq.guard_capture IS 'Trigger function: what is to be known when a captured table''s columns change, and that sessions read it again';
CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON sea_mq.captures FOR EACH ROW EXECUTE FUNCTION sea_mq.guard_capture();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON sea_mq.captures FOR EACH ROW EXECUTE FUNCTION sea_mq.guard_capture();
COMMENT ON TRIGGER guard ON sea_mq.captures IS 'What is to be known when the table''s columns change';
COMMENT ON TRIGGER changed ON sea_mq.captures IS 'Sessions read again what is captured';

-- The triggers of a capture, by operation. Transition tables allow one event a trigger. What each is stands in
-- src/emit/capture/triggers.rs.
CREATE VIEW sea_mq.capture_triggers AS
SELECT * FROM (VALUES
    ('insert', 'sea_mq_capture_insert'),
    ('update', 'sea_mq_capture_update'),
    ('delete', 'sea_mq_capture_delete'),
    ('truncate', 'sea_mq_capture_truncate'),
    ('truncate', 'sea_mq_capture_truncate_begin')) t (operation, name);
COMMENT ON VIEW sea_mq.capture_triggers IS 'The triggers that captured tables have';
COMMENT ON COLUMN sea_mq.capture_triggers.operation IS 'Operation';
COMMENT ON COLUMN sea_mq.capture_triggers.name IS 'Name of the trigger';

-- Makes the triggers of tables what the captures want; those of tables that are not captured any more are removed.
CREATE FUNCTION sea_mq.install_capture(tables oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT r.relation, g.name, coalesce(c.events ->> g.operation, '') <> '' AS wanted, c."when", c."table" AS captured
        FROM (SELECT m.relation, sea_mq.capture_root(m.relation) AS root FROM unnest(tables) m (relation) OFFSET 0) r
        CROSS JOIN sea_mq.capture_triggers g
        LEFT JOIN sea_mq.captures c ON c."table" = r.root
        WHERE (coalesce(c.events ->> g.operation, '') <> '') <> EXISTS (SELECT FROM pg_trigger p
            WHERE p.tgrelid = r.relation AND p.tgname = g.name AND p.tgfoid = 'sea_mq.capture'::regproc)
        ORDER BY r.relation, g.name
    LOOP
        IF NOT t.wanted THEN
            PERFORM sea_mq.remove_capture_trigger(t.relation, t.name);
            CONTINUE;
        END IF;
        IF (SELECT relkind FROM pg_class WHERE oid = t.relation) = 'f' THEN
            RAISE EXCEPTION '% is a foreign table, which cannot be captured', t.relation::regclass
                USING ERRCODE = 'wrong_object_type', HINT = 'Capture the table where it is, or those of the partitions that are no foreign tables.';
        END IF;
        -- It must have a meaning for a partition's rows, too.
        PERFORM sea_mq.capture_condition(t.relation, t."when", captured => t.captured) WHERE t."when" IS NOT NULL;
        PERFORM sea_mq.make_capture_trigger(t.relation, t.name);
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.install_capture IS 'Makes the triggers of tables what their captures want; for internal use';

-- Whoever captures a table must own it; the functions see to it.
GRANT SELECT ON sea_mq.captures, sea_mq.capture_triggers TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.capture, sea_mq.capture_condition TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.capture_members TO sea_mq_operator, sea_mq_monitor;

-- What people call, and how a capture follows its table.
CREATE FUNCTION sea_mq.check_capturable("table" regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c pg_class;
BEGIN
    SELECT * INTO c FROM pg_class WHERE oid = "table";
    IF NOT FOUND OR c.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is not a table', "table"
            USING ERRCODE = 'wrong_object_type', HINT = 'Tables and partitioned tables can be captured; of a view, capture what it reads.';
    END IF;
    IF c.relpersistence = 't' OR c.relnamespace IN ('pg_catalog'::regnamespace, 'sea_mq'::regnamespace) THEN
        RAISE EXCEPTION 'table % cannot be captured', "table"
            USING ERRCODE = 'feature_not_supported', HINT = 'Temporary tables, the system''s and sea_mq''s own are not captured.';
    END IF;
    IF NOT pg_has_role(sea_mq.caller(), c.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', "table"
            USING ERRCODE = 'insufficient_privilege', HINT = 'Whoever owns a table decides what leaves it.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_capturable IS 'An error unless the caller can capture the table. Errors: 42809, 0A000, 42501; for internal use';

CREATE FUNCTION sea_mq.capture_key("table" regclass, key text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part text;
    columns text[];
BEGIN
    IF key IS NULL THEN
        SELECT array_agg(a.attname::text ORDER BY k.place) INTO columns
        FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE i.indrelid = "table" AND i.indisprimary AND k.place <= i.indnkeyatts;
        IF columns IS NULL THEN
            RAISE EXCEPTION 'table % has no primary key', "table"
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Say which columns name the aggregate: key => ''tenant, number''.';
        END IF;
        RETURN columns;
    END IF;
    FOR part IN SELECT btrim(m[1]) FROM regexp_matches(key, '[[:space:]]*("(?:[^"]|"")*"|[^,"]+)[[:space:]]*', 'g') m LOOP
        -- As it stands, or as SQL reads it.
        SELECT a.attname INTO part FROM pg_attribute a
        WHERE a.attrelid = "table" AND a.attnum > 0 AND NOT a.attisdropped AND a.attname IN (part, lower(part),
            CASE WHEN part ~ '^".+"$' THEN replace(substr(part, 2, length(part) - 2), '""', '"') END)
        ORDER BY a.attname = part DESC LIMIT 1;
        IF NOT FOUND OR part = ANY (columns) THEN
            RAISE EXCEPTION 'key "%" does not name columns of table %', key, "table"
                USING ERRCODE = 'undefined_column', HINT = 'As in key => ''tenant, number''.';
        END IF;
        columns := columns || part;
    END LOOP;
    IF columns IS NULL THEN
        RAISE EXCEPTION 'key "%" names no column', key USING ERRCODE = 'invalid_parameter_value', HINT = 'As in key => ''tenant, number''.';
    END IF;
    RETURN columns;
END $$;
COMMENT ON FUNCTION sea_mq.capture_key IS 'The columns that a list names, those of the primary key for NULL. Errors: 22023 (no primary key), 42703; for internal use';

CREATE FUNCTION sea_mq.capture_events(aggregate_type text, events jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stem text := regexp_replace(aggregate_type, '[^[:alnum:]_-]+', '_', 'g');
    names jsonb := jsonb_build_object('insert', stem || '_created', 'update', stem || '_updated', 'delete', stem || '_deleted',
        'truncate', stem || '_truncated');
BEGIN
    IF events IS NOT NULL AND (jsonb_typeof(events) <> 'object' OR EXISTS (SELECT FROM jsonb_each(events) e
        WHERE NOT names ? e.key OR jsonb_typeof(e.value) NOT IN ('string', 'null')))
    THEN
        RAISE EXCEPTION 'events cannot be %', events
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'As in ''{"insert": "OrderPlaced", "update": null}'', with the keys insert, update, delete and truncate; null: no event.';
    END IF;
    names := names || coalesce(events, '{}');
    SELECT jsonb_object_agg(n.key, sea_mq.event_name(n.value)) INTO names FROM jsonb_each_text(names) n;
    IF NOT EXISTS (SELECT FROM jsonb_each_text(names) n WHERE n.value IS NOT NULL) THEN
        RAISE EXCEPTION 'no operation has an event'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'To capture nothing, call sea_mq.stop_capture.';
    END IF;
    IF EXISTS (SELECT FROM jsonb_each_text(names) n WHERE n.key <> 'truncate' AND n.value = names ->> 'truncate') THEN
        RAISE EXCEPTION 'the event of truncate is about no row, so it must have a name of its own'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give it another name, or null.';
    END IF;
    RETURN names;
END $$;
COMMENT ON FUNCTION sea_mq.capture_events IS 'The event type of each operation. Error 22023; for internal use';

CREATE FUNCTION sea_mq.begin_capture(
    "table" regclass, aggregate_type text, key text, events jsonb, columns text[], condition text, context text, visibility text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    new sea_mq.captures;
    other text;
BEGIN
    IF begin_capture."table" IS NULL THEN
        RAISE EXCEPTION 'table must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.capture_table(''orders'', ''order'').';
    END IF;
    PERFORM sea_mq.check_capturable(begin_capture."table");
    PERFORM sea_mq.lock_captured(begin_capture."table");
    -- It may have changed hands, or be gone.
    PERFORM sea_mq.check_capturable(begin_capture."table");
    SELECT c.* INTO new FROM sea_mq.captures c WHERE c."table" = begin_capture."table";
    new.context := sea_mq.context_name(coalesce(begin_capture.context, nullif(current_setting('sea_mq.context', true), '')));
    IF new.context IS NULL THEN
        RAISE EXCEPTION 'the context of the events is not known'
            USING ERRCODE = 'undefined_object', HINT = 'Set it for the database, ALTER DATABASE ... SET sea_mq.context = ''orders'', or pass context => ''orders''.';
    END IF;
    new.aggregate_type := coalesce(begin_capture.aggregate_type, (SELECT relname FROM pg_class WHERE oid = begin_capture."table"));
    new.key := sea_mq.capture_key(begin_capture."table", begin_capture.key);
    new.events := sea_mq.capture_events(new.aggregate_type, begin_capture.events);
    SELECT c INTO other FROM unnest(begin_capture.columns) c
    WHERE NOT EXISTS (SELECT FROM pg_attribute a
        WHERE a.attrelid = begin_capture."table" AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = c);
    IF FOUND OR begin_capture.columns = '{}' THEN
        RAISE EXCEPTION 'columns are not columns of table %: %', begin_capture."table", coalesce(quote_ident(other), 'there is none')
            USING ERRCODE = 'undefined_column', HINT = 'As in columns => ''{number,total}''; leave it out for all.';
    END IF;
    SELECT c."table"::text INTO other FROM sea_mq.captures c JOIN jsonb_each_text(c.events) theirs ON theirs.value IS NOT NULL
    JOIN jsonb_each_text(new.events) ours ON ours.value = theirs.value
    WHERE c.context = new.context AND c."table" <> begin_capture."table" LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'table % is captured with the same event types', other
            USING ERRCODE = 'duplicate_object', HINT = 'One event type has one shape: pass another aggregate_type or events.';
    END IF;
    new."table" := begin_capture."table";
    new.columns := begin_capture.columns;
    new."when" := sea_mq.capture_condition(begin_capture."table", begin_capture.condition);
    new.visibility := begin_capture.visibility;
    new.versions := sea_mq.register_capture(new);
    INSERT INTO sea_mq.captures ("table", context, aggregate_type, key, events, columns, "when", visibility, versions, captured_by)
    VALUES (new."table", new.context, new.aggregate_type, new.key, new.events, new.columns, new."when", new.visibility, new.versions,
        pg_get_userbyid(sea_mq.caller()))
    ON CONFLICT ("table") DO UPDATE SET context = excluded.context, aggregate_type = excluded.aggregate_type, key = excluded.key,
        events = excluded.events, columns = excluded.columns, "when" = excluded."when", visibility = excluded.visibility,
        versions = excluded.versions, captured_by = excluded.captured_by, captured_at = excluded.captured_at;
    PERFORM sea_mq.install_capture(ARRAY(SELECT sea_mq.capture_members(new."table")));
END $$;
COMMENT ON FUNCTION sea_mq.begin_capture IS 'capture_table, once the condition is read; for internal use';

-- In the caller's search path, which decides what names in the condition mean. No name of its own depends on it.
CREATE FUNCTION sea_mq.capture_table(
    "table" regclass, aggregate_type text DEFAULT NULL, key text DEFAULT NULL, events jsonb DEFAULT NULL, columns text[] DEFAULT NULL,
    "when" text DEFAULT NULL, context text DEFAULT NULL, visibility text DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
    SELECT sea_mq.begin_capture($1, $2, $3, $4, $5, sea_mq.capture_condition($1, $6), $7, $8)
$$;
COMMENT ON FUNCTION sea_mq.capture_table IS
'Makes events of all changes of a table''s rows, and of its partitions and children: {aggregate_type}_created, _updated, _deleted and
_truncated, with the payload {"key": {…}, "row": {…}, "old": {what an update changed}}. aggregate_type: the table''s name unless given. key:
columns that name the aggregate, the primary key unless given. events: other names, null for no event. columns: what is sent
and what counts as a change, all unless given. when: a condition over old and new. The event types are registered, and
follow the table''s columns. Calling it again replaces the capture. The caller owns the table. Errors: 22004, 22023, 42501, 42703,
42704 (no context), 42710 (another table has these event types), 42809 (no table), 0A000, and those of the condition';

CREATE FUNCTION sea_mq.stop_capture("table" regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    members oid[] := ARRAY(SELECT sea_mq.capture_members(stop_capture."table"));
BEGIN
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = stop_capture."table" AND NOT pg_has_role(sea_mq.caller(), c.relowner, 'USAGE')) THEN
        RAISE EXCEPTION 'must be owner of table %', stop_capture."table"
            USING ERRCODE = 'insufficient_privilege', HINT = 'Whoever owns a table decides what leaves it.';
    END IF;
    DELETE FROM sea_mq.captures c WHERE c."table" = stop_capture."table";
    IF NOT FOUND AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = stop_capture."table" AND t.tgfoid = 'sea_mq.capture'::regproc)
    THEN
        RAISE EXCEPTION 'table % is not captured', stop_capture."table"
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.captured_tables.';
    ELSIF sea_mq.capture_root(stop_capture."table") IS NOT NULL AND NOT FOUND THEN
        RAISE EXCEPTION 'table % is captured with %', stop_capture."table", sea_mq.capture_root(stop_capture."table")::regclass
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Stop that capture, or detach the partition.';
    END IF;
    PERFORM sea_mq.install_capture(members);
END $$;
COMMENT ON FUNCTION sea_mq.stop_capture IS
'Ends the capture of a table; what was emitted stays. Errors: 42704 (it is not captured), 42501, 55000 (it is a partition that is
captured with its table)';

CREATE VIEW sea_mq.captured_tables AS
SELECT c."table", c.context, c.aggregate_type, c.key, c.events, c.versions, c.columns, c."when", c.visibility,
    NOT EXISTS (SELECT FROM sea_mq.capture_members(c."table") m (relation) CROSS JOIN sea_mq.capture_triggers g
        WHERE c.events ->> g.operation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
            WHERE t.tgrelid = m.relation AND t.tgname = g.name AND t.tgenabled IN ('O', 'A'))) AS active,
    c.captured_by, c.captured_at
FROM sea_mq.captures c;
COMMENT ON VIEW sea_mq.captured_tables IS 'Tables whose changes become events';
COMMENT ON COLUMN sea_mq.captured_tables."table" IS 'Captured table; its partitions and children are captured with it';
COMMENT ON COLUMN sea_mq.captured_tables.context IS 'Context of the events';
COMMENT ON COLUMN sea_mq.captured_tables.aggregate_type IS 'Aggregate type of the events';
COMMENT ON COLUMN sea_mq.captured_tables.key IS 'Columns whose values make the aggregate id';
COMMENT ON COLUMN sea_mq.captured_tables.events IS 'Event type of each operation; null: not captured';
COMMENT ON COLUMN sea_mq.captured_tables.versions IS 'Registered version of each event type that is sent';
COMMENT ON COLUMN sea_mq.captured_tables.columns IS 'Columns that are sent; NULL: all';
COMMENT ON COLUMN sea_mq.captured_tables."when" IS 'Condition over the rows old and new; NULL: none';
COMMENT ON COLUMN sea_mq.captured_tables.visibility IS 'Visibility of the events, as given; NULL: what is registered, else internal';
COMMENT ON COLUMN sea_mq.captured_tables.active IS 'Whether all triggers are there and enabled';
COMMENT ON COLUMN sea_mq.captured_tables.captured_by IS 'Role that called capture_table last';
COMMENT ON COLUMN sea_mq.captured_tables.captured_at IS 'When capture_table was called last';

-- A capture after its table has changed: names follow, versions move on, new partitions are captured.
CREATE FUNCTION sea_mq.follow_table(root oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
#variable_conflict use_column
DECLARE
    c sea_mq.captures;
    names jsonb;
BEGIN
    SELECT * INTO c FROM sea_mq.captures WHERE "table" = root;
    -- While a dump is restored the triggers come later, and by themselves.
    IF NOT FOUND OR EXISTS (SELECT FROM sea_mq.capture_triggers g WHERE c.events ->> g.operation IS NOT NULL
        AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = root AND t.tgname = g.name))
    THEN
        RETURN;
    END IF;
    -- What each column was called, and what it is called now.
    SELECT jsonb_object_agg(coalesce(k.value, a.attname), a.attname), jsonb_agg(coalesce(k.value, a.attname) ORDER BY a.attnum)
    INTO names, c.known
    FROM pg_attribute a LEFT JOIN jsonb_each_text(c.known) k ON k.key = a.attnum::text
    WHERE a.attrelid = root AND a.attnum > 0 AND NOT a.attisdropped;
    IF EXISTS (SELECT FROM unnest(c.key) k WHERE NOT names ? k) THEN
        RAISE EXCEPTION 'table % is captured by the key (%)', root::regclass, array_to_string(c.key, ', ')
            USING ERRCODE = 'dependent_objects_still_exist',
                HINT = 'Capture it by another key first (sea_mq.capture_table), or stop the capture (sea_mq.stop_capture).';
    END IF;
    c.key := ARRAY(SELECT names ->> k.name FROM unnest(c.key) WITH ORDINALITY k (name, place) ORDER BY k.place);
    IF c.columns IS NOT NULL THEN
        c.columns := ARRAY(SELECT names ->> k.name FROM unnest(c.columns) WITH ORDINALITY k (name, place) WHERE names ? k.name ORDER BY k.place);
        IF c.columns = '{}' THEN
            RAISE EXCEPTION 'nothing would be left that is captured of table %', root::regclass
                USING ERRCODE = 'dependent_objects_still_exist',
                    HINT = 'Capture other columns first (sea_mq.capture_table), or stop the capture (sea_mq.stop_capture).';
        END IF;
    END IF;
    IF c."when" IS NOT NULL THEN
        BEGIN
            c."when" := sea_mq.capture_condition(root, c."when", c.known, root);
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'the condition that table % is captured under would have no meaning: %', root::regclass, SQLERRM
                USING ERRCODE = 'dependent_objects_still_exist', DETAIL = c."when",
                    HINT = 'Capture it under another condition first (sea_mq.capture_table), or stop the capture (sea_mq.stop_capture).';
        END;
    END IF;
    c.versions := sea_mq.register_capture(c);
    UPDATE sea_mq.captures o SET key = c.key, columns = c.columns, "when" = c."when", versions = c.versions WHERE o."table" = root;
    PERFORM sea_mq.install_capture(ARRAY(SELECT sea_mq.capture_members(root)));
END $$;
COMMENT ON FUNCTION sea_mq.follow_table IS 'Brings a capture in line with its table. Error 2BP01: something that it needs is gone; for internal use';

-- The tables that have a column of a type, or of a type that contains it: an array, composite, domain or range.
CREATE FUNCTION sea_mq.tables_with_type(type oid) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE used (type) AS (
        SELECT $1
        UNION SELECT o.type FROM used u CROSS JOIN LATERAL (
            SELECT d.objid FROM pg_depend d
            WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid = u.type AND d.classid = 'pg_type'::regclass
            UNION ALL SELECT c.reltype FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
            WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid = u.type AND d.classid = 'pg_class'::regclass AND c.reltype <> 0) o (type))
    SELECT DISTINCT d.objid FROM used u JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = u.type
    WHERE d.classid = 'pg_class'::regclass AND d.objsubid > 0
$$;
COMMENT ON FUNCTION sea_mq.tables_with_type IS 'The tables whose rows may contain a type; for internal use';

-- As the extension's owner: whoever alters a table need not know that it is captured. What does not concern a capture costs a
-- look-up by key, however many there are.
CREATE FUNCTION sea_mq.follow_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    root oid;
    roots oid[];
    changed oid[];
BEGIN
    IF NOT EXISTS (SELECT FROM sea_mq.captures) THEN
        RETURN;
    END IF;
    IF TG_EVENT = 'sql_drop' THEN
        FOR root IN SELECT d.objid FROM pg_event_trigger_dropped_objects() d WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 LOOP
            DELETE FROM sea_mq.captures c WHERE c."table" = root;
        END LOOP;
        -- ALTER TABLE comes again when it is complete.
        SELECT array_agg(DISTINCT d.objid) INTO changed FROM pg_event_trigger_dropped_objects() d
        WHERE d.classid = 'pg_class'::regclass AND d.objsubid > 0 AND TG_TAG <> 'ALTER TABLE';
    ELSIF TG_TAG = 'ALTER TYPE' THEN
        -- A composite type is known by its relation, or by the type.
        SELECT array_agg(DISTINCT t.relation) INTO changed
        FROM pg_event_trigger_ddl_commands() d LEFT JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
        CROSS JOIN LATERAL sea_mq.tables_with_type(CASE WHEN d.classid = 'pg_type'::regclass THEN d.objid ELSE c.reltype END) t (relation);
    ELSE
        SELECT array_agg(DISTINCT d.objid) INTO changed FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass;
    END IF;
    SELECT array_agg(DISTINCT c.root ORDER BY c.root) INTO roots
    FROM (SELECT sea_mq.capture_root(r) AS root FROM unnest(changed) r) c WHERE c.root IS NOT NULL;
    FOREACH root IN ARRAY coalesce(roots, '{}') LOOP
        PERFORM sea_mq.follow_table(root);
    END LOOP;
    -- Partitions that were detached: from one of these tables, or one of them itself.
    IF TG_TAG = 'ALTER TABLE' AND (roots IS NOT NULL OR EXISTS (SELECT FROM pg_trigger t
        WHERE t.tgrelid = ANY (changed) AND t.tgfoid = 'sea_mq.capture'::regproc))
    THEN
        PERFORM sea_mq.install_capture(ARRAY(SELECT DISTINCT t.tgrelid FROM pg_depend d JOIN pg_trigger t ON t.oid = d.objid
            WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = 'sea_mq.capture'::regproc AND d.classid = 'pg_trigger'::regclass
                AND sea_mq.capture_root(t.tgrelid) IS NULL));
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.follow_ddl IS 'Event trigger function: captures follow their tables';

CREATE EVENT TRIGGER sea_mq_capture ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE FOREIGN TABLE', 'ALTER TABLE', 'ALTER TYPE')
EXECUTE FUNCTION sea_mq.follow_ddl();
CREATE EVENT TRIGGER sea_mq_capture_drop ON sql_drop EXECUTE FUNCTION sea_mq.follow_ddl();
COMMENT ON EVENT TRIGGER sea_mq_capture IS 'Captures follow their tables';
COMMENT ON EVENT TRIGGER sea_mq_capture_drop IS 'The capture of a table ends with the table';

-- Who may use it.
GRANT SELECT ON sea_mq.captured_tables TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.begin_capture, sea_mq.capture_table, sea_mq.stop_capture TO sea_mq_operator;

-- The inbound edge: a partner's messages, normalised by a registered mapping into events that keep their contract.
CREATE TABLE sea_mq.partner_mappings (
    partner text NOT NULL CHECK (partner ~ E'^[^[:space:].*>/\\\\]{1,128}$'),
    mapping text NOT NULL CHECK (mapping <> ''),
    priority integer NOT NULL,
    matches jsonpath NOT NULL,
    context text NOT NULL,
    event_type text NOT NULL,
    event_version integer NOT NULL,
    aggregate_type text NOT NULL CHECK (aggregate_type <> ''),
    aggregate_id jsonpath NOT NULL,
    message_id jsonpath NOT NULL,
    correlation_id jsonpath,
    payload jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partner, mapping)
);
COMMENT ON TABLE sea_mq.partner_mappings IS 'How partners'' messages become events; change them with register_mapping, drop_mapping';
COMMENT ON COLUMN sea_mq.partner_mappings.partner IS 'Partner';
COMMENT ON COLUMN sea_mq.partner_mappings.mapping IS 'Name of the mapping';
COMMENT ON COLUMN sea_mq.partner_mappings.priority IS 'Of several mappings that match, the one with the greater number is taken';
COMMENT ON COLUMN sea_mq.partner_mappings.matches IS 'JSON path predicate: whether a message is of this kind';
COMMENT ON COLUMN sea_mq.partner_mappings.context IS 'Context of the event';
COMMENT ON COLUMN sea_mq.partner_mappings.event_type IS 'Normalised event name';
COMMENT ON COLUMN sea_mq.partner_mappings.event_version IS 'Version of the event type';
COMMENT ON COLUMN sea_mq.partner_mappings.aggregate_type IS 'Type of the aggregate';
COMMENT ON COLUMN sea_mq.partner_mappings.aggregate_id IS 'JSON path to the aggregate''s id';
COMMENT ON COLUMN sea_mq.partner_mappings.message_id IS 'JSON path to the id by which the partner knows the message';
COMMENT ON COLUMN sea_mq.partner_mappings.correlation_id IS 'JSON path to a correlation id; NULL for none';
COMMENT ON COLUMN sea_mq.partner_mappings.payload IS 'The event''s payload, with JSON paths for values; see sea_mq.map_fields';
COMMENT ON COLUMN sea_mq.partner_mappings.updated_at IS 'When the mapping changed last';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.partner_mappings', '');

CREATE FUNCTION sea_mq.map_fields(template jsonb, signal jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    word text := template #>> '{}';
BEGIN
    CASE jsonb_typeof(template)
    WHEN 'string' THEN
        RETURN CASE WHEN word LIKE '$$%' THEN to_jsonb(substr(word, 2))
            WHEN word LIKE '$%' THEN jsonb_path_query_first(signal, word::jsonpath, '{}', true)
            ELSE template END;
    WHEN 'object' THEN
        IF template ? '$array' THEN
            RETURN (SELECT coalesce(jsonb_agg(CASE WHEN template ? 'of' THEN sea_mq.map_fields(template -> 'of', e.value) ELSE e.value END
                    ORDER BY e.place), '[]')
                FROM jsonb_path_query(signal, (template ->> '$array')::jsonpath, '{}', true) WITH ORDINALITY AS e(value, place));
        END IF;
        RETURN (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
            FROM (SELECT t.key, sea_mq.map_fields(t.value, signal) AS value FROM jsonb_each(template) t) m WHERE m.value IS NOT NULL);
    WHEN 'array' THEN
        RETURN (SELECT coalesce(jsonb_agg(sea_mq.map_fields(e.value, signal) ORDER BY e.place), '[]')
            FROM jsonb_array_elements(template) WITH ORDINALITY AS e(value, place));
    ELSE
        RETURN template;
    END CASE;
END $body$;
COMMENT ON FUNCTION sea_mq.map_fields IS
'A template with its JSON paths replaced by what they find in a message: a string that begins with $ is a path, whose first value
stands for it (a member of an object is left out if there is none; $$ stands for a $); {"$array": path} is an array of all values,
{"$array": path, "of": template} of what the template makes of each. All else stands for itself. Error 42601: not a JSON path';

CREATE FUNCTION sea_mq.register_mapping(partner text, mapping text, matches jsonpath, event_type text, aggregate_type text,
    aggregate_id jsonpath, payload jsonb, message_id jsonpath DEFAULT '$.id', correlation_id jsonpath DEFAULT NULL,
    event_version integer DEFAULT 1, context text DEFAULT NULL, priority integer DEFAULT 0)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    to_context text := sea_mq.context_name(coalesce(register_mapping.context, nullif(current_setting('sea_mq.context', true), '')));
    to_type text := sea_mq.event_name(register_mapping.event_type);
BEGIN
    IF to_context IS NULL THEN
        RAISE EXCEPTION 'the context of the event is not known'
            USING ERRCODE = 'undefined_object', HINT = 'Set it for the database, ALTER DATABASE ... SET sea_mq.context = ''billing'', or pass context => ''billing''.';
    ELSIF NOT EXISTS (SELECT FROM sea_mq.event_types t
        WHERE t.context = to_context AND t.event_type = to_type AND t.version = register_mapping.event_version)
    THEN
        RAISE EXCEPTION '%.event.%.v% is not registered', to_context, to_type, register_mapping.event_version
            USING ERRCODE = 'undefined_object', HINT = 'What comes from outside is held to a contract: register it with sea_mq.register_event.';
    END IF;
    -- Every path is read once here, so that a wrong one is refused now.
    PERFORM (t.value #>> '{}')::jsonpath FROM jsonb_path_query(register_mapping.payload, 'strict $.**', '{}', true) t(value)
    WHERE jsonb_typeof(t.value) = 'string' AND t.value #>> '{}' LIKE '$%' AND t.value #>> '{}' NOT LIKE '$$%';
    INSERT INTO sea_mq.partner_mappings AS m (partner, mapping, priority, matches, context, event_type, event_version, aggregate_type,
        aggregate_id, message_id, correlation_id, payload)
    VALUES (register_mapping.partner, register_mapping.mapping, register_mapping.priority, register_mapping.matches, to_context,
        to_type, register_mapping.event_version, register_mapping.aggregate_type, register_mapping.aggregate_id,
        register_mapping.message_id, register_mapping.correlation_id, register_mapping.payload)
    ON CONFLICT ON CONSTRAINT partner_mappings_pkey DO UPDATE SET priority = excluded.priority, matches = excluded.matches, context = excluded.context,
        event_type = excluded.event_type, event_version = excluded.event_version, aggregate_type = excluded.aggregate_type,
        aggregate_id = excluded.aggregate_id, message_id = excluded.message_id, correlation_id = excluded.correlation_id,
        payload = excluded.payload, updated_at = now();
EXCEPTION
WHEN syntax_error THEN
    RAISE EXCEPTION 'the payload template has a JSON path that is none: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'As in {"total": "$.amount.value"}; a text that begins with $ is written with $$.';
WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the mapping cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'See the constraints of sea_mq.partner_mappings for the values that each part takes.';
END $body$;
COMMENT ON FUNCTION sea_mq.register_mapping IS
'Says how a kind of a partner''s messages becomes an event; a mapping of that name is replaced. matches: a JSON path predicate ($.type == "paid");
aggregate_id, message_id, correlation_id: JSON paths; payload: a template, see sea_mq.map_fields. The event type must be registered.
Errors: 22023, 42601 (not a JSON path), 42704 (no context, or not registered)';

CREATE FUNCTION sea_mq.drop_mapping(partner text, mapping text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM sea_mq.partner_mappings m WHERE m.partner = $1 AND m.mapping = $2;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'partner "%" has no mapping "%"', $1, $2
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.partner_mappings.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.drop_mapping IS 'Removes a mapping. Error 42704';

-- What becomes of a message that a mapping was found for: the event's id, or an error that is the message's fault.
CREATE FUNCTION sea_mq.emit_mapped(m sea_mq.partner_mappings, signal jsonb, event_id uuid, correlation_id text, headers jsonb)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    aggregate text := jsonb_path_query_first(signal, m.aggregate_id, '{}', true) #>> '{}';
    content jsonb := sea_mq.map_fields(m.payload, signal);
    broken text;
BEGIN
    IF aggregate IS NULL THEN
        RAISE EXCEPTION 'the message has no aggregate id at %', m.aggregate_id USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT string_agg(concat_ws(': ', nullif(v.pointer, ''), v.message), '; ') INTO broken
    FROM sea_mq.contract_violations(m.context, m.event_type, m.event_version, content) v;
    IF broken IS NOT NULL THEN
        RAISE EXCEPTION 'what mapping "%" makes of it breaks the contract of %.event.%.v%: %', m.mapping, m.context, m.event_type,
            m.event_version, broken USING ERRCODE = 'check_violation';
    END IF;
    PERFORM sea_mq.emit(m.aggregate_type, aggregate, m.event_type, content, m.event_version, m.context, event_id,
        coalesce(emit_mapped.correlation_id, jsonb_path_query_first(signal, m.correlation_id, '{}', true) #>> '{}'),
        -- What the partner's message was as a CloudEvent, the event is not.
        headers => (SELECT jsonb_object_agg(h.key, h.value) FROM jsonb_each(headers) h WHERE lower(h.key) !~ '^(ce-|content-type$)'));
END $$;
COMMENT ON FUNCTION sea_mq.emit_mapped IS 'Emits what a mapping makes of a partner''s message. Errors: 22023, 23514, 42704 and those of emit; for internal use';

CREATE FUNCTION sea_mq.mapping_for(partner text, signal jsonb) RETURNS sea_mq.partner_mappings
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.* FROM sea_mq.partner_mappings m, jsonb_path_query_first($2, m.matches, '{}', true) AS found
    -- A predicate finds true, false or null, a filter what it lets pass.
    WHERE m.partner = $1 AND found IS NOT NULL AND found NOT IN ('false', 'null')
    ORDER BY m.priority DESC, m.mapping LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.mapping_for IS 'The mapping that is taken for a partner''s message; NULL if none matches; for internal use';

-- A message is tried once: what its mapping makes of it will not be another thing the next time.
CREATE FUNCTION sea_mq.ingest_once(partner text, signal jsonb, message_id text, event_id uuid, correlation_id text, headers jsonb)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    m sea_mq.partner_mappings := sea_mq.mapping_for(ingest_once.partner, signal);
    waiting sea_mq.inbox_pending;
    own_context text := coalesce(m.context, sea_mq.context_name(nullif(current_setting('sea_mq.context', true), '')), 'ingest');
    own_subject text := own_context || '.ingest.' || ingest_once.partner;
BEGIN
    IF m.partner IS NULL THEN
        RAISE EXCEPTION 'no mapping of partner "%" matches', ingest_once.partner USING ERRCODE = 'no_data_found';
    END IF;
    PERFORM sea_mq.emit_mapped(m, signal, ingest_once.event_id, ingest_once.correlation_id, ingest_once.headers);
    PERFORM sea_mq.accept_once(ingest_once.message_id, own_context, m.event_type, signal, 'ingest:' || ingest_once.partner,
        m.event_version, own_subject, ingest_once.headers);
    RETURN true;
EXCEPTION WHEN data_exception OR no_data_found OR check_violation OR undefined_object OR program_limit_exceeded THEN
    INSERT INTO sea_mq.inbox_pending AS p (subscription, message_id, status, attempts, source_context, event_type, event_version,
        subject, payload, headers, event_at, errors)
    VALUES ('ingest:' || ingest_once.partner, ingest_once.message_id, 'processing', 1, own_context,
        coalesce(m.event_type, 'signal'), m.event_version, own_subject, signal,
        ingest_once.headers || jsonb_strip_nulls(jsonb_build_object('X-Correlation-Id', ingest_once.correlation_id)), clock_timestamp(),
        sea_mq.with_error('[]', 1, 'poison', SQLSTATE, SQLERRM, NULL))
    RETURNING p.* INTO waiting;
    PERFORM sea_mq.bury(waiting, 'poison', SQLERRM);
    RETURN false;
END $$;
COMMENT ON FUNCTION sea_mq.ingest_once IS
'Emits what a partner''s message becomes, or moves it to the dead letter queue: false. For internal use';

CREATE FUNCTION sea_mq.partner_event_id(partner text, message_id text) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    -- Version 8 of RFC 9562: the bits are ours, here those of a hash.
    SELECT (substr(h, 1, 12) || '8' || substr(h, 14, 3) || '8' || substr(h, 18, 15))::uuid
    FROM encode(sha256(convert_to($1 || chr(10) || $2, 'UTF8')), 'hex') h
$$;
COMMENT ON FUNCTION sea_mq.partner_event_id IS 'The id of the event that a partner''s message becomes; for internal use';

CREATE FUNCTION sea_mq.ingest(partner text, signal jsonb, message_id text DEFAULT NULL, correlation_id text DEFAULT NULL,
    headers jsonb DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    -- What has no id is known by its content.
    known_as text := coalesce(ingest.message_id,
        jsonb_path_query_first(signal, (sea_mq.mapping_for(ingest.partner, signal)).message_id, '{}', true) #>> '{}',
        'sha256:' || encode(sha256(convert_to(signal::text, 'UTF8')), 'hex'));
    new_id uuid := sea_mq.partner_event_id(ingest.partner, known_as);
BEGIN
    IF ingest.partner IS NULL OR signal IS NULL THEN
        RAISE EXCEPTION 'partner and signal must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.ingest(''acme'', ''{"id": "4711", "type": "paid"}'').';
    ELSIF ingest.partner !~ E'^[^[:space:].*>/\\\\]{1,128}$' THEN
        RAISE EXCEPTION 'partner "%" is not a name', ingest.partner
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is one token of a NATS subject: letters, digits, "_" and "-".';
    END IF;
    -- Whoever ingests the same message waits here, so that the second finds what became of the first.
    PERFORM pg_advisory_xact_lock(hashtextextended('sea_mq.ingest ' || ingest.partner || ' ' || known_as, 0));
    IF sea_mq.inbox_holds(known_as, 'ingest:' || ingest.partner) THEN
        RETURN (SELECT new_id FROM sea_mq.inbox_messages i
            WHERE i.message_id = known_as AND i.subscription = 'ingest:' || ingest.partner AND i.status = 'processed');
    END IF;
    RETURN CASE WHEN sea_mq.ingest_once(ingest.partner, signal, known_as, new_id, ingest.correlation_id, coalesce(ingest.headers, '{}')
        || jsonb_build_object('X-Partner', sea_mq.header_value(ingest.partner), 'X-Partner-Message-Id', sea_mq.header_value(known_as)))
        THEN new_id END;
END $$;
COMMENT ON FUNCTION sea_mq.ingest IS
'Takes a partner''s message in the current transaction: the mapping that matches makes an event of it, which is checked against its
contract (whatever sea_mq.contracts says) and emitted. Returns the event''s id, the same for the same message each time, and NULL for
a message that went to the dead letter queue: no mapping matches, or what it makes of the message cannot be emitted. There it can be
fixed and replayed. message_id: the partner''s id of the message; NULL: what the mapping finds, else a hash of the content; known
for as long as the inbox is retained. Errors: 22004, 22023';

-- Who may use it.
GRANT SELECT ON sea_mq.partner_mappings TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.ingest TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.map_fields TO sea_mq_producer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.register_mapping, sea_mq.drop_mapping TO sea_mq_operator;

-- What may leave: the one way in which an event is made fit for those outside, whatever it leaves by.

-- Dumped with the database, so that a value keeps its hash.
CREATE TABLE sea_mq.edge_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key bytea NOT NULL CHECK (length(key) >= 32)
);
COMMENT ON TABLE sea_mq.edge_key IS 'The secret of the keyed hashes that sea_mq.external_view gives; one row, part of a dump';
COMMENT ON COLUMN sea_mq.edge_key.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.edge_key.key IS 'At least 32 random bytes; with another one, the same values have other hashes';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.edge_key', '');

CREATE FUNCTION sea_mq.hmac_sha256(key bytea, value text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'hmac_sha256_wrapper';
COMMENT ON FUNCTION sea_mq.hmac_sha256 IS 'HMAC-SHA-256 (RFC 2104) in hexadecimal';

CREATE FUNCTION sea_mq.sensitive_places(context text, event_type text, event_version integer, payload jsonb,
    OUT path text[], OUT treatment text)
RETURNS SETOF record LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'sensitive_places_wrapper';
COMMENT ON FUNCTION sea_mq.sensitive_places IS
'The places of a payload that its contract marks with "x-sea-sensitive", and what is done with them: strip or hash. No row if the
type is not registered. Those of an array come last element first. Errors: 22023';

-- The key is made when it is first needed: not by CREATE EXTENSION, whose rows a restored dump would collide with.
CREATE FUNCTION sea_mq.keyed_hash(value text) RETURNS text
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    secret bytea := (SELECT k.key FROM sea_mq.edge_key k);
BEGIN
    IF secret IS NULL THEN
        INSERT INTO sea_mq.edge_key (key)
        SELECT decode(replace(string_agg(gen_random_uuid()::text, ''), '-', ''), 'hex') FROM generate_series(1, 4)
        ON CONFLICT DO NOTHING;
        secret := (SELECT k.key FROM sea_mq.edge_key k);
    END IF;
    RETURN 'hmac-sha256:' || sea_mq.hmac_sha256(secret, value);
END $$;
COMMENT ON FUNCTION sea_mq.keyed_hash IS 'What stands outside for a value: equal for equal values, and not to be guessed without sea_mq.edge_key';

CREATE FUNCTION sea_mq.external_payload(context text, event_type text, event_version integer, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place record;
BEGIN
    FOR place IN SELECT * FROM sea_mq.sensitive_places($1, $2, $3, $4) LOOP
        payload := CASE
            WHEN place.treatment = 'hash' AND place.path = '{}' THEN to_jsonb(sea_mq.keyed_hash(payload::text))
            WHEN place.treatment = 'hash' THEN jsonb_set(payload, place.path,
                coalesce(to_jsonb(sea_mq.keyed_hash(payload #>> place.path)), 'null'))
            WHEN place.path = '{}' THEN 'null'
            ELSE payload #- place.path END;
    END LOOP;
    RETURN payload;
END $$;
COMMENT ON FUNCTION sea_mq.external_payload IS 'A payload without what its contract calls sensitive; for internal use';

-- Headers that say where inside an event comes from and what happened to it there.
CREATE FUNCTION sea_mq.external_headers(headers jsonb) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(h.key, CASE WHEN lower(h.key) IN ('x-correlation-id', 'ce-correlationid')
        THEN to_jsonb(sea_mq.keyed_hash(h.value #>> '{}')) ELSE h.value END), '{}')
    FROM jsonb_each($1) h
    WHERE lower(h.key) NOT IN ('traceparent', 'tracestate', 'baggage', 'x-causation-id', 'ce-causationid', 'x-subscription', 'x-error', 'x-errors')
        AND lower(h.key) !~ '^(nats-|x-sea-|x-repl|x-original-|x-partner|x-fail|x-first-failed|x-last-failed|ce-visibility$)'
$$;
COMMENT ON FUNCTION sea_mq.external_headers IS 'Headers without provenance, the correlation id as a keyed hash; for internal use';

CREATE FUNCTION sea_mq.external_view(event sea_mq.event, audience text DEFAULT 'partner') RETURNS sea_mq.event
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    audiences CONSTANT text[] := '{sensitive,internal,partner,public}';
    reach integer := array_position(audiences, audience);
BEGIN
    IF reach IS NULL THEN
        RAISE EXCEPTION 'audience "%" is not known', audience
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use public, partner, internal or sensitive.';
    END IF;
    IF event IS NULL OR coalesce(array_position(audiences, event.visibility), 1) < reach THEN
        RETURN NULL;
    END IF;
    IF audience <> 'sensitive' THEN
        event.payload := sea_mq.external_payload(event.source_context, event.event_type, event.event_version, event.payload);
    END IF;
    IF event.headers IS DISTINCT FROM '{}' THEN
        event.headers := sea_mq.external_headers(event.headers);
    END IF;
    event.correlation_id := sea_mq_inside.keyed_hash(event.correlation_id);
    event.causation_id := NULL;
    event.subscription := NULL;
    event.attempt := NULL;
    event.stream_seq := NULL;
    RETURN event;
END $$;
COMMENT ON FUNCTION sea_mq.external_view IS
'An event as those outside may see it; NULL if its visibility does not reach the audience (public, partner, internal or sensitive; an
event without visibility is taken as sensitive). Fields that its contract marks with "x-sea-sensitive" are left out, or hashed with a
key of this database ("hash"); so is the correlation id; provenance (causation, trace, delivery, replay and failure headers, stream
sequence) is left out. Every edge by which events leave calls this. Error 22023: audience';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.external_view TO sea_mq_consumer, sea_mq_operator;

-- For callers who must know, and for operators.

CREATE FUNCTION sea_mq.publication(event_id text, OUT state text, OUT error text, OUT available_at text)
RETURNS SETOF record LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT CASE WHEN f.error IS NOT NULL THEN 'failed' WHEN e.passed THEN 'published' WHEN e.seq IS NULL THEN 'scheduled'
            ELSE 'waiting' END, f.error, sea_mq.header_time(e.available_at)
    FROM (SELECT l.seq, l.passed, l.available_at FROM sea_mq.fate_of($1::uuid) l
        UNION ALL SELECT NULL, false, h.available_at FROM sea_mq.scheduled_events h WHERE h.id = $1::uuid) e
    LEFT JOIN sea_mq.publish_failures f ON f.event_id = $1::uuid AND f.seq = e.seq
    ORDER BY e.seq DESC NULLS LAST LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.publication IS 'What became of an event: failed, published, scheduled or waiting; for internal use';

CREATE FUNCTION sea_mq.publication_now(event_id uuid, OUT state text, OUT error text, OUT available_at text)
RETURNS SETOF record LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'publication_now_wrapper';
COMMENT ON FUNCTION sea_mq.publication_now IS
'As sea_mq.publication, as of now and not as of the transaction''s snapshot; or unconfigured (no broker), pending (emitted by this
transaction); no row for an event that is not known; for internal use';

CREATE FUNCTION sea_mq.wait_published(event_id uuid, timeout interval DEFAULT '10 s') RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deadline timestamptz;
    pause double precision := 0.001;
    found record;
BEGIN
    IF wait_published.event_id IS NULL OR timeout IS NULL THEN
        RAISE EXCEPTION 'event_id and timeout must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.wait_published(id, ''5 s'').';
    ELSIF timeout > '1 day' THEN
        RAISE EXCEPTION 'timeout must be a day at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in sea_mq.wait_published(id, ''5 s''); the transaction keeps its snapshot as long as it waits.';
    END IF;
    deadline := clock_timestamp() + greatest(timeout, '0');
    LOOP
        SELECT p.* INTO found FROM sea_mq.publication_now(wait_published.event_id) p;
        CASE coalesce(found.state, 'unknown')
        WHEN 'published' THEN
            RETURN true;
        WHEN 'waiting' THEN
            NULL;
        WHEN 'scheduled' THEN
            IF found.available_at::timestamptz > deadline THEN
                RAISE EXCEPTION 'event % is held back until %', wait_published.event_id, found.available_at
                    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Wait for it after that time, or longer.';
            END IF;
        WHEN 'failed' THEN
            RAISE EXCEPTION 'the broker will not take event %: %', wait_published.event_id, found.error
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Fix what it says, then see sea_mq.retry_failed.';
        WHEN 'pending' THEN
            RAISE EXCEPTION 'event % was emitted by this transaction, which has not committed', wait_published.event_id
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Commit first: nothing is published before.';
        WHEN 'unconfigured' THEN
            RAISE EXCEPTION 'there is no broker to publish to'
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set sea_mq.nats_url.';
        ELSE
            RAISE EXCEPTION 'event % is not known', wait_published.event_id
                USING ERRCODE = 'undefined_object', HINT = 'It is known once it has committed, and for as long as it is retained (sea_mq.retention).';
        END CASE;
        IF clock_timestamp() >= deadline THEN
            RETURN false;
        END IF;
        PERFORM pg_sleep(least(pause, extract(epoch FROM deadline - clock_timestamp())));
        pause := least(pause * 1.5, 0.02);
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.wait_published IS
'Waits until the stream has stored an event: true, or false when the time is over. Call it after the commit, in a transaction of its
own, since it keeps that one''s snapshot as long as it waits. Errors: 22004, 22023 (more than a day), 42704 (not known), 55000 (emitted by this transaction,
held back for longer, refused by the broker for good, or no broker)';

-- An event that the broker will never take as it is: kept whole, and listed among the dead letters.
CREATE FUNCTION sea_mq.set_aside(event_id uuid, seq bigint, sink bigint, error text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    l sea_mq.outbox_log;
BEGIN
    SELECT o.* INTO l FROM sea_mq.outbox_log o WHERE o.id = set_aside.event_id AND o.seq = set_aside.seq LIMIT 1;
    INSERT INTO sea_mq.publish_failures AS f (event_id, seq, sink, attempts, error, failed_at, event)
    VALUES (set_aside.event_id, set_aside.seq, set_aside.sink, 1, set_aside.error, clock_timestamp(), to_jsonb(l))
    ON CONFLICT ON CONSTRAINT publish_failures_pkey DO UPDATE
        SET attempts = f.attempts + 1, error = excluded.error, failed_at = excluded.failed_at;
    -- A dead letter that does not fit has its row there already.
    INSERT INTO sea_mq.dlq_messages (context, original_subject, message_id, source_context, event_type, event_version, aggregate_type,
        aggregate_id, payload, headers, reason, failure_count, error, first_failed_at, last_failed_at, dlq_message_id)
    SELECT l.context, coalesce(l.subject, concat_ws('.', l.context, 'event', l.event_type, 'v' || l.event_version)), l.id::text, l.context,
        l.event_type, l.event_version, l.aggregate_type, l.aggregate_id, l.payload::jsonb,
        coalesce(l.headers::jsonb, '{}') || jsonb_strip_nulls(jsonb_build_object('X-Correlation-Id', coalesce(l.correlation_id, l.id::text),
            'X-Causation-Id', l.causation_id, 'X-Sea-Visibility', l.visibility)),
        'unpublishable', 1, left(set_aside.error, 2000), clock_timestamp(), clock_timestamp(), 'unpublishable:' || l.id || ':' || l.seq
    WHERE l.id IS NOT NULL AND set_aside.sink = sea_mq.sink_id(l.context, 'event')
    ON CONFLICT ON CONSTRAINT dlq_messages_dlq_message_id_key DO NOTHING;
END $$;
COMMENT ON FUNCTION sea_mq.set_aside IS 'Notes that the broker will never take an event as it is; for internal use';

CREATE FUNCTION sea_mq.learn_limits() RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'learn_limits_wrapper';
COMMENT ON FUNCTION sea_mq.learn_limits IS 'Has the relay ask for the broker''s limit of a message once more, and waits up to 5 s for that; for internal use';

CREATE FUNCTION sea_mq.retry_failed(event_id uuid DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    f sea_mq.publish_failures;
    e sea_mq.outbox_log;
    kind text;
    retried bigint := 0;
BEGIN
    -- What was raised in NATS since the relay has connected.
    PERFORM sea_mq.learn_limits()
    WHERE EXISTS (SELECT FROM sea_mq.publish_failures p WHERE p.resolved_at IS NULL);
    FOR f IN SELECT p.* FROM sea_mq.publish_failures p
        WHERE p.resolved_at IS NULL AND (retry_failed.event_id IS NULL OR p.event_id = retry_failed.event_id) ORDER BY p.seq FOR UPDATE
    LOOP
        e := jsonb_populate_record(NULL::sea_mq.outbox_log, f.event);
        kind := CASE f.sink WHEN sea_mq.sink_id(e.context, 'event') THEN 'event' ELSE 'dlq' END;
        IF NOT sea_mq.emit_raw(kind, e.context, coalesce(e.subject, concat_ws('.', e.context, 'event', e.event_type, 'v' || e.event_version)),
            e.id, e.event_type, e.event_version, e.aggregate_type, e.aggregate_id, e.payload::jsonb, e.headers::jsonb, e.correlation_id,
            e.causation_id, e.visibility, e.created_at)
        THEN
            CONTINUE WHEN retry_failed.event_id IS NULL;
            RAISE EXCEPTION 'event % is still too large: %', f.event_id, f.error
                USING ERRCODE = 'program_limit_exceeded', HINT = 'Raise the limit that it names, or replay it with a smaller payload: sea_mq.dlq_replay.';
        END IF;
        UPDATE sea_mq.publish_failures p SET resolved_at = clock_timestamp() WHERE p.event_id = f.event_id AND p.seq = f.seq;
        UPDATE sea_mq.dlq_messages d SET replayed_at = clock_timestamp(), replay_event_id = f.event_id,
            replayed_by = sea_mq.caller_name(), actor = sea_mq.actor()
        WHERE d.dlq_message_id = 'unpublishable:' || f.event_id || ':' || f.seq AND d.replayed_at IS NULL AND d.discarded_at IS NULL;
        retried := retried + 1;
    END LOOP;
    IF retried = 0 AND retry_failed.event_id IS NOT NULL THEN
        RAISE EXCEPTION 'event % was not refused by the broker, or something was decided about it already', retry_failed.event_id
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.publish_failures and sea_mq.dlq_list().';
    END IF;
    RETURN retried;
END $$;
COMMENT ON FUNCTION sea_mq.retry_failed IS
'Sends an event that the broker had refused for a reason of its own once more, under its id, behind what was emitted since; NULL: all
of them that fit the present limits. Returns how many. Errors: 42704 (nothing to be tried again), 54000 (it is still too large)';

-- What the relay has found for the session that waits in verify_stream. Of use to nobody after a crash.
CREATE UNLOGGED TABLE sea_mq.stream_findings (
    kind text NOT NULL,
    event_id uuid,
    seq bigint,
    stream_seq bigint,
    detail text NOT NULL,
    hint text
);
COMMENT ON TABLE sea_mq.stream_findings IS 'What sea_mq.verify_stream found last; written by the relay';
COMMENT ON COLUMN sea_mq.stream_findings.kind IS 'missing, doubled, reordered, changed or foreign; trouble: it could not be found out';
COMMENT ON COLUMN sea_mq.stream_findings.event_id IS 'The event';
COMMENT ON COLUMN sea_mq.stream_findings.seq IS 'Its place in the log';
COMMENT ON COLUMN sea_mq.stream_findings.stream_seq IS 'Stream sequence of the message; NULL: there is none';
COMMENT ON COLUMN sea_mq.stream_findings.detail IS 'What else there is to say';
COMMENT ON COLUMN sea_mq.stream_findings.hint IS 'What to do about trouble';

CREATE FUNCTION sea_mq.lasting_stream(stream text) RETURNS sea_mq.streams
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s sea_mq.streams;
BEGIN
    IF stream IS NULL THEN
        RAISE EXCEPTION 'stream must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Pass the name of a stream, as in ''ORDERS_EVENTS''.';
    END IF;
    SELECT t.* INTO s FROM sea_mq.streams t WHERE t.name = lasting_stream.stream;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no stream "%"', stream
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.streams.';
    END IF;
    IF s.kind <> 'event' OR s.retention <> 'limits' THEN
        RAISE EXCEPTION 'stream "%" does not keep what was published', stream
            USING ERRCODE = 'feature_not_supported', HINT = CASE s.kind
                WHEN 'dlq' THEN 'Dead letters are removed when something is decided about them: see sea_mq.dlq_list().'
                ELSE 'With the retention interest or workqueue, messages are removed when they are acknowledged.' END;
    END IF;
    RETURN s;
END $$;
COMMENT ON FUNCTION sea_mq.lasting_stream IS
'The description of a stream in which what was published stays until it is old; errors: 22004, 42704, 0A000. For internal use';

CREATE FUNCTION sea_mq.compare_stream(
    sink bigint, OUT kind text, OUT event_id uuid, OUT seq bigint, OUT stream_seq bigint, OUT detail text)
RETURNS SETOF record LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'compare_stream_wrapper';
COMMENT ON FUNCTION sea_mq.compare_stream IS 'Lets the relay compare a stream with the log, and waits for what it finds; for internal use';

CREATE FUNCTION sea_mq.verify_stream(stream text)
RETURNS TABLE (kind text, event_id uuid, seq bigint, stream_seq bigint, detail text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.* FROM sea_mq.lasting_stream($1) s, sea_mq.compare_stream(s.sink) c
$$;
COMMENT ON FUNCTION sea_mq.verify_stream IS
'Compares what is retained and published with what the stream holds, a row per difference: missing, doubled, reordered, changed
(subject or payload) or foreign (of somebody else). What the stream''s limits have removed is not missing. The relay does it beside
its work; it can take minutes. Errors: 22004, 42704 (no such stream), 0A000 (the stream does not keep what was published), 55000 (no
relay, no broker, or the stream is not ready within 5 seconds)';

CREATE TABLE sea_mq.republish_requests (
    sink bigint PRIMARY KEY REFERENCES sea_mq.streams (sink) ON DELETE CASCADE,
    from_seq bigint NOT NULL
);
COMMENT ON TABLE sea_mq.republish_requests IS 'Streams that the relay is still to begin to refill (sea_mq.republish); normally empty';
COMMENT ON COLUMN sea_mq.republish_requests.sink IS 'The stream''s sink';
COMMENT ON COLUMN sea_mq.republish_requests.from_seq IS 'From which place in the log on';

CREATE FUNCTION sea_mq.republish(stream text, from_time timestamptz DEFAULT NULL, from_seq bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s sea_mq.streams := sea_mq.lasting_stream(stream);
    found record;
BEGIN
    IF from_time IS NOT NULL AND from_seq IS NOT NULL THEN
        RAISE EXCEPTION 'from_time and from_seq are two ways to say the same'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass one of them, or none for all that is retained.';
    END IF;
    IF from_seq < 1 OR from_time > now() THEN
        RAISE EXCEPTION 'nothing was published there'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a time in the past, or a seq as in sea_mq.outbox_events.';
    END IF;
    IF NOT sea_mq.has_broker() THEN
        RAISE EXCEPTION 'there is no broker to publish to'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set sea_mq.nats_url.';
    END IF;
    -- What is published, as of the cursor last saved; the rest comes by itself.
    SELECT count(*) AS events, min(l.seq) AS first INTO found
    FROM sea_mq.outbox_log l JOIN sea_mq.cursors c ON c.reader_kind = 'stream' AND c.reader = l.sink
    WHERE l.sink = s.sink AND l.seq >= coalesce(from_seq, 1)
        AND (from_time IS NULL OR greatest(l.created_at, l.available_at) >= from_time)
        AND (pg_visible_in_snapshot(l.xid, c.done)
            OR (c.batch_upto IS NOT NULL AND l.seq <= c.batch_at AND pg_visible_in_snapshot(l.xid, c.batch_upto)));
    IF found.events > 0 THEN
        INSERT INTO sea_mq.republish_requests AS r (sink, from_seq) VALUES (s.sink, found.first)
        ON CONFLICT ON CONSTRAINT republish_requests_pkey DO UPDATE SET from_seq = least(r.from_seq, excluded.from_seq);
        PERFORM sea_mq.wake_at_commit();
    END IF;
    RETURN found.events;
END $$;
COMMENT ON FUNCTION sea_mq.republish IS
'Refills a stream from the log: what is retained from a time or a place on and is not in the stream is published once more, in order,
behind what is there. Returns how many events are to be looked at; the relay does so after the commit. Errors: 22004, 22023, 42704
(no such stream), 0A000 (the stream does not keep what was published), 55000 (no broker)';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.retry_failed, sea_mq.verify_stream, sea_mq.republish TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.publication_now, sea_mq.wait_published TO sea_mq_producer, sea_mq_operator, sea_mq_monitor;

-- What is looked at and decided page by page: by programs that show it, and that can be interrupted between two pages.

CREATE FUNCTION sea_mq.check_page(max integer, most integer) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF max IS NULL OR max NOT BETWEEN 1 AND most THEN
        RAISE EXCEPTION 'max must be between 1 and %', most
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Ask for the next page with the place of the last row.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_page IS 'Refuses a page that is empty or too large (22023); for internal use';

CREATE TYPE sea_mq.dead_letter AS (id bigint, state text, context text, original_subject text, subscription text, message_id text, source_context text,
    event_type text, event_version integer, aggregate_type text, aggregate_id text, reason text, failure_count integer, error text,
    first_failed_at timestamptz, last_failed_at timestamptz, created_at timestamptz, replayed_at timestamptz, replay_event_id uuid,
    replayed_by name, discarded_at timestamptz, discard_reason text, discarded_by name, actor text);
COMMENT ON TYPE sea_mq.dead_letter IS 'A row of sea_mq.dlq_page: a dead letter without payload, headers and history';

CREATE FUNCTION sea_mq.dlq_page(context text DEFAULT NULL, subscription text DEFAULT NULL, event_type text DEFAULT NULL,
    error text DEFAULT NULL, older_than interval DEFAULT NULL, replayed boolean DEFAULT false, after_id bigint DEFAULT NULL,
    descending boolean DEFAULT false, max integer DEFAULT 50)
RETURNS SETOF sea_mq.dead_letter
-- Each way to ask has a text of its own: an index is chosen by its condition and by its order.
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $body$
BEGIN
    PERFORM sea_mq.check_page(dlq_page.max, 1000);
    RETURN QUERY EXECUTE
        'SELECT d.id, CASE WHEN d.replayed_at IS NOT NULL THEN ''replayed'' WHEN d.discarded_at IS NOT NULL THEN ''discarded'' ELSE ''open'' END,
            d.context, d.original_subject, d.subscription, d.message_id, d.source_context, d.event_type, d.event_version,
            d.aggregate_type, d.aggregate_id, d.reason, d.failure_count, d.error, d.first_failed_at, d.last_failed_at, d.created_at,
            d.replayed_at, d.replay_event_id, d.replayed_by, d.discarded_at, d.discard_reason, d.discarded_by, d.actor
        FROM sea_mq.dlq_messages d WHERE true'
        || CASE WHEN dlq_page.replayed THEN ' AND d.replayed_at IS NOT NULL'
            WHEN NOT dlq_page.replayed THEN ' AND d.replayed_at IS NULL AND d.discarded_at IS NULL' ELSE '' END
        || CASE WHEN dlq_page.context IS NULL THEN '' ELSE ' AND d.context = $1' END
        || CASE WHEN dlq_page.subscription IS NULL THEN '' ELSE ' AND coalesce(d.subscription, '''') = $2' END
        || CASE WHEN dlq_page.event_type IS NULL THEN '' ELSE ' AND d.event_type = $3' END
        || CASE WHEN dlq_page.error IS NULL THEN '' ELSE ' AND d.error ILIKE ''%'' || $4 || ''%''' END
        || CASE WHEN dlq_page.older_than IS NULL THEN '' ELSE ' AND d.last_failed_at < now() - greatest(least($5, ''1000 years''), ''-1000 years'')' END
        || CASE WHEN dlq_page.after_id IS NULL THEN '' WHEN dlq_page.descending THEN ' AND d.id < $6' ELSE ' AND d.id > $6' END
        || CASE WHEN dlq_page.descending THEN ' ORDER BY d.id DESC' ELSE ' ORDER BY d.id' END || ' LIMIT $7'
    USING sea_mq.context_name(dlq_page.context), dlq_page.subscription, sea_mq.event_name(dlq_page.event_type), dlq_page.error,
        dlq_page.older_than, dlq_page.after_id, dlq_page.max;
END $body$;
COMMENT ON FUNCTION sea_mq.dlq_page IS
'A page of dead letters without payloads, headers and history, for the filters of dlq_list: those behind after_id, in its order or
(descending) against it. Errors: 22023 (max is not between 1 and 1,000)';

CREATE FUNCTION sea_mq.dlq_replay_batch(context text DEFAULT NULL, subscription text DEFAULT NULL, event_type text DEFAULT NULL,
    error text DEFAULT NULL, older_than interval DEFAULT NULL, ids bigint[] DEFAULT NULL, after_id bigint DEFAULT NULL,
    max integer DEFAULT 500)
RETURNS TABLE (id bigint, replay_event_id uuid, sqlstate text, error_text text, hint text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $body$
DECLARE
    chosen bigint[];
    state text;
    words text;
    advice text;
BEGIN
    PERFORM sea_mq.check_page(dlq_replay_batch.max, 500);
    IF dlq_replay_batch.ids IS NOT NULL AND num_nonnulls(dlq_replay_batch.context, dlq_replay_batch.subscription,
        dlq_replay_batch.event_type, dlq_replay_batch.error, dlq_replay_batch.older_than) > 0
    THEN
        RAISE EXCEPTION 'ids and filters are two ways to say which'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass one of them.';
    END IF;
    IF dlq_replay_batch.ids IS NOT NULL THEN
        chosen := ARRAY(SELECT DISTINCT i.id FROM unnest(dlq_replay_batch.ids) i(id)
            WHERE i.id > coalesce(dlq_replay_batch.after_id, -9223372036854775808) ORDER BY i.id LIMIT dlq_replay_batch.max);
    ELSE
        chosen := ARRAY(SELECT p.id FROM sea_mq.dlq_page(dlq_replay_batch.context, dlq_replay_batch.subscription,
            dlq_replay_batch.event_type, dlq_replay_batch.error, dlq_replay_batch.older_than, false, dlq_replay_batch.after_id, false,
            dlq_replay_batch.max) p ORDER BY p.id);
    END IF;
    FOREACH id IN ARRAY chosen LOOP
        -- In the handler, sqlstate is plpgsql's own.
        state := NULL; words := NULL; advice := NULL;
        BEGIN
            replay_event_id := sea_mq.dlq_replay(dlq_replay_batch.id);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, words = MESSAGE_TEXT, advice = PG_EXCEPTION_HINT;
            -- These are not the letter's: the whole page is tried again.
            IF state LIKE '40%' OR state LIKE '57%' OR state LIKE '53%' THEN
                RAISE;
            END IF;
            replay_event_id := NULL;
        END;
        sqlstate := state; error_text := words; hint := nullif(advice, '');
        RETURN NEXT;
    END LOOP;
END $body$;
COMMENT ON FUNCTION sea_mq.dlq_replay_batch IS
'Replays a page of dead letters, those of the filters of dlq_list or of ids, behind after_id, each in a savepoint of its own: a row for
each, with the message id of the replay or with SQLSTATE, error and hint. The last id is the next page''s after_id. Errors: 22023 (max
is not between 1 and 500, or both ids and filters)';

CREATE TYPE sea_mq.stored_event AS (stream_seq bigint, id uuid, seq bigint, context text, aggregate_type text, aggregate_id text, event_type text,
    event_version integer, subject text, payload jsonb, headers jsonb, correlation_id text, causation_id text, visibility text,
    created_at timestamptz, published_at timestamptz);
COMMENT ON TYPE sea_mq.stored_event IS 'A row of sea_mq.events_after: an event in its place in a stream';

-- What events_after and traced_events are made of. Without payloads it does not read what of them is stored elsewhere.
CREATE FUNCTION sea_mq.stored_after(stream text, after_seq bigint, max integer, with_payload boolean)
RETURNS TABLE (stream_seq bigint, id uuid, seq bigint, xid xid8, context text, aggregate_type text, aggregate_id text, event_type text,
    event_version integer, subject text, payload json, headers json, correlation_id text, causation_id text, visibility text,
    created_at timestamptz, available_at timestamptz, published_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $body$
#variable_conflict use_column
DECLARE
    of_sink bigint;
    run sea_mq.relay_journal;
    left_over integer := stored_after.max;
    found_rows bigint;
BEGIN
    PERFORM sea_mq.check_page(stored_after.max, 1000);
    SELECT s.sink INTO of_sink FROM sea_mq.streams s WHERE s.name = $1;
    IF of_sink IS NULL THEN
        RAISE EXCEPTION 'there is no stream "%"', $1
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.streams.';
    END IF;
    FOR run IN
        SELECT j.* FROM sea_mq.relay_journal j
        WHERE j.sink = of_sink AND j.first_stream_seq >= coalesce(
            (SELECT b.first_stream_seq FROM sea_mq.relay_journal b WHERE b.sink = of_sink AND b.first_stream_seq <= coalesce($2, 0) + 1
                ORDER BY b.first_stream_seq DESC LIMIT 1), 0)
        ORDER BY j.first_stream_seq
    LOOP
        CONTINUE WHEN run.first_stream_seq + run.events <= coalesce($2, 0) + 1;
        -- Counted from the end: what retention has removed of a run is its beginning.
        RETURN QUERY
        SELECT run.first_stream_seq + run.events - e.behind, e.id, e.seq, e.xid, e.context, e.aggregate_type, e.aggregate_id, e.event_type,
            e.event_version, coalesce(e.subject, e.context || '.event.' || e.event_type || '.v' || e.event_version),
            CASE WHEN $4 THEN e.payload END, e.headers, coalesce(e.correlation_id, e.id::text), e.causation_id, e.visibility,
            e.created_at, e.available_at, run.published_at
        FROM (SELECT o.*, row_number() OVER (ORDER BY o.seq DESC) AS behind FROM sea_mq.outbox_log o
            WHERE o.sink = of_sink AND o.seq BETWEEN run.first_seq AND run.last_seq
                AND pg_visible_in_snapshot(o.xid, run.upto) AND NOT pg_visible_in_snapshot(o.xid, run.done)) e
        WHERE run.first_stream_seq + run.events - e.behind > coalesce($2, 0)
        ORDER BY e.seq LIMIT left_over;
        GET DIAGNOSTICS found_rows = ROW_COUNT;
        left_over := left_over - found_rows;
        EXIT WHEN left_over <= 0;
    END LOOP;
END $body$;
COMMENT ON FUNCTION sea_mq.stored_after IS
'What sea_mq.events_after and sea_mq.traced_events are made of; for internal use';

CREATE FUNCTION sea_mq.events_after(stream text, stream_seq bigint DEFAULT 0, max integer DEFAULT 100)
RETURNS SETOF sea_mq.stored_event
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT s.stream_seq, s.id, s.seq, s.context, s.aggregate_type, s.aggregate_id, s.event_type, s.event_version, s.subject,
        s.payload::jsonb, s.headers::jsonb, s.correlation_id, s.causation_id, s.visibility, s.created_at, s.published_at
    FROM sea_mq.stored_after($1, $2, $3, true) s
$$;
COMMENT ON FUNCTION sea_mq.events_after IS
'The events that a stream has stored behind a sequence, in the stream''s order, as far as the log retains them; stream_seq of the last
row asks for the next ones. Errors: 22023 (max is not between 1 and 1,000), 42704 (no such stream)';

CREATE FUNCTION sea_mq.masked_payload(context text, event_type text, event_version integer, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place record;
BEGIN
    IF num_nulls(context, event_type, event_version, payload) > 0 THEN
        RETURN payload;
    END IF;
    FOR place IN SELECT * FROM sea_mq.sensitive_places($1, $2, $3, $4) LOOP
        payload := CASE WHEN place.path = '{}' THEN '"***"' ELSE jsonb_set(payload, place.path, '"***"') END;
    END LOOP;
    RETURN payload;
EXCEPTION WHEN invalid_parameter_value THEN
    -- What cannot be decided is sensitive.
    RETURN '"***"';
END $$;
COMMENT ON FUNCTION sea_mq.masked_payload IS
'A payload as people look at it: what its contract marks with "x-sea-sensitive" stands as "***". A payload without a contract stands
as it is';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.dlq_page, sea_mq.events_after, sea_mq.masked_payload TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_replay_batch TO sea_mq_operator;

-- Metrics: defined here and nowhere else. `sea-mq serve`, sql_exporter and psql all read this.

CREATE FUNCTION sea_mq.latency_metrics(OUT name text, OUT bound double precision, OUT value double precision) RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'latency_metrics_wrapper';
COMMENT ON FUNCTION sea_mq.latency_metrics IS
'The histograms of this database''s workers since the server started: how many took bound seconds at most (infinity: how many there
were; NULL: their sum); for internal use';

CREATE FUNCTION sea_mq.metrics() RETURNS TABLE (name text, type text, help text, labels jsonb, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT 'sea_mq_info', 'gauge', 'Version of the extension; always 1', jsonb_build_object('version', e.extversion), 1
    FROM pg_extension e WHERE e.extname = 'sea_mq'
    UNION ALL
    SELECT 'sea_mq_problems', 'gauge', 'Rows of sea_mq.problems', '{}', count(*) FROM sea_mq.problems
    UNION ALL
    SELECT m.name, 'gauge', m.help, '{}', m.value
    FROM sea_mq.relay_status r CROSS JOIN LATERAL (VALUES
        ('sea_mq_relay_running', 'Whether the relay''s process is there', r.running::integer),
        ('sea_mq_relay_connected', 'Whether the relay is connected to the broker, or rests since it has nothing to do',
            (r.running AND r.state = 'connected' OR r.state = 'idle')::integer),
        ('sea_mq_relay_connection_failures', 'Failed connection attempts in a row', CASE WHEN r.running THEN coalesce(r.failures, 0) ELSE 0 END))
        m(name, help, value)
    UNION ALL
    SELECT 'sea_mq_consumer_running', 'gauge', 'Whether the consumer''s process is there', '{}',
        (EXISTS (SELECT FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq consumer'))::integer
    UNION ALL
    SELECT 'sea_mq_outbox_size_bytes', 'gauge', 'Size of the log with its indexes', '{}', z.bytes FROM sea_mq.log_size() z
    UNION ALL
    SELECT 'sea_mq_inbox_size_bytes', 'gauge', 'Size of the messages that are done, with their indexes', '{}', z.bytes FROM sea_mq.inbox_size() z
    UNION ALL
    SELECT 'sea_mq_outbox_unpublished_bytes', 'gauge', 'About how much of the log is not published yet', '{}', sea_mq.unpublished_bytes()
    UNION ALL
    SELECT m.name, m.type, m.help, jsonb_build_object('context', s.context, 'kind', s.kind, 'stream', s.name), m.value
    FROM sea_mq.streams s
    LEFT JOIN sea_mq.stream_state t ON t.sink = s.sink
    LEFT JOIN sea_mq.stream_progress c ON c.sink = s.sink
    CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) p
    CROSS JOIN LATERAL (VALUES
        ('sea_mq_stream_ready', 'gauge', 'Whether the stream takes events', coalesce(t.state = 'ready', false)::integer),
        ('sea_mq_stream_pending_events', 'gauge', 'Committed events not yet published; counted up to 10,001', p.pending),
        ('sea_mq_stream_oldest_pending_seconds', 'gauge', 'Age of the oldest of them',
            coalesce(greatest(extract(epoch FROM clock_timestamp() - p.oldest), 0), 0)),
        ('sea_mq_stream_scheduled_events', 'gauge', 'Events whose available_at has not come; counted up to 10,001',
            (SELECT count(*) FROM (SELECT FROM sea_mq.scheduled_events e WHERE e.sink = s.sink LIMIT 10001) w)),
        ('sea_mq_stream_refused_events', 'gauge', 'Events that the broker refused, and about which nothing was decided',
            (SELECT count(*) FROM sea_mq.publish_failures f WHERE f.sink = s.sink AND f.resolved_at IS NULL)),
        ('sea_mq_stream_published_events_total', 'counter', 'Events published', coalesce(c.published, 0)),
        ('sea_mq_stream_losses_total', 'counter', 'How often the broker had lost data that it had acknowledged', coalesce(t.losses, 0)),
        ('sea_mq_stream_divided_transactions_total', 'counter', 'Transactions that were to be published as one and were not', coalesce(c.not_atomic, 0)))
        m(name, type, help, value)
    UNION ALL
    SELECT m.name, m.type, m.help, jsonb_build_object('subscription', s.subscription, 'stream', s.stream), m.value
    FROM sea_mq.subscription_status s
    CROSS JOIN LATERAL (VALUES
        ('sea_mq_subscription_active', 'gauge', 'Whether the subscription receives', (s.state = 'active')::integer),
        ('sea_mq_subscription_pending_messages', 'gauge', 'Messages in the stream that are not delivered yet', coalesce(s.pending, 0)),
        ('sea_mq_subscription_ack_pending_messages', 'gauge', 'Messages under way: delivered, and not done', s.received + s.processing + s.retrying),
        ('sea_mq_subscription_max_ack_pending_messages', 'gauge', 'Messages that may be under way at once', s.max_ack_pending),
        ('sea_mq_subscription_oldest_waiting_seconds', 'gauge', 'How long the oldest message has been under way',
            coalesce(greatest(extract(epoch FROM clock_timestamp() - s.oldest_waiting_at), 0), 0)),
        ('sea_mq_subscription_processed_messages_total', 'counter', 'Messages handled', s.processed),
        ('sea_mq_subscription_skipped_messages_total', 'counter', 'Messages skipped', s.skipped),
        ('sea_mq_subscription_failed_attempts_total', 'counter', 'Attempts that failed', s.failures),
        ('sea_mq_subscription_dead_messages_total', 'counter', 'Messages that became dead letters', s.dead),
        ('sea_mq_subscription_duplicate_messages_total', 'counter', 'Messages that came again and were not handled again', s.duplicates),
        ('sea_mq_subscription_redelivered_messages_total', 'counter', 'Deliveries that were not the first of their message', s.redelivered),
        ('sea_mq_subscription_removed_messages', 'gauge', 'Messages that were removed from the stream before the subscription got them', s.removed))
        m(name, type, help, value)
    UNION ALL
    SELECT 'sea_mq_subscription_waiting_messages', 'gauge', 'Messages in the inbox that are not done; counted up to 10,001',
        jsonb_build_object('subscription', s.subscription, 'stream', s.stream, 'state', m.state), m.value
    FROM sea_mq.subscriptions s CROSS JOIN LATERAL sea_mq.inbox_counts(s.subscription) w
    CROSS JOIN LATERAL (VALUES ('received', w.received), ('processing', w.processing), ('retrying', w.failed)) m(state, value)
    UNION ALL
    SELECT 'sea_mq_dead_letters', 'gauge', 'Dead letters that are retained',
        jsonb_strip_nulls(jsonb_build_object('context', d.context, 'subscription', d.subscription, 'state', m.state)), m.value
    FROM sea_mq.dlq_status d
    CROSS JOIN LATERAL (VALUES ('open', d.open), ('replayed', d.replayed), ('discarded', d.discarded)) m(state, value)
    UNION ALL
    SELECT 'sea_mq_dead_letters_returned', 'gauge', 'Dead letters that are replays which failed again, of those that are retained',
        jsonb_strip_nulls(jsonb_build_object('context', d.context, 'subscription', d.subscription)), d.returned
    FROM sea_mq.dlq_status d
    UNION ALL
    SELECT 'sea_mq_oldest_open_dead_letter_seconds', 'gauge', 'How long ago the oldest open dead letter failed last',
        jsonb_strip_nulls(jsonb_build_object('context', d.context, 'subscription', d.subscription)),
        coalesce(greatest(extract(epoch FROM clock_timestamp() - d.oldest_open_at), 0), 0)
    FROM sea_mq.dlq_status d
    UNION ALL
    SELECT h.name || CASE WHEN l.bound IS NULL THEN '_sum' WHEN l.bound = 'infinity' AND k.count_row THEN '_count' ELSE '_bucket' END,
        'histogram', h.help,
        CASE WHEN l.bound IS NULL OR k.count_row THEN '{}' WHEN l.bound = 'infinity' THEN '{"le": "+Inf"}'
            ELSE jsonb_build_object('le', l.bound::text) END, l.value
    FROM sea_mq.latency_metrics() l
    JOIN (VALUES
        ('store', 'sea_mq_store_latency_seconds', 'From the commit of an event to its storing in its stream'),
        ('handle', 'sea_mq_handle_latency_seconds', 'From the storing of a message in its stream to the end of its handling'),
        ('handler', 'sea_mq_handler_duration_seconds', 'How long attempts of handlers took')) h(key, name, help) ON h.key = l.name
    JOIN (VALUES (false), (true)) k(count_row) ON NOT k.count_row OR l.bound = 'infinity'
$$;
COMMENT ON FUNCTION sea_mq.metrics IS
'All metrics, in Prometheus'' terms: name, type (gauge, counter or histogram), help, labels and value. Counters end in _total, units
are base units, and the rows of a histogram end in _bucket, _count and _sum';

CREATE VIEW sea_mq.metrics AS SELECT m.name, m.type, m.help, m.labels, m.value FROM sea_mq.metrics() m;
COMMENT ON VIEW sea_mq.metrics IS 'All metrics: what sea_mq.metrics() returns';
COMMENT ON COLUMN sea_mq.metrics.name IS 'Name';
COMMENT ON COLUMN sea_mq.metrics.type IS 'gauge, counter or histogram';
COMMENT ON COLUMN sea_mq.metrics.help IS 'What it says';
COMMENT ON COLUMN sea_mq.metrics.labels IS 'Labels: an object of strings';
COMMENT ON COLUMN sea_mq.metrics.value IS 'Value';

-- For those who may see how it goes and not what it is about: no payload, no text of an error.
-- What sea_mq.status is made of has the texts, and functions in a view are called with the rights of whoever reads it.
CREATE FUNCTION sea_mq.overview_row(OUT ok boolean, OUT problems bigint, OUT relay text, OUT pending bigint, OUT oldest_pending_age interval,
    OUT published bigint, OUT scheduled bigint, OUT failed bigint, OUT streams bigint, OUT subscriptions bigint, OUT dead_letters bigint,
    OUT log_bytes bigint, OUT version text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.ok, s.problems, s.relay, s.pending, s.oldest_pending_age, s.published, s.scheduled, s.failed, s.streams,
        (SELECT count(*) FROM sea_mq.subscriptions),
        (SELECT coalesce(sum(d.open), 0)::bigint FROM sea_mq.dlq_status d), s.log_bytes, s.version
    FROM sea_mq.status s
$$;
COMMENT ON FUNCTION sea_mq.overview_row IS 'The row of sea_mq.overview; for internal use';
CREATE VIEW sea_mq.overview AS
SELECT s.ok, s.problems, s.relay, s.pending, s.oldest_pending_age, s.published, s.scheduled, s.failed, s.streams, s.subscriptions,
    s.dead_letters, s.log_bytes, s.version
FROM sea_mq.overview_row() s;
COMMENT ON VIEW sea_mq.overview IS 'One row: is everything all right, in states and numbers, without any text of an error';
CREATE VIEW sea_mq.stream_overview AS
SELECT s.stream, s.context, s.kind, s.state, s.ordering, s.losses, s.last_sequence, s.published, s.pending, s.managed, s.since,
    s.atomic_transactions, s.not_atomic, s.oldest_pending_at
FROM sea_mq.stream_status s;
COMMENT ON VIEW sea_mq.stream_overview IS 'sea_mq.stream_status without any text of an error';
CREATE VIEW sea_mq.subscription_overview AS
SELECT s.subscription, s.source, s.stream, s.subject_filter, s.priority, s.workers, s.state, s.since, s.pending, s.received,
    s.processing, s.retrying, s.oldest_waiting_at, s.next_attempt_at, s.processed, s.skipped, s.failures, s.dead, s.duplicates,
    s.redelivered, s.last_processed_at, s.last_sequence, s.removed
FROM sea_mq.subscription_status s;
COMMENT ON VIEW sea_mq.subscription_overview IS 'sea_mq.subscription_status without any text of an error';
CREATE VIEW sea_mq.dlq_overview AS
SELECT d.context, d.subscription, d.open, d.replayed, d.discarded, d.returned, d.oldest_open_at, d.last_failed_at
FROM sea_mq.dlq_status d;
COMMENT ON VIEW sea_mq.dlq_overview IS 'sea_mq.dlq_status without any text of an error';
DO $$
DECLARE
    c record;
BEGIN
    -- Their columns mean what they mean in the views that they are of.
    FOR c IN
        SELECT v.attrelid::regclass AS view, v.attname AS name, coalesce(col_description(o.attrelid, o.attnum), CASE v.attname
            WHEN 'subscriptions' THEN 'Subscriptions' ELSE 'Dead letters about which nothing was decided' END) AS remark
        FROM (VALUES ('sea_mq.overview'::regclass, 'sea_mq.status'::regclass), ('sea_mq.stream_overview', 'sea_mq.stream_status'),
            ('sea_mq.subscription_overview', 'sea_mq.subscription_status'), ('sea_mq.dlq_overview', 'sea_mq.dlq_status')) t(view, original)
        JOIN pg_attribute v ON v.attrelid = t.view AND v.attnum > 0
        LEFT JOIN pg_attribute o ON o.attrelid = t.original AND o.attname = v.attname
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', c.view, c.name, c.remark);
    END LOOP;
END $$;

-- How it goes, without what it is about. Functions in a view are called with the rights of whoever reads the view.
GRANT EXECUTE ON FUNCTION sea_mq.metrics, sea_mq.overview_row TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT SELECT ON sea_mq.metrics, sea_mq.overview, sea_mq.stream_overview, sea_mq.subscription_overview, sea_mq.dlq_overview
    TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;

-- Links between entities of several contexts. Neither end need exist here: there is no foreign key across modules.
CREATE TABLE sea_mq.entity_links (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    source_module text COLLATE "C" NOT NULL CHECK (source_module <> '' AND octet_length(source_module) <= 200),
    source_type text COLLATE "C" NOT NULL CHECK (source_type <> '' AND octet_length(source_type) <= 200),
    source_id text COLLATE "C" NOT NULL CHECK (source_id <> '' AND octet_length(source_id) <= 400),
    target_module text COLLATE "C" NOT NULL CHECK (target_module <> '' AND octet_length(target_module) <= 200),
    target_type text COLLATE "C" NOT NULL CHECK (target_type <> '' AND octet_length(target_type) <= 200),
    target_id text COLLATE "C" NOT NULL CHECK (target_id <> '' AND octet_length(target_id) <= 400),
    link_type text COLLATE "C" NOT NULL DEFAULT 'reference' CHECK (link_type ~ '^[a-z][a-z0-9_]{0,99}$'),
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by name NOT NULL,
    created_by_oid oid
);
CREATE TRIGGER pin BEFORE INSERT ON sea_mq.entity_links FOR EACH ROW EXECUTE FUNCTION sea_mq.pin_creator();
COMMENT ON TRIGGER pin ON sea_mq.entity_links IS 'Which role created the link';
-- One link of a type between two entities; also what is asked for by source.
CREATE UNIQUE INDEX entity_links_ends ON sea_mq.entity_links
    (source_module, source_type, source_id, target_module, target_type, target_id, link_type);
CREATE INDEX entity_links_target ON sea_mq.entity_links (target_module, target_type, target_id);
CREATE INDEX entity_links_type ON sea_mq.entity_links (link_type, id);
SELECT pg_catalog.pg_extension_config_dump('sea_mq.entity_links', '');
COMMENT ON TABLE sea_mq.entity_links IS 'Links between entities, also of different modules; see sea_mq.create_link';
COMMENT ON COLUMN sea_mq.entity_links.id IS 'Id of the link; what drop_link takes';
COMMENT ON COLUMN sea_mq.entity_links.source_module IS 'Module (context) of the entity that the link begins at';
COMMENT ON COLUMN sea_mq.entity_links.source_type IS 'Its type';
COMMENT ON COLUMN sea_mq.entity_links.source_id IS 'Its id';
COMMENT ON COLUMN sea_mq.entity_links.target_module IS 'Module (context) of the entity that the link leads to';
COMMENT ON COLUMN sea_mq.entity_links.target_type IS 'Its type';
COMMENT ON COLUMN sea_mq.entity_links.target_id IS 'Its id';
COMMENT ON COLUMN sea_mq.entity_links.link_type IS 'reference, cascade, aggregate_root, or one of your own: small letters, digits and _';
COMMENT ON COLUMN sea_mq.entity_links.metadata IS 'What else is to be known of the link: a JSON object';
COMMENT ON COLUMN sea_mq.entity_links.created_at IS 'When it was created';
COMMENT ON COLUMN sea_mq.entity_links.created_by IS 'Role that created it, by the name that it had';
COMMENT ON COLUMN sea_mq.entity_links.created_by_oid IS 'That role: it may be renamed, and no other is taken for it';

-- All links at once: in the order of their ends, so that two transactions that create the same ones wait and do not deadlock.
CREATE FUNCTION sea_mq.create_links(links jsonb[]) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    wrong record;
    known CONSTANT text[] := '{source_module,source_type,source_id,target_module,target_type,target_id,link_type,metadata}';
BEGIN
    SELECT l.place, l.link, coalesce((SELECT k FROM jsonb_object_keys(CASE jsonb_typeof(l.link) WHEN 'object' THEN l.link ELSE '{}' END) k
        WHERE k <> ALL (known) LIMIT 1), '') AS key INTO wrong
    FROM unnest(create_links.links) WITH ORDINALITY AS l(link, place)
    WHERE coalesce(jsonb_typeof(l.link), '') <> 'object' OR EXISTS (SELECT FROM jsonb_object_keys(l.link) k WHERE k <> ALL (known))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'link % of the array is not one%', wrong.place, coalesce(': ' || nullif(wrong.key, '') || ' is not known', '')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass objects with ' || array_to_string(known, ', ') || '.';
    END IF;
    INSERT INTO sea_mq.entity_links (source_module, source_type, source_id, target_module, target_type, target_id, link_type, metadata,
        created_by)
    SELECT l.link ->> 'source_module', l.link ->> 'source_type', l.link ->> 'source_id', l.link ->> 'target_module',
        l.link ->> 'target_type', l.link ->> 'target_id', coalesce(l.link ->> 'link_type', 'reference'),
        coalesce(nullif(l.link -> 'metadata', 'null'), '{}'), pg_get_userbyid(sea_mq.caller())
    FROM unnest(create_links.links) WITH ORDINALITY AS l(link, place)
    ORDER BY 1, 2, 3, 4, 5, 6, 7, l.place
    ON CONFLICT (source_module, source_type, source_id, target_module, target_type, target_id, link_type) DO NOTHING;
    SELECT l.place, e.id INTO wrong
    FROM unnest(create_links.links) WITH ORDINALITY AS l(link, place)
    JOIN sea_mq.entity_links e ON e.source_module = l.link ->> 'source_module' AND e.source_type = l.link ->> 'source_type'
        AND e.source_id = l.link ->> 'source_id' AND e.target_module = l.link ->> 'target_module'
        AND e.target_type = l.link ->> 'target_type' AND e.target_id = l.link ->> 'target_id'
        AND e.link_type = coalesce(l.link ->> 'link_type', 'reference')
    WHERE e.metadata <> coalesce(nullif(l.link -> 'metadata', 'null'), '{}')
    ORDER BY l.place LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'there is that link already, with other metadata: %', wrong.id
            USING ERRCODE = 'unique_violation', HINT = 'Drop it with sea_mq.drop_link first, or give the link another link_type.';
    END IF;
    RETURN QUERY SELECT e.id
    FROM unnest(create_links.links) WITH ORDINALITY AS l(link, place)
    JOIN sea_mq.entity_links e ON e.source_module = l.link ->> 'source_module' AND e.source_type = l.link ->> 'source_type'
        AND e.source_id = l.link ->> 'source_id' AND e.target_module = l.link ->> 'target_module'
        AND e.target_type = l.link ->> 'target_type' AND e.target_id = l.link ->> 'target_id'
        AND e.link_type = coalesce(l.link ->> 'link_type', 'reference')
    ORDER BY l.place;
EXCEPTION WHEN not_null_violation OR check_violation THEN
    RAISE EXCEPTION 'the link cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Modules, types and ids are not empty and have up to 200 bytes (ids: 400); link_type is of small letters, digits and _; metadata is a JSON object.';
END $$;
COMMENT ON FUNCTION sea_mq.create_links IS
'Creates links, each an object with the arguments of sea_mq.create_link as keys, and returns their ids in that order. Those that are
there already are left as they are. All or none are created. Errors: 22023, 23505 (one is there with other metadata)';

CREATE FUNCTION sea_mq.create_link(source_module text, source_type text, source_id text, target_module text, target_type text,
    target_id text, link_type text DEFAULT 'reference', metadata jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM sea_mq.create_links(ARRAY[jsonb_build_object('source_module', $1, 'source_type', $2, 'source_id', $3,
        'target_module', $4, 'target_type', $5, 'target_id', $6, 'link_type', $7, 'metadata', $8)])
$$;
COMMENT ON FUNCTION sea_mq.create_link IS
'Links an entity (source) to another one (target), in the current transaction, and returns the link''s id. Repeated, it returns the same
id. link_type: reference, cascade, aggregate_root, or one of your own. Errors: 22023, 23505 (it is there with other metadata)';

CREATE FUNCTION sea_mq.drop_link(id uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped sea_mq.entity_links;
BEGIN
    SELECT l.* INTO dropped FROM sea_mq.entity_links l WHERE l.id = drop_link.id;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF NOT sea_mq.may_manage(dropped.created_by_oid) THEN
        RAISE EXCEPTION 'the link was created by "%"', dropped.created_by
            USING ERRCODE = 'insufficient_privilege', HINT = 'Members of that role and of sea_mq_operator may drop it.';
    END IF;
    DELETE FROM sea_mq.entity_links l WHERE l.id = drop_link.id;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION sea_mq.drop_link IS
'Removes a link; false if there was none. Error 42501: the caller is neither a member of the role that created it nor an operator';

CREATE FUNCTION sea_mq.find_links_by_source(source_module text, source_type text, source_id text, link_type text DEFAULT NULL)
RETURNS SETOF sea_mq.entity_links
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.* FROM sea_mq.entity_links l
    WHERE l.source_module = $1 AND l.source_type = $2 AND l.source_id = $3 AND ($4 IS NULL OR l.link_type = $4)
    ORDER BY l.created_at, l.id
$$;
COMMENT ON FUNCTION sea_mq.find_links_by_source IS 'The links that begin at an entity, the oldest first; link_type: those of one type';

CREATE FUNCTION sea_mq.find_links_by_target(target_module text, target_type text, target_id text, link_type text DEFAULT NULL)
RETURNS SETOF sea_mq.entity_links
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.* FROM sea_mq.entity_links l
    WHERE l.target_module = $1 AND l.target_type = $2 AND l.target_id = $3 AND ($4 IS NULL OR l.link_type = $4)
    ORDER BY l.created_at, l.id
$$;
COMMENT ON FUNCTION sea_mq.find_links_by_target IS 'The links that lead to an entity, the oldest first; link_type: those of one type';

-- A plan for any id reads as many rows as it returns; one for NULL has no condition on the id.
CREATE FUNCTION sea_mq.find_links_by_type(link_type text, after uuid DEFAULT NULL, max integer DEFAULT 100)
RETURNS SETOF sea_mq.entity_links
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.* FROM sea_mq.entity_links l
    WHERE l.link_type = $1 AND l.id > coalesce($2, '00000000-0000-0000-0000-000000000000')
    ORDER BY l.id LIMIT greatest($3, 0)
$$;
COMMENT ON FUNCTION sea_mq.find_links_by_type IS
'The links of a type in the order of their ids, max at a time: pass the id of the last one as after to get the next';

CREATE FUNCTION sea_mq.find_link(module_a text, type_a text, id_a text, module_b text, type_b text, id_b text)
RETURNS SETOF sea_mq.entity_links
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.* FROM sea_mq.entity_links l
    WHERE (l.source_module, l.source_type, l.source_id) = ($1, $2, $3) AND (l.target_module, l.target_type, l.target_id) = ($4, $5, $6)
    UNION
    SELECT l.* FROM sea_mq.entity_links l
    WHERE (l.source_module, l.source_type, l.source_id) = ($4, $5, $6) AND (l.target_module, l.target_type, l.target_id) = ($1, $2, $3)
    ORDER BY 10, 1
$$;
COMMENT ON FUNCTION sea_mq.find_link IS 'The links between two entities, in either direction, the oldest first';

CREATE FUNCTION sea_mq.links_of(module text, type text, id text)
RETURNS TABLE (link_id uuid, direction text, link_type text, other_module text, other_type text, other_id text, metadata jsonb,
    created_at timestamptz, created_by name)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.id, 'outgoing', l.link_type, l.target_module, l.target_type, l.target_id, l.metadata, l.created_at, l.created_by
    FROM sea_mq.entity_links l WHERE (l.source_module, l.source_type, l.source_id) = ($1, $2, $3)
    UNION ALL
    SELECT l.id, 'incoming', l.link_type, l.source_module, l.source_type, l.source_id, l.metadata, l.created_at, l.created_by
    FROM sea_mq.entity_links l WHERE (l.target_module, l.target_type, l.target_id) = ($1, $2, $3)
    ORDER BY 8, 1
$$;
COMMENT ON FUNCTION sea_mq.links_of IS
'The links of an entity with the entity at their other end; direction: outgoing (it is the source) or incoming. A link of an entity to
itself has a row for each direction';

-- Handlers link what they make, so whoever emits or handles may.
GRANT EXECUTE ON FUNCTION sea_mq.create_links, sea_mq.create_link, sea_mq.drop_link TO sea_mq_producer, sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.find_links_by_source, sea_mq.find_links_by_target, sea_mq.find_links_by_type, sea_mq.find_link,
    sea_mq.links_of TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.entity_links TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;

-- What a registry of subscribers answers.

-- Events have the subject {context}.event.{type}.v{version}; what is NULL here may be anything.
CREATE FUNCTION sea_mq.covers_type(subject_filter text, event_type text, context text, event_version integer) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH filter AS (SELECT string_to_array($1, '.') AS tokens)
    SELECT CASE WHEN tokens[cardinality(tokens)] = '>' THEN cardinality(tokens) <= 4 ELSE cardinality(tokens) = 4 END
        AND NOT EXISTS (SELECT FROM unnest(tokens) WITH ORDINALITY AS t(token, place)
            WHERE t.token NOT IN ('*', '>') AND t.token <> (ARRAY[$3, 'event', $2, 'v' || $4])[t.place])
    FROM filter
$$;
COMMENT ON FUNCTION sea_mq.covers_type IS 'Whether a subject filter covers events of a type, in some context and version where they are NULL; for internal use';

CREATE FUNCTION sea_mq.subscriptions_of(event_type text, context text DEFAULT NULL, event_version integer DEFAULT NULL)
RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.subscription FROM sea_mq.subscriptions s
    WHERE sea_mq.covers_type(s.subject_filter, sea_mq.event_name($1), sea_mq.context_name($2), $3)
    ORDER BY 1
$$;
COMMENT ON FUNCTION sea_mq.subscriptions_of IS
'The subscriptions that get events of a type (order_created or OrderCreated); context, event_version: those of one context, of one
version. Error 22023: no name of an event';

CREATE FUNCTION sea_mq.is_processed(message_id text, subscription text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT EXISTS (SELECT FROM sea_mq.inbox_log l WHERE l.message_id = $1 AND l.subscription = $2 AND l.status = 'processed')
$$;
CREATE FUNCTION sea_mq.is_processed(message_id uuid, subscription text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT EXISTS (SELECT FROM sea_mq.inbox_log l WHERE l.message_id = $1::text AND l.subscription = $2 AND l.status = 'processed')
$$;
COMMENT ON FUNCTION sea_mq.is_processed(text, text) IS
'Whether a subscription has processed a message: its handler''s effects are committed. False also for what was skipped or is dead, and
for what the inbox no longer retains (sea_mq.inbox_retention)';
COMMENT ON FUNCTION sea_mq.is_processed(uuid, text) IS 'As the form with text, for ids of events';

CREATE FUNCTION sea_mq.event_names() RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT e.event_type FROM sea_mq.event_types e
    UNION
    SELECT split_part(s.subject_filter, '.', 3) FROM sea_mq.subscriptions s
    WHERE split_part(s.subject_filter, '.', 2) = 'event' AND split_part(s.subject_filter, '.', 3) NOT IN ('', '*', '>')
    ORDER BY 1
$$;
COMMENT ON FUNCTION sea_mq.event_names IS 'The names of all events that are registered, or that a subscription names, in their normalised form';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.subscriptions_of, sea_mq.event_names
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.is_processed(text, text), sea_mq.is_processed(uuid, text)
    TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;

-- Endpoints outside: as they should be served. The dispatcher serves them; docs/endpoints.md has the states and outcomes.
CREATE TABLE sea_mq.endpoint_definitions (
    id bigint GENERATED BY DEFAULT AS IDENTITY UNIQUE,
    endpoint text COLLATE "C" PRIMARY KEY CHECK (endpoint ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$'),
    kind text NOT NULL CHECK (kind IN ('webhook', 'http', 'nats')),
    url text NOT NULL CHECK (octet_length(url) <= 2000),
    source text CHECK (source = sea_mq.context_name(source)),
    filter text[],
    subject_filters text[] NOT NULL,
    audience text NOT NULL CHECK (audience IN ('public', 'partner', 'internal', 'sensitive')),
    format text NOT NULL CHECK (format IN ('standard', 'cloudevents', 'cloudevents_structured', 'cloudevents_batch', 'payload', 'template')),
    method text NOT NULL CHECK (method IN ('POST', 'PUT', 'PATCH', 'DELETE')),
    headers jsonb NOT NULL,
    body jsonb CHECK ((body IS NOT NULL) = (format = 'template')),
    auth jsonb,
    ordering text NOT NULL CHECK (ordering IN ('none', 'key', 'strict')),
    on_exhausted text NOT NULL CHECK (on_exhausted IN ('continue', 'pause')),
    max_in_flight integer NOT NULL CHECK (max_in_flight BETWEEN 1 AND 1024),
    rate double precision CHECK (rate > 0 AND rate <= 1000000),
    timeout interval NOT NULL CHECK (timeout >= '100 ms' AND timeout <= '1 hour'),
    connect_timeout interval NOT NULL CHECK (connect_timeout >= '10 ms' AND connect_timeout <= '1 hour'),
    retry_schedule interval[] CHECK (cardinality(retry_schedule) BETWEEN 1 AND 100
        AND '0' <= ALL (retry_schedule) AND '30 days' >= ALL (retry_schedule)),
    max_age interval NOT NULL CHECK (max_age >= '0' AND max_age <= '1 year'),
    max_size integer NOT NULL CHECK (max_size BETWEEN 1 AND 67108864),
    keep_response boolean NOT NULL,
    start_from text NOT NULL,
    start_at timestamptz,
    paused boolean NOT NULL DEFAULT false,
    created_by name NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by_oid oid
);
CREATE TRIGGER pin BEFORE INSERT ON sea_mq.endpoint_definitions FOR EACH ROW EXECUTE FUNCTION sea_mq.pin_creator();
COMMENT ON TRIGGER pin ON sea_mq.endpoint_definitions IS 'Which role created the endpoint';
COMMENT ON SEQUENCE sea_mq.endpoint_definitions_id_seq IS 'Numbers of endpoints';
COMMENT ON TABLE sea_mq.endpoint_definitions IS 'Endpoints outside that get events, without their secrets. Query sea_mq.endpoints instead';
COMMENT ON COLUMN sea_mq.endpoint_definitions.id IS 'Number of the endpoint, which no other ever has';
COMMENT ON COLUMN sea_mq.endpoint_definitions.endpoint IS 'Name';
COMMENT ON COLUMN sea_mq.endpoint_definitions.kind IS 'webhook (signed as Standard Webhooks has it), http or nats';
COMMENT ON COLUMN sea_mq.endpoint_definitions.url IS 'Where it is';
COMMENT ON COLUMN sea_mq.endpoint_definitions.source IS 'Context whose events it gets; NULL: those of all';
COMMENT ON COLUMN sea_mq.endpoint_definitions.filter IS 'Which events it gets, as given; NULL: all';
COMMENT ON COLUMN sea_mq.endpoint_definitions.subject_filters IS 'The subjects that the filter stands for';
COMMENT ON COLUMN sea_mq.endpoint_definitions.audience IS 'Who reads it: public, partner, internal or sensitive; see sea_mq.external_view';
COMMENT ON COLUMN sea_mq.endpoint_definitions.format IS 'standard, cloudevents (binary), cloudevents_structured, cloudevents_batch, payload or template';
COMMENT ON COLUMN sea_mq.endpoint_definitions.method IS 'Method of HTTP';
COMMENT ON COLUMN sea_mq.endpoint_definitions.headers IS 'Headers of every request: an object of strings';
COMMENT ON COLUMN sea_mq.endpoint_definitions.body IS 'The template of the body, as in sea_mq.map_fields; of format template alone';
COMMENT ON COLUMN sea_mq.endpoint_definitions.auth IS 'How it is shown who sends: {"type": basic | bearer | oauth2 | mtls, …}, with names of secrets';
COMMENT ON COLUMN sea_mq.endpoint_definitions.ordering IS 'none, key (each aggregate in order) or strict (one at a time)';
COMMENT ON COLUMN sea_mq.endpoint_definitions.on_exhausted IS 'What follows when a delivery is given up: continue or pause';
COMMENT ON COLUMN sea_mq.endpoint_definitions.max_in_flight IS 'Deliveries in flight at once, at most';
COMMENT ON COLUMN sea_mq.endpoint_definitions.rate IS 'Deliveries a second, at most; NULL: no bound';
COMMENT ON COLUMN sea_mq.endpoint_definitions.timeout IS 'How long an attempt may take, up to the last byte of the answer';
COMMENT ON COLUMN sea_mq.endpoint_definitions.connect_timeout IS 'How long a connection may take, TLS included';
COMMENT ON COLUMN sea_mq.endpoint_definitions.retry_schedule IS 'Waits before each attempt, the first included; NULL: those of Standard Webhooks';
COMMENT ON COLUMN sea_mq.endpoint_definitions.max_age IS 'How long after the first attempt there is another one';
COMMENT ON COLUMN sea_mq.endpoint_definitions.max_size IS 'Largest body in bytes';
COMMENT ON COLUMN sea_mq.endpoint_definitions.keep_response IS 'Whether the body of the answer is kept where the delivery succeeded, too';
COMMENT ON COLUMN sea_mq.endpoint_definitions.start_from IS 'new, all or a time';
COMMENT ON COLUMN sea_mq.endpoint_definitions.start_at IS 'Events emitted before this are left out; NULL for no such bound';
COMMENT ON COLUMN sea_mq.endpoint_definitions.paused IS 'Whether delivery is paused';
COMMENT ON COLUMN sea_mq.endpoint_definitions.created_by IS 'Role that created it, by the name that it had';
COMMENT ON COLUMN sea_mq.endpoint_definitions.created_by_oid IS 'That role: it may be renamed, and no other is taken for it';
COMMENT ON COLUMN sea_mq.endpoint_definitions.created_at IS 'When it was created';
COMMENT ON COLUMN sea_mq.endpoint_definitions.updated_at IS 'When its description changed last';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.endpoint_definitions', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.endpoint_definitions_id_seq', '');

-- Encrypted with the key in sea_mq.secret_key_file; endpoint, name and version are bound to the text.
CREATE TABLE sea_mq.endpoint_secrets (
    endpoint_id bigint NOT NULL,
    name text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9_.-]{1,100}$'),
    version bigint NOT NULL DEFAULT nextval('sea_mq.position_number'),
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (endpoint_id, name, version)
);
COMMENT ON TABLE sea_mq.endpoint_secrets IS 'Secrets of endpoints, encrypted (AES-256-GCM); nobody but the extension''s owner reads them';
COMMENT ON COLUMN sea_mq.endpoint_secrets.endpoint_id IS 'Number of the endpoint';
COMMENT ON COLUMN sea_mq.endpoint_secrets.name IS 'Name; signing: what deliveries are signed with';
COMMENT ON COLUMN sea_mq.endpoint_secrets.version IS 'The newest of a name has the greatest';
COMMENT ON COLUMN sea_mq.endpoint_secrets.sealed IS 'Nonce and encrypted text';
COMMENT ON COLUMN sea_mq.endpoint_secrets.created_at IS 'When it was set';
COMMENT ON COLUMN sea_mq.endpoint_secrets.expires_at IS 'Until when it is used beside a newer one; NULL: it is the newest';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.endpoint_secrets', '');

-- What was done so far, in a ring as that of sea_mq.cursor_log.
CREATE TABLE sea_mq.endpoint_progress (
    slot smallint NOT NULL,
    number bigint NOT NULL DEFAULT nextval('sea_mq.position_number'),
    endpoint_id bigint NOT NULL,
    delivered bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    attempts bigint NOT NULL DEFAULT 0,
    last_delivered_at timestamptz
) PARTITION BY LIST (slot);
-- What was delivered or given up, in a ring of slots that are truncated; and which slot is appended to.
CREATE TABLE sea_mq.delivery_log (
    slot smallint NOT NULL,
    http_status smallint,
    attempts integer NOT NULL,
    endpoint_id bigint NOT NULL,
    finished_at timestamptz NOT NULL,
    event_id uuid NOT NULL,
    duration integer,
    status text NOT NULL,
    error text,
    errors jsonb,
    response text
) PARTITION BY LIST (slot);
DO $$
BEGIN
    FOR slot IN 0 .. 1 LOOP
        EXECUTE format('CREATE TABLE sea_mq.endpoint_progress_%s PARTITION OF sea_mq.endpoint_progress (PRIMARY KEY (endpoint_id, number))'
            ' FOR VALUES IN (%s) WITH (autovacuum_vacuum_insert_threshold = -1)', slot, slot);
        EXECUTE format('COMMENT ON TABLE sea_mq.endpoint_progress_%s IS %L', slot, 'Slot ' || slot || ' of the endpoints'' progress');
        EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.endpoint_progress_' || slot);
    END LOOP;
    FOR slot IN 0 .. 3 LOOP
        EXECUTE format('CREATE TABLE sea_mq.delivery_log_%s PARTITION OF sea_mq.delivery_log (PRIMARY KEY (event_id, endpoint_id))'
            ' FOR VALUES IN (%s) WITH (autovacuum_vacuum_insert_threshold = -1)', slot, slot);
        EXECUTE format('COMMENT ON TABLE sea_mq.delivery_log_%s IS %L', slot, 'Slot ' || slot || ' of the log of deliveries');
        EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.delivery_log_' || slot);
    END LOOP;
END $$;
COMMENT ON TABLE sea_mq.endpoint_progress IS 'What was delivered to each endpoint so far: appended by the dispatcher, the greatest number counts';
COMMENT ON COLUMN sea_mq.endpoint_progress.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.endpoint_progress.number IS 'Of an endpoint''s rows the one with the greatest counts';
COMMENT ON COLUMN sea_mq.endpoint_progress.endpoint_id IS 'Number of the endpoint';
COMMENT ON COLUMN sea_mq.endpoint_progress.delivered IS 'Deliveries so far';
COMMENT ON COLUMN sea_mq.endpoint_progress.failed IS 'Deliveries given up so far';
COMMENT ON COLUMN sea_mq.endpoint_progress.attempts IS 'Attempts so far';
COMMENT ON COLUMN sea_mq.endpoint_progress.last_delivered_at IS 'When the last delivery succeeded';
COMMENT ON TABLE sea_mq.delivery_log IS 'Deliveries that are done. Query sea_mq.deliveries instead';
COMMENT ON COLUMN sea_mq.delivery_log.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.delivery_log.http_status IS 'Status of the last answer';
COMMENT ON COLUMN sea_mq.delivery_log.attempts IS 'Attempts that were made';
COMMENT ON COLUMN sea_mq.delivery_log.endpoint_id IS 'Number of the endpoint';
COMMENT ON COLUMN sea_mq.delivery_log.finished_at IS 'When it was done';
COMMENT ON COLUMN sea_mq.delivery_log.event_id IS 'Id of the event';
COMMENT ON COLUMN sea_mq.delivery_log.duration IS 'Microseconds that the last attempt took';
COMMENT ON COLUMN sea_mq.delivery_log.status IS 'delivered, failed, exhausted or cancelled';
COMMENT ON COLUMN sea_mq.delivery_log.error IS 'The last error';
COMMENT ON COLUMN sea_mq.delivery_log.errors IS 'All of them: [{at, attempt, kind, http_status, error, response}]';
COMMENT ON COLUMN sea_mq.delivery_log.response IS 'Beginning of the answer, where keep_response says so';
CREATE TABLE sea_mq.delivery_ring (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    current_slot smallint NOT NULL,
    opened_at timestamptz NOT NULL
) WITH (fillfactor = 10);
INSERT INTO sea_mq.delivery_ring (current_slot, opened_at) VALUES (0, now());
COMMENT ON TABLE sea_mq.delivery_ring IS 'Which slot of the log of deliveries is appended to; one row, not part of a dump';
COMMENT ON COLUMN sea_mq.delivery_ring.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.delivery_ring.current_slot IS 'The slot that is appended to';
COMMENT ON COLUMN sea_mq.delivery_ring.opened_at IS 'When it became the current one';

-- What is tried again, and what was given up and is not decided about: with the bytes that were sent.
CREATE TABLE sea_mq.delivery_pending (
    endpoint_id bigint NOT NULL,
    event_id uuid NOT NULL,
    status text NOT NULL CHECK (status IN ('pending', 'retrying', 'parked', 'failed', 'exhausted')),
    seq bigint NOT NULL,
    key text,
    context text NOT NULL,
    event_type text NOT NULL,
    event_version integer NOT NULL,
    aggregate_type text,
    aggregate_id text,
    body bytea NOT NULL,
    headers jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    counted integer NOT NULL DEFAULT 0,
    first_attempt_at timestamptz,
    next_attempt_at timestamptz,
    http_status smallint,
    error_kind text,
    error text,
    errors jsonb NOT NULL DEFAULT '[]',
    duration integer,
    dead_letter bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (endpoint_id, event_id)
) WITH (fillfactor = 70, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX delivery_pending_due ON sea_mq.delivery_pending (endpoint_id, next_attempt_at, seq) WHERE status IN ('pending', 'retrying');
CREATE INDEX delivery_pending_event ON sea_mq.delivery_pending (event_id);
CREATE INDEX delivery_pending_letter ON sea_mq.delivery_pending (dead_letter) WHERE dead_letter IS NOT NULL;
COMMENT ON TABLE sea_mq.delivery_pending IS 'Deliveries that wait for another attempt, with the bytes that are sent, and those that were given up and are dead letters';
COMMENT ON COLUMN sea_mq.delivery_pending.endpoint_id IS 'Number of the endpoint';
COMMENT ON COLUMN sea_mq.delivery_pending.event_id IS 'Id of the event';
COMMENT ON COLUMN sea_mq.delivery_pending.status IS 'pending (no attempt yet), retrying, parked (behind one of its aggregate), failed or exhausted';
COMMENT ON COLUMN sea_mq.delivery_pending.seq IS 'Place in the order';
COMMENT ON COLUMN sea_mq.delivery_pending.key IS 'What has the same is delivered in order, where the endpoint asks for that';
COMMENT ON COLUMN sea_mq.delivery_pending.context IS 'Context of the event';
COMMENT ON COLUMN sea_mq.delivery_pending.event_type IS 'Normalised name of the event';
COMMENT ON COLUMN sea_mq.delivery_pending.event_version IS 'Version of the event type';
COMMENT ON COLUMN sea_mq.delivery_pending.aggregate_type IS 'Type of the aggregate that changed';
COMMENT ON COLUMN sea_mq.delivery_pending.aggregate_id IS 'Id of the aggregate that changed';
COMMENT ON COLUMN sea_mq.delivery_pending.body IS 'The bytes of each attempt';
COMMENT ON COLUMN sea_mq.delivery_pending.headers IS 'The headers that belong to them';
COMMENT ON COLUMN sea_mq.delivery_pending.attempts IS 'Attempts that were made';
COMMENT ON COLUMN sea_mq.delivery_pending.counted IS 'Those of them that count against the schedule';
COMMENT ON COLUMN sea_mq.delivery_pending.first_attempt_at IS 'When the first attempt was made';
COMMENT ON COLUMN sea_mq.delivery_pending.next_attempt_at IS 'When the next is made';
COMMENT ON COLUMN sea_mq.delivery_pending.http_status IS 'Status of the last answer';
COMMENT ON COLUMN sea_mq.delivery_pending.error_kind IS 'Kind of the last error';
COMMENT ON COLUMN sea_mq.delivery_pending.error IS 'The last error';
COMMENT ON COLUMN sea_mq.delivery_pending.errors IS 'All of them: [{at, attempt, kind, http_status, error, response}]';
COMMENT ON COLUMN sea_mq.delivery_pending.duration IS 'Microseconds that the last attempt took';
COMMENT ON COLUMN sea_mq.delivery_pending.dead_letter IS 'Number of the dead letter';
COMMENT ON COLUMN sea_mq.delivery_pending.created_at IS 'When the row was made';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.delivery_pending', '');

CREATE TABLE sea_mq.endpoint_health (
    endpoint_id bigint PRIMARY KEY,
    state text NOT NULL,
    error_kind text,
    error text,
    hint text,
    since timestamptz NOT NULL DEFAULT now(),
    in_flight integer NOT NULL DEFAULT 0,
    "window" integer NOT NULL DEFAULT 0,
    retrying integer NOT NULL DEFAULT 0,
    p50 double precision,
    p99 double precision
) WITH (fillfactor = 50);
COMMENT ON TABLE sea_mq.endpoint_health IS 'How each endpoint is doing; see sea_mq.endpoint_status';
COMMENT ON COLUMN sea_mq.endpoint_health.endpoint_id IS 'Number of the endpoint';
COMMENT ON COLUMN sea_mq.endpoint_health.state IS 'active, throttled, open, probing, refused, gone, paused, disabled or copied';
COMMENT ON COLUMN sea_mq.endpoint_health.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.endpoint_health.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.endpoint_health.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.endpoint_health.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.endpoint_health.in_flight IS 'Deliveries in flight';
COMMENT ON COLUMN sea_mq.endpoint_health."window" IS 'Deliveries that may be in flight';
COMMENT ON COLUMN sea_mq.endpoint_health.retrying IS 'Deliveries that wait for another attempt';
COMMENT ON COLUMN sea_mq.endpoint_health.p50 IS 'Milliseconds that half of the last attempts took at most';
COMMENT ON COLUMN sea_mq.endpoint_health.p99 IS 'Milliseconds that 99 of 100 took at most';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.endpoint_health', '');

-- What an endpoint never got, until somebody has decided what becomes of it.
CREATE TABLE sea_mq.dropped_deliveries (
    endpoint_id bigint PRIMARY KEY,
    events bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    found_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sea_mq.dropped_deliveries IS 'Events that were dropped from the log before they were delivered; see sea_mq.endpoint_status and sea_mq.forget_dropped';
COMMENT ON COLUMN sea_mq.dropped_deliveries.endpoint_id IS 'Number of the endpoint';
COMMENT ON COLUMN sea_mq.dropped_deliveries.events IS 'How many';
COMMENT ON COLUMN sea_mq.dropped_deliveries.first_at IS 'When the first of them was emitted';
COMMENT ON COLUMN sea_mq.dropped_deliveries.last_at IS 'When the last of them was emitted';
COMMENT ON COLUMN sea_mq.dropped_deliveries.since IS 'When the first was dropped';
COMMENT ON COLUMN sea_mq.dropped_deliveries.found_at IS 'When the last was dropped';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.dropped_deliveries', '');

-- Where the endpoints are served from. Not part of a dump: a copy is somewhere else, and sends nothing until it is adopted.
CREATE TABLE sea_mq.endpoint_home (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    timeline integer NOT NULL,
    place text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sea_mq.endpoint_home IS 'The one installation that serves the endpoints; one row at most, not part of a dump';
COMMENT ON COLUMN sea_mq.endpoint_home.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.endpoint_home.system_identifier IS 'The cluster''s system identifier';
COMMENT ON COLUMN sea_mq.endpoint_home.database_oid IS 'The database''s OID';
COMMENT ON COLUMN sea_mq.endpoint_home.timeline IS 'The cluster''s timeline: another one after a recovery or a promotion';
COMMENT ON COLUMN sea_mq.endpoint_home.place IS 'Which data directory it is: a copy has other files';
COMMENT ON COLUMN sea_mq.endpoint_home.since IS 'Since when it serves them';

-- Functions that describe endpoints.
CREATE FUNCTION sea_mq.endpoint_url(url text) RETURNS text LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'endpoint_url_wrapper';
COMMENT ON FUNCTION sea_mq.endpoint_url IS 'An URL of an endpoint in its normal form. Error 22023: it may not be one; for internal use';
CREATE FUNCTION sea_mq.broker_url(url text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'broker_url_wrapper';
COMMENT ON FUNCTION sea_mq.broker_url IS 'An URL of an endpoint of kind nats in its normal form. Error 22023: it may not be one; for internal use';
CREATE FUNCTION sea_mq.data_place() RETURNS text LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'data_place_wrapper';
COMMENT ON FUNCTION sea_mq.data_place IS 'Which data directory this is: a copy of it has other files; for internal use';
CREATE FUNCTION sea_mq.seal_secret(endpoint_id bigint, name text, version bigint, value text) RETURNS bytea
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'seal_secret_wrapper';
COMMENT ON FUNCTION sea_mq.seal_secret IS 'Encrypts a secret; makes the key if there is none. Error 58030: the key cannot be read; for internal use';
CREATE FUNCTION sea_mq.generate_secret(key_pair boolean) RETURNS text
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'generate_secret_wrapper';
COMMENT ON FUNCTION sea_mq.generate_secret IS 'A new signing secret; for internal use';
CREATE FUNCTION sea_mq.public_key(secret text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'public_key_wrapper';
COMMENT ON FUNCTION sea_mq.public_key IS
'What whoever verifies needs: the public key of an asymmetric secret, else the secret itself. Error 22023: it is no signing secret; for internal use';
CREATE FUNCTION sea_mq.dispatch_at_commit() RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dispatch_at_commit_wrapper';
COMMENT ON FUNCTION sea_mq.dispatch_at_commit IS 'Starts the dispatcher, or has it look at its tables again, when this transaction commits; for internal use';

CREATE FUNCTION sea_mq.here() RETURNS sea_mq.endpoint_home
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ROW(true, c.system_identifier, d.oid, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer,
        sea_mq.data_place(), now())::sea_mq.endpoint_home
    FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION sea_mq.here IS 'This installation as sea_mq.endpoint_home has it; for internal use';
CREATE FUNCTION sea_mq.is_home() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM sea_mq.endpoint_home h, sea_mq.here() n
        WHERE (h.system_identifier, h.database_oid, h.timeline, h.place) = (n.system_identifier, n.database_oid, n.timeline, n.place))
$$;
COMMENT ON FUNCTION sea_mq.is_home IS 'Whether the endpoints are served here: not in a copy, nor after a recovery; for internal use';
CREATE FUNCTION sea_mq.come_home() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM sea_mq.endpoint_home;
    INSERT INTO sea_mq.endpoint_home SELECT n.* FROM sea_mq.here() n;
$$;
COMMENT ON FUNCTION sea_mq.come_home IS 'From now on the endpoints are served here; for internal use';

CREATE FUNCTION sea_mq.endpoint_named(endpoint text) RETURNS sea_mq.endpoint_definitions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions;
BEGIN
    SELECT t.* INTO e FROM sea_mq.endpoint_definitions t WHERE t.endpoint = endpoint_named.endpoint FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no endpoint "%"', endpoint
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.endpoints.';
    END IF;
    RETURN e;
END $$;
COMMENT ON FUNCTION sea_mq.endpoint_named IS 'An endpoint by its name, locked. Error 42704; for internal use';

-- What would be sent in another place, or read as something else, is refused before events are accepted.
CREATE FUNCTION sea_mq.check_endpoint_headers(headers jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h record;
BEGIN
    IF jsonb_typeof(headers) <> 'object' THEN
        RAISE EXCEPTION 'headers are an object of strings'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in ''{"X-Tenant": "acme"}''.';
    END IF;
    FOR h IN SELECT e.key, e.value, jsonb_typeof(e.value) AS kind FROM jsonb_each(headers) e LOOP
        IF h.key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,200}$' OR h.kind <> 'string' OR (h.value #>> '{}') ~ '[^\u0020-\u007e\u00a0-\u00ff]' THEN
            RAISE EXCEPTION 'header "%" is none', left(h.key, 100)
                USING ERRCODE = 'invalid_parameter_value', HINT = 'A name has letters, digits and -, a value is a string of one line.';
        ELSIF lower(h.key) ~ '^(host|content-.*|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|proxy-.*|accept-encoding|authorization|user-agent|webhook-.*|idempotency-key|ce-.*|cookie)$' THEN
            RAISE EXCEPTION 'header "%" is set by sea_mq', h.key
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out; for Authorization, use auth and sea_mq.set_secret.';
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.check_endpoint_headers IS 'Error 22023 if headers cannot be those of an endpoint; for internal use';

CREATE FUNCTION sea_mq.check_endpoint_auth(auth jsonb) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fields CONSTANT jsonb := '{"basic": ["type", "user", "password"], "bearer": ["type", "token"],
        "oauth2": ["type", "token_url", "client_id", "client_secret"], "mtls": ["type", "certificate", "key"],
        "nkey": ["type", "seed"], "creds": ["type", "creds"]}';
    wanted jsonb := fields -> (auth ->> 'type');
    given jsonb;
BEGIN
    SELECT jsonb_agg(a.key) INTO given FROM jsonb_each(CASE jsonb_typeof(auth) WHEN 'object' THEN auth ELSE '{}' END) a
    WHERE jsonb_typeof(a.value) = 'string' AND a.key <> 'scope';
    IF auth IS NOT NULL AND (wanted IS NULL OR given IS NULL OR NOT (given @> wanted AND wanted @> given)
        OR (auth ? 'scope' AND auth ->> 'type' <> 'oauth2')) THEN
        RAISE EXCEPTION 'auth cannot be understood'
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Use {"type": "basic", "user", "password"}, {"type": "bearer", "token"}, {"type": "oauth2", "token_url", "client_id", "client_secret", "scope"} or {"type": "mtls", "certificate", "key"}, and for kind nats {"type": "nkey", "seed"} or {"type": "creds", "creds"}; password, token, client_secret, certificate, key, seed and creds name secrets (sea_mq.set_secret).';
    END IF;
    IF auth ->> 'type' = 'oauth2' THEN
        PERFORM sea_mq.endpoint_url(auth ->> 'token_url');
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_endpoint_auth IS 'Error 22023 if auth cannot be understood; for internal use';

CREATE FUNCTION sea_mq.subjects_of(source text, filter text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN $2 IS NULL THEN ARRAY[sea_mq.subject_filter($1, NULL)]
        ELSE array(SELECT CASE WHEN $1 IS NULL AND f !~ '[*>]' AND f ~ '^[^.]+([.]v[0-9]+)?$'
            THEN replace(sea_mq.subject_filter('x', f), 'x.event.', '*.event.') ELSE sea_mq.subject_filter($1, f) END
            FROM unnest($2) WITH ORDINALITY u(f, place) ORDER BY place) END
$$;
COMMENT ON FUNCTION sea_mq.subjects_of IS 'The subjects that an endpoint''s filter stands for. Error 22023; for internal use';

CREATE FUNCTION sea_mq.check_described(e sea_mq.endpoint_definitions) RETURNS sea_mq.endpoint_definitions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF e.kind = 'nats' AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = sea_mq.caller()) THEN
        RAISE EXCEPTION 'only superusers make endpoints of kind nats'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Its client looks names up by itself, so it could reach what is not public.';
    END IF;
    e.url := CASE e.kind WHEN 'nats' THEN sea_mq.broker_url(e.url) ELSE sea_mq.endpoint_url(e.url) END;
    PERFORM sea_mq.check_endpoint_headers(e.headers);
    PERFORM sea_mq.check_endpoint_auth(e.auth);
    IF (e.kind = 'nats' AND e.auth ->> 'type' = 'oauth2') OR (e.kind <> 'nats' AND e.auth ->> 'type' IN ('nkey', 'creds')) THEN
        RAISE EXCEPTION 'auth of type % is not for endpoints of kind %', e.auth ->> 'type', e.kind
            USING ERRCODE = 'invalid_parameter_value', HINT = 'nats has basic, bearer, nkey, creds and mtls; the others have basic, bearer, oauth2 and mtls.';
    ELSIF e.kind = 'nats' AND e.format = 'cloudevents_batch' THEN
        RAISE EXCEPTION 'a message is one event'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use format standard, cloudevents_structured or template.';
    ELSIF e.kind = 'nats' AND EXISTS (SELECT FROM jsonb_object_keys(e.headers) h(name) WHERE lower(h.name) ~ '^nats-') THEN
        RAISE EXCEPTION 'headers that begin with Nats- are the broker''s'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave them out.';
    END IF;
    e.subject_filters := sea_mq.subjects_of(e.source, e.filter);
    RETURN e;
END $$;
COMMENT ON FUNCTION sea_mq.check_described IS 'An endpoint''s description in its normal form. Errors 22023, 42501; for internal use';

CREATE FUNCTION sea_mq.create_endpoint(
    endpoint text, kind text, url text, source text DEFAULT NULL, filter text[] DEFAULT NULL, audience text DEFAULT 'partner',
    format text DEFAULT 'standard', method text DEFAULT 'POST', headers jsonb DEFAULT NULL, body jsonb DEFAULT NULL,
    auth jsonb DEFAULT NULL, ordering text DEFAULT 'none', on_exhausted text DEFAULT 'continue', max_in_flight integer DEFAULT 16,
    rate double precision DEFAULT NULL, timeout interval DEFAULT '15 s', connect_timeout interval DEFAULT '5 s',
    retry_schedule interval[] DEFAULT NULL, max_age interval DEFAULT '76 h', max_size integer DEFAULT 262144,
    keep_response boolean DEFAULT false, start_from text DEFAULT 'new')
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    new sea_mq.endpoint_definitions;
    old sea_mq.endpoint_definitions;
BEGIN
    IF endpoint IS NULL OR kind IS NULL OR url IS NULL OR start_from IS NULL THEN
        RAISE EXCEPTION 'endpoint, kind, url and start_from must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.create_endpoint(''acme'', ''webhook'', ''https://acme.example/hook'').';
    END IF;
    new := ROW(NULL, endpoint, kind, url, sea_mq.context_name(source), filter, NULL, audience, format, method, coalesce(headers, '{}'), body, auth, ordering,
        on_exhausted, max_in_flight, rate, timeout, connect_timeout, retry_schedule, max_age, max_size, keep_response, start_from,
        CASE WHEN start_from = 'new' THEN clock_timestamp() WHEN start_from <> 'all' THEN sea_mq.start_time(start_from) END,
        false, pg_get_userbyid(sea_mq.caller()), now(), now(), NULL);
    new := sea_mq.check_described(new);
    SELECT e.* INTO old FROM sea_mq.endpoint_definitions e WHERE e.endpoint = new.endpoint;
    IF FOUND THEN
        IF to_jsonb(old) - '{id,start_at,paused,created_by,created_by_oid,created_at,updated_at}'::text[]
            <> to_jsonb(new) - '{id,start_at,paused,created_by,created_by_oid,created_at,updated_at}'::text[] THEN
            RAISE EXCEPTION 'there is an endpoint "%" already, and it is another one', endpoint
                USING ERRCODE = 'duplicate_object', HINT = 'Change it with sea_mq.alter_endpoint, or drop it first.';
        END IF;
        RETURN new.endpoint;
    END IF;
    IF NOT EXISTS (SELECT FROM sea_mq.endpoint_definitions) AND NOT sea_mq.is_home() THEN
        PERFORM sea_mq.come_home();
    END IF;
    new.id := nextval('sea_mq.endpoint_definitions_id_seq');
    INSERT INTO sea_mq.endpoint_definitions SELECT new.*;
    PERFORM sea_mq.begin_reading(new, true);
    INSERT INTO sea_mq.endpoint_health (endpoint_id, state) VALUES (new.id, 'active');
    IF kind = 'webhook' THEN
        PERFORM sea_mq.put_secret(new.id, 'signing', sea_mq.generate_secret(false));
    END IF;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN new.endpoint;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the endpoint cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'timeout is 100 ms to 1 hour, max_in_flight 1 to 1024, and a body goes with format template; see the constraints of sea_mq.endpoints for the others.';
WHEN unique_violation THEN
    RAISE EXCEPTION 'there is an endpoint "%" already', endpoint
        USING ERRCODE = 'duplicate_object', HINT = 'Change it with sea_mq.alter_endpoint, or drop it first.';
END $$;
COMMENT ON FUNCTION sea_mq.create_endpoint IS
'Describes an endpoint outside that gets events, and returns its name; the dispatcher delivers to it. Parameters are the columns of
sea_mq.endpoints. Repeating the same call is a no-op. A webhook''s signing secret is made here, and shown by sea_mq.rotate_secret.
Errors: 22004, 22023, 42501 (kind nats), 42710 (another one has that name)';

-- A reader for each context that the endpoint gets events of. What is new begins where the log ends now; a context that comes later
-- begins with its first event.
CREATE FUNCTION sea_mq.begin_reading(e sea_mq.endpoint_definitions, is_new boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    position jsonb := CASE WHEN is_new AND e.start_from = 'new' THEN sea_mq.log_position() END;
    r bigint;
BEGIN
    FOR r IN
        INSERT INTO sea_mq.endpoint_readers (endpoint_id, context)
        SELECT e.id, c.context FROM (SELECT s.context FROM sea_mq.streams s WHERE s.kind = 'event' UNION SELECT e.source) c
        WHERE c.context IS NOT NULL AND c.context = coalesce(e.source, c.context) AND cardinality(e.subject_filters) > 0
        ON CONFLICT DO NOTHING RETURNING reader
    LOOP
        IF position IS NOT NULL THEN
            INSERT INTO sea_mq.cursor_log (slot, reader_kind, reader, done, next_xid, floor)
            VALUES (0, 'endpoint', r, (position ->> 'done')::pg_snapshot, (position ->> 'next_xid')::bigint, (position ->> 'floor')::bigint);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.begin_reading IS 'Gives an endpoint the readers that it lacks; for internal use';

CREATE FUNCTION sea_mq.alter_endpoint(
    endpoint text, url text DEFAULT NULL, filter text[] DEFAULT NULL, audience text DEFAULT NULL, format text DEFAULT NULL,
    method text DEFAULT NULL, headers jsonb DEFAULT NULL, body jsonb DEFAULT NULL, auth jsonb DEFAULT NULL, ordering text DEFAULT NULL,
    on_exhausted text DEFAULT NULL, max_in_flight integer DEFAULT NULL, rate double precision DEFAULT NULL, timeout interval DEFAULT NULL,
    connect_timeout interval DEFAULT NULL, retry_schedule interval[] DEFAULT NULL, max_age interval DEFAULT NULL,
    max_size integer DEFAULT NULL, keep_response boolean DEFAULT NULL)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
BEGIN
    e.url := coalesce(url, e.url);
    e.filter := coalesce(filter, e.filter);
    e.audience := coalesce(audience, e.audience);
    e.format := coalesce(format, e.format);
    e.method := coalesce(method, e.method);
    e.headers := coalesce(headers, e.headers);
    e.body := CASE e.format WHEN 'template' THEN coalesce(body, e.body) ELSE body END;
    e.auth := CASE WHEN auth = 'null' THEN NULL ELSE coalesce(auth, e.auth) END;
    e.ordering := coalesce(ordering, e.ordering);
    e.on_exhausted := coalesce(on_exhausted, e.on_exhausted);
    e.max_in_flight := coalesce(max_in_flight, e.max_in_flight);
    e.rate := CASE WHEN rate = 'Infinity' THEN NULL ELSE coalesce(rate, e.rate) END;
    e.timeout := coalesce(timeout, e.timeout);
    e.connect_timeout := coalesce(connect_timeout, e.connect_timeout);
    e.retry_schedule := coalesce(retry_schedule, e.retry_schedule);
    e.max_age := coalesce(max_age, e.max_age);
    e.max_size := coalesce(max_size, e.max_size);
    e.keep_response := coalesce(keep_response, e.keep_response);
    e := sea_mq.check_described(e);
    UPDATE sea_mq.endpoint_definitions t SET url = e.url, filter = e.filter, subject_filters = e.subject_filters, audience = e.audience,
        format = e.format, method = e.method, headers = e.headers, body = e.body, auth = e.auth, ordering = e.ordering,
        on_exhausted = e.on_exhausted, max_in_flight = e.max_in_flight, rate = e.rate, timeout = e.timeout,
        connect_timeout = e.connect_timeout, retry_schedule = e.retry_schedule, max_age = e.max_age, max_size = e.max_size,
        keep_response = e.keep_response, updated_at = clock_timestamp()
    WHERE t.id = e.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN e.endpoint;
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'the endpoint cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'timeout is 100 ms to 1 hour, max_in_flight 1 to 1024, and a body goes with format template; see the constraints of sea_mq.endpoints for the others.';
END $$;
COMMENT ON FUNCTION sea_mq.alter_endpoint IS
'Changes the description of an endpoint; NULL leaves a setting as it is (auth ''null'' takes it away, rate ''Infinity'' the bound). What
waits for another attempt keeps its bytes. Errors: 22023, 42501, 42704';

CREATE FUNCTION sea_mq.set_endpoint_paused(endpoint text, paused boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
BEGIN
    UPDATE sea_mq.endpoint_definitions t SET paused = set_endpoint_paused.paused, updated_at = clock_timestamp() WHERE t.id = e.id;
    IF NOT set_endpoint_paused.paused THEN
        -- Whoever resumes it has looked.
        UPDATE sea_mq.endpoint_health h SET state = 'active', error_kind = NULL, error = NULL, hint = NULL, since = now() WHERE h.endpoint_id = e.id;
    END IF;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN e.endpoint;
END $$;
COMMENT ON FUNCTION sea_mq.set_endpoint_paused IS 'What pause_endpoint and resume_endpoint do; for internal use';
CREATE FUNCTION sea_mq.pause_endpoint(endpoint text) RETURNS text LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
'SELECT sea_mq.set_endpoint_paused($1, true)';
COMMENT ON FUNCTION sea_mq.pause_endpoint IS 'Sends nothing more to an endpoint until it is resumed; its events wait. Error 42704';
CREATE FUNCTION sea_mq.resume_endpoint(endpoint text) RETURNS text LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
'SELECT sea_mq.set_endpoint_paused($1, false)';
COMMENT ON FUNCTION sea_mq.resume_endpoint IS 'Goes on with an endpoint that was paused, or that waits for a person (refused, gone). Error 42704';

CREATE FUNCTION sea_mq.drop_endpoint(endpoint text, discard_pending boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    waiting bigint;
BEGIN
    SELECT count(*) INTO waiting FROM sea_mq.delivery_pending p WHERE p.endpoint_id = e.id AND p.status IN ('pending', 'retrying', 'parked');
    IF waiting > 0 AND NOT discard_pending THEN
        RAISE EXCEPTION 'endpoint "%" has % deliveries that wait', endpoint, waiting
            USING ERRCODE = 'object_in_use', HINT = 'Wait until they are delivered, or give them up with discard_pending => true.';
    END IF;
    IF EXISTS (SELECT FROM sea_mq.subscriptions s WHERE s.endpoint = e.endpoint) THEN
        RAISE EXCEPTION 'endpoint "%" handles subscription "%"', endpoint, (SELECT min(s.subscription) FROM sea_mq.subscriptions s WHERE s.endpoint = e.endpoint)
            USING ERRCODE = 'object_in_use', HINT = 'Unsubscribe it, or name another endpoint with sea_mq.alter_subscription.';
    END IF;
    DELETE FROM sea_mq.delivery_pending p WHERE p.endpoint_id = e.id;
    DELETE FROM sea_mq.endpoint_secrets s WHERE s.endpoint_id = e.id;
    DELETE FROM sea_mq.endpoint_readers r WHERE r.endpoint_id = e.id;
    DELETE FROM sea_mq.endpoint_health h WHERE h.endpoint_id = e.id;
    DELETE FROM sea_mq.dropped_deliveries d WHERE d.endpoint_id = e.id;
    DELETE FROM sea_mq.endpoint_definitions t WHERE t.id = e.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN e.endpoint;
END $$;
COMMENT ON FUNCTION sea_mq.drop_endpoint IS
'Removes an endpoint. Refused while deliveries wait for another attempt, unless discard_pending is true, and while it handles a subscription.
Errors: 42704, 55006';

CREATE FUNCTION sea_mq.forget_dropped(endpoint text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    forgotten bigint;
BEGIN
    DELETE FROM sea_mq.dropped_deliveries d WHERE d.endpoint_id = e.id RETURNING d.events INTO forgotten;
    RETURN coalesce(forgotten, 0);
END $$;
COMMENT ON FUNCTION sea_mq.forget_dropped IS
'Ends the problem that events were dropped before an endpoint got them: sent in another way, or given up. Returns how many. Error 42704';

CREATE FUNCTION sea_mq.put_secret(endpoint_id bigint, name text, value text, grace interval DEFAULT '0') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    version bigint := nextval('sea_mq.position_number');
BEGIN
    DELETE FROM sea_mq.endpoint_secrets s WHERE s.endpoint_id = put_secret.endpoint_id AND s.name = put_secret.name
        AND (s.expires_at < now() OR grace <= '0');
    UPDATE sea_mq.endpoint_secrets s SET expires_at = least(s.expires_at, now() + grace)
    WHERE s.endpoint_id = put_secret.endpoint_id AND s.name = put_secret.name;
    INSERT INTO sea_mq.endpoint_secrets (endpoint_id, name, version, sealed)
    VALUES (put_secret.endpoint_id, put_secret.name, version, sea_mq.seal_secret(put_secret.endpoint_id, put_secret.name, version, value));
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'the name of a secret has letters, digits, _, . and -'
        USING ERRCODE = 'invalid_parameter_value', HINT = 'As in sea_mq.set_secret(''acme'', ''token'', ''…'').';
END $$;
COMMENT ON FUNCTION sea_mq.put_secret IS 'Stores a secret; the one before is used for as long as grace says; for internal use';

CREATE FUNCTION sea_mq.rotate_secret(endpoint text, grace interval DEFAULT '24 h', scheme text DEFAULT 'v1') RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    secret text := sea_mq.generate_secret(scheme = 'v1a');
BEGIN
    IF scheme IS NULL OR scheme NOT IN ('v1', 'v1a') OR grace IS NULL OR grace > '1 year' THEN
        RAISE EXCEPTION 'scheme is v1 or v1a, and grace a year at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'v1 is a secret that both sides know, v1a a key pair.';
    END IF;
    PERFORM sea_mq.put_secret(e.id, 'signing', secret, grace);
    UPDATE sea_mq.endpoint_definitions t SET updated_at = clock_timestamp() WHERE t.id = e.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN sea_mq.public_key(secret);
END $$;
COMMENT ON FUNCTION sea_mq.rotate_secret IS
'Makes a new signing secret and returns it, once (scheme v1a: its public key). Deliveries are signed with the old one as well until
grace is over. Errors: 22023, 42704';

CREATE FUNCTION sea_mq.set_secret(endpoint text, name text, value text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
BEGIN
    IF name IS NULL OR value IS NULL THEN
        RAISE EXCEPTION 'name and value must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.set_secret(''acme'', ''token'', $1).';
    ELSIF name = 'signing' THEN
        PERFORM sea_mq.public_key(value);
    END IF;
    PERFORM sea_mq.put_secret(e.id, name, value);
    UPDATE sea_mq.endpoint_definitions t SET updated_at = clock_timestamp() WHERE t.id = e.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN name;
END $$;
COMMENT ON FUNCTION sea_mq.set_secret IS
'Sets a secret of an endpoint, which auth names; signing: what deliveries are signed with (whsec_… or whsk_…). Pass the value as a
parameter, so that it is in no statement''s text. Errors: 22004, 22023, 42704';

CREATE FUNCTION sea_mq.check_endpoint(endpoint text) RETURNS TABLE (step text, ok boolean, detail text)
LANGUAGE c VOLATILE STRICT ROWS 5 AS 'MODULE_PATHNAME', 'check_endpoint_wrapper';
COMMENT ON FUNCTION sea_mq.check_endpoint IS
'Sends an event of type ping to an endpoint, from this session and whatever its state is, and says how far it came: secrets, resolves,
connects, tls, answers. ok is NULL for what it did not come to. Waits for the answer as long as the endpoint''s timeouts. Error 42704';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.create_endpoint, sea_mq.alter_endpoint, sea_mq.set_endpoint_paused, sea_mq.pause_endpoint,
    sea_mq.resume_endpoint, sea_mq.drop_endpoint, sea_mq.forget_dropped, sea_mq.rotate_secret, sea_mq.set_secret,
    sea_mq.check_endpoint TO sea_mq_operator;

-- Deliveries: what is sent, what became of it, and what people do about it.
CREATE FUNCTION sea_mq.render_event(event jsonb, format text) RETURNS jsonb
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'render_event_wrapper';
COMMENT ON FUNCTION sea_mq.render_event IS 'An event in a format: {body, headers}; for internal use';

CREATE FUNCTION sea_mq.wire_format(kind text, format text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT CASE $1 WHEN 'nats' THEN 'nats:' || $2 ELSE $2 END $$;
COMMENT ON FUNCTION sea_mq.wire_format IS 'A format as it is rendered: messages have other headers than requests; for internal use';

-- NULL: its audience may not see it. For the inside of the door, which is not opened again for each event.
CREATE FUNCTION sea_mq.outgoing(event sea_mq.event, audience text, format text, template jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen sea_mq.event := sea_mq_inside.external_view(event, audience);
    whole jsonb;
    made jsonb;
BEGIN
    IF seen IS NULL OR seen.id IS NULL THEN
        RETURN NULL;
    END IF;
    IF format LIKE 'nats:%' AND audience IN ('internal', 'sensitive') THEN
        -- What ties events together is for those inside.
        seen.headers := event.headers;
        seen.correlation_id := event.correlation_id;
        seen.causation_id := event.causation_id;
    END IF;
    whole := to_jsonb(seen) || jsonb_build_object('created_at', to_char(seen.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
    IF format LIKE 'nats:%' THEN
        made := sea_mq.render_event(whole || jsonb_build_object('created_us',
            (extract(epoch FROM seen.created_at - '2000-01-01 00:00:00+00') * 1000000)::bigint), format);
        RETURN CASE format WHEN 'nats:template' THEN made || jsonb_build_object('body', sea_mq.map_fields(template, whole)::text) ELSE made END;
    ELSIF format = 'template' THEN
        RETURN jsonb_build_object('body', sea_mq.map_fields(template, whole)::text, 'headers', '{"content-type": "application/json"}'::jsonb);
    END IF;
    RETURN sea_mq.render_event(whole, format);
END $$;
COMMENT ON FUNCTION sea_mq.outgoing IS 'What is sent of an event: {body, headers}, or NULL if the audience may not see it; for internal use';

CREATE FUNCTION sea_mq.outgoing_rows(seqs text, audience text, format text, template jsonb,
    OUT seq bigint, OUT body text, OUT headers text, OUT error text)
RETURNS SETOF record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    l sea_mq.outbox_log;
    made jsonb;
BEGIN
    FOR l IN SELECT o.* FROM sea_mq.outbox_log o WHERE o.seq = ANY (seqs::bigint[]) LOOP
        seq := l.seq;
        error := NULL;
        BEGIN
            made := sea_mq.outgoing(ROW(l.id, l.id::text, NULL, l.context, l.event_type, l.event_version,
                coalesce(l.subject, concat_ws('.', l.context, 'event', l.event_type, 'v' || l.event_version)), l.aggregate_type, l.aggregate_id,
                l.payload::jsonb, CASE WHEN format LIKE 'nats:%' THEN coalesce(l.headers::jsonb, '{}') ELSE '{}' END,
                coalesce(l.correlation_id, l.id::text), l.causation_id, l.visibility, NULL, NULL, l.created_at)::sea_mq.event,
                audience, format, template);
        EXCEPTION WHEN OTHERS THEN
            error := SQLERRM;
            made := NULL;
        END;
        body := made ->> 'body';
        headers := (made -> 'headers')::text;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.outgoing_rows IS 'What is sent of events at these places of the log; without a body: the audience may not see it, or error says why it cannot be made; for internal use';

CREATE FUNCTION sea_mq.deliver(endpoint text, event_type text, payload jsonb, event_id uuid DEFAULT NULL, event_version integer DEFAULT 1,
    context text DEFAULT NULL, aggregate_type text DEFAULT NULL, aggregate_id text DEFAULT NULL, correlation_id text DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    e sea_mq.endpoint_definitions;
    ctx text;
    name text := sea_mq.event_name(event_type);
    id uuid := event_id;
    made jsonb;
    before sea_mq.delivery_pending;
BEGIN
    SELECT t.* INTO e FROM sea_mq.endpoint_definitions t WHERE t.endpoint = deliver.endpoint;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no endpoint "%"', endpoint USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.endpoints.';
    ELSIF event_type IS NULL OR payload IS NULL THEN
        RAISE EXCEPTION 'event_type and payload must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.deliver(''acme'', ''InvoicePaid'', ''{"number": 7}'').';
    END IF;
    ctx := sea_mq.context_name(coalesce(context, nullif(current_setting('sea_mq.context', true), ''), e.source));
    IF ctx IS NULL THEN
        RAISE EXCEPTION 'the context is not known'
            USING ERRCODE = 'undefined_object', HINT = 'Pass context, or set sea_mq.context for the database.';
    END IF;
    id := coalesce(id, left(encode(sha256(convert_to(jsonb_build_array(endpoint, ctx, name, event_version, aggregate_type, aggregate_id,
        payload)::text, 'UTF8')), 'hex'), 32)::uuid);
    made := sea_mq.outgoing(ROW(id, id::text, NULL, ctx, name, coalesce(event_version, 1), concat_ws('.', ctx, 'event', name, 'v' || coalesce(event_version, 1)),
        coalesce(aggregate_type, ''), coalesce(aggregate_id, ''), payload, '{}', coalesce(correlation_id, id::text), NULL, e.audience, NULL, NULL,
        clock_timestamp())::sea_mq.event, e.audience, sea_mq.wire_format(e.kind, e.format), e.body);
    IF made IS NULL OR made ->> 'body' IS NULL THEN
        RAISE EXCEPTION 'the event cannot be rendered for endpoint "%"', endpoint
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Look at its format and template.';
    ELSIF octet_length(made ->> 'body') > e.max_size THEN
        RAISE EXCEPTION 'the body has % bytes, and endpoint "%" takes % at most', octet_length(made ->> 'body'), endpoint, e.max_size
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Send less, or raise max_size with sea_mq.alter_endpoint.';
    END IF;
    IF sea_mq.delivery_done(id, e.id) THEN
        RETURN id;
    END IF;
    INSERT INTO sea_mq.delivery_pending AS p (endpoint_id, event_id, status, seq, key, context, event_type, event_version, aggregate_type,
        aggregate_id, body, headers, next_attempt_at)
    VALUES (e.id, id, 'pending', nextval('sea_mq.outbox_seq'), CASE WHEN aggregate_id IS NOT NULL THEN concat_ws('/', aggregate_type, aggregate_id) END,
        ctx, name, coalesce(event_version, 1), aggregate_type, aggregate_id, convert_to(made ->> 'body', 'UTF8'), made -> 'headers', clock_timestamp())
    ON CONFLICT ON CONSTRAINT delivery_pending_pkey DO NOTHING;
    IF NOT FOUND THEN
        SELECT p.* INTO before FROM sea_mq.delivery_pending p WHERE p.endpoint_id = e.id AND p.event_id = id;
        IF before.event_type <> name OR before.context <> ctx THEN
            RAISE EXCEPTION 'event id % was used for another delivery', id
                USING ERRCODE = 'unique_violation', HINT = 'Use a new id, or none.';
        END IF;
    END IF;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN id;
END $$;
COMMENT ON FUNCTION sea_mq.deliver IS
'Sends an event to one endpoint, in the current transaction, and returns its id; without event_id a stable one of the content. The same
id is delivered once. Errors: 22004, 22023, 23505, 42704, 54000 (too large; the limit is in the error)';

CREATE FUNCTION sea_mq.delivery_done(event_id uuid, endpoint_id bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT EXISTS (SELECT FROM sea_mq.delivery_log l WHERE l.event_id = $1 AND l.endpoint_id = $2)
$$;
COMMENT ON FUNCTION sea_mq.delivery_done IS 'Whether a delivery is in the log of those that are done; for internal use';

-- Of these events, those that were settled or wait already: after a crash some are read again.
CREATE FUNCTION sea_mq.deliveries_known(endpoint_id bigint, ids text) RETURNS SETOF uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.event_id FROM sea_mq.delivery_log l WHERE l.event_id = ANY ($2::uuid[]) AND l.endpoint_id = $1
    UNION SELECT p.event_id FROM sea_mq.delivery_pending p WHERE p.event_id = ANY ($2::uuid[]) AND p.endpoint_id = $1
$$;
COMMENT ON FUNCTION sea_mq.deliveries_known IS 'Which of these events an endpoint has got, or has waiting; for internal use';

-- One more error in the history of a delivery; of many, the first and the last are kept.
CREATE FUNCTION sea_mq.with_delivery_error(errors jsonb, attempt integer, kind text, http_status smallint, error text, response text) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_array_length($1) >= 20 THEN $1 - 10 ELSE $1 END || jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'at', clock_timestamp(), 'attempt', $2, 'kind', $3, 'http_status', $4, 'error', left($5, 1000), 'response', left($6, 16384))))
$$;
COMMENT ON FUNCTION sea_mq.with_delivery_error IS 'The history of errors with one more; for internal use';

-- Gives a delivery up: it is a dead letter of subscription endpoint:{name}, and its bytes are kept for a replay.
CREATE FUNCTION sea_mq.give_up_delivery(endpoint_id bigint, event_id uuid, status text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    p sea_mq.delivery_pending;
    name text := (SELECT e.endpoint FROM sea_mq.endpoint_definitions e WHERE e.id = endpoint_id);
    letter bigint;
    payload jsonb;
BEGIN
    SELECT d.* INTO p FROM sea_mq.delivery_pending d WHERE d.endpoint_id = give_up_delivery.endpoint_id AND d.event_id = give_up_delivery.event_id;
    IF NOT FOUND OR name IS NULL THEN
        RETURN NULL;
    END IF;
    BEGIN
        payload := convert_from(p.body, 'UTF8')::jsonb;
    EXCEPTION WHEN OTHERS THEN
        payload := to_jsonb(convert_from(p.body, 'UTF8'));
    END;
    INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, message_id, source_context, event_type, event_version, aggregate_type,
        aggregate_id, payload, headers, reason, failure_count, error, errors, first_failed_at, last_failed_at, dlq_message_id)
    VALUES (p.context, concat_ws('.', p.context, 'event', p.event_type, 'v' || p.event_version), 'endpoint:' || name, p.event_id::text, p.context,
        p.event_type, p.event_version, p.aggregate_type, p.aggregate_id, payload, p.headers,
        CASE status WHEN 'exhausted' THEN 'exhausted' ELSE 'poison' END, p.attempts, left(p.error, 2000), p.errors,
        coalesce(p.first_attempt_at, clock_timestamp()), clock_timestamp(), gen_random_uuid()::text)
    RETURNING id INTO letter;
    UPDATE sea_mq.delivery_pending d SET status = give_up_delivery.status, dead_letter = letter, next_attempt_at = NULL
    WHERE d.endpoint_id = give_up_delivery.endpoint_id AND d.event_id = give_up_delivery.event_id;
    RETURN letter;
END $$;
COMMENT ON FUNCTION sea_mq.give_up_delivery IS 'Makes a dead letter of a delivery that waits, and returns its number; for internal use';

-- What was given up is sent once more, with the same id and bytes.
CREATE FUNCTION sea_mq.replay_delivery(letter sea_mq.dlq_messages, payload jsonb) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    p sea_mq.delivery_pending;
BEGIN
    UPDATE sea_mq.delivery_pending d SET status = 'pending', dead_letter = NULL, counted = 0, first_attempt_at = NULL,
        next_attempt_at = clock_timestamp(), body = coalesce(convert_to(payload::text, 'UTF8'), d.body)
    WHERE d.dead_letter = letter.id RETURNING * INTO p;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'dead letter % can be replayed nowhere', letter.id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Its endpoint was dropped.';
    END IF;
    UPDATE sea_mq.dlq_messages d SET replayed_at = clock_timestamp(), replay_event_id = p.event_id,
        replayed_by = sea_mq.caller_name(), actor = sea_mq.actor()
    WHERE d.id = letter.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN p.event_id;
END $$;
COMMENT ON FUNCTION sea_mq.replay_delivery IS 'Sends what an endpoint did not take once more, to it alone; for internal use';

CREATE FUNCTION sea_mq.discard_delivery(letter bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH gone AS (DELETE FROM sea_mq.delivery_pending d WHERE d.dead_letter = $1 RETURNING d.*)
    INSERT INTO sea_mq.delivery_log (slot, http_status, attempts, endpoint_id, finished_at, event_id, duration, status, error, errors)
    SELECT r.current_slot, g.http_status, g.attempts, g.endpoint_id, clock_timestamp(), g.event_id, g.duration, g.status, g.error, g.errors
    FROM gone g, sea_mq.delivery_ring r
    ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION sea_mq.discard_delivery IS 'Nothing more is done about a delivery that was given up; for internal use';

CREATE FUNCTION sea_mq.redeliver(event_id uuid, endpoint text) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    p sea_mq.delivery_pending;
    l sea_mq.outbox_log;
    made record;
BEGIN
    SELECT d.* INTO p FROM sea_mq.delivery_pending d WHERE d.endpoint_id = e.id AND d.event_id = redeliver.event_id FOR UPDATE;
    IF FOUND AND p.dead_letter IS NOT NULL THEN
        RETURN sea_mq.dlq_replay(p.dead_letter);
    ELSIF FOUND THEN
        UPDATE sea_mq.delivery_pending d SET next_attempt_at = clock_timestamp()
        WHERE d.endpoint_id = e.id AND d.event_id = redeliver.event_id AND d.status IN ('pending', 'retrying');
    ELSE
        SELECT o.* INTO l FROM (SELECT i.* FROM sea_mq.outbox_log i WHERE i.id = redeliver.event_id OFFSET 0) o ORDER BY o.seq DESC LIMIT 1;
        SELECT r.* INTO made FROM sea_mq.outgoing_rows(ARRAY[l.seq]::text, e.audience, sea_mq.wire_format(e.kind, e.format), e.body) r;
        IF l.id IS NULL OR made.body IS NULL THEN
            RAISE EXCEPTION 'event % cannot be delivered again', event_id
                USING ERRCODE = 'undefined_object', HINT = coalesce(made.error, 'It is not retained any more, or its visibility does not reach the endpoint.');
        END IF;
        DELETE FROM sea_mq.delivery_log d WHERE d.event_id = redeliver.event_id AND d.endpoint_id = e.id;
        INSERT INTO sea_mq.delivery_pending (endpoint_id, event_id, status, seq, key, context, event_type, event_version, aggregate_type,
            aggregate_id, body, headers, next_attempt_at)
        VALUES (e.id, l.id, 'pending', nextval('sea_mq.outbox_seq'), concat_ws('/', l.aggregate_type, l.aggregate_id), l.context, l.event_type,
            l.event_version, l.aggregate_type, l.aggregate_id, convert_to(made.body, 'UTF8'), made.headers::jsonb, clock_timestamp());
    END IF;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN event_id;
END $$;
COMMENT ON FUNCTION sea_mq.redeliver IS
'Sends an event to one endpoint once more, with the same id: what was given up or waits (with the same bytes), or what was delivered, as long as it
is retained. Error 42704: no such endpoint, or the event is not retained';

CREATE FUNCTION sea_mq.redeliver_all(endpoint text, since timestamptz, until timestamptz DEFAULT now()) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    again bigint := 0;
    id uuid;
BEGIN
    FOR id IN
        SELECT p.event_id FROM sea_mq.delivery_pending p
        WHERE p.endpoint_id = e.id AND p.dead_letter IS NOT NULL AND p.created_at >= since AND p.created_at <= until
        UNION ALL
        SELECT l.event_id FROM sea_mq.delivery_log l
        WHERE l.endpoint_id = e.id AND l.finished_at >= since AND l.finished_at <= until
            AND EXISTS (SELECT FROM sea_mq.outbox_log o WHERE o.id = l.event_id)
    LOOP
        PERFORM sea_mq.redeliver(id, endpoint);
        again := again + 1;
    END LOOP;
    RETURN again;
END $$;
COMMENT ON FUNCTION sea_mq.redeliver_all IS
'Sends once more what an endpoint got, or did not take, between two times, as far as it is retained; returns how many. Error 42704';

CREATE FUNCTION sea_mq.cancel_delivery(event_id uuid, endpoint text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    p sea_mq.delivery_pending;
BEGIN
    DELETE FROM sea_mq.delivery_pending d WHERE d.endpoint_id = e.id AND d.event_id = cancel_delivery.event_id
        AND d.status IN ('pending', 'retrying', 'parked') RETURNING * INTO p;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO sea_mq.delivery_log (slot, http_status, attempts, endpoint_id, finished_at, event_id, duration, status, error, errors)
    SELECT r.current_slot, p.http_status, p.attempts, e.id, clock_timestamp(), p.event_id, p.duration, 'cancelled', p.error, p.errors
    FROM sea_mq.delivery_ring r ON CONFLICT DO NOTHING;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN true;
END $$;
COMMENT ON FUNCTION sea_mq.cancel_delivery IS
'Gives up a delivery that waits; false if it does not. An attempt that is under way ends as it ends. Error 42704: no such endpoint';

-- A restored dump is adopted: places in the log mean nothing here. What endpoints have not got is kept as deliveries of their own.
CREATE FUNCTION sea_mq.keep_for_endpoints() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO sea_mq.delivery_pending (endpoint_id, event_id, status, seq, key, context, event_type, event_version, aggregate_type,
        aggregate_id, body, headers, next_attempt_at)
    SELECT e.id, l.id, 'pending', nextval('sea_mq.outbox_seq'), concat_ws('/', l.aggregate_type, l.aggregate_id), l.context, l.event_type,
        l.event_version, l.aggregate_type, l.aggregate_id, convert_to(o.body, 'UTF8'), o.headers::jsonb, clock_timestamp()
    FROM sea_mq.endpoint_definitions e
    JOIN sea_mq.endpoint_readers r ON r.endpoint_id = e.id
    LEFT JOIN sea_mq.cursors p ON p.reader_kind = 'endpoint' AND p.reader = r.reader
    JOIN sea_mq.outbox_log l ON l.sink = sea_mq.sink_id(r.context, 'event')
    CROSS JOIN LATERAL sea_mq.outgoing_rows(ARRAY[l.seq]::text, e.audience, sea_mq.wire_format(e.kind, e.format), e.body) o
    WHERE (p.done IS NULL OR NOT (pg_visible_in_snapshot(l.xid, p.done)
            OR (p.batch_upto IS NOT NULL AND l.seq <= p.batch_at AND pg_visible_in_snapshot(l.xid, p.batch_upto))))
        AND (e.start_at IS NULL OR l.created_at >= e.start_at) AND NOT sea_mq.delivery_done(l.id, e.id) AND o.body IS NOT NULL
        AND sea_mq.covers_subject(e.subject_filters, coalesce(l.subject, concat_ws('.', l.context, 'event', l.event_type, 'v' || l.event_version)))
    ON CONFLICT ON CONSTRAINT delivery_pending_pkey DO NOTHING;
END $$;
COMMENT ON FUNCTION sea_mq.keep_for_endpoints IS 'Makes deliveries of what endpoints have not got, when a restored dump is adopted; for internal use';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.deliver, sea_mq.redeliver, sea_mq.redeliver_all, sea_mq.cancel_delivery TO sea_mq_operator;

-- What the dispatcher reads and writes.
CREATE FUNCTION sea_mq.endpoint_descriptions() RETURNS TABLE (description text, state text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('id', e.id, 'name', e.endpoint, 'kind', e.kind, 'url', e.url, 'subject_filters', e.subject_filters,
        'audience', e.audience, 'format', sea_mq.wire_format(e.kind, e.format), 'method', e.method, 'headers', e.headers, 'template', e.body::text, 'auth', e.auth,
        'ordering', e.ordering, 'pauses', e.on_exhausted = 'pause', 'max_in_flight', e.max_in_flight, 'rate', e.rate,
        'timeout_ms', round(extract(epoch FROM e.timeout) * 1000)::bigint,
        'connect_timeout_ms', round(extract(epoch FROM e.connect_timeout) * 1000)::bigint,
        'schedule_ms', (SELECT jsonb_agg(round(extract(epoch FROM u.wait) * 1000)::bigint ORDER BY u.place)
            FROM unnest(e.retry_schedule) WITH ORDINALITY u(wait, place)),
        'max_age_ms', round(extract(epoch FROM e.max_age) * 1000)::bigint, 'max_size', e.max_size, 'keep_response', e.keep_response,
        'start_us', (extract(epoch FROM e.start_at - '2000-01-01 00:00:00+00') * 1000000)::bigint, 'paused', e.paused, 'updated_at', e.updated_at,
        'readers', (SELECT coalesce(jsonb_agg(jsonb_build_array(r.reader, r.context) ORDER BY r.reader), '[]')
            FROM sea_mq.endpoint_readers r WHERE r.endpoint_id = e.id),
        'secrets', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', s.name, 'version', s.version, 'sealed', encode(s.sealed, 'hex'))
                ORDER BY s.version DESC), '[]')
            FROM sea_mq.endpoint_secrets s WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())))::text,
        h.state
    FROM sea_mq.endpoint_definitions e LEFT JOIN sea_mq.endpoint_health h ON h.endpoint_id = e.id ORDER BY e.id
$$;
COMMENT ON FUNCTION sea_mq.endpoint_descriptions IS 'Endpoints for the dispatcher, as JSON; for internal use';

CREATE FUNCTION sea_mq.begin_new_contexts() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT sea_mq.begin_reading(e, false) FROM sea_mq.endpoint_definitions e
    WHERE cardinality(e.subject_filters) > 0 AND EXISTS (SELECT FROM sea_mq.streams s WHERE s.kind = 'event' AND s.context = coalesce(e.source, s.context)
        AND NOT EXISTS (SELECT FROM sea_mq.endpoint_readers r WHERE r.endpoint_id = e.id AND r.context = s.context))
$$;
COMMENT ON FUNCTION sea_mq.begin_new_contexts IS 'Gives endpoints readers for contexts that have come since; for internal use';

CREATE FUNCTION sea_mq.due_deliveries(endpoint_id bigint, all_of_them boolean)
RETURNS TABLE (event_id uuid, seq bigint, key text, due_ms bigint, counted integer, age_ms bigint, attempts integer)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    (SELECT p.event_id, p.seq, p.key, round(extract(epoch FROM p.next_attempt_at - clock_timestamp()) * 1000)::bigint, p.counted,
        round(extract(epoch FROM clock_timestamp() - p.first_attempt_at) * 1000)::bigint, p.attempts
    FROM sea_mq.delivery_pending p
    WHERE p.endpoint_id = $1 AND p.status IN ('pending', 'retrying') AND (p.next_attempt_at <= clock_timestamp() + interval '5 s' OR $2)
    ORDER BY p.next_attempt_at, p.seq LIMIT CASE WHEN $2 THEN 20000 ELSE 1000 END)
    UNION ALL
    (SELECT p.event_id, p.seq, p.key, NULL, p.counted, NULL, p.attempts FROM sea_mq.delivery_pending p
    WHERE p.endpoint_id = $1 AND p.status = 'parked' AND $2 ORDER BY p.seq LIMIT 20000)
$$;
COMMENT ON FUNCTION sea_mq.due_deliveries IS 'Deliveries of an endpoint that are due soon, or all; for internal use';

CREATE FUNCTION sea_mq.waiting_deliveries(endpoint_id bigint) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT count(*) FROM (SELECT FROM sea_mq.delivery_pending p
        WHERE p.endpoint_id = $1 AND p.status IN ('retrying', 'parked') LIMIT 20000) w
$$;
COMMENT ON FUNCTION sea_mq.waiting_deliveries IS 'How many deliveries of an endpoint wait for another attempt, counted up to 20,000; for internal use';

CREATE FUNCTION sea_mq.delivery_bodies(endpoint_id bigint, ids text)
RETURNS TABLE (event_id uuid, body text, headers text, context text, event_type text, event_version integer, aggregate_type text, aggregate_id text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT p.event_id, convert_from(p.body, 'UTF8'), p.headers::text, p.context, p.event_type, p.event_version, p.aggregate_type, p.aggregate_id
    FROM sea_mq.delivery_pending p WHERE p.endpoint_id = $1 AND p.event_id = ANY ($2::uuid[]) AND p.status IN ('pending', 'retrying', 'parked')
$$;
COMMENT ON FUNCTION sea_mq.delivery_bodies IS 'What is sent of deliveries that wait; for internal use';

-- A later one did.
CREATE FUNCTION sea_mq.note_redelivered(slot bigint, endpoint_id bigint, event_id uuid, http_status bigint, duration bigint, response text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH done AS (DELETE FROM sea_mq.delivery_pending p WHERE p.endpoint_id = $2 AND p.event_id = $3 RETURNING p.*)
    INSERT INTO sea_mq.delivery_log (slot, http_status, attempts, endpoint_id, finished_at, event_id, duration, status, error, errors, response)
    SELECT $1::smallint, $4::smallint, d.attempts + 1, $2, clock_timestamp(), $3, $5::integer, 'delivered', NULL, nullif(d.errors, '[]'), $6
    FROM done d ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION sea_mq.note_redelivered IS 'Notes a delivery whose attempt after others succeeded; for internal use';

-- An attempt failed, or (attempted: 0) none was made. wait_ms: until the next; NULL: there is none.
CREATE FUNCTION sea_mq.note_undelivered(endpoint_id bigint, item jsonb, body text, status text, attempted bigint, counted bigint, wait_ms bigint,
    kind text, http_status bigint, error text, response text, duration bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    id uuid := item ->> 'event';
    next_at timestamptz := clock_timestamp() + note_undelivered.wait_ms * interval '1 millisecond';
    changed bigint;
BEGIN
    UPDATE sea_mq.delivery_pending p SET status = note_undelivered.status, attempts = p.attempts + note_undelivered.attempted,
        counted = p.counted + note_undelivered.counted, first_attempt_at = coalesce(p.first_attempt_at, clock_timestamp()), next_attempt_at = next_at,
        http_status = note_undelivered.http_status, error_kind = note_undelivered.kind, error = left(note_undelivered.error, 1000),
        errors = CASE WHEN note_undelivered.attempted > 0 OR note_undelivered.error IS NOT NULL THEN sea_mq.with_delivery_error(p.errors,
            (p.attempts + note_undelivered.attempted)::integer, note_undelivered.kind, note_undelivered.http_status::smallint, note_undelivered.error,
            note_undelivered.response) ELSE p.errors END,
        duration = note_undelivered.duration
    WHERE p.endpoint_id = note_undelivered.endpoint_id AND p.event_id = id;
    GET DIAGNOSTICS changed = ROW_COUNT;
    -- One that was tried before and is not there any more was cancelled.
    IF changed = 0 AND note_undelivered.body IS NOT NULL THEN
        INSERT INTO sea_mq.delivery_pending (endpoint_id, event_id, status, seq, key, context, event_type, event_version, aggregate_type, aggregate_id,
            body, headers, attempts, counted, first_attempt_at, next_attempt_at, http_status, error_kind, error, errors, duration)
        VALUES (note_undelivered.endpoint_id, id, note_undelivered.status, (item ->> 'seq')::bigint, item ->> 'key', item ->> 'context', item ->> 'event_type',
            (item ->> 'event_version')::integer, item ->> 'aggregate_type', item ->> 'aggregate_id', convert_to(note_undelivered.body, 'UTF8'),
            item -> 'headers', note_undelivered.attempted, note_undelivered.counted, CASE WHEN note_undelivered.attempted > 0 THEN clock_timestamp() END,
            next_at, note_undelivered.http_status, note_undelivered.kind, left(note_undelivered.error, 1000),
            CASE WHEN note_undelivered.error IS NULL THEN '[]' ELSE sea_mq.with_delivery_error('[]', note_undelivered.attempted::integer, note_undelivered.kind,
                note_undelivered.http_status::smallint, note_undelivered.error, note_undelivered.response) END, note_undelivered.duration)
        ON CONFLICT DO NOTHING;
    END IF;
    IF note_undelivered.status IN ('failed', 'exhausted') THEN
        PERFORM sea_mq.give_up_delivery(note_undelivered.endpoint_id, id, note_undelivered.status);
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.note_undelivered IS 'Notes that an attempt failed, or that a delivery is parked or cannot be sent; for internal use';

CREATE FUNCTION sea_mq.note_health(endpoint_id bigint, state text, kind text, error text, hint text, in_flight bigint, "window" bigint, retrying bigint,
    p50 text, p99 text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.endpoint_health AS h (endpoint_id, state, error_kind, error, hint, in_flight, "window", retrying, p50, p99)
    SELECT $1, $2, $3, left($4, 1000), $5, $6, $7, $8, $9::double precision, $10::double precision
    WHERE EXISTS (SELECT FROM sea_mq.endpoint_definitions e WHERE e.id = $1)
    ON CONFLICT ON CONSTRAINT endpoint_health_pkey DO UPDATE SET since = CASE WHEN h.state = excluded.state THEN h.since ELSE now() END, state = excluded.state,
        error_kind = excluded.error_kind, error = excluded.error, hint = excluded.hint, in_flight = excluded.in_flight,
        "window" = excluded."window", retrying = excluded.retrying, p50 = coalesce(excluded.p50, h.p50), p99 = coalesce(excluded.p99, h.p99)
$$;
COMMENT ON FUNCTION sea_mq.note_health IS 'Notes how an endpoint is doing; for internal use';

CREATE FUNCTION sea_mq.note_dropped(endpoint_id bigint, events bigint, first_us bigint, last_us bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.dropped_deliveries AS d (endpoint_id, events, first_at, last_at)
    SELECT $1, $2, '2000-01-01 00:00:00+00'::timestamptz + $3 * interval '1 microsecond', '2000-01-01 00:00:00+00'::timestamptz + $4 * interval '1 microsecond'
    WHERE EXISTS (SELECT FROM sea_mq.endpoint_definitions e WHERE e.id = $1)
    ON CONFLICT ON CONSTRAINT dropped_deliveries_pkey DO UPDATE SET events = d.events + excluded.events, found_at = now(),
        first_at = least(d.first_at, excluded.first_at), last_at = greatest(d.last_at, excluded.last_at)
$$;
COMMENT ON FUNCTION sea_mq.note_dropped IS 'Notes that events were dropped before an endpoint got them; for internal use';

-- A slot is left after a third of the retention, and emptied when its turn comes again.
CREATE FUNCTION sea_mq.turn_deliveries(retention_seconds bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r sea_mq.delivery_ring;
    next smallint;
    used boolean;
BEGIN
    SELECT d.* INTO r FROM sea_mq.delivery_ring d;
    IF r.opened_at > clock_timestamp() - retention_seconds * interval '1 second' / 3 THEN
        RETURN false;
    END IF;
    next := (r.current_slot + 1) % 4;
    EXECUTE format('LOCK TABLE ONLY sea_mq.delivery_log_%s IN ACCESS EXCLUSIVE MODE NOWAIT', next);
    EXECUTE format('SELECT EXISTS (SELECT FROM ONLY sea_mq.delivery_log_%s)', next) INTO used;
    IF used THEN
        EXECUTE format('TRUNCATE ONLY sea_mq.delivery_log_%s', next);
    END IF;
    UPDATE sea_mq.delivery_ring SET current_slot = next, opened_at = clock_timestamp();
    DELETE FROM sea_mq.endpoint_secrets s WHERE s.expires_at < now();
    RETURN true;
END $$;
COMMENT ON FUNCTION sea_mq.turn_deliveries IS 'Lets the log of deliveries move on to its next slot, if it is time; for internal use';

-- What people look at.
-- An address and a header often have what a secret is, so they are for those who may change them.
CREATE VIEW sea_mq.endpoints AS
SELECT e.id, e.endpoint, e.kind, CASE WHEN m.changes THEN e.url ELSE substring(e.url FROM '^[a-z]+://[^/?]*') || '/…' END AS url, e.source, e.filter,
    e.subject_filters, e.audience, e.format, e.method,
    CASE WHEN m.changes THEN e.headers ELSE (SELECT coalesce(jsonb_object_agg(h.name, '***'), '{}') FROM jsonb_object_keys(e.headers) h(name)) END AS headers,
    CASE WHEN m.changes THEN e.body WHEN e.body IS NOT NULL THEN '"***"' END AS body,
    CASE WHEN m.changes THEN e.auth WHEN e.auth IS NOT NULL THEN jsonb_build_object('type', e.auth -> 'type') END AS auth,
    e.ordering, e.on_exhausted, e.max_in_flight, e.rate, e.timeout, e.connect_timeout, e.retry_schedule, e.max_age, e.max_size, e.keep_response,
    e.start_from, e.start_at, e.paused,
    coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = e.created_by_oid), e.created_by) AS created_by, e.created_at, e.updated_at
FROM sea_mq.endpoint_definitions e
CROSS JOIN (SELECT pg_catalog.pg_has_role('sea_mq_operator', 'USAGE')) m(changes);
COMMENT ON VIEW sea_mq.endpoints IS
'Endpoints outside that get events, without their secrets. Members of sea_mq_operator see the whole url, headers, body and auth; others the host, the
names of the headers and the type of auth';
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT a.attname AS name, col_description(a.attrelid, a.attnum) AS remark FROM pg_attribute a
        JOIN pg_attribute shown ON shown.attrelid = 'sea_mq.endpoints'::regclass AND shown.attname = a.attname
        WHERE a.attrelid = 'sea_mq.endpoint_definitions'::regclass AND a.attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN sea_mq.endpoints.%I IS %L', c.name, c.remark);
    END LOOP;
    COMMENT ON COLUMN sea_mq.endpoints.created_by IS 'Role that created it';
END $$;

CREATE VIEW sea_mq.deliveries AS
SELECT d.event_id, e.endpoint, d.status, d.attempts, d.http_status, d.error, d.errors, d.next_attempt_at, d.delivered_at, d.duration, d.response
FROM (SELECT l.event_id, l.endpoint_id, l.status, l.attempts, l.http_status, l.error, coalesce(l.errors, '[]') AS errors,
        NULL::timestamptz AS next_attempt_at, CASE l.status WHEN 'delivered' THEN l.finished_at END AS delivered_at,
        l.duration * interval '1 microsecond' AS duration, l.response
    FROM sea_mq.delivery_log l
    UNION ALL
    SELECT p.event_id, p.endpoint_id, CASE p.status WHEN 'parked' THEN 'pending' ELSE p.status END, p.attempts, p.http_status, p.error, p.errors,
        p.next_attempt_at, NULL, p.duration * interval '1 microsecond', NULL
    FROM sea_mq.delivery_pending p) d
JOIN sea_mq.endpoint_definitions e ON e.id = d.endpoint_id;
COMMENT ON VIEW sea_mq.deliveries IS 'One row for each event and endpoint that was tried; what waits in the log has none (see sea_mq.delivery_status)';
COMMENT ON COLUMN sea_mq.deliveries.event_id IS 'Id of the event';
COMMENT ON COLUMN sea_mq.deliveries.endpoint IS 'Endpoint';
COMMENT ON COLUMN sea_mq.deliveries.status IS 'pending, retrying, delivered, failed, exhausted, skipped or cancelled';
COMMENT ON COLUMN sea_mq.deliveries.attempts IS 'Attempts so far';
COMMENT ON COLUMN sea_mq.deliveries.http_status IS 'Status of the last answer';
COMMENT ON COLUMN sea_mq.deliveries.error IS 'The last error';
COMMENT ON COLUMN sea_mq.deliveries.errors IS 'All errors: [{at, attempt, kind, http_status, error, response}]';
COMMENT ON COLUMN sea_mq.deliveries.next_attempt_at IS 'When the next attempt is made';
COMMENT ON COLUMN sea_mq.deliveries.delivered_at IS 'When it was delivered';
COMMENT ON COLUMN sea_mq.deliveries.duration IS 'How long the last attempt took';
COMMENT ON COLUMN sea_mq.deliveries.response IS 'Beginning of the answer, where the endpoint keeps it';

CREATE FUNCTION sea_mq.reader_passed(reader bigint, xid xid8, seq bigint) RETURNS boolean
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'reader_passed_wrapper';
COMMENT ON FUNCTION sea_mq.reader_passed IS 'Whether an endpoint''s reader is past an event; for internal use';
CREATE FUNCTION sea_mq.reader_unread(reader bigint, context text, OUT pending bigint, OUT oldest_at timestamptz) RETURNS SETOF record
LANGUAGE c STABLE STRICT ROWS 1 AS 'MODULE_PATHNAME', 'reader_unread_wrapper';
COMMENT ON FUNCTION sea_mq.reader_unread IS 'Events that an endpoint''s reader has before it (1,001 stands for more), and when the first was emitted; for internal use';

CREATE FUNCTION sea_mq.covers_subject(filters text[], subject text) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'covers_subject_wrapper';
COMMENT ON FUNCTION sea_mq.covers_subject IS 'Whether one of some subject filters covers a subject; for internal use';

CREATE FUNCTION sea_mq.delivery_status(event_id uuid, endpoint text DEFAULT NULL)
RETURNS TABLE (endpoint text, status text, attempts integer, http_status integer, error text, next_attempt_at timestamptz,
    delivered_at timestamptz, duration interval)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    WITH known AS MATERIALIZED (SELECT d.* FROM sea_mq.deliveries d WHERE d.event_id = $1),
    logged AS MATERIALIZED (SELECT o.*, coalesce(o.subject, concat_ws('.', o.context, 'event', o.event_type, 'v' || o.event_version)) AS whole_subject
        -- The index on the id: the one on seq has the order, and would be read until the event is met.
        FROM (SELECT i.* FROM sea_mq.outbox_log i WHERE i.id = $1 OFFSET 0) o ORDER BY o.seq DESC LIMIT 1)
    SELECT k.endpoint, k.status, k.attempts, k.http_status::integer, CASE WHEN m.sees THEN k.error END, k.next_attempt_at, k.delivered_at, k.duration
    FROM known k CROSS JOIN (SELECT pg_has_role(sea_mq.caller(), 'sea_mq_operator', 'USAGE') OR pg_has_role(sea_mq.caller(), 'sea_mq_monitor', 'USAGE')) m(sees)
    WHERE $2 IS NULL OR k.endpoint = $2
    UNION ALL
    SELECT e.endpoint, CASE WHEN sea_mq.reader_passed(r.reader, l.xid, l.seq) THEN 'skipped' ELSE 'pending' END, 0, NULL, NULL, NULL, NULL, NULL
    FROM logged l JOIN sea_mq.endpoint_readers r ON r.context = l.context JOIN sea_mq.endpoint_definitions e ON e.id = r.endpoint_id
    WHERE ($2 IS NULL OR e.endpoint = $2) AND sea_mq.covers_subject(e.subject_filters, l.whole_subject)
        AND (e.start_at IS NULL OR l.created_at >= e.start_at) AND NOT EXISTS (SELECT FROM known k WHERE k.endpoint = e.endpoint)
    ORDER BY 1
$$;
COMMENT ON FUNCTION sea_mq.delivery_status IS
'What became of an event at its endpoints, or at one: pending, retrying, delivered, failed, exhausted, skipped or cancelled. No row: no endpoint
gets it, or it is not retained any more. Members of sea_mq_operator and sea_mq_monitor see the text of the error';

CREATE VIEW sea_mq.endpoint_status AS
SELECT e.endpoint, e.kind, CASE WHEN h.state IN ('copied', 'disabled') THEN h.state WHEN e.paused THEN 'paused' ELSE h.state END AS state,
    h.error_kind, h.error, h.hint, h.since, h.in_flight, h."window", h.retrying, u.pending AS lag, u.oldest_at AS oldest_undelivered_at,
    coalesce(p.delivered, 0) AS delivered, coalesce(p.failed, 0) AS failed, coalesce(p.attempts, 0) AS attempts, p.last_delivered_at, h.p50, h.p99,
    coalesce(d.events, 0) AS dropped, d.first_at AS dropped_from, d.last_at AS dropped_to
FROM sea_mq.endpoint_definitions e
LEFT JOIN sea_mq.endpoint_health h ON h.endpoint_id = e.id
LEFT JOIN sea_mq.dropped_deliveries d ON d.endpoint_id = e.id
LEFT JOIN LATERAL (SELECT l.* FROM sea_mq.endpoint_progress l WHERE l.endpoint_id = e.id ORDER BY l.number DESC LIMIT 1) p ON true
LEFT JOIN LATERAL (SELECT sum(f.pending)::bigint AS pending, min(f.oldest_at) AS oldest_at
    FROM sea_mq.endpoint_readers r CROSS JOIN LATERAL sea_mq.reader_unread(r.reader, r.context) f
    WHERE r.endpoint_id = e.id) u ON true;
COMMENT ON VIEW sea_mq.endpoint_status IS 'How each endpoint is doing';
COMMENT ON COLUMN sea_mq.endpoint_status.endpoint IS 'Endpoint';
COMMENT ON COLUMN sea_mq.endpoint_status.kind IS 'webhook, http or nats';
COMMENT ON COLUMN sea_mq.endpoint_status.state IS 'active, throttled, open, probing, refused, gone, paused, disabled or copied';
COMMENT ON COLUMN sea_mq.endpoint_status.error_kind IS 'Kind of the last error';
COMMENT ON COLUMN sea_mq.endpoint_status.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.endpoint_status.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.endpoint_status.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.endpoint_status.in_flight IS 'Deliveries in flight';
COMMENT ON COLUMN sea_mq.endpoint_status."window" IS 'Deliveries that may be in flight';
COMMENT ON COLUMN sea_mq.endpoint_status.retrying IS 'Deliveries that wait for another attempt';
COMMENT ON COLUMN sea_mq.endpoint_status.lag IS 'Events of the log that it has before it, those that its filter leaves out included; counted up to 1,001 a context';
COMMENT ON COLUMN sea_mq.endpoint_status.oldest_undelivered_at IS 'When the first of them was emitted';
COMMENT ON COLUMN sea_mq.endpoint_status.delivered IS 'Deliveries so far';
COMMENT ON COLUMN sea_mq.endpoint_status.failed IS 'Deliveries given up so far';
COMMENT ON COLUMN sea_mq.endpoint_status.attempts IS 'Attempts so far';
COMMENT ON COLUMN sea_mq.endpoint_status.last_delivered_at IS 'When the last delivery succeeded';
COMMENT ON COLUMN sea_mq.endpoint_status.p50 IS 'Milliseconds that half of the last attempts took at most';
COMMENT ON COLUMN sea_mq.endpoint_status.p99 IS 'Milliseconds that 99 of 100 took at most';
COMMENT ON COLUMN sea_mq.endpoint_status.dropped IS 'Events that were dropped from the log before they were delivered; see sea_mq.endpoint_backlog_age and sea_mq.forget_dropped';
COMMENT ON COLUMN sea_mq.endpoint_status.dropped_from IS 'When the first of them was emitted';
COMMENT ON COLUMN sea_mq.endpoint_status.dropped_to IS 'When the last of them was emitted';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.delivery_status TO sea_mq_producer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.reader_unread TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.endpoints, sea_mq.deliveries, sea_mq.endpoint_status TO sea_mq_operator, sea_mq_monitor;

-- Handlers that are HTTP services: what the dispatcher takes from the inbox, and what follows from the answers. docs/http-handlers.md.

-- Somebody who names an endpoint sends there what the subscription gets.
CREATE FUNCTION sea_mq.check_called(endpoint text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions;
BEGIN
    SELECT t.* INTO e FROM sea_mq.endpoint_definitions t WHERE t.endpoint = check_called.endpoint;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no endpoint "%"', endpoint
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.endpoints.';
    ELSIF e.kind = 'nats' THEN
        RAISE EXCEPTION 'endpoint "%" is of kind nats, and gives no answers', endpoint
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name one of kind http or webhook.';
    ELSIF NOT sea_mq.may_manage(e.created_by_oid) THEN
        RAISE EXCEPTION 'endpoint "%" was created by "%"', endpoint, e.created_by
            USING ERRCODE = 'insufficient_privilege', HINT = 'Members of that role and of sea_mq_operator may have it called.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_called IS 'Refuses an endpoint that the caller may not have called. Errors 22023, 42501, 42704; for internal use';

CREATE FUNCTION sea_mq.called_subscriptions() RETURNS TABLE (id bigint, subscription text, endpoint_id bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.id, s.subscription, e.id FROM sea_mq.subscriptions s JOIN sea_mq.endpoint_definitions e ON e.endpoint = s.endpoint
    WHERE s.handler IS NULL AND NOT s.paused ORDER BY s.priority DESC, s.subscription
$$;
COMMENT ON FUNCTION sea_mq.called_subscriptions IS 'Subscriptions that an endpoint handles, for the dispatcher; for internal use';

-- What was under way when the process ended. Nobody knows whether the service got it, so it is called again.
CREATE FUNCTION sea_mq.give_back_calls() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    UPDATE sea_mq.inbox_pending p SET status = 'failed', due_at = clock_timestamp()
    FROM sea_mq.subscriptions s
    WHERE s.endpoint IS NOT NULL AND s.handler IS NULL AND p.subscription = s.subscription AND p.status = 'processing' AND p.lease_until IS NULL
$$;
COMMENT ON FUNCTION sea_mq.give_back_calls IS 'Gives back what was under way when the dispatcher ended; for internal use';

-- What is sent of a message: as its audience may see it. NULL: it may not.
CREATE FUNCTION sea_mq.call_body(m sea_mq.inbox_pending, audience text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen sea_mq.event := sea_mq_inside.external_view(ROW(sea_mq.as_uuid(m.message_id), m.message_id, m.subscription, m.source_context, m.event_type,
        m.event_version, m.subject, coalesce(m.aggregate_type, ''), coalesce(m.aggregate_id, ''), m.payload, m.headers, m.headers ->> 'X-Correlation-Id',
        m.headers ->> 'X-Causation-Id', m.headers ->> 'X-Sea-Visibility', m.attempts, m.stream_seq, m.event_at)::sea_mq.event, audience);
    inside boolean := audience IN ('internal', 'sensitive');
    made jsonb;
BEGIN
    IF seen IS NULL OR seen.message_id IS NULL THEN
        RETURN NULL;
    END IF;
    -- What ties events together is for those inside.
    seen.correlation_id := CASE WHEN inside THEN m.headers ->> 'X-Correlation-Id' ELSE seen.correlation_id END;
    made := sea_mq.render_event(to_jsonb(seen) || jsonb_build_object('source_context', coalesce(seen.source_context, ''),
        'created_at', to_char(m.event_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')), 'cloudevents');
    RETURN CASE WHEN inside AND m.headers ? 'traceparent' THEN jsonb_set(made, '{headers,traceparent}', m.headers -> 'traceparent') ELSE made END;
END $$;
COMMENT ON FUNCTION sea_mq.call_body IS 'What is sent of a message: {body, headers}, or NULL if the audience may not see it; for internal use';

-- An endpoint handles all lanes of a subscription.
CREATE FUNCTION sea_mq.lanes_of(subscription text) RETURNS SETOF smallint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT generate_series(0, greatest(s.workers, h.lanes) - 1)::smallint FROM sea_mq.subscriptions s
    LEFT JOIN sea_mq.subscription_health h ON h.subscription = s.subscription WHERE s.subscription = $1
$$;
COMMENT ON FUNCTION sea_mq.lanes_of IS 'The lanes that messages of a subscription may be in; for internal use';

-- Of each aggregate the oldest that is not done, if it is due: which those are, and from which number on the next look finds first
-- attempts. It reads what it can take, what waits for another attempt, and no more, whatever waits beside: first attempts come in
-- the order of their numbers, and an aggregate whose oldest is elsewhere is known by what is on its way or waits for another one.
CREATE FUNCTION sea_mq.callable(subscription text, max bigint, flying bigint[], floor bigint, OUT ids bigint[], OUT next_floor bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    wide bigint := greatest(2 * callable.max, 16);
    is_cut boolean;
BEGIN
    LOOP
        WITH firsts AS MATERIALIZED (
            SELECT f.* FROM sea_mq.lanes_of(callable.subscription) g(lane) CROSS JOIN LATERAL (
                SELECT w.id, w.aggregate_type, w.aggregate_id, w.due_at, row_number() OVER (ORDER BY w.id) AS place FROM sea_mq.inbox_pending w
                WHERE w.subscription = callable.subscription AND w.lane = g.lane AND w.due_at = 'epoch' AND w.status <> 'processing'
                    AND w.id >= callable.floor
                ORDER BY w.id LIMIT wide) f),
        -- What was read ends here, if there is more: behind it there may be an older one of an aggregate.
        cut AS (SELECT min(f.id) FILTER (WHERE f.place = wide) AS id FROM firsts f),
        known AS (
            SELECT f.id, f.aggregate_type, f.aggregate_id, f.due_at FROM firsts f
            UNION ALL
            SELECT l.* FROM sea_mq.lanes_of(callable.subscription) g(lane) CROSS JOIN LATERAL (
                SELECT w.id, w.aggregate_type, w.aggregate_id, w.due_at FROM sea_mq.inbox_pending w
                WHERE w.subscription = callable.subscription AND w.lane = g.lane AND w.due_at > 'epoch'
                    AND w.status <> 'processing') l),
        busy AS MATERIALIZED (SELECT p.aggregate_type, p.aggregate_id FROM sea_mq.inbox_pending p WHERE p.id = ANY (flying)),
        heads AS (
            SELECT DISTINCT ON (k.aggregate_type, k.aggregate_id, CASE WHEN k.aggregate_id IS NULL THEN k.id END) k.*
            FROM known k ORDER BY k.aggregate_type, k.aggregate_id, CASE WHEN k.aggregate_id IS NULL THEN k.id END, k.id),
        taken AS MATERIALIZED (
            SELECT h.id FROM heads h, cut c
            WHERE h.due_at <= clock_timestamp() AND (c.id IS NULL OR h.id <= c.id)
                AND NOT EXISTS (SELECT FROM busy b WHERE b.aggregate_type = h.aggregate_type AND b.aggregate_id = h.aggregate_id)
            ORDER BY h.id LIMIT callable.max)
        SELECT (SELECT array_agg(t.id ORDER BY t.id) FROM taken t), c.id IS NOT NULL,
            coalesce((SELECT min(f.id) FROM firsts f WHERE f.id NOT IN (SELECT t.id FROM taken t)), (SELECT max(f.id) + 1 FROM firsts f))
        INTO ids, is_cut, next_floor FROM cut c;
        EXIT WHEN NOT is_cut OR cardinality(ids) >= callable.max;
        wide := wide * 8;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.callable IS
'Messages of a subscription that an endpoint may be called for now, and where the next look begins; for internal use';

-- No lease: there is one dispatcher. flying: what it has called for. floor: no first attempt waits with a smaller number.
CREATE FUNCTION sea_mq.take_calls(subscription text, endpoint_id bigint, max bigint, flying text, floor bigint)
RETURNS TABLE (id bigint, message_id text, attempt integer, body text, headers text, next_floor bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    m sea_mq.inbox_pending;
    made jsonb;
    found record := sea_mq.callable(subscription, max, flying::bigint[], floor);
    audience text := (SELECT e.audience FROM sea_mq.endpoint_definitions e WHERE e.id = endpoint_id);
BEGIN
    next_floor := found.next_floor;
    FOR m IN
        UPDATE sea_mq.inbox_pending p SET status = 'processing', attempts = p.attempts + 1, delivered_at = clock_timestamp(), lease_until = NULL
        WHERE p.id = ANY (found.ids) RETURNING p.*
    LOOP
        BEGIN
            made := sea_mq.call_body(m, audience);
            IF made IS NULL THEN
                PERFORM sea_mq.settle(m, 'skipped', 'its visibility does not reach the endpoint''s audience');
                PERFORM sea_mq.count_outcomes(m.subscription, skipped => 1);
                CONTINUE;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            m.errors := sea_mq.with_error(m.errors, m.attempts, 'poison', SQLSTATE, SQLERRM, NULL);
            PERFORM sea_mq.bury(m, 'poison', 'it cannot be rendered: ' || SQLERRM);
            CONTINUE;
        END;
        id := m.id;
        message_id := m.message_id;
        attempt := m.attempts;
        body := made ->> 'body';
        headers := (made -> 'headers')::text;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.take_calls IS 'Takes messages that an endpoint is to handle, with what is sent; for internal use';

CREATE FUNCTION sea_mq.next_call(subscription text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT ceil(extract(epoch FROM min(d.due_at) - clock_timestamp()) * 1000)::bigint
    FROM sea_mq.lanes_of($1) g(lane) CROSS JOIN LATERAL (SELECT p.due_at FROM sea_mq.inbox_pending p
        WHERE p.subscription = $1 AND p.lane = g.lane AND p.due_at > clock_timestamp() AND p.status <> 'processing'
        ORDER BY p.due_at LIMIT 1) d
$$;
COMMENT ON FUNCTION sea_mq.next_call IS 'Milliseconds until the next of a subscription''s messages is due that is not yet; for internal use';

-- The service''s events go out with the mark that its message is processed, as the subscription''s owner may emit them.
CREATE FUNCTION sea_mq.emit_answer(m sea_mq.inbox_pending, events jsonb) RETURNS void
-- What is set for them ends with the function.
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET sea_mq.context = '' SET sea_mq.correlation_id = '' SET sea_mq.causation_id = ''
SET sea_mq.traceparent = '' AS $$
DECLARE
    s sea_mq.subscriptions;
BEGIN
    SELECT t.* INTO s FROM sea_mq.subscriptions t WHERE t.subscription = m.subscription;
    IF NOT has_function_privilege(s.owner_oid, 'sea_mq.emit_array(jsonb)', 'EXECUTE') THEN
        RAISE EXCEPTION '"%", the owner of subscription "%", may not emit events', s.owner, s.subscription
            USING ERRCODE = 'insufficient_privilege', HINT = 'Grant it sea_mq_producer.';
    END IF;
    PERFORM set_config('sea_mq.context', s.context, true), set_config('sea_mq.causation_id', m.message_id, true),
        set_config('sea_mq.correlation_id', coalesce(m.headers ->> 'X-Correlation-Id', m.message_id), true),
        set_config('sea_mq.traceparent', coalesce(m.headers ->> 'traceparent', ''), true);
    PERFORM sea_mq.emit_array(events);
END $$;
COMMENT ON FUNCTION sea_mq.emit_answer IS 'Emits the events that a service has answered with; for internal use';

-- answer: {id, outcome (processed, skip, poison, retry, back), reason, kind, detail, retry_in, events}
CREATE FUNCTION sea_mq.record_call(answer jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    m sea_mq.inbox_pending;
    reason text := coalesce(answer ->> 'reason', 'no reason given');
    wait interval;
BEGIN
    SELECT p.* INTO m FROM sea_mq.inbox_pending p WHERE p.id = (answer ->> 'id')::bigint AND p.status = 'processing' FOR UPDATE;
    IF NOT FOUND THEN
        -- Somebody has unsubscribed meanwhile.
        RETURN;
    END IF;
    CASE answer ->> 'outcome'
    WHEN 'processed' THEN
        BEGIN
            IF jsonb_typeof(answer -> 'events') IS NOT NULL THEN
                PERFORM sea_mq.emit_answer(m, answer -> 'events');
            END IF;
            PERFORM sea_mq.settle(m, 'processed');
            PERFORM sea_mq.count_outcomes(m.subscription, processed => 1);
        EXCEPTION WHEN OTHERS THEN
            PERFORM sea_mq.attempt_failed(m, 'events', SQLSTATE, 'its events cannot be emitted: ' || SQLERRM);
        END;
    WHEN 'skip' THEN
        PERFORM sea_mq.settle(m, 'skipped', left(reason, 2000));
        PERFORM sea_mq.count_outcomes(m.subscription, skipped => 1);
    WHEN 'poison' THEN
        m.errors := sea_mq.with_error(m.errors, m.attempts, 'poison', NULL, reason, answer ->> 'detail');
        PERFORM sea_mq.bury(m, 'poison', reason);
    WHEN 'back' THEN
        -- Nobody's fault but the service's: it does not count.
        UPDATE sea_mq.inbox_pending p SET status = CASE WHEN m.attempts > 1 THEN 'failed' ELSE 'received' END, attempts = m.attempts - 1,
            processing_error = left(reason, 2000), due_at = clock_timestamp() + coalesce((answer ->> 'retry_in')::double precision, 0) * interval '1 second'
        WHERE p.id = m.id;
    ELSE
        BEGIN
            wait := CASE jsonb_typeof(answer -> 'retry_in') WHEN 'number' THEN (answer ->> 'retry_in')::double precision * interval '1 second'
                ELSE (answer ->> 'retry_in')::interval END;
            wait := CASE WHEN wait BETWEEN '0' AND '1 year' THEN wait END;
        EXCEPTION WHEN OTHERS THEN
            wait := NULL;
        END;
        PERFORM sea_mq.attempt_failed(m, coalesce(answer ->> 'kind', 'error'), NULL, reason, answer ->> 'detail', wait);
    END CASE;
END $$;
COMMENT ON FUNCTION sea_mq.record_call IS 'Records what an endpoint has answered about a message; for internal use';

CREATE FUNCTION sea_mq.record_calls(answers text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT sea_mq.record_call(a.value) FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY a(value, place) ORDER BY a.place;
    SELECT sea_mq.inbox_wake_at_commit();
$$;
COMMENT ON FUNCTION sea_mq.record_calls IS 'Records what endpoints have answered about messages; for internal use';

CREATE FUNCTION sea_mq.note_calls(subscription text, state text, kind text, error text, hint text, in_flight bigint, "window" bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.call_health AS h (subscription, state, error_kind, error, hint, in_flight, "window")
    SELECT $1, $2, $3, left($4, 1000), $5, $6, $7 WHERE EXISTS (SELECT FROM sea_mq.subscriptions s WHERE s.subscription = $1)
    ON CONFLICT ON CONSTRAINT call_health_pkey DO UPDATE SET since = CASE WHEN h.state = excluded.state THEN h.since ELSE now() END,
        state = excluded.state, error_kind = excluded.error_kind, error = excluded.error, hint = excluded.hint,
        in_flight = excluded.in_flight, "window" = excluded."window"
$$;
COMMENT ON FUNCTION sea_mq.note_calls IS 'Notes how the calls of a subscription''s endpoint are doing; for internal use';

-- The way of one event, step by step.
CREATE FUNCTION sea_mq.event_trace(event_id uuid) RETURNS TABLE (step text, at timestamptz, after interval, place text, detail text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    WITH steps (step, at, place, detail, number) AS (
        SELECT s.*
        FROM sea_mq.event_status($1) e
        CROSS JOIN LATERAL (VALUES
            ('emitted', e.created_at, e.subject, NULL::text, 1),
            ('due', e.available_at, e.subject, NULL, 2),
            ('stored', e.published_at, e.stream, 'sequence ' || e.stream_seq, 4),
            (CASE e.status WHEN 'failed' THEN 'refused' ELSE 'waits' END, NULL, e.stream, e.error, 5)) s (step, at, place, detail, number)
        WHERE s.at IS NOT NULL OR (s.number = 5 AND e.status <> 'delivered')
        UNION ALL
        -- PostgreSQL knows it of those who ask it to (track_commit_timestamp).
        SELECT 'committed', c.at, NULL, NULL, 3
        FROM sea_mq.outbox_log l
        CROSS JOIN LATERAL (SELECT CASE current_setting('track_commit_timestamp') WHEN 'on' THEN pg_xact_commit_timestamp(l.xid::xid) END) c (at)
        WHERE l.id = $1 AND c.at IS NOT NULL
        UNION ALL
        SELECT s.*
        FROM sea_mq.inbox_messages m
        CROSS JOIN LATERAL (VALUES
            ('received', m.created_at, m.subscription, NULL::text, 6),
            ('attempted', m.delivered_at, m.subscription, 'attempt ' || m.attempts, 7),
            (m.status, coalesce(m.processed_at, m.next_attempt_at), m.subscription, m.processing_error, 8)) s (step, at, place, detail, number)
        WHERE m.message_id = $1::text AND (s.at IS NOT NULL OR s.number = 8)
        UNION ALL
        SELECT CASE d.status WHEN 'delivered' THEN d.status ELSE 'delivery ' || d.status END, coalesce(d.delivered_at, d.next_attempt_at), d.endpoint,
            concat_ws(', ', 'attempt ' || nullif(d.attempts, 0), 'HTTP ' || d.http_status, d.error), 9
        FROM sea_mq.delivery_status($1) d)
    SELECT s.step, s.at, s.at - min(s.at) OVER (), s.place, nullif(s.detail, '')
    FROM steps s ORDER BY s.at NULLS LAST, s.number, s.place
$$;
COMMENT ON FUNCTION sea_mq.event_trace IS
'The way of an event through this database, step by step with the time since the first: emitted, due, committed (with track_commit_timestamp), stored
in its stream; received, attempted and processed by each subscription here; delivered to each endpoint. What is yet to come has no time, or that of the
next attempt. No row: neither log nor inbox have it, or not any more';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.event_trace TO sea_mq_operator, sea_mq_monitor;

-- What an exporter of OpenTelemetry traces reads: only what has a sampled traceparent, and of that no payload and no text of an error.
-- docs/tracing.md.

CREATE FUNCTION sea_mq.is_sampled(traceparent text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    -- The last of the flags' bits: odd.
    SELECT coalesce($1 ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf]$', false)
$$;
COMMENT ON FUNCTION sea_mq.is_sampled IS 'Whether a W3C trace context asks for its trace to be kept; for internal use';

CREATE FUNCTION sea_mq.first_since(question text, since timestamptz, most bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    low bigint := 0;
    high bigint := first_since.most + 1;
    place bigint;
    at timestamptz;
    result bigint;
BEGIN
    -- Halved, not walked: a look-up for each bit of a place.
    WHILE low < high LOOP
        EXECUTE question INTO place, at USING low + (high - low) / 2;
        IF place IS NULL OR at >= since THEN
            high := low + (high - low) / 2;
            result := coalesce(place, result);
        ELSE
            low := place + 1;
        END IF;
    END LOOP;
    RETURN result;
END $$;
COMMENT ON FUNCTION sea_mq.first_since IS
'The first place whose time is not before since, up to most. The question gives the first place from $1 on, and its time; times go
up with places. NULL: there is none; for internal use';

CREATE FUNCTION sea_mq.trace_places(max_age interval, OUT stream text, OUT place bigint, OUT last bigint)
RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    of_sink bigint;
    newest timestamptz;
    question text;
    since timestamptz := now() - greatest(least($1, '1000 years'), '0');
BEGIN
    FOR stream, of_sink IN SELECT s.name, s.sink FROM sea_mq.streams s LOOP
        SELECT j.first_stream_seq + j.events - 1, j.published_at INTO last, newest FROM sea_mq.relay_journal j
        WHERE j.sink = of_sink AND j.first_stream_seq IS NOT NULL ORDER BY j.first_stream_seq DESC LIMIT 1;
        last := coalesce(last, 0);
        place := last;
        IF newest >= since THEN
            question := format('SELECT j.first_stream_seq, j.published_at FROM sea_mq.relay_journal j
                WHERE j.sink = %s AND j.first_stream_seq >= $1 ORDER BY j.first_stream_seq LIMIT 1', of_sink);
            place := sea_mq.first_since(question, since, last) - 1;
        END IF;
        RETURN NEXT;
    END LOOP;
    stream := NULL;
    SELECT l.id, l.created_at INTO last, newest FROM sea_mq.inbox_log l ORDER BY l.id DESC LIMIT 1;
    last := coalesce(last, 0);
    place := last;
    IF newest >= since THEN
        question := 'SELECT l.id, l.created_at FROM sea_mq.inbox_log l WHERE l.id >= $1 ORDER BY l.id LIMIT 1';
        place := sea_mq.first_since(question, since, last) - 1;
    END IF;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION sea_mq.trace_places IS
'Where to begin with traced_events and traced_messages so that what is older than max_age is left out: for each stream, and (stream is
NULL) for the inbox, the place before, and the last one there is';

CREATE FUNCTION sea_mq.traced_events(stream text, after_seq bigint DEFAULT 0, max integer DEFAULT 500)
RETURNS TABLE (stream_seq bigint, id uuid, traceparent text, subject text, correlation_id text, emitted_at timestamptz,
    due_at timestamptz, committed_at timestamptz, stored_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT p.stream_seq, t.id, t.traceparent, t.subject, t.correlation_id, t.created_at, t.available_at, t.committed_at, t.published_at
    FROM (SELECT s.*, max(s.stream_seq) OVER () AS last FROM sea_mq.stored_after($1, $2, $3, false) s) p
    LEFT JOIN LATERAL (SELECT p.id, p.headers ->> 'traceparent' AS traceparent, p.subject, p.correlation_id, p.created_at, p.available_at,
            CASE current_setting('track_commit_timestamp') WHEN 'on' THEN pg_xact_commit_timestamp(p.xid::xid) END AS committed_at,
            p.published_at) t ON sea_mq.is_sampled(p.headers ->> 'traceparent')
    WHERE t.id IS NOT NULL OR p.stream_seq = p.last
    ORDER BY p.stream_seq
$$;
COMMENT ON FUNCTION sea_mq.traced_events IS
'Of a page of the events that a stream has stored behind a sequence, those with a sampled traceparent, with the times of their way; the
page''s last event stands there in any case, without an id if it is not one of them, and its stream_seq asks for the next page.
Errors: 22023 (max is not between 1 and 1,000), 42704 (no such stream)';

CREATE FUNCTION sea_mq.traced_messages(after_id bigint DEFAULT 0, waiting bigint[] DEFAULT '{}', max integer DEFAULT 500)
RETURNS TABLE (id bigint, status text, message_id text, subscription text, subject text, traceparent text, correlation_id text,
    stream_seq bigint, attempts integer, begun_at timestamptz, done_at timestamptz, error_type text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM sea_mq.check_page($3, 1000);
    IF cardinality($2) > 10000 THEN
        RAISE EXCEPTION 'waiting has more than 10000 ids'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Forget the oldest.';
    END IF;
    RETURN QUERY
    WITH page AS MATERIALIZED (
        SELECT l.* FROM sea_mq.inbox_log l WHERE l.id > coalesce($1, 0) ORDER BY l.id LIMIT $3),
    place AS (SELECT max(g.id) AS last FROM page g),
    done AS (
        SELECT g.* FROM page g
        UNION ALL
        SELECT l.* FROM sea_mq.inbox_log l WHERE l.id = ANY ($2) AND l.id <= coalesce($1, 0))
    SELECT d.id, d.status, t.message_id, t.subscription, t.subject, t.traceparent, t.correlation_id, t.stream_seq, t.attempts, t.begun_at,
        t.done_at, t.error_type
    FROM done d
    LEFT JOIN LATERAL (SELECT d.message_id, d.subscription, d.subject, d.headers ->> 'traceparent' AS traceparent,
            d.headers ->> 'X-Correlation-Id' AS correlation_id, d.stream_seq, d.attempts, coalesce(d.delivered_at, d.created_at) AS begun_at,
            d.processed_at AS done_at,
            CASE d.status WHEN 'dead' THEN coalesce(d.errors -> -1 ->> 'sqlstate', d.errors -> -1 ->> 'kind', 'dead') END AS error_type) t
        ON sea_mq.is_sampled(d.headers ->> 'traceparent') AND NOT sea_mq.is_reserved(d.subscription)
    WHERE t.traceparent IS NOT NULL OR d.id = (SELECT p.last FROM place p) OR d.id = ANY ($2)
    UNION ALL
    -- An id is drawn before its message is done. So what is not here yet may come, before what is: when it waits, from wherever it is;
    -- else from shortly before one of the page.
    SELECT n.id, 'waiting', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM (
        (SELECT w.id FROM sea_mq.inbox_pending w WHERE w.id <= coalesce((SELECT p.last FROM place p), $1, 0) ORDER BY w.id DESC LIMIT 10000)
        UNION
        (SELECT m.id FROM (SELECT g.id, lag(g.id, 1, coalesce($1, 0)) OVER (ORDER BY g.id) AS before FROM page g) o
        CROSS JOIN LATERAL generate_series(greatest(o.before + 1, o.id - 1000), o.id - 1) m(id) ORDER BY m.id DESC LIMIT 10000)) n(id);
END $$;
COMMENT ON FUNCTION sea_mq.traced_messages IS
'Of a page of the messages that are done, those behind an id, the ones with a sampled traceparent; the page''s last message stands there in
any case, and its id asks for the next page. What up to there is not done yet has the status waiting, and its id alone: passed in
waiting, it is looked up with the next page, and stands there once it is done. Errors: 22023 (max is not between 1 and 1,000, or more
than 10,000 ids in waiting)';

-- How it goes, without what it is about.
GRANT EXECUTE ON FUNCTION sea_mq.trace_places, sea_mq.traced_events, sea_mq.traced_messages
    TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;

-- The door. A function that was declared SECURITY DEFINER does its work as the extension's owner, but not in PostgreSQL's way, which
-- keeps all settings of the caller's but those that the function names: sea_mq.f(…) becomes a C function that runs
-- sea_mq_inside.f(…), the body that was declared, inside the door (src/host/door.rs). The list that remains is in SECURITY.md.
DO $$
DECLARE
    f record;
    definition text;
    quotes text := current_setting('quote_all_identifiers');
BEGIN
    -- What is replaced below is then spelt as it is there.
    PERFORM set_config('quote_all_identifiers', 'off', true);
    FOR f IN
        SELECT p.oid, p.proname AS name, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
            pg_get_function_identity_arguments(p.oid) AS signature,
            CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END
                || CASE WHEN p.proisstrict THEN ' STRICT' ELSE '' END || CASE WHEN p.proretset THEN format(' ROWS %s', p.prorows) ELSE '' END AS traits
        FROM pg_proc p
        WHERE p.pronamespace = 'sea_mq'::regnamespace AND p.prosecdef AND p.proname <> 'workers'
    LOOP
        definition := replace(pg_get_functiondef(f.oid), format('FUNCTION sea_mq.%s(', f.name), format('FUNCTION sea_mq_inside.%s(', f.name));
        EXECUTE definition;
        EXECUTE format('ALTER FUNCTION sea_mq_inside.%s(%s) SECURITY INVOKER', f.name, f.signature);
        EXECUTE format('COMMENT ON FUNCTION sea_mq_inside.%s(%s) IS %L', f.name, f.signature,
            format('What sea_mq.%s does, as the extension''s owner; for internal use', f.name));
        EXECUTE format('CREATE OR REPLACE FUNCTION sea_mq.%s(%s) RETURNS %s LANGUAGE c %s AS ''MODULE_PATHNAME'', ''door_wrapper''',
            f.name, f.arguments, f.result, f.traits);
    END LOOP;
    PERFORM set_config('quote_all_identifiers', quotes, true);
END $$;

-- Messages belong to a role that owns nothing else, and that nobody is a member of. Schema, functions and views stay the
-- installing superuser's: what a superuser calls or reads is then not the owner's to change.
GRANT USAGE ON SCHEMA sea_mq, sea_mq_inside TO sea_mq_owner;
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT c.oid::regclass AS name FROM pg_class c
        WHERE c.relnamespace = 'sea_mq'::regnamespace AND (c.relkind IN ('r', 'p') OR (c.relkind = 'S'
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))))
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO sea_mq_owner', r.name);
    END LOOP;
END $$;
GRANT ALL ON ALL TABLES IN SCHEMA sea_mq TO sea_mq_owner;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA sea_mq, sea_mq_inside TO sea_mq_owner;

-- Nothing is granted to PUBLIC. Functions are executable by PUBLIC unless that is taken back.
REVOKE ALL ON SCHEMA sea_mq FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA sea_mq, sea_mq_inside FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA sea_mq FROM PUBLIC;

GRANT USAGE ON SCHEMA sea_mq TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer;

DO $$
BEGIN
    IF NOT sea_mq.preloaded() THEN
        RAISE WARNING 'sea_mq is not in shared_preload_libraries'
            USING DETAIL = 'Events are stored, but no relay publishes them.',
                HINT = 'Add sea_mq to shared_preload_libraries and restart the server; until then, call sea_mq.start().';
    END IF;
END $$;
SELECT sea_mq.announce();
