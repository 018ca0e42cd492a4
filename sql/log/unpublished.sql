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
