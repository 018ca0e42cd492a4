-- Contracts against each other and against what is emitted; and in and out of files, so that they can be kept in git. The same
-- checks without a server are those of the command `sea-mq contracts`.
CREATE FUNCTION sea_mq.compare_schemas(old jsonb, new jsonb, OUT pointer text, OUT change text, OUT compatibility text)
RETURNS SETOF record LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'compare_schemas_wrapper';
COMMENT ON FUNCTION sea_mq.compare_schemas IS
'The differences between two JSON Schemas, those that break first: JSON Pointer into the new one (into the old one for what is gone),
what changed, compatible or breaking. Breaking: a payload of the new one may be one that a consumer written for the old one cannot
take, or that cannot be decided. Errors: 22023 (no JSON Schema)';

CREATE FUNCTION sea_mq.compare_versions(context text, event_type text, old_version integer, new_version integer)
RETURNS TABLE (pointer text, change text, compatibility text)
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted integer;
    schemas jsonb[] := '{}';
BEGIN
    FOREACH wanted IN ARRAY ARRAY[$3, $4] LOOP
        schemas := array_append(schemas, (SELECT sea_mq.contract_file(t.schema, t.description, t.visibility) FROM sea_mq.event_types t
            WHERE (t.context, t.event_type, t.version) = (sea_mq.context_name($1), sea_mq.event_name($2), wanted)));
        IF schemas[cardinality(schemas)] IS NULL THEN
            RAISE EXCEPTION 'version % of event type "%" is not registered in context "%"', wanted, $2, $1
                USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.event_types.';
        END IF;
    END LOOP;
    RETURN QUERY SELECT d.pointer, d.change, d.compatibility FROM sea_mq.compare_schemas(schemas[1], schemas[2]) d;
END $$;
COMMENT ON FUNCTION sea_mq.compare_versions IS
'The differences between two registered versions of an event type, as sea_mq.compare_schemas gives them. Errors: 22023, 42704 (a
version is not registered)';

CREATE FUNCTION sea_mq.notice_differences(context text, event_type text, version integer)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before integer := (SELECT max(t.version) FROM sea_mq.event_types t WHERE t.context = $1 AND t.event_type = $2 AND t.version < $3);
    found record;
BEGIN
    SELECT count(*) FILTER (WHERE d.compatibility = 'breaking') AS breaking, count(*) AS all_of_them,
        string_agg(format('%s: %s: %s', d.compatibility, d.pointer, d.change), chr(10) ORDER BY d.place) FILTER (WHERE d.place <= 20) AS list
    INTO found
    FROM (SELECT c.*, row_number() OVER () AS place FROM sea_mq.event_types old, sea_mq.event_types new,
            sea_mq.compare_schemas(sea_mq.contract_of(old.schema), sea_mq.contract_of(new.schema)) c
        WHERE (old.context, old.event_type, old.version) = ($1, $2, before) AND (new.context, new.event_type, new.version) = ($1, $2, $3)) d;
    IF found.all_of_them > 0 THEN
        RAISE NOTICE 'version % of % differs from version %: % breaking, % compatible', version, event_type, before,
                found.breaking, found.all_of_them - found.breaking
            USING DETAIL = found.list, HINT = format('sea_mq.compare_versions(%L, %L, %s, %s) lists them.', context, event_type, before, version);
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.notice_differences IS 'Says what a version changes since the one before it, those that break first, 20 at most; for internal use';

-- A directory's paths and the registry's names. The grammar of both is in contracts/src/set.rs.
CREATE FUNCTION sea_mq.contract_path(uri text, is_definition boolean) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_path_wrapper';
COMMENT ON FUNCTION sea_mq.contract_path IS 'The file below schemas/events in which the schema with this URI stands; for internal use';

CREATE FUNCTION sea_mq.contract_files(files jsonb, OUT path text, OUT uri text, OUT context text, OUT event_type text, OUT version integer)
RETURNS SETOF record LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contract_files_wrapper';
COMMENT ON FUNCTION sea_mq.contract_files IS
'What stands in files (path: schema), what is referred to first; context, event_type and version are NULL for definitions; for internal
use. Errors: 22023';

CREATE FUNCTION sea_mq.contract_file(schema jsonb, description text, visibility text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN f.said = '{}' THEN $1 WHEN jsonb_typeof($1) = 'object' THEN $1 || f.said
        ELSE jsonb_build_object('allOf', jsonb_build_array($1)) || f.said END
    FROM (SELECT CASE WHEN $2 IS NULL OR $2 = $1 ->> 'description' THEN '{}' ELSE jsonb_build_object('description', $2) END
        || CASE WHEN $3 = coalesce($1 ->> 'x-sea-visibility', 'internal') THEN '{}' ELSE jsonb_build_object('x-sea-visibility', $3) END) AS f (said)
$$;
COMMENT ON FUNCTION sea_mq.contract_file IS 'A schema that says itself what the registry''s columns say of it; for internal use';

CREATE FUNCTION sea_mq.export_contracts() RETURNS TABLE (path text, schema jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT sea_mq.contract_path(sea_mq.contract_uri(t.context, t.event_type, t.version), false) COLLATE "C" AS path,
        sea_mq.contract_file(t.schema, t.description, t.visibility)
    FROM sea_mq.event_types t
    UNION ALL
    SELECT sea_mq.contract_path(d.uri, true), sea_mq.contract_file(d.schema, d.description, coalesce(d.schema ->> 'x-sea-visibility', 'internal'))
    FROM sea_mq.schema_definitions d
    ORDER BY path
$$;
COMMENT ON FUNCTION sea_mq.export_contracts IS
'The registry as files below schemas/events: {context}/{name}.v{version}.schema.json, and definitions at the places that their URIs
name. Description and visibility stand in the schema. That a version is deprecated is not in it';

CREATE FUNCTION sea_mq.import_contracts(files jsonb) RETURNS TABLE (path text, result text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    file record;
    present jsonb;
    is_new boolean;
    message text;
    hint text;
BEGIN
    IF jsonb_typeof(files) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'files must be an object of schemas'
            USING ERRCODE = CASE WHEN files IS NULL THEN 'null_value_not_allowed' ELSE 'invalid_parameter_value' END,
                HINT = 'As in {"orders/order_created.v1.schema.json": {"type": "object"}}.';
    END IF;
    SELECT coalesce(jsonb_object_agg(e.path, e.schema), '{}') INTO present FROM sea_mq.export_contracts() e;
    FOR file IN SELECT f.*, files -> f.path AS schema FROM sea_mq.contract_files(files) f LOOP
        BEGIN
            is_new := CASE
                WHEN present -> file.path = file.schema THEN false
                WHEN file.context IS NULL THEN sea_mq.register_schema(file.uri, file.schema)
                ELSE sea_mq.register_event(file.context, file.event_type, file.version, file.schema) END;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
            RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = file.path || ': ' || message, HINT = hint;
        END;
        path := file.path;
        result := CASE WHEN is_new THEN 'registered' ELSE 'unchanged' END;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.import_contracts IS
'Registers what stands in files (path below schemas/events: schema), all or nothing, what is referred to first; for each: registered
or unchanged. Errors: 22004, 22023 (no JSON Schema, a path that names no contract), 23505 (registered with another content), 42704';

CREATE FUNCTION sea_mq.lint_contracts(files jsonb, OUT rule text, OUT severity text, OUT path text, OUT message text, OUT hint text)
RETURNS SETOF record LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lint_contracts_wrapper';
COMMENT ON FUNCTION sea_mq.lint_contracts IS 'What is wrong with a set of contracts (path: schema); for internal use. Errors: 22023';

-- What cannot be fixed any more, because it is registered, is a warning.
CREATE FUNCTION sea_mq.lint() RETURNS TABLE (rule text, severity text, path text, message text, hint text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH emitted AS (
        SELECT e.context, e.event_type, e.event_version, count(*) AS events
        FROM sea_mq.outbox_events e WHERE starts_with(e.subject, e.context || '.event.') GROUP BY 1, 2, 3
    ), used AS (
        SELECT sea_mq.contract_path(sea_mq.contract_uri(e.context, e.event_type, e.event_version), false) AS path, e.events,
            t.version IS NULL AS unregistered, t.deprecated_at IS NOT NULL AS deprecated, t.deprecation
        FROM emitted e LEFT JOIN sea_mq.event_types t
            ON (t.context, t.event_type, t.version) = (e.context, e.event_type, e.event_version)
    )
    SELECT f.rule, CASE WHEN f.rule IN ('schema', 'reference', 'version-gap') THEN f.severity ELSE 'warning' END, f.path, f.message, f.hint
    FROM (SELECT jsonb_object_agg(e.path, e.schema) AS files FROM sea_mq.export_contracts() e) r, sea_mq.lint_contracts(r.files) f
    UNION ALL
    SELECT 'unregistered', 'warning', u.path, format('%s retained events are of this version, which is not registered', u.events),
        'Register it with sea_mq.register_event; sea_mq.contracts = enforce refuses what is not registered.'
    FROM used u WHERE u.unregistered
    UNION ALL
    SELECT 'deprecated', 'warning', u.path, format('%s retained events are of this version, which is deprecated', u.events),
        coalesce(u.deprecation, 'Emit a newer version.')
    FROM used u WHERE u.deprecated
    ORDER BY 3, 1, 4
$$;
COMMENT ON FUNCTION sea_mq.lint IS
'What is wrong with the registry, by the file in which a contract would stand: the rules of sea-mq contracts lint, and what retained
events show: emitted types that are not registered or are deprecated. Reads all retained events';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.compare_schemas, sea_mq.compare_versions, sea_mq.contract_path, sea_mq.contract_file,
    sea_mq.export_contracts TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.lint_contracts, sea_mq.lint TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.contract_files, sea_mq.import_contracts TO sea_mq_operator;
