-- A capture follows its table: columns, partitions, children, owners. There is no broker.
SET sea_mq.context = 'warehouse';
CREATE FUNCTION shown(OUT event text, OUT aggregate_id text, OUT payload text) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT split_part(subject, '.event.', 2), aggregate_id, payload::text FROM sea_mq.pending_events()
$$;
CREATE FUNCTION triggers(OUT relation text, OUT triggers text) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT t.tgrelid::regclass::text, string_agg(replace(t.tgname, 'sea_mq_capture_', ''), ' ' ORDER BY t.tgname)
    FROM pg_trigger t WHERE t.tgfoid = 'sea_mq.capture'::regproc GROUP BY 1 ORDER BY 1
$$;
CREATE FUNCTION refusal(sql text, OUT code text, OUT message text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE sql;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    -- Not ours, and each major has other words.
    IF message = 'column "id" does not exist' THEN hint = '(PostgreSQL''s)'; END IF;
END $$;

-- Columns: what is sent matches what is registered, in every version.
CREATE TABLE items (id int PRIMARY KEY, name text, price int);
SELECT sea_mq.capture_table('items', 'item', "when" => 'coalesce(new.price, old.price) > 0');
BEGIN;
INSERT INTO items VALUES (1, 'lamp', 10);
ALTER TABLE items ADD COLUMN colour text DEFAULT 'red';
INSERT INTO items VALUES (2, 'desk', 20);
SET LOCAL client_min_messages = warning;
ALTER TABLE items DROP COLUMN name;
INSERT INTO items VALUES (3, 30);
ALTER TABLE items ALTER COLUMN price TYPE numeric(8, 2), ADD COLUMN size text;
UPDATE items SET size = 'xl' WHERE id = 3;
ALTER TABLE items RENAME COLUMN price TO "Price";
ALTER TABLE items RENAME COLUMN id TO number;
DELETE FROM items WHERE number = 1;
ALTER TABLE items ALTER COLUMN "Price" SET NOT NULL;
ALTER TABLE items ADD CHECK ("Price" < 1000), ALTER COLUMN size SET STATISTICS 10;
INSERT INTO items VALUES (4, 40);
ALTER TABLE items RENAME TO things;
UPDATE things SET "Price" = 0;
SELECT * FROM shown();
SELECT e.event_type, e.event_version, v.* FROM sea_mq.pending_events() e, sea_mq.contract_violations(e.context, e.event_type, e.event_version, e.payload) v;
SELECT "table", key, "when", versions, active FROM sea_mq.captured_tables;
SELECT event_type, version, schema #> '{properties,row,properties}' FROM sea_mq.event_types
WHERE context = 'warehouse' AND event_type = 'item_created' ORDER BY version;
ROLLBACK;

-- What the capture needs is not taken from under it.
SELECT r.* FROM unnest(ARRAY['DROP COLUMN id', 'DROP COLUMN price', 'ALTER COLUMN price TYPE text']) c, refusal('ALTER TABLE items ' || c) r;
SELECT sea_mq.capture_table('items', 'item', columns => '{price}');
ALTER TABLE items DROP COLUMN price;
INSERT INTO items VALUES (1, 'lamp', 10);

-- Types that change.
CREATE TYPE size AS ENUM ('s', 'm');
CREATE TYPE crate AS (w int);
CREATE TABLE parcels (id int PRIMARY KEY, size size, crates crate[]);
SELECT sea_mq.capture_table('parcels', 'parcel', events => '{"update": null, "delete": null, "truncate": null}');
ALTER TYPE size ADD VALUE 'l';
ALTER TYPE crate ADD ATTRIBUTE h int;
SELECT versions FROM sea_mq.captured_tables WHERE "table" = 'parcels'::regclass;
BEGIN;
INSERT INTO parcels VALUES (1, 'l', '{"(1,2)"}');
SELECT * FROM shown();
ROLLBACK;
DROP TYPE size CASCADE;
SELECT versions FROM sea_mq.captured_tables WHERE "table" = 'parcels'::regclass;

-- The end of a table, and of a capture.
DROP TABLE parcels;
SELECT "table" FROM sea_mq.captured_tables ORDER BY 1;
SELECT sea_mq.stop_capture('items');
SELECT sea_mq.stop_capture('items');
SELECT * FROM triggers();
BEGIN;
UPDATE items SET price = 11;
SELECT * FROM shown();
ROLLBACK;
DROP TABLE items;

-- Partitions: each change once, wherever it is made; also partitions that come and go.
CREATE TABLE events (id int, day int, what text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (10);
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
CREATE TABLE events_2a PARTITION OF events_2 FOR VALUES IN (1, 2, 3);
SELECT sea_mq.capture_table('events', 'happening');
-- Columns in another order, and one that is gone.
CREATE TABLE events_3 (what text, gone int, day int NOT NULL, id int NOT NULL);
ALTER TABLE events_3 DROP COLUMN gone;
ALTER TABLE events ATTACH PARTITION events_3 FOR VALUES FROM (20) TO (30);
CREATE TABLE events_2b PARTITION OF events_2 FOR VALUES IN (4, 5);
CREATE TABLE events_rest PARTITION OF events DEFAULT;
SELECT * FROM triggers();
BEGIN;
INSERT INTO events VALUES (1, 1, 'a'), (2, 11, 'b'), (3, 21, 'c'), (4, 12, 'd'), (5, 99, 'e');
INSERT INTO events_3 VALUES ('f', 22, 6);
UPDATE events SET what = upper(what) WHERE id IN (1, 3);
-- From one partition to another, and another statement in between.
UPDATE events SET day = day + 10 WHERE id IN (1, 3);
UPDATE events_2 SET id = id + 1;
UPDATE events_3 SET what = 'direct';
DELETE FROM events_rest;
SELECT * FROM shown();
TRUNCATE events_3, events_2a;
TRUNCATE events;
TRUNCATE events_2, events_1;
TRUNCATE events, events_2;
SELECT * FROM shown() WHERE event LIKE '%truncated%';
ROLLBACK;
-- Where a trigger stops a row on its way to another partition it is gone.
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER stop BEFORE INSERT ON events_3 FOR EACH ROW WHEN (NEW.id % 2 = 0) EXECUTE FUNCTION stop();
BEGIN;
INSERT INTO events VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c'), (4, 4, 'd'), (5, 25, 'e');
UPDATE events SET day = day + 20 WHERE day < 20;
SELECT id, day FROM events ORDER BY 1;
SELECT * FROM shown() OFFSET 5;
ROLLBACK;
ALTER TABLE events DETACH PARTITION events_3;
DROP TABLE events_rest;
ALTER TABLE events DETACH PARTITION events_1 CONCURRENTLY;
SELECT * FROM triggers();
BEGIN;
INSERT INTO events_3 VALUES ('not', 22, 7);
INSERT INTO events_1 VALUES (7, 1, 'captured');
SELECT * FROM shown();
ROLLBACK;
-- A partition of its own kind, and the kind of its table again.
SELECT sea_mq.capture_table('events_2', 'special', events => '{"truncate": null}');
BEGIN;
INSERT INTO events_2 VALUES (1, 11, 'a');
INSERT INTO events VALUES (2, 12, 'b');
SELECT * FROM shown();
ROLLBACK;
SELECT sea_mq.stop_capture('events_2a');
SELECT sea_mq.stop_capture('events_2');
SELECT * FROM triggers();
DROP TABLE events;
SELECT * FROM triggers();

-- Children: statements on the parent tell of them, as do their own; their further columns are not sent.
CREATE TABLE beings (id int PRIMARY KEY, name text);
SELECT sea_mq.capture_table('beings', 'being');
CREATE TABLE cats (lives int) INHERITS (beings);
BEGIN;
INSERT INTO cats VALUES (1, 'Tom', 7);
UPDATE beings SET name = 'Tim';
UPDATE cats SET lives = 6;
TRUNCATE ONLY beings;
SELECT * FROM shown();
ROLLBACK;
ALTER TABLE cats NO INHERIT beings;
SELECT * FROM triggers();
DROP TABLE cats;

-- Rights: the owner who is an operator captures; writers need none.
CREATE ROLE capture_owner;
CREATE ROLE capture_writer;
CREATE ROLE capture_stranger;
GRANT sea_mq_operator TO capture_owner, capture_stranger;
CREATE SCHEMA capture_owner AUTHORIZATION capture_owner;
CREATE SCHEMA capture_stranger AUTHORIZATION capture_stranger;
SET ROLE capture_owner;
CREATE TABLE capture_owner.accounts (id int PRIMARY KEY, balance int);
SELECT sea_mq.capture_table('capture_owner.accounts', 'account', "when" => 'new.balance > 0');
GRANT USAGE ON SCHEMA capture_owner TO capture_writer;
GRANT SELECT, INSERT, UPDATE ON capture_owner.accounts TO capture_writer;
SELECT "table", captured_by, active FROM sea_mq.captured_tables ORDER BY 1;
SET ROLE capture_writer;
BEGIN;
INSERT INTO capture_owner.accounts VALUES (1, 10), (2, 0);
SELECT count(*) FROM sea_mq.pending_events();
ROLLBACK;
BEGIN;
INSERT INTO capture_owner.accounts VALUES (1, 10), (2, 0);
RESET ROLE;
SELECT * FROM shown();
ROLLBACK;
-- Neither an operator nor a superuser's function makes events for a table of somebody else's.
\set VERBOSITY sqlstate
SET ROLE capture_writer;
SELECT sea_mq.capture_table('capture_owner.accounts');
SET ROLE capture_stranger;
SELECT sea_mq.capture_table('capture_owner.accounts');
SELECT sea_mq.stop_capture('capture_owner.accounts');
DELETE FROM sea_mq.captures;
UPDATE sea_mq.captures SET events = '{}';
CREATE TABLE capture_stranger.bait (id int);
INSERT INTO sea_mq.captures ("table", context, aggregate_type, key, events) VALUES ('beings', 'warehouse', 'x', '{id}', '{"insert": "x"}');
CREATE TRIGGER emit AFTER INSERT ON capture_stranger.bait REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION sea_mq.capture();
INSERT INTO capture_stranger.bait VALUES (1);
CREATE TRIGGER emit_row AFTER INSERT ON capture_stranger.bait FOR EACH ROW EXECUTE FUNCTION sea_mq.capture();
DROP TRIGGER emit ON capture_stranger.bait;
INSERT INTO capture_stranger.bait VALUES (1);
-- Whoever owns the table alters it, also without a right on sea_mq.
RESET ROLE;
REVOKE sea_mq_operator FROM capture_owner;
SET ROLE capture_owner;
\set VERBOSITY default
ALTER TABLE capture_owner.accounts ADD COLUMN currency text;
RESET ROLE;
SELECT versions FROM sea_mq.captured_tables WHERE "table" = 'capture_owner.accounts'::regclass;
BEGIN;
DROP SCHEMA capture_owner CASCADE;
SELECT "table" FROM sea_mq.captured_tables ORDER BY 1;
ROLLBACK;
DROP OWNED BY capture_owner, capture_writer, capture_stranger;
DROP ROLE capture_owner, capture_writer, capture_stranger;

-- What cannot be captured, and what cannot be meant.
CREATE TABLE plain (id int, "Total" int);
CREATE VIEW plain_view AS SELECT * FROM plain;
CREATE TEMP TABLE fleeting (id int PRIMARY KEY);
SELECT arguments, r.* FROM unnest(ARRAY[
    $$NULL$$,
    $$'plain'$$,
    $$'plain_view', key => 'id'$$,
    $$'fleeting'$$,
    $$'sea_mq.streams'$$,
    $$'pg_class', key => 'oid'$$,
    $$'plain', key => ''$$,
    $$'plain', key => 'id, nothing'$$,
    $$'plain', key => 'id, id'$$,
    $$'plain', key => 'total', columns => '{nothing}'$$,
    $$'plain', key => 'id', columns => '{}'$$,
    $$'plain', key => 'id', events => '["insert"]'$$,
    $$'plain', key => 'id', events => '{"upsert": "x"}'$$,
    $$'plain', key => 'id', events => '{"insert": 1}'$$,
    $$'plain', key => 'id', events => '{"insert": "a.b"}'$$,
    $$'plain', key => 'id', events => '{"insert": null, "update": null, "delete": null, "truncate": null}'$$,
    $$'plain', key => 'id', events => '{"insert": "x", "truncate": "X"}'$$,
    $$'plain', key => 'id', visibility => 'secret'$$,
    $$'plain', 'being', key => 'id'$$,
    $$'plain', key => 'id', "when" => 'id > 1'$$,
    $$'plain', key => 'id', "when" => 'true; DROP TABLE plain'$$,
    $$'plain', key => 'id', "when" => 'true) OR (true'$$,
    $$'plain', key => 'id', "when" => 'true FROM pg_class'$$,
    $$'plain', key => 'id', "when" => 'true, false'$$,
    $$'plain', key => 'id', "when" => 'EXISTS (SELECT FROM pg_class)'$$,
    $$'plain', key => 'id', "when" => 'old.ctid IS NULL'$$,
    $$'plain', key => 'id', "when" => ''$$,
    $$'plain', key => 'id', "when" => 'new.id'$$
]) arguments, refusal('SELECT sea_mq.capture_table(' || arguments || ')') r;
RESET sea_mq.context;
SELECT * FROM refusal($$SELECT sea_mq.capture_table('plain', key => 'id')$$);
SELECT * FROM refusal('SELECT sea_mq.capture()');
SELECT count(*) FROM sea_mq.event_types WHERE event_type LIKE 'plain%';
DROP VIEW plain_view;
DROP TABLE plain, beings, events_1, events_3;
SELECT count(*) FROM sea_mq.captured_tables WHERE context = 'warehouse';
DROP TYPE crate;
DROP FUNCTION shown, triggers, refusal, stop;
DELETE FROM sea_mq.event_types WHERE context IN ('kiosk', 'warehouse');
