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
