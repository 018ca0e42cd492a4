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
