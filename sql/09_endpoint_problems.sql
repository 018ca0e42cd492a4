-- What sea_mq.problems says of endpoints. The body is looked at when it is called: the tables come later.
CREATE FUNCTION sea_mq.endpoint_problems() RETURNS TABLE (rank integer, problem text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT CASE s.state WHEN 'copied' THEN 2 ELSE 4 END, format('endpoint %s is %s%s', s.endpoint, s.state, ': ' || s.error),
        coalesce(s.hint, CASE s.state WHEN 'paused' THEN 'sea_mq.resume_endpoint ends that.' ELSE 'See its row in sea_mq.endpoint_status.' END)
    FROM (SELECT e.endpoint, CASE WHEN h.state IN ('copied', 'disabled') THEN h.state WHEN e.paused THEN 'paused' ELSE h.state END AS state, h.error, h.hint
        FROM sea_mq.endpoints e JOIN sea_mq.endpoint_health h ON h.endpoint_id = e.id) s
    WHERE s.state IN ('open', 'probing', 'refused', 'gone', 'copied')
    UNION ALL
    SELECT 3, 'dispatcher is not running', 'Call sea_mq.start(); if that fails, look for sea_mq in the server''s log.'
    WHERE EXISTS (SELECT FROM sea_mq.endpoints)
        AND EXISTS (SELECT FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq consumer' AND w.backend_start < clock_timestamp() - interval '30 s')
        AND NOT EXISTS (SELECT FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq dispatcher');
END $$;
COMMENT ON FUNCTION sea_mq.endpoint_problems IS 'What is wrong with endpoints, for sea_mq.problems; for internal use';
