-- What operators ask: arguments, and what cannot be done. The answers themselves need a broker: tests/e2e.
\set SHOW_CONTEXT never
SELECT sea_mq.create_stream('operate');
SELECT sea_mq.create_stream('queue', retention => 'workqueue');

SELECT sea_mq.verify_stream(NULL);
SELECT sea_mq.verify_stream('NO_SUCH_STREAM');
SELECT sea_mq.verify_stream('OPERATE_DLQ');
SELECT sea_mq.verify_stream('QUEUE_EVENTS');
SELECT sea_mq.verify_stream('OPERATE_EVENTS');
\set VERBOSITY sqlstate
SET sea_mq.max_outbox_size = -1;
\set VERBOSITY default
SET sea_mq.max_outbox_size = '1GB';
SHOW sea_mq.max_outbox_size;
SELECT sea_mq.emit('order', '1', 'OrderCreated', '{}', context => 'operate') IS NOT NULL AS emitted;
RESET sea_mq.max_outbox_size;

SELECT sea_mq.republish(NULL);
SELECT sea_mq.republish('NO_SUCH_STREAM');
SELECT sea_mq.republish('OPERATE_DLQ');
SELECT sea_mq.republish('QUEUE_EVENTS');
SELECT sea_mq.republish('OPERATE_EVENTS', '2000-01-01', 1);
SELECT sea_mq.republish('OPERATE_EVENTS', from_seq => 0);
SELECT sea_mq.republish('OPERATE_EVENTS', 'infinity');
SELECT sea_mq.republish('OPERATE_EVENTS');
