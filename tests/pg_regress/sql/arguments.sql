-- Arguments as drivers bind them. What has one meaning is taken, and a form that is taken does not make another one ambiguous.
SET sea_mq.context = 'forms';

-- How a call is resolved: 'ok' and what is kept, or the SQLSTATE.
CREATE FUNCTION tried(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    kept text;
BEGIN
    EXECUTE 'SELECT sea_mq.emit(' || call || ')';
    SELECT format('%s %s %s v%s', e.aggregate_id, e.payload, coalesce(e.headers::text, '-'), e.event_version) INTO kept
    FROM sea_mq.pending_events() e;
    RAISE EXCEPTION 'kept' USING DETAIL = kept;
EXCEPTION
    WHEN raise_exception THEN GET STACKED DIAGNOSTICS kept = PG_EXCEPTION_DETAIL;
        RETURN kept;
    WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

CREATE DOMAIN forms_positive AS integer CHECK (value > 0);
CREATE DOMAIN forms_label AS text;
CREATE TYPE forms_digit AS ENUM ('7', '8');
-- Each way to give an id, with each way to give a payload and the names, in each notation. All are the same event.
WITH ids(id) AS (VALUES ('''7'''), ('''7''::text'), ('''7''::varchar'), ('''7''::char(1)'), ('''7''::name'), ('7'), ('7::smallint'), ('7::bigint'),
        ('7::numeric'), ('7::forms_positive'), ('''7''::forms_label'), ('''7''::forms_digit')),
    payloads(payload) AS (VALUES ('''{"a": 1}'''), ('''{"a": 1}''::text'), ('''{"a": 1}''::varchar'), ('''{"a": 1}''::json'), ('''{"a": 1}''::jsonb'),
        ('jsonb_build_object(''a'', 1)'), ('json_build_object(''a'', 1)')),
    names(type, event) AS (VALUES ('''order''', '''Formed'''), ('''order''::text', '''Formed''::text'), ('''order''::varchar', '''Formed''::varchar'), ('''order''::name', '''Formed''')),
    notations(notation) AS (VALUES ('%s, %s, %s, %s'), ('aggregate_type => %s, aggregate_id => %s, event_type => %s, payload => %s'),
        ('%s, %s, %s, payload => %s'), ('%s, %s, %s, %s, 1'), ('%s, %s, %s, %s, event_version => NULL, headers => NULL, event_id => NULL'))
SELECT tried(format(notation, type, id, event, payload)) AS kept, count(*) AS calls
FROM ids, payloads, names, notations GROUP BY 1 ORDER BY 1;

-- Headers likewise, whatever the payload is.
WITH headers(headers) AS (VALUES ('''{"X-A": "b"}'''), ('''{"X-A": "b"}''::text'), ('''{"X-A": "b"}''::varchar'), ('''{"X-A": "b"}''::json'), ('''{"X-A": "b"}''::jsonb')),
    payloads(payload) AS (VALUES ('''1'''), ('''1''::text'), ('''1''::varchar'), ('''1''::json'), ('''1''::jsonb')),
    ids(id) AS (VALUES ('''7'''), ('''7''::text'), ('7'), ('7::bigint'))
SELECT tried(format('''order'', %s, ''Formed'', %s, headers => %s', id, payload, headers)) AS kept, count(*) AS calls
FROM headers, payloads, ids GROUP BY 1 ORDER BY 1;

SELECT tried($$'order', '01890a5d-ac96-774b-bcce-b302099a8057'::uuid, 'Formed', '1'$$);

-- And the event's own id, whatever the others are.
WITH event_ids(event_id) AS (VALUES ('NULL'), ('''01890a5d-ac96-774b-bcce-b302099a8057'''), ('''01890a5d-ac96-774b-bcce-b302099a8057''::uuid'),
        ('''01890a5d-ac96-774b-bcce-b302099a8057''::text'), ('''01890a5d-ac96-774b-bcce-b302099a8057''::varchar')),
    payloads(payload) AS (VALUES ('''1'''), ('''1''::text'), ('''1''::varchar'), ('''1''::json'), ('''1''::jsonb')),
    ids(id) AS (VALUES ('''7'''), ('''7''::text'), ('7'), ('7::bigint'))
SELECT tried(format('''order'', %s, ''Formed'', %s, event_id => %s', id, payload, event_id)) AS kept, count(*) AS calls
FROM event_ids, payloads, ids GROUP BY 1 ORDER BY 1;
SELECT tried(format('''order'', ''7'', ''Formed'', ''1'', 1, ''forms'', %s', event_id)) AS kept, count(*) AS calls
FROM unnest(ARRAY['NULL', '''01890a5d-ac96-774b-bcce-b302099a8057''', '''01890a5d-ac96-774b-bcce-b302099a8057''::text']) event_id GROUP BY 1 ORDER BY 1;
SELECT tried($$'order', '7', 'Formed', '1', event_id => 'none'::text$$);

-- A literal or parameter without a type is what it always was, so drivers that ask for the types of parameters bind the same values.
PREPARE four AS SELECT sea_mq.emit($1, $2, $3, $4);
PREPARE named AS SELECT sea_mq.emit(aggregate_type => $1, aggregate_id => $2, event_type => $3, payload => $4, headers => $5, event_version => $6);
PREPARE identified AS SELECT sea_mq.emit($1, $2, $3, $4, event_id => $5);
PREPARE keyed AS SELECT sea_mq.emit('order', 7, $1, $2);
PREPARE typed(varchar, varchar) AS SELECT sea_mq.emit($1, $2, $3, $4);
PREPARE text_typed(text, text, text) AS SELECT sea_mq.emit($1, $2, $3, $4);
PREPARE many AS SELECT sea_mq.emit_many($1);
PREPARE an_array AS SELECT sea_mq.emit_array($1);
SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name;
DEALLOCATE ALL;

-- What has no one meaning is refused.
SELECT what, tried(what) FROM unnest(ARRAY[$$'order', now(), 'Formed', '1'$$, $$'order', true, 'Formed', '1'$$, $$'order', 1.5::float8, 'Formed', '1'$$,
    $$'order', '{}'::jsonb, 'Formed', '1'$$, $$'order', NULL, 'Formed', '1'$$, $$'order', NULL::bigint, 'Formed', '1'$$, $$'order', '7', 'Formed', NULL::text$$,
    $$'order', '7', 'Formed', 'no json'::text$$, $$'order', 7, 'Formed', 'no json'$$, $$'order', '7', 'Formed', 1$$, $$'order', ARRAY[7], 'Formed', '1'$$]) what;

-- emit_many: ids as they are in the data, and one array.
BEGIN;
SELECT count(*) FROM sea_mq.emit_many(ARRAY['{"aggregate_type": "order", "aggregate_id": 5, "event_type": "Formed", "payload": 1}',
    '{"aggregate_type": "order", "aggregate_id": "5", "event_type": "Formed", "payload": 2, "event_version": null}']::jsonb[]);
SELECT count(*) FROM sea_mq.emit_array('[{"aggregate_type": "order", "aggregate_id": -6, "event_type": "Formed", "payload": [3]}]');
SELECT count(*) FROM sea_mq.emit_array((SELECT jsonb_agg(jsonb_build_object('aggregate_type', 'order', 'aggregate_id', n, 'event_type', 'Formed', 'payload', n))
    FROM generate_series(7, 9) n));
SELECT count(*) FROM sea_mq.emit_array('[]');
SELECT aggregate_id, payload, event_version FROM sea_mq.pending_events();
ROLLBACK;
\set VERBOSITY terse
SELECT sea_mq.emit_array('{"aggregate_type": "order"}');
SELECT sea_mq.emit_array(NULL);
SELECT sea_mq.emit_array('[{"aggregate_type": "order", "aggregate_id": 1.5, "event_type": "Formed", "payload": 1}]');
SELECT sea_mq.emit_array('[{"aggregate_type": "order", "aggregate_id": true, "event_type": "Formed", "payload": 1}]');
SELECT sea_mq.emit_array('[{"aggregate_type": "order", "aggregate_id": 1, "event_type": "Formed", "payload": 1}, 5]');
\set VERBOSITY default

-- A producer gets the id of what it inserts, and no more.
CREATE ROLE regress_forms;
GRANT sea_mq_producer TO regress_forms;
SET ROLE regress_forms;
BEGIN;
INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)
VALUES ('order', 5, 'Formed', '1') RETURNING id IS NOT NULL AS given;
SELECT correlation_id = id::text AS own, causation_id FROM sea_mq.pending_events();
SET LOCAL sea_mq.correlation_id = 'corr';
SET LOCAL sea_mq.causation_id = 'cause';
SELECT sea_mq.emit('order', 5, 'Formed', '2') IS NOT NULL AS given;
SELECT correlation_id, causation_id FROM sea_mq.pending_events() WHERE payload = '2';
ROLLBACK;
SELECT payload FROM sea_mq.outbox_events;
RESET ROLE;

-- What applications call returns something: there are drivers that cannot read void. These two never return.
SELECT DISTINCT p.proname FROM pg_proc p, unnest('{sea_mq_producer,sea_mq_consumer}'::text[]) r
WHERE p.pronamespace = 'sea_mq'::regnamespace AND p.prorettype = 'void'::regtype AND has_function_privilege(r, p.oid, 'EXECUTE') ORDER BY 1;
SELECT sea_mq.subscribe('forms__pull', 'forms'), sea_mq.pause_subscription('forms__pull'), sea_mq.resume_subscription('forms__pull'),
    sea_mq.alter_subscription('forms__pull', priority => 1), sea_mq.unsubscribe('forms__pull');

-- A receiver that can wait, and one that cannot.
SELECT sea_mq.subscribe('forms__pull', 'forms');
SELECT count(*) FROM sea_mq.receive('forms__pull', wait => '0');
SELECT clock_timestamp() - statement_timestamp() >= '100 ms' AS waited FROM sea_mq.receive('forms__pull', wait => '100 ms') RIGHT JOIN (VALUES (1)) one ON true;
\set VERBOSITY terse
SELECT sea_mq.receive('forms__pull', wait => '31 s');
SELECT sea_mq.receive('forms__pull', wait => '-1 s');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sea_mq.receive('forms__pull', wait => '1 s');
ROLLBACK;
SET statement_timeout = '50 ms';
SELECT sea_mq.receive('forms__pull', wait => '20 s');
RESET statement_timeout;
SELECT sea_mq.unsubscribe('forms__pull');

-- inbox_accept likewise takes JSON in whatever type it comes.
PREPARE accept AS SELECT sea_mq.inbox_accept($1, $2, $3, $4, $5, headers => $6);
SELECT parameter_types FROM pg_prepared_statements WHERE name = 'accept';
DEALLOCATE accept;
CREATE FUNCTION accepted(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    kept text;
BEGIN
    EXECUTE 'SELECT sea_mq.inbox_accept(' || call || ')';
    SELECT format('%s %s %s', m.message_id, m.payload, m.headers) INTO kept FROM sea_mq.inbox_messages m WHERE m.subscription = 'forms';
    RAISE EXCEPTION 'kept' USING DETAIL = kept;
EXCEPTION
    WHEN raise_exception THEN GET STACKED DIAGNOSTICS kept = PG_EXCEPTION_DETAIL;
        RETURN kept;
    WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT accepted(format('%s, ''orders'', ''Formed'', %s, ''forms'', headers => %s', id, payload, headers)) AS kept, count(*) AS calls
FROM (VALUES ('''m'''), ('''m''::text'), ('''m''::varchar')) i(id),
    (VALUES ('''{"a": 1}'''), ('''{"a": 1}''::text'), ('''{"a": 1}''::varchar'), ('''{"a": 1}''::json'), ('''{"a": 1}''::jsonb')) p(payload),
    (VALUES ('NULL'), ('''{}'''), ('''{}''::text'), ('''{}''::json'), ('''{}''::jsonb')) h(headers)
GROUP BY 1 ORDER BY 1;
DROP FUNCTION accepted;

-- The mode of test databases. Nothing is wrong with them, and with nothing to connect to they are asked again.
SELECT sea_mq.test_mode(NULL);
SELECT sea_mq.test_mode(), sea_mq.test_mode(true), sea_mq.test_mode(false);
DROP ROLE regress_forms;
DROP FUNCTION tried;
DROP DOMAIN forms_positive, forms_label;
DROP TYPE forms_digit;
-- As a producer, with values that are known when the statement is planned.
BEGIN;
SET LOCAL ROLE sea_mq_producer;
SET LOCAL sea_mq.context = 'orders';
PREPARE by_text(bigint, jsonb, text) AS SELECT sea_mq.emit('order', $1, 'OrderCreated', $2, event_id => $3);
EXECUTE by_text(6, '{"n": 6}', '01890a5d-ac96-774b-bcce-b302099a8057');
ROLLBACK;
DEALLOCATE by_text;
