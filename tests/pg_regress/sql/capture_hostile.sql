-- Capture in the hands of those who mean harm, or write nonsense: a condition runs as the owner of its table and as nobody else,
-- and no text ends the server. There is no broker.
CREATE ROLE hostile_owner;
CREATE ROLE hostile_writer;
CREATE ROLE hostile_reader;
GRANT sea_mq_operator TO hostile_owner;
GRANT sea_mq_producer TO hostile_reader;
CREATE SCHEMA hostile AUTHORIZATION hostile_owner;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
CREATE FUNCTION refusal(sql text, OUT code text, OUT has_hint boolean, OUT message text) LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE sql;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    has_hint := hint <> '';
END $$;
SET sea_mq.context = 'hostile';

-- Who runs what. The function is SECURITY INVOKER, so current_user is whom its caller acts as.
SET ROLE hostile_owner;
CREATE TABLE hostile.seen (place text, who name);
GRANT SELECT, INSERT ON hostile.seen TO PUBLIC;
CREATE FUNCTION hostile.note(place text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO hostile.seen VALUES (place, current_user);
    RETURN true;
END $$;
CREATE FUNCTION hostile.folded(n int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN hostile.note('folded'); END $$;
CREATE DOMAIN hostile.d AS int CHECK (hostile.note('domain'));
CREATE TYPE hostile.pair AS (a hostile.d);
CREATE FUNCTION hostile.diff(a hostile.d, b hostile.d) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 1; END $$;
CREATE TYPE hostile.span AS RANGE (subtype = hostile.d, subtype_opclass = int4_ops, subtype_diff = hostile.diff);
CREATE TYPE hostile.mood AS ENUM ('sad');
CREATE FUNCTION hostile.as_json(hostile.mood) RETURNS json LANGUAGE plpgsql AS
    $$ BEGIN PERFORM hostile.note('cast'); RETURN '"cast"'::json; END $$;
CREATE CAST (hostile.mood AS json) WITH FUNCTION hostile.as_json(hostile.mood);
CREATE TABLE hostile.t (id int PRIMARY KEY, mood hostile.mood DEFAULT 'sad', part hostile.pair);
GRANT SELECT, INSERT, UPDATE, DELETE ON hostile.t TO hostile_writer;
SELECT sea_mq.capture_table('hostile.t', 't', "when" => $$cardinality('{1}'::hostile.d[]) = 1 AND ('(1)'::hostile.pair).a = 1
    AND '[1,2]'::hostile.span IS NOT NULL AND hostile.folded(1) AND hostile.note('evaluated') AND new.id > 0$$);
SELECT "table", captured_by, active FROM sea_mq.captured_tables;
SELECT place, who FROM hostile.seen GROUP BY 1, 2 ORDER BY 1, 2;
RESET ROLE;
-- Others alter the table, other types, and write.
TRUNCATE hostile.seen;
ALTER TABLE hostile.t ADD COLUMN by_superuser int;
SET client_min_messages = warning;
ALTER TYPE hostile.mood ADD VALUE 'glad';
-- (What the condition says of this type would be nonsense afterwards.)
ALTER TYPE hostile.pair ADD ATTRIBUTE b int;
RESET client_min_messages;
SELECT place, who FROM hostile.seen GROUP BY 1, 2 ORDER BY 1, 2;
TRUNCATE hostile.seen;
SELECT sea_mq.capture_table('hostile.t', 't', "when" => (SELECT "when" FROM sea_mq.captures WHERE "table" = 'hostile.t'::regclass));
SELECT place, who FROM hostile.seen GROUP BY 1, 2 ORDER BY 1, 2;
TRUNCATE hostile.seen;
INSERT INTO hostile.t (id) VALUES (1), (2);
UPDATE hostile.t SET by_superuser = 1;
SET ROLE hostile_writer;
INSERT INTO hostile.t (id) VALUES (3);
DELETE FROM hostile.t;
RESET ROLE;
SELECT place, who FROM hostile.seen GROUP BY 1, 2 ORDER BY 1, 2;
SELECT current_user = session_user AS is_itself;
-- As the table's new owner, from then on.
ALTER TABLE hostile.t OWNER TO hostile_writer;
TRUNCATE hostile.seen;
GRANT INSERT ON hostile.t TO hostile_owner;
SET ROLE hostile_owner;
INSERT INTO hostile.t (id) VALUES (4);
RESET ROLE;
SELECT place, who FROM hostile.seen GROUP BY 1, 2 ORDER BY 1, 2;
ALTER TABLE hostile.t OWNER TO hostile_owner;
GRANT INSERT, DELETE ON hostile.t TO hostile_writer;
-- An error of the condition is the statement's, and the writer is itself afterwards.
SET ROLE hostile_owner;
SELECT sea_mq.capture_table('hostile.t', 't', "when" => '1 / new.id > 0');
SET ROLE hostile_writer;
SELECT * FROM refusal('INSERT INTO hostile.t (id) VALUES (0)');
SELECT current_user;
INSERT INTO hostile.t (id) VALUES (1);
SELECT current_user, current_setting('search_path');
-- A condition cannot become somebody else, nor leave anything behind.
SET ROLE hostile_owner;
CREATE FUNCTION hostile.escape() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('search_path', 'hostile', false), set_config('work_mem', '77MB', false);
    SET ROLE postgres;
    RETURN true;
END $$;
CREATE FUNCTION hostile.setting() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('search_path', 'hostile', false), set_config('work_mem', '77MB', false);
    RETURN true;
END $$;
SELECT sea_mq.capture_table('hostile.t', 't', "when" => 'hostile.escape()');
SET ROLE hostile_writer;
SELECT * FROM refusal('INSERT INTO hostile.t (id) VALUES (11)');
SET ROLE hostile_owner;
SELECT sea_mq.capture_table('hostile.t', 't', "when" => 'hostile.setting()');
SET ROLE hostile_writer;
INSERT INTO hostile.t (id) VALUES (12);
SELECT current_user, current_setting('search_path'), current_setting('work_mem') <> '77MB' AS work_mem_is_ours;
RESET ROLE;

-- What runs as a superuser is a superuser's; and what is temporary is another thing in another session.
CREATE TABLE supers (id int PRIMARY KEY);
SET ROLE hostile_owner;
CREATE FUNCTION hostile.yes() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION hostile.eq(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR hostile.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.eq);
RESET ROLE;
CREATE FUNCTION pg_temp.temporary() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE TYPE pg_temp.temporary AS ENUM ('a');
SELECT condition, r.* FROM unnest(ARRAY['hostile.yes()', $$cardinality('{1}'::hostile.d[]) = 1$$, $$'a' = 'a'::temporary$$, 'pg_temp.temporary()',
    'new.id OPERATOR(hostile.===) 1']) condition,
    refusal(format('SELECT sea_mq.capture_table(''supers'', "when" => %L)', condition)) r;
CREATE FUNCTION public.of_superuser() RETURNS boolean LANGUAGE sql AS 'SELECT true';
SELECT sea_mq.capture_table('supers', "when" => 'public.of_superuser()');
INSERT INTO supers VALUES (1);
ALTER FUNCTION public.of_superuser() OWNER TO hostile_owner;
SELECT * FROM refusal('INSERT INTO supers VALUES (2)');
SELECT sea_mq.stop_capture('supers');
DROP FUNCTION public.of_superuser;
DROP TABLE supers;

-- Nobody but the owner, and nothing but the functions.
SET ROLE hostile_owner;
SELECT command, r.code FROM unnest(ARRAY[
    $$INSERT INTO sea_mq.captures SELECT * FROM sea_mq.captures$$,
    $$UPDATE sea_mq.captures SET "when" = 'true'$$,
    $$DELETE FROM sea_mq.captures$$,
    $$TRUNCATE sea_mq.captures$$,
    $$LOCK TABLE sea_mq.captures$$,
    $$LOCK TABLE sea_mq.captures IN ROW SHARE MODE$$,
    $$SELECT FROM sea_mq.captures FOR UPDATE$$,
    $$SELECT sea_mq.make_capture_trigger('hostile.t'::regclass, 'sea_mq_capture_insert')$$,
    $$SELECT sea_mq.remove_capture_trigger('hostile.t'::regclass, 'sea_mq_capture_insert')$$,
    $$SELECT sea_mq.lock_captured('hostile.t'::regclass)$$,
    $$SELECT sea_mq.install_capture('{}')$$,
    $$SELECT sea_mq.follow_table('hostile.t'::regclass)$$,
    $$SELECT sea_mq.capture_changed('hostile.t'::regclass)$$,
    $$SELECT sea_mq.json_schema(0, true)$$,
    $$SELECT sea_mq.capture_condition('pg_class', '*')$$,
    $$SELECT sea_mq.capture_table('pg_class', key => 'oid')$$,
    $$SELECT sea_mq.stop_capture('pg_class')$$,
    $$SELECT sea_mq.begin_capture('hostile.seen', 'x', 'who', NULL, NULL, '*', 'hostile', NULL)$$,
    $$SELECT sea_mq.capture_condition('hostile.t', 'true', captured => 'pg_class')$$]) command, refusal(command) r;
RESET ROLE;
SELECT * FROM refusal($$SELECT sea_mq.make_capture_trigger('hostile.t'::regclass, 'sea_mq_capture_insert')$$);
SELECT * FROM refusal($$SELECT sea_mq.json_schema(0, true)$$);

-- The table's owner needs no right on sea_mq: what is made on its table is made by those who may.
REVOKE sea_mq_operator FROM hostile_owner;
GRANT hostile_owner TO hostile_writer;
GRANT sea_mq_operator TO hostile_writer;
SET ROLE hostile_owner;
CREATE TABLE hostile.days (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
SET ROLE hostile_writer;
SELECT sea_mq.capture_table('hostile.days', 'day');
SET ROLE hostile_owner;
CREATE TABLE hostile.days_1 PARTITION OF hostile.days FOR VALUES IN (1);
CREATE TABLE hostile.days_2 PARTITION OF hostile.days FOR VALUES IN (2);
RESET ROLE;
SELECT t.tgrelid::regclass, count(*), bool_and(obj_description(t.oid, 'pg_trigger') = 'Made by sea_mq.capture_table') AS described,
    bool_and(EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'x')) AS depends
FROM pg_trigger t WHERE t.tgfoid = 'sea_mq.capture'::regproc AND t.tgrelid::regclass::text LIKE 'hostile.days%' GROUP BY 1 ORDER BY t.tgrelid::regclass::text;
-- DETACH PARTITION CONCURRENTLY has begun: neither an event nor an error.
UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'hostile.days_1'::regclass;
SELECT sea_mq.capture_changed('hostile.days'), sea_mq.capture_changed('hostile.days_1');
BEGIN;
INSERT INTO hostile.days_1 VALUES (1, 1);
INSERT INTO hostile.days_2 VALUES (1, 2);
TRUNCATE hostile.days_1;
SELECT event_type, aggregate_id FROM sea_mq.pending_events();
ROLLBACK;
UPDATE pg_inherits SET inhdetachpending = false WHERE inhrelid = 'hostile.days_1'::regclass;
SELECT sea_mq.capture_changed('hostile.days'), sea_mq.capture_changed('hostile.days_1');
ALTER TABLE hostile.days DETACH PARTITION hostile.days_1;
SELECT t.tgrelid::regclass, count(*) FROM pg_trigger t
WHERE t.tgfoid = 'sea_mq.capture'::regproc AND t.tgrelid::regclass::text LIKE 'hostile.days%' GROUP BY 1 ORDER BY t.tgrelid::regclass::text;

-- A change of a type concerns those who have it, however deep; what is wrong with others stops nobody.
CREATE TYPE hostile.used AS ENUM ('a');
CREATE TYPE hostile.inner_type AS (used hostile.used);
CREATE DOMAIN hostile.middle AS hostile.inner_type[];
CREATE TYPE hostile.outer_type AS (middle hostile.middle);
CREATE TYPE hostile.unused AS ENUM ('a');
CREATE TABLE has_it (id int PRIMARY KEY, deep hostile.outer_type[]);
CREATE TABLE has_not (id int PRIMARY KEY);
CREATE FUNCTION public.soon_gone() RETURNS boolean LANGUAGE sql AS 'SELECT true';
SELECT sea_mq.capture_table('has_it'), sea_mq.capture_table('has_not', "when" => 'public.soon_gone()');
DROP FUNCTION public.soon_gone;
ALTER TYPE hostile.unused ADD VALUE 'b';
ALTER TYPE hostile.used ADD VALUE 'b';
SELECT "table", versions FROM sea_mq.captured_tables WHERE "table" IN ('has_it'::regclass, 'has_not'::regclass) ORDER BY "table"::text;
CREATE TABLE unrelated (id int);
ALTER TABLE unrelated ADD COLUMN more int;
DROP TABLE unrelated;
SELECT * FROM refusal('ALTER TABLE has_not ADD COLUMN more int');
SELECT sea_mq.stop_capture('has_it'), sea_mq.stop_capture('has_not');
DROP TABLE has_it, has_not;
-- However many captures there are, what does not concern them reads none but by its key (and one, to see that there are any).
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO sea_mq.captures ("table", context, aggregate_type, key, events, known, captured_by)
SELECT 100000000 + n, 'hostile', 'x', '{id}', '{"insert": "x"}', '{}', 'nobody' FROM generate_series(1, 5000) n;
SET LOCAL session_replication_role = origin;
CREATE FUNCTION captures_read(command text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    before bigint := seq_tup_read FROM pg_stat_xact_all_tables WHERE relid = 'sea_mq.captures'::regclass;
BEGIN
    EXECUTE command;
    RETURN (SELECT seq_tup_read - before FROM pg_stat_xact_all_tables WHERE relid = 'sea_mq.captures'::regclass);
END $$;
SELECT command, captures_read(command) < 10 AS is_cheap FROM unnest(ARRAY['CREATE TABLE unrelated (id int)', 'ALTER TABLE unrelated ADD COLUMN more int',
    $$ALTER TYPE hostile.unused ADD VALUE 'c'$$, 'ALTER TYPE hostile.outer_type ADD ATTRIBUTE more int', 'DROP TABLE unrelated']) command;
ANALYZE sea_mq.captures;
SELECT command, captures_read(command) < 10 AS is_cheap FROM unnest(ARRAY['CREATE TABLE unrelated (id int)', 'ALTER TABLE unrelated ADD COLUMN more int',
    $$ALTER TYPE hostile.unused ADD VALUE 'd'$$, 'ALTER TYPE hostile.outer_type ADD ATTRIBUTE less int', 'DROP TABLE unrelated']) command;
ROLLBACK;
-- Types nested without end in sight.
DO $$
BEGIN
    CREATE TYPE hostile.nest_0 AS (a int);
    FOR n IN 1 .. 30 LOOP
        EXECUTE format('CREATE TYPE hostile.nest_%s AS (a hostile.nest_%s[])', n, n - 1);
    END LOOP;
END $$;
SELECT length(sea_mq.json_schema('hostile.nest_30'::regtype, true)::text) < 5000 AS is_bounded;

-- A producer sees of captured tables what it may read.
SET ROLE hostile_owner;
CREATE TABLE hostile.secrets (id int PRIMARY KEY, secret text);
GRANT INSERT, SELECT (id) ON hostile.secrets TO hostile_reader;
SET ROLE hostile_writer;
SELECT sea_mq.capture_table('hostile.secrets', 'secret');
SET ROLE hostile_reader;
BEGIN;
SELECT sea_mq.emit('a', '1', 'own', '{}') IS NOT NULL AS emitted;
INSERT INTO hostile.secrets VALUES (1, 'hidden');
SELECT event_type, payload FROM sea_mq.pending_events();
RESET ROLE;
SELECT event_type, payload FROM sea_mq.pending_events();
GRANT SELECT ON hostile.secrets TO hostile_reader;
SET ROLE hostile_reader;
SELECT event_type, payload FROM sea_mq.pending_events();
RESET ROLE;
ALTER TABLE hostile.secrets ENABLE ROW LEVEL SECURITY;
SET ROLE hostile_reader;
SELECT event_type, payload FROM sea_mq.pending_events();
ROLLBACK;
RESET ROLE;

-- Every text is a boolean expression over old and new, or an error that says so.
CREATE TABLE pids AS SELECT pg_backend_pid() AS mine, pg_postmaster_start_time() AS started;
GRANT sea_mq_operator TO hostile_owner;
SET ROLE hostile_owner;
CREATE TABLE hostile.odd (id int PRIMARY KEY, name text, yes boolean);
SELECT left(replace(condition, E'\n', ' '), 60) AS condition, r.code, r.has_hint FROM unnest(ARRAY[
    '*', ' * ', '(*)', 't.*', 'new.*', 'old.*', '(new).*', '(new.*).*', 'new.*.*', 'a.b.c.*', 'a.b.c.d.*', 'new', 'old', '(new)', 'new.new', 'public.new.*',
    '', ' ', E'\t\n', '--', '-- nothing', '/* nothing */', '/* not closed', ';', ';;', 'true;', 'true; false', '; true', '()', '(', ')', 'true) OR (true', '((true)',
    'DEFAULT', 'NULL', '1', '''true''', 'ROW()', 'ROW(1)', 'ROW(new.*)', 'ROW(*)', '(1, 2)', '(new.*, 1)', 'true, false', 'true true', 'true AS x', 'true x', 'ALL', 'DISTINCT',
    'DISTINCT true', 'DISTINCT ON (1) true', 'ALL true', 'true FROM pg_class', 'FROM pg_class', 'WHERE true', 'true WHERE true', 'true GROUP BY 1', 'true GROUP BY ()',
    'true HAVING true', 'true ORDER BY 1', 'true LIMIT 1', 'true LIMIT ALL', 'true OFFSET 0', 'true FETCH FIRST ROW ONLY', 'true FOR UPDATE', 'true WINDOW w AS ()',
    'true UNION SELECT true', 'true INTO x', 'WITH a AS (SELECT 1) SELECT true', 'VALUES (true)', 'TABLE pg_class', 'SELECT true', '(SELECT true)', '(VALUES (true))',
    'EXISTS (SELECT)', 'EXISTS (TABLE pg_class)', '1 IN (SELECT 1)', '1 = ANY (SELECT 1)', 'ARRAY(SELECT 1) = ARRAY[1]', '(SELECT new.*) IS NULL',
    'count(*) > 0', 'count(*)', 'bool_and(true)', 'sum(new.id) > 0', 'sum(new.*)', 'rank() OVER () = 1', 'count(*) OVER w > 0', 'string_agg(''a'', '','' ORDER BY 1) = ''a''',
    'percentile_cont(0.5) WITHIN GROUP (ORDER BY 1) = 1', 'count(*) FILTER (WHERE true) = 1', 'GROUPING(new.id) = 0', 'GROUPING()',
    'generate_series(1, 2) = 1', 'unnest(ARRAY[true])', 'CASE WHEN generate_series(1, 2) = 1 THEN true END', 'pg_options_to_table(''{}'') IS NULL',
    '$1', '$1 = 1', '$0', '$', '$$', '$$a$$', '$$a', '$99999999999 = 1', ':x', '?', '@', '%', '\', E'\\d', '''', '"', '"" = 1', 'E''\', 'U&''\000''', 'B''2''', 'X''g''',
    'CURRENT OF c', 'WHERE CURRENT OF c', 'current_date', 'current_user', 'current_user = ''x'' COLLATE "C"', 'new.name COLLATE nothing = ''a''', 'new.id COLLATE "C" = 1', 'COLLATE "C"',
    'new.id', 'new.nothing', 'nothing', 'nothing()', 'new.nothing()', 'new()', 'old.ctid IS NULL', 'new.tableoid = 1', 'new.xmin IS NULL', 'id', 'odd.id = 1', 'hostile.odd.id = 1',
    'new.id = old', 'new = 1', 'new[1]', 'new.id[1] = 1', 'new.yes[1:2]', '(new).nothing', '(new).id.x = 1', 'ARRAY[]', 'ARRAY[] = ARRAY[]', 'ARRAY[new.*] IS NULL', 'new.id::nothing = 1',
    'new.id::nothing.nothing.nothing = 1', 'CAST(1 AS nothing)', '''x''::int = 1', '''[''::json IS NULL', '1 / 0 = 1', '1::smallint = 99999::smallint', 'interval ''nonsense'' IS NULL',
    'XMLELEMENT(NAME a) IS NULL', 'XMLPARSE(CONTENT ''<'') IS NULL', 'new.id AT TIME ZONE ''x'' IS NULL', 'new.id BETWEEN 1', 'new.id IS OF (int)', 'new.id OPERATOR(nothing.=) 1',
    'new.id = ALL (1)', 'new.id IN ()', 'new.id IN (1, ''x'')', 'CASE END', 'CASE WHEN true THEN 1 END', 'COALESCE()', 'GREATEST()', 'NULLIF(1)', 'NOT', 'NOT NOT', 'AND', 'true AND',
    'OR true', 'variadic true', 'f(VARIADIC 1)', 'nothing(a => 1)', 'abs(x => 1, 2) = 1', 'abs(ALL 1) = 1', 'abs(DISTINCT 1) = 1', 'abs(*) = 1', 'abs(1) OVER () = 1', 'abs(1 ORDER BY 1) = 1',
    'new.id = 1 \; DROP TABLE x', 'PREPARE x AS SELECT 1', 'EXECUTE x', 'COMMIT', 'DO ''''', 'pg_sleep', 'setval', 'NEXT VALUE FOR x', 'x := 1', 'x = 1 := true', '1..2', '1e999 > 0', '1e99999999 > 0',
    '0 x', '1 __0', 'é', 'new.é', E'\u00a0', E'\U00010300', E'\u0001', 'new.id =' || E'\u2028' || '1',
    repeat('(', 20000), repeat('(', 5000) || 'true' || repeat(')', 5000), repeat('(', 200000) || 'true' || repeat(')', 200000),
    repeat('NOT ', 100000) || 'true', repeat('- ', 100000) || '1 = 1', repeat('1 + ', 100000) || '1 = 1', repeat('true AND ', 20000) || '1', repeat('CASE WHEN ', 20000),
    repeat('ARRAY[', 9000) || repeat(']', 9000), repeat('ROW(', 9000) || repeat(')', 9000), 'new' || repeat('.a', 5000), 'new.id' || repeat('::int', 100000) || ' = 1',
    repeat('abs(', 9000) || '1' || repeat(')', 9000) || ' = 1', repeat('x', 1000000), '''' || repeat('x', 1000000) || '''', repeat('/*', 2000), repeat('*', 1000), repeat('new.*,', 1000),
    'new.yes AND (' || repeat('new.id, ', 2000) || '1) IS NULL'
    ]) condition, refusal(format('SELECT sea_mq.capture_table(''hostile.odd'', ''odd'', "when" => %L)', condition)) r
WHERE r.code IS NULL OR NOT r.has_hint OR condition ~ '^.{0,12}$';
-- What the majors refuse for different reasons, or psql shows in different widths.
SELECT n, r.code IN ('22023', '42601', '42703', '42803', '42883') AS refused, r.has_hint
FROM unnest(ARRAY['0x', '1__0', E'\U0001F600', 'max(new.*)']) WITH ORDINALITY c(condition, n),
    refusal(format('SELECT sea_mq.capture_table(''hostile.odd'', ''odd'', "when" => %L)', condition)) r;
-- One error after the other, all caught by the same block: none leaves anything behind that the next one would meet.
CREATE DOMAIN pg_temp.flag AS boolean;
DO $$
DECLARE
    condition text;
    codes text := '';
    code text;
BEGIN
    FOREACH condition IN ARRAY ARRAY['true::pg_temp.flag', repeat('1 + ', 100000) || '1 = 1', 'nothing', 'ROW(1::pg_temp.flag)', repeat('- ', 50000) || 'nothing = 1',
        'new.id' || repeat('::int', 100000) || ' = 1', 'true AND 1', 'CASE WHEN true THEN (SELECT true) END', '1 / 0 = 1', '''x''::int = 1', '*'] LOOP
        FOR n IN 1 .. 3 LOOP
            code := 'none';
            BEGIN
                PERFORM sea_mq.capture_condition('hostile.odd', condition);
            EXCEPTION WHEN OTHERS OR QUERY_CANCELED THEN
                code := SQLSTATE;
            END;
            codes := codes || code || ' ';
        END LOOP;
    END LOOP;
    RAISE NOTICE '%', codes;
END $$;
DROP DOMAIN pg_temp.flag;
-- Random pieces of expressions, put together without sense.
SELECT setseed(0.42);
SELECT count(*) AS texts, count(*) FILTER (WHERE code IS NOT NULL) > 0 AS some_refused, count(*) FILTER (WHERE code LIKE 'XX%') AS internal_errors
FROM (SELECT n, (SELECT string_agg((ARRAY['*', 'new', 'old', '.', '.*', '(', ')', ',', 'new.id', 'old.yes', '=', 'AND', 'OR', 'NOT', 'IS NULL', '1', '''a''', 'NULL', 'true', '::',
        'int', 'boolean', 'ROW', '[', ']', 'ARRAY', 'CASE', 'WHEN', 'THEN', 'ELSE', 'END', 'IN', 'ANY', 'SELECT', 'FROM', 'DEFAULT', '$1', 'COLLATE "C"', 'count', 'f', '-', '||',
        'BETWEEN', 'DISTINCT', 'new.*', 'old.*', 'GROUPING', 'OVER', 'INTERVAL', 'x', ';', '--', '/*', '*/'])[1 + floor(random() * 54 + 0 * m + 0 * n)::int], ' ')
    FROM generate_series(1, 1 + n % 9) m) AS condition FROM generate_series(1, 1000) n) texts,
    LATERAL refusal(format('SELECT sea_mq.capture_condition(''hostile.odd'', %L)', condition)) r;
RESET ROLE;
SELECT * FROM refusal($$SELECT sea_mq.capture_condition('pg_class', '*')$$);
SELECT mine = pg_backend_pid() AS same_backend, started = pg_postmaster_start_time() AS same_server FROM pids;
SELECT count(*) FROM sea_mq.captured_tables WHERE "table" = 'hostile.odd'::regclass;

RESET sea_mq.context;
DROP TABLE pids;
SET client_min_messages = warning;
DROP SCHEMA hostile CASCADE;
RESET client_min_messages;
DROP FUNCTION refusal;
SELECT count(*) FROM sea_mq.captured_tables;
DROP OWNED BY hostile_owner, hostile_writer, hostile_reader;
DROP ROLE hostile_owner, hostile_writer, hostile_reader;
DELETE FROM sea_mq.event_types WHERE context = 'hostile';
