-- What the dispatcher reads and writes.
CREATE FUNCTION sea_mq.endpoint_descriptions() RETURNS TABLE (description text, state text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('id', e.id, 'name', e.endpoint, 'kind', e.kind, 'url', e.url, 'subject_filters', e.subject_filters,
        'audience', e.audience, 'format', sea_mq.wire_format(e.kind, e.format), 'method', e.method, 'headers', e.headers, 'template', e.body::text, 'auth', e.auth,
        'ordering', e.ordering, 'pauses', e.on_exhausted = 'pause', 'max_in_flight', e.max_in_flight, 'rate', e.rate,
        'timeout_ms', round(extract(epoch FROM e.timeout) * 1000)::bigint,
        'connect_timeout_ms', round(extract(epoch FROM e.connect_timeout) * 1000)::bigint,
        'schedule_ms', (SELECT jsonb_agg(round(extract(epoch FROM u.wait) * 1000)::bigint ORDER BY u.place)
            FROM unnest(e.retry_schedule) WITH ORDINALITY u(wait, place)),
        'max_age_ms', round(extract(epoch FROM e.max_age) * 1000)::bigint, 'max_size', e.max_size, 'keep_response', e.keep_response,
        'start_us', (extract(epoch FROM e.start_at - '2000-01-01 00:00:00+00') * 1000000)::bigint, 'paused', e.paused, 'updated_at', e.updated_at,
        'readers', (SELECT coalesce(jsonb_agg(jsonb_build_array(r.reader, r.context) ORDER BY r.reader), '[]')
            FROM sea_mq.endpoint_readers r WHERE r.endpoint_id = e.id),
        'secrets', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', s.name, 'version', s.version, 'sealed', encode(s.sealed, 'hex'))
                ORDER BY s.version DESC), '[]')
            FROM sea_mq.endpoint_secrets s WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())))::text,
        h.state
    FROM sea_mq.endpoint_definitions e LEFT JOIN sea_mq.endpoint_health h ON h.endpoint_id = e.id ORDER BY e.id
$$;
COMMENT ON FUNCTION sea_mq.endpoint_descriptions IS 'Endpoints for the dispatcher, as JSON; for internal use';

CREATE FUNCTION sea_mq.begin_new_contexts() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT sea_mq.begin_reading(e, false) FROM sea_mq.endpoint_definitions e
    WHERE cardinality(e.subject_filters) > 0 AND EXISTS (SELECT FROM sea_mq.streams s WHERE s.kind = 'event' AND s.context = coalesce(e.source, s.context)
        AND NOT EXISTS (SELECT FROM sea_mq.endpoint_readers r WHERE r.endpoint_id = e.id AND r.context = s.context))
$$;
COMMENT ON FUNCTION sea_mq.begin_new_contexts IS 'Gives endpoints readers for contexts that have come since; for internal use';

CREATE FUNCTION sea_mq.due_deliveries(endpoint_id bigint, all_of_them boolean)
RETURNS TABLE (event_id uuid, seq bigint, key text, due_ms bigint, counted integer, age_ms bigint, attempts integer)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    (SELECT p.event_id, p.seq, p.key, round(extract(epoch FROM p.next_attempt_at - clock_timestamp()) * 1000)::bigint, p.counted,
        round(extract(epoch FROM clock_timestamp() - p.first_attempt_at) * 1000)::bigint, p.attempts
    FROM sea_mq.delivery_pending p
    WHERE p.endpoint_id = $1 AND p.status IN ('pending', 'retrying') AND (p.next_attempt_at <= clock_timestamp() + interval '5 s' OR $2)
    ORDER BY p.next_attempt_at, p.seq LIMIT CASE WHEN $2 THEN 20000 ELSE 1000 END)
    UNION ALL
    (SELECT p.event_id, p.seq, p.key, NULL, p.counted, NULL, p.attempts FROM sea_mq.delivery_pending p
    WHERE p.endpoint_id = $1 AND p.status = 'parked' AND $2 ORDER BY p.seq LIMIT 20000)
$$;
COMMENT ON FUNCTION sea_mq.due_deliveries IS 'Deliveries of an endpoint that are due soon, or all; for internal use';

CREATE FUNCTION sea_mq.waiting_deliveries(endpoint_id bigint) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT count(*) FROM (SELECT FROM sea_mq.delivery_pending p
        WHERE p.endpoint_id = $1 AND p.status IN ('retrying', 'parked') LIMIT 20000) w
$$;
COMMENT ON FUNCTION sea_mq.waiting_deliveries IS 'How many deliveries of an endpoint wait for another attempt, counted up to 20,000; for internal use';

CREATE FUNCTION sea_mq.delivery_bodies(endpoint_id bigint, ids text)
RETURNS TABLE (event_id uuid, body text, headers text, context text, event_type text, event_version integer, aggregate_type text, aggregate_id text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT p.event_id, convert_from(p.body, 'UTF8'), p.headers::text, p.context, p.event_type, p.event_version, p.aggregate_type, p.aggregate_id
    FROM sea_mq.delivery_pending p WHERE p.endpoint_id = $1 AND p.event_id = ANY ($2::uuid[]) AND p.status IN ('pending', 'retrying', 'parked')
$$;
COMMENT ON FUNCTION sea_mq.delivery_bodies IS 'What is sent of deliveries that wait; for internal use';

-- A later one did.
CREATE FUNCTION sea_mq.note_redelivered(slot bigint, endpoint_id bigint, event_id uuid, http_status bigint, duration bigint, response text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH done AS (DELETE FROM sea_mq.delivery_pending p WHERE p.endpoint_id = $2 AND p.event_id = $3 RETURNING p.*)
    INSERT INTO sea_mq.delivery_log (slot, http_status, attempts, endpoint_id, finished_at, event_id, duration, status, error, errors, response)
    SELECT $1::smallint, $4::smallint, d.attempts + 1, $2, clock_timestamp(), $3, $5::integer, 'delivered', NULL, nullif(d.errors, '[]'), $6
    FROM done d ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION sea_mq.note_redelivered IS 'Notes a delivery whose attempt after others succeeded; for internal use';

-- An attempt failed, or (attempted: 0) none was made. wait_ms: until the next; NULL: there is none.
CREATE FUNCTION sea_mq.note_undelivered(endpoint_id bigint, item jsonb, body text, status text, attempted bigint, counted bigint, wait_ms bigint,
    kind text, http_status bigint, error text, response text, duration bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    id uuid := item ->> 'event';
    next_at timestamptz := clock_timestamp() + note_undelivered.wait_ms * interval '1 millisecond';
    changed bigint;
BEGIN
    UPDATE sea_mq.delivery_pending p SET status = note_undelivered.status, attempts = p.attempts + note_undelivered.attempted,
        counted = p.counted + note_undelivered.counted, first_attempt_at = coalesce(p.first_attempt_at, clock_timestamp()), next_attempt_at = next_at,
        http_status = note_undelivered.http_status, error_kind = note_undelivered.kind, error = left(note_undelivered.error, 1000),
        errors = CASE WHEN note_undelivered.attempted > 0 OR note_undelivered.error IS NOT NULL THEN sea_mq.with_delivery_error(p.errors,
            (p.attempts + note_undelivered.attempted)::integer, note_undelivered.kind, note_undelivered.http_status::smallint, note_undelivered.error,
            note_undelivered.response) ELSE p.errors END,
        duration = note_undelivered.duration
    WHERE p.endpoint_id = note_undelivered.endpoint_id AND p.event_id = id;
    GET DIAGNOSTICS changed = ROW_COUNT;
    -- One that was tried before and is not there any more was cancelled.
    IF changed = 0 AND note_undelivered.body IS NOT NULL THEN
        INSERT INTO sea_mq.delivery_pending (endpoint_id, event_id, status, seq, key, context, event_type, event_version, aggregate_type, aggregate_id,
            body, headers, attempts, counted, first_attempt_at, next_attempt_at, http_status, error_kind, error, errors, duration)
        VALUES (note_undelivered.endpoint_id, id, note_undelivered.status, (item ->> 'seq')::bigint, item ->> 'key', item ->> 'context', item ->> 'event_type',
            (item ->> 'event_version')::integer, item ->> 'aggregate_type', item ->> 'aggregate_id', convert_to(note_undelivered.body, 'UTF8'),
            item -> 'headers', note_undelivered.attempted, note_undelivered.counted, CASE WHEN note_undelivered.attempted > 0 THEN clock_timestamp() END,
            next_at, note_undelivered.http_status, note_undelivered.kind, left(note_undelivered.error, 1000),
            CASE WHEN note_undelivered.error IS NULL THEN '[]' ELSE sea_mq.with_delivery_error('[]', note_undelivered.attempted::integer, note_undelivered.kind,
                note_undelivered.http_status::smallint, note_undelivered.error, note_undelivered.response) END, note_undelivered.duration)
        ON CONFLICT DO NOTHING;
    END IF;
    IF note_undelivered.status IN ('failed', 'exhausted') THEN
        PERFORM sea_mq.give_up_delivery(note_undelivered.endpoint_id, id, note_undelivered.status);
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.note_undelivered IS 'Notes that an attempt failed, or that a delivery is parked or cannot be sent; for internal use';

CREATE FUNCTION sea_mq.note_health(endpoint_id bigint, state text, kind text, error text, hint text, in_flight bigint, "window" bigint, retrying bigint,
    p50 text, p99 text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.endpoint_health AS h (endpoint_id, state, error_kind, error, hint, in_flight, "window", retrying, p50, p99)
    SELECT $1, $2, $3, left($4, 1000), $5, $6, $7, $8, $9::double precision, $10::double precision
    WHERE EXISTS (SELECT FROM sea_mq.endpoint_definitions e WHERE e.id = $1)
    ON CONFLICT ON CONSTRAINT endpoint_health_pkey DO UPDATE SET since = CASE WHEN h.state = excluded.state THEN h.since ELSE now() END, state = excluded.state,
        error_kind = excluded.error_kind, error = excluded.error, hint = excluded.hint, in_flight = excluded.in_flight,
        "window" = excluded."window", retrying = excluded.retrying, p50 = coalesce(excluded.p50, h.p50), p99 = coalesce(excluded.p99, h.p99)
$$;
COMMENT ON FUNCTION sea_mq.note_health IS 'Notes how an endpoint is doing; for internal use';

CREATE FUNCTION sea_mq.note_dropped(endpoint_id bigint, events bigint, first_us bigint, last_us bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.dropped_deliveries AS d (endpoint_id, events, first_at, last_at)
    SELECT $1, $2, '2000-01-01 00:00:00+00'::timestamptz + $3 * interval '1 microsecond', '2000-01-01 00:00:00+00'::timestamptz + $4 * interval '1 microsecond'
    WHERE EXISTS (SELECT FROM sea_mq.endpoint_definitions e WHERE e.id = $1)
    ON CONFLICT ON CONSTRAINT dropped_deliveries_pkey DO UPDATE SET events = d.events + excluded.events, found_at = now(),
        first_at = least(d.first_at, excluded.first_at), last_at = greatest(d.last_at, excluded.last_at)
$$;
COMMENT ON FUNCTION sea_mq.note_dropped IS 'Notes that events were dropped before an endpoint got them; for internal use';

-- A slot is left after a third of the retention, and emptied when its turn comes again.
CREATE FUNCTION sea_mq.turn_deliveries(retention_seconds bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r sea_mq.delivery_ring;
    next smallint;
    used boolean;
BEGIN
    SELECT d.* INTO r FROM sea_mq.delivery_ring d;
    IF r.opened_at > clock_timestamp() - retention_seconds * interval '1 second' / 3 THEN
        RETURN false;
    END IF;
    next := (r.current_slot + 1) % 4;
    EXECUTE format('LOCK TABLE ONLY sea_mq.delivery_log_%s IN ACCESS EXCLUSIVE MODE NOWAIT', next);
    EXECUTE format('SELECT EXISTS (SELECT FROM ONLY sea_mq.delivery_log_%s)', next) INTO used;
    IF used THEN
        EXECUTE format('TRUNCATE ONLY sea_mq.delivery_log_%s', next);
    END IF;
    UPDATE sea_mq.delivery_ring SET current_slot = next, opened_at = clock_timestamp();
    DELETE FROM sea_mq.endpoint_secrets s WHERE s.expires_at < now();
    RETURN true;
END $$;
COMMENT ON FUNCTION sea_mq.turn_deliveries IS 'Lets the log of deliveries move on to its next slot, if it is time; for internal use';
