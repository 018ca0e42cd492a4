-- Metrics: defined here and nowhere else. `sea-mq serve`, sql_exporter and psql all read this.

CREATE FUNCTION sea_mq.latency_metrics(OUT name text, OUT bound double precision, OUT value double precision) RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'latency_metrics_wrapper';
COMMENT ON FUNCTION sea_mq.latency_metrics IS
'The histograms of this database''s workers since the server started: how many took bound seconds at most (infinity: how many there
were; NULL: their sum); for internal use';

CREATE FUNCTION sea_mq.metrics() RETURNS TABLE (name text, type text, help text, labels jsonb, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT 'sea_mq_info', 'gauge', 'Version of the extension; always 1', jsonb_build_object('version', e.extversion), 1
    FROM pg_extension e WHERE e.extname = 'sea_mq'
    UNION ALL
    SELECT 'sea_mq_problems', 'gauge', 'Rows of sea_mq.problems', '{}', count(*) FROM sea_mq.problems
    UNION ALL
    SELECT m.name, 'gauge', m.help, '{}', m.value
    FROM sea_mq.relay_status r CROSS JOIN LATERAL (VALUES
        ('sea_mq_relay_running', 'Whether the relay''s process is there', r.running::integer),
        ('sea_mq_relay_connected', 'Whether the relay is connected to the broker, or rests since it has nothing to do',
            (r.running AND r.state = 'connected' OR r.state = 'idle')::integer),
        ('sea_mq_relay_connection_failures', 'Failed connection attempts in a row', CASE WHEN r.running THEN coalesce(r.failures, 0) ELSE 0 END))
        m(name, help, value)
    UNION ALL
    SELECT 'sea_mq_consumer_running', 'gauge', 'Whether the consumer''s process is there', '{}',
        (EXISTS (SELECT FROM sea_mq.workers() w WHERE w.backend_type = 'sea_mq consumer'))::integer
    UNION ALL
    SELECT 'sea_mq_outbox_size_bytes', 'gauge', 'Size of the log with its indexes', '{}', z.bytes FROM sea_mq.log_size() z
    UNION ALL
    SELECT 'sea_mq_inbox_size_bytes', 'gauge', 'Size of the messages that are done, with their indexes', '{}', z.bytes FROM sea_mq.inbox_size() z
    UNION ALL
    SELECT 'sea_mq_outbox_unpublished_bytes', 'gauge', 'About how much of the log is not published yet', '{}', sea_mq.unpublished_bytes()
    UNION ALL
    SELECT m.name, m.type, m.help, jsonb_build_object('context', s.context, 'kind', s.kind, 'stream', s.name), m.value
    FROM sea_mq.streams s
    LEFT JOIN sea_mq.stream_state t ON t.sink = s.sink
    LEFT JOIN sea_mq.stream_progress c ON c.sink = s.sink
    CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) p
    CROSS JOIN LATERAL (VALUES
        ('sea_mq_stream_ready', 'gauge', 'Whether the stream takes events', coalesce(t.state = 'ready', false)::integer),
        ('sea_mq_stream_pending_events', 'gauge', 'Committed events not yet published; counted up to 10,001', p.pending),
        ('sea_mq_stream_oldest_pending_seconds', 'gauge', 'Age of the oldest of them',
            coalesce(greatest(extract(epoch FROM clock_timestamp() - p.oldest), 0), 0)),
        ('sea_mq_stream_scheduled_events', 'gauge', 'Events whose available_at has not come; counted up to 10,001',
            (SELECT count(*) FROM (SELECT FROM sea_mq.scheduled_events e WHERE e.sink = s.sink LIMIT 10001) w)),
        ('sea_mq_stream_refused_events', 'gauge', 'Events that the broker refused, and about which nothing was decided',
            (SELECT count(*) FROM sea_mq.publish_failures f WHERE f.sink = s.sink AND f.resolved_at IS NULL)),
        ('sea_mq_stream_published_events_total', 'counter', 'Events published', coalesce(c.published, 0)),
        ('sea_mq_stream_losses_total', 'counter', 'How often the broker had lost data that it had acknowledged', coalesce(t.losses, 0)),
        ('sea_mq_stream_divided_transactions_total', 'counter', 'Transactions that were to be published as one and were not', coalesce(c.not_atomic, 0)))
        m(name, type, help, value)
    UNION ALL
    SELECT m.name, m.type, m.help, jsonb_build_object('subscription', s.subscription, 'stream', s.stream), m.value
    FROM sea_mq.subscription_status s
    CROSS JOIN LATERAL (VALUES
        ('sea_mq_subscription_active', 'gauge', 'Whether the subscription receives', (s.state = 'active')::integer),
        ('sea_mq_subscription_pending_messages', 'gauge', 'Messages in the stream that are not delivered yet', coalesce(s.pending, 0)),
        ('sea_mq_subscription_ack_pending_messages', 'gauge', 'Messages under way: delivered, and not done', s.received + s.processing + s.retrying),
        ('sea_mq_subscription_max_ack_pending_messages', 'gauge', 'Messages that may be under way at once', s.max_ack_pending),
        ('sea_mq_subscription_oldest_waiting_seconds', 'gauge', 'How long the oldest message has been under way',
            coalesce(greatest(extract(epoch FROM clock_timestamp() - s.oldest_waiting_at), 0), 0)),
        ('sea_mq_subscription_processed_messages_total', 'counter', 'Messages handled', s.processed),
        ('sea_mq_subscription_skipped_messages_total', 'counter', 'Messages skipped', s.skipped),
        ('sea_mq_subscription_failed_attempts_total', 'counter', 'Attempts that failed', s.failures),
        ('sea_mq_subscription_dead_messages_total', 'counter', 'Messages that became dead letters', s.dead),
        ('sea_mq_subscription_duplicate_messages_total', 'counter', 'Messages that came again and were not handled again', s.duplicates),
        ('sea_mq_subscription_redelivered_messages_total', 'counter', 'Deliveries that were not the first of their message', s.redelivered),
        ('sea_mq_subscription_removed_messages', 'gauge', 'Messages that were removed from the stream before the subscription got them', s.removed))
        m(name, type, help, value)
    UNION ALL
    SELECT 'sea_mq_subscription_waiting_messages', 'gauge', 'Messages in the inbox that are not done; counted up to 10,001',
        jsonb_build_object('subscription', s.subscription, 'stream', s.stream, 'state', m.state), m.value
    FROM sea_mq.subscriptions s CROSS JOIN LATERAL sea_mq.inbox_counts(s.subscription) w
    CROSS JOIN LATERAL (VALUES ('received', w.received), ('processing', w.processing), ('retrying', w.failed)) m(state, value)
    UNION ALL
    SELECT 'sea_mq_dead_letters', 'gauge', 'Dead letters that are retained',
        jsonb_strip_nulls(jsonb_build_object('context', d.context, 'subscription', d.subscription, 'state', m.state)), m.value
    FROM sea_mq.dlq_status d
    CROSS JOIN LATERAL (VALUES ('open', d.open), ('replayed', d.replayed), ('discarded', d.discarded)) m(state, value)
    UNION ALL
    SELECT 'sea_mq_dead_letters_returned', 'gauge', 'Dead letters that are replays which failed again, of those that are retained',
        jsonb_strip_nulls(jsonb_build_object('context', d.context, 'subscription', d.subscription)), d.returned
    FROM sea_mq.dlq_status d
    UNION ALL
    SELECT 'sea_mq_oldest_open_dead_letter_seconds', 'gauge', 'How long ago the oldest open dead letter failed last',
        jsonb_strip_nulls(jsonb_build_object('context', d.context, 'subscription', d.subscription)),
        coalesce(greatest(extract(epoch FROM clock_timestamp() - d.oldest_open_at), 0), 0)
    FROM sea_mq.dlq_status d
    UNION ALL
    SELECT h.name || CASE WHEN l.bound IS NULL THEN '_sum' WHEN l.bound = 'infinity' AND k.count_row THEN '_count' ELSE '_bucket' END,
        'histogram', h.help,
        CASE WHEN l.bound IS NULL OR k.count_row THEN '{}' WHEN l.bound = 'infinity' THEN '{"le": "+Inf"}'
            ELSE jsonb_build_object('le', l.bound::text) END, l.value
    FROM sea_mq.latency_metrics() l
    JOIN (VALUES
        ('store', 'sea_mq_store_latency_seconds', 'From the commit of an event to its storing in its stream'),
        ('handle', 'sea_mq_handle_latency_seconds', 'From the storing of a message in its stream to the end of its handling'),
        ('handler', 'sea_mq_handler_duration_seconds', 'How long attempts of handlers took')) h(key, name, help) ON h.key = l.name
    JOIN (VALUES (false), (true)) k(count_row) ON NOT k.count_row OR l.bound = 'infinity'
$$;
COMMENT ON FUNCTION sea_mq.metrics IS
'All metrics, in Prometheus'' terms: name, type (gauge, counter or histogram), help, labels and value. Counters end in _total, units
are base units, and the rows of a histogram end in _bucket, _count and _sum';

CREATE VIEW sea_mq.metrics AS SELECT m.name, m.type, m.help, m.labels, m.value FROM sea_mq.metrics() m;
COMMENT ON VIEW sea_mq.metrics IS 'All metrics: what sea_mq.metrics() returns';
COMMENT ON COLUMN sea_mq.metrics.name IS 'Name';
COMMENT ON COLUMN sea_mq.metrics.type IS 'gauge, counter or histogram';
COMMENT ON COLUMN sea_mq.metrics.help IS 'What it says';
COMMENT ON COLUMN sea_mq.metrics.labels IS 'Labels: an object of strings';
COMMENT ON COLUMN sea_mq.metrics.value IS 'Value';

-- For those who may see how it goes and not what it is about: no payload, no text of an error.
-- What sea_mq.status is made of has the texts, and functions in a view are called with the rights of whoever reads it.
CREATE FUNCTION sea_mq.overview_row(OUT ok boolean, OUT problems bigint, OUT relay text, OUT pending bigint, OUT oldest_pending_age interval,
    OUT published bigint, OUT scheduled bigint, OUT failed bigint, OUT streams bigint, OUT subscriptions bigint, OUT dead_letters bigint,
    OUT log_bytes bigint, OUT version text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.ok, s.problems, s.relay, s.pending, s.oldest_pending_age, s.published, s.scheduled, s.failed, s.streams,
        (SELECT count(*) FROM sea_mq.subscriptions),
        (SELECT coalesce(sum(d.open), 0)::bigint FROM sea_mq.dlq_status d), s.log_bytes, s.version
    FROM sea_mq.status s
$$;
COMMENT ON FUNCTION sea_mq.overview_row IS 'The row of sea_mq.overview; for internal use';
CREATE VIEW sea_mq.overview AS
SELECT s.ok, s.problems, s.relay, s.pending, s.oldest_pending_age, s.published, s.scheduled, s.failed, s.streams, s.subscriptions,
    s.dead_letters, s.log_bytes, s.version
FROM sea_mq.overview_row() s;
COMMENT ON VIEW sea_mq.overview IS 'One row: is everything all right, in states and numbers, without any text of an error';
CREATE VIEW sea_mq.stream_overview AS
SELECT s.stream, s.context, s.kind, s.state, s.ordering, s.losses, s.last_sequence, s.published, s.pending, s.managed, s.since,
    s.atomic_transactions, s.not_atomic, s.oldest_pending_at
FROM sea_mq.stream_status s;
COMMENT ON VIEW sea_mq.stream_overview IS 'sea_mq.stream_status without any text of an error';
CREATE VIEW sea_mq.subscription_overview AS
SELECT s.subscription, s.source, s.stream, s.subject_filter, s.priority, s.workers, s.state, s.since, s.pending, s.received,
    s.processing, s.retrying, s.oldest_waiting_at, s.next_attempt_at, s.processed, s.skipped, s.failures, s.dead, s.duplicates,
    s.redelivered, s.last_processed_at, s.last_sequence, s.removed
FROM sea_mq.subscription_status s;
COMMENT ON VIEW sea_mq.subscription_overview IS 'sea_mq.subscription_status without any text of an error';
CREATE VIEW sea_mq.dlq_overview AS
SELECT d.context, d.subscription, d.open, d.replayed, d.discarded, d.returned, d.oldest_open_at, d.last_failed_at
FROM sea_mq.dlq_status d;
COMMENT ON VIEW sea_mq.dlq_overview IS 'sea_mq.dlq_status without any text of an error';
DO $$
DECLARE
    c record;
BEGIN
    -- Their columns mean what they mean in the views that they are of.
    FOR c IN
        SELECT v.attrelid::regclass AS view, v.attname AS name, coalesce(col_description(o.attrelid, o.attnum), CASE v.attname
            WHEN 'subscriptions' THEN 'Subscriptions' ELSE 'Dead letters about which nothing was decided' END) AS remark
        FROM (VALUES ('sea_mq.overview'::regclass, 'sea_mq.status'::regclass), ('sea_mq.stream_overview', 'sea_mq.stream_status'),
            ('sea_mq.subscription_overview', 'sea_mq.subscription_status'), ('sea_mq.dlq_overview', 'sea_mq.dlq_status')) t(view, original)
        JOIN pg_attribute v ON v.attrelid = t.view AND v.attnum > 0
        LEFT JOIN pg_attribute o ON o.attrelid = t.original AND o.attname = v.attname
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', c.view, c.name, c.remark);
    END LOOP;
END $$;

-- How it goes, without what it is about. Functions in a view are called with the rights of whoever reads the view.
GRANT EXECUTE ON FUNCTION sea_mq.metrics, sea_mq.overview_row TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT SELECT ON sea_mq.metrics, sea_mq.overview, sea_mq.stream_overview, sea_mq.subscription_overview, sea_mq.dlq_overview
    TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
