-- Subscriptions that an HTTP service handles: who names an endpoint, what is taken, and what an answer does. The calls themselves are
-- tested end to end.
CREATE ROLE sea_mq_hh_operator IN ROLE sea_mq_operator, sea_mq_consumer, sea_mq_producer;
CREATE ROLE sea_mq_hh_clerk IN ROLE sea_mq_consumer;
SET ROLE sea_mq_hh_operator;
SELECT sea_mq.create_endpoint('hh_api', 'http', 'https://hh.example/orders', filter => '{}', audience => 'internal');
SELECT count(*) FROM sea_mq.endpoints WHERE endpoint = 'hh_api' AND subject_filters = '{}';
SELECT sea_mq.subscribe('hh__orders', 'hh_orders', endpoint => 'hh_api', context => 'hh', retry_delay => '1 h', retry_delay_max => '1 h');
SELECT sea_mq.subscribe('hh__orders', 'hh_orders', endpoint => 'hh_api', context => 'hh', retry_delay => '1 h', retry_delay_max => '1 h') AS the_same;
-- Nothing is called while it is paused.
SELECT sea_mq.pause_subscription('hh__orders');
SELECT subscription, handler, endpoint, state FROM sea_mq.subscription_status WHERE subscription = 'hh__orders';
\set VERBOSITY sqlstate
SELECT sea_mq.subscribe('hh__other', 'hh_orders', endpoint => 'nobody', context => 'hh');
SELECT sea_mq.receive('hh__orders');
SELECT sea_mq.drop_endpoint('hh_api');
SELECT sea_mq.alter_subscription('hh__orders', endpoint => 'nobody');
SET ROLE sea_mq_hh_clerk;
SELECT sea_mq.subscribe('hh__other', 'hh_orders', endpoint => 'hh_api', context => 'hh');
SELECT sea_mq.alter_subscription('hh__orders', endpoint => 'hh_api');
RESET ROLE;
CREATE FUNCTION public.hh_handler(event sea_mq.event) RETURNS void LANGUAGE sql AS '';
SELECT sea_mq.subscribe('hh__both', 'hh_orders', 'public.hh_handler', endpoint => 'hh_api', context => 'hh');
SELECT sea_mq.subscribe('hh__function', 'hh_orders', 'public.hh_handler', context => 'hh');
SELECT sea_mq.alter_subscription('hh__function', endpoint => 'hh_api');
SELECT sea_mq.alter_subscription('hh__orders', handler => 'public.hh_handler');
\set VERBOSITY default

-- Of each aggregate the oldest that is not done.
INSERT INTO sea_mq.inbox_pending (id, subscription, message_id, status, source_context, event_type, event_version, subject, aggregate_type, aggregate_id,
    payload, headers, event_at)
SELECT 1000000 + n, 'hh__orders', 'hh-' || n, 'received', 'hh_orders', 'order_created', 1, 'hh_orders.event.order_created.v1', 'order', (n % 3)::text,
    jsonb_build_object('n', n), jsonb_build_object('X-Correlation-Id', 'c-' || n, 'X-Sea-Visibility', CASE n WHEN 8 THEN 'sensitive' ELSE 'internal' END,
        'traceparent', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'), '2026-01-02 03:04:05.678+00'
FROM generate_series(0, 8) n;
CREATE FUNCTION pg_temp.take(max bigint) RETURNS TABLE (message_id text, attempt integer, body text, headers jsonb) LANGUAGE sql AS $$
    SELECT t.message_id, t.attempt, t.body, t.headers::jsonb FROM sea_mq.take_calls('hh__orders', (SELECT e.id FROM sea_mq.endpoints e WHERE e.endpoint = 'hh_api'), max,
        (SELECT coalesce(array_agg(p.id), '{}')::text FROM sea_mq.inbox_pending p WHERE p.status = 'processing'), 0) t
    ORDER BY t.id
$$;
CREATE FUNCTION pg_temp.answer(n integer, answer jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM sea_mq.record_calls(jsonb_build_array(answer || jsonb_build_object('id', 1000000 + n))::text);
    RETURN (SELECT concat_ws(' ', m.status, m.attempts, m.processing_error) FROM sea_mq.inbox_messages m
        WHERE m.subscription = 'hh__orders' AND m.message_id = 'hh-' || n);
END $$;
SELECT message_id, attempt, body FROM pg_temp.take(2);
SELECT headers FROM pg_temp.take(10);
SELECT count(*) FROM pg_temp.take(10);
SELECT sea_mq.next_call('hh__orders') IS NULL AS nothing_is_due;
-- What an answer does.
SELECT pg_temp.answer(0, '{"outcome": "processed", "events": [
    {"aggregate_type": "invoice", "aggregate_id": "i-0", "event_type": "InvoiceMade", "payload": {}},
    {"aggregate_type": "invoice", "aggregate_id": "i-1", "event_type": "InvoiceMade", "payload": {}, "context": "hh_other", "correlation_id": "own"}]}');
SELECT aggregate_id, context, correlation_id, causation_id FROM sea_mq.outbox_events WHERE event_type = 'invoice_made' AND context LIKE 'hh%' ORDER BY seq;
SELECT pg_temp.answer(1, '{"outcome": "skip", "reason": "not ours"}');
SELECT pg_temp.answer(2, '{"outcome": "back", "reason": "HTTP 404"}');
SELECT message_id, attempt FROM pg_temp.take(10);
SELECT pg_temp.answer(2, '{"outcome": "poison", "reason": "no such customer", "detail": "why"}');
SELECT pg_temp.answer(3, '{"outcome": "processed", "events": [{"event_type": "X"}]}');
SELECT pg_temp.answer(4, '{"outcome": "retry", "reason": "busy", "retry_in": 7200}');
SELECT message_id, date_trunc('hour', next_attempt_at - now() + interval '1 min') AS next FROM sea_mq.inbox_messages WHERE message_id = 'hh-4';
SELECT sea_mq.next_call('hh__orders') BETWEEN 1000 AND 3600000 AS later;
-- One that failed holds up its aggregate; the others go on.
SELECT message_id, attempt FROM pg_temp.take(10);
SELECT pg_temp.answer(5, '{"outcome": "retry", "reason": "busy", "retry_in": "no interval"}');
-- What was under way is given back; what its audience may not see is skipped.
UPDATE sea_mq.inbox_pending SET due_at = 'epoch' WHERE subscription = 'hh__orders';
SELECT count(*) FROM pg_temp.take(10);
SELECT sea_mq.give_back_calls();
SELECT message_id, attempt FROM pg_temp.take(10);
SELECT pg_temp.answer(5, '{"outcome": "processed"}');
SELECT message_id, attempt FROM pg_temp.take(10);
SELECT message_id, status, processing_error FROM sea_mq.inbox_messages WHERE message_id = 'hh-8';
SELECT subscription, message_id, reason, error FROM sea_mq.dlq_list(subscription => 'hh__orders');
-- Whoever subscribed must be allowed to emit.
SELECT pg_temp.answer(3, '{"outcome": "back"}');
REVOKE sea_mq_producer FROM sea_mq_hh_operator;
SELECT message_id FROM pg_temp.take(10);
SELECT pg_temp.answer(3, '{"outcome": "processed", "events": [{"aggregate_type": "a", "aggregate_id": "1", "event_type": "X", "payload": {}}]}');
SELECT sea_mq.unsubscribe('hh__orders'), sea_mq.unsubscribe('hh__function');
SELECT sea_mq.drop_endpoint('hh_api');
DROP FUNCTION public.hh_handler;
DROP ROLE sea_mq_hh_operator, sea_mq_hh_clerk;
