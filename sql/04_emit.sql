CREATE FUNCTION sea_mq.emit(
    aggregate_type text, aggregate_id text, event_type text, payload jsonb,
    event_version integer DEFAULT 1, context text DEFAULT NULL, event_id uuid DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, headers jsonb DEFAULT NULL,
    visibility text DEFAULT NULL, available_at timestamptz DEFAULT NULL)
RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'emit_wrapper';
COMMENT ON FUNCTION sea_mq.emit IS
'Emits an event in the current transaction and returns its id. It exists if and only if the transaction commits, and is then
published on {context}.event.{event_type}.v{event_version}. With event_id, repeating the same event is a no-op for as
long as the first is retained (sea_mq.retention). visibility: NULL stands for the registered one (sea_mq.event_types), else internal.
sea_mq.contracts says whether the event is checked against its contract. Errors: 22004 (a required argument is NULL), 22023 (a value
cannot be used), 23514 (the contract is broken), 42704 (no context, or not registered), 54000 (too large), 23505 (event_id used for
other content), 25006 (read-only transaction), 55000 (the transaction is already committing)';

CREATE FUNCTION sea_mq.emit_many(events jsonb[]) RETURNS SETOF uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'emit_many_wrapper';
COMMENT ON FUNCTION sea_mq.emit_many IS
'Emits many events in order; each is an object whose keys are emit''s parameters. Returns their ids in the same order. If one is
refused, none is emitted. Errors are those of emit, with the place of the event in the array';

CREATE FUNCTION sea_mq.pending_events(
    OUT id uuid, OUT context text, OUT subject text, OUT aggregate_type text, OUT aggregate_id text, OUT event_type text,
    OUT event_version integer, OUT payload jsonb, OUT headers jsonb, OUT created_at timestamptz, OUT available_at timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pending_events_wrapper';
COMMENT ON FUNCTION sea_mq.pending_events IS
'The events that the current transaction will send if it commits, in the order in which they will be stored';

CREATE FUNCTION sea_mq.event_name(name text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'event_name_wrapper';
COMMENT ON FUNCTION sea_mq.event_name IS 'The normalised form of an event name: OrderCreated → order_created. Error 22023: NATS cannot carry it';

CREATE FUNCTION sea_mq.context_name(name text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'context_name_wrapper';
COMMENT ON FUNCTION sea_mq.context_name IS 'The normalised form of a context name. Error 22023: NATS cannot carry it';

CREATE FUNCTION sea_mq.sink_id(context text, kind text) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'sink_id_wrapper';
COMMENT ON FUNCTION sea_mq.sink_id IS 'The id under which a context''s events (kind event) or dead letters (kind dlq) stand in the log';

CREATE VIEW sea_mq.outbox_events AS
SELECT l.id, l.seq, l.context, l.aggregate_type, l.aggregate_id, l.event_type, l.event_version,
    coalesce(l.subject, l.context || '.event.' || l.event_type || '.v' || l.event_version) AS subject,
    l.payload::jsonb AS payload, l.headers::jsonb AS headers,
    coalesce(l.correlation_id, l.id::text) AS correlation_id, l.causation_id, l.visibility, l.created_at, l.available_at,
    p.published,
    (SELECT j.published_at FROM sea_mq.relay_journal j
        WHERE j.sink = l.sink AND j.last_seq >= l.seq AND j.first_seq <= l.seq AND j.first_stream_seq IS NOT NULL
            AND pg_visible_in_snapshot(l.xid, j.upto) AND NOT pg_visible_in_snapshot(l.xid, j.done)
        ORDER BY j.last_seq LIMIT 1) AS published_at,
    f.error AS publish_error,
    coalesce(f.attempts, p.published::integer) AS attempts,
    s.name AS stream,
    (SELECT j.first_stream_seq + CASE WHEN j.last_seq - j.first_seq + 1 = j.events THEN l.seq - j.first_seq ELSE
            (SELECT count(*) FROM sea_mq.outbox_log r
                WHERE r.sink = l.sink AND r.seq >= j.first_seq AND r.seq < l.seq
                    AND pg_visible_in_snapshot(r.xid, j.upto) AND NOT pg_visible_in_snapshot(r.xid, j.done)) END
        FROM sea_mq.relay_journal j
        WHERE j.sink = l.sink AND j.last_seq >= l.seq AND j.first_seq <= l.seq AND j.first_stream_seq IS NOT NULL
            AND pg_visible_in_snapshot(l.xid, j.upto) AND NOT pg_visible_in_snapshot(l.xid, j.done)
        ORDER BY j.last_seq LIMIT 1) AS stream_seq
FROM sea_mq.outbox_log l
LEFT JOIN sea_mq.cursors c ON c.sink = l.sink
LEFT JOIN sea_mq.streams s ON s.sink = l.sink
LEFT JOIN sea_mq.publish_failures f ON f.event_id = l.id AND f.seq = l.seq
CROSS JOIN LATERAL (
    SELECT f.event_id IS NULL AND c.sink IS NOT NULL AND (pg_visible_in_snapshot(l.xid, c.done)
        OR (c.batch_upto IS NOT NULL AND l.seq <= c.batch_at AND pg_visible_in_snapshot(l.xid, c.batch_upto))) AS published
) p
UNION ALL
SELECT e.id, NULL, e.context, e.aggregate_type, e.aggregate_id, e.event_type, e.event_version,
    coalesce(e.subject, e.context || '.event.' || e.event_type || '.v' || e.event_version),
    e.payload::jsonb, e.headers::jsonb, coalesce(e.correlation_id, e.id::text), e.causation_id, e.visibility, e.created_at,
    e.available_at, false, NULL, NULL, 0, s.name, NULL
FROM sea_mq.scheduled_events e
LEFT JOIN sea_mq.streams s ON s.sink = e.sink;

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
