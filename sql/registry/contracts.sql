-- The registry: which versions of which event types there are, and what their payloads look like. What is registered never
-- changes its meaning, so a version can be checked against, cached and relied on.
CREATE TABLE sea_mq.event_types (
    context text COLLATE "C" NOT NULL CHECK (context = sea_mq.context_name(context)),
    event_type text COLLATE "C" NOT NULL CHECK (event_type = sea_mq.event_name(event_type)),
    version integer NOT NULL CHECK (version > 0),
    schema jsonb NOT NULL,
    visibility text NOT NULL CHECK (visibility IN ('public', 'partner', 'internal', 'sensitive')),
    description text,
    registered_at timestamptz NOT NULL DEFAULT now(),
    registered_by name NOT NULL DEFAULT sea_mq.caller_name(),
    deprecated_at timestamptz,
    deprecation text,
    subject text GENERATED ALWAYS AS (context || '.event.' || event_type || '.v' || version) STORED,
    PRIMARY KEY (context, event_type, version)
);
COMMENT ON TABLE sea_mq.event_types IS 'Registered event types and versions; see sea_mq.register_event';
COMMENT ON COLUMN sea_mq.event_types.context IS 'Context that emits it';
COMMENT ON COLUMN sea_mq.event_types.event_type IS 'Normalised event name';
COMMENT ON COLUMN sea_mq.event_types.version IS 'Version, from 1';
COMMENT ON COLUMN sea_mq.event_types.schema IS 'JSON Schema (draft 2020-12) of the payload';
COMMENT ON COLUMN sea_mq.event_types.visibility IS 'Widest audience: public, partner, internal or sensitive; what emit gives an event for which the caller says nothing';
COMMENT ON COLUMN sea_mq.event_types.description IS 'What the event says';
COMMENT ON COLUMN sea_mq.event_types.registered_at IS 'When it was registered';
COMMENT ON COLUMN sea_mq.event_types.registered_by IS 'Role that registered it';
COMMENT ON COLUMN sea_mq.event_types.deprecated_at IS 'Since when it is deprecated; NULL: it is not';
COMMENT ON COLUMN sea_mq.event_types.deprecation IS 'What to use instead, or why it is deprecated';
COMMENT ON COLUMN sea_mq.event_types.subject IS 'NATS subject of its events';

CREATE TABLE sea_mq.schema_definitions (
    uri text COLLATE "C" PRIMARY KEY CHECK (uri ~ '^[A-Za-z][A-Za-z0-9+.-]*:[^[:space:]#]+$'),
    schema jsonb NOT NULL,
    description text,
    registered_at timestamptz NOT NULL DEFAULT now(),
    registered_by name NOT NULL DEFAULT sea_mq.caller_name()
);
COMMENT ON TABLE sea_mq.schema_definitions IS 'Schemas that are no event''s but that events'' schemas refer to; see sea_mq.register_schema';
COMMENT ON COLUMN sea_mq.schema_definitions.uri IS 'URI that a $ref names it by';
COMMENT ON COLUMN sea_mq.schema_definitions.schema IS 'JSON Schema (draft 2020-12)';
COMMENT ON COLUMN sea_mq.schema_definitions.description IS 'What it describes';
COMMENT ON COLUMN sea_mq.schema_definitions.registered_at IS 'When it was registered';
COMMENT ON COLUMN sea_mq.schema_definitions.registered_by IS 'Role that registered it';

-- A schema may give itself another URI by $id, and be referred to by that one.
CREATE INDEX event_types_schema_id ON sea_mq.event_types ((schema ->> '$id')) WHERE schema ? '$id';
CREATE INDEX schema_definitions_schema_id ON sea_mq.schema_definitions ((schema ->> '$id')) WHERE schema ? '$id';

SELECT pg_catalog.pg_extension_config_dump('sea_mq.event_types', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.schema_definitions', '');

-- Backends keep what they have read of the registry.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sea_mq.event_types
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.table_changed();
ALTER TABLE sea_mq.event_types ENABLE ALWAYS TRIGGER changed;
COMMENT ON TRIGGER changed ON sea_mq.event_types IS 'Tells backends to read the registry again';
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sea_mq.schema_definitions
FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.table_changed();
ALTER TABLE sea_mq.schema_definitions ENABLE ALWAYS TRIGGER changed;
COMMENT ON TRIGGER changed ON sea_mq.schema_definitions IS 'Tells backends to read the registry again';

-- A version's meaning never changes. Also not by hand.
CREATE FUNCTION sea_mq.refuse_change_of_contract() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'a registered schema cannot be changed'
        USING ERRCODE = 'feature_not_supported', HINT = 'Register the changed meaning as the next version.';
END $$;
COMMENT ON FUNCTION sea_mq.refuse_change_of_contract IS 'Trigger function: a version''s meaning never changes';
CREATE TRIGGER immutable BEFORE UPDATE OF context, event_type, version, schema, visibility ON sea_mq.event_types
FOR EACH ROW WHEN ((OLD.context, OLD.event_type, OLD.version, OLD.schema, OLD.visibility)
    IS DISTINCT FROM (NEW.context, NEW.event_type, NEW.version, NEW.schema, NEW.visibility))
EXECUTE FUNCTION sea_mq.refuse_change_of_contract();
COMMENT ON TRIGGER immutable ON sea_mq.event_types IS 'A version''s meaning never changes';
CREATE TRIGGER immutable BEFORE UPDATE OF uri, schema ON sea_mq.schema_definitions
FOR EACH ROW WHEN ((OLD.uri, OLD.schema) IS DISTINCT FROM (NEW.uri, NEW.schema))
EXECUTE FUNCTION sea_mq.refuse_change_of_contract();
COMMENT ON TRIGGER immutable ON sea_mq.schema_definitions IS 'What others refer to never changes its meaning';

CREATE FUNCTION sea_mq.find_contract(context text, event_type text, version integer,
    OUT schema text, OUT visibility text, OUT deprecated boolean, OUT deprecation text)
RETURNS SETOF record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.schema::text, t.visibility, t.deprecated_at IS NOT NULL, t.deprecation
    FROM sea_mq.event_types t WHERE t.context = $1 AND t.event_type = $2 AND t.version = $3
$$;
COMMENT ON FUNCTION sea_mq.find_contract IS 'What a backend keeps of a registered version; for internal use';

CREATE FUNCTION sea_mq.find_schema(uri text, context text DEFAULT NULL, event_type text DEFAULT NULL, version integer DEFAULT NULL)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.schema::text FROM (
        SELECT t.schema, 1 AS rank FROM sea_mq.event_types t WHERE t.context = $2 AND t.event_type = $3 AND t.version = $4
        UNION ALL SELECT d.schema, 2 FROM sea_mq.schema_definitions d WHERE d.uri = $1
        UNION ALL SELECT t.schema, 3 FROM sea_mq.event_types t WHERE t.schema ? '$id' AND t.schema ->> '$id' = $1
        UNION ALL SELECT d.schema, 4 FROM sea_mq.schema_definitions d WHERE d.schema ? '$id' AND d.schema ->> '$id' = $1
    ) s ORDER BY s.rank LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.find_schema IS 'The schema that a $ref names: by the place of an event''s schema, by the URI of a definition, or by $id; for internal use';

CREATE FUNCTION sea_mq.check_schema(schema jsonb, uri text) RETURNS void
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'check_schema_wrapper';
COMMENT ON FUNCTION sea_mq.check_schema IS 'An error unless the schema, whose own URI is given, can be used. Errors: 22023 (no JSON Schema), 42704 (it refers to what is not registered)';

CREATE FUNCTION sea_mq.contract_uri(context text, event_type text, version integer) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_uri_wrapper';
COMMENT ON FUNCTION sea_mq.contract_uri IS 'The URI of a version''s schema: sea-mq:/schemas/events/{context}/{name}.v{version}.schema.json; dataschema in the envelope. Errors: 22023, 54000';

CREATE FUNCTION sea_mq.contract_of(schema jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_typeof($1) = 'object' THEN $1 - '{description,x-sea-visibility}'::text[] ELSE $1 END
$$;
COMMENT ON FUNCTION sea_mq.contract_of IS 'What of a schema makes the contract: all but the description and visibility at its root, which are columns of the registry';

CREATE FUNCTION sea_mq.register_event(
    context text, event_type text, version integer, schema jsonb, visibility text DEFAULT NULL, description text DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    new sea_mq.event_types;
    old sea_mq.event_types;
BEGIN
    IF register_event.context IS NULL OR register_event.event_type IS NULL OR register_event.version IS NULL OR register_event.schema IS NULL THEN
        RAISE EXCEPTION 'context, event_type, version and schema must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.register_event(''orders'', ''OrderCreated'', 1, ''{"type": "object"}'').';
    END IF;
    new.context := sea_mq.context_name(register_event.context);
    new.event_type := sea_mq.event_name(register_event.event_type);
    new.version := register_event.version;
    new.schema := register_event.schema;
    new.visibility := coalesce(register_event.visibility, new.schema ->> 'x-sea-visibility', 'internal');
    new.description := coalesce(register_event.description, new.schema ->> 'description');
    IF new.visibility NOT IN ('public', 'partner', 'internal', 'sensitive') THEN
        RAISE EXCEPTION 'visibility "%" is not known', new.visibility
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use one of public, partner, internal, sensitive.';
    END IF;
    PERFORM sea_mq.check_schema(new.schema, sea_mq.contract_uri(new.context, new.event_type, new.version));
    INSERT INTO sea_mq.event_types (context, event_type, version, schema, visibility, description)
    VALUES (new.context, new.event_type, new.version, new.schema, new.visibility, new.description)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM sea_mq.notice_differences(new.context, new.event_type, new.version);
        RETURN true;
    END IF;
    SELECT t.* INTO old FROM sea_mq.event_types t
    WHERE t.context = new.context AND t.event_type = new.event_type AND t.version = new.version;
    IF (sea_mq.contract_of(old.schema), old.visibility) IS DISTINCT FROM (sea_mq.contract_of(new.schema), new.visibility) THEN
        RAISE EXCEPTION 'version % of % is registered with another %', new.version, new.event_type,
                CASE WHEN old.visibility <> new.visibility THEN 'visibility' ELSE 'schema' END
            USING ERRCODE = 'unique_violation', HINT = format('A version''s meaning never changes: register this one as version %s.',
                (SELECT max(t.version) + 1 FROM sea_mq.event_types t WHERE t.context = new.context AND t.event_type = new.event_type));
    END IF;
    IF new.description IS DISTINCT FROM old.description AND new.description IS NOT NULL THEN
        UPDATE sea_mq.event_types t SET description = new.description
        WHERE t.context = new.context AND t.event_type = new.event_type AND t.version = new.version;
    END IF;
    RETURN false;
END $$;
COMMENT ON FUNCTION sea_mq.register_event IS
'Registers a version of an event type: a JSON Schema (draft 2020-12) for its payloads. Returns true if it is new, false if the
same was registered already. visibility: the widest audience; NULL: the schema''s "x-sea-visibility", else internal. A $ref names
what is registered and nothing else: another event''s schema (relative to this one''s place, ../billing/invoice_paid.v1.schema.json),
a definition of sea_mq.register_schema, or a $id. Errors: 22004, 22023 (no JSON Schema, a name that NATS cannot carry), 23505 (this
version is registered with another content: the hint names the next one), 42704 (a $ref to what is not registered)';

CREATE FUNCTION sea_mq.register_schema(uri text, schema jsonb, description text DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    old jsonb;
BEGIN
    IF register_schema.uri IS NULL OR register_schema.schema IS NULL THEN
        RAISE EXCEPTION 'uri and schema must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.register_schema(''sea-mq:/schemas/events/common/money.schema.json'', ''{"type": "object"}'').';
    END IF;
    PERFORM sea_mq.check_schema(register_schema.schema, register_schema.uri);
    INSERT INTO sea_mq.schema_definitions (uri, schema, description)
    VALUES (register_schema.uri, register_schema.schema, coalesce(register_schema.description, register_schema.schema ->> 'description'))
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN true;
    END IF;
    SELECT d.schema INTO old FROM sea_mq.schema_definitions d WHERE d.uri = register_schema.uri;
    IF sea_mq.contract_of(old) IS DISTINCT FROM sea_mq.contract_of(register_schema.schema) THEN
        RAISE EXCEPTION '"%" is registered with another schema', register_schema.uri
            USING ERRCODE = 'unique_violation', HINT = 'What others refer to never changes its meaning: register it under another URI.';
    END IF;
    RETURN false;
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION '"%" is not an absolute URI without fragment', register_schema.uri
        USING ERRCODE = 'invalid_parameter_value', HINT = 'As in sea-mq:/schemas/events/common/money.schema.json.';
END $$;
COMMENT ON FUNCTION sea_mq.register_schema IS
'Registers a schema that is no event''s, for events'' schemas to refer to by its URI. Returns true if it is new, false if the same
was registered already. Errors: 22004, 22023, 23505 (registered with another content), 42704 (a $ref to what is not registered)';

CREATE FUNCTION sea_mq.deprecate_event(context text, event_type text, version integer, reason text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE sea_mq.event_types t SET deprecated_at = coalesce(t.deprecated_at, now()), deprecation = coalesce($4, t.deprecation)
    WHERE t.context = sea_mq.context_name($1) AND t.event_type = sea_mq.event_name($2) AND t.version = $3;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'version % of event type "%" is not registered in context "%"', $3, $2, $1
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.event_types.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.deprecate_event IS
'Says that a version should not be used any more, and why or what to use instead. It can still be emitted; where sea_mq.contracts is
warn or enforce, each session that does is warned once. Errors: 22023, 42704 (it is not registered)';

CREATE FUNCTION sea_mq.contract_violations(context text, event_type text, event_version integer, payload jsonb,
    OUT pointer text, OUT message text)
RETURNS SETOF record LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'contract_violations_wrapper';
COMMENT ON FUNCTION sea_mq.contract_violations IS
'How a payload breaks the contract of a registered version: JSON Pointers into the payload and what is wrong there, 20 at most; no
row if it does not. Errors: 22023, 42704 (it is not registered)';

-- The registry is open to all who use the extension; what is agreed on is registered by operators.
GRANT SELECT ON sea_mq.event_types, sea_mq.schema_definitions TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.contract_uri, sea_mq.contract_violations
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.register_event, sea_mq.register_schema, sea_mq.deprecate_event TO sea_mq_operator;
