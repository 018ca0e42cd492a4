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
