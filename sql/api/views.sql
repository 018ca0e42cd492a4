CREATE FUNCTION sea_mq.log_size(OUT bytes bigint, OUT dead_tuples bigint)
RETURNS record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- An empty slot's indexes are a page each, and not worth opening them.
    SELECT sum(CASE WHEN pg_relation_size(i.inhrelid) > 0 THEN pg_total_relation_size(i.inhrelid) ELSE 0 END)::bigint,
        sum(pg_stat_get_dead_tuples(i.inhrelid))::bigint
    FROM pg_inherits i WHERE i.inhparent = 'sea_mq.outbox_log'::regclass
$$;
COMMENT ON FUNCTION sea_mq.log_size IS 'Bytes that the log takes, indexes included, and its dead tuples';

CREATE FUNCTION sea_mq.unpublished_bytes(sink bigint DEFAULT NULL) RETURNS bigint
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'unpublished_bytes_wrapper';
COMMENT ON FUNCTION sea_mq.unpublished_bytes IS
'About how many bytes of the log are not published yet, of a sink or (NULL) of all: estimated from samples, indexes not counted';

CREATE VIEW sea_mq.outbox_status AS
SELECT s.context, s.kind, s.name AS stream, p.pending, p.oldest AS oldest_pending_at, greatest(now() - p.oldest, '0') AS oldest_pending_age,
    coalesce(c.published, 0) AS published, c.updated_at AS last_published_at,
    (SELECT count(*) FROM (SELECT FROM sea_mq.scheduled_events e WHERE e.sink = s.sink LIMIT 10001) w) AS scheduled,
    (SELECT count(*) FROM sea_mq.publish_failures f WHERE f.sink = s.sink AND f.resolved_at IS NULL) AS failed,
    coalesce((SELECT r.current_slot FROM sea_mq.outbox_ring r), 0::smallint) AS current_slot,
    z.bytes AS log_bytes, z.dead_tuples AS log_dead_tuples, sea_mq.unpublished_bytes(s.sink) AS unpublished_bytes
FROM sea_mq.streams s
LEFT JOIN sea_mq.stream_progress c ON c.sink = s.sink
CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) p
CROSS JOIN sea_mq.log_size() z;
COMMENT ON VIEW sea_mq.outbox_status IS 'What is waiting to be published, a row per stream';
COMMENT ON COLUMN sea_mq.outbox_status.context IS 'Bounded context';
COMMENT ON COLUMN sea_mq.outbox_status.kind IS 'event or dlq';
COMMENT ON COLUMN sea_mq.outbox_status.stream IS 'Stream';
COMMENT ON COLUMN sea_mq.outbox_status.pending IS 'Committed events not yet published; counted up to 10,001';
COMMENT ON COLUMN sea_mq.outbox_status.oldest_pending_at IS 'When the oldest of them was emitted';
COMMENT ON COLUMN sea_mq.outbox_status.oldest_pending_age IS 'How long ago that was';
COMMENT ON COLUMN sea_mq.outbox_status.published IS 'Events published so far';
COMMENT ON COLUMN sea_mq.outbox_status.last_published_at IS 'When the last of them was recorded';
COMMENT ON COLUMN sea_mq.outbox_status.scheduled IS 'Events whose available_at has not come; counted up to 10,001';
COMMENT ON COLUMN sea_mq.outbox_status.failed IS 'Events that the broker refused for a reason of their own, and about which nothing was decided';
COMMENT ON COLUMN sea_mq.outbox_status.current_slot IS 'Slot of the ring that writers append to';
COMMENT ON COLUMN sea_mq.outbox_status.log_bytes IS 'Size of the whole log with its indexes, in bytes';
COMMENT ON COLUMN sea_mq.outbox_status.log_dead_tuples IS 'Dead tuples in the log, by the statistics; expected to stay 0';
COMMENT ON COLUMN sea_mq.outbox_status.unpublished_bytes IS 'About how much of the log is not published yet; all streams together are held against sea_mq.max_outbox_size';

CREATE FUNCTION sea_mq.worker_pauses(OUT worker text, OUT state text, OUT since timestamptz)
RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'worker_pauses_wrapper';
COMMENT ON FUNCTION sea_mq.worker_pauses IS
'Relay and consumer of this database, where the process is not there and nothing is wrong: resting (it had nothing to do for
sea_mq.idle_timeout), queued (it waits for a free worker slot), or starting; and since when';

CREATE VIEW sea_mq.relay_status AS
SELECT w.pid IS NOT NULL AS running, w.pid, w.backend_start AS started_at,
    coalesce(CASE WHEN pg_is_in_recovery() THEN 'standby' WHEN w.pid IS NOT NULL THEN NULL
        WHEN p.state = 'resting' AND r.state = 'connected' THEN 'idle' WHEN p.state IN ('queued', 'starting') THEN p.state
        WHEN p.state IS NULL THEN 'stopped' END, r.state, 'starting') AS state,
    CASE WHEN w.pid IS NULL AND p.since IS NOT NULL THEN p.since ELSE r.since END AS since,
    r.error_kind, r.error, r.hint, r.failures,
    r.server_name, r.server_version, r.server_address, r.max_payload, sea_mq.preloaded() AS preloaded, r.expiring_setting, r.expires_at
FROM (VALUES (1)) AS one
LEFT JOIN sea_mq.relay_state r ON true
LEFT JOIN sea_mq.workers() w ON w.backend_type = 'sea_mq relay'
LEFT JOIN sea_mq.worker_pauses() p ON p.worker = 'relay';
COMMENT ON VIEW sea_mq.relay_status IS 'The relay of this database; one row';
COMMENT ON COLUMN sea_mq.relay_status.running IS 'Whether its process is there';
COMMENT ON COLUMN sea_mq.relay_status.pid IS 'Its process';
COMMENT ON COLUMN sea_mq.relay_status.started_at IS 'When the process started';
COMMENT ON COLUMN sea_mq.relay_status.state IS 'standby (nothing runs here until it is promoted), stopped, queued (it waits for a free worker slot), starting, idle (it ended with nothing to do, and starts when there is something), unconfigured, disabled, connecting, connected, waiting or paused';
COMMENT ON COLUMN sea_mq.relay_status.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.relay_status.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.relay_status.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.relay_status.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.relay_status.failures IS 'Failed connection attempts in a row, as of the last change of error';
COMMENT ON COLUMN sea_mq.relay_status.server_name IS 'nats-server connected to last';
COMMENT ON COLUMN sea_mq.relay_status.server_version IS 'Its version';
COMMENT ON COLUMN sea_mq.relay_status.server_address IS 'Its host and port';
COMMENT ON COLUMN sea_mq.relay_status.max_payload IS 'Its largest message in bytes, headers included';
COMMENT ON COLUMN sea_mq.relay_status.preloaded IS 'Whether sea_mq is in shared_preload_libraries';
COMMENT ON COLUMN sea_mq.relay_status.expiring_setting IS 'Of the credentials and certificates with which it is connected: the setting that names the file of the one that expires first';
COMMENT ON COLUMN sea_mq.relay_status.expires_at IS 'When it expires; NULL: none does';

CREATE VIEW sea_mq.stream_status AS
SELECT s.name AS stream, s.context, s.kind, coalesce(t.state, 'pending') AS state, t.error_kind, t.error, t.hint,
    coalesce(t.ordering, 'strict') AS ordering, t.differences, coalesce(t.losses, 0) AS losses, t.last_loss,
    c.stream_sequence AS last_sequence, coalesce(c.published, 0) AS published, p.pending, s.managed, t.since,
    s.atomic_transactions, coalesce(c.not_atomic, 0) AS not_atomic, c.last_not_atomic, p.oldest AS oldest_pending_at
FROM sea_mq.streams s
LEFT JOIN sea_mq.stream_state t ON t.sink = s.sink
LEFT JOIN sea_mq.stream_progress c ON c.sink = s.sink
CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) p;
COMMENT ON VIEW sea_mq.stream_status IS 'Each stream as the relay found it';
COMMENT ON COLUMN sea_mq.stream_status.stream IS 'Name in JetStream';
COMMENT ON COLUMN sea_mq.stream_status.context IS 'Bounded context';
COMMENT ON COLUMN sea_mq.stream_status.kind IS 'event or dlq';
COMMENT ON COLUMN sea_mq.stream_status.state IS 'pending, ready, refused or paused';
COMMENT ON COLUMN sea_mq.stream_status.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.stream_status.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.stream_status.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.stream_status.ordering IS 'strict or shared; see docs/guarantees.md';
COMMENT ON COLUMN sea_mq.stream_status.differences IS 'Settings that differ from the description and were left alone';
COMMENT ON COLUMN sea_mq.stream_status.losses IS 'How often the broker had lost data that it had acknowledged';
COMMENT ON COLUMN sea_mq.stream_status.last_loss IS 'What was lost last';
COMMENT ON COLUMN sea_mq.stream_status.last_sequence IS 'Stream sequence of the last event stored by the relay';
COMMENT ON COLUMN sea_mq.stream_status.published IS 'Events published so far';
COMMENT ON COLUMN sea_mq.stream_status.pending IS 'Committed events not yet published; counted up to 10,001';
COMMENT ON COLUMN sea_mq.stream_status.oldest_pending_at IS 'When the first of them was emitted';
COMMENT ON COLUMN sea_mq.stream_status.managed IS 'Whether the relay creates and updates the stream';
COMMENT ON COLUMN sea_mq.stream_status.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.stream_status.atomic_transactions IS 'Whether transactions are to be published as atomic batches';
COMMENT ON COLUMN sea_mq.stream_status.not_atomic IS 'Transactions of several events that were published one by one all the same';
COMMENT ON COLUMN sea_mq.stream_status.last_not_atomic IS 'The last of them, and why';

-- What is wrong, the most urgent first.
CREATE VIEW sea_mq.problems AS
SELECT 1 AS rank, 'relay is not running' || coalesce(': ' || w.problem, '')
        || CASE WHEN r.state = 'queued' THEN format('; it waits for one in turn, since %s', date_trunc('second', r.since)) ELSE '' END AS problem,
    CASE WHEN w.problem IS NOT NULL THEN w.hint
        WHEN r.preloaded THEN 'Call sea_mq.start(); if that fails, look for sea_mq in the server''s log.'
        ELSE 'Add sea_mq to shared_preload_libraries and restart the server; until then, call sea_mq.start().' END AS hint
FROM sea_mq.relay_status r LEFT JOIN sea_mq.worker_problem() w ON true
WHERE NOT r.running AND r.state NOT IN ('standby', 'idle', 'unconfigured', 'starting')
UNION ALL
-- Once is no problem: it is tried again at once, and most of what can be in the way of a transaction passes.
SELECT 2, format('the %s has failed %s times since %s: %s', f.worker, f.failures, date_trunc('second', f.since),
        coalesce(f.error, 'its process ended; see the server''s log')),
    'It tries again by itself. If that does not help, look for sea_mq in the server''s log; once the cause is fixed, it goes on.'
FROM sea_mq.worker_failures() f WHERE f.failures > 2
UNION ALL
SELECT CASE WHEN v.library < v.script THEN 1 ELSE 5 END,
    format('the library is version %s and the SQL of this database %s', array_to_string(v.library, '.'), array_to_string(v.script, '.')),
    CASE WHEN v.library < v.script THEN format('Install version %s of the library and restart the server.', array_to_string(v.script, '.'))
        ELSE 'ALTER EXTENSION sea_mq UPDATE; in this database. Until then it works as before.' END
FROM (SELECT string_to_array(sea_mq.library_version(), '.')::integer[] AS library, string_to_array(e.extversion, '.')::integer[] AS script
    FROM pg_catalog.pg_extension e WHERE e.extname = 'sea_mq') v WHERE v.library <> v.script
UNION ALL
SELECT 1, format('emit refuses events: about %s MB are not published yet, and sea_mq.max_outbox_size is %s MB', b.bytes >> 20, m.bytes >> 20),
    'Fix what holds them up (see the other problems), or raise sea_mq.max_outbox_size.'
FROM (SELECT pg_size_bytes(current_setting('sea_mq.max_outbox_size')) AS bytes) m
CROSS JOIN LATERAL (SELECT CASE WHEN m.bytes > 0 THEN sea_mq.unpublished_bytes() END AS bytes) b
WHERE b.bytes >= m.bytes
UNION ALL
SELECT 2, coalesce('relay: ' || r.error, 'relay is ' || r.state),
    coalesce(r.hint, CASE r.state
        WHEN 'unconfigured' THEN format('ALTER DATABASE %I SET sea_mq.nats_url = ''nats://localhost:4222''; then SELECT sea_mq.reload().', current_database())
        WHEN 'disabled' THEN 'Set sea_mq.enabled = on, then call sea_mq.reload().'
        ELSE 'Wait a moment; the relay retries by itself.' END)
FROM sea_mq.relay_status r
WHERE (r.running AND r.state <> 'connected' OR r.state = 'unconfigured')
    -- Without a broker, events go to the subscriptions of the same database.
    AND NOT (r.state = 'unconfigured' AND (EXISTS (SELECT FROM sea_mq.subscriptions) OR EXISTS (SELECT FROM sea_mq.endpoint_readers) OR (SELECT i.test_mode FROM sea_mq.installation i)))
UNION ALL
SELECT 3, 'stream ' || t.stream || ': ' || coalesce(t.error, t.state), coalesce(t.hint, 'See its row in sea_mq.stream_status, and the server''s log.')
FROM (SELECT s.name AS stream, x.* FROM sea_mq.streams s JOIN sea_mq.stream_state x ON x.sink = s.sink) t
WHERE t.state IN ('refused', 'paused')
UNION ALL
SELECT 4, format('stream %s is not as described, and is used as it is: %s', s.name, x.error),
    coalesce(x.hint, 'Change the stream in NATS or its description with sea_mq.alter_stream until they agree.')
FROM sea_mq.streams s JOIN sea_mq.stream_state x ON x.sink = s.sink WHERE x.state = 'ready' AND x.error IS NOT NULL
UNION ALL
SELECT 4, format('stream %s has lost this installation''s mark: others may take it for nobody''s', s.name),
    format('Let sea_mq manage it, as in sea_mq.alter_stream(%L, managed => true), or set metadata sea_mq.install to %s in NATS.',
        s.name, x.differences -> 'sea_mq.install' ->> 0)
FROM sea_mq.streams s JOIN sea_mq.stream_state x ON x.sink = s.sink WHERE x.differences ? 'sea_mq.install'
UNION ALL
SELECT 4, format('%s events of stream %s were refused by the broker', f.events, s.name),
    'See sea_mq.dlq_list() for the reasons; once fixed, sea_mq.retry_failed() sends them.'
FROM (SELECT p.sink, count(*) AS events FROM sea_mq.publish_failures p WHERE p.resolved_at IS NULL GROUP BY p.sink) f
JOIN sea_mq.streams s ON s.sink = f.sink
UNION ALL
SELECT 5, format('what %s names expires at %s', r.expiring_setting, r.expires_at),
    'Replace the file, then call sea_mq.reload(): it is read when a connection is made.'
FROM sea_mq.relay_status r WHERE r.state IN ('connected', 'idle') AND r.expires_at < now() + interval '7 days'
UNION ALL
SELECT 5, format('more than 1000 events wait for stream %s', s.name),
    'If the number does not fall, see sea_mq.relay_status and the broker''s load.'
FROM sea_mq.relay_status r, sea_mq.streams s CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) o
WHERE o.pending > 1000 AND r.state <> 'unconfigured'
UNION ALL
SELECT 6, format('consumer %s on stream %s: %s', c.name, c.stream, c.error),
    'Describe it again with sea_mq.create_consumer under the same name, or give it up with sea_mq.drop_consumer.'
FROM sea_mq.consumers c WHERE c.state = 'refused'
UNION ALL
SELECT 6, format('stream %s could not be deleted in NATS: %s', d.name, d.error),
    format('Delete it there by hand, or wait; the relay tries again. If it is to stay: SELECT sea_mq.drop_stream(%L).', d.name)
FROM sea_mq.stream_deletions d WHERE d.error IS NOT NULL
UNION ALL
SELECT 6, format('consumer %s on stream %s could not be removed in NATS: %s', d.name, d.stream, d.error),
    'Remove it there by hand, or wait; it is tried again.'
FROM (SELECT c.name, c.stream, c.error FROM sea_mq.consumer_deletions c
    UNION ALL SELECT c.name, c.stream, c.error FROM sea_mq.consumers c WHERE c.state = 'removing') d WHERE d.error IS NOT NULL
UNION ALL
SELECT 6, format('%s dead letters could not be removed from stream %s: %s', d.letters, d.stream, d.error),
    'They were replayed or discarded, and other services still see them. It is tried again by itself; look at the permissions in docs/streams.md.'
FROM (SELECT m.stream, count(*) AS letters, max(m.error) AS error FROM sea_mq.message_deletions m WHERE m.error IS NOT NULL GROUP BY m.stream) d
UNION ALL
SELECT 3, 'consumer is not running' || coalesce(': ' || w.problem, '') || coalesce(format('; it waits for one in turn, since %s', date_trunc('second', p.since)), ''),
    coalesce(w.hint, 'Call sea_mq.start(); if that fails, look for sea_mq in the server''s log.')
FROM sea_mq.relay_status r LEFT JOIN sea_mq.worker_problem() w ON true
LEFT JOIN sea_mq.worker_pauses() p ON p.worker = 'consumer' AND p.state = 'queued'
WHERE (r.running OR r.state IN ('idle', 'unconfigured')) AND EXISTS (SELECT FROM sea_mq.subscriptions)
    AND NOT EXISTS (SELECT FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq consumer')
UNION ALL
SELECT 4, format('subscription %s is %s%s', s.subscription, s.state, ': ' || s.error), coalesce(s.hint, 'See its row in sea_mq.subscription_status, and the server''s log.')
FROM (SELECT b.subscription, CASE WHEN b.paused THEN 'paused' ELSE x.state END AS state, x.error_kind, x.error, x.hint
    FROM sea_mq.subscriptions b JOIN sea_mq.subscription_state x ON x.subscription = b.subscription) s
WHERE s.state IN ('blocked', 'refused') OR (s.state = 'waiting' AND s.error_kind IN ('ConsumerPaused', 'SlowConsumer', 'StreamVanished'))
UNION ALL
SELECT 4, format(CASE WHEN m.at_most THEN 'up to ' ELSE '' END || '%s messages were removed from stream %s before subscription %s got them (sequences %s to %s)',
        m.messages, m.stream, m.subscription, m.first_sequence, m.last_sequence),
    CASE WHEN EXISTS (SELECT FROM sea_mq.streams s WHERE s.name = m.stream)
        THEN format('What this database still retains is published once more by sea_mq.republish(%L, ''time before the first of them''); then', m.stream)
        ELSE 'Have whoever owns the stream publish them once more, or give them up; then' END
    || format(' call sea_mq.forget_removed(%L). Look for a lowered limit, a purge or deletions in NATS, or max_age.', m.subscription)
FROM sea_mq.removed_messages m
UNION ALL
SELECT 5, format(CASE d.open WHEN 1 THEN '%s dead letter of %s waits for a decision: %s' ELSE '%s dead letters of %s wait for a decision: %s' END, d.open, coalesce('subscription ' || d.subscription, 'context ' || d.context), d.last_error),
    'Look with sea_mq.dlq_list(), then call dlq_replay or dlq_discard.'
FROM sea_mq.dlq_status d WHERE d.open > 0
UNION ALL
SELECT 6, format('more than 1000 messages wait for subscription %s', s.subscription), CASE
    WHEN b.paused THEN 'It is paused; sea_mq.resume_subscription ends that.'
    WHEN b.endpoint IS NOT NULL THEN 'Raise max_in_flight of its endpoint, or make the service faster.'
    WHEN b.handler IS NULL THEN 'Receive more at a time or with more clients, or raise max_ack_pending.'
    ELSE 'Raise max_ack_pending or workers, or make the handler faster.' END
FROM sea_mq.subscription_state s JOIN sea_mq.subscriptions b ON b.subscription = s.subscription WHERE s.pending > 1000
UNION ALL
SELECT 6, format('transactions are not published to stream %s as one: allow_atomic is %s', t.stream, t.differences -> 'allow_atomic' ->> 1),
    'Use nats-server 2.12 or later and allow atomic publishing in the stream, or call sea_mq.alter_stream(..., atomic_transactions => false).'
FROM (SELECT s.name AS stream, s.atomic_transactions, x.differences
    FROM sea_mq.streams s JOIN sea_mq.stream_state x ON x.sink = s.sink) t
WHERE t.atomic_transactions AND t.differences ? 'allow_atomic'
UNION ALL
SELECT e.rank, e.problem, e.hint FROM sea_mq.endpoint_problems() e
UNION ALL
SELECT 7, 'sea_mq is not preloaded: the relay ends with the server and is not woken by commits',
    'Add sea_mq to shared_preload_libraries and restart the server.'
FROM sea_mq.relay_status r WHERE r.running AND NOT r.preloaded;
COMMENT ON VIEW sea_mq.problems IS 'Everything that is wrong just now, the most urgent first; no row: all is well';
COMMENT ON COLUMN sea_mq.problems.rank IS 'Urgency; 1 is the most urgent';
COMMENT ON COLUMN sea_mq.problems.problem IS 'What is wrong';
COMMENT ON COLUMN sea_mq.problems.hint IS 'What to do about it';

CREATE VIEW sea_mq.status AS
SELECT p.problem IS NULL AS ok, coalesce(p.problem, CASE WHEN r.state = 'standby' THEN 'this server is a standby: nothing is published or received here'
        WHEN (SELECT i.test_mode FROM sea_mq.installation i) THEN 'all is well; in test mode, so nothing goes to a broker' END,
        'all is well') AS summary,
    coalesce(p.hint, CASE r.state WHEN 'standby' THEN 'Look at the primary. Here, the workers start by themselves when this server is promoted.' END) AS hint,
    p.problems,
    r.state AS relay, r.pid AS relay_pid, r.server_address AS broker, o.pending, o.oldest_pending_age, o.published, o.scheduled,
    o.failed, o.streams, (SELECT z.bytes FROM sea_mq.log_size() z) AS log_bytes,
    (SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'sea_mq') AS version
FROM sea_mq.relay_status r
CROSS JOIN (SELECT coalesce(sum(s.pending), 0)::bigint AS pending, max(s.oldest_pending_age) AS oldest_pending_age,
        coalesce(sum(s.published), 0)::bigint AS published, coalesce(sum(s.scheduled), 0)::bigint AS scheduled,
        coalesce(sum(s.failed), 0)::bigint AS failed, count(*) AS streams FROM sea_mq.outbox_status s) o
CROSS JOIN (SELECT (array_agg(q.problem ORDER BY q.rank))[1] AS problem, (array_agg(q.hint ORDER BY q.rank))[1] AS hint,
        count(*) AS problems FROM sea_mq.problems q) p;
COMMENT ON VIEW sea_mq.status IS 'One row: is everything all right, and if not, what to do';
COMMENT ON COLUMN sea_mq.status.ok IS 'Whether all is well';
COMMENT ON COLUMN sea_mq.status.summary IS 'The most urgent problem, or "all is well", or that this server is a standby';
COMMENT ON COLUMN sea_mq.status.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.status.problems IS 'How many problems there are; see sea_mq.problems';
COMMENT ON COLUMN sea_mq.status.relay IS 'State of the relay; see sea_mq.relay_status';
COMMENT ON COLUMN sea_mq.status.relay_pid IS 'Process of the relay';
COMMENT ON COLUMN sea_mq.status.broker IS 'nats-server connected to last';
COMMENT ON COLUMN sea_mq.status.pending IS 'Committed events not yet published, over all streams';
COMMENT ON COLUMN sea_mq.status.oldest_pending_age IS 'How long ago the oldest of them was emitted';
COMMENT ON COLUMN sea_mq.status.published IS 'Events published so far';
COMMENT ON COLUMN sea_mq.status.scheduled IS 'Events whose available_at has not come';
COMMENT ON COLUMN sea_mq.status.failed IS 'Events that the broker refused for a reason of their own';
COMMENT ON COLUMN sea_mq.status.streams IS 'Streams described';
COMMENT ON COLUMN sea_mq.status.log_bytes IS 'Size of the log with its indexes, in bytes';
COMMENT ON COLUMN sea_mq.status.version IS 'Version of the extension';

CREATE FUNCTION sea_mq.fate_of(event_id uuid, OUT seq bigint, OUT sink bigint, OUT passed boolean, OUT subject text,
    OUT created_at timestamptz, OUT available_at timestamptz, OUT published_at timestamptz, OUT stream_seq bigint)
RETURNS SETOF record LANGUAGE c STABLE STRICT ROWS 1 AS 'MODULE_PATHNAME', 'fate_of_wrapper';
COMMENT ON FUNCTION sea_mq.fate_of IS
'What became of an event of the log (the last, if the id stands there more than once): whether the cursor has passed it, and when and
where it was stored; no row: it is not there. For internal use';

CREATE FUNCTION sea_mq.event_status(event_id uuid)
RETURNS TABLE (id uuid, status text, subject text, created_at timestamptz, available_at timestamptz, published_at timestamptz,
    attempts integer, error text, stream text, stream_seq bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT $1,
        CASE WHEN f.error IS NOT NULL THEN 'failed'
            WHEN e.passed THEN 'delivered'
            WHEN w.error IS NOT NULL THEN 'retrying'
            ELSE 'pending' END,
        e.subject, e.created_at, e.available_at, CASE WHEN f.error IS NULL THEN e.published_at END,
        coalesce(f.attempts, e.passed::integer), coalesce(f.error, CASE WHEN NOT e.passed THEN w.error END), s.name,
        CASE WHEN f.error IS NULL THEN e.stream_seq END
    -- What was tried again stands in two places, of which the last counts.
    FROM (SELECT l.* FROM sea_mq.fate_of($1) l
        UNION ALL
        SELECT NULL, h.sink, false, coalesce(h.subject, h.context || '.event.' || h.event_type || '.v' || h.event_version),
            h.created_at, h.available_at, NULL, NULL
        FROM sea_mq.scheduled_events h WHERE h.id = $1) e
    LEFT JOIN sea_mq.publish_failures f ON f.event_id = $1 AND f.seq = e.seq
    LEFT JOIN sea_mq.streams s ON s.sink = e.sink
    CROSS JOIN LATERAL (SELECT coalesce((SELECT t.error FROM sea_mq.stream_state t WHERE t.sink = e.sink),
        (SELECT r.error FROM sea_mq.relay_state r)) AS error) w
    ORDER BY e.seq DESC NULLS LAST LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.event_status IS
'What became of an event: pending, retrying (the broker or the stream is not available), delivered or failed (refused for good),
with times, error, stream and sequence. No row: the event is not, or no longer, in the log';

CREATE FUNCTION sea_mq.broker_settings(OUT name text, OUT setting text) RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'broker_settings_wrapper';
COMMENT ON FUNCTION sea_mq.broker_settings IS
'The settings of the broker''s connection, which PostgreSQL hides from all but superusers: URLs without their credentials, and the paths
of files; for internal use';

CREATE FUNCTION sea_mq.install_report() RETURNS TABLE (section text, item text, value text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'extension', 'version', e.extversion FROM pg_extension e WHERE e.extname = 'sea_mq'
    UNION ALL SELECT 'extension', 'install_id', i.install_id::text FROM sea_mq.installation i
    UNION ALL SELECT 'extension', 'preloaded', sea_mq.preloaded()::text
    UNION ALL SELECT * FROM (
        SELECT 'table', c.oid::regclass::text,
            format('%s rows (estimate), %s indexes, %s', greatest(c.reltuples, 0)::bigint,
                (SELECT count(*) FROM pg_index x WHERE x.indrelid = c.oid), pg_size_pretty(pg_total_relation_size(c.oid)))
        FROM pg_class c WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind = 'r' ORDER BY c.relname) AS tables
    UNION ALL SELECT * FROM (
        SELECT 'index', x.indexrelid::regclass::text, CASE WHEN x.indisvalid THEN 'valid' ELSE 'INVALID' END
        FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid
        WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind = 'r' ORDER BY 2) AS indexes
    UNION ALL SELECT * FROM (
        -- Those of the broker are hidden from all but superusers, the extension's owner included.
        SELECT 'setting', g.name, g.setting FROM (
            SELECT p.name, p.setting || coalesce(' ' || p.unit, '') AS setting FROM pg_settings p WHERE starts_with(p.name, 'sea_mq.')
            UNION SELECT b.name, b.setting FROM sea_mq.broker_settings() b) g ORDER BY g.name) AS settings
    UNION ALL SELECT 'worker', w.backend_type, format('pid %s, started %s', w.pid, w.backend_start) FROM sea_mq.workers() w
    UNION ALL SELECT 'worker', 'problem', p.problem FROM sea_mq.worker_problem() p
    UNION ALL SELECT 'relay', 'state', concat_ws(': ', r.state, r.error) FROM sea_mq.relay_status r
    UNION ALL SELECT 'broker', coalesce(r.server_address, 'none'), concat_ws(' ', r.server_name, r.server_version)
        FROM sea_mq.relay_status r
    UNION ALL SELECT 'stream', t.stream, concat_ws(': ', t.state, t.error) FROM sea_mq.stream_status t
    UNION ALL SELECT 'role', a.rolname, shobj_description(a.oid, 'pg_authid') FROM pg_roles a WHERE starts_with(a.rolname, 'sea_mq_')
$$;
COMMENT ON FUNCTION sea_mq.install_report IS
'What is installed and whether it works: tables, indexes, row counts, settings, workers, broker, streams, roles';

-- Who may use it.
GRANT SELECT ON sea_mq.outbox_status, sea_mq.relay_status, sea_mq.stream_status, sea_mq.problems, sea_mq.status
    TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.log_size, sea_mq.unpublished_bytes TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.worker_pauses, sea_mq.event_status, sea_mq.install_report TO sea_mq_operator, sea_mq_monitor;
