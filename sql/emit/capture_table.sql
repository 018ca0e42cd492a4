-- What people call, and how a capture follows its table.
CREATE FUNCTION sea_mq.check_capturable("table" regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c pg_class;
BEGIN
    SELECT * INTO c FROM pg_class WHERE oid = "table";
    IF NOT FOUND OR c.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is not a table', "table"
            USING ERRCODE = 'wrong_object_type', HINT = 'Tables and partitioned tables can be captured; of a view, capture what it reads.';
    END IF;
    IF c.relpersistence = 't' OR c.relnamespace IN ('pg_catalog'::regnamespace, 'sea_mq'::regnamespace) THEN
        RAISE EXCEPTION 'table % cannot be captured', "table"
            USING ERRCODE = 'feature_not_supported', HINT = 'Temporary tables, the system''s and sea_mq''s own are not captured.';
    END IF;
    IF NOT pg_has_role(sea_mq.caller(), c.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', "table"
            USING ERRCODE = 'insufficient_privilege', HINT = 'Whoever owns a table decides what leaves it.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_capturable IS 'An error unless the caller can capture the table. Errors: 42809, 0A000, 42501; for internal use';

CREATE FUNCTION sea_mq.capture_key("table" regclass, key text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part text;
    columns text[];
BEGIN
    IF key IS NULL THEN
        SELECT array_agg(a.attname::text ORDER BY k.place) INTO columns
        FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE i.indrelid = "table" AND i.indisprimary AND k.place <= i.indnkeyatts;
        IF columns IS NULL THEN
            RAISE EXCEPTION 'table % has no primary key', "table"
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Say which columns name the aggregate: key => ''tenant, number''.';
        END IF;
        RETURN columns;
    END IF;
    FOR part IN SELECT btrim(m[1]) FROM regexp_matches(key, '[[:space:]]*("(?:[^"]|"")*"|[^,"]+)[[:space:]]*', 'g') m LOOP
        -- As it stands, or as SQL reads it.
        SELECT a.attname INTO part FROM pg_attribute a
        WHERE a.attrelid = "table" AND a.attnum > 0 AND NOT a.attisdropped AND a.attname IN (part, lower(part),
            CASE WHEN part ~ '^".+"$' THEN replace(substr(part, 2, length(part) - 2), '""', '"') END)
        ORDER BY a.attname = part DESC LIMIT 1;
        IF NOT FOUND OR part = ANY (columns) THEN
            RAISE EXCEPTION 'key "%" does not name columns of table %', key, "table"
                USING ERRCODE = 'undefined_column', HINT = 'As in key => ''tenant, number''.';
        END IF;
        columns := columns || part;
    END LOOP;
    IF columns IS NULL THEN
        RAISE EXCEPTION 'key "%" names no column', key USING ERRCODE = 'invalid_parameter_value', HINT = 'As in key => ''tenant, number''.';
    END IF;
    RETURN columns;
END $$;
COMMENT ON FUNCTION sea_mq.capture_key IS 'The columns that a list names, those of the primary key for NULL. Errors: 22023 (no primary key), 42703; for internal use';

CREATE FUNCTION sea_mq.capture_events(aggregate_type text, events jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stem text := regexp_replace(aggregate_type, '[^[:alnum:]_-]+', '_', 'g');
    names jsonb := jsonb_build_object('insert', stem || '_created', 'update', stem || '_updated', 'delete', stem || '_deleted',
        'truncate', stem || '_truncated');
BEGIN
    IF events IS NOT NULL AND (jsonb_typeof(events) <> 'object' OR EXISTS (SELECT FROM jsonb_each(events) e
        WHERE NOT names ? e.key OR jsonb_typeof(e.value) NOT IN ('string', 'null')))
    THEN
        RAISE EXCEPTION 'events cannot be %', events
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'As in ''{"insert": "OrderPlaced", "update": null}'', with the keys insert, update, delete and truncate; null: no event.';
    END IF;
    names := names || coalesce(events, '{}');
    SELECT jsonb_object_agg(n.key, sea_mq.event_name(n.value)) INTO names FROM jsonb_each_text(names) n;
    IF NOT EXISTS (SELECT FROM jsonb_each_text(names) n WHERE n.value IS NOT NULL) THEN
        RAISE EXCEPTION 'no operation has an event'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'To capture nothing, call sea_mq.stop_capture.';
    END IF;
    IF EXISTS (SELECT FROM jsonb_each_text(names) n WHERE n.key <> 'truncate' AND n.value = names ->> 'truncate') THEN
        RAISE EXCEPTION 'the event of truncate is about no row, so it must have a name of its own'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give it another name, or null.';
    END IF;
    RETURN names;
END $$;
COMMENT ON FUNCTION sea_mq.capture_events IS 'The event type of each operation. Error 22023; for internal use';

CREATE FUNCTION sea_mq.begin_capture(
    "table" regclass, aggregate_type text, key text, events jsonb, columns text[], condition text, context text, visibility text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    new sea_mq.captures;
    other text;
BEGIN
    IF begin_capture."table" IS NULL THEN
        RAISE EXCEPTION 'table must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.capture_table(''orders'', ''order'').';
    END IF;
    PERFORM sea_mq.check_capturable(begin_capture."table");
    PERFORM sea_mq.lock_captured(begin_capture."table");
    -- It may have changed hands, or be gone.
    PERFORM sea_mq.check_capturable(begin_capture."table");
    SELECT c.* INTO new FROM sea_mq.captures c WHERE c."table" = begin_capture."table";
    new.context := sea_mq.context_name(coalesce(begin_capture.context, nullif(current_setting('sea_mq.context', true), '')));
    IF new.context IS NULL THEN
        RAISE EXCEPTION 'the context of the events is not known'
            USING ERRCODE = 'undefined_object', HINT = 'Set it for the database, ALTER DATABASE ... SET sea_mq.context = ''orders'', or pass context => ''orders''.';
    END IF;
    new.aggregate_type := coalesce(begin_capture.aggregate_type, (SELECT relname FROM pg_class WHERE oid = begin_capture."table"));
    new.key := sea_mq.capture_key(begin_capture."table", begin_capture.key);
    new.events := sea_mq.capture_events(new.aggregate_type, begin_capture.events);
    SELECT c INTO other FROM unnest(begin_capture.columns) c
    WHERE NOT EXISTS (SELECT FROM pg_attribute a
        WHERE a.attrelid = begin_capture."table" AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = c);
    IF FOUND OR begin_capture.columns = '{}' THEN
        RAISE EXCEPTION 'columns are not columns of table %: %', begin_capture."table", coalesce(quote_ident(other), 'there is none')
            USING ERRCODE = 'undefined_column', HINT = 'As in columns => ''{number,total}''; leave it out for all.';
    END IF;
    SELECT c."table"::text INTO other FROM sea_mq.captures c JOIN jsonb_each_text(c.events) theirs ON theirs.value IS NOT NULL
    JOIN jsonb_each_text(new.events) ours ON ours.value = theirs.value
    WHERE c.context = new.context AND c."table" <> begin_capture."table" LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'table % is captured with the same event types', other
            USING ERRCODE = 'duplicate_object', HINT = 'One event type has one shape: pass another aggregate_type or events.';
    END IF;
    new."table" := begin_capture."table";
    new.columns := begin_capture.columns;
    new."when" := sea_mq.capture_condition(begin_capture."table", begin_capture.condition);
    new.visibility := begin_capture.visibility;
    new.versions := sea_mq.register_capture(new);
    INSERT INTO sea_mq.captures ("table", context, aggregate_type, key, events, columns, "when", visibility, versions, captured_by)
    VALUES (new."table", new.context, new.aggregate_type, new.key, new.events, new.columns, new."when", new.visibility, new.versions,
        pg_get_userbyid(sea_mq.caller()))
    ON CONFLICT ("table") DO UPDATE SET context = excluded.context, aggregate_type = excluded.aggregate_type, key = excluded.key,
        events = excluded.events, columns = excluded.columns, "when" = excluded."when", visibility = excluded.visibility,
        versions = excluded.versions, captured_by = excluded.captured_by, captured_at = excluded.captured_at;
    PERFORM sea_mq.install_capture(ARRAY(SELECT sea_mq.capture_members(new."table")));
END $$;
COMMENT ON FUNCTION sea_mq.begin_capture IS 'capture_table, once the condition is read; for internal use';

-- In the caller's search path, which decides what names in the condition mean. No name of its own depends on it.
CREATE FUNCTION sea_mq.capture_table(
    "table" regclass, aggregate_type text DEFAULT NULL, key text DEFAULT NULL, events jsonb DEFAULT NULL, columns text[] DEFAULT NULL,
    "when" text DEFAULT NULL, context text DEFAULT NULL, visibility text DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
    SELECT sea_mq.begin_capture($1, $2, $3, $4, $5, sea_mq.capture_condition($1, $6), $7, $8)
$$;
COMMENT ON FUNCTION sea_mq.capture_table IS
'Makes events of all changes of a table''s rows, and of its partitions and children: {aggregate_type}_created, _updated, _deleted and
_truncated, with the payload {"key": {…}, "row": {…}, "old": {what an update changed}}. aggregate_type: the table''s name unless given. key:
columns that name the aggregate, the primary key unless given. events: other names, null for no event. columns: what is sent
and what counts as a change, all unless given. when: a condition over old and new. The event types are registered, and
follow the table''s columns. Calling it again replaces the capture. The caller owns the table. Errors: 22004, 22023, 42501, 42703,
42704 (no context), 42710 (another table has these event types), 42809 (no table), 0A000, and those of the condition';

CREATE FUNCTION sea_mq.stop_capture("table" regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    members oid[] := ARRAY(SELECT sea_mq.capture_members(stop_capture."table"));
BEGIN
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = stop_capture."table" AND NOT pg_has_role(sea_mq.caller(), c.relowner, 'USAGE')) THEN
        RAISE EXCEPTION 'must be owner of table %', stop_capture."table"
            USING ERRCODE = 'insufficient_privilege', HINT = 'Whoever owns a table decides what leaves it.';
    END IF;
    DELETE FROM sea_mq.captures c WHERE c."table" = stop_capture."table";
    IF NOT FOUND AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = stop_capture."table" AND t.tgfoid = 'sea_mq.capture'::regproc)
    THEN
        RAISE EXCEPTION 'table % is not captured', stop_capture."table"
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.captured_tables.';
    ELSIF sea_mq.capture_root(stop_capture."table") IS NOT NULL AND NOT FOUND THEN
        RAISE EXCEPTION 'table % is captured with %', stop_capture."table", sea_mq.capture_root(stop_capture."table")::regclass
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Stop that capture, or detach the partition.';
    END IF;
    PERFORM sea_mq.install_capture(members);
END $$;
COMMENT ON FUNCTION sea_mq.stop_capture IS
'Ends the capture of a table; what was emitted stays. Errors: 42704 (it is not captured), 42501, 55000 (it is a partition that is
captured with its table)';

CREATE VIEW sea_mq.captured_tables AS
SELECT c."table", c.context, c.aggregate_type, c.key, c.events, c.versions, c.columns, c."when", c.visibility,
    NOT EXISTS (SELECT FROM sea_mq.capture_members(c."table") m (relation) CROSS JOIN sea_mq.capture_triggers g
        WHERE c.events ->> g.operation IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
            WHERE t.tgrelid = m.relation AND t.tgname = g.name AND t.tgenabled IN ('O', 'A'))) AS active,
    c.captured_by, c.captured_at
FROM sea_mq.captures c;
COMMENT ON VIEW sea_mq.captured_tables IS 'Tables whose changes become events';
COMMENT ON COLUMN sea_mq.captured_tables."table" IS 'Captured table; its partitions and children are captured with it';
COMMENT ON COLUMN sea_mq.captured_tables.context IS 'Context of the events';
COMMENT ON COLUMN sea_mq.captured_tables.aggregate_type IS 'Aggregate type of the events';
COMMENT ON COLUMN sea_mq.captured_tables.key IS 'Columns whose values make the aggregate id';
COMMENT ON COLUMN sea_mq.captured_tables.events IS 'Event type of each operation; null: not captured';
COMMENT ON COLUMN sea_mq.captured_tables.versions IS 'Registered version of each event type that is sent';
COMMENT ON COLUMN sea_mq.captured_tables.columns IS 'Columns that are sent; NULL: all';
COMMENT ON COLUMN sea_mq.captured_tables."when" IS 'Condition over the rows old and new; NULL: none';
COMMENT ON COLUMN sea_mq.captured_tables.visibility IS 'Visibility of the events, as given; NULL: what is registered, else internal';
COMMENT ON COLUMN sea_mq.captured_tables.active IS 'Whether all triggers are there and enabled';
COMMENT ON COLUMN sea_mq.captured_tables.captured_by IS 'Role that called capture_table last';
COMMENT ON COLUMN sea_mq.captured_tables.captured_at IS 'When capture_table was called last';

-- A capture after its table has changed: names follow, versions move on, new partitions are captured.
CREATE FUNCTION sea_mq.follow_table(root oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
#variable_conflict use_column
DECLARE
    c sea_mq.captures;
    names jsonb;
BEGIN
    SELECT * INTO c FROM sea_mq.captures WHERE "table" = root;
    -- While a dump is restored the triggers come later, and by themselves.
    IF NOT FOUND OR EXISTS (SELECT FROM sea_mq.capture_triggers g WHERE c.events ->> g.operation IS NOT NULL
        AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = root AND t.tgname = g.name))
    THEN
        RETURN;
    END IF;
    -- What each column was called, and what it is called now.
    SELECT jsonb_object_agg(coalesce(k.value, a.attname), a.attname), jsonb_agg(coalesce(k.value, a.attname) ORDER BY a.attnum)
    INTO names, c.known
    FROM pg_attribute a LEFT JOIN jsonb_each_text(c.known) k ON k.key = a.attnum::text
    WHERE a.attrelid = root AND a.attnum > 0 AND NOT a.attisdropped;
    IF EXISTS (SELECT FROM unnest(c.key) k WHERE NOT names ? k) THEN
        RAISE EXCEPTION 'table % is captured by the key (%)', root::regclass, array_to_string(c.key, ', ')
            USING ERRCODE = 'dependent_objects_still_exist',
                HINT = 'Capture it by another key first (sea_mq.capture_table), or stop the capture (sea_mq.stop_capture).';
    END IF;
    c.key := ARRAY(SELECT names ->> k.name FROM unnest(c.key) WITH ORDINALITY k (name, place) ORDER BY k.place);
    IF c.columns IS NOT NULL THEN
        c.columns := ARRAY(SELECT names ->> k.name FROM unnest(c.columns) WITH ORDINALITY k (name, place) WHERE names ? k.name ORDER BY k.place);
        IF c.columns = '{}' THEN
            RAISE EXCEPTION 'nothing would be left that is captured of table %', root::regclass
                USING ERRCODE = 'dependent_objects_still_exist',
                    HINT = 'Capture other columns first (sea_mq.capture_table), or stop the capture (sea_mq.stop_capture).';
        END IF;
    END IF;
    IF c."when" IS NOT NULL THEN
        BEGIN
            c."when" := sea_mq.capture_condition(root, c."when", c.known, root);
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'the condition that table % is captured under would have no meaning: %', root::regclass, SQLERRM
                USING ERRCODE = 'dependent_objects_still_exist', DETAIL = c."when",
                    HINT = 'Capture it under another condition first (sea_mq.capture_table), or stop the capture (sea_mq.stop_capture).';
        END;
    END IF;
    c.versions := sea_mq.register_capture(c);
    UPDATE sea_mq.captures o SET key = c.key, columns = c.columns, "when" = c."when", versions = c.versions WHERE o."table" = root;
    PERFORM sea_mq.install_capture(ARRAY(SELECT sea_mq.capture_members(root)));
END $$;
COMMENT ON FUNCTION sea_mq.follow_table IS 'Brings a capture in line with its table. Error 2BP01: something that it needs is gone; for internal use';

-- The tables that have a column of a type, or of a type that contains it: an array, composite, domain or range.
CREATE FUNCTION sea_mq.tables_with_type(type oid) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE used (type) AS (
        SELECT $1
        UNION SELECT o.type FROM used u CROSS JOIN LATERAL (
            SELECT d.objid FROM pg_depend d
            WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid = u.type AND d.classid = 'pg_type'::regclass
            UNION ALL SELECT c.reltype FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
            WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid = u.type AND d.classid = 'pg_class'::regclass AND c.reltype <> 0) o (type))
    SELECT DISTINCT d.objid FROM used u JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = u.type
    WHERE d.classid = 'pg_class'::regclass AND d.objsubid > 0
$$;
COMMENT ON FUNCTION sea_mq.tables_with_type IS 'The tables whose rows may contain a type; for internal use';

-- As the extension's owner: whoever alters a table need not know that it is captured. What does not concern a capture costs a
-- look-up by key, however many there are.
CREATE FUNCTION sea_mq.follow_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    root oid;
    roots oid[];
    changed oid[];
BEGIN
    IF NOT EXISTS (SELECT FROM sea_mq.captures) THEN
        RETURN;
    END IF;
    IF TG_EVENT = 'sql_drop' THEN
        FOR root IN SELECT d.objid FROM pg_event_trigger_dropped_objects() d WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 LOOP
            DELETE FROM sea_mq.captures c WHERE c."table" = root;
        END LOOP;
        -- ALTER TABLE comes again when it is complete.
        SELECT array_agg(DISTINCT d.objid) INTO changed FROM pg_event_trigger_dropped_objects() d
        WHERE d.classid = 'pg_class'::regclass AND d.objsubid > 0 AND TG_TAG <> 'ALTER TABLE';
    ELSIF TG_TAG = 'ALTER TYPE' THEN
        -- A composite type is known by its relation, or by the type.
        SELECT array_agg(DISTINCT t.relation) INTO changed
        FROM pg_event_trigger_ddl_commands() d LEFT JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
        CROSS JOIN LATERAL sea_mq.tables_with_type(CASE WHEN d.classid = 'pg_type'::regclass THEN d.objid ELSE c.reltype END) t (relation);
    ELSE
        SELECT array_agg(DISTINCT d.objid) INTO changed FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass;
    END IF;
    SELECT array_agg(DISTINCT c.root ORDER BY c.root) INTO roots
    FROM (SELECT sea_mq.capture_root(r) AS root FROM unnest(changed) r) c WHERE c.root IS NOT NULL;
    FOREACH root IN ARRAY coalesce(roots, '{}') LOOP
        PERFORM sea_mq.follow_table(root);
    END LOOP;
    -- Partitions that were detached: from one of these tables, or one of them itself.
    IF TG_TAG = 'ALTER TABLE' AND (roots IS NOT NULL OR EXISTS (SELECT FROM pg_trigger t
        WHERE t.tgrelid = ANY (changed) AND t.tgfoid = 'sea_mq.capture'::regproc))
    THEN
        PERFORM sea_mq.install_capture(ARRAY(SELECT DISTINCT t.tgrelid FROM pg_depend d JOIN pg_trigger t ON t.oid = d.objid
            WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = 'sea_mq.capture'::regproc AND d.classid = 'pg_trigger'::regclass
                AND sea_mq.capture_root(t.tgrelid) IS NULL));
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.follow_ddl IS 'Event trigger function: captures follow their tables';

CREATE EVENT TRIGGER sea_mq_capture ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE FOREIGN TABLE', 'ALTER TABLE', 'ALTER TYPE')
EXECUTE FUNCTION sea_mq.follow_ddl();
CREATE EVENT TRIGGER sea_mq_capture_drop ON sql_drop EXECUTE FUNCTION sea_mq.follow_ddl();
COMMENT ON EVENT TRIGGER sea_mq_capture IS 'Captures follow their tables';
COMMENT ON EVENT TRIGGER sea_mq_capture_drop IS 'The capture of a table ends with the table';

-- Who may use it.
GRANT SELECT ON sea_mq.captured_tables TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.begin_capture, sea_mq.capture_table, sea_mq.stop_capture TO sea_mq_operator;
