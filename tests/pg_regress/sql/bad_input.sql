-- Every refusal has its SQLSTATE and a hint, and leaves the transaction's other work alone if it is caught.
SET sea_mq.context = 'orders';
CREATE FUNCTION refusal(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE command;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || CASE hint WHEN '' THEN ' without a hint: ' || SQLERRM ELSE ' and a hint' END;
END $$;

BEGIN;
SELECT sea_mq.emit('order', '1', 'First', '{}') IS NOT NULL AS emitted;
SELECT arguments, refusal(format('SELECT sea_mq.emit(%s)', arguments)) FROM unnest(ARRAY[
    -- missing
    $$NULL, '1', 'A', '{}'$$,
    $$'order', NULL, 'A', '{}'$$,
    $$'order', '1', NULL, '{}'$$,
    $$'order', '1', 'A', NULL$$,
    -- empty
    $$'', '1', 'A', '{}'$$,
    $$'order', '', 'A', '{}'$$,
    $$'order', '1', '', '{}'$$,
    -- what NATS cannot carry
    $$'order', '1', 'a.b', '{}'$$,
    $$'order', '1', 'a b', '{}'$$,
    $$'order', '1', 'a*', '{}'$$,
    $$'order', '1', '>', '{}'$$,
    $$'order', '1', E'a\tb', '{}'$$,
    $$'order', '1', 'A', '{}', context => 'a.b'$$,
    $$'order', '1', 'A', '{}', context => 'a/b'$$,
    $$'order', '1', 'A', '{}', context => '$JS'$$,
    $$'order', '1', 'A', '{}', context => '_INBOX'$$,
    $$'order', '1', repeat('a', 200), '{}'$$,
    $$'order', E'1\n2', 'A', '{}'$$,
    $$'order', ' 1', 'A', '{}'$$,
    $$'order', repeat('1', 2000), 'A', '{}'$$,
    -- values
    $$'order', '1', 'A', '{}', 0$$,
    $$'order', '1', 'A', '{}', -1$$,
    $$'order', '1', 'A', '{}', visibility => 'secret'$$,
    $$'order', '1', 'A', '{}', correlation_id => E'a\r\nb'$$,
    $$'order', '1', 'A', '{}', causation_id => repeat('a', 2000)$$,
    $$'order', '1', 'A', '{}', available_at => 'infinity'$$,
    -- headers
    $$'order', '1', 'A', '{}', headers => '[]'$$,
    $$'order', '1', 'A', '{}', headers => '"text"'$$,
    $$'order', '1', 'A', '{}', headers => '{"a": 1}'$$,
    $$'order', '1', 'A', '{}', headers => '{"a": null}'$$,
    $$'order', '1', 'A', '{}', headers => '{"a b": "c"}'$$,
    $$'order', '1', 'A', '{}', headers => '{"": "c"}'$$,
    $$'order', '1', 'A', '{}', headers => '{"a:": "c"}'$$,
    $$'order', '1', 'A', '{}', headers => '{"a": "b\r\nNats-Msg-Id: c"}'$$,
    $$'order', '1', 'A', '{}', headers => '{"Nats-Msg-Id": "c"}'$$,
    $$'order', '1', 'A', '{}', headers => '{"nats-expected-last-sequence": "1"}'$$,
    $$'order', '1', 'A', '{}', headers => '{"x-event-type": "c"}'$$,
    $$'order', '1', 'A', '{}', headers => '{"content-type": "text/plain"}'$$,
    $$'order', '1', 'A', '{}', headers => '{"CE-tenant": "c"}'$$,
    -- too large
    $$'order', '1', 'A', jsonb_build_object('a', repeat('b', 1048576))$$
    ]) AS arguments;
SELECT event_type FROM sea_mq.pending_events();
COMMIT;
SELECT event_type FROM sea_mq.outbox_events WHERE context = 'orders' AND event_type = 'first';

-- An id used for other content: in the same transaction and after it.
SELECT sea_mq.emit('order', '1', 'Used', '{"n": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8060') IS NOT NULL AS emitted;
BEGIN;
SELECT sea_mq.emit('order', '1', 'Used', '{"n": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8061') IS NOT NULL AS emitted;
SELECT arguments, refusal(format('SELECT sea_mq.emit(%s)', arguments)) FROM unnest(ARRAY[
    $$'order', '1', 'Used', '{"n": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8060'$$,
    $$'order', '1', 'Used', '{"n": 2}', event_id => '01890a5d-ac96-774b-bcce-b302099a8060'$$,
    $$'order', '2', 'Used', '{"n": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8060'$$,
    $$'order', '1', 'Used', '{"n": 1}', 2, event_id => '01890a5d-ac96-774b-bcce-b302099a8060'$$,
    $$'order', '1', 'Used', '{"n": 1}', context => 'billing', event_id => '01890a5d-ac96-774b-bcce-b302099a8060'$$,
    $$'order', '1', 'Used', '{"n": 1}', headers => '{"a": "b"}', event_id => '01890a5d-ac96-774b-bcce-b302099a8060'$$,
    $$'order', '1', 'Used', '{"n": 2}', event_id => '01890a5d-ac96-774b-bcce-b302099a8061'$$
    ]) AS arguments;
COMMIT;

-- No context, or one that has no stream and is not to get one.
RESET sea_mq.context;
SELECT refusal($$SELECT sea_mq.emit('order', '1', 'A', '{}')$$);
SET sea_mq.auto_create_streams = off;
SELECT refusal($$SELECT sea_mq.emit('order', '1', 'A', '{}', context => 'unheard_of')$$);
RESET sea_mq.auto_create_streams;

-- Where nothing can be written.
BEGIN READ ONLY;
SAVEPOINT s;
\set VERBOSITY sqlstate
SELECT sea_mq.emit('order', '1', 'A', '{}', context => 'orders');
ROLLBACK TO s;
ROLLBACK;
\set VERBOSITY default

-- Many: one bad one and none is emitted, and the error says which.
SELECT refusal($$SELECT sea_mq.emit_many(NULL)$$);
SELECT refusal($$SELECT sea_mq.emit_many(ARRAY[NULL]::jsonb[])$$);
SELECT refusal($$SELECT sea_mq.emit_many(ARRAY['1']::jsonb[])$$);
SELECT refusal($$SELECT sea_mq.emit_many(ARRAY['{"aggregate_type": "order"}']::jsonb[])$$);
SELECT refusal($$SELECT sea_mq.emit_many(ARRAY['{"colour": "red"}']::jsonb[])$$);
SELECT refusal($$SELECT sea_mq.emit_many(ARRAY['{"aggregate_type": "order", "aggregate_id": 1.5, "event_type": "A", "payload": {}}']::jsonb[])$$);
SET sea_mq.context = 'orders';
SELECT sea_mq.emit_many(ARRAY[
    '{"aggregate_type": "order", "aggregate_id": "1", "event_type": "AllOrNone", "payload": {}}',
    '{"aggregate_type": "order", "aggregate_id": "1", "event_type": "a b", "payload": {}}']::jsonb[]);
SELECT count(*) FROM sea_mq.outbox_events WHERE event_type = 'all_or_none';

-- Streams and consumers.
SELECT command, refusal(format('SELECT sea_mq.%s', command)) FROM unnest(ARRAY[
    $$create_stream(NULL)$$,
    $$create_stream('')$$,
    $$create_stream('a.b')$$,
    $$create_stream('orders')$$,
    $$create_stream('fresh', name => 'ORDERS_EVENTS')$$,
    $$create_stream('fresh', name => 'a.b')$$,
    $$create_stream('fresh', name => '')$$,
    $$create_stream('fresh', kind => 'other')$$,
    $$create_stream('fresh', retention => 'forever')$$,
    $$create_stream('fresh', storage => 'tape')$$,
    $$create_stream('fresh', replicas => 0)$$,
    $$create_stream('fresh', replicas => 6)$$,
    $$create_stream('fresh', max_age => '-1 day')$$,
    $$create_stream('fresh', max_bytes => 0)$$,
    $$create_stream('fresh', max_msgs => -2)$$,
    $$create_stream('fresh', duplicate_window => '1 ms')$$,
    $$create_stream('fresh', body => 'xml')$$,
    $$create_stream('fresh', subjects => '{}')$$,
    $$create_stream('fresh', max_age => NULL)$$,
    $$alter_stream('NONE', max_msgs => 1)$$,
    $$alter_stream(NULL, max_msgs => 1)$$,
    $$alter_stream('ORDERS_EVENTS', replicas => 9)$$,
    $$drop_stream('NONE')$$,
    $$drop_stream('ORDERS_EVENTS')$$,
    $$create_consumer('nowhere')$$,
    $$create_consumer(NULL)$$,
    $$create_consumer('orders', name => 'a.b')$$,
    $$create_consumer('orders', max_deliver => 0)$$,
    $$create_consumer('orders', ack_wait => '0')$$,
    $$create_consumer('orders', deliver_policy => 'some')$$,
    $$drop_consumer('ORDERS_EVENTS', 'none')$$
    ]) AS command;
SELECT count(*) FROM sea_mq.streams WHERE context = 'fresh';
DROP FUNCTION refusal;
-- what the broker or the array's reader would refuse
-- (the message says how long, which depends on the time's digits)
\set VERBOSITY sqlstate
SELECT sea_mq.emit('order', '1', 'OrderCreated', '{}', context => 'orders',
    headers => (SELECT jsonb_object_agg('X-Many-' || n, repeat('x', 1000)) FROM generate_series(1, 70) n));
\set VERBOSITY default
SELECT sea_mq.emit('order', '1', 'OrderCreated', '{}', context => U&'orders\+10FFFF');
SELECT sea_mq.emit_many(ARRAY['{"aggregate_type": "order", "aggregate_id": "1", "event_type": "Due", "payload": 1, "available_at": "soon"}'::jsonb]);
-- a normal form is a name: as long as the name may become, it is the normal form that must fit
SELECT sea_mq.event_name(repeat('aB', 64));
SELECT length(sea_mq.event_name(sea_mq.event_name(repeat('aB', 42))));
-- the stream of a context has capitals that no locale changes
SELECT sea_mq.create_stream('ı'), sea_mq.create_stream('i');
