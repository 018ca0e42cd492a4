-- Pages: dead letters and their replay, events behind a place in a stream, metrics, and what a viewer sees.
SET client_min_messages = warning;
SELECT sea_mq.create_stream('paging');
INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, event_type, event_version, payload, headers, reason,
    failure_count, error, last_failed_at, dlq_message_id)
SELECT 'paging', CASE WHEN n = 2 THEN 'elsewhere.event.made.v1' ELSE 'paging.event.made.v1' END, 'app__' || n % 2, 'made', 1, '{"n": 1}',
    '{}', 'foreign', 1, 'error ' || n, now(), n::text FROM generate_series(1, 6) n;

-- Against each other, and on from a place.
SELECT state, subscription, error FROM sea_mq.dlq_page('paging', max => 2);
SELECT error FROM sea_mq.dlq_page('paging', descending => true, max => 2, after_id => (SELECT max(id) FROM sea_mq.dlq_messages));
SELECT error FROM sea_mq.dlq_page('paging', 'app__1', 'Made', 'ERROR 3', '-1 hour');
SELECT count(*) FROM sea_mq.dlq_page('paging', replayed => true);
\set VERBOSITY sqlstate
SELECT * FROM sea_mq.dlq_page(max => 0);
SELECT * FROM sea_mq.dlq_replay_batch(max => 501);
SELECT * FROM sea_mq.dlq_replay_batch('paging', ids => '{1}');
SELECT * FROM sea_mq.events_after('NOBODY');

-- One letter that cannot be replayed stops none of the others. Who claims to act is noted beside the role.
SET sea_mq.actor = E'ann\n@example.org';
CREATE ROLE regress_gateway;
GRANT sea_mq_operator TO regress_gateway;
SET ROLE regress_gateway;
SELECT error_text IS NULL AS done, replay_event_id IS NOT NULL AS has_id, sqlstate FROM sea_mq.dlq_replay_batch('paging', max => 3) ORDER BY id;
SELECT sqlstate, hint IS NOT NULL AS has_hint FROM sea_mq.dlq_replay_batch(ids => '{-1}');
SELECT sea_mq.dlq_discard(id, 'enough') FROM sea_mq.dlq_page('paging', 'app__0', descending => true, max => 1);
RESET ROLE;
SELECT error, replayed_by, discarded_by, actor FROM sea_mq.dlq_messages WHERE context = 'paging' AND actor IS NOT NULL ORDER BY id;
SELECT open, replayed, discarded, returned FROM sea_mq.dlq_status WHERE context = 'paging' ORDER BY subscription;
RESET sea_mq.actor;

-- A replay that failed again is counted as one.
INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, payload, headers, reason, failure_count, dlq_message_id)
VALUES ('paging', 'paging.event.made.v1', 'app__1', '{}', '{"X-Replayed-From": "m"}', 'poison', 1, 'again');
SELECT sum(value) FROM sea_mq.metrics WHERE name = 'sea_mq_dead_letters_returned' AND labels ->> 'context' = 'paging';
DELETE FROM sea_mq.dlq_messages WHERE dlq_message_id = 'again';
SELECT sum(value) FROM sea_mq.metrics() WHERE name = 'sea_mq_dead_letters_returned' AND labels ->> 'context' = 'paging';

-- Sensitive places are masked.
SELECT sea_mq.register_event('paging', 'Paid', 1, '{"type": "object", "properties": {"card": {"x-sea-sensitive": true}, "sum": {}}}');
SELECT sea_mq.masked_payload('paging', 'paid', 1, '{"card": "4111", "sum": 3}'), sea_mq.masked_payload('paging', 'other', 1, '{"card": 1}');

-- Metrics: names, types and units as Prometheus wants them, and labels that are few.
SELECT name, type FROM sea_mq.metrics() WHERE type = 'counter' AND name NOT LIKE '%\_total' OR type = 'gauge' AND name LIKE '%\_total'
    OR name !~ '^sea_mq_[a-z_]+$' OR help = '' OR value IS NULL;
SELECT DISTINCT l FROM sea_mq.metrics() m, jsonb_object_keys(m.labels) l ORDER BY 1;
SELECT DISTINCT name FROM sea_mq.metrics() WHERE name LIKE 'sea_mq_handler_duration%' ORDER BY 1;

-- A viewer sees states and numbers, and no text of an error.
SET ROLE sea_mq_viewer;
SELECT count(*) > 10 AS many FROM sea_mq.metrics();
SELECT streams >= 2 AS has_streams, dead_letters >= 3 AS has_letters FROM sea_mq.overview;
SELECT count(*) FROM sea_mq.stream_overview WHERE context = 'paging';
SELECT count(*) FROM sea_mq.subscription_overview WHERE source = 'paging';
SELECT count(*) FROM sea_mq.dlq_overview WHERE context = 'paging';
SELECT * FROM sea_mq.status;
SELECT * FROM sea_mq.dlq_status;
SELECT * FROM sea_mq.problems;
SELECT * FROM sea_mq.outbox_events;
RESET ROLE;
SELECT attrelid::regclass, attname FROM pg_attribute
WHERE attrelid = ANY ('{sea_mq.overview,sea_mq.stream_overview,sea_mq.subscription_overview,sea_mq.dlq_overview}'::regclass[]) AND attnum > 0
    AND attname ~ 'error|hint|summary|payload|headers|last_loss|differences';
DROP OWNED BY regress_gateway;
DROP ROLE regress_gateway;
