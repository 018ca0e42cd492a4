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
