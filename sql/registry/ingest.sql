-- The inbound edge: a partner's messages, normalised by a registered mapping into events that keep their contract.
CREATE TABLE sea_mq.partner_mappings (
    partner text NOT NULL CHECK (partner ~ E'^[^[:space:].*>/\\\\]{1,128}$'),
    mapping text NOT NULL CHECK (mapping <> ''),
    priority integer NOT NULL,
    matches jsonpath NOT NULL,
    context text NOT NULL,
    event_type text NOT NULL,
    event_version integer NOT NULL,
    aggregate_type text NOT NULL CHECK (aggregate_type <> ''),
    aggregate_id jsonpath NOT NULL,
    message_id jsonpath NOT NULL,
    correlation_id jsonpath,
    payload jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partner, mapping)
);
COMMENT ON TABLE sea_mq.partner_mappings IS 'How partners'' messages become events; change them with register_mapping, drop_mapping';
COMMENT ON COLUMN sea_mq.partner_mappings.partner IS 'Partner';
COMMENT ON COLUMN sea_mq.partner_mappings.mapping IS 'Name of the mapping';
COMMENT ON COLUMN sea_mq.partner_mappings.priority IS 'Of several mappings that match, the one with the greater number is taken';
COMMENT ON COLUMN sea_mq.partner_mappings.matches IS 'JSON path predicate: whether a message is of this kind';
COMMENT ON COLUMN sea_mq.partner_mappings.context IS 'Context of the event';
COMMENT ON COLUMN sea_mq.partner_mappings.event_type IS 'Normalised event name';
COMMENT ON COLUMN sea_mq.partner_mappings.event_version IS 'Version of the event type';
COMMENT ON COLUMN sea_mq.partner_mappings.aggregate_type IS 'Type of the aggregate';
COMMENT ON COLUMN sea_mq.partner_mappings.aggregate_id IS 'JSON path to the aggregate''s id';
COMMENT ON COLUMN sea_mq.partner_mappings.message_id IS 'JSON path to the id by which the partner knows the message';
COMMENT ON COLUMN sea_mq.partner_mappings.correlation_id IS 'JSON path to a correlation id; NULL for none';
COMMENT ON COLUMN sea_mq.partner_mappings.payload IS 'The event''s payload, with JSON paths for values; see sea_mq.map_fields';
COMMENT ON COLUMN sea_mq.partner_mappings.updated_at IS 'When the mapping changed last';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.partner_mappings', '');

CREATE FUNCTION sea_mq.map_fields(template jsonb, signal jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    word text := template #>> '{}';
BEGIN
    CASE jsonb_typeof(template)
    WHEN 'string' THEN
        RETURN CASE WHEN word LIKE '$$%' THEN to_jsonb(substr(word, 2))
            WHEN word LIKE '$%' THEN jsonb_path_query_first(signal, word::jsonpath, '{}', true)
            ELSE template END;
    WHEN 'object' THEN
        IF template ? '$array' THEN
            RETURN (SELECT coalesce(jsonb_agg(CASE WHEN template ? 'of' THEN sea_mq.map_fields(template -> 'of', e.value) ELSE e.value END
                    ORDER BY e.place), '[]')
                FROM jsonb_path_query(signal, (template ->> '$array')::jsonpath, '{}', true) WITH ORDINALITY AS e(value, place));
        END IF;
        RETURN (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
            FROM (SELECT t.key, sea_mq.map_fields(t.value, signal) AS value FROM jsonb_each(template) t) m WHERE m.value IS NOT NULL);
    WHEN 'array' THEN
        RETURN (SELECT coalesce(jsonb_agg(sea_mq.map_fields(e.value, signal) ORDER BY e.place), '[]')
            FROM jsonb_array_elements(template) WITH ORDINALITY AS e(value, place));
    ELSE
        RETURN template;
    END CASE;
END $body$;
COMMENT ON FUNCTION sea_mq.map_fields IS
'A template with its JSON paths replaced by what they find in a message: a string that begins with $ is a path, whose first value
stands for it (a member of an object is left out if there is none; $$ stands for a $); {"$array": path} is an array of all values,
{"$array": path, "of": template} of what the template makes of each. All else stands for itself. Error 42601: not a JSON path';

CREATE FUNCTION sea_mq.register_mapping(partner text, mapping text, matches jsonpath, event_type text, aggregate_type text,
    aggregate_id jsonpath, payload jsonb, message_id jsonpath DEFAULT '$.id', correlation_id jsonpath DEFAULT NULL,
    event_version integer DEFAULT 1, context text DEFAULT NULL, priority integer DEFAULT 0)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    to_context text := sea_mq.context_name(coalesce(register_mapping.context, nullif(current_setting('sea_mq.context', true), '')));
    to_type text := sea_mq.event_name(register_mapping.event_type);
BEGIN
    IF to_context IS NULL THEN
        RAISE EXCEPTION 'the context of the event is not known'
            USING ERRCODE = 'undefined_object', HINT = 'Set it for the database, ALTER DATABASE ... SET sea_mq.context = ''billing'', or pass context => ''billing''.';
    ELSIF NOT EXISTS (SELECT FROM sea_mq.event_types t
        WHERE t.context = to_context AND t.event_type = to_type AND t.version = register_mapping.event_version)
    THEN
        RAISE EXCEPTION '%.event.%.v% is not registered', to_context, to_type, register_mapping.event_version
            USING ERRCODE = 'undefined_object', HINT = 'What comes from outside is held to a contract: register it with sea_mq.register_event.';
    END IF;
    -- Every path is read once here, so that a wrong one is refused now.
    PERFORM (t.value #>> '{}')::jsonpath FROM jsonb_path_query(register_mapping.payload, 'strict $.**', '{}', true) t(value)
    WHERE jsonb_typeof(t.value) = 'string' AND t.value #>> '{}' LIKE '$%' AND t.value #>> '{}' NOT LIKE '$$%';
    INSERT INTO sea_mq.partner_mappings AS m (partner, mapping, priority, matches, context, event_type, event_version, aggregate_type,
        aggregate_id, message_id, correlation_id, payload)
    VALUES (register_mapping.partner, register_mapping.mapping, register_mapping.priority, register_mapping.matches, to_context,
        to_type, register_mapping.event_version, register_mapping.aggregate_type, register_mapping.aggregate_id,
        register_mapping.message_id, register_mapping.correlation_id, register_mapping.payload)
    ON CONFLICT ON CONSTRAINT partner_mappings_pkey DO UPDATE SET priority = excluded.priority, matches = excluded.matches, context = excluded.context,
        event_type = excluded.event_type, event_version = excluded.event_version, aggregate_type = excluded.aggregate_type,
        aggregate_id = excluded.aggregate_id, message_id = excluded.message_id, correlation_id = excluded.correlation_id,
        payload = excluded.payload, updated_at = now();
EXCEPTION
WHEN syntax_error THEN
    RAISE EXCEPTION 'the payload template has a JSON path that is none: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'As in {"total": "$.amount.value"}; a text that begins with $ is written with $$.';
WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the mapping cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'See the constraints of sea_mq.partner_mappings for the values that each part takes.';
END $body$;
COMMENT ON FUNCTION sea_mq.register_mapping IS
'Says how a kind of a partner''s messages becomes an event; a mapping of that name is replaced. matches: a JSON path predicate ($.type == "paid");
aggregate_id, message_id, correlation_id: JSON paths; payload: a template, see sea_mq.map_fields. The event type must be registered.
Errors: 22023, 42601 (not a JSON path), 42704 (no context, or not registered)';

CREATE FUNCTION sea_mq.drop_mapping(partner text, mapping text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM sea_mq.partner_mappings m WHERE m.partner = $1 AND m.mapping = $2;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'partner "%" has no mapping "%"', $1, $2
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.partner_mappings.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.drop_mapping IS 'Removes a mapping. Error 42704';

-- What becomes of a message that a mapping was found for: the event's id, or an error that is the message's fault.
CREATE FUNCTION sea_mq.emit_mapped(m sea_mq.partner_mappings, signal jsonb, event_id uuid, correlation_id text, headers jsonb)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    aggregate text := jsonb_path_query_first(signal, m.aggregate_id, '{}', true) #>> '{}';
    content jsonb := sea_mq.map_fields(m.payload, signal);
    broken text;
BEGIN
    IF aggregate IS NULL THEN
        RAISE EXCEPTION 'the message has no aggregate id at %', m.aggregate_id USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT string_agg(concat_ws(': ', nullif(v.pointer, ''), v.message), '; ') INTO broken
    FROM sea_mq.contract_violations(m.context, m.event_type, m.event_version, content) v;
    IF broken IS NOT NULL THEN
        RAISE EXCEPTION 'what mapping "%" makes of it breaks the contract of %.event.%.v%: %', m.mapping, m.context, m.event_type,
            m.event_version, broken USING ERRCODE = 'check_violation';
    END IF;
    PERFORM sea_mq.emit(m.aggregate_type, aggregate, m.event_type, content, m.event_version, m.context, event_id,
        coalesce(emit_mapped.correlation_id, jsonb_path_query_first(signal, m.correlation_id, '{}', true) #>> '{}'),
        -- What the partner's message was as a CloudEvent, the event is not.
        headers => (SELECT jsonb_object_agg(h.key, h.value) FROM jsonb_each(headers) h WHERE lower(h.key) !~ '^(ce-|content-type$)'));
END $$;
COMMENT ON FUNCTION sea_mq.emit_mapped IS 'Emits what a mapping makes of a partner''s message. Errors: 22023, 23514, 42704 and those of emit; for internal use';

CREATE FUNCTION sea_mq.mapping_for(partner text, signal jsonb) RETURNS sea_mq.partner_mappings
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.* FROM sea_mq.partner_mappings m, jsonb_path_query_first($2, m.matches, '{}', true) AS found
    -- A predicate finds true, false or null, a filter what it lets pass.
    WHERE m.partner = $1 AND found IS NOT NULL AND found NOT IN ('false', 'null')
    ORDER BY m.priority DESC, m.mapping LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.mapping_for IS 'The mapping that is taken for a partner''s message; NULL if none matches; for internal use';

-- A message is tried once: what its mapping makes of it will not be another thing the next time.
CREATE FUNCTION sea_mq.ingest_once(partner text, signal jsonb, message_id text, event_id uuid, correlation_id text, headers jsonb)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    m sea_mq.partner_mappings := sea_mq.mapping_for(ingest_once.partner, signal);
    waiting sea_mq.inbox_pending;
    own_context text := coalesce(m.context, sea_mq.context_name(nullif(current_setting('sea_mq.context', true), '')), 'ingest');
    own_subject text := own_context || '.ingest.' || ingest_once.partner;
BEGIN
    IF m.partner IS NULL THEN
        RAISE EXCEPTION 'no mapping of partner "%" matches', ingest_once.partner USING ERRCODE = 'no_data_found';
    END IF;
    PERFORM sea_mq.emit_mapped(m, signal, ingest_once.event_id, ingest_once.correlation_id, ingest_once.headers);
    PERFORM sea_mq.accept_once(ingest_once.message_id, own_context, m.event_type, signal, 'ingest:' || ingest_once.partner,
        m.event_version, own_subject, ingest_once.headers);
    RETURN true;
EXCEPTION WHEN data_exception OR no_data_found OR check_violation OR undefined_object OR program_limit_exceeded THEN
    INSERT INTO sea_mq.inbox_pending AS p (subscription, message_id, status, attempts, source_context, event_type, event_version,
        subject, payload, headers, event_at, errors)
    VALUES ('ingest:' || ingest_once.partner, ingest_once.message_id, 'processing', 1, own_context,
        coalesce(m.event_type, 'signal'), m.event_version, own_subject, signal,
        ingest_once.headers || jsonb_strip_nulls(jsonb_build_object('X-Correlation-Id', ingest_once.correlation_id)), clock_timestamp(),
        sea_mq.with_error('[]', 1, 'poison', SQLSTATE, SQLERRM, NULL))
    RETURNING p.* INTO waiting;
    PERFORM sea_mq.bury(waiting, 'poison', SQLERRM);
    RETURN false;
END $$;
COMMENT ON FUNCTION sea_mq.ingest_once IS
'Emits what a partner''s message becomes, or moves it to the dead letter queue: false. For internal use';

CREATE FUNCTION sea_mq.partner_event_id(partner text, message_id text) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    -- Version 8 of RFC 9562: the bits are ours, here those of a hash.
    SELECT (substr(h, 1, 12) || '8' || substr(h, 14, 3) || '8' || substr(h, 18, 15))::uuid
    FROM encode(sha256(convert_to($1 || chr(10) || $2, 'UTF8')), 'hex') h
$$;
COMMENT ON FUNCTION sea_mq.partner_event_id IS 'The id of the event that a partner''s message becomes; for internal use';

CREATE FUNCTION sea_mq.ingest(partner text, signal jsonb, message_id text DEFAULT NULL, correlation_id text DEFAULT NULL,
    headers jsonb DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    -- What has no id is known by its content.
    known_as text := coalesce(ingest.message_id,
        jsonb_path_query_first(signal, (sea_mq.mapping_for(ingest.partner, signal)).message_id, '{}', true) #>> '{}',
        'sha256:' || encode(sha256(convert_to(signal::text, 'UTF8')), 'hex'));
    new_id uuid := sea_mq.partner_event_id(ingest.partner, known_as);
BEGIN
    IF ingest.partner IS NULL OR signal IS NULL THEN
        RAISE EXCEPTION 'partner and signal must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.ingest(''acme'', ''{"id": "4711", "type": "paid"}'').';
    ELSIF ingest.partner !~ E'^[^[:space:].*>/\\\\]{1,128}$' THEN
        RAISE EXCEPTION 'partner "%" is not a name', ingest.partner
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is one token of a NATS subject: letters, digits, "_" and "-".';
    END IF;
    -- Whoever ingests the same message waits here, so that the second finds what became of the first.
    PERFORM pg_advisory_xact_lock(hashtextextended('sea_mq.ingest ' || ingest.partner || ' ' || known_as, 0));
    IF sea_mq.inbox_holds(known_as, 'ingest:' || ingest.partner) THEN
        RETURN (SELECT new_id FROM sea_mq.inbox_messages i
            WHERE i.message_id = known_as AND i.subscription = 'ingest:' || ingest.partner AND i.status = 'processed');
    END IF;
    RETURN CASE WHEN sea_mq.ingest_once(ingest.partner, signal, known_as, new_id, ingest.correlation_id, coalesce(ingest.headers, '{}')
        || jsonb_build_object('X-Partner', sea_mq.header_value(ingest.partner), 'X-Partner-Message-Id', sea_mq.header_value(known_as)))
        THEN new_id END;
END $$;
COMMENT ON FUNCTION sea_mq.ingest IS
'Takes a partner''s message in the current transaction: the mapping that matches makes an event of it, which is checked against its
contract (whatever sea_mq.contracts says) and emitted. Returns the event''s id, the same for the same message each time, and NULL for
a message that went to the dead letter queue: no mapping matches, or what it makes of the message cannot be emitted. There it can be
fixed and replayed. message_id: the partner''s id of the message; NULL: what the mapping finds, else a hash of the content; known
for as long as the inbox is retained. Errors: 22004, 22023';

-- Who may use it.
GRANT SELECT ON sea_mq.partner_mappings TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.ingest TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.map_fields TO sea_mq_producer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.register_mapping, sea_mq.drop_mapping TO sea_mq_operator;
