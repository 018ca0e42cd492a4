-- Times and intervals beyond all use: each is refused with a hint, or is as good as the nearest that is of use. Without a broker.
SET sea_mq.context = 'bounds';
CREATE FUNCTION refusal(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
    result text;
BEGIN
    EXECUTE command INTO result;
    RETURN coalesce('accepted: ' || result, 'accepted');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || CASE hint WHEN '' THEN ' without a hint: ' || SQLERRM ELSE ' and a hint' END;
END $$;
SELECT sea_mq.stop() IS NOT NULL AS stopped;
SELECT sea_mq.create_stream('bounds');
SELECT sea_mq.subscribe('pull', 'bounds');
INSERT INTO sea_mq.inbox_pending (id, subscription, message_id, status, attempts, lease_until, event_type, subject, payload, event_at)
SELECT n, 'pull', 'm' || n, 'processing', 1, now() + interval '1 h', 'a', 'bounds.event.a.v1', '{}', now() FROM generate_series(1, 9) n;

-- Intervals, wherever one is taken.
SELECT command, value, refusal(format(command, value)) FROM unnest(ARRAY[
    'SELECT count(*) FROM sea_mq.receive(''pull'', 10, %L)',
    'SELECT sea_mq.extend_lease(1, %L) IS NOT NULL',
    'SELECT sea_mq.fail(2, ''no'', %L)',
    'SELECT count(*) FROM sea_mq.dlq_list(older_than => %L)',
    'SELECT sea_mq.dlq_replay_all(older_than => %L)',
    'SELECT sea_mq.create_stream(''c'', max_age => %L)',
    'SELECT sea_mq.create_stream(''c'', duplicate_window => %L)',
    'SELECT sea_mq.alter_stream(''BOUNDS_EVENTS'', max_age => %L)',
    'SELECT sea_mq.alter_stream(''BOUNDS_EVENTS'', duplicate_window => %L)',
    'SELECT sea_mq.create_consumer(''bounds'', ack_wait => %L)']) WITH ORDINALITY AS c (command, place),
    unnest(ARRAY['178000000 years', '-178000000 years', '-1 s', '0']) WITH ORDINALITY AS v (value, n)
ORDER BY place, n;

SELECT value, refusal(format('SELECT sea_mq.extend_lease(3, %L)', value)) FROM unnest(ARRAY[NULL, '1 day 1 s']) value;
SELECT value, refusal(format('SELECT sea_mq.fail(4, ''no'', %L)', value)) FROM unnest(ARRAY['366 days', '1 year']) value;
SELECT refusal('SELECT sea_mq.wait_published(gen_random_uuid(), ''178000000 years'')');

-- Times, wherever one is taken.
SELECT command, value, refusal(format(command, value)) FROM unnest(ARRAY[
    'SELECT sea_mq.emit(''o'', ''1'', ''A'', ''{}'', available_at => %L) IS NOT NULL',
    'SELECT count(*) FROM sea_mq.emit_many(ARRAY[jsonb_build_object(''aggregate_type'', ''o'', ''aggregate_id'', ''1'', ''event_type'', ''A'', ''payload'', 1, ''available_at'', %L::text)])',
    'INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload, available_at) VALUES (''o'', ''1'', ''A'', ''{}'', %L) RETURNING published',
    'SELECT sea_mq.republish(''BOUNDS_EVENTS'', %L)']) WITH ORDINALITY AS c (command, place),
    unnest(ARRAY['infinity', '-infinity', '294276-12-31', '4713-01-01 BC', 'epoch']) WITH ORDINALITY AS v (value, n)
ORDER BY place, n;
-- What was held back for ever is none.
SELECT count(*) FROM sea_mq.scheduled_events WHERE NOT isfinite(available_at);

-- Numbers.
SELECT command, refusal(command) FROM unnest(ARRAY[
    'SELECT sea_mq.receive(''pull'', 0)', 'SELECT sea_mq.receive(''pull'', -1)',
    'SELECT sea_mq.republish(''BOUNDS_EVENTS'', from_seq => 0)', 'SELECT sea_mq.republish(''BOUNDS_EVENTS'', from_seq => -1)',
    'SELECT sea_mq.create_stream(''c'', max_bytes => 0)', 'SELECT sea_mq.create_stream(''c'', max_bytes => -2)',
    'SELECT sea_mq.create_stream(''c'', max_msgs => 0)', 'SELECT sea_mq.create_stream(''c'', max_msg_size => -2)',
    'SELECT sea_mq.create_stream(''c'', replicas => 0)', 'SELECT sea_mq.create_stream(''c'', replicas => 6)',
    'SELECT sea_mq.create_consumer(''bounds'', max_deliver => 0)', 'SELECT sea_mq.create_consumer(''bounds'', max_ack_pending => 0)']) command;

-- Settings have bounds of their own.
-- From PostgreSQL 18 on, the bounds are told with their unit.
SELECT setting, regexp_replace(refusal(format('SELECT set_config(%L, %L, true)', setting, value)), '([0-9]) [A-Za-z]+( \.\.|\))', '\1\2', 'g') AS refusal FROM unnest(ARRAY['retention', 'inbox_retention', 'dlq_retention',
    'handler_timeout', 'retry_delay', 'retry_delay_max', 'poll_interval', 'ack_timeout', 'connect_timeout', 'max_outbox_size']) name
    CROSS JOIN unnest(ARRAY['-1', '2147483647']) value CROSS JOIN LATERAL (SELECT 'sea_mq.' || name AS setting) s;

DELETE FROM sea_mq.scheduled_events;
SELECT sea_mq.unsubscribe('pull');
SELECT sea_mq.drop_stream('BOUNDS_EVENTS', discard_pending => true);
SELECT sea_mq.drop_stream('BOUNDS_DLQ');
DROP FUNCTION refusal;
