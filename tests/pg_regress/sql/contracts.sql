-- The registry of event types, and what emit does with it.
\set ON_ERROR_STOP 0
\set VERBOSITY default
SET sea_mq.context = 'shop';

-- Registering: new, the same again, another content, the next version.
SELECT sea_mq.register_event('Shop', 'OrderPaid', 1, '{"type": "object", "required": ["total"],
    "properties": {"total": {"type": "number", "minimum": 0}, "card": {"type": "string", "maxLength": 4}}}', description => 'Paid');
SELECT sea_mq.register_event('shop', 'order_paid', 1, '{"required": ["total"], "type": "object",
    "properties": {"card": {"maxLength": 4, "type": "string"}, "total": {"minimum": 0, "type": "number"}}}', description => 'Paid in full');
SELECT sea_mq.register_event('shop', 'order_paid', 1, '{"type": "object"}');
SELECT sea_mq.register_event('shop', 'order_paid', 1, '{"type": "object"}', 'public');
SELECT sea_mq.register_event('shop', 'order_paid', 2, '{"type": "object", "x-sea-visibility": "partner"}');
SELECT context, event_type, version, visibility, description, subject, registered_by FROM sea_mq.event_types ORDER BY 1, 2, 3;

-- What is no contract.
SELECT sea_mq.register_event('shop', 'x', 1, NULL);
SELECT sea_mq.register_event('shop', 'x', 0, '{}');
SELECT sea_mq.register_event('shop', 'a b', 1, '{}');
SELECT sea_mq.register_event('shop', 'x', 1, '{"type": "strnig"}');
SELECT sea_mq.register_event('shop', 'x', 1, '{"pattern": "("}');
SELECT sea_mq.register_event('shop', 'x', 1, '{"$schema": "http://json-schema.org/draft-07/schema#"}');
SELECT sea_mq.register_event('shop', 'x', 1, '{}', 'secret');
SELECT sea_mq.register_event('shop', 'x', 1, '{"$ref": "http://127.0.0.1:9/x.json"}');
SELECT sea_mq.register_event('shop', 'x', 1, '{"$ref": "#/$defs/gone"}');
UPDATE sea_mq.event_types SET schema = '{}' WHERE version = 1;
UPDATE sea_mq.event_types SET description = 'Paid, in full' WHERE version = 1;

-- References: relative to the place of the schema, to a definition, to a $id; never to the network.
SELECT sea_mq.register_schema('sea-mq:/schemas/events/common/money.schema.json', '{"type": "object", "required": ["amount"]}');
SELECT sea_mq.register_schema('sea-mq:/schemas/events/common/money.schema.json', '{"type": "object", "required": ["amount"]}');
SELECT sea_mq.register_schema('sea-mq:/schemas/events/common/money.schema.json', '{"type": "array"}');
SELECT sea_mq.register_schema('money', '{}');
SELECT sea_mq.register_schema('https://shop.example/address', '{"$id": "https://shop.example/schemas/address", "required": ["street"]}');
SELECT sea_mq.register_event('shop', 'order_sent', 1, '{"properties": {"price": {"$ref": "../common/money.schema.json"},
    "to": {"$ref": "https://shop.example/schemas/address"}, "paid": {"$ref": "order_paid.v1.schema.json"}}}');
SELECT * FROM sea_mq.contract_violations('shop', 'OrderSent', 1, '{"price": {}, "to": {}, "paid": {"total": -1}}') ORDER BY 1;
SELECT * FROM sea_mq.contract_violations('shop', 'OrderSent', 1, '{}');
SELECT * FROM sea_mq.contract_violations('shop', 'OrderSent', 2, '{}');

-- Off: nothing is checked, but an event has the visibility that was agreed on.
BEGIN;
SELECT count(sea_mq.emit('order', '1', 'OrderPaid', '{}', event_version => v)) FROM generate_series(1, 3) v;
SELECT event_type, event_version, (SELECT visibility FROM sea_mq.outbox_events o WHERE o.id = p.id) FROM sea_mq.pending_events() p;
COMMIT;
SELECT event_version, visibility FROM sea_mq.outbox_events WHERE context = 'shop' ORDER BY seq;

-- Warn: it is said, and the event goes on.
SET sea_mq.contracts = 'warn';
SELECT count(sea_mq.emit('order', '1', 'OrderPaid', '{"total": "much", "card": "4111 1111"}'));
SELECT count(sea_mq.emit('order', '1', 'OrderLost', '{}'));

-- Enforce: it is refused, with each place and without the content.
SET sea_mq.contracts = 'enforce';
SELECT sea_mq.emit('order', '1', 'OrderPaid', '{"total": "much", "card": "4111 1111"}');
SELECT sea_mq.emit('order', '1', 'OrderPaid', '{"card": "4111"}');
SELECT sea_mq.emit('order', '1', 'OrderLost', '{}');
SELECT sea_mq.emit('order', '1', 'OrderPaid', '{"total": 1}', visibility => 'public');
SELECT count(sea_mq.emit('order', '1', 'OrderPaid', '{"total": 1}', visibility => 'sensitive'));
SELECT count(sea_mq.emit('order', '1', 'OrderPaid', '{"total": 1e400}'));
SELECT sea_mq.emit_many(ARRAY['{"aggregate_type": "order", "aggregate_id": "1", "event_type": "OrderPaid", "payload": {"total": 1}}',
    '{"aggregate_type": "order", "aggregate_id": "1", "event_type": "OrderPaid", "payload": {"total": -1}}']::jsonb[]);
INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload) VALUES ('order', '1', 'OrderPaid', '{"total": -1}');

-- What is registered counts at once, and what is rolled back never did.
SELECT sea_mq.emit('order', '1', 'OrderMade', '{}');
SELECT sea_mq.register_event('shop', 'OrderMade', 1, '{"maxProperties": 1}');
SELECT count(sea_mq.emit('order', '1', 'OrderMade', '{}'));
BEGIN;
SELECT sea_mq.register_event('shop', 'OrderHeld', 1, '{}');
SELECT count(sea_mq.emit('order', '1', 'OrderHeld', '{}'));
ROLLBACK;
SELECT sea_mq.emit('order', '1', 'OrderHeld', '{}');

-- Deprecated: it can be emitted, and each session is told once.
SELECT sea_mq.deprecate_event('shop', 'OrderMade', 1, 'Emit order_paid.');
SELECT sea_mq.deprecate_event('shop', 'OrderMade', 7);
SELECT count(sea_mq.emit('order', '1', 'OrderMade', '{}')) FROM generate_series(1, 3);
SELECT deprecated_at IS NOT NULL AS deprecated, deprecation FROM sea_mq.event_types WHERE event_type = 'order_made';

-- Who may what. A producer is bound by the contracts and cannot lift them.
CREATE ROLE contracts_producer IN ROLE sea_mq_producer;
SET ROLE contracts_producer;
SELECT sea_mq.register_event('shop', 'y', 1, '{}');
SET sea_mq.contracts = 'off';
SELECT sea_mq.emit('order', '1', 'OrderPaid', '{"total": -1}');
SELECT count(sea_mq.emit('order', '1', 'OrderPaid', '{"total": 1}'));
SELECT count(*) FROM sea_mq.event_types;
DELETE FROM sea_mq.event_types;
-- The registry is asked with the extension's rights, but not with the caller's operators.
RESET ROLE;
CREATE SCHEMA contracts_trap AUTHORIZATION contracts_producer;
SET ROLE contracts_producer;
CREATE FUNCTION contracts_trap.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'as %', current_user; END $$;
CREATE OPERATOR contracts_trap.= (FUNCTION = contracts_trap.equal, LEFTARG = text, RIGHTARG = text);
SET search_path = contracts_trap, pg_catalog;
SELECT count(sea_mq.emit('order', '1', 'OrderSent', '{}'));
RESET search_path;
RESET ROLE;
DROP SCHEMA contracts_trap CASCADE;
DROP ROLE contracts_producer;
RESET sea_mq.contracts;

-- What those outside may see of an event.
SELECT sea_mq.register_event('shop', 'CustomerMoved', 1, '{"properties": {"mail": {"x-sea-sensitive": "hash"}, "pin": {"x-sea-sensitive": true},
    "homes": {"items": {"properties": {"door": {"x-sea-sensitive": "strip"}}}}}}', 'partner');
CREATE FUNCTION moved(visibility text, payload jsonb, type text DEFAULT 'customer_moved') RETURNS sea_mq.event LANGUAGE sql AS $$
    SELECT (gen_random_uuid(), 'm', 'app__sub', 'shop', type, 1, 'shop.event.customer_moved.v1', 'customer', '7', payload,
        '{"X-Correlation-Id": "c", "X-Causation-Id": "d", "traceparent": "t", "X-Replayed-From": "r", "Nats-Msg-Id": "m", "X-Tenant": "acme",
            "ce-causationid": "d", "ce-correlationid": "c", "ce-type": "x"}',
        'c', 'd', visibility, 3, 99, now())::sea_mq.event $$;
SELECT (v.e).payload - 'mail' AS payload, (v.e).payload ->> 'mail' ~ '^hmac-sha256:[0-9a-f]{64}$' AS mail, (v.e).headers - '{X-Correlation-Id,ce-correlationid}'::text[] AS headers,
    (v.e).correlation_id = (v.e).headers ->> 'X-Correlation-Id' AND (v.e).correlation_id ~ '^hmac' AS correlation, (v.e).causation_id, (v.e).subscription, (v.e).stream_seq
FROM (SELECT sea_mq.external_view(moved('partner', '{"mail": "a@b", "pin": 1, "n": 12345678901234567890.12, "homes": [{"door": 1, "n": 1}, {"door": 2}]}')) AS e) v;
SELECT (a.e).payload ->> 'mail' = (b.e).payload ->> 'mail' AS same_hash, (a.e).payload ->> 'mail' = (c.e).payload ->> 'mail' AS other
FROM (SELECT sea_mq.external_view(moved('partner', '{"mail": "a@b"}')) AS e) a, (SELECT sea_mq.external_view(moved('public', '{"mail": "a@b", "n": 1}')) AS e) b,
    (SELECT sea_mq.external_view(moved('public', '{"mail": "c@d"}')) AS e) c;
-- Who it reaches; and what cannot be looked through does not leave.
SELECT v AS visibility, a AS audience, (sea_mq.external_view(moved(v, '{"pin": 1, "n": 1}'), a)).payload
FROM unnest('{public,partner,internal,sensitive,NULL}'::text[]) v, unnest('{public,partner,internal,sensitive}'::text[]) a;
SELECT (sea_mq.external_view(moved('public', '{"n": 1e400}'))).payload, (sea_mq.external_view(moved('public', '{"n": 1e4}', 'unheard_of'))).payload;
SELECT (sea_mq.external_view(moved('public', '{"mail": null, "pin": null, "n": 1}'))).payload;
SELECT sea_mq.external_view(moved('public', '{}'), 'all');
SELECT sea_mq.external_view(NULL);
SELECT (sea_mq.external_view(jsonb_populate_record(moved('public', '{}'), '{"headers": null}'))).headers;
DROP FUNCTION moved;
