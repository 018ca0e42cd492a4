-- What to look at on the receiving side. All of it is cheap: what waits is counted up to a bound, what is done is kept as counts.
CREATE FUNCTION sea_mq.inbox_counts(subscription text, OUT received bigint, OUT processing bigint, OUT failed bigint,
    OUT oldest_at timestamptz, OUT next_attempt_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT count(*) FILTER (WHERE w.status = 'received'), count(*) FILTER (WHERE w.status = 'processing'),
        count(*) FILTER (WHERE w.status = 'failed'), min(w.created_at), min(w.due_at) FILTER (WHERE w.status = 'failed')
    FROM (SELECT p.status, p.created_at, p.due_at FROM sea_mq.inbox_pending p WHERE p.subscription = $1 LIMIT 10001) w
$$;
COMMENT ON FUNCTION sea_mq.inbox_counts IS 'Messages of a subscription that wait, by status; looks at 10,001 at most';

CREATE FUNCTION sea_mq.inbox_size(OUT bytes bigint, OUT dead_tuples bigint)
RETURNS record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- An empty slot's indexes are a page each, and not worth opening them.
    SELECT sum(CASE WHEN pg_relation_size(i.inhrelid) > 0 THEN pg_total_relation_size(i.inhrelid) ELSE 0 END)::bigint,
        sum(pg_stat_get_dead_tuples(i.inhrelid))::bigint
    FROM pg_inherits i WHERE i.inhparent = 'sea_mq.inbox_log'::regclass
$$;
COMMENT ON FUNCTION sea_mq.inbox_size IS 'Bytes that the done part of the inbox takes, indexes included, and its dead tuples';

CREATE VIEW sea_mq.subscription_status AS
SELECT s.subscription, s.source, s.stream, s.subject_filter, s.handler, s.endpoint, coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = s.owner_oid), s.owner) AS owner, s.priority, s.workers,
    CASE WHEN s.paused THEN 'paused' WHEN c.state IS NOT NULL THEN c.state WHEN r.running THEN coalesce(t.state, 'pending') ELSE 'stopped' END AS state,
    CASE WHEN c.state IS NOT NULL THEN c.error_kind WHEN r.running THEN t.error_kind END AS error_kind,
    CASE WHEN c.state IS NOT NULL THEN c.error WHEN r.running THEN t.error ELSE 'the consumer is not running' END AS error,
    CASE WHEN c.state IS NOT NULL THEN c.hint WHEN r.running THEN t.hint ELSE 'See sea_mq.problems.' END AS hint, coalesce(c.since, t.since) AS since,
    t.pending, w.received, w.processing, w.failed AS retrying, w.oldest_at AS oldest_waiting_at, w.next_attempt_at,
    coalesce(t.processed, 0) + coalesce(y.processed, 0) AS processed, coalesce(t.skipped, 0) + coalesce(y.skipped, 0) AS skipped,
    coalesce(t.failed, 0) + coalesce(y.failed, 0) AS failures, coalesce(t.dead, 0) + coalesce(y.dead, 0) AS dead,
    coalesce(t.duplicates, 0) AS duplicates, coalesce(t.redelivered, 0) AS redelivered,
    greatest(t.last_processed_at, y.at) AS last_processed_at, t.stream_sequence AS last_sequence,
    coalesce(m.messages, 0) AS removed, CASE WHEN t.max_ack_pending > 0 THEN least(t.max_ack_pending, s.max_ack_pending) ELSE s.max_ack_pending END AS max_ack_pending
FROM sea_mq.subscriptions s
LEFT JOIN sea_mq.subscription_state t ON t.subscription = s.subscription
LEFT JOIN sea_mq.removed_messages m ON m.subscription = s.subscription
LEFT JOIN sea_mq.call_health c ON c.subscription = s.subscription AND c.state <> 'active' AND t.state = 'active'
CROSS JOIN LATERAL sea_mq.inbox_counts(s.subscription) w
-- What was recorded last may be long ago, or in the database that this one was copied from.
CROSS JOIN (SELECT count(*) > 0 AS running FROM sea_mq.workers() p WHERE p.backend_type = 'sea_mq consumer') r
LEFT JOIN (SELECT z.subscription, sum(z.processed)::bigint AS processed, sum(z.skipped)::bigint AS skipped,
        sum(z.failed)::bigint AS failed, sum(z.dead)::bigint AS dead, max(z.at) FILTER (WHERE z.processed > 0) AS at
    FROM sea_mq.inbox_tally z GROUP BY z.subscription) y ON y.subscription = s.subscription;
COMMENT ON VIEW sea_mq.subscription_status IS 'Each subscription and how it is doing';
COMMENT ON COLUMN sea_mq.subscription_status.subscription IS 'Subscription';
COMMENT ON COLUMN sea_mq.subscription_status.source IS 'Context or stream, as given';
COMMENT ON COLUMN sea_mq.subscription_status.stream IS 'Stream that it reads';
COMMENT ON COLUMN sea_mq.subscription_status.subject_filter IS 'Subjects that it receives';
COMMENT ON COLUMN sea_mq.subscription_status.handler IS 'Function that handles; NULL: an endpoint does, or messages wait for sea_mq.receive';
COMMENT ON COLUMN sea_mq.subscription_status.endpoint IS 'Endpoint that handles, in the place of a function';
COMMENT ON COLUMN sea_mq.subscription_status.owner IS 'Role that the handler runs as';
COMMENT ON COLUMN sea_mq.subscription_status.priority IS 'The greater number goes first';
COMMENT ON COLUMN sea_mq.subscription_status.workers IS 'Processes that handle in parallel';
COMMENT ON COLUMN sea_mq.subscription_status.state IS 'stopped (the consumer is not running), pending (not looked at yet), active, waiting (for the broker or the stream), blocked (the handler cannot be run, or its service refuses all), refused (by the broker) or paused';
COMMENT ON COLUMN sea_mq.subscription_status.error_kind IS 'Kind of the error, if there is one';
COMMENT ON COLUMN sea_mq.subscription_status.error IS 'What is wrong';
COMMENT ON COLUMN sea_mq.subscription_status.hint IS 'What to do about it';
COMMENT ON COLUMN sea_mq.subscription_status.since IS 'When this state began';
COMMENT ON COLUMN sea_mq.subscription_status.pending IS 'Messages in the stream that are not delivered yet, as the broker said last';
COMMENT ON COLUMN sea_mq.subscription_status.received IS 'Messages that wait in the inbox for their first attempt; this and the next two count up to 10,001 together';
COMMENT ON COLUMN sea_mq.subscription_status.processing IS 'Messages that an application or a worker has';
COMMENT ON COLUMN sea_mq.subscription_status.retrying IS 'Messages that wait for another attempt';
COMMENT ON COLUMN sea_mq.subscription_status.oldest_waiting_at IS 'When the oldest of the three was received';
COMMENT ON COLUMN sea_mq.subscription_status.next_attempt_at IS 'When the next retry is due';
COMMENT ON COLUMN sea_mq.subscription_status.processed IS 'Messages handled so far';
COMMENT ON COLUMN sea_mq.subscription_status.skipped IS 'Messages skipped so far';
COMMENT ON COLUMN sea_mq.subscription_status.failures IS 'Failed attempts so far';
COMMENT ON COLUMN sea_mq.subscription_status.dead IS 'Dead letters so far';
COMMENT ON COLUMN sea_mq.subscription_status.duplicates IS 'Messages so far that came again and were not handled again';
COMMENT ON COLUMN sea_mq.subscription_status.redelivered IS 'Deliveries so far that were not the first of their message';
COMMENT ON COLUMN sea_mq.subscription_status.last_processed_at IS 'When the last message was handled';
COMMENT ON COLUMN sea_mq.subscription_status.last_sequence IS 'All up to this stream sequence is in the inbox';
COMMENT ON COLUMN sea_mq.subscription_status.removed IS 'Messages that were removed from the stream before the subscription got them; see sea_mq.removed_messages';
COMMENT ON COLUMN sea_mq.subscription_status.max_ack_pending IS 'Messages that may be under way at once: as described, or as many as the broker allows if those are fewer and nobody asked for more';

CREATE VIEW sea_mq.inbox_status AS
SELECT count(s.subscription) AS subscriptions, count(*) FILTER (WHERE s.state = 'active') AS active,
    coalesce(sum(s.received), 0)::bigint AS received, coalesce(sum(s.processing), 0)::bigint AS processing,
    coalesce(sum(s.retrying), 0)::bigint AS retrying, min(s.oldest_waiting_at) AS oldest_waiting_at,
    coalesce(sum(s.processed), 0)::bigint AS processed, coalesce(sum(s.skipped), 0)::bigint AS skipped,
    coalesce(sum(s.failures), 0)::bigint AS failures, coalesce(sum(s.dead), 0)::bigint AS dead,
    max(s.last_processed_at) AS last_processed_at,
    (SELECT count(*) FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq consumer') > 0 AS consumer_running,
    (SELECT r.current_slot FROM sea_mq.inbox_ring r) AS current_slot, min(z.bytes) AS log_bytes, min(z.dead_tuples) AS log_dead_tuples
FROM sea_mq.inbox_size() z
LEFT JOIN sea_mq.subscription_status s ON true;
COMMENT ON VIEW sea_mq.inbox_status IS 'The inbox as a whole; one row';
COMMENT ON COLUMN sea_mq.inbox_status.subscriptions IS 'Subscriptions';
COMMENT ON COLUMN sea_mq.inbox_status.active IS 'Those that are receiving';
COMMENT ON COLUMN sea_mq.inbox_status.received IS 'Messages that wait for their first attempt';
COMMENT ON COLUMN sea_mq.inbox_status.processing IS 'Messages that an application or a worker has';
COMMENT ON COLUMN sea_mq.inbox_status.retrying IS 'Messages that wait for another attempt';
COMMENT ON COLUMN sea_mq.inbox_status.oldest_waiting_at IS 'When the oldest of the three was received';
COMMENT ON COLUMN sea_mq.inbox_status.processed IS 'Messages handled so far';
COMMENT ON COLUMN sea_mq.inbox_status.skipped IS 'Messages skipped so far';
COMMENT ON COLUMN sea_mq.inbox_status.failures IS 'Failed attempts so far';
COMMENT ON COLUMN sea_mq.inbox_status.dead IS 'Dead letters so far';
COMMENT ON COLUMN sea_mq.inbox_status.last_processed_at IS 'When the last message was handled';
COMMENT ON COLUMN sea_mq.inbox_status.consumer_running IS 'Whether the consumer''s process is there';
COMMENT ON COLUMN sea_mq.inbox_status.current_slot IS 'Slot of the ring that is appended to';
COMMENT ON COLUMN sea_mq.inbox_status.log_bytes IS 'Size of the messages that are done, indexes included, in bytes';
COMMENT ON COLUMN sea_mq.inbox_status.log_dead_tuples IS 'Dead tuples among them, by the statistics; expected to stay near 0';

-- What is decided is counted (sea_mq.dlq_tally) and not looked at. The oldest and the newest open letter are looked up by all
-- columns of one index, in its order, so that no plan reads those of others.
CREATE VIEW sea_mq.dlq_status AS
SELECT t.context, t.subscription, t.open, t.replayed, t.discarded,
    (SELECT d.last_failed_at FROM sea_mq.dlq_messages d
        WHERE d.replayed_at IS NULL AND d.discarded_at IS NULL
            AND (d.context, coalesce(d.subscription, '')) >= (t.context, coalesce(t.subscription, ''))
            AND (d.context, coalesce(d.subscription, '')) <= (t.context, coalesce(t.subscription, ''))
        ORDER BY d.context, coalesce(d.subscription, ''), d.id LIMIT 1) AS oldest_open_at,
    t.last_failed_at,
    (SELECT d.error FROM sea_mq.dlq_messages d
        WHERE d.replayed_at IS NULL AND d.discarded_at IS NULL
            AND (d.context, coalesce(d.subscription, '')) >= (t.context, coalesce(t.subscription, ''))
            AND (d.context, coalesce(d.subscription, '')) <= (t.context, coalesce(t.subscription, ''))
        ORDER BY d.context DESC, coalesce(d.subscription, '') DESC, d.id DESC LIMIT 1) AS last_error,
    t.returned
FROM (SELECT c.context, c.subscription, sum(c.open)::bigint AS open, sum(c.replayed)::bigint AS replayed,
        sum(c.discarded)::bigint AS discarded, sum(c.returned)::bigint AS returned, max(c.last_failed_at) AS last_failed_at
    FROM sea_mq.dlq_tally c GROUP BY c.context, c.subscription
    HAVING sum(c.open) <> 0 OR sum(c.replayed) <> 0 OR sum(c.discarded) <> 0) t;
COMMENT ON VIEW sea_mq.dlq_status IS 'Dead letters, a row for each context and subscription that has some';
COMMENT ON COLUMN sea_mq.dlq_status.context IS 'Context whose dead letter queue it is';
COMMENT ON COLUMN sea_mq.dlq_status.subscription IS 'Subscription that could not handle them';
COMMENT ON COLUMN sea_mq.dlq_status.open IS 'Those about which nothing was decided';
COMMENT ON COLUMN sea_mq.dlq_status.replayed IS 'Those that were replayed, as far as they are retained';
COMMENT ON COLUMN sea_mq.dlq_status.discarded IS 'Those that were discarded, as far as they are retained';
COMMENT ON COLUMN sea_mq.dlq_status.oldest_open_at IS 'When the oldest open one failed last';
COMMENT ON COLUMN sea_mq.dlq_status.last_failed_at IS 'When the newest failed last';
COMMENT ON COLUMN sea_mq.dlq_status.last_error IS 'The error of the newest open one';
COMMENT ON COLUMN sea_mq.dlq_status.returned IS 'Those that are replays which failed again, as far as they are retained';

-- Who may use it.
GRANT SELECT ON sea_mq.subscription_status, sea_mq.inbox_status, sea_mq.dlq_status TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.inbox_counts, sea_mq.inbox_size TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
