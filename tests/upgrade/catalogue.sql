-- All that the extension is, a line each, the same whether it was installed or upgraded: objects with their owners, rights, comments
-- and definitions, columns by name, constraints, and which tables are dumped.
SET search_path = pg_catalog;
WITH member AS (
    SELECT d.classid, d.objid FROM pg_depend d, pg_extension e
    WHERE e.extname = 'sea_mq' AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'),
relation AS (SELECT c.* FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid),
line AS (
    SELECT 'member ' || pg_describe_object(m.classid, m.objid, 0) || ': ' || coalesce(obj_description(m.objid, c.relname), '') AS line
    FROM member m JOIN pg_class c ON c.oid = m.classid
    UNION ALL SELECT format('function %s owner %s rights %s %s', p.oid::regprocedure, p.proowner::regrole, sorted.acl, pg_get_functiondef(p.oid))
    FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
    CROSS JOIN LATERAL (SELECT array_agg(a::text ORDER BY a::text) AS acl FROM unnest(p.proacl) a) sorted WHERE p.prokind <> 'a'
    UNION ALL SELECT format('relation %s kind %s persistence %s owner %s options %s rights %s', r.oid::regclass, r.relkind, r.relpersistence, r.relowner::regrole, r.reloptions, sorted.acl)
    FROM relation r CROSS JOIN LATERAL (SELECT array_agg(a::text ORDER BY a::text) AS acl FROM unnest(r.relacl) a) sorted
    UNION ALL SELECT format('view %s %s', r.oid::regclass, pg_get_viewdef(r.oid)) FROM relation r WHERE r.relkind = 'v'
    UNION ALL SELECT format('column %s.%s %s null %s default %s storage %s rights %s: %s', r.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid), a.attstorage, a.attacl, col_description(r.oid, a.attnum))
    FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
    UNION ALL SELECT format('constraint on %s %s %s', r.oid::regclass, c.conname, pg_get_constraintdef(c.oid)) FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid
    UNION ALL SELECT 'index ' || pg_get_indexdef(x.indexrelid) FROM relation r JOIN pg_index x ON x.indrelid = r.oid
    UNION ALL SELECT format('trigger %s %s %s', t.tgname, t.tgenabled, pg_get_triggerdef(t.oid)) FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal
    UNION ALL SELECT format('event trigger %s %s %s %s', t.evtname, t.evtevent, t.evtfoid::regproc, t.evtenabled) FROM pg_event_trigger t
    UNION ALL SELECT format('schema %s owner %s rights %s', n.nspname, n.nspowner::regrole, n.nspacl) FROM pg_namespace n WHERE n.nspname IN ('sea_mq', 'sea_mq_inside')
    UNION ALL SELECT format('dumped %s where %s', t.relation::regclass, t.condition)
    FROM pg_extension e CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) t(relation, condition) WHERE e.extname = 'sea_mq')
SELECT line FROM line ORDER BY line COLLATE "C";
