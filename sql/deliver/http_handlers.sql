-- Handlers that are HTTP services: what the dispatcher takes from the inbox, and what follows from the answers. docs/http-handlers.md.

-- Somebody who names an endpoint sends there what the subscription gets.
CREATE FUNCTION sea_mq.check_called(endpoint text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions;
BEGIN
    SELECT t.* INTO e FROM sea_mq.endpoint_definitions t WHERE t.endpoint = check_called.endpoint;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no endpoint "%"', endpoint
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.endpoints.';
    ELSIF e.kind = 'nats' THEN
        RAISE EXCEPTION 'endpoint "%" is of kind nats, and gives no answers', endpoint
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name one of kind http or webhook.';
    ELSIF NOT sea_mq.may_manage(e.created_by_oid) THEN
        RAISE EXCEPTION 'endpoint "%" was created by "%"', endpoint, e.created_by
            USING ERRCODE = 'insufficient_privilege', HINT = 'Members of that role and of sea_mq_operator may have it called.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_called IS 'Refuses an endpoint that the caller may not have called. Errors 22023, 42501, 42704; for internal use';

CREATE FUNCTION sea_mq.called_subscriptions() RETURNS TABLE (id bigint, subscription text, endpoint_id bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.id, s.subscription, e.id FROM sea_mq.subscriptions s JOIN sea_mq.endpoint_definitions e ON e.endpoint = s.endpoint
    WHERE s.handler IS NULL AND NOT s.paused ORDER BY s.priority DESC, s.subscription
$$;
COMMENT ON FUNCTION sea_mq.called_subscriptions IS 'Subscriptions that an endpoint handles, for the dispatcher; for internal use';

-- What was under way when the process ended. Nobody knows whether the service got it, so it is called again.
CREATE FUNCTION sea_mq.give_back_calls() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    UPDATE sea_mq.inbox_pending p SET status = 'failed', due_at = clock_timestamp()
    FROM sea_mq.subscriptions s
    WHERE s.endpoint IS NOT NULL AND s.handler IS NULL AND p.subscription = s.subscription AND p.status = 'processing' AND p.lease_until IS NULL
$$;
COMMENT ON FUNCTION sea_mq.give_back_calls IS 'Gives back what was under way when the dispatcher ended; for internal use';

-- What is sent of a message: as its audience may see it. NULL: it may not.
CREATE FUNCTION sea_mq.call_body(m sea_mq.inbox_pending, audience text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen sea_mq.event := sea_mq_inside.external_view(ROW(sea_mq.as_uuid(m.message_id), m.message_id, m.subscription, m.source_context, m.event_type,
        m.event_version, m.subject, coalesce(m.aggregate_type, ''), coalesce(m.aggregate_id, ''), m.payload, m.headers, m.headers ->> 'X-Correlation-Id',
        m.headers ->> 'X-Causation-Id', m.headers ->> 'X-Sea-Visibility', m.attempts, m.stream_seq, m.event_at)::sea_mq.event, audience);
    inside boolean := audience IN ('internal', 'sensitive');
    made jsonb;
BEGIN
    IF seen IS NULL OR seen.message_id IS NULL THEN
        RETURN NULL;
    END IF;
    -- What ties events together is for those inside.
    seen.correlation_id := CASE WHEN inside THEN m.headers ->> 'X-Correlation-Id' ELSE seen.correlation_id END;
    made := sea_mq.render_event(to_jsonb(seen) || jsonb_build_object('source_context', coalesce(seen.source_context, ''),
        'created_at', to_char(m.event_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')), 'cloudevents');
    RETURN CASE WHEN inside AND m.headers ? 'traceparent' THEN jsonb_set(made, '{headers,traceparent}', m.headers -> 'traceparent') ELSE made END;
END $$;
COMMENT ON FUNCTION sea_mq.call_body IS 'What is sent of a message: {body, headers}, or NULL if the audience may not see it; for internal use';

-- An endpoint handles all lanes of a subscription.
CREATE FUNCTION sea_mq.lanes_of(subscription text) RETURNS SETOF smallint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT generate_series(0, greatest(s.workers, h.lanes) - 1)::smallint FROM sea_mq.subscriptions s
    LEFT JOIN sea_mq.subscription_health h ON h.subscription = s.subscription WHERE s.subscription = $1
$$;
COMMENT ON FUNCTION sea_mq.lanes_of IS 'The lanes that messages of a subscription may be in; for internal use';

-- Of each aggregate the oldest that is not done, if it is due: which those are, and from which number on the next look finds first
-- attempts. It reads what it can take, what waits for another attempt, and no more, whatever waits beside: first attempts come in
-- the order of their numbers, and an aggregate whose oldest is elsewhere is known by what is on its way or waits for another one.
CREATE FUNCTION sea_mq.callable(subscription text, max bigint, flying bigint[], floor bigint, OUT ids bigint[], OUT next_floor bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    wide bigint := greatest(2 * callable.max, 16);
    is_cut boolean;
BEGIN
    LOOP
        WITH firsts AS MATERIALIZED (
            SELECT f.* FROM sea_mq.lanes_of(callable.subscription) g(lane) CROSS JOIN LATERAL (
                SELECT w.id, w.aggregate_type, w.aggregate_id, w.due_at, row_number() OVER (ORDER BY w.id) AS place FROM sea_mq.inbox_pending w
                WHERE w.subscription = callable.subscription AND w.lane = g.lane AND w.due_at = 'epoch' AND w.status <> 'processing'
                    AND w.id >= callable.floor
                ORDER BY w.id LIMIT wide) f),
        -- What was read ends here, if there is more: behind it there may be an older one of an aggregate.
        cut AS (SELECT min(f.id) FILTER (WHERE f.place = wide) AS id FROM firsts f),
        known AS (
            SELECT f.id, f.aggregate_type, f.aggregate_id, f.due_at FROM firsts f
            UNION ALL
            SELECT l.* FROM sea_mq.lanes_of(callable.subscription) g(lane) CROSS JOIN LATERAL (
                SELECT w.id, w.aggregate_type, w.aggregate_id, w.due_at FROM sea_mq.inbox_pending w
                WHERE w.subscription = callable.subscription AND w.lane = g.lane AND w.due_at > 'epoch'
                    AND w.status <> 'processing') l),
        busy AS MATERIALIZED (SELECT p.aggregate_type, p.aggregate_id FROM sea_mq.inbox_pending p WHERE p.id = ANY (flying)),
        heads AS (
            SELECT DISTINCT ON (k.aggregate_type, k.aggregate_id, CASE WHEN k.aggregate_id IS NULL THEN k.id END) k.*
            FROM known k ORDER BY k.aggregate_type, k.aggregate_id, CASE WHEN k.aggregate_id IS NULL THEN k.id END, k.id),
        taken AS MATERIALIZED (
            SELECT h.id FROM heads h, cut c
            WHERE h.due_at <= clock_timestamp() AND (c.id IS NULL OR h.id <= c.id)
                AND NOT EXISTS (SELECT FROM busy b WHERE b.aggregate_type = h.aggregate_type AND b.aggregate_id = h.aggregate_id)
            ORDER BY h.id LIMIT callable.max)
        SELECT (SELECT array_agg(t.id ORDER BY t.id) FROM taken t), c.id IS NOT NULL,
            coalesce((SELECT min(f.id) FROM firsts f WHERE f.id NOT IN (SELECT t.id FROM taken t)), (SELECT max(f.id) + 1 FROM firsts f))
        INTO ids, is_cut, next_floor FROM cut c;
        EXIT WHEN NOT is_cut OR cardinality(ids) >= callable.max;
        wide := wide * 8;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.callable IS
'Messages of a subscription that an endpoint may be called for now, and where the next look begins; for internal use';

-- No lease: there is one dispatcher. flying: what it has called for. floor: no first attempt waits with a smaller number.
CREATE FUNCTION sea_mq.take_calls(subscription text, endpoint_id bigint, max bigint, flying text, floor bigint)
RETURNS TABLE (id bigint, message_id text, attempt integer, body text, headers text, next_floor bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    m sea_mq.inbox_pending;
    made jsonb;
    found record := sea_mq.callable(subscription, max, flying::bigint[], floor);
    audience text := (SELECT e.audience FROM sea_mq.endpoint_definitions e WHERE e.id = endpoint_id);
BEGIN
    next_floor := found.next_floor;
    FOR m IN
        UPDATE sea_mq.inbox_pending p SET status = 'processing', attempts = p.attempts + 1, delivered_at = clock_timestamp(), lease_until = NULL
        WHERE p.id = ANY (found.ids) RETURNING p.*
    LOOP
        BEGIN
            made := sea_mq.call_body(m, audience);
            IF made IS NULL THEN
                PERFORM sea_mq.settle(m, 'skipped', 'its visibility does not reach the endpoint''s audience');
                PERFORM sea_mq.count_outcomes(m.subscription, skipped => 1);
                CONTINUE;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            m.errors := sea_mq.with_error(m.errors, m.attempts, 'poison', SQLSTATE, SQLERRM, NULL);
            PERFORM sea_mq.bury(m, 'poison', 'it cannot be rendered: ' || SQLERRM);
            CONTINUE;
        END;
        id := m.id;
        message_id := m.message_id;
        attempt := m.attempts;
        body := made ->> 'body';
        headers := (made -> 'headers')::text;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.take_calls IS 'Takes messages that an endpoint is to handle, with what is sent; for internal use';

CREATE FUNCTION sea_mq.next_call(subscription text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT ceil(extract(epoch FROM min(d.due_at) - clock_timestamp()) * 1000)::bigint
    FROM sea_mq.lanes_of($1) g(lane) CROSS JOIN LATERAL (SELECT p.due_at FROM sea_mq.inbox_pending p
        WHERE p.subscription = $1 AND p.lane = g.lane AND p.due_at > clock_timestamp() AND p.status <> 'processing'
        ORDER BY p.due_at LIMIT 1) d
$$;
COMMENT ON FUNCTION sea_mq.next_call IS 'Milliseconds until the next of a subscription''s messages is due that is not yet; for internal use';

-- The service''s events go out with the mark that its message is processed, as the subscription''s owner may emit them.
CREATE FUNCTION sea_mq.emit_answer(m sea_mq.inbox_pending, events jsonb) RETURNS void
-- What is set for them ends with the function.
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET sea_mq.context = '' SET sea_mq.correlation_id = '' SET sea_mq.causation_id = ''
SET sea_mq.traceparent = '' AS $$
DECLARE
    s sea_mq.subscriptions;
BEGIN
    SELECT t.* INTO s FROM sea_mq.subscriptions t WHERE t.subscription = m.subscription;
    IF NOT has_function_privilege(s.owner_oid, 'sea_mq.emit_array(jsonb)', 'EXECUTE') THEN
        RAISE EXCEPTION '"%", the owner of subscription "%", may not emit events', s.owner, s.subscription
            USING ERRCODE = 'insufficient_privilege', HINT = 'Grant it sea_mq_producer.';
    END IF;
    PERFORM set_config('sea_mq.context', s.context, true), set_config('sea_mq.causation_id', m.message_id, true),
        set_config('sea_mq.correlation_id', coalesce(m.headers ->> 'X-Correlation-Id', m.message_id), true),
        set_config('sea_mq.traceparent', coalesce(m.headers ->> 'traceparent', ''), true);
    PERFORM sea_mq.emit_array(events);
END $$;
COMMENT ON FUNCTION sea_mq.emit_answer IS 'Emits the events that a service has answered with; for internal use';

-- answer: {id, outcome (processed, skip, poison, retry, back), reason, kind, detail, retry_in, events}
CREATE FUNCTION sea_mq.record_call(answer jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    m sea_mq.inbox_pending;
    reason text := coalesce(answer ->> 'reason', 'no reason given');
    wait interval;
BEGIN
    SELECT p.* INTO m FROM sea_mq.inbox_pending p WHERE p.id = (answer ->> 'id')::bigint AND p.status = 'processing' FOR UPDATE;
    IF NOT FOUND THEN
        -- Somebody has unsubscribed meanwhile.
        RETURN;
    END IF;
    CASE answer ->> 'outcome'
    WHEN 'processed' THEN
        BEGIN
            IF jsonb_typeof(answer -> 'events') IS NOT NULL THEN
                PERFORM sea_mq.emit_answer(m, answer -> 'events');
            END IF;
            PERFORM sea_mq.settle(m, 'processed');
            PERFORM sea_mq.count_outcomes(m.subscription, processed => 1);
        EXCEPTION WHEN OTHERS THEN
            PERFORM sea_mq.attempt_failed(m, 'events', SQLSTATE, 'its events cannot be emitted: ' || SQLERRM);
        END;
    WHEN 'skip' THEN
        PERFORM sea_mq.settle(m, 'skipped', left(reason, 2000));
        PERFORM sea_mq.count_outcomes(m.subscription, skipped => 1);
    WHEN 'poison' THEN
        m.errors := sea_mq.with_error(m.errors, m.attempts, 'poison', NULL, reason, answer ->> 'detail');
        PERFORM sea_mq.bury(m, 'poison', reason);
    WHEN 'back' THEN
        -- Nobody's fault but the service's: it does not count.
        UPDATE sea_mq.inbox_pending p SET status = CASE WHEN m.attempts > 1 THEN 'failed' ELSE 'received' END, attempts = m.attempts - 1,
            processing_error = left(reason, 2000), due_at = clock_timestamp() + coalesce((answer ->> 'retry_in')::double precision, 0) * interval '1 second'
        WHERE p.id = m.id;
    ELSE
        BEGIN
            wait := CASE jsonb_typeof(answer -> 'retry_in') WHEN 'number' THEN (answer ->> 'retry_in')::double precision * interval '1 second'
                ELSE (answer ->> 'retry_in')::interval END;
            wait := CASE WHEN wait BETWEEN '0' AND '1 year' THEN wait END;
        EXCEPTION WHEN OTHERS THEN
            wait := NULL;
        END;
        PERFORM sea_mq.attempt_failed(m, coalesce(answer ->> 'kind', 'error'), NULL, reason, answer ->> 'detail', wait);
    END CASE;
END $$;
COMMENT ON FUNCTION sea_mq.record_call IS 'Records what an endpoint has answered about a message; for internal use';

CREATE FUNCTION sea_mq.record_calls(answers text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT sea_mq.record_call(a.value) FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY a(value, place) ORDER BY a.place;
    SELECT sea_mq.inbox_wake_at_commit();
$$;
COMMENT ON FUNCTION sea_mq.record_calls IS 'Records what endpoints have answered about messages; for internal use';

CREATE FUNCTION sea_mq.note_calls(subscription text, state text, kind text, error text, hint text, in_flight bigint, "window" bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.call_health AS h (subscription, state, error_kind, error, hint, in_flight, "window")
    SELECT $1, $2, $3, left($4, 1000), $5, $6, $7 WHERE EXISTS (SELECT FROM sea_mq.subscriptions s WHERE s.subscription = $1)
    ON CONFLICT ON CONSTRAINT call_health_pkey DO UPDATE SET since = CASE WHEN h.state = excluded.state THEN h.since ELSE now() END,
        state = excluded.state, error_kind = excluded.error_kind, error = excluded.error, hint = excluded.hint,
        in_flight = excluded.in_flight, "window" = excluded."window"
$$;
COMMENT ON FUNCTION sea_mq.note_calls IS 'Notes how the calls of a subscription''s endpoint are doing; for internal use';
