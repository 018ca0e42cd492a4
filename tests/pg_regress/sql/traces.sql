-- What an exporter of traces reads: pages of events and messages, of which only what is sampled is told, and no payload of it.
SET client_min_messages = warning;
SELECT sea_mq.create_stream('traces');
\set trace '0af7651916cd43dd8448eb211c80319c'

-- The flag is the last bit; what is no trace context is none.
SELECT t, sea_mq.is_sampled(t) FROM unnest(ARRAY['00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0b',
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02', 'session', NULL]) t;

-- Stored by hand: there is no broker.
SELECT count(sea_mq.emit('order', n::text, 'Traced', '{"secret": 1}', context => 'traces', correlation_id => 'c' || n,
    headers => CASE n WHEN 1 THEN NULL ELSE jsonb_build_object('traceparent', '00-' || :'trace' || '-b7ad6b7169203331-0' || n % 2) END))
FROM generate_series(1, 4) n;
INSERT INTO sea_mq.relay_journal (slot, sink, done, upto, first_seq, last_seq, events, first_stream_seq, published_at)
SELECT 0, sea_mq.sink_id('traces', 'event'), '1:1:', pg_current_snapshot(), min(l.seq), max(l.seq), count(*), 11, now()
FROM sea_mq.outbox_log l WHERE l.context = 'traces';
INSERT INTO sea_mq.relay_journal (slot, sink, done, upto, first_seq, last_seq, events, first_stream_seq, published_at)
SELECT 0, sea_mq.sink_id('traces', 'event'), '1:1:', '1:1:', n, n, 1, n, now() - make_interval(hours => 20 - n) FROM generate_series(1, 10) n;

SET ROLE sea_mq_viewer;
SELECT stream_seq, id IS NOT NULL AS has_id, traceparent, subject, correlation_id, emitted_at <= stored_at AS in_order, due_at
FROM sea_mq.traced_events('TRACES_EVENTS');
SELECT stream_seq, id IS NOT NULL AS has_id FROM sea_mq.traced_events('TRACES_EVENTS', 10, 2);
SELECT stream_seq, id IS NOT NULL AS has_id FROM sea_mq.traced_events('TRACES_EVENTS', 12, 2);
SELECT count(*) FROM sea_mq.traced_events('TRACES_EVENTS', 14);
-- Where to begin: before the first run that is not older; at the end, if all are.
SELECT age, p.place, p.last FROM (VALUES ('0'::interval), ('1 minute'), ('12 hours 30 minutes'), ('1 day'), (NULL)) a(age),
    LATERAL sea_mq.trace_places(age) p WHERE p.stream = 'TRACES_EVENTS';
\set VERBOSITY sqlstate
SELECT * FROM sea_mq.traced_events('NOBODY');
SELECT * FROM sea_mq.traced_events('TRACES_EVENTS', 0, 1001);
SELECT * FROM sea_mq.traced_messages(max => 0);
SELECT * FROM sea_mq.traced_messages(waiting => ARRAY(SELECT n::bigint FROM generate_series(1, 10001) n));
RESET ROLE;

-- The inbox: 2 and 4 are sampled; 3 is not done yet, and is told of once it is.
SELECT setval('sea_mq.inbox_id', 9000000);
INSERT INTO sea_mq.inbox_log (slot, id, subscription, message_id, status, attempts, event_type, subject, payload, headers, event_at, created_at,
    processed_at, processing_error, errors)
SELECT 0, 9000000 + n, 'app__traces', 'm' || n, CASE n WHEN 4 THEN 'dead' ELSE 'processed' END, n, 'traced', 'traces.event.traced.v1', '{"secret": 1}',
    jsonb_build_object('X-Correlation-Id', 'c' || n, 'traceparent', '00-' || :'trace' || '-b7ad6b7169203331-0' || (n + 1) % 2),
    now(), now(), now(), 'secret', CASE n WHEN 4 THEN '[{"kind": "error", "sqlstate": "22012", "error": "secret"}]'::jsonb END
FROM unnest(ARRAY[1, 2, 4, 5]) n;
SET ROLE sea_mq_viewer;
SELECT id, status, message_id, subscription, correlation_id, attempts, begun_at = done_at AS at_once, error_type
FROM sea_mq.traced_messages(9000000) ORDER BY id, status;
SELECT id, status, message_id FROM sea_mq.traced_messages(9000000, max => 1) ORDER BY id;
SELECT id, status, message_id FROM sea_mq.traced_messages(9000005, ARRAY[9000003]) ORDER BY id;
RESET ROLE;
INSERT INTO sea_mq.inbox_log (slot, id, subscription, message_id, status, attempts, event_type, subject, payload, headers, event_at, created_at, processed_at)
SELECT 0, 9000003, 'app__traces', 'm3', 'skipped', 1, 'traced', 'traces.event.traced.v1', '{}',
    jsonb_build_object('traceparent', '00-' || :'trace' || '-b7ad6b7169203331-01'), now(), now(), now();
SET ROLE sea_mq_viewer;
SELECT id, status, message_id FROM sea_mq.traced_messages(9000005, ARRAY[9000003]) ORDER BY id;
RESET ROLE;
DELETE FROM sea_mq.inbox_log WHERE subscription = 'app__traces';
