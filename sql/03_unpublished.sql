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

-- What sea_mq.outbox_events shows of a place in the log: looked up for each row that is shown, by functions, since a plan for it
-- would be made for the whole query, with its settings, before there are statistics, and its cost would have the query compiled.

CREATE FUNCTION sea_mq.is_passed(sink bigint, seq bigint, xid xid8) RETURNS boolean
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED COST 1 AS 'MODULE_PATHNAME', 'is_passed_wrapper';
COMMENT ON FUNCTION sea_mq.is_passed IS 'Whether the cursor of an event''s sink has passed it; for internal use';

-- Of those that hold the event, the run that ends first. The conditions come after the order, or younger slots than the run's,
-- which hold nothing but later runs, would be read to their end.
CREATE FUNCTION sea_mq.run_of(sink bigint, seq bigint, xid xid8) RETURNS sea_mq.relay_journal
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED COST 1
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
DECLARE
    run sea_mq.relay_journal;
BEGIN
    SELECT j.* INTO run
    FROM (SELECT k.* FROM sea_mq.relay_journal k WHERE k.sink = $1 AND k.last_seq >= $2 ORDER BY k.last_seq OFFSET 0) j
    WHERE j.first_seq <= $2 AND j.first_stream_seq IS NOT NULL
        AND pg_visible_in_snapshot($3, j.upto) AND NOT pg_visible_in_snapshot($3, j.done)
    LIMIT 1;
    RETURN run;
END $$;
COMMENT ON FUNCTION sea_mq.run_of IS 'The run of the relay''s journal that an event was stored with; for internal use';

CREATE FUNCTION sea_mq.stored_at(sink bigint, seq bigint, xid xid8) RETURNS timestamptz
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED SECURITY DEFINER COST 1 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (sea_mq.run_of($1, $2, $3)).published_at;
END $$;
COMMENT ON FUNCTION sea_mq.stored_at IS 'When the relay recorded that an event was stored; for internal use';

CREATE FUNCTION sea_mq.stored_as(sink bigint, seq bigint, xid xid8) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED SECURITY DEFINER COST 1
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    run sea_mq.relay_journal := sea_mq.run_of($1, $2, $3);
    is_near_start boolean := $2 - run.first_seq <= run.last_seq - $2;
    others bigint;
BEGIN
    IF run.last_seq - run.first_seq + 1 = run.events THEN
        RETURN run.first_stream_seq + $2 - run.first_seq;
    END IF;
    -- With others' events between its own, they are counted from the nearer end.
    SELECT count(*) INTO others FROM sea_mq.outbox_log l
    WHERE l.sink = $1 AND l.seq >= CASE WHEN is_near_start THEN run.first_seq ELSE $2 + 1 END
        AND l.seq <= CASE WHEN is_near_start THEN $2 - 1 ELSE run.last_seq END
        AND pg_visible_in_snapshot(l.xid, run.upto) AND NOT pg_visible_in_snapshot(l.xid, run.done);
    RETURN run.first_stream_seq + CASE WHEN is_near_start THEN others ELSE run.events - 1 - others END;
END $$;
COMMENT ON FUNCTION sea_mq.stored_as IS 'An event''s sequence in its stream; for internal use';
