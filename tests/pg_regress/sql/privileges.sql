-- What each role may do. A permission error shows as its SQLSTATE, 42501.
CREATE ROLE sea_mq_test_nobody;
CREATE ROLE sea_mq_test_producer IN ROLE sea_mq_producer;
CREATE ROLE sea_mq_test_operator IN ROLE sea_mq_operator;
CREATE ROLE sea_mq_test_monitor IN ROLE sea_mq_monitor;
CREATE ROLE sea_mq_test_consumer IN ROLE sea_mq_consumer;
CREATE FUNCTION public.attempt(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE command;
    RETURN 'yes';
EXCEPTION WHEN insufficient_privilege THEN RETURN 'no';
WHEN OTHERS THEN RETURN SQLSTATE;
END $$;
CREATE TABLE public.attempts (place int GENERATED ALWAYS AS IDENTITY, command text);
GRANT SELECT ON public.attempts TO PUBLIC;
INSERT INTO public.attempts (command) VALUES
    ($$SELECT sea_mq.emit('order', '1', 'OrderCreated', '{}', context => 'orders')$$),
    ($$SELECT sea_mq.emit_many(ARRAY['{"aggregate_type": "order", "aggregate_id": "1", "event_type": "A", "payload": {}, "context": "orders"}']::jsonb[])$$),
    ($$INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload, context) VALUES ('order', '1', 'A', '{}', 'orders')$$),
    ($$SELECT sea_mq.emit('order', '1', 'First', '{}', context => 'a_context_of_its_own')$$),
    ($$SELECT sea_mq.emit('order', '1', 'Held', '{}', context => 'orders', available_at => '2100-01-01')$$),
    ($$SELECT sea_mq.emit('order', '1', 'Given', '{}', context => 'orders', event_id => '01890a5d-ac96-774b-bcce-b302099a8070')$$),
    ($$SELECT * FROM sea_mq.pending_events()$$),
    ($$SELECT * FROM sea_mq.outbox_events$$),
    ($$SELECT * FROM sea_mq.status$$),
    ($$SELECT * FROM sea_mq.outbox_status$$),
    ($$SELECT * FROM sea_mq.relay_status$$),
    ($$SELECT * FROM sea_mq.stream_status$$),
    ($$SELECT * FROM sea_mq.problems$$),
    ($$SELECT * FROM sea_mq.event_status('01890a5d-ac96-774b-bcce-b302099a8070')$$),
    ($$SELECT * FROM sea_mq.install_report()$$),
    ($$SELECT sea_mq.create_stream('by_' || replace(current_user, 'sea_mq_test_', ''))$$),
    ($$SELECT sea_mq.alter_stream('ORDERS_EVENTS', max_msgs => 1000)$$),
    ($$SELECT sea_mq.create_consumer('orders')$$),
    ($$SELECT sea_mq.drop_consumer('ORDERS_EVENTS', 'orders__default')$$),
    ($$SELECT sea_mq.drop_stream('BY_OPERATOR_EVENTS')$$),
    ($$SELECT sea_mq.reload()$$),
    ($$SELECT sea_mq.stop()$$),
    ($$SELECT sea_mq.start()$$),
    ($$INSERT INTO sea_mq.outbox_log DEFAULT VALUES$$),
    ($$INSERT INTO sea_mq.outbox_log_0 DEFAULT VALUES$$),
    ($$UPDATE sea_mq.outbox_events SET payload = '1'$$),
    ($$DELETE FROM sea_mq.outbox_events$$),
    ($$DELETE FROM sea_mq.outbox_log$$),
    ($$TRUNCATE sea_mq.outbox_log$$),
    ($$SELECT nextval('sea_mq.outbox_seq')$$),
    ($$SELECT * FROM sea_mq.outbox_log$$),
    ($$SELECT * FROM sea_mq.installation$$),
    ($$UPDATE sea_mq.installation SET install_id = gen_random_uuid()$$),
    ($$UPDATE sea_mq.streams SET max_msgs = 1$$),
    ($$INSERT INTO sea_mq.cursor_log (slot) VALUES (0)$$),
    ($$SELECT sea_mq.describe_default_stream('x', 'event')$$),
    ($$SELECT sea_mq.restart_at_commit()$$),
    ($$SET sea_mq.context = 'orders'$$),
    ($$SET sea_mq.nats_url = 'nats://localhost'$$),
    ($$SHOW sea_mq.nats_url$$),
    ($$SHOW sea_mq.nats_password_file$$);
CREATE TABLE public.results (role text, place int, result text);
GRANT INSERT ON public.results TO PUBLIC;

SET ROLE sea_mq_test_nobody;
INSERT INTO results SELECT 'nobody', place, attempt(command) FROM attempts ORDER BY place;
SET ROLE sea_mq_test_producer;
INSERT INTO results SELECT 'producer', place, attempt(command) FROM attempts ORDER BY place;
SET ROLE sea_mq_test_consumer;
INSERT INTO results SELECT 'consumer', place, attempt(command) FROM attempts ORDER BY place;
SET ROLE sea_mq_test_monitor;
INSERT INTO results SELECT 'monitor', place, attempt(command) FROM attempts ORDER BY place;
SET ROLE sea_mq_test_operator;
INSERT INTO results SELECT 'operator', place, attempt(command) FROM attempts ORDER BY place;
RESET ROLE;

SELECT left(command, 60) AS command, max(result) FILTER (WHERE role = 'nobody') AS nobody,
    max(result) FILTER (WHERE role = 'producer') AS producer, max(result) FILTER (WHERE role = 'consumer') AS consumer,
    max(result) FILTER (WHERE role = 'monitor') AS monitor, max(result) FILTER (WHERE role = 'operator') AS operator
FROM attempts JOIN results USING (place) GROUP BY place, command ORDER BY place;

-- The log has what the producer emitted, and the streams of the contexts that were new.
SELECT count(*) FROM sea_mq.outbox_events WHERE id = '01890a5d-ac96-774b-bcce-b302099a8070';
SELECT name FROM sea_mq.streams WHERE context = 'a_context_of_its_own' ORDER BY name;

DROP TABLE attempts, results;
DROP FUNCTION attempt;
DROP ROLE sea_mq_test_nobody, sea_mq_test_producer, sea_mq_test_operator, sea_mq_test_monitor, sea_mq_test_consumer;
