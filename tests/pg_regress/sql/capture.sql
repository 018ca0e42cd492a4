-- Capture: what becomes of changes. There is no broker: what is shown is what the transaction will send.
SET sea_mq.context = 'kiosk';
SET client_min_messages = warning;
-- What was captured since the last look. Payloads are shown as they are sent.
CREATE FUNCTION pending(OUT event text, OUT aggregate_id text, OUT payload text) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT split_part(subject, '.event.', 2), aggregate_id, payload::text FROM sea_mq.pending_events()
$$;
RESET client_min_messages;

CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL DEFAULT 'new', total numeric(10, 2), note text);
SELECT sea_mq.capture_table('orders', 'order');
SELECT "table", context, aggregate_type, key, events, versions, columns, "when", visibility, active FROM sea_mq.captured_tables;
SELECT subject, visibility, description, schema FROM sea_mq.event_types WHERE context = 'kiosk' ORDER BY subject;

-- Each statement, each kind of change.
BEGIN;
INSERT INTO orders (id, total) VALUES (1, 10.50), (2, NULL);
UPDATE orders SET status = 'paid' WHERE id = 1;
UPDATE orders SET status = status;
UPDATE orders SET id = 3, note = 'moved' WHERE id = 2;
DELETE FROM orders WHERE id = 3;
DELETE FROM orders WHERE id = 99;
SELECT * FROM pending();
SELECT DISTINCT context, aggregate_type FROM sea_mq.pending_events();
TRUNCATE orders;
SELECT * FROM pending() OFFSET 5;
ROLLBACK;

-- A savepoint that is rolled back takes its events with it.
BEGIN;
INSERT INTO orders VALUES (1);
SAVEPOINT a;
INSERT INTO orders VALUES (2);
TRUNCATE orders;
ROLLBACK TO a;
TRUNCATE orders;
SELECT * FROM pending();
ROLLBACK;

-- Statements that change rows in more than one way.
-- PostgreSQL 14 has no MERGE.
SELECT current_setting('server_version_num')::int >= 150000 AS has_merge \gset
BEGIN;
INSERT INTO orders VALUES (1), (2);
INSERT INTO orders VALUES (2, 'again'), (3, 'fresh') ON CONFLICT (id) DO UPDATE SET status = excluded.status;
INSERT INTO orders VALUES (3) ON CONFLICT DO NOTHING;
\if :has_merge
MERGE INTO orders o USING (VALUES (1, 'merged'), (2, 'gone'), (4, 'merged in')) s (id, status) ON o.id = s.id
WHEN MATCHED AND s.status = 'gone' THEN DELETE
WHEN MATCHED THEN UPDATE SET status = s.status
WHEN NOT MATCHED THEN INSERT (id, status) VALUES (s.id, s.status);
\else
-- The same changes, in the same order.
DELETE FROM orders WHERE id = 2;
UPDATE orders SET status = 'merged' WHERE id = 1;
INSERT INTO orders (id, status) VALUES (4, 'merged in');
\endif
WITH gone AS (DELETE FROM orders WHERE id = 3 RETURNING *), more AS (INSERT INTO orders SELECT id + 10, 'from ' || id FROM gone RETURNING *)
UPDATE orders SET note = (SELECT max(status) FROM more) WHERE id = 4;
COPY orders (id, status) FROM stdin;
20	copied
21	copied
\.
SELECT * FROM pending();
ROLLBACK;

-- Keys that reference, and are changed by, others.
CREATE TABLE order_lines (
    order_id int REFERENCES orders ON UPDATE CASCADE ON DELETE CASCADE, line int, product text, PRIMARY KEY (order_id, line));
SELECT sea_mq.capture_table('order_lines', 'order_line');
BEGIN;
INSERT INTO orders VALUES (1);
INSERT INTO order_lines VALUES (1, 1, 'tea'), (1, 2, 'milk');
UPDATE orders SET id = 5;
DELETE FROM orders;
SELECT * FROM pending();
ROLLBACK;

-- Every type reads as to_json writes it, whatever the session's settings.
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, "B b" timestamptz);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE kinds (
    id uuid PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, t text, v varchar(10), c char(4), by bytea, d date, ts timestamp,
    tz timestamptz, iv interval, j json, jb jsonb, m mood, p pair, dom positive, a int[], ta text[], tza timestamptz[], r daterange, ip inet,
    o oid, twice int GENERATED ALWAYS AS (i2 * 2) STORED, serial int GENERATED ALWAYS AS IDENTITY);
SELECT sea_mq.capture_table('kinds');
SELECT key, value FROM sea_mq.event_types, jsonb_each(schema -> 'properties' -> 'row' -> 'properties')
WHERE event_type = 'kinds_created' ORDER BY length(key), key;
BEGIN;
SET LOCAL TimeZone = 'Asia/Kathmandu';
SET LOCAL DateStyle = 'German';
SET LOCAL IntervalStyle = 'sql_standard';
SET LOCAL extra_float_digits = -10;
SET LOCAL bytea_output = 'escape';
INSERT INTO kinds VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', true, -7, 9007199254740993, 0.1, 1e100, 12345678901234567890.1200, E'tab\t"q" \\ ü\u0001', 'v', 'c',
    '\x00ff', '2024-02-29', '2024-02-29 23:59:59.5', '2024-02-29 23:59:59.5+02', '1 day 02:03', '{"a" : 1, "a":2}', '{"b": [1, null]}', 'ok',
    (1, '2024-01-01 00:00+00'), 5, '{1,NULL,3}', '{"x,y","\""}', '{2024-01-01 00:00+00}', '[2024-01-01,2024-02-01)', '10.0.0.1/8', 42);
INSERT INTO kinds (id, f4, f8, n, d, ts, tz, j) VALUES ('00000000-0000-0000-0000-000000000000', 'NaN', '-Infinity', 'Infinity', 'infinity', '-infinity',
    '2024-01-01 BC', '"\u0000"');
SHOW TimeZone;
SELECT jsonb_pretty(payload -> 'row') FROM sea_mq.pending_events();
SELECT v.* FROM sea_mq.pending_events() e, sea_mq.contract_violations('kiosk', 'kinds_created', 1, e.payload) v;
-- What reads the same is no change.
UPDATE kinds SET a = '[0:2]={1,NULL,3}', n = 12345678901234567890.12 WHERE i2 = -7;
UPDATE kinds SET a = '[1:3]={1,NULL,3}' WHERE i2 = -7;
SELECT event, payload::jsonb -> 'old' AS old FROM pending() OFFSET 2;
ROLLBACK;

-- What does not fit in memory: toasted values, changed and unchanged.
BEGIN;
INSERT INTO orders (id, note) SELECT 1, string_agg(md5(n::text), '') FROM generate_series(1, 1000) n;
UPDATE orders SET status = 'big';
UPDATE orders SET note = note || '!';
SELECT event, length(payload), (SELECT jsonb_object_agg(key, length(value)) FROM jsonb_each_text(payload::jsonb -> 'old')) AS old FROM pending();
ROLLBACK;

-- Keys that need quotes, have several columns or are NULL; names that need quotes.
CREATE TABLE "Odd Table" ("Tenant" text, "no," text, "say ""hi""" int, v int);
SELECT sea_mq.capture_table('"Odd Table"', key => '"Tenant", "no,"');
SELECT key, events, versions FROM sea_mq.captured_tables WHERE "table" = '"Odd Table"'::regclass;
BEGIN;
INSERT INTO "Odd Table" VALUES ('a,b', 'c', 1), ('a', 'b,c', 2), (E'back\\slash', '', 3), (NULL, E' line\nbreak ', 4), (repeat('long', 400), 'x', 5),
    (repeat('long', 400), 'y', 6);
SELECT event, CASE WHEN length(aggregate_id) > 100 THEN length(aggregate_id) || ' ' || right(aggregate_id, 18) ELSE aggregate_id END AS aggregate_id,
    payload::jsonb -> 'row' -> 'say "hi"' AS row FROM pending();
ROLLBACK;
CREATE TABLE padded (code char(5) PRIMARY KEY);
SELECT sea_mq.capture_table('padded');
BEGIN;
INSERT INTO padded VALUES ('ab');
SELECT * FROM pending();
ROLLBACK;

-- Columns: what is sent, and what counts as a change.
SELECT sea_mq.capture_table('orders', 'order', columns => '{status,total}', events => '{"insert": "OrderPlaced", "update": "OrderChanged", "delete": null}');
SELECT events, versions, columns FROM sea_mq.captured_tables WHERE "table" = 'orders'::regclass;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal ORDER BY 1;
BEGIN;
INSERT INTO orders VALUES (1);
UPDATE orders SET note = 'not sent';
UPDATE orders SET total = 7, note = 'not sent';
UPDATE orders SET id = 2;
DELETE FROM orders;
SELECT * FROM pending();
ROLLBACK;

-- Conditions.
CREATE FUNCTION matters(total numeric) RETURNS boolean LANGUAGE sql AS 'SELECT total > 100';
SELECT sea_mq.capture_table('orders', 'order', "when" => 'matters(new.total) AND old.total IS DISTINCT FROM new.total');
SELECT "when", versions FROM sea_mq.captured_tables WHERE "table" = 'orders'::regclass;
BEGIN;
INSERT INTO orders VALUES (1, 'new', 50), (2, 'new', 500);
UPDATE orders SET status = 'paid';
UPDATE orders SET total = total * 10;
-- A writer's own search path does not change what the condition means.
CREATE SCHEMA evil;
CREATE FUNCTION evil.matters(numeric) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION evil.gt(numeric, numeric) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR evil.> (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = evil.gt);
SET LOCAL search_path = evil, pg_catalog, public;
UPDATE orders SET total = total + 1;
DELETE FROM orders;
SELECT event, aggregate_id FROM public.pending();
ROLLBACK;
SELECT sea_mq.capture_table('orders', 'order', "when" => 'old.* IS DISTINCT FROM new.* AND (new).id > 1');
BEGIN;
INSERT INTO orders VALUES (1), (2);
SELECT event, aggregate_id FROM pending();
ROLLBACK;
-- A function that is replaced is asked anew; one that is gone is an error.
SELECT sea_mq.capture_table('orders', 'order', "when" => 'matters(new.total)');
BEGIN;
INSERT INTO orders VALUES (1, 'new', 500);
CREATE OR REPLACE FUNCTION matters(total numeric) RETURNS boolean LANGUAGE sql AS 'SELECT false';
INSERT INTO orders VALUES (2, 'new', 500);
SELECT event, aggregate_id FROM pending();
DROP FUNCTION matters;
INSERT INTO orders VALUES (3, 'new', 500);
ROLLBACK;
SELECT sea_mq.capture_table('orders', 'order');

-- Events obey sea_mq.contracts like all others.
SET sea_mq.contracts = 'enforce';
BEGIN;
INSERT INTO orders VALUES (1);
SELECT event, aggregate_id FROM pending();
ROLLBACK;
RESET sea_mq.contracts;

SELECT sea_mq.stop_capture("table") FROM sea_mq.captured_tables;
DROP TABLE orders, order_lines, kinds, "Odd Table", padded;
DROP TYPE mood, pair;
DROP DOMAIN positive;
DROP FUNCTION matters, pending;
DELETE FROM sea_mq.event_types WHERE context IN ('kiosk', 'warehouse');
