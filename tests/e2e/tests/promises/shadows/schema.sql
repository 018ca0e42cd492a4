-- The schema `mine`: what pg_catalog has, once more, under the same names. Each thing does what its original does, and first calls
-- mine.own, which tells the server's log when it runs as anybody but the session's own user. Made by an ordinary role that
-- owns the database; generated from the catalogs, so that no name is forgotten.
SET check_function_bodies = off;
SET client_min_messages = warning;
CREATE SCHEMA mine;
GRANT USAGE ON SCHEMA mine TO PUBLIC;

-- With rights of its own it could do anything by now; here it says so.
CREATE FUNCTION mine.own(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF current_user <> session_user OR current_user NOT LIKE 'hostile\_%' THEN
        RAISE LOG 'SHADOW % ran as % in a session of %', what, current_user, session_user;
    ELSIF current_setting('mine.tell', true) = 'on' THEN
        RAISE LOG 'SHADOW % ran as itself, %', what, current_user;
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION mine.attempt(command pg_catalog.text) RETURNS pg_catalog.void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE command;
EXCEPTION WHEN OTHERS THEN
    NULL;
END $$;

-- The types that polymorphic functions and operators are made for.
CREATE TABLE mine.elements AS
SELECT pg_catalog.unnest('{text,varchar,name,int4,int8,oid,bool,uuid,jsonb,timestamptz,interval,xid8}'::pg_catalog.text[]) AS element;

DO $make$
DECLARE
    r record;
BEGIN
    -- Functions, those with concrete types as they are and the polymorphic ones for each of the types above.
    FOR r IN
        WITH functions AS (
            SELECT p.oid, p.proname, p.proretset, p.prorettype, p.proargtypes::oid[] AS types FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0
        ), concrete AS (
            SELECT f.oid, f.proname, f.proretset, format_type(f.prorettype, NULL) AS result,
                ARRAY(SELECT format_type(t, NULL) FROM unnest(f.types) WITH ORDINALITY u(t, n) ORDER BY n) AS types
            FROM functions f
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = ANY (f.types || f.prorettype) AND t.typtype = 'p' AND t.typname <> 'void')
        ), polymorphic AS (
            SELECT f.oid, f.proname, f.proretset,
                CASE f.prorettype::regtype::text WHEN 'anyelement' THEN e.element WHEN 'anyarray' THEN e.element || '[]'
                    ELSE format_type(f.prorettype, NULL) END AS result,
                ARRAY(SELECT CASE WHEN t::regtype::text IN ('anyarray', 'anycompatiblearray') THEN e.element || '[]'
                        WHEN t::regtype::text ~ '^"?any' THEN e.element ELSE format_type(t, NULL) END
                    FROM unnest(f.types) WITH ORDINALITY u(t, n) ORDER BY n) AS types
            FROM functions f, mine.elements e
            WHERE EXISTS (SELECT FROM unnest(f.types) t WHERE t::regtype::text IN ('anyelement', 'anyarray', '"any"', 'anycompatible', 'anycompatiblearray'))
        )
        SELECT c.*, array_length(c.types, 1) AS arguments FROM (TABLE concrete UNION ALL TABLE polymorphic) c
        WHERE c.proname NOT IN ('current_user', 'session_user')
    LOOP
        PERFORM mine.attempt(format('CREATE FUNCTION mine.%I(%s) RETURNS %s%s LANGUAGE sql AS %L', r.proname, array_to_string(r.types, ', '),
            CASE WHEN r.proretset THEN 'SETOF ' END, r.result,
            format('SELECT mine.own(%L); SELECT %s pg_catalog.%I(%s)', 'function ' || r.proname, CASE WHEN r.proretset THEN '* FROM' END, r.proname,
                (SELECT string_agg('$' || n, ', ') FROM generate_series(1, r.arguments) n))));
    END LOOP;

    -- Operators, and closer matches than the original for types that borrow those of another one.
    FOR r IN
        WITH operators AS (
            SELECT o.oprname, format_type(nullif(o.oprleft, 0), NULL) AS l, format_type(o.oprright, NULL) AS r, format_type(o.oprresult, NULL) AS result
            FROM pg_catalog.pg_operator o
            WHERE o.oprnamespace = 'pg_catalog'::regnamespace
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid IN (o.oprleft, o.oprright, o.oprresult) AND t.typtype = 'p')
        ), borrowed AS (
            SELECT o.oprname, t.l, t.r, CASE o.result WHEN 'text' THEN 'text' ELSE o.result END AS result FROM operators o,
                (VALUES ('text', 'varchar', 'varchar'), ('text', 'text', 'varchar'), ('text', 'varchar', 'text'), ('text', 'name', 'varchar'),
                    ('oid', 'regclass', 'oid'), ('oid', 'oid', 'regclass'), ('oid', 'regclass', 'regclass'), ('oid', 'regproc', 'oid'),
                    ('oid', 'regtype', 'oid'), ('oid', 'regtype', 'regtype'), ('oid', 'regrole', 'oid'), ('oid', 'oid', 'regrole')) t(of, l, r)
            WHERE o.l = t.of AND o.r = t.of
        ), arrays AS (
            SELECT o.name, CASE WHEN o.name <> '||' OR NOT o.left_is_element THEN e.element || '[]' ELSE e.element END,
                e.element || '[]', CASE o.name WHEN '||' THEN e.element || '[]' ELSE 'bool' END
            FROM mine.elements e, (VALUES ('=', false), ('<>', false), ('<', false), ('>', false), ('@>', false), ('<@', false), ('&&', false),
                ('||', false), ('||', true)) o(name, left_is_element)
        )
        SELECT *, row_number() OVER () AS number FROM (TABLE operators UNION ALL TABLE borrowed UNION ALL TABLE arrays) o
    LOOP
        PERFORM mine.attempt(format('CREATE FUNCTION mine.operator_%s(%s) RETURNS %s LANGUAGE sql AS %L; CREATE OPERATOR mine.%s (%s RIGHTARG = %s, FUNCTION = mine.operator_%1$s)',
            r.number, concat_ws(', ', r.l, r.r), r.result,
            format('SELECT mine.own(%L); SELECT %s OPERATOR(pg_catalog.%s) %s', format('operator %s(%s,%s)', r.oprname, r.l, r.r),
                CASE WHEN r.l IS NOT NULL THEN '$1' END, r.oprname, CASE WHEN r.l IS NOT NULL THEN '$2' ELSE '$1' END),
            r.oprname, 'LEFTARG = ' || r.l || ',', r.r));
    END LOOP;

    -- Aggregates.
    FOR r IN
        SELECT a.name, e.element, CASE a.name WHEN 'max' THEN 'GREATEST' ELSE 'LEAST' END AS keeps
        FROM mine.elements e, (VALUES ('max'), ('min')) a(name)
    LOOP
        PERFORM mine.attempt(format('CREATE FUNCTION mine.%s_step(%s, %2$s) RETURNS %2$s LANGUAGE sql AS %L; CREATE AGGREGATE mine.%1$s(%2$s) (SFUNC = mine.%1$s_step, STYPE = %2$s)',
            r.name, r.element, format('SELECT mine.own(%L); SELECT %s($1, $2)', 'aggregate ' || r.name, r.keeps)));
    END LOOP;
    PERFORM mine.attempt($$CREATE FUNCTION mine.count_step(int8) RETURNS int8 LANGUAGE sql AS 'SELECT mine.own(''aggregate count''); SELECT $1 OPERATOR(pg_catalog.+) 1';
        CREATE AGGREGATE mine.count(*) (SFUNC = mine.count_step, STYPE = int8, INITCOND = '0')$$);

    -- Relations.
    FOR r IN SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v') LOOP
        PERFORM mine.attempt(format('CREATE VIEW mine.%I AS SELECT * FROM pg_catalog.%1$I WHERE mine.own(%L); GRANT SELECT ON mine.%1$I TO PUBLIC',
            r.relname, 'relation ' || r.relname));
    END LOOP;
END $make$;

-- Types last: from here on their names mean these. Those of a session (pg_temp) are made in the same way.
CREATE FUNCTION mine.make_types(place pg_catalog.text) RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT t.typname FROM pg_catalog.pg_type t
        WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm') AND t.typname NOT LIKE '\_%'
    LOOP
        PERFORM mine.attempt(format('CREATE DOMAIN %I.%I AS pg_catalog.%2$I CHECK (mine.own(%L))', place, r.typname, 'type ' || place || '.' || r.typname));
    END LOOP;
END $$;
SELECT mine.make_types('mine');
RESET client_min_messages;
RESET check_function_bodies;
