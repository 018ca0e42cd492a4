-- The inbound edge: partners' messages become events that keep their contract, once each, or dead letters with a reason.
SET sea_mq.context = 'billing';
SELECT sea_mq.register_event('billing', 'PaymentSettled', 1, '{"type": "object", "required": ["order", "total"], "additionalProperties": false,
    "properties": {"order": {"type": "string"}, "total": {"type": "number", "exclusiveMinimum": 0}, "via": {"const": "acme$"},
        "skus": {"type": "array"}, "lines": {"type": "array", "items": {"type": "object", "required": ["sku"]}}}}', 'internal');

SELECT sea_mq.register_mapping('acme', 'settled', '$.type == "settled"', 'PaymentSettled', 'payment', '$.data.ref',
    '{"order": "$.data.order", "total": "$.data.amount.value", "via": "acme$", "skus": {"$array": "$.data.items[*].sku"},
      "lines": {"$array": "$.data.items[*]", "of": {"sku": "$.sku", "note": "$.note"}}}', correlation_id => '$.trace');
SELECT sea_mq.register_mapping('acme', 'any', '$ ? (exists (@.type))', 'PaymentSettled', 'payment', '$.id', '{"order": 1}', priority => -1);
SELECT partner, mapping, context, event_type, event_version FROM sea_mq.partner_mappings ORDER BY 1, 2;

-- What is no mapping.
SELECT sea_mq.register_mapping('acme', 'x', '$.a == 1', 'Unheard', 'payment', '$.id', '{}');
SELECT sea_mq.register_mapping('acme', 'x', '$.a == 1', 'PaymentSettled', 'payment', '$.id', '{"a": ["$.b ??"]}');
SELECT sea_mq.register_mapping('acme', 'x', '$.a ==', 'PaymentSettled', 'payment', '$.id', '{}');
SELECT sea_mq.register_mapping('a b', 'x', '$.a == 1', 'PaymentSettled', 'payment', '$.id', '{}');
SELECT sea_mq.drop_mapping('acme', 'x');

SELECT sea_mq.map_fields('{"a": "$.x", "b": "$.none", "c": "$$5", "d": [1, "$.x.y"], "e": null, "f": {"$array": "$.none"}}', '{"x": {"y": 1.50}}');

-- An event, and the same again.
BEGIN;
SELECT sea_mq.ingest('acme', '{"id": "m1", "type": "settled", "trace": "t-1", "data": {"ref": 77, "order": "o-1", "amount": {"value": 12.50},
    "items": [{"sku": "a", "note": "n"}, {"sku": "b"}]}}',
    headers => '{"Content-Type": "application/json", "ce-id": "m1", "X-Tenant": "t"}') IS NOT NULL AS ingested;
SELECT subject, aggregate_type, aggregate_id, payload, headers FROM sea_mq.pending_events();
COMMIT;
SELECT correlation_id FROM sea_mq.outbox_events WHERE event_type = 'payment_settled';
SELECT sea_mq.ingest('acme', '{"id": "m1", "type": "settled"}') = (SELECT id FROM sea_mq.outbox_events WHERE event_type = 'payment_settled') AS the_same;
SELECT sea_mq.ingest('acme', '{"type": "settled"}', 'm1') = (SELECT id FROM sea_mq.outbox_events WHERE event_type = 'payment_settled') AS the_same;
SELECT count(*) FROM sea_mq.outbox_events WHERE event_type = 'payment_settled';

-- What cannot become an event is a dead letter, once.
SELECT sea_mq.ingest('acme', '{"id": "m2", "type": "settled", "data": {"ref": 78, "order": "o-2", "amount": {"value": 0}}}');
SELECT sea_mq.ingest('acme', '{"id": "m2", "type": "settled", "data": {"ref": 78, "order": "o-2", "amount": {"value": 0}}}');
SELECT sea_mq.ingest('acme', '{"id": "m3", "type": "settled", "data": {"order": "o-3", "amount": {"value": 3}}}');
SELECT sea_mq.ingest('acme', '{"id": "m4", "type": "other"}');
SELECT sea_mq.ingest('acme', '{"hello": "world"}');
SELECT sea_mq.ingest('acme', '{"hello": "world"}');
SELECT sea_mq.ingest('nobody', '7', correlation_id => 'c-7');
SELECT sea_mq.ingest('a b', '7');
SELECT sea_mq.ingest('acme', NULL);
SELECT original_subject, subscription, CASE WHEN message_id LIKE 'sha256:%' THEN 'sha256' ELSE message_id END AS message_id, reason, failure_count, error, payload
FROM sea_mq.dlq_list() WHERE subscription LIKE 'ingest:%' ORDER BY id;

-- Mended and replayed it becomes an event; replayed as it is, it comes back with its history.
SELECT sea_mq.dlq_replay(id, '{"type": "settled", "data": {"ref": 78, "order": "o-2", "amount": {"value": 2}}}') IS NOT NULL AS replayed
FROM sea_mq.dlq_list() WHERE message_id = 'm2';
SELECT sea_mq.dlq_replay(id) IS NOT NULL AS replayed FROM sea_mq.dlq_list() WHERE message_id = 'm3';
SELECT o.payload, o.headers - 'X-Replayed-From' AS headers, o.headers ->> 'X-Replayed-From' AS replayed_from, o.id = d.replay_event_id AS same_id
FROM sea_mq.outbox_events o, sea_mq.dlq_messages d WHERE o.aggregate_id = '78' AND d.message_id = 'm2';
SELECT jsonb_array_length(errors) AS errors, error FROM sea_mq.dlq_list() WHERE payload ->> 'id' = 'm3' ORDER BY id DESC LIMIT 1;

-- In the application's own transaction: what is rolled back was never ingested.
BEGIN;
SELECT sea_mq.ingest('acme', '{"id": "m9", "type": "settled", "data": {"ref": 9, "order": "o-9", "amount": {"value": 9}}}') IS NOT NULL AS ingested;
ROLLBACK;
SELECT sea_mq.ingest('acme', '{"id": "m9", "type": "settled", "data": {"ref": 9, "order": "o-9", "amount": {"value": 9}}}') IS NOT NULL AS ingested;

-- A producer may ingest, and neither map nor read.
CREATE ROLE ingest_producer IN ROLE sea_mq_producer;
SET ROLE ingest_producer;
SELECT sea_mq.ingest('acme', '{"id": "m10", "type": "settled", "data": {"ref": 10, "order": "o-10", "amount": {"value": 10}}}') IS NOT NULL AS ingested;
SELECT sea_mq.register_mapping('acme', 'x', '$.a == 1', 'PaymentSettled', 'payment', '$.id', '{}');
SELECT count(*) FROM sea_mq.partner_mappings;
RESET ROLE;
DROP ROLE ingest_producer;

-- Nobody takes a partner's message away by accepting it beforehand.
SELECT sea_mq.inbox_accept('m11', 'orders', 'OrderCreated', '{}', 'ingest:acme');
SELECT sea_mq.subscribe('ingest:acme', 'orders');
SELECT sea_mq.ingest('acme', '{"id": "m11", "type": "settled", "data": {"ref": 11, "order": "o-11", "amount": {"value": 11}}}') IS NOT NULL AS ingested;
