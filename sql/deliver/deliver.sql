-- Deliveries: what is sent, what became of it, and what people do about it.
CREATE FUNCTION sea_mq.render_event(event jsonb, format text) RETURNS jsonb
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'render_event_wrapper';
COMMENT ON FUNCTION sea_mq.render_event IS 'An event in a format: {body, headers}; for internal use';

CREATE FUNCTION sea_mq.wire_format(kind text, format text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT CASE $1 WHEN 'nats' THEN 'nats:' || $2 ELSE $2 END $$;
COMMENT ON FUNCTION sea_mq.wire_format IS 'A format as it is rendered: messages have other headers than requests; for internal use';

-- NULL: its audience may not see it. For the inside of the door, which is not opened again for each event.
CREATE FUNCTION sea_mq.outgoing(event sea_mq.event, audience text, format text, template jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen sea_mq.event := sea_mq_inside.external_view(event, audience);
    whole jsonb;
    made jsonb;
BEGIN
    IF seen IS NULL OR seen.id IS NULL THEN
        RETURN NULL;
    END IF;
    IF format LIKE 'nats:%' AND audience IN ('internal', 'sensitive') THEN
        -- What ties events together is for those inside.
        seen.headers := event.headers;
        seen.correlation_id := event.correlation_id;
        seen.causation_id := event.causation_id;
    END IF;
    whole := to_jsonb(seen) || jsonb_build_object('created_at', to_char(seen.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
    IF format LIKE 'nats:%' THEN
        made := sea_mq.render_event(whole || jsonb_build_object('created_us',
            (extract(epoch FROM seen.created_at - '2000-01-01 00:00:00+00') * 1000000)::bigint), format);
        RETURN CASE format WHEN 'nats:template' THEN made || jsonb_build_object('body', sea_mq.map_fields(template, whole)::text) ELSE made END;
    ELSIF format = 'template' THEN
        RETURN jsonb_build_object('body', sea_mq.map_fields(template, whole)::text, 'headers', '{"content-type": "application/json"}'::jsonb);
    END IF;
    RETURN sea_mq.render_event(whole, format);
END $$;
COMMENT ON FUNCTION sea_mq.outgoing IS 'What is sent of an event: {body, headers}, or NULL if the audience may not see it; for internal use';

CREATE FUNCTION sea_mq.outgoing_rows(seqs text, audience text, format text, template jsonb,
    OUT seq bigint, OUT body text, OUT headers text, OUT error text)
RETURNS SETOF record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    l sea_mq.outbox_log;
    made jsonb;
BEGIN
    FOR l IN SELECT o.* FROM sea_mq.outbox_log o WHERE o.seq = ANY (seqs::bigint[]) LOOP
        seq := l.seq;
        error := NULL;
        BEGIN
            made := sea_mq.outgoing(ROW(l.id, l.id::text, NULL, l.context, l.event_type, l.event_version,
                coalesce(l.subject, concat_ws('.', l.context, 'event', l.event_type, 'v' || l.event_version)), l.aggregate_type, l.aggregate_id,
                l.payload::jsonb, CASE WHEN format LIKE 'nats:%' THEN coalesce(l.headers::jsonb, '{}') ELSE '{}' END,
                coalesce(l.correlation_id, l.id::text), l.causation_id, l.visibility, NULL, NULL, l.created_at)::sea_mq.event,
                audience, format, template);
        EXCEPTION WHEN OTHERS THEN
            error := SQLERRM;
            made := NULL;
        END;
        body := made ->> 'body';
        headers := (made -> 'headers')::text;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.outgoing_rows IS 'What is sent of events at these places of the log; without a body: the audience may not see it, or error says why it cannot be made; for internal use';

CREATE FUNCTION sea_mq.deliver(endpoint text, event_type text, payload jsonb, event_id uuid DEFAULT NULL, event_version integer DEFAULT 1,
    context text DEFAULT NULL, aggregate_type text DEFAULT NULL, aggregate_id text DEFAULT NULL, correlation_id text DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    e sea_mq.endpoint_definitions;
    ctx text;
    name text := sea_mq.event_name(event_type);
    id uuid := event_id;
    made jsonb;
    before sea_mq.delivery_pending;
BEGIN
    SELECT t.* INTO e FROM sea_mq.endpoint_definitions t WHERE t.endpoint = deliver.endpoint;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no endpoint "%"', endpoint USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.endpoints.';
    ELSIF event_type IS NULL OR payload IS NULL THEN
        RAISE EXCEPTION 'event_type and payload must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.deliver(''acme'', ''InvoicePaid'', ''{"number": 7}'').';
    END IF;
    ctx := sea_mq.context_name(coalesce(context, nullif(current_setting('sea_mq.context', true), ''), e.source));
    IF ctx IS NULL THEN
        RAISE EXCEPTION 'the context is not known'
            USING ERRCODE = 'undefined_object', HINT = 'Pass context, or set sea_mq.context for the database.';
    END IF;
    id := coalesce(id, left(encode(sha256(convert_to(jsonb_build_array(endpoint, ctx, name, event_version, aggregate_type, aggregate_id,
        payload)::text, 'UTF8')), 'hex'), 32)::uuid);
    made := sea_mq.outgoing(ROW(id, id::text, NULL, ctx, name, coalesce(event_version, 1), concat_ws('.', ctx, 'event', name, 'v' || coalesce(event_version, 1)),
        coalesce(aggregate_type, ''), coalesce(aggregate_id, ''), payload, '{}', coalesce(correlation_id, id::text), NULL, e.audience, NULL, NULL,
        clock_timestamp())::sea_mq.event, e.audience, sea_mq.wire_format(e.kind, e.format), e.body);
    IF made IS NULL OR made ->> 'body' IS NULL THEN
        RAISE EXCEPTION 'the event cannot be rendered for endpoint "%"', endpoint
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Look at its format and template.';
    ELSIF octet_length(made ->> 'body') > e.max_size THEN
        RAISE EXCEPTION 'the body has % bytes, and endpoint "%" takes % at most', octet_length(made ->> 'body'), endpoint, e.max_size
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Send less, or raise max_size with sea_mq.alter_endpoint.';
    END IF;
    IF sea_mq.delivery_done(id, e.id) THEN
        RETURN id;
    END IF;
    INSERT INTO sea_mq.delivery_pending AS p (endpoint_id, event_id, status, seq, key, context, event_type, event_version, aggregate_type,
        aggregate_id, body, headers, next_attempt_at)
    VALUES (e.id, id, 'pending', nextval('sea_mq.outbox_seq'), CASE WHEN aggregate_id IS NOT NULL THEN concat_ws('/', aggregate_type, aggregate_id) END,
        ctx, name, coalesce(event_version, 1), aggregate_type, aggregate_id, convert_to(made ->> 'body', 'UTF8'), made -> 'headers', clock_timestamp())
    ON CONFLICT ON CONSTRAINT delivery_pending_pkey DO NOTHING;
    IF NOT FOUND THEN
        SELECT p.* INTO before FROM sea_mq.delivery_pending p WHERE p.endpoint_id = e.id AND p.event_id = id;
        IF before.event_type <> name OR before.context <> ctx THEN
            RAISE EXCEPTION 'event id % was used for another delivery', id
                USING ERRCODE = 'unique_violation', HINT = 'Use a new id, or none.';
        END IF;
    END IF;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN id;
END $$;
COMMENT ON FUNCTION sea_mq.deliver IS
'Sends an event to one endpoint, in the current transaction, and returns its id; without event_id a stable one of the content. The same
id is delivered once. Errors: 22004, 22023, 23505, 42704, 54000 (too large; the limit is in the error)';

CREATE FUNCTION sea_mq.delivery_done(event_id uuid, endpoint_id bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT EXISTS (SELECT FROM sea_mq.delivery_log l WHERE l.event_id = $1 AND l.endpoint_id = $2)
$$;
COMMENT ON FUNCTION sea_mq.delivery_done IS 'Whether a delivery is in the log of those that are done; for internal use';

-- Of these events, those that were settled or wait already: after a crash some are read again.
CREATE FUNCTION sea_mq.deliveries_known(endpoint_id bigint, ids text) RETURNS SETOF uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT l.event_id FROM sea_mq.delivery_log l WHERE l.event_id = ANY ($2::uuid[]) AND l.endpoint_id = $1
    UNION SELECT p.event_id FROM sea_mq.delivery_pending p WHERE p.event_id = ANY ($2::uuid[]) AND p.endpoint_id = $1
$$;
COMMENT ON FUNCTION sea_mq.deliveries_known IS 'Which of these events an endpoint has got, or has waiting; for internal use';

-- One more error in the history of a delivery; of many, the first and the last are kept.
CREATE FUNCTION sea_mq.with_delivery_error(errors jsonb, attempt integer, kind text, http_status smallint, error text, response text) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_array_length($1) >= 20 THEN $1 - 10 ELSE $1 END || jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'at', clock_timestamp(), 'attempt', $2, 'kind', $3, 'http_status', $4, 'error', left($5, 1000), 'response', left($6, 16384))))
$$;
COMMENT ON FUNCTION sea_mq.with_delivery_error IS 'The history of errors with one more; for internal use';

-- Gives a delivery up: it is a dead letter of subscription endpoint:{name}, and its bytes are kept for a replay.
CREATE FUNCTION sea_mq.give_up_delivery(endpoint_id bigint, event_id uuid, status text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    p sea_mq.delivery_pending;
    name text := (SELECT e.endpoint FROM sea_mq.endpoint_definitions e WHERE e.id = endpoint_id);
    letter bigint;
    payload jsonb;
BEGIN
    SELECT d.* INTO p FROM sea_mq.delivery_pending d WHERE d.endpoint_id = give_up_delivery.endpoint_id AND d.event_id = give_up_delivery.event_id;
    IF NOT FOUND OR name IS NULL THEN
        RETURN NULL;
    END IF;
    BEGIN
        payload := convert_from(p.body, 'UTF8')::jsonb;
    EXCEPTION WHEN OTHERS THEN
        payload := to_jsonb(convert_from(p.body, 'UTF8'));
    END;
    INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, message_id, source_context, event_type, event_version, aggregate_type,
        aggregate_id, payload, headers, reason, failure_count, error, errors, first_failed_at, last_failed_at, dlq_message_id)
    VALUES (p.context, concat_ws('.', p.context, 'event', p.event_type, 'v' || p.event_version), 'endpoint:' || name, p.event_id::text, p.context,
        p.event_type, p.event_version, p.aggregate_type, p.aggregate_id, payload, p.headers,
        CASE status WHEN 'exhausted' THEN 'exhausted' ELSE 'poison' END, p.attempts, left(p.error, 2000), p.errors,
        coalesce(p.first_attempt_at, clock_timestamp()), clock_timestamp(), gen_random_uuid()::text)
    RETURNING id INTO letter;
    UPDATE sea_mq.delivery_pending d SET status = give_up_delivery.status, dead_letter = letter, next_attempt_at = NULL
    WHERE d.endpoint_id = give_up_delivery.endpoint_id AND d.event_id = give_up_delivery.event_id;
    RETURN letter;
END $$;
COMMENT ON FUNCTION sea_mq.give_up_delivery IS 'Makes a dead letter of a delivery that waits, and returns its number; for internal use';

-- What was given up is sent once more, with the same id and bytes.
CREATE FUNCTION sea_mq.replay_delivery(letter sea_mq.dlq_messages, payload jsonb) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    p sea_mq.delivery_pending;
BEGIN
    UPDATE sea_mq.delivery_pending d SET status = 'pending', dead_letter = NULL, counted = 0, first_attempt_at = NULL,
        next_attempt_at = clock_timestamp(), body = coalesce(convert_to(payload::text, 'UTF8'), d.body)
    WHERE d.dead_letter = letter.id RETURNING * INTO p;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'dead letter % can be replayed nowhere', letter.id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Its endpoint was dropped.';
    END IF;
    UPDATE sea_mq.dlq_messages d SET replayed_at = clock_timestamp(), replay_event_id = p.event_id,
        replayed_by = sea_mq.caller_name(), actor = sea_mq.actor()
    WHERE d.id = letter.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN p.event_id;
END $$;
COMMENT ON FUNCTION sea_mq.replay_delivery IS 'Sends what an endpoint did not take once more, to it alone; for internal use';

CREATE FUNCTION sea_mq.discard_delivery(letter bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH gone AS (DELETE FROM sea_mq.delivery_pending d WHERE d.dead_letter = $1 RETURNING d.*)
    INSERT INTO sea_mq.delivery_log (slot, http_status, attempts, endpoint_id, finished_at, event_id, duration, status, error, errors)
    SELECT r.current_slot, g.http_status, g.attempts, g.endpoint_id, clock_timestamp(), g.event_id, g.duration, g.status, g.error, g.errors
    FROM gone g, sea_mq.delivery_ring r
    ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION sea_mq.discard_delivery IS 'Nothing more is done about a delivery that was given up; for internal use';

CREATE FUNCTION sea_mq.redeliver(event_id uuid, endpoint text) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    p sea_mq.delivery_pending;
    l sea_mq.outbox_log;
    made record;
BEGIN
    SELECT d.* INTO p FROM sea_mq.delivery_pending d WHERE d.endpoint_id = e.id AND d.event_id = redeliver.event_id FOR UPDATE;
    IF FOUND AND p.dead_letter IS NOT NULL THEN
        RETURN sea_mq.dlq_replay(p.dead_letter);
    ELSIF FOUND THEN
        UPDATE sea_mq.delivery_pending d SET next_attempt_at = clock_timestamp()
        WHERE d.endpoint_id = e.id AND d.event_id = redeliver.event_id AND d.status IN ('pending', 'retrying');
    ELSE
        SELECT o.* INTO l FROM (SELECT i.* FROM sea_mq.outbox_log i WHERE i.id = redeliver.event_id OFFSET 0) o ORDER BY o.seq DESC LIMIT 1;
        SELECT r.* INTO made FROM sea_mq.outgoing_rows(ARRAY[l.seq]::text, e.audience, sea_mq.wire_format(e.kind, e.format), e.body) r;
        IF l.id IS NULL OR made.body IS NULL THEN
            RAISE EXCEPTION 'event % cannot be delivered again', event_id
                USING ERRCODE = 'undefined_object', HINT = coalesce(made.error, 'It is not retained any more, or its visibility does not reach the endpoint.');
        END IF;
        DELETE FROM sea_mq.delivery_log d WHERE d.event_id = redeliver.event_id AND d.endpoint_id = e.id;
        INSERT INTO sea_mq.delivery_pending (endpoint_id, event_id, status, seq, key, context, event_type, event_version, aggregate_type,
            aggregate_id, body, headers, next_attempt_at)
        VALUES (e.id, l.id, 'pending', nextval('sea_mq.outbox_seq'), concat_ws('/', l.aggregate_type, l.aggregate_id), l.context, l.event_type,
            l.event_version, l.aggregate_type, l.aggregate_id, convert_to(made.body, 'UTF8'), made.headers::jsonb, clock_timestamp());
    END IF;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN event_id;
END $$;
COMMENT ON FUNCTION sea_mq.redeliver IS
'Sends an event to one endpoint once more, with the same id: what was given up or waits (with the same bytes), or what was delivered, as long as it
is retained. Error 42704: no such endpoint, or the event is not retained';

CREATE FUNCTION sea_mq.redeliver_all(endpoint text, since timestamptz, until timestamptz DEFAULT now()) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    again bigint := 0;
    id uuid;
BEGIN
    FOR id IN
        SELECT p.event_id FROM sea_mq.delivery_pending p
        WHERE p.endpoint_id = e.id AND p.dead_letter IS NOT NULL AND p.created_at >= since AND p.created_at <= until
        UNION ALL
        SELECT l.event_id FROM sea_mq.delivery_log l
        WHERE l.endpoint_id = e.id AND l.finished_at >= since AND l.finished_at <= until
            AND EXISTS (SELECT FROM sea_mq.outbox_log o WHERE o.id = l.event_id)
    LOOP
        PERFORM sea_mq.redeliver(id, endpoint);
        again := again + 1;
    END LOOP;
    RETURN again;
END $$;
COMMENT ON FUNCTION sea_mq.redeliver_all IS
'Sends once more what an endpoint got, or did not take, between two times, as far as it is retained; returns how many. Error 42704';

CREATE FUNCTION sea_mq.cancel_delivery(event_id uuid, endpoint text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    p sea_mq.delivery_pending;
BEGIN
    DELETE FROM sea_mq.delivery_pending d WHERE d.endpoint_id = e.id AND d.event_id = cancel_delivery.event_id
        AND d.status IN ('pending', 'retrying', 'parked') RETURNING * INTO p;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO sea_mq.delivery_log (slot, http_status, attempts, endpoint_id, finished_at, event_id, duration, status, error, errors)
    SELECT r.current_slot, p.http_status, p.attempts, e.id, clock_timestamp(), p.event_id, p.duration, 'cancelled', p.error, p.errors
    FROM sea_mq.delivery_ring r ON CONFLICT DO NOTHING;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN true;
END $$;
COMMENT ON FUNCTION sea_mq.cancel_delivery IS
'Gives up a delivery that waits; false if it does not. An attempt that is under way ends as it ends. Error 42704: no such endpoint';

-- A restored dump is adopted: places in the log mean nothing here. What endpoints have not got is kept as deliveries of their own.
CREATE FUNCTION sea_mq.keep_for_endpoints() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO sea_mq.delivery_pending (endpoint_id, event_id, status, seq, key, context, event_type, event_version, aggregate_type,
        aggregate_id, body, headers, next_attempt_at)
    SELECT e.id, l.id, 'pending', nextval('sea_mq.outbox_seq'), concat_ws('/', l.aggregate_type, l.aggregate_id), l.context, l.event_type,
        l.event_version, l.aggregate_type, l.aggregate_id, convert_to(o.body, 'UTF8'), o.headers::jsonb, clock_timestamp()
    FROM sea_mq.endpoint_definitions e
    JOIN sea_mq.endpoint_readers r ON r.endpoint_id = e.id
    LEFT JOIN sea_mq.cursors p ON p.reader_kind = 'endpoint' AND p.reader = r.reader
    JOIN sea_mq.outbox_log l ON l.sink = sea_mq.sink_id(r.context, 'event')
    CROSS JOIN LATERAL sea_mq.outgoing_rows(ARRAY[l.seq]::text, e.audience, sea_mq.wire_format(e.kind, e.format), e.body) o
    WHERE (p.done IS NULL OR NOT (pg_visible_in_snapshot(l.xid, p.done)
            OR (p.batch_upto IS NOT NULL AND l.seq <= p.batch_at AND pg_visible_in_snapshot(l.xid, p.batch_upto))))
        AND (e.start_at IS NULL OR l.created_at >= e.start_at) AND NOT sea_mq.delivery_done(l.id, e.id) AND o.body IS NOT NULL
        AND sea_mq.covers_subject(e.subject_filters, coalesce(l.subject, concat_ws('.', l.context, 'event', l.event_type, 'v' || l.event_version)))
    ON CONFLICT ON CONSTRAINT delivery_pending_pkey DO NOTHING;
END $$;
COMMENT ON FUNCTION sea_mq.keep_for_endpoints IS 'Makes deliveries of what endpoints have not got, when a restored dump is adopted; for internal use';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.deliver, sea_mq.redeliver, sea_mq.redeliver_all, sea_mq.cancel_delivery TO sea_mq_operator;
