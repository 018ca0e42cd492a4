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
