-- What subscribe and its like accept, refuse and describe; without a broker and without a worker that handles.
SET sea_mq.context = 'shipping';
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
CREATE FUNCTION handle(event sea_mq.event) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION returns_a_set(event sea_mq.event) RETURNS SETOF integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION returns_a_table(event sea_mq.event) RETURNS TABLE (n integer) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION sets_of_out(event sea_mq.event, OUT a integer, OUT b integer) RETURNS SETOF record LANGUAGE sql AS 'SELECT 1, 2';
CREATE FUNCTION many(VARIADIC events sea_mq.event[]) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION anything(event anyelement) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION with_more(event sea_mq.event, more integer DEFAULT 1) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION of_triggers() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE PROCEDURE a_procedure(event sea_mq.event) LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION next_of(state integer, event sea_mq.event) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE an_aggregate(sea_mq.event) (SFUNC = next_of, STYPE = integer, INITCOND = '0');
CREATE FUNCTION returns_a_value(event sea_mq.event) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION returns_a_record(event sea_mq.event) RETURNS record LANGUAGE sql AS 'SELECT 1, 2';
CREATE FUNCTION with_out(event sea_mq.event, OUT a integer, OUT b text) LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION in_and_out(INOUT event sea_mq.event) LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION not_a_handler(event jsonb) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
SELECT sea_mq.stop() IS NOT NULL AS stopped;

SELECT arguments, refusal(format('SELECT sea_mq.subscribe(%s)', arguments)) FROM unnest(ARRAY[
    -- missing
    $$NULL, 'orders'$$,
    $$'a', NULL$$,
    $$'a', 'orders', start_from => NULL$$,
    -- what NATS cannot carry
    $$'a.b', 'orders'$$,
    $$'a b', 'orders'$$,
    $$'', 'orders'$$,
    $$'a', 'orders', filter => 'order.>.x'$$,
    $$'a', 'orders', filter => 'a b'$$,
    $$'a', 'orders', filter => ''$$,
    -- out of range
    $$'a', 'orders', max_deliver => 0$$,
    $$'a', 'orders', ack_wait => '1 ms'$$,
    $$'a', 'orders', max_ack_pending => 0$$,
    $$'a', 'orders', workers => 0$$,
    $$'a', 'orders', workers => 7$$,
    $$'a', 'orders', timeout => '0'$$,
    $$'a', 'orders', timeout => '1 day 1 ms'$$,
    $$'a', 'orders', timeout => '-1 s'$$,
    $$'a', 'orders', timeout => '178000000 years'$$,
    $$'a', 'orders', ack_wait => '178000000 years'$$,
    $$'a', 'orders', retry_delay => '-1 s'$$,
    $$'a', 'orders', retry_delay => '2 days'$$,
    $$'a', 'orders', retry_delay_max => '178000000 years'$$,
    $$'a', 'orders', start_from => 'infinity'$$,
    $$'a', 'orders', start_from => '-infinity'$$,
    $$'a', 'orders', start_from => '294276-12-31'$$,
    $$'a', 'orders', start_from => '2262-01-01 00:00:00+00'$$,
    $$'a', 'orders', start_from => '4713-01-01 00:00:00 BC'$$,
    $$'a', 'orders', start_from => '1969-12-31 23:59:59+00'$$,
    $$'a', 'orders', start_from => '2020-02-30'$$,
    $$'a', 'orders', start_from => '2020-01-01 00:00:00+99'$$,
    $$'a', 'orders', start_from => '2020-01-01 00:00:00 Nowhere/Town'$$,
    $$'a', 'orders', start_from => '-1'$$,
    $$'a', 'orders', start_from => '1.5'$$,
    $$'a', 'orders', start_from => 'NaN'$$,
    $$'a', 'orders', start_from => ''$$,
    $$'a', 'orders', start_from => 'yesterdayish'$$,
    $$'a', 'orders', start_from => '0'$$,
    $$'a', 'orders', start_from => '99999999999999999999'$$,
    -- no handler
    $$'a', 'orders', 'not_a_handler'$$,
    $$'a', 'orders', 'returns_a_set'$$,
    $$'a', 'orders', 'returns_a_table'$$,
    $$'a', 'orders', 'sets_of_out'$$,
    $$'a', 'orders', 'many'$$,
    $$'a', 'orders', 'anything'$$,
    $$'a', 'orders', 'with_more'$$,
    $$'a', 'orders', 'of_triggers'$$,
    $$'a', 'orders', 'a_procedure'$$,
    $$'a', 'orders', 'an_aggregate'$$,
    $$'a', 'orders', 'now'$$,
    $$'a', 'orders', 'nowhere'$$]) arguments;
SELECT count(*) FROM sea_mq.subscriptions;

-- What a handler returns, if it is no set, is nobody's business; and the bounds themselves are within them.
BEGIN;
SELECT arguments, refusal(format('SELECT sea_mq.subscribe(%s)', arguments)) FROM unnest(ARRAY[
    $$'a1', 'orders', 'returns_a_value'$$,
    $$'a2', 'orders', 'returns_a_record'$$,
    $$'a3', 'orders', 'with_out'$$,
    $$'a4', 'orders', 'in_and_out'$$,
    $$'a5', 'orders', timeout => '1 day', ack_wait => '1 day', retry_delay => '1 day', retry_delay_max => '1 day'$$,
    $$'a6', 'orders', timeout => '1 ms', ack_wait => '1 s', retry_delay => '0', retry_delay_max => '0'$$,
    $$'a7', 'orders', start_from => '1970-01-01 00:00:00+00'$$,
    $$'a8', 'orders', start_from => '2261-12-31 23:59:59+00'$$,
    $$'a9', 'orders', start_from => 'now'$$,
    $$'a10', 'orders', start_from => '9223372036854775807'$$]) arguments;
SELECT arguments, refusal(format('SELECT sea_mq.alter_subscription(%s)', arguments)) FROM unnest(ARRAY[
    $$'a1', timeout => '2 days'$$,
    $$'a1', ack_wait => '0'$$,
    $$'a1', retry_delay => '-1 s'$$,
    $$'a1', retry_delay_max => '178000000 years'$$,
    $$'a1', 'returns_a_table'$$]) arguments;
ROLLBACK;

-- Sources and filters, as they are understood.
SELECT sea_mq.create_stream('books', name => 'COINS');
SELECT sea_mq.subscribe('s1', 'orders', 'handle');
SELECT sea_mq.subscribe('s2', 'orders', 'handle', filter => 'OrderCreated');
SELECT sea_mq.subscribe('s3', 'orders', 'handle', filter => 'order_created.v2');
SELECT sea_mq.subscribe('s4', 'orders', filter => 'orders.event.*.v1', start_from => '42');
SELECT sea_mq.subscribe('s5', 'books', start_from => '2030-01-02 03:04:05+00');
SELECT sea_mq.subscribe('s6', 'COINS', start_from => 'all', context => 'Audit');
SELECT sea_mq.subscribe('s7', 'FOREIGN_STREAM', filter => 'what.ever.>');
SELECT subscription, stream, source_context, subject_filter, handler, context, start_sequence,
    CASE WHEN start_from <> 'new' THEN start_at AT TIME ZONE 'UTC' END AS start_at
FROM sea_mq.subscriptions WHERE start_from <> 'new' OR handler IS NOT NULL ORDER BY subscription COLLATE "C";

-- The same again is nothing new; another of the same name is refused.
SELECT sea_mq.subscribe('s2', 'orders', 'handle', filter => 'OrderCreated');
SELECT refusal($$SELECT sea_mq.subscribe('s2', 'orders', 'handle')$$);

SELECT sea_mq.alter_subscription('s2', filter => 'order_paid', max_deliver => -1, workers => 3);
SELECT sea_mq.pause_subscription('s2');
SELECT filter, subject_filter, max_deliver, workers, paused FROM sea_mq.subscriptions WHERE subscription = 's2';
SELECT sea_mq.resume_subscription('s2');
SELECT subscription, state FROM sea_mq.subscription_status ORDER BY subscription COLLATE "C";
SELECT subscriptions, received, processed FROM sea_mq.inbox_status;
SELECT sea_mq.unsubscribe('s2');

SELECT command, refusal(command) FROM unnest(ARRAY[
    $$SELECT sea_mq.unsubscribe('nobody')$$,
    $$SELECT sea_mq.alter_subscription('nobody')$$,
    $$SELECT sea_mq.alter_subscription('s1', workers => 9)$$,
    $$SELECT sea_mq.pause_subscription('nobody')$$,
    $$SELECT * FROM sea_mq.receive('nobody')$$,
    $$SELECT * FROM sea_mq.receive('s1')$$,
    $$SELECT * FROM sea_mq.receive('s4', 0)$$,
    $$SELECT * FROM sea_mq.receive('s4', 1, '0')$$,
    $$SELECT sea_mq.complete(1)$$,
    $$SELECT sea_mq.fail(1, 'x')$$,
    $$SELECT sea_mq.reject(1, 'x')$$,
    $$SELECT sea_mq.extend_lease(1)$$,
    $$SELECT sea_mq.inbox_accept(NULL, 'orders', 'OrderCreated', '{}', 's')$$,
    $$SELECT sea_mq.poison('no good')$$,
    $$SELECT sea_mq.skip('no need')$$,
    $$SELECT sea_mq.dlq_replay(0)$$,
    $$SELECT sea_mq.dlq_discard(0, 'x')$$]) command;

-- inbox_accept: once for each message and subscription.
SELECT sea_mq.inbox_accept('m1', 'orders', 'OrderCreated', '{"n": 1}', 'own');
SELECT sea_mq.inbox_accept('m1', 'orders', 'OrderCreated', '{"n": 1}', 'own');
SELECT sea_mq.inbox_accept('m1', 'orders', 'OrderCreated', '{"n": 1}', 'other');
BEGIN;
SELECT sea_mq.inbox_accept('m2', 'orders', 'OrderCreated', '{"n": 2}', 'own');
ROLLBACK;
SELECT sea_mq.inbox_accept('m2', 'orders', 'OrderCreated', '{"n": 2}', 'own');
SELECT message_id, subscription, source_context, event_type, subject, payload, status, processed, attempts
FROM sea_mq.inbox_messages WHERE subscription IN ('own', 'other') ORDER BY id;

-- Whose a subscription is.
CREATE ROLE regress_app IN ROLE sea_mq_consumer;
CREATE ROLE regress_other IN ROLE sea_mq_consumer;
CREATE ROLE regress_operator IN ROLE sea_mq_operator;
GRANT ALL ON SCHEMA public TO regress_app;
SET ROLE regress_app;
CREATE FUNCTION app_handle(event sea_mq.event) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
SELECT sea_mq.subscribe('app', 'orders', 'app_handle');
SELECT refusal($$INSERT INTO sea_mq.subscriptions (subscription, source, stream, subject_filter, handler, owner, context, priority,
    max_deliver, ack_wait, max_ack_pending, start_from, workers)
    SELECT 'evil', source, stream, subject_filter, handler, 'postgres', context, priority, max_deliver, ack_wait, max_ack_pending,
    start_from, workers FROM sea_mq.subscriptions WHERE subscription = 'app'$$);
SELECT refusal($$SELECT sea_mq.alter_subscription('app', owner => 'postgres')$$);
SELECT refusal($$SELECT sea_mq.alter_subscription('s1', handler => 'app_handle')$$);
SELECT refusal($$SELECT sea_mq.unsubscribe('s1')$$);
SET ROLE regress_other;
SELECT refusal($$SELECT sea_mq.pause_subscription('app')$$);
SET ROLE regress_operator;
SELECT refusal($$SELECT sea_mq.pause_subscription('app')$$);
SELECT refusal($$SELECT sea_mq.alter_subscription('app', handler => 'handle')$$);
RESET ROLE;
-- A superuser's subscription runs as the owner of the function.
SELECT sea_mq.subscribe('super', 'orders', 'app_handle');
SELECT subscription, owner, paused FROM sea_mq.subscriptions WHERE subscription IN ('app', 'super', 's1') ORDER BY 1;
SELECT sea_mq.unsubscribe('app'), sea_mq.unsubscribe('super');
DROP OWNED BY regress_app;
DROP ROLE regress_app, regress_other, regress_operator;
