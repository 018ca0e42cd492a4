-- Capture: changes of a table's rows become events. Statement triggers hand the rows over (src/emit/capture); what is captured,
-- under which names and in which versions, stands here. See docs/capture.md.
CREATE TABLE sea_mq.captures (
    "table" regclass PRIMARY KEY,
    context text NOT NULL,
    aggregate_type text NOT NULL,
    key text[] NOT NULL CHECK (cardinality(key) > 0),
    events jsonb NOT NULL,
    columns text[],
    "when" text,
    visibility text,
    versions jsonb NOT NULL DEFAULT '{}',
    known jsonb NOT NULL,
    captured_by name NOT NULL,
    captured_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sea_mq.captures IS 'Captured tables; change it with capture_table and stop_capture, look at sea_mq.captured_tables';
COMMENT ON COLUMN sea_mq.captures."table" IS 'Captured table; its partitions and children are captured with it';
COMMENT ON COLUMN sea_mq.captures.context IS 'Context of the events';
COMMENT ON COLUMN sea_mq.captures.aggregate_type IS 'Aggregate type of the events';
COMMENT ON COLUMN sea_mq.captures.key IS 'Columns whose values make the aggregate id';
COMMENT ON COLUMN sea_mq.captures.events IS 'Event type of each operation (insert, update, delete, truncate); null: not captured';
COMMENT ON COLUMN sea_mq.captures.columns IS 'Columns that are sent; NULL: all';
COMMENT ON COLUMN sea_mq.captures."when" IS 'Condition over the rows old and new; NULL: none';
COMMENT ON COLUMN sea_mq.captures.visibility IS 'Visibility of the events, as given; NULL: what is registered, else internal';
COMMENT ON COLUMN sea_mq.captures.versions IS 'Registered version of each event type that is sent';
COMMENT ON COLUMN sea_mq.captures.known IS 'Names of the columns by their number, by which a renamed column is found';
COMMENT ON COLUMN sea_mq.captures.captured_by IS 'Role that called capture_table last';
COMMENT ON COLUMN sea_mq.captures.captured_at IS 'When capture_table was called last';
SELECT pg_catalog.pg_extension_config_dump('sea_mq.captures', '');

CREATE FUNCTION sea_mq.capture() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'capture_wrapper';
COMMENT ON FUNCTION sea_mq.capture IS 'Trigger function of captured tables; refuses to work for others';

CREATE FUNCTION sea_mq.capture_changed("table" regclass) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'capture_changed_wrapper';
COMMENT ON FUNCTION sea_mq.capture_changed IS 'Makes all sessions read again what is captured of a table; for internal use';

CREATE FUNCTION sea_mq.capture_condition("table" regclass, condition text, names jsonb DEFAULT NULL, captured regclass DEFAULT NULL) RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'capture_condition_wrapper';
COMMENT ON FUNCTION sea_mq.capture_condition IS
'A condition over the rows old and new with all names qualified, read as the role that owns the table. names: what its columns were called
when it was written. captured: the captured table that the table is a partition of. Errors: 22023 (not one expression, or something
temporary), 42501 (the caller does not own the table), 42601, 42703 and others of the parser; for internal use';

CREATE FUNCTION sea_mq.make_capture_trigger("table" oid, name text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'make_capture_trigger_wrapper';
COMMENT ON FUNCTION sea_mq.make_capture_trigger IS 'Makes one of capture_triggers on a table; works inside the door alone; for internal use';

CREATE FUNCTION sea_mq.remove_capture_trigger("table" oid, name text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'remove_capture_trigger_wrapper';
COMMENT ON FUNCTION sea_mq.remove_capture_trigger IS 'Removes one of capture_triggers from a table; works inside the door alone; for internal use';

CREATE FUNCTION sea_mq.lock_captured("table" oid) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'lock_captured_wrapper';
COMMENT ON FUNCTION sea_mq.lock_captured IS
'Waits until nobody writes to a table, its partitions and children, and keeps it so until the transaction ends; works inside the door
alone; for internal use';

-- The table itself, or the nearest captured one that it is a partition or child of. What captures there are is asked by their
-- key, so that this does not depend on how many there are.
CREATE FUNCTION sea_mq.capture_root(relation oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH RECURSIVE line (relation, depth) AS (
        SELECT $1, 0
        UNION SELECT i.inhparent, l.depth + 1 FROM line l JOIN pg_inherits i ON i.inhrelid = l.relation WHERE NOT i.inhdetachpending),
    captured AS MATERIALIZED (
        SELECT (SELECT c."table"::oid FROM sea_mq.captures c WHERE c."table" = l.relation) AS "table", l.depth FROM line l)
    SELECT "table" FROM captured WHERE "table" IS NOT NULL ORDER BY depth, 1 LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.capture_root IS 'The captured table that a table belongs to, NULL if there is none; for internal use';

CREATE FUNCTION sea_mq.capture_left(relation bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE line (relation, pending) AS (
        SELECT $1::oid, false
        UNION SELECT i.inhparent, l.pending OR i.inhdetachpending FROM line l JOIN pg_inherits i ON i.inhrelid = l.relation)
    SELECT EXISTS (SELECT FROM line l WHERE l.pending AND EXISTS (SELECT FROM sea_mq.captures c WHERE c."table" = l.relation))
$$;
COMMENT ON FUNCTION sea_mq.capture_left IS
'Whether a table is being detached from a captured one (DETACH PARTITION CONCURRENTLY, not finished); for internal use';

CREATE FUNCTION sea_mq.capture_members("table" oid) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE family (relation) AS (
        SELECT $1
        UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.relation
        WHERE NOT i.inhdetachpending AND NOT EXISTS (SELECT FROM sea_mq.captures c WHERE c."table" = i.inhrelid))
    SELECT relation FROM family
$$;
COMMENT ON FUNCTION sea_mq.capture_members IS 'A captured table, and its partitions and children that are captured with it; for internal use';

CREATE FUNCTION sea_mq.capture_plan(relation bigint) RETURNS text
-- The table's name is sent.
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
    SELECT jsonb_build_object(
        'root', c."table"::oid::bigint,
        'table', $1::oid::regclass::text,
        'ancestors', (WITH RECURSIVE line (relation) AS (
            SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = $1::oid AND $1::oid <> c."table"
            UNION SELECT i.inhparent FROM line l JOIN pg_inherits i ON i.inhrelid = l.relation WHERE l.relation <> c."table")
            SELECT coalesce(jsonb_agg(l.relation::bigint), '[]') FROM line l),
        'context', c.context, 'aggregate_type', c.aggregate_type, 'when', c."when",
        'key', (SELECT jsonb_agg(a.attnum ORDER BY k.place) FROM unnest(c.key) WITH ORDINALITY k (name, place)
            JOIN pg_attribute a ON a.attrelid = $1::oid AND a.attname = k.name AND NOT a.attisdropped),
        'columns', (SELECT jsonb_agg(a.attnum ORDER BY r.attnum) FROM pg_attribute r
            JOIN pg_attribute a ON a.attrelid = $1::oid AND a.attname = r.attname AND NOT a.attisdropped
            WHERE r.attrelid = c."table" AND r.attnum > 0 AND NOT r.attisdropped AND (c.columns IS NULL OR r.attname = ANY (c.columns))),
        'events', (SELECT jsonb_object_agg(e.key, CASE WHEN e.value IS NOT NULL THEN
                jsonb_build_object('name', e.value, 'version', c.versions -> e.value) END)
            FROM jsonb_each_text(c.events) e))::text
    FROM sea_mq.captures c WHERE c."table" = sea_mq.capture_root($1::oid)
$$;
COMMENT ON FUNCTION sea_mq.capture_plan IS 'What the trigger function must know of a table; for internal use';

-- What to_json makes of a type, as JSON Schema.
-- A type that is nested deeper than depth allows may be anything.
CREATE FUNCTION sea_mq.json_schema(type oid, nullable boolean, depth integer DEFAULT 16) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t pg_type;
    schema jsonb;
BEGIN
    IF depth <= 0 THEN
        RETURN '{}';
    END IF;
    LOOP
        SELECT * INTO t FROM pg_type WHERE oid = type;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no type with the OID %', type
                USING ERRCODE = 'undefined_object', HINT = 'It was dropped meanwhile.';
        END IF;
        EXIT WHEN t.typtype <> 'd';
        type := t.typbasetype;
    END LOOP;
    schema := CASE
        WHEN type = 'bool'::regtype THEN '{"type": "boolean"}'
        WHEN type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN '{"type": "integer"}'
        -- Which have values that are no number in JSON.
        WHEN type IN ('numeric'::regtype, 'float4'::regtype, 'float8'::regtype)
            THEN '{"type": ["number", "string"], "pattern": "^(NaN|-?Infinity)$"}'
        WHEN type IN ('json'::regtype, 'jsonb'::regtype) THEN '{}'
        WHEN type = 'date'::regtype THEN '{"type": "string", "format": "date"}'
        WHEN type = 'timestamptz'::regtype THEN '{"type": "string", "format": "date-time"}'
        WHEN type = 'uuid'::regtype THEN '{"type": "string", "format": "uuid"}'
        WHEN t.typtype = 'e' THEN (SELECT jsonb_build_object('enum', jsonb_agg(e.enumlabel ORDER BY e.enumsortorder))
            FROM pg_enum e WHERE e.enumtypid = type)
        -- The number of dimensions is not fixed.
        WHEN t.typsubscript = 'array_subscript_handler'::regproc THEN jsonb_build_object('type', 'array', 'items',
            jsonb_build_object('anyOf', jsonb_build_array(sea_mq.json_schema(t.typelem, true, depth - 1), '{"type": "array"}'::jsonb)))
        WHEN t.typtype = 'c' THEN (SELECT jsonb_build_object('type', 'object',
                'properties', coalesce(jsonb_object_agg(a.attname, sea_mq.json_schema(a.atttypid, true, depth - 1)), '{}'),
                'required', coalesce(jsonb_agg(a.attname ORDER BY a.attnum), '[]'))
            FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
        WHEN EXISTS (SELECT FROM pg_cast c WHERE c.castsource = type AND c.casttarget = 'json'::regtype AND c.castmethod = 'f') THEN '{}'
        ELSE '{"type": "string"}'
    END;
    IF nullable AND schema ? 'type' THEN
        schema := schema || jsonb_build_object('type', (schema -> 'type') || '["null"]');
    ELSIF nullable AND schema ? 'enum' THEN
        schema := schema || jsonb_build_object('enum', (schema -> 'enum') || '[null]');
    END IF;
    RETURN schema;
END $$;
COMMENT ON FUNCTION sea_mq.json_schema IS 'A JSON Schema for what values of a type look like in events; for internal use';

CREATE FUNCTION sea_mq.capture_schema(capture sea_mq.captures, event_type text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    operations text[] := ARRAY(SELECT e.key FROM jsonb_each_text(capture.events) e WHERE e.value = event_type);
    properties jsonb;
    schema jsonb := jsonb_build_object('$schema', 'https://json-schema.org/draft/2020-12/schema', 'title', event_type, 'type', 'object');
BEGIN
    IF 'truncate' = ANY (operations) THEN
        RETURN schema || '{"properties": {"table": {"type": "string"}, "whole": {"type": "boolean"}}, "required": ["table", "whole"]}';
    END IF;
    SELECT jsonb_build_object(
        'key', sea_mq.capture_object(capture."table", capture.key, true),
        'row', sea_mq.capture_object(capture."table", capture.columns, true),
        'old', sea_mq.capture_object(capture."table", CASE WHEN capture.columns IS NOT NULL THEN capture.columns || capture.key END, false)) INTO properties;
    RETURN schema || CASE operations
        WHEN '{update}' THEN jsonb_build_object('properties', properties, 'required', '["key", "row", "old"]'::jsonb)
        ELSE jsonb_build_object('properties', CASE WHEN 'update' = ANY (operations) THEN properties ELSE properties - 'old' END,
            'required', '["key", "row"]'::jsonb)
    END;
END $$;
COMMENT ON FUNCTION sea_mq.capture_schema IS 'JSON Schema of a captured table''s event; for internal use';

CREATE FUNCTION sea_mq.capture_object("table" oid, columns text[], complete boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('type', 'object', 'properties', jsonb_object_agg(a.attname, sea_mq.json_schema(a.atttypid, NOT a.attnotnull)))
        || CASE WHEN complete THEN jsonb_build_object('required', jsonb_agg(a.attname ORDER BY a.attnum)) ELSE '{}' END
    FROM pg_attribute a
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND ($2 IS NULL OR a.attname = ANY ($2))
$$;
COMMENT ON FUNCTION sea_mq.capture_object IS 'JSON Schema of an object that has columns of a table as members; NULL: all columns; for internal use';

CREATE FUNCTION sea_mq.register_capture(capture sea_mq.captures) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    event text;
    schema jsonb;
    latest sea_mq.event_types;
    version integer;
    versions jsonb := '{}';
BEGIN
    FOR event IN SELECT DISTINCT e.value FROM jsonb_each_text(capture.events) e WHERE e.value IS NOT NULL ORDER BY 1 LOOP
        schema := sea_mq.capture_schema(capture, event);
        SELECT t.* INTO latest FROM sea_mq.event_types t
        WHERE t.context = capture.context AND t.event_type = event ORDER BY t.version DESC LIMIT 1;
        version := coalesce(latest.version, 1);
        IF latest.version IS NOT NULL AND (sea_mq.contract_of(latest.schema) IS DISTINCT FROM sea_mq.contract_of(schema)
            OR capture.visibility <> latest.visibility)
        THEN
            version := latest.version + 1;
        END IF;
        IF version IS DISTINCT FROM latest.version THEN
            PERFORM sea_mq.register_event(capture.context, event, version, schema, coalesce(capture.visibility, latest.visibility),
                format('Captured from table %s', capture."table"));
        END IF;
        IF version > coalesce((capture.versions ->> event)::integer, 1) THEN
            RAISE NOTICE '% of table % is version % from now on', event, capture."table", version;
        END IF;
        versions := versions || jsonb_build_object(event, version);
    END LOOP;
    RETURN versions;
END $$;
COMMENT ON FUNCTION sea_mq.register_capture IS 'Registers what a captured table''s events look like now, and returns their versions; for internal use';

CREATE FUNCTION sea_mq.guard_capture() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    captured regclass := CASE TG_OP WHEN 'DELETE' THEN OLD."table" ELSE NEW."table" END;
BEGIN
    IF TG_WHEN = 'AFTER' THEN
        PERFORM sea_mq.capture_changed(captured);
        RETURN NULL;
    END IF;
    -- Numbers are another matter after a restore, so they are never taken over.
    NEW.known := (SELECT jsonb_object_agg(a.attnum, a.attname) FROM pg_attribute a
        WHERE a.attrelid = captured AND a.attnum > 0 AND NOT a.attisdropped);
    RETURN NEW;
END $$;
COMMENT ON FUNCTION sea_mq.guard_capture IS 'Trigger function: what is to be known when a captured table''s columns change, and that sessions read it again';
CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON sea_mq.captures FOR EACH ROW EXECUTE FUNCTION sea_mq.guard_capture();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON sea_mq.captures FOR EACH ROW EXECUTE FUNCTION sea_mq.guard_capture();
COMMENT ON TRIGGER guard ON sea_mq.captures IS 'What is to be known when the table''s columns change';
COMMENT ON TRIGGER changed ON sea_mq.captures IS 'Sessions read again what is captured';

-- The triggers of a capture, by operation. Transition tables allow one event a trigger. What each is stands in
-- src/emit/capture/triggers.rs.
CREATE VIEW sea_mq.capture_triggers AS
SELECT * FROM (VALUES
    ('insert', 'sea_mq_capture_insert'),
    ('update', 'sea_mq_capture_update'),
    ('delete', 'sea_mq_capture_delete'),
    ('truncate', 'sea_mq_capture_truncate'),
    ('truncate', 'sea_mq_capture_truncate_begin')) t (operation, name);
COMMENT ON VIEW sea_mq.capture_triggers IS 'The triggers that captured tables have';
COMMENT ON COLUMN sea_mq.capture_triggers.operation IS 'Operation';
COMMENT ON COLUMN sea_mq.capture_triggers.name IS 'Name of the trigger';

-- Makes the triggers of tables what the captures want; those of tables that are not captured any more are removed.
CREATE FUNCTION sea_mq.install_capture(tables oid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT r.relation, g.name, coalesce(c.events ->> g.operation, '') <> '' AS wanted, c."when", c."table" AS captured
        FROM (SELECT m.relation, sea_mq.capture_root(m.relation) AS root FROM unnest(tables) m (relation) OFFSET 0) r
        CROSS JOIN sea_mq.capture_triggers g
        LEFT JOIN sea_mq.captures c ON c."table" = r.root
        WHERE (coalesce(c.events ->> g.operation, '') <> '') <> EXISTS (SELECT FROM pg_trigger p
            WHERE p.tgrelid = r.relation AND p.tgname = g.name AND p.tgfoid = 'sea_mq.capture'::regproc)
        ORDER BY r.relation, g.name
    LOOP
        IF NOT t.wanted THEN
            PERFORM sea_mq.remove_capture_trigger(t.relation, t.name);
            CONTINUE;
        END IF;
        IF (SELECT relkind FROM pg_class WHERE oid = t.relation) = 'f' THEN
            RAISE EXCEPTION '% is a foreign table, which cannot be captured', t.relation::regclass
                USING ERRCODE = 'wrong_object_type', HINT = 'Capture the table where it is, or those of the partitions that are no foreign tables.';
        END IF;
        -- It must have a meaning for a partition's rows, too.
        PERFORM sea_mq.capture_condition(t.relation, t."when", captured => t.captured) WHERE t."when" IS NOT NULL;
        PERFORM sea_mq.make_capture_trigger(t.relation, t.name);
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.install_capture IS 'Makes the triggers of tables what their captures want; for internal use';

-- Whoever captures a table must own it; the functions see to it.
GRANT SELECT ON sea_mq.captures, sea_mq.capture_triggers TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.capture, sea_mq.capture_condition TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.capture_members TO sea_mq_operator, sea_mq_monitor;
