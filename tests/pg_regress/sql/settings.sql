-- Settings that a session, a role or a database may have do not change what the functions do: a script of all of them has the same
-- results under settings that are allowed and unfriendly as under the defaults. Without a broker.
\set ECHO none
-- In a database of its own, where nothing else is found.
SELECT current_database() AS home \gset
SET client_min_messages = error;
CREATE DATABASE regress_sea_mq_played;
\c regress_sea_mq_played
SET client_min_messages = error;
CREATE EXTENSION sea_mq;
SET client_min_messages = warning;
SELECT sea_mq.stop() IS NOT NULL AS stopped \gset
CREATE SCHEMA regress_settings;
CREATE FUNCTION regress_settings.handle(event sea_mq.event) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE TABLE regress_settings."Order" (id integer PRIMARY KEY, name text, total numeric, placed timestamptz, took interval, share float8, raw bytea, tags text[]);
CREATE FUNCTION regress_settings.outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    hint text;
BEGIN
    EXECUTE command INTO result;
    -- Names in messages are quoted or not.
    RETURN replace(coalesce(result, 'null'), '"', '');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN replace(SQLSTATE || ' ' || SQLERRM || ' HINT: ' || hint, '"', '');
END $$;
-- Each gives text that depends on no setting of its own.
CREATE TABLE regress_settings.script (step integer GENERATED ALWAYS AS IDENTITY, command text);
INSERT INTO regress_settings.script (command) VALUES
($$SELECT sea_mq.create_stream('wares', max_age => '1 day')$$),
($$SELECT sea_mq.alter_stream('WARES_EVENTS', max_msgs => 1000)$$),
($$SELECT sea_mq.create_stream('a b')$$),
($$SELECT sea_mq.create_stream('c', name => 'a.b')$$),
($$SELECT sea_mq.create_stream('c', name => 'a/b')$$),
($$SELECT sea_mq.create_stream('c', name => 'a' || chr(92) || 'b')$$),
($$SELECT sea_mq.create_consumer('wares', 'reader', filter => 'wares.event.*.v1')$$),
($$SELECT sea_mq.create_consumer('nowhere')$$),
($$SELECT string_agg(name || ' ' || subjects::text || ' ' || extract(epoch FROM max_age)::text, ',' ORDER BY name) FROM sea_mq.streams$$),
($$SELECT sea_mq.event_name('OrderCreated') || sea_mq.context_name('Orders')$$),
($$SELECT sea_mq.event_name('a.b')$$),
-- filters
($$SELECT sea_mq.subject_filter('wares', 'OrderCreated')$$),
($$SELECT sea_mq.subject_filter('wares', 'order_created.v2')$$),
($$SELECT sea_mq.subject_filter('wares', 'order_created.*')$$),
($$SELECT sea_mq.subject_filter('wares', 'wares.event.*.v1')$$),
($$SELECT sea_mq.subject_filter('wares', 'wares.>')$$),
($$SELECT sea_mq.subject_filter('wares', 'a..b')$$),
($$SELECT sea_mq.subject_filter('wares', 'a.x*')$$),
($$SELECT sea_mq.subscribe('s1', 'wares', 'regress_settings.handle', filter => 'order_created.v2', context => 'billing')$$),
($$SELECT sea_mq.subscribe('s1', 'wares', 'regress_settings.handle', filter => 'order_created.v2', context => 'billing')$$),
($$SELECT sea_mq.subscribe('s2', 'wares', filter => 'wares.event.>', context => 'billing', start_from => '2024-05-06T07:08:09Z')$$),
($$SELECT sea_mq.subscribe('s.3', 'wares', context => 'billing')$$),
($$SELECT sea_mq.subscribe('s3', 'wares', context => 'billing', filter => 'a b')$$),
($$SELECT sea_mq.subscribe('s3', 'wares', context => 'billing', start_from => 'infinity')$$),
($$SELECT sea_mq.subscribe('s3', 'wares', context => 'billing', ack_wait => '1 ms')$$),
($$SELECT sea_mq.subscribe('s3', 'wares')$$),
($$SELECT sea_mq.alter_subscription('s1', filter => 'order_created.*', timeout => '1 min')$$),
($$SELECT sea_mq.pause_subscription('s1')$$),
($$SELECT string_agg(concat_ws(' ', subscription, subject_filter, handler, extract(epoch FROM ack_wait), extract(epoch FROM timeout),
    CASE WHEN start_from <> 'new' THEN extract(epoch FROM start_at) END), ',' ORDER BY subscription) FROM sea_mq.subscriptions$$),
-- contracts
($$SELECT sea_mq.register_schema('sea-mq:/schemas/events/common/money.schema.json', '{"type": "object", "required": ["amount"]}')$$),
($$SELECT sea_mq.register_event('wares', 'OrderCreated', 1, '{"properties": {"total": {"$ref": "../common/money.schema.json"}, "n": {"type": "integer", "pattern": "^[0-9]+[.]?$"}}}')$$),
($$SELECT sea_mq.register_event('wares', 'OrderCreated', 1, '{"type": "array"}')$$),
($$SELECT sea_mq.register_event('wares', 'OrderCreated', 2, '{"type": "strnig"}')$$),
($$SELECT sea_mq.register_schema('no uri', '{}')$$),
($$SELECT string_agg(v.pointer || v.message, ',') FROM sea_mq.contract_violations('wares', 'OrderCreated', 1, '{"total": {}, "n": 1.5}') v$$),
($$SELECT string_agg(l::text, ',') FROM sea_mq.lint() l$$),
($$SELECT string_agg(e.path || e.schema::text, ',') FROM sea_mq.export_contracts() e$$),
($$SELECT string_agg(i::text, ',') FROM sea_mq.import_contracts('{"wares/order_paid.v1.schema.json": {"type": "object"}}') i$$),
($$SELECT string_agg(c::text, ',') FROM sea_mq.compare_schemas('{"type": "object"}', '{}') c$$),
-- emit
($$SELECT sea_mq.emit('order', '1', 'OrderCreated', '{"n": 1.50}', context => 'wares', event_id => '00000000-0000-4000-8000-000000000001')$$),
($$SELECT sea_mq.emit('order', '1', 'OrderCreated', '{}', context => 'wares', available_at => '2250-01-01 00:00:00+00', event_id => '00000000-0000-4000-8000-000000000002')$$),
($$SELECT sea_mq.emit('order', '1', 'OrderCreated', '{}', event_id => '00000000-0000-4000-8000-000000000003')$$),
($$SELECT count(*) FROM sea_mq.emit_many(ARRAY['{"aggregate_type": "order", "aggregate_id": "1", "event_type": "A", "payload": "x", "context": "wares", "available_at": "2250-01-01 00:00:00+00"}'::jsonb])$$),
($$SELECT string_agg(concat_ws(' ', p.subject, p.payload, extract(epoch FROM p.available_at)), ',') FROM sea_mq.pending_events() p$$),
-- capture
($$SELECT sea_mq.capture_table('regress_settings."Order"', 'order', key => ' id ', context => 'shop', "when" => 'new.name IS NULL OR new.name <> chr(92)')$$),
($$SELECT sea_mq.capture_table('regress_settings."Order"', 'order', key => 'id, nothing', context => 'shop')$$),
($$SELECT sea_mq.capture_table('regress_settings."Order"')$$),
($$INSERT INTO regress_settings."Order" VALUES (1, 'x', 1.50, '2024-05-06T07:08:09Z', '1 day 2 hours', 0.1, convert_to('a', 'UTF8'), ARRAY['a', NULL]) RETURNING 'inserted'$$),
($$SELECT string_agg(concat_ws(' ', p.subject, p.aggregate_id, p.payload), ',') FROM sea_mq.pending_events() p WHERE p.context = 'shop'$$),
($$SELECT string_agg(concat_ws(' ', c.aggregate_type, c.key::text, c.versions::text, c.active), ',') FROM sea_mq.captured_tables c$$),
($$SELECT t.schema::text FROM sea_mq.event_types t WHERE t.event_type = 'order_updated'$$),
-- the edges
($s$SELECT sea_mq.register_mapping('acme', 'paid', '$.type == "paid"', 'OrderPaid', 'order', '$.order', '{"id": "$.order", "note": "$$5"}', context => 'wares')$s$),
($$SELECT sea_mq.register_mapping('ac.me', 'paid', '$.type == "paid"', 'OrderPaid', 'order', '$.order', '{}', context => 'wares')$$),
($$SELECT sea_mq.ingest('acme', '{"id": "7", "type": "paid", "order": 42}')$$),
($$SELECT sea_mq.ingest('acme', '{"id": "8", "type": "unheard of"}') IS NULL$$),
($$SELECT sea_mq.ingest('a/b', '{"id": "8"}')$$),
($$SELECT concat_ws(' ', context, original_subject, subscription, message_id, reason, error, headers::text) FROM sea_mq.dlq_messages$$),
($$SELECT count(*) FROM sea_mq.dlq_list(error => 'mapping', older_than => '-1 day')$$),
($$SELECT sea_mq.dlq_discard((SELECT max(id) FROM sea_mq.dlq_messages), 'no')$$),
($$SELECT to_jsonb(sea_mq.external_view(ROW(NULL, 'm', 's', 'wares', 'order_created', 1, 'x', 'o', '1', '{"a": 1}', '{"X-Error": "e", "K": "v"}', NULL, NULL, 'public', 1, 1, NULL)::sea_mq.event, 'public'))::text$$),
($$SELECT sea_mq.external_view(NULL, 'nobody') IS NULL$$),
-- the pull API
($$INSERT INTO sea_mq.inbox_pending (id, subscription, message_id, status, event_type, subject, payload, event_at)
    SELECT n, 's2', 'm' || n, 'received', 'a', 'wares.event.a.v1', '{}', now() FROM generate_series(-9, -5) n RETURNING 'stored'$$),
($$SELECT string_agg(concat_ws(' ', r.id, r.message_id, r.payload, r.attempts), ',') FROM sea_mq.receive('s2', 3) r$$),
($$SELECT sea_mq.complete(-9)$$),
($$SELECT sea_mq.fail(-8, 'broken', '1 hour')$$),
($$SELECT sea_mq.reject(-7, 'bad')$$),
($$SELECT sea_mq.extend_lease(-6) IS NULL$$),
($$SELECT sea_mq.inbox_accept('x1', 'wares', 'OrderCreated', '{}', 'mine')$$),
($$SELECT sea_mq.inbox_accept('x1', 'wares', 'OrderCreated', '{}', 'mine')$$),
($$SELECT string_agg(concat_ws(' ', m.message_id, m.status, m.processing_error), ',' ORDER BY m.message_id) FROM sea_mq.inbox_messages m$$),
($$SELECT concat_ws(' ', reason, error, headers::text, errors -> 0 ->> 'error') FROM sea_mq.dlq_messages WHERE subscription = 's2'$$),
($$SELECT sea_mq.dlq_replay((SELECT max(id) FROM sea_mq.dlq_messages)) IS NOT NULL$$),
-- what there is to see
($$SELECT string_agg(p.problem || ' ' || p.hint, ',' ORDER BY p.rank, p.problem) FROM sea_mq.problems p$$),
($$SELECT concat_ws(' ', ok, summary, hint, problems) FROM sea_mq.status$$),
($$SELECT concat_ws(' ', state, error) FROM sea_mq.relay_status$$),
($$SELECT string_agg(s.subscription || s.state, ',' ORDER BY s.subscription) FROM sea_mq.subscription_status s$$),
($$SELECT string_agg(r.section || r.item, ',' ORDER BY r.section, r.item) FROM sea_mq.install_report() r WHERE r.section IN ('setting', 'role', 'extension')$$),
($$SELECT sea_mq.wait_published('00000000-0000-4000-8000-000000000001')$$),
($$SELECT sea_mq.republish('WARES_EVENTS')$$),
($$SELECT sea_mq.stop_capture('regress_settings."Order"')$$),
($$SELECT sea_mq.unsubscribe('s1')$$),
($$SELECT sea_mq.drop_consumer('WARES_EVENTS', 'reader')$$),
($$SELECT sea_mq.drop_stream('WARES_EVENTS')$$);
CREATE FUNCTION regress_settings.play() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    s record;
    results text := '';
BEGIN
    FOR s IN SELECT * FROM regress_settings.script ORDER BY step LOOP
        results := results || s.step || chr(9) || regress_settings.outcome(s.command) || chr(10);
    END LOOP;
    RETURN results;
END $$;

-- How it is by default. A new session for each, since functions are parsed once in a session.
SET client_min_messages = warning;
BEGIN;
SELECT regress_settings.play() AS plain \gset
ROLLBACK;
\c -
SET client_min_messages = error;
SET standard_conforming_strings = off;
SET backslash_quote = on;
SET quote_all_identifiers = on;
SET transform_null_equals = on;
SET array_nulls = off;
SET DateStyle = 'German, DMY';
SET IntervalStyle = sql_standard;
SET TimeZone = 'Asia/Kathmandu';
SET bytea_output = escape;
SET extra_float_digits = -15;
SET xmlbinary = hex;
SET xmloption = document;
SET lc_monetary = 'C';
SET row_security = off;
SET default_transaction_isolation = serializable;
SET check_function_bodies = off;
SET plpgsql.variable_conflict = use_column;
SET search_path = pg_temp, regress_settings;
BEGIN;
SELECT regress_settings.play() AS hostile \gset
ROLLBACK;
\c -
SET client_min_messages = error;
SET client_encoding = LATIN1;
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = postgres_verbose;
SET TimeZone = 'Pacific/Apia';
SET search_path = '';
BEGIN;
SELECT regress_settings.play() AS foreign \gset
ROLLBACK;
RESET client_encoding;
RESET search_path;
\set ECHO all
SELECT count(*) > 70 AS played, count(*) FILTER (WHERE line ~ '^[0-9]+\t[0-9A-Z]{5} ') > 20 AS with_errors FROM string_to_table(:'plain', chr(10)) line;
-- What differs, if anything does.
SELECT p.line AS plain, h.line AS hostile FROM string_to_table(:'plain', chr(10)) WITH ORDINALITY p (line, n)
FULL JOIN string_to_table(:'hostile', chr(10)) WITH ORDINALITY h (line, n) USING (n) WHERE p.line IS DISTINCT FROM h.line;
SELECT p.line AS plain, f.line AS foreign FROM string_to_table(:'plain', chr(10)) WITH ORDINALITY p (line, n)
FULL JOIN string_to_table(:'foreign', chr(10)) WITH ORDINALITY f (line, n) USING (n) WHERE p.line IS DISTINCT FROM f.line;
-- A client whose encoding has fewer characters gets these errors, not one about their words.
SET client_encoding = SQL_ASCII;
SET client_encoding = LATIN1;
SELECT sea_mq.create_consumer('nowhere');
SELECT sea_mq.subscribe('nocontext', 'UNKNOWN');
SELECT sea_mq.emit('a', '1', 'b', '{}');
SELECT problem, hint FROM sea_mq.problems;
RESET client_encoding;
DROP SCHEMA regress_settings CASCADE;

-- The extension is the same wherever it is installed.
RESET ALL;
SELECT md5(string_agg(concat_ws(' ', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid)), ',' ORDER BY c.conrelid::regclass::text, c.conname)) AS constraints
FROM pg_constraint c WHERE c.connamespace = 'sea_mq'::regnamespace \gset
CREATE DATABASE regress_sea_mq_settings;
\c regress_sea_mq_settings
SET client_min_messages = error;
SET standard_conforming_strings = off;
SET quote_all_identifiers = on;
SET DateStyle = 'German, DMY';
SET IntervalStyle = sql_standard;
SET array_nulls = off;
SET transform_null_equals = on;
CREATE EXTENSION sea_mq;
RESET ALL;
SELECT md5(string_agg(concat_ws(' ', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid)), ',' ORDER BY c.conrelid::regclass::text, c.conname)) = :'constraints' AS same
FROM pg_constraint c WHERE c.connamespace = 'sea_mq'::regnamespace;
SELECT sea_mq.stop() IS NOT NULL AS stopped;
\c :home
DROP DATABASE regress_sea_mq_settings;
DROP DATABASE regress_sea_mq_played;
