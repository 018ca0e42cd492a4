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
