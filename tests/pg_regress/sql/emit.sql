-- What emit keeps until the commit, and what the log has afterwards. There is no broker: nothing is published.
SET sea_mq.context = 'Sales';

-- Names are normalised; what is left out has defaults.
BEGIN;
SELECT sea_mq.emit('order', '1', 'OrderCreated', '{"total": 1.50}') IS NOT NULL AS emitted;
SELECT sea_mq.emit('order', '1', 'order_created', '{"total": 2}', event_version => 2) IS NOT NULL AS emitted;
SELECT sea_mq.emit('order', '2', 'orderCreated', 'null', context => 'BackOffice', headers => '{"X-Tenant": "acme"}',
    correlation_id => 'corr', causation_id => 'cause', visibility => 'public',
    event_id => '01890a5d-ac96-774b-bcce-b302099a8057') AS id;
SELECT context, subject, aggregate_type, aggregate_id, event_type, event_version, payload, headers, available_at
FROM sea_mq.pending_events();
SELECT count(*) FROM sea_mq.outbox_events WHERE context = 'sales';
COMMIT;
SELECT count(*) FROM sea_mq.pending_events();
SELECT context, subject, aggregate_type, aggregate_id, payload, headers, correlation_id = id::text AS correlated_with_itself,
    causation_id, visibility, published
FROM sea_mq.outbox_events WHERE context IN ('sales', 'back_office') ORDER BY seq;

-- The first event of a context describes its streams.
SELECT name, context, kind, subjects, retention, max_age, max_bytes, max_msgs, max_msg_size, storage, replicas, duplicate_window,
    body, managed
FROM sea_mq.streams WHERE context IN ('sales', 'back_office') ORDER BY name;

SELECT sea_mq.event_name(name) FROM unnest(ARRAY['OrderCreated', 'order_created', 'HTTPRequestSent', 'a-b']) AS name;
SELECT sea_mq.context_name('BackOffice');

-- Savepoints take their events with them.
BEGIN;
SELECT sea_mq.emit('order', '3', 'Kept', '1') IS NOT NULL AS emitted;
SAVEPOINT a;
SELECT sea_mq.emit('order', '3', 'Lost', '2') IS NOT NULL AS emitted;
SAVEPOINT b;
SELECT sea_mq.emit('order', '3', 'Lost', '3') IS NOT NULL AS emitted;
RELEASE b;
ROLLBACK TO a;
SELECT sea_mq.emit('order', '3', 'Kept', '4') IS NOT NULL AS emitted;
SELECT event_type, payload FROM sea_mq.pending_events();
COMMIT;
BEGIN;
SELECT sea_mq.emit('order', '3', 'Lost', '5') IS NOT NULL AS emitted;
ROLLBACK;
SELECT event_type, payload FROM sea_mq.outbox_events WHERE context = 'sales' AND aggregate_id = '3' ORDER BY seq;

-- An id given by the caller makes emit idempotent: within a transaction and after it.
BEGIN;
SELECT sea_mq.emit('order', '4', 'OrderPaid', '{"a": 1, "b": 2}', event_id => '01890a5d-ac96-774b-bcce-b302099a8058') AS id;
SELECT sea_mq.emit('order', '4', 'OrderPaid', '{"b": 2, "a": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8058') AS id;
COMMIT;
SELECT sea_mq.emit('order', '4', 'OrderPaid', '{"a": 1, "b": 2}', event_id => '01890a5d-ac96-774b-bcce-b302099a8058') AS id;
SELECT count(*) FROM sea_mq.outbox_events WHERE context = 'sales' AND aggregate_id = '4';
-- One that was rolled back was never used.
BEGIN;
SELECT sea_mq.emit('order', '5', 'OrderPaid', '1', event_id => '01890a5d-ac96-774b-bcce-b302099a8059') AS id;
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT sea_mq.emit('order', '5', 'OrderPaid', '2', event_id => '01890a5d-ac96-774b-bcce-b302099a8059') AS id;
ROLLBACK TO a;
SELECT sea_mq.emit('order', '5', 'OrderPaid', '3', event_id => '01890a5d-ac96-774b-bcce-b302099a8059') AS id;
COMMIT;
SELECT payload FROM sea_mq.outbox_events WHERE context = 'sales' AND aggregate_id = '5';

-- Many at once, in order; their keys are emit's parameters.
SELECT count(*) FROM sea_mq.emit_many(ARRAY[
    '{"aggregate_type": "order", "aggregate_id": "6", "event_type": "OrderCreated", "payload": {"n": 1}}',
    '{"aggregate_type": "order", "aggregate_id": "6", "event_type": "OrderPaid", "payload": null, "event_version": 3,
      "headers": {"X-Tenant": "acme"}, "visibility": "partner", "correlation_id": "c"}'
    ]::jsonb[]);
SELECT sea_mq.emit_many('{}');
SELECT subject, payload, headers, visibility FROM sea_mq.outbox_events WHERE context = 'sales' AND aggregate_id = '6' ORDER BY seq;

-- The view takes a plain INSERT, and nothing else.
INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)
SELECT 'order', '7', 'OrderCreated', to_jsonb(n) FROM generate_series(1, 2) AS n
RETURNING aggregate_id, id IS NOT NULL AS has_id;
SELECT subject, payload, visibility FROM sea_mq.outbox_events WHERE context = 'sales' AND aggregate_id = '7' ORDER BY seq;
UPDATE sea_mq.outbox_events SET payload = '3' WHERE aggregate_id = '7';
DELETE FROM sea_mq.outbox_events WHERE aggregate_id = '7';

-- Held back: stored now, in the log when its time comes.
SELECT sea_mq.emit('order', '8', 'OrderDue', '{}', available_at => '2100-01-01') IS NOT NULL AS emitted;
SELECT sea_mq.emit('order', '8', 'OrderLate', '{}', available_at => '2000-01-01') IS NOT NULL AS emitted;
SELECT event_type, seq IS NULL AS held_back, available_at FROM sea_mq.outbox_events WHERE context = 'sales' AND aggregate_id = '8' ORDER BY event_type;

-- What the session says of correlation, causation and trace counts where emit is not told.
SET sea_mq.correlation_id = 'session';
SET sea_mq.causation_id = 'command';
SET sea_mq.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
SELECT sea_mq.emit('order', '9', 'Defaulted', '{}') IS NOT NULL AS emitted;
SELECT sea_mq.emit('order', '9', 'Told', '{}', correlation_id => 'own', causation_id => 'mine', headers => '{"traceparent": "x"}')
    IS NOT NULL AS emitted;
RESET ALL;
SELECT event_type, correlation_id, causation_id, headers FROM sea_mq.outbox_events WHERE context = 'sales' AND aggregate_id = '9' ORDER BY seq;

-- From functions and triggers, SQL and PL/pgSQL.
CREATE TABLE bills (id int, total int);
CREATE FUNCTION bill_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM sea_mq.emit('bill', NEW.id::text, 'Bill' || initcap(TG_OP), to_jsonb(NEW), context => 'billing');
    RETURN NULL;
END $$;
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON bills FOR EACH ROW EXECUTE FUNCTION bill_changed();
INSERT INTO bills VALUES (1, 10), (2, 20);
UPDATE bills SET total = 30 WHERE id = 2;
SELECT subject, payload FROM sea_mq.outbox_events WHERE context = 'billing' ORDER BY seq;
DROP TABLE bills;
DROP FUNCTION bill_changed;
