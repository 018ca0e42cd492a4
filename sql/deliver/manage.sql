-- Functions that describe endpoints.
CREATE FUNCTION sea_mq.endpoint_url(url text) RETURNS text LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'endpoint_url_wrapper';
COMMENT ON FUNCTION sea_mq.endpoint_url IS 'An URL of an endpoint in its normal form. Error 22023: it may not be one; for internal use';
CREATE FUNCTION sea_mq.broker_url(url text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'broker_url_wrapper';
COMMENT ON FUNCTION sea_mq.broker_url IS 'An URL of an endpoint of kind nats in its normal form. Error 22023: it may not be one; for internal use';
CREATE FUNCTION sea_mq.data_place() RETURNS text LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'data_place_wrapper';
COMMENT ON FUNCTION sea_mq.data_place IS 'Which data directory this is: a copy of it has other files; for internal use';
CREATE FUNCTION sea_mq.seal_secret(endpoint_id bigint, name text, version bigint, value text) RETURNS bytea
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'seal_secret_wrapper';
COMMENT ON FUNCTION sea_mq.seal_secret IS 'Encrypts a secret; makes the key if there is none. Error 58030: the key cannot be read; for internal use';
CREATE FUNCTION sea_mq.generate_secret(key_pair boolean) RETURNS text
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'generate_secret_wrapper';
COMMENT ON FUNCTION sea_mq.generate_secret IS 'A new signing secret; for internal use';
CREATE FUNCTION sea_mq.public_key(secret text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'public_key_wrapper';
COMMENT ON FUNCTION sea_mq.public_key IS
'What whoever verifies needs: the public key of an asymmetric secret, else the secret itself. Error 22023: it is no signing secret; for internal use';
CREATE FUNCTION sea_mq.dispatch_at_commit() RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dispatch_at_commit_wrapper';
COMMENT ON FUNCTION sea_mq.dispatch_at_commit IS 'Starts the dispatcher, or has it look at its tables again, when this transaction commits; for internal use';

CREATE FUNCTION sea_mq.here() RETURNS sea_mq.endpoint_home
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ROW(true, c.system_identifier, d.oid, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer,
        sea_mq.data_place(), now())::sea_mq.endpoint_home
    FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION sea_mq.here IS 'This installation as sea_mq.endpoint_home has it; for internal use';
CREATE FUNCTION sea_mq.is_home() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM sea_mq.endpoint_home h, sea_mq.here() n
        WHERE (h.system_identifier, h.database_oid, h.timeline, h.place) = (n.system_identifier, n.database_oid, n.timeline, n.place))
$$;
COMMENT ON FUNCTION sea_mq.is_home IS 'Whether the endpoints are served here: not in a copy, nor after a recovery; for internal use';
CREATE FUNCTION sea_mq.come_home() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM sea_mq.endpoint_home;
    INSERT INTO sea_mq.endpoint_home SELECT n.* FROM sea_mq.here() n;
$$;
COMMENT ON FUNCTION sea_mq.come_home IS 'From now on the endpoints are served here; for internal use';

CREATE FUNCTION sea_mq.endpoint_named(endpoint text) RETURNS sea_mq.endpoint_definitions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions;
BEGIN
    SELECT t.* INTO e FROM sea_mq.endpoint_definitions t WHERE t.endpoint = endpoint_named.endpoint FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no endpoint "%"', endpoint
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.endpoints.';
    END IF;
    RETURN e;
END $$;
COMMENT ON FUNCTION sea_mq.endpoint_named IS 'An endpoint by its name, locked. Error 42704; for internal use';

-- What would be sent in another place, or read as something else, is refused before events are accepted.
CREATE FUNCTION sea_mq.check_endpoint_headers(headers jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h record;
BEGIN
    IF jsonb_typeof(headers) <> 'object' THEN
        RAISE EXCEPTION 'headers are an object of strings'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in ''{"X-Tenant": "acme"}''.';
    END IF;
    FOR h IN SELECT e.key, e.value, jsonb_typeof(e.value) AS kind FROM jsonb_each(headers) e LOOP
        IF h.key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,200}$' OR h.kind <> 'string' OR (h.value #>> '{}') ~ '[^\u0020-\u007e\u00a0-\u00ff]' THEN
            RAISE EXCEPTION 'header "%" is none', left(h.key, 100)
                USING ERRCODE = 'invalid_parameter_value', HINT = 'A name has letters, digits and -, a value is a string of one line.';
        ELSIF lower(h.key) ~ '^(host|content-.*|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|proxy-.*|accept-encoding|authorization|user-agent|webhook-.*|idempotency-key|ce-.*|cookie)$' THEN
            RAISE EXCEPTION 'header "%" is set by sea_mq', h.key
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out; for Authorization, use auth and sea_mq.set_secret.';
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.check_endpoint_headers IS 'Error 22023 if headers cannot be those of an endpoint; for internal use';

CREATE FUNCTION sea_mq.check_endpoint_auth(auth jsonb) RETURNS void
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
COMMENT ON FUNCTION sea_mq.check_endpoint_auth IS 'Error 22023 if auth cannot be understood; for internal use';

CREATE FUNCTION sea_mq.subjects_of(source text, filter text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN $2 IS NULL THEN ARRAY[sea_mq.subject_filter($1, NULL)]
        ELSE array(SELECT CASE WHEN $1 IS NULL AND f !~ '[*>]' AND f ~ '^[^.]+([.]v[0-9]+)?$'
            THEN replace(sea_mq.subject_filter('x', f), 'x.event.', '*.event.') ELSE sea_mq.subject_filter($1, f) END
            FROM unnest($2) WITH ORDINALITY u(f, place) ORDER BY place) END
$$;
COMMENT ON FUNCTION sea_mq.subjects_of IS 'The subjects that an endpoint''s filter stands for. Error 22023; for internal use';

CREATE FUNCTION sea_mq.check_described(e sea_mq.endpoint_definitions) RETURNS sea_mq.endpoint_definitions
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
COMMENT ON FUNCTION sea_mq.check_described IS 'An endpoint''s description in its normal form. Errors 22023, 42501; for internal use';

CREATE FUNCTION sea_mq.create_endpoint(
    endpoint text, kind text, url text, source text DEFAULT NULL, filter text[] DEFAULT NULL, audience text DEFAULT 'partner',
    format text DEFAULT 'standard', method text DEFAULT 'POST', headers jsonb DEFAULT NULL, body jsonb DEFAULT NULL,
    auth jsonb DEFAULT NULL, ordering text DEFAULT 'none', on_exhausted text DEFAULT 'continue', max_in_flight integer DEFAULT 16,
    rate double precision DEFAULT NULL, timeout interval DEFAULT '15 s', connect_timeout interval DEFAULT '5 s',
    retry_schedule interval[] DEFAULT NULL, max_age interval DEFAULT '76 h', max_size integer DEFAULT 262144,
    keep_response boolean DEFAULT false, start_from text DEFAULT 'new')
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    new sea_mq.endpoint_definitions;
    old sea_mq.endpoint_definitions;
BEGIN
    IF endpoint IS NULL OR kind IS NULL OR url IS NULL OR start_from IS NULL THEN
        RAISE EXCEPTION 'endpoint, kind, url and start_from must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.create_endpoint(''acme'', ''webhook'', ''https://acme.example/hook'').';
    END IF;
    new := ROW(NULL, endpoint, kind, url, sea_mq.context_name(source), filter, NULL, audience, format, method, coalesce(headers, '{}'), body, auth, ordering,
        on_exhausted, max_in_flight, rate, timeout, connect_timeout, retry_schedule, max_age, max_size, keep_response, start_from,
        CASE WHEN start_from = 'new' THEN clock_timestamp() WHEN start_from <> 'all' THEN sea_mq.start_time(start_from) END,
        false, pg_get_userbyid(sea_mq.caller()), now(), now(), NULL);
    new := sea_mq.check_described(new);
    SELECT e.* INTO old FROM sea_mq.endpoint_definitions e WHERE e.endpoint = new.endpoint;
    IF FOUND THEN
        IF to_jsonb(old) - '{id,start_at,paused,created_by,created_by_oid,created_at,updated_at}'::text[]
            <> to_jsonb(new) - '{id,start_at,paused,created_by,created_by_oid,created_at,updated_at}'::text[] THEN
            RAISE EXCEPTION 'there is an endpoint "%" already, and it is another one', endpoint
                USING ERRCODE = 'duplicate_object', HINT = 'Change it with sea_mq.alter_endpoint, or drop it first.';
        END IF;
        RETURN new.endpoint;
    END IF;
    IF NOT EXISTS (SELECT FROM sea_mq.endpoint_definitions) AND NOT sea_mq.is_home() THEN
        PERFORM sea_mq.come_home();
    END IF;
    new.id := nextval('sea_mq.endpoint_definitions_id_seq');
    INSERT INTO sea_mq.endpoint_definitions SELECT new.*;
    PERFORM sea_mq.begin_reading(new, true);
    INSERT INTO sea_mq.endpoint_health (endpoint_id, state) VALUES (new.id, 'active');
    IF kind = 'webhook' THEN
        PERFORM sea_mq.put_secret(new.id, 'signing', sea_mq.generate_secret(false));
    END IF;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN new.endpoint;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the endpoint cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'timeout is 100 ms to 1 hour, max_in_flight 1 to 1024, and a body goes with format template; see the constraints of sea_mq.endpoints for the others.';
WHEN unique_violation THEN
    RAISE EXCEPTION 'there is an endpoint "%" already', endpoint
        USING ERRCODE = 'duplicate_object', HINT = 'Change it with sea_mq.alter_endpoint, or drop it first.';
END $$;
COMMENT ON FUNCTION sea_mq.create_endpoint IS
'Describes an endpoint outside that gets events, and returns its name; the dispatcher delivers to it. Parameters are the columns of
sea_mq.endpoints. Repeating the same call is a no-op. A webhook''s signing secret is made here, and shown by sea_mq.rotate_secret.
Errors: 22004, 22023, 42501 (kind nats), 42710 (another one has that name)';

-- A reader for each context that the endpoint gets events of. What is new begins where the log ends now; a context that comes later
-- begins with its first event.
CREATE FUNCTION sea_mq.begin_reading(e sea_mq.endpoint_definitions, is_new boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    position jsonb := CASE WHEN is_new AND e.start_from = 'new' THEN sea_mq.log_position() END;
    r bigint;
BEGIN
    FOR r IN
        INSERT INTO sea_mq.endpoint_readers (endpoint_id, context)
        SELECT e.id, c.context FROM (SELECT s.context FROM sea_mq.streams s WHERE s.kind = 'event' UNION SELECT e.source) c
        WHERE c.context IS NOT NULL AND c.context = coalesce(e.source, c.context) AND cardinality(e.subject_filters) > 0
        ON CONFLICT DO NOTHING RETURNING reader
    LOOP
        IF position IS NOT NULL THEN
            INSERT INTO sea_mq.cursor_log (slot, reader_kind, reader, done, next_xid, floor)
            VALUES (0, 'endpoint', r, (position ->> 'done')::pg_snapshot, (position ->> 'next_xid')::bigint, (position ->> 'floor')::bigint);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.begin_reading IS 'Gives an endpoint the readers that it lacks; for internal use';

CREATE FUNCTION sea_mq.alter_endpoint(
    endpoint text, url text DEFAULT NULL, filter text[] DEFAULT NULL, audience text DEFAULT NULL, format text DEFAULT NULL,
    method text DEFAULT NULL, headers jsonb DEFAULT NULL, body jsonb DEFAULT NULL, auth jsonb DEFAULT NULL, ordering text DEFAULT NULL,
    on_exhausted text DEFAULT NULL, max_in_flight integer DEFAULT NULL, rate double precision DEFAULT NULL, timeout interval DEFAULT NULL,
    connect_timeout interval DEFAULT NULL, retry_schedule interval[] DEFAULT NULL, max_age interval DEFAULT NULL,
    max_size integer DEFAULT NULL, keep_response boolean DEFAULT NULL)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
BEGIN
    e.url := coalesce(url, e.url);
    e.filter := coalesce(filter, e.filter);
    e.audience := coalesce(audience, e.audience);
    e.format := coalesce(format, e.format);
    e.method := coalesce(method, e.method);
    e.headers := coalesce(headers, e.headers);
    e.body := CASE e.format WHEN 'template' THEN coalesce(body, e.body) ELSE body END;
    e.auth := CASE WHEN auth = 'null' THEN NULL ELSE coalesce(auth, e.auth) END;
    e.ordering := coalesce(ordering, e.ordering);
    e.on_exhausted := coalesce(on_exhausted, e.on_exhausted);
    e.max_in_flight := coalesce(max_in_flight, e.max_in_flight);
    e.rate := CASE WHEN rate = 'Infinity' THEN NULL ELSE coalesce(rate, e.rate) END;
    e.timeout := coalesce(timeout, e.timeout);
    e.connect_timeout := coalesce(connect_timeout, e.connect_timeout);
    e.retry_schedule := coalesce(retry_schedule, e.retry_schedule);
    e.max_age := coalesce(max_age, e.max_age);
    e.max_size := coalesce(max_size, e.max_size);
    e.keep_response := coalesce(keep_response, e.keep_response);
    e := sea_mq.check_described(e);
    UPDATE sea_mq.endpoint_definitions t SET url = e.url, filter = e.filter, subject_filters = e.subject_filters, audience = e.audience,
        format = e.format, method = e.method, headers = e.headers, body = e.body, auth = e.auth, ordering = e.ordering,
        on_exhausted = e.on_exhausted, max_in_flight = e.max_in_flight, rate = e.rate, timeout = e.timeout,
        connect_timeout = e.connect_timeout, retry_schedule = e.retry_schedule, max_age = e.max_age, max_size = e.max_size,
        keep_response = e.keep_response, updated_at = clock_timestamp()
    WHERE t.id = e.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN e.endpoint;
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'the endpoint cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'timeout is 100 ms to 1 hour, max_in_flight 1 to 1024, and a body goes with format template; see the constraints of sea_mq.endpoints for the others.';
END $$;
COMMENT ON FUNCTION sea_mq.alter_endpoint IS
'Changes the description of an endpoint; NULL leaves a setting as it is (auth ''null'' takes it away, rate ''Infinity'' the bound). What
waits for another attempt keeps its bytes. Errors: 22023, 42501, 42704';

CREATE FUNCTION sea_mq.set_endpoint_paused(endpoint text, paused boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
BEGIN
    UPDATE sea_mq.endpoint_definitions t SET paused = set_endpoint_paused.paused, updated_at = clock_timestamp() WHERE t.id = e.id;
    IF NOT set_endpoint_paused.paused THEN
        -- Whoever resumes it has looked.
        UPDATE sea_mq.endpoint_health h SET state = 'active', error_kind = NULL, error = NULL, hint = NULL, since = now() WHERE h.endpoint_id = e.id;
    END IF;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN e.endpoint;
END $$;
COMMENT ON FUNCTION sea_mq.set_endpoint_paused IS 'What pause_endpoint and resume_endpoint do; for internal use';
CREATE FUNCTION sea_mq.pause_endpoint(endpoint text) RETURNS text LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
'SELECT sea_mq.set_endpoint_paused($1, true)';
COMMENT ON FUNCTION sea_mq.pause_endpoint IS 'Sends nothing more to an endpoint until it is resumed; its events wait. Error 42704';
CREATE FUNCTION sea_mq.resume_endpoint(endpoint text) RETURNS text LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
'SELECT sea_mq.set_endpoint_paused($1, false)';
COMMENT ON FUNCTION sea_mq.resume_endpoint IS 'Goes on with an endpoint that was paused, or that waits for a person (refused, gone). Error 42704';

CREATE FUNCTION sea_mq.drop_endpoint(endpoint text, discard_pending boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    waiting bigint;
BEGIN
    SELECT count(*) INTO waiting FROM sea_mq.delivery_pending p WHERE p.endpoint_id = e.id AND p.status IN ('pending', 'retrying', 'parked');
    IF waiting > 0 AND NOT discard_pending THEN
        RAISE EXCEPTION 'endpoint "%" has % deliveries that wait', endpoint, waiting
            USING ERRCODE = 'object_in_use', HINT = 'Wait until they are delivered, or give them up with discard_pending => true.';
    END IF;
    IF EXISTS (SELECT FROM sea_mq.subscriptions s WHERE s.endpoint = e.endpoint) THEN
        RAISE EXCEPTION 'endpoint "%" handles subscription "%"', endpoint, (SELECT min(s.subscription) FROM sea_mq.subscriptions s WHERE s.endpoint = e.endpoint)
            USING ERRCODE = 'object_in_use', HINT = 'Unsubscribe it, or name another endpoint with sea_mq.alter_subscription.';
    END IF;
    DELETE FROM sea_mq.delivery_pending p WHERE p.endpoint_id = e.id;
    DELETE FROM sea_mq.endpoint_secrets s WHERE s.endpoint_id = e.id;
    DELETE FROM sea_mq.endpoint_readers r WHERE r.endpoint_id = e.id;
    DELETE FROM sea_mq.endpoint_health h WHERE h.endpoint_id = e.id;
    DELETE FROM sea_mq.dropped_deliveries d WHERE d.endpoint_id = e.id;
    DELETE FROM sea_mq.endpoint_definitions t WHERE t.id = e.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN e.endpoint;
END $$;
COMMENT ON FUNCTION sea_mq.drop_endpoint IS
'Removes an endpoint. Refused while deliveries wait for another attempt, unless discard_pending is true, and while it handles a subscription.
Errors: 42704, 55006';

CREATE FUNCTION sea_mq.forget_dropped(endpoint text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    forgotten bigint;
BEGIN
    DELETE FROM sea_mq.dropped_deliveries d WHERE d.endpoint_id = e.id RETURNING d.events INTO forgotten;
    RETURN coalesce(forgotten, 0);
END $$;
COMMENT ON FUNCTION sea_mq.forget_dropped IS
'Ends the problem that events were dropped before an endpoint got them: sent in another way, or given up. Returns how many. Error 42704';

CREATE FUNCTION sea_mq.put_secret(endpoint_id bigint, name text, value text, grace interval DEFAULT '0') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    version bigint := nextval('sea_mq.position_number');
BEGIN
    DELETE FROM sea_mq.endpoint_secrets s WHERE s.endpoint_id = put_secret.endpoint_id AND s.name = put_secret.name
        AND (s.expires_at < now() OR grace <= '0');
    UPDATE sea_mq.endpoint_secrets s SET expires_at = least(s.expires_at, now() + grace)
    WHERE s.endpoint_id = put_secret.endpoint_id AND s.name = put_secret.name;
    INSERT INTO sea_mq.endpoint_secrets (endpoint_id, name, version, sealed)
    VALUES (put_secret.endpoint_id, put_secret.name, version, sea_mq.seal_secret(put_secret.endpoint_id, put_secret.name, version, value));
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'the name of a secret has letters, digits, _, . and -'
        USING ERRCODE = 'invalid_parameter_value', HINT = 'As in sea_mq.set_secret(''acme'', ''token'', ''…'').';
END $$;
COMMENT ON FUNCTION sea_mq.put_secret IS 'Stores a secret; the one before is used for as long as grace says; for internal use';

CREATE FUNCTION sea_mq.rotate_secret(endpoint text, grace interval DEFAULT '24 h', scheme text DEFAULT 'v1') RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
    secret text := sea_mq.generate_secret(scheme = 'v1a');
BEGIN
    IF scheme IS NULL OR scheme NOT IN ('v1', 'v1a') OR grace IS NULL OR grace > '1 year' THEN
        RAISE EXCEPTION 'scheme is v1 or v1a, and grace a year at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'v1 is a secret that both sides know, v1a a key pair.';
    END IF;
    PERFORM sea_mq.put_secret(e.id, 'signing', secret, grace);
    UPDATE sea_mq.endpoint_definitions t SET updated_at = clock_timestamp() WHERE t.id = e.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN sea_mq.public_key(secret);
END $$;
COMMENT ON FUNCTION sea_mq.rotate_secret IS
'Makes a new signing secret and returns it, once (scheme v1a: its public key). Deliveries are signed with the old one as well until
grace is over. Errors: 22023, 42704';

CREATE FUNCTION sea_mq.set_secret(endpoint text, name text, value text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e sea_mq.endpoint_definitions := sea_mq.endpoint_named(endpoint);
BEGIN
    IF name IS NULL OR value IS NULL THEN
        RAISE EXCEPTION 'name and value must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.set_secret(''acme'', ''token'', $1).';
    ELSIF name = 'signing' THEN
        PERFORM sea_mq.public_key(value);
    END IF;
    PERFORM sea_mq.put_secret(e.id, name, value);
    UPDATE sea_mq.endpoint_definitions t SET updated_at = clock_timestamp() WHERE t.id = e.id;
    PERFORM sea_mq.dispatch_at_commit();
    RETURN name;
END $$;
COMMENT ON FUNCTION sea_mq.set_secret IS
'Sets a secret of an endpoint, which auth names; signing: what deliveries are signed with (whsec_… or whsk_…). Pass the value as a
parameter, so that it is in no statement''s text. Errors: 22004, 22023, 42704';

CREATE FUNCTION sea_mq.check_endpoint(endpoint text) RETURNS TABLE (step text, ok boolean, detail text)
LANGUAGE c VOLATILE STRICT ROWS 5 AS 'MODULE_PATHNAME', 'check_endpoint_wrapper';
COMMENT ON FUNCTION sea_mq.check_endpoint IS
'Sends an event of type ping to an endpoint, from this session and whatever its state is, and says how far it came: secrets, resolves,
connects, tls, answers. ok is NULL for what it did not come to. Waits for the answer as long as the endpoint''s timeouts. Error 42704';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.create_endpoint, sea_mq.alter_endpoint, sea_mq.set_endpoint_paused, sea_mq.pause_endpoint,
    sea_mq.resume_endpoint, sea_mq.drop_endpoint, sea_mq.forget_dropped, sea_mq.rotate_secret, sea_mq.set_secret,
    sea_mq.check_endpoint TO sea_mq_operator;
