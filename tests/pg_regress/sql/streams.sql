-- Streams and consumers as they are described. There is no broker: nothing comes of it.
SELECT sea_mq.create_stream('Shipping');
SELECT sea_mq.create_stream('invoicing', 'BILLS', subjects => '{invoicing.event.>,invoicing.extra}', retention => 'interest',
    max_age => '1 day', max_bytes => 1000, max_msgs => 10, max_msg_size => 100, storage => 'memory', replicas => 3,
    duplicate_window => '1 minute', body => 'envelope', managed => false);
-- A dead-letter stream that is to be other than the default is described first.
SELECT sea_mq.create_stream('ledger', 'DEAD_ENTRIES', kind => 'dlq', max_age => '30 days');
SELECT sea_mq.create_stream('ledger');
SELECT name, context, kind, subjects, retention, max_age, max_bytes, max_msgs, max_msg_size, storage, replicas, duplicate_window,
    body, managed, owner = i.install_id AS ours
FROM sea_mq.streams, sea_mq.installation i WHERE context IN ('shipping', 'invoicing', 'ledger') ORDER BY name;

-- NULL leaves a setting as it is.
SELECT sea_mq.alter_stream('SHIPPING_EVENTS', max_age => '2 days', max_msgs => 20);
SELECT sea_mq.alter_stream('SHIPPING_EVENTS', max_msgs => 30);
SELECT max_age, max_msgs, max_bytes FROM sea_mq.streams WHERE name = 'SHIPPING_EVENTS';

SELECT sea_mq.create_consumer('shipping');
SELECT sea_mq.create_consumer('shipping', 'audit', filter => 'shipping.event.sent.>', ack_wait => '10 s', max_deliver => 3,
    max_ack_pending => 7, deliver_policy => 'new');
SELECT sea_mq.create_consumer('shipping', max_deliver => 5);
SELECT stream, name, filter, ack_wait, max_deliver, max_ack_pending, deliver_policy, state FROM sea_mq.consumers WHERE stream = 'SHIPPING_EVENTS' ORDER BY name;
SELECT sea_mq.drop_consumer('SHIPPING_EVENTS', 'audit');
SELECT name, state FROM sea_mq.consumers WHERE stream = 'SHIPPING_EVENTS' ORDER BY name;

-- Unpublished events keep their stream, unless they are given up.
SELECT sea_mq.emit('parcel', '1', 'Sent', '{}', context => 'shipping') IS NOT NULL AS emitted;
SELECT stream, pending, scheduled, failed, published FROM sea_mq.outbox_status WHERE context = 'shipping' ORDER BY stream;
SELECT s.status, s.error IS NOT NULL AS has_error, s.stream
FROM sea_mq.outbox_events e, sea_mq.event_status(e.id) s WHERE e.context = 'shipping';
SELECT sea_mq.drop_stream('SHIPPING_EVENTS');
SELECT sea_mq.drop_stream('SHIPPING_EVENTS', discard_pending => true);
SELECT name FROM sea_mq.streams WHERE context = 'shipping';
-- Consumers go with their stream.
SELECT count(*) FROM sea_mq.consumers WHERE stream = 'SHIPPING_EVENTS';
-- Described anew, it does not get what was given up.
SELECT sea_mq.create_stream('shipping');
SELECT stream, pending FROM sea_mq.outbox_status WHERE context = 'shipping' ORDER BY stream;
-- A change is part of its transaction.
BEGIN;
SELECT sea_mq.create_stream('undone');
ROLLBACK;
SELECT count(*) FROM sea_mq.streams WHERE context = 'undone';
-- Atomic batches are off unless they are wanted, and what is not said stays as it is.
SELECT sea_mq.create_stream('atoms', atomic_transactions => true);
SELECT sea_mq.alter_stream('ATOMS_EVENTS', max_msgs => 5);
SELECT stream, atomic_transactions, not_atomic, last_not_atomic FROM sea_mq.stream_status WHERE context = 'atoms' ORDER BY stream;
SELECT sea_mq.alter_stream('ATOMS_EVENTS', atomic_transactions => false);
SELECT name, atomic_transactions FROM sea_mq.streams WHERE context = 'atoms' ORDER BY name;
SELECT sea_mq.create_stream('neither', atomic_transactions => NULL);
-- The labels of messages.
SELECT sea_mq.create_stream('neither', metadata => 'headers');
SELECT sea_mq.alter_stream('ATOMS_EVENTS', metadata => 'all');
SELECT sea_mq.alter_stream('ATOMS_EVENTS', metadata => 'cloudevents');
SELECT name, metadata FROM sea_mq.streams WHERE context = 'atoms' ORDER BY name;
-- Two contexts never share a sink: not those whose names were made to have one simple hash …
SELECT sea_mq.create_stream('hq6nehk80yy4mqid'), sea_mq.create_stream('n4kk89x203ozp3ac');
SELECT count(DISTINCT sink) FROM sea_mq.streams WHERE context IN ('hq6nehk80yy4mqid', 'n4kk89x203ozp3ac');
-- … and where the id of one is another's (as if there were such names), neither its stream is described nor its events are taken.
INSERT INTO sea_mq.sinks VALUES (sea_mq.sink_id('twin', 'event'), 'original', 'event');
\set VERBOSITY sqlstate
SELECT sea_mq.create_stream('twin');
SELECT sea_mq.emit('a', '1', 'Done', '{}', context => 'twin') IS NOT NULL AS emitted;
\set VERBOSITY default
UPDATE sea_mq.streams SET context = 'original' WHERE context = 'hq6nehk80yy4mqid';
SELECT sea_mq.emit('a', '1', 'Done', '{}', context => 'hq6nehk80yy4mqid') IS NOT NULL AS emitted;
SELECT count(*) FROM sea_mq.outbox_events WHERE context IN ('twin', 'hq6nehk80yy4mqid');
