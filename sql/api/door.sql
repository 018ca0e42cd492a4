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
BEGIN
    IF NOT sea_mq.preloaded() THEN
        RAISE WARNING 'sea_mq is not in shared_preload_libraries'
            USING DETAIL = 'Events are stored, but no relay publishes them.',
                HINT = 'Add sea_mq to shared_preload_libraries and restart the server; until then, call sea_mq.start().';
    END IF;
END $$;
SELECT sea_mq.announce();
