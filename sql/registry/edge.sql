-- What may leave: the one way in which an event is made fit for those outside, whatever it leaves by.

-- Dumped with the database, so that a value keeps its hash.
CREATE TABLE sea_mq.edge_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key bytea NOT NULL CHECK (length(key) >= 32)
);
COMMENT ON TABLE sea_mq.edge_key IS 'The secret of the keyed hashes that sea_mq.external_view gives; one row, part of a dump';
COMMENT ON COLUMN sea_mq.edge_key.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.edge_key.key IS 'At least 32 random bytes; with another one, the same values have other hashes';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.edge_key', '');

CREATE FUNCTION sea_mq.hmac_sha256(key bytea, value text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'hmac_sha256_wrapper';
COMMENT ON FUNCTION sea_mq.hmac_sha256 IS 'HMAC-SHA-256 (RFC 2104) in hexadecimal';

CREATE FUNCTION sea_mq.sensitive_places(context text, event_type text, event_version integer, payload jsonb,
    OUT path text[], OUT treatment text)
RETURNS SETOF record LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'sensitive_places_wrapper';
COMMENT ON FUNCTION sea_mq.sensitive_places IS
'The places of a payload that its contract marks with "x-sea-sensitive", and what is done with them: strip or hash. No row if the
type is not registered. Those of an array come last element first. Errors: 22023';

-- The key is made when it is first needed: not by CREATE EXTENSION, whose rows a restored dump would collide with.
CREATE FUNCTION sea_mq.keyed_hash(value text) RETURNS text
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    secret bytea := (SELECT k.key FROM sea_mq.edge_key k);
BEGIN
    IF secret IS NULL THEN
        INSERT INTO sea_mq.edge_key (key)
        SELECT decode(replace(string_agg(gen_random_uuid()::text, ''), '-', ''), 'hex') FROM generate_series(1, 4)
        ON CONFLICT DO NOTHING;
        secret := (SELECT k.key FROM sea_mq.edge_key k);
    END IF;
    RETURN 'hmac-sha256:' || sea_mq.hmac_sha256(secret, value);
END $$;
COMMENT ON FUNCTION sea_mq.keyed_hash IS 'What stands outside for a value: equal for equal values, and not to be guessed without sea_mq.edge_key';

CREATE FUNCTION sea_mq.external_payload(context text, event_type text, event_version integer, payload jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place record;
BEGIN
    FOR place IN SELECT * FROM sea_mq.sensitive_places($1, $2, $3, $4) LOOP
        payload := CASE
            WHEN place.treatment = 'hash' AND place.path = '{}' THEN to_jsonb(sea_mq.keyed_hash(payload::text))
            WHEN place.treatment = 'hash' THEN jsonb_set(payload, place.path,
                coalesce(to_jsonb(sea_mq.keyed_hash(payload #>> place.path)), 'null'))
            WHEN place.path = '{}' THEN 'null'
            ELSE payload #- place.path END;
    END LOOP;
    RETURN payload;
END $$;
COMMENT ON FUNCTION sea_mq.external_payload IS 'A payload without what its contract calls sensitive; for internal use';

-- Headers that say where inside an event comes from and what happened to it there.
CREATE FUNCTION sea_mq.external_headers(headers jsonb) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(h.key, CASE WHEN lower(h.key) IN ('x-correlation-id', 'ce-correlationid')
        THEN to_jsonb(sea_mq.keyed_hash(h.value #>> '{}')) ELSE h.value END), '{}')
    FROM jsonb_each($1) h
    WHERE lower(h.key) NOT IN ('traceparent', 'tracestate', 'baggage', 'x-causation-id', 'ce-causationid', 'x-subscription', 'x-error', 'x-errors')
        AND lower(h.key) !~ '^(nats-|x-sea-|x-repl|x-original-|x-partner|x-fail|x-first-failed|x-last-failed|ce-visibility$)'
$$;
COMMENT ON FUNCTION sea_mq.external_headers IS 'Headers without provenance, the correlation id as a keyed hash; for internal use';

CREATE FUNCTION sea_mq.external_view(event sea_mq.event, audience text DEFAULT 'partner') RETURNS sea_mq.event
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    audiences CONSTANT text[] := '{sensitive,internal,partner,public}';
    reach integer := array_position(audiences, audience);
BEGIN
    IF reach IS NULL THEN
        RAISE EXCEPTION 'audience "%" is not known', audience
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use public, partner, internal or sensitive.';
    END IF;
    IF event IS NULL OR coalesce(array_position(audiences, event.visibility), 1) < reach THEN
        RETURN NULL;
    END IF;
    IF audience <> 'sensitive' THEN
        event.payload := sea_mq.external_payload(event.source_context, event.event_type, event.event_version, event.payload);
    END IF;
    IF event.headers IS DISTINCT FROM '{}' THEN
        event.headers := sea_mq.external_headers(event.headers);
    END IF;
    event.correlation_id := sea_mq_inside.keyed_hash(event.correlation_id);
    event.causation_id := NULL;
    event.subscription := NULL;
    event.attempt := NULL;
    event.stream_seq := NULL;
    RETURN event;
END $$;
COMMENT ON FUNCTION sea_mq.external_view IS
'An event as those outside may see it; NULL if its visibility does not reach the audience (public, partner, internal or sensitive; an
event without visibility is taken as sensitive). Fields that its contract marks with "x-sea-sensitive" are left out, or hashed with a
key of this database ("hash"); so is the correlation id; provenance (causation, trace, delivery, replay and failure headers, stream
sequence) is left out. Every edge by which events leave calls this. Error 22023: audience';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.external_view TO sea_mq_consumer, sea_mq_operator;
