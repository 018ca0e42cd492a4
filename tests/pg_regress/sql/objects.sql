-- The catalog: everything has a comment, nothing is PUBLIC's, and the extension leaves nothing behind.

-- Objects without a comment: none.
SELECT pg_describe_object(o.classid, o.objid, o.objsubid) AS uncommented
FROM (
    SELECT d.classid, d.objid, 0 AS objsubid
    FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid AND d.refclassid = 'pg_extension'::regclass
    WHERE e.extname = 'sea_mq' AND d.deptype = 'e'
        -- Row types belong to their tables, and array types to their elements.
        AND d.classid <> 'pg_type'::regclass
    UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped
        -- Slots have the columns of the table that they are slots of.
        AND NOT c.relispartition
        -- "Columns as in sea_mq.outbox_log", says its comment.
        AND c.relname <> 'scheduled_events'
    UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, 0
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = 'sea_mq'::regnamespace AND NOT t.tgisinternal
) AS o
WHERE NOT EXISTS (
    SELECT FROM pg_description d WHERE (d.classoid, d.objoid, d.objsubid) = (o.classid, o.objid, o.objsubid))
ORDER BY 1;

-- Settings without a description: none.
SELECT name FROM pg_settings WHERE name LIKE 'sea\_mq.%' AND coalesce(short_desc, '') = '';

-- What PUBLIC may do: nothing.
SELECT a.grantee::regrole, a.privilege_type, pg_describe_object(o.classid, o.oid, 0)
FROM (
    SELECT 'pg_class'::regclass AS classid, oid, coalesce(relacl, acldefault('r', relowner)) AS acl
    FROM pg_class WHERE relnamespace = 'sea_mq'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE pronamespace = 'sea_mq'::regnamespace
    UNION ALL
    SELECT 'pg_namespace'::regclass, oid, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace WHERE nspname = 'sea_mq'
) AS o, aclexplode(o.acl) AS a
WHERE a.grantee = 0
ORDER BY 3, 2;

-- SECURITY DEFINER without a pinned search_path: none.
SELECT oid::regprocedure FROM pg_proc
WHERE pronamespace = 'sea_mq'::regnamespace AND prosecdef
    AND NOT EXISTS (SELECT FROM unnest(proconfig) AS setting WHERE setting LIKE 'search_path=%')
ORDER BY 1;

-- Tables whose rows a dump would leave out.
SELECT c.oid::regclass AS not_dumped
FROM pg_class c
WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind IN ('r', 'S')
    AND NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'sea_mq' AND c.oid = ANY (e.extconfig))
ORDER BY 1;

-- Tables without a replica identity, whose rows a publication FOR ALL TABLES would not let anybody update or delete: those
-- whose rows are only appended, and go by TRUNCATE. (Unlogged tables are not published.)
SELECT c.oid::regclass AS only_appended
FROM pg_class c
WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind = 'r' AND c.relpersistence = 'p' AND NOT EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident))
ORDER BY 1;

-- The log is never updated or deleted from: nothing refers to it, no foreign key and no rule needs that.
SELECT conrelid::regclass, conname FROM pg_constraint WHERE confrelid = 'sea_mq.outbox_log'::regclass;

SELECT count(*) > 20 AS reports FROM sea_mq.install_report();
SELECT DISTINCT section FROM sea_mq.install_report() ORDER BY 1;

-- One row each, also when nothing has happened yet.
SELECT ok, summary IS NOT NULL AS says_what, hint IS NOT NULL AS says_what_to_do FROM sea_mq.status;
SELECT count(*) FROM sea_mq.relay_status;

-- Somewhere else: drop, create, and nothing is left in between.
CREATE DATABASE sea_mq_regress_other;
\c sea_mq_regress_other
CREATE EXTENSION sea_mq;
SELECT sea_mq.emit('order', '1', 'OrderCreated', '{}', context => 'orders') IS NOT NULL AS emitted;
DROP EXTENSION sea_mq;
SELECT count(*) FROM pg_namespace WHERE nspname = 'sea_mq';
CREATE EXTENSION sea_mq;
SELECT count(*) FROM sea_mq.outbox_events;
-- The roles are the cluster's and stay.
SELECT rolname, rolcanlogin, rolsuper, shobj_description(oid, 'pg_authid') IS NOT NULL AS commented
FROM pg_roles WHERE rolname LIKE 'sea\_mq\_%' ORDER BY 1;
-- A schema that somebody made beforehand is not taken over.
DROP EXTENSION sea_mq;
CREATE SCHEMA sea_mq;
\set VERBOSITY sqlstate
CREATE EXTENSION sea_mq;
\set VERBOSITY default
\c sea_mq_regress
DROP DATABASE sea_mq_regress_other;
