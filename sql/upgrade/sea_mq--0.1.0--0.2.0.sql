-- From 0.1.0 to 0.2.0. Made by scripts/upgrade.py; what is said by hand is in 0.1.0--0.2.0.by-hand.sql.
SELECT sea_mq.check_library();


DROP FUNCTION sea_mq.take_calls(text, bigint, bigint);
CREATE FUNCTION sea_mq.broker_url(url text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'broker_url_wrapper';
COMMENT ON FUNCTION sea_mq.broker_url IS 'An URL of an endpoint of kind nats in its normal form. Error 22023: it may not be one; for internal use';
CREATE OR REPLACE FUNCTION sea_mq.check_endpoint_auth(auth jsonb) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fields CONSTANT jsonb := '{"basic": ["type", "user", "password"], "bearer": ["type", "token"],
        "oauth2": ["type", "token_url", "client_id", "client_secret"], "mtls": ["type", "certificate", "key"],
        "nkey": ["type", "seed"], "creds": ["type", "creds"]}';
    wanted jsonb := fields -> (auth ->> 'type');
    given jsonb;
BEGIN
    SELECT jsonb_agg(a.key) INTO given FROM jsonb_each(CASE jsonb_typeof(auth) WHEN 'object' THEN auth ELSE '{}' END) a
    WHERE jsonb_typeof(a.value) = 'string' AND a.key <> 'scope';
    IF auth IS NOT NULL AND (wanted IS NULL OR given IS NULL OR NOT (given @> wanted AND wanted @> given)
        OR (auth ? 'scope' AND auth ->> 'type' <> 'oauth2')) THEN
        RAISE EXCEPTION 'auth cannot be understood'
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Use {"type": "basic", "user", "password"}, {"type": "bearer", "token"}, {"type": "oauth2", "token_url", "client_id", "client_secret", "scope"} or {"type": "mtls", "certificate", "key"}, and for kind nats {"type": "nkey", "seed"} or {"type": "creds", "creds"}; password, token, client_secret, certificate, key, seed and creds name secrets (sea_mq.set_secret).';
    END IF;
    IF auth ->> 'type' = 'oauth2' THEN
        PERFORM sea_mq.endpoint_url(auth ->> 'token_url');
    END IF;
END $$;
CREATE OR REPLACE FUNCTION sea_mq.check_described(e sea_mq.endpoint_definitions) RETURNS sea_mq.endpoint_definitions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF e.kind = 'nats' AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = sea_mq.caller()) THEN
        RAISE EXCEPTION 'only superusers make endpoints of kind nats'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Its client looks names up by itself, so it could reach what is not public.';
    END IF;
    e.url := CASE e.kind WHEN 'nats' THEN sea_mq.broker_url(e.url) ELSE sea_mq.endpoint_url(e.url) END;
    PERFORM sea_mq.check_endpoint_headers(e.headers);
    PERFORM sea_mq.check_endpoint_auth(e.auth);
    IF (e.kind = 'nats' AND e.auth ->> 'type' = 'oauth2') OR (e.kind <> 'nats' AND e.auth ->> 'type' IN ('nkey', 'creds')) THEN
        RAISE EXCEPTION 'auth of type % is not for endpoints of kind %', e.auth ->> 'type', e.kind
            USING ERRCODE = 'invalid_parameter_value', HINT = 'nats has basic, bearer, nkey, creds and mtls; the others have basic, bearer, oauth2 and mtls.';
    ELSIF e.kind = 'nats' AND e.format = 'cloudevents_batch' THEN
        RAISE EXCEPTION 'a message is one event'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use format standard, cloudevents_structured or template.';
    ELSIF e.kind = 'nats' AND EXISTS (SELECT FROM jsonb_object_keys(e.headers) h(name) WHERE lower(h.name) ~ '^nats-') THEN
        RAISE EXCEPTION 'headers that begin with Nats- are the broker''s'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave them out.';
    END IF;
    e.subject_filters := sea_mq.subjects_of(e.source, e.filter);
    RETURN e;
END $$;
CREATE FUNCTION sea_mq.wire_format(kind text, format text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT CASE $1 WHEN 'nats' THEN 'nats:' || $2 ELSE $2 END $$;
COMMENT ON FUNCTION sea_mq.wire_format IS 'A format as it is rendered: messages have other headers than requests; for internal use';
CREATE OR REPLACE FUNCTION sea_mq.outgoing(event sea_mq.event, audience text, format text, template jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen sea_mq.event := sea_mq.external_view(event, audience);
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
CREATE OR REPLACE FUNCTION sea_mq.outgoing_rows(seqs text, audience text, format text, template jsonb,
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
CREATE OR REPLACE FUNCTION sea_mq.deliver(endpoint text, event_type text, payload jsonb, event_id uuid DEFAULT NULL, event_version integer DEFAULT 1,
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
CREATE OR REPLACE FUNCTION sea_mq.redeliver(event_id uuid, endpoint text) RETURNS uuid
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
        SELECT o.* INTO l FROM sea_mq.outbox_log o WHERE o.id = redeliver.event_id ORDER BY o.seq DESC LIMIT 1;
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
CREATE OR REPLACE FUNCTION sea_mq.keep_for_endpoints() RETURNS void
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
CREATE OR REPLACE FUNCTION sea_mq.endpoint_descriptions() RETURNS TABLE (description text, state text)
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
CREATE FUNCTION sea_mq.callable(subscription text, max bigint, flying bigint[], floor bigint, OUT ids bigint[], OUT next_floor bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    -- An endpoint handles all of them.
    lanes integer := (SELECT max(greatest(s.workers, h.lanes)) FROM sea_mq.subscriptions s
        LEFT JOIN sea_mq.subscription_health h ON h.subscription = s.subscription WHERE s.subscription = callable.subscription);
    wide bigint := greatest(2 * callable.max, 16);
    is_cut boolean;
BEGIN
    LOOP
        WITH firsts AS MATERIALIZED (
            SELECT f.* FROM generate_series(0, lanes - 1) g(lane) CROSS JOIN LATERAL (
                SELECT w.id, w.aggregate_type, w.aggregate_id, w.due_at, row_number() OVER (ORDER BY w.id) AS place FROM sea_mq.inbox_pending w
                WHERE w.subscription = callable.subscription AND w.lane = g.lane::smallint AND w.due_at = 'epoch' AND w.status <> 'processing'
                    AND w.id >= callable.floor
                ORDER BY w.id LIMIT wide) f),
        -- What was read ends here, if there is more: behind it there may be an older one of an aggregate.
        cut AS (SELECT min(f.id) FILTER (WHERE f.place = wide) AS id FROM firsts f),
        known AS (
            SELECT f.id, f.aggregate_type, f.aggregate_id, f.due_at FROM firsts f
            UNION ALL
            SELECT l.* FROM generate_series(0, lanes - 1) g(lane) CROSS JOIN LATERAL (
                SELECT w.id, w.aggregate_type, w.aggregate_id, w.due_at FROM sea_mq.inbox_pending w
                WHERE w.subscription = callable.subscription AND w.lane = g.lane::smallint AND w.due_at > 'epoch'
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
CREATE OR REPLACE FUNCTION sea_mq.next_call(subscription text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT ceil(extract(epoch FROM min(d.due_at) - clock_timestamp()) * 1000)::bigint
    FROM generate_series(0, 5) g(lane) CROSS JOIN LATERAL (SELECT p.due_at FROM sea_mq.inbox_pending p
        WHERE p.subscription = $1 AND p.lane = g.lane::smallint AND p.due_at > clock_timestamp() AND p.status <> 'processing'
        ORDER BY p.due_at LIMIT 1) d
$$;
COMMENT ON FUNCTION sea_mq.next_call IS 'Milliseconds until the next of a subscription''s messages is due that is not yet; for internal use';

-- The door. A function that was declared SECURITY DEFINER does its work as the extension's owner, but not in PostgreSQL's way, which
-- keeps all settings of the caller's but those that the function names: sea_mq.f(…) becomes a C function that runs
-- sea_mq_inside.f(…), the body that was declared, inside the door (src/host/door.rs). The list that remains is in SECURITY.md.
DO $$
DECLARE
    f record;
    definition text;
    quotes text := current_setting('quote_all_identifiers');
BEGIN
    -- What is replaced below is then spelt as it is there.
    PERFORM set_config('quote_all_identifiers', 'off', true);
    FOR f IN
        SELECT p.oid, p.proname AS name, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
            pg_get_function_identity_arguments(p.oid) AS signature,
            CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END
                || CASE WHEN p.proisstrict THEN ' STRICT' ELSE '' END || CASE WHEN p.proretset THEN format(' ROWS %s', p.prorows) ELSE '' END AS traits
        FROM pg_proc p
        WHERE p.pronamespace = 'sea_mq'::regnamespace AND p.prosecdef AND p.proname <> 'workers'
    LOOP
        definition := replace(pg_get_functiondef(f.oid), format('FUNCTION sea_mq.%s(', f.name), format('FUNCTION sea_mq_inside.%s(', f.name));
        EXECUTE definition;
        EXECUTE format('ALTER FUNCTION sea_mq_inside.%s(%s) SECURITY INVOKER', f.name, f.signature);
        EXECUTE format('COMMENT ON FUNCTION sea_mq_inside.%s(%s) IS %L', f.name, f.signature,
            format('What sea_mq.%s does, as the extension''s owner; for internal use', f.name));
        EXECUTE format('CREATE OR REPLACE FUNCTION sea_mq.%s(%s) RETURNS %s LANGUAGE c %s AS ''MODULE_PATHNAME'', ''door_wrapper''',
            f.name, f.arguments, f.result, f.traits);
    END LOOP;
    PERFORM set_config('quote_all_identifiers', quotes, true);
END $$;

-- Messages belong to a role that owns nothing else, and that nobody is a member of. Schema, functions and views stay the
-- installing superuser's: what a superuser calls or reads is then not the owner's to change.
GRANT USAGE ON SCHEMA sea_mq, sea_mq_inside TO sea_mq_owner;
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT c.oid::regclass AS name FROM pg_class c
        WHERE c.relnamespace = 'sea_mq'::regnamespace AND (c.relkind IN ('r', 'p') OR (c.relkind = 'S'
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))))
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO sea_mq_owner', r.name);
    END LOOP;
END $$;
GRANT ALL ON ALL TABLES IN SCHEMA sea_mq TO sea_mq_owner;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA sea_mq, sea_mq_inside TO sea_mq_owner;

-- Nothing is granted to PUBLIC. Functions are executable by PUBLIC unless that is taken back.
REVOKE ALL ON SCHEMA sea_mq FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA sea_mq, sea_mq_inside FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA sea_mq FROM PUBLIC;

GRANT USAGE ON SCHEMA sea_mq TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer;

DO $$
DECLARE
    form regprocedure;
BEGIN
    FOR form IN SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'sea_mq'::regnamespace AND p.proname = 'emit' LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO sea_mq_producer', form);
    END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION sea_mq.emit_many, sea_mq.emit_array, sea_mq.pending_events, sea_mq.event_name, sea_mq.context_name
    TO sea_mq_producer;
-- The ids are for INSERT … RETURNING id.
GRANT INSERT, SELECT (id) ON sea_mq.outbox_events TO sea_mq_producer;

GRANT SELECT ON sea_mq.outbox_events, sea_mq.outbox_status, sea_mq.relay_status, sea_mq.stream_status, sea_mq.problems,
    sea_mq.status, sea_mq.streams, sea_mq.consumers, sea_mq.publish_failures, sea_mq.stream_divergences TO sea_mq_monitor, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.workers, sea_mq.worker_failures, sea_mq.unpublished, sea_mq.is_passed, sea_mq.stored_at, sea_mq.stored_as, sea_mq.pending_events_of, sea_mq.log_size, sea_mq.unpublished_bytes, sea_mq.preloaded, sea_mq.library_version, sea_mq.worker_problem, sea_mq.event_status,
    sea_mq.install_report, sea_mq.event_name, sea_mq.context_name, sea_mq.sink_id TO sea_mq_monitor, sea_mq_operator;

GRANT EXECUTE ON FUNCTION sea_mq.create_stream, sea_mq.alter_stream, sea_mq.rename_stream, sea_mq.drop_stream, sea_mq.create_consumer,
    sea_mq.drop_consumer, sea_mq.start, sea_mq.stop, sea_mq.reload, sea_mq.adopt, sea_mq.test_mode TO sea_mq_operator;
-- Who subscribes owns the subscription. Nobody writes to the tables: who may do what is for the functions to say.
GRANT SELECT ON sea_mq.subscriptions, sea_mq.removed_messages TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.streams TO sea_mq_consumer;
GRANT EXECUTE ON FUNCTION sea_mq.subscribe, sea_mq.unsubscribe, sea_mq.alter_subscription, sea_mq.set_paused,
    sea_mq.pause_subscription, sea_mq.resume_subscription, sea_mq.forget_removed, sea_mq.event_name, sea_mq.context_name
    TO sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.receive, sea_mq.complete, sea_mq.fail, sea_mq.reject, sea_mq.extend_lease,
    sea_mq.inbox_accept(text, text, text, jsonb, text, integer, text, jsonb),
    sea_mq.inbox_accept(sea_mq.plain_text, text, text, sea_mq.json_text, text, integer, text, sea_mq.json_text),
    sea_mq.poison, sea_mq.skip TO sea_mq_consumer;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_list, sea_mq.dlq_replay, sea_mq.dlq_replay_all, sea_mq.dlq_discard TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_list, sea_mq.dlq_page TO sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_page, sea_mq.dlq_replay_batch TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.events_after, sea_mq.masked_payload TO sea_mq_monitor, sea_mq_operator;
GRANT SELECT ON sea_mq.subscription_status, sea_mq.inbox_status, sea_mq.dlq_status TO sea_mq_monitor, sea_mq_operator, sea_mq_consumer;
GRANT SELECT ON sea_mq.inbox_messages, sea_mq.dlq_messages TO sea_mq_monitor, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.inbox_counts, sea_mq.inbox_size, sea_mq.workers TO sea_mq_monitor, sea_mq_operator, sea_mq_consumer;

GRANT EXECUTE ON FUNCTION sea_mq.retry_failed, sea_mq.verify_stream, sea_mq.republish TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.wait_published, sea_mq.publication_now TO sea_mq_producer, sea_mq_operator, sea_mq_monitor;

-- A parameter whose value is known when the statement is planned is cast by these, with the rights of the caller.
GRANT EXECUTE ON FUNCTION sea_mq.json_text_in, sea_mq.json_text_out, sea_mq.id_text_in, sea_mq.id_text_out
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator;

-- How it goes, without what it is about.
GRANT EXECUTE ON FUNCTION sea_mq.metrics TO sea_mq_viewer, sea_mq_monitor, sea_mq_operator;
GRANT SELECT ON sea_mq.metrics, sea_mq.overview, sea_mq.stream_overview, sea_mq.subscription_overview, sea_mq.dlq_overview
    TO sea_mq_viewer, sea_mq_monitor, sea_mq_operator;
-- Functions in a view are called with the rights of whoever reads the view.
GRANT EXECUTE ON FUNCTION sea_mq.workers, sea_mq.preloaded, sea_mq.pending_events_of, sea_mq.log_size, sea_mq.inbox_counts, sea_mq.inbox_size,
    sea_mq.unpublished_bytes TO sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.overview_row TO sea_mq_viewer, sea_mq_monitor, sea_mq_operator;

-- The registry is open to all who use the extension; what is agreed on is registered by operators.
GRANT SELECT ON sea_mq.event_types, sea_mq.schema_definitions
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.contract_violations, sea_mq.contract_uri
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.partner_mappings TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.ingest TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.map_fields TO sea_mq_producer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.register_mapping, sea_mq.drop_mapping TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.external_view TO sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.register_event, sea_mq.register_schema, sea_mq.deprecate_event TO sea_mq_operator;

GRANT EXECUTE ON FUNCTION sea_mq.compare_schemas, sea_mq.compare_versions, sea_mq.export_contracts, sea_mq.contract_path,
    sea_mq.contract_file TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.lint, sea_mq.lint_contracts TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.import_contracts, sea_mq.contract_files TO sea_mq_operator;

-- Handlers link what they make, so whoever emits or handles may.
GRANT EXECUTE ON FUNCTION sea_mq.create_link, sea_mq.create_links, sea_mq.drop_link TO sea_mq_producer, sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.find_link, sea_mq.find_links_by_source, sea_mq.find_links_by_target, sea_mq.find_links_by_type,
    sea_mq.links_of TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.entity_links TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.subscriptions_of, sea_mq.event_names
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.is_processed(text, text), sea_mq.is_processed(uuid, text)
    TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;

GRANT EXECUTE ON FUNCTION sea_mq.create_endpoint, sea_mq.alter_endpoint, sea_mq.drop_endpoint, sea_mq.set_endpoint_paused,
    sea_mq.pause_endpoint, sea_mq.resume_endpoint, sea_mq.rotate_secret, sea_mq.set_secret, sea_mq.deliver, sea_mq.redeliver,
    sea_mq.redeliver_all, sea_mq.cancel_delivery, sea_mq.check_endpoint, sea_mq.forget_dropped TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.delivery_status TO sea_mq_operator, sea_mq_monitor, sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.reader_unread, sea_mq.endpoint_problems TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.endpoints, sea_mq.deliveries, sea_mq.endpoint_status TO sea_mq_operator, sea_mq_monitor;

-- Whoever captures a table must own it; the functions see to it.
GRANT SELECT ON sea_mq.captures, sea_mq.capture_triggers, sea_mq.captured_tables TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.capture_table, sea_mq.begin_capture, sea_mq.stop_capture, sea_mq.capture, sea_mq.capture_condition
    TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.capture_members TO sea_mq_operator, sea_mq_monitor;

DO $$
BEGIN
    IF NOT sea_mq.preloaded() THEN
        RAISE WARNING 'sea_mq is not in shared_preload_libraries'
            USING DETAIL = 'Events are stored, but no relay publishes them.',
                HINT = 'Add sea_mq to shared_preload_libraries and restart the server; until then, call sea_mq.start().';
    END IF;
END $$;
SELECT sea_mq.announce();

SELECT sea_mq.restart_at_commit();
