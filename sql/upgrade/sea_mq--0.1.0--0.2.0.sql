-- From 0.1.0 to 0.2.0. Made by scripts/upgrade.py; what is said by hand is in 0.1.0--0.2.0.by-hand.sql.
SELECT sea_mq.check_library();


CREATE OR REPLACE VIEW sea_mq.stream_status AS
SELECT s.name AS stream, s.context, s.kind, coalesce(t.state, 'pending') AS state, t.error_kind, t.error, t.hint,
    coalesce(t.ordering, 'strict') AS ordering, t.differences, coalesce(t.losses, 0) AS losses, t.last_loss,
    c.stream_sequence AS last_sequence, coalesce(c.published, 0) AS published, p.pending, s.managed, t.since,
    s.atomic_transactions, coalesce(c.not_atomic, 0) AS not_atomic, c.last_not_atomic, p.oldest AS oldest_pending_at
FROM sea_mq.streams s
LEFT JOIN sea_mq.stream_state t ON t.sink = s.sink
LEFT JOIN sea_mq.stream_progress c ON c.sink = s.sink
CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) p;
COMMENT ON COLUMN sea_mq.stream_status.oldest_pending_at IS 'When the first of them was emitted';
COMMENT ON FUNCTION sea_mq.lint IS
'What is wrong with the registry, by the file in which a contract would stand: the rules of sea-mq contracts lint, and what retained
events show: emitted types that are not registered or are deprecated. Reads all retained events';
CREATE OR REPLACE FUNCTION sea_mq.metrics() RETURNS TABLE (name text, type text, help text, labels jsonb, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT 'sea_mq_info', 'gauge', 'Version of the extension; always 1', jsonb_build_object('version', e.extversion), 1
    FROM pg_extension e WHERE e.extname = 'sea_mq'
    UNION ALL
    SELECT 'sea_mq_problems', 'gauge', 'Rows of sea_mq.problems', '{}', count(*) FROM sea_mq.problems
    UNION ALL
    SELECT m.name, 'gauge', m.help, '{}', m.value
    FROM sea_mq.relay_status r CROSS JOIN LATERAL (VALUES
        ('sea_mq_relay_running', 'Whether the relay''s process is there', r.running::integer),
        ('sea_mq_relay_connected', 'Whether the relay is connected to the broker', (r.running AND r.state = 'connected')::integer),
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
CREATE OR REPLACE VIEW sea_mq.stream_overview AS
SELECT s.stream, s.context, s.kind, s.state, s.ordering, s.losses, s.last_sequence, s.published, s.pending, s.managed, s.since,
    s.atomic_transactions, s.not_atomic, s.oldest_pending_at
FROM sea_mq.stream_status s;

-- The door. A function that was declared SECURITY DEFINER does its work as the extension's owner, but not in PostgreSQL's way, which
-- keeps all settings of the caller's but those that the function names: sea_mq.f(…) becomes a C function that runs
-- sea_mq_inside.f(…), the body that was declared, inside the door (src/host/door.rs). The list that remains is in SECURITY.md.
DO $$
DECLARE
    f record;
    definition text;
    quotes text := current_setting('quote_all_identifiers');
BEGIN
    -- What is replaced below is then spelt as it is there.
    PERFORM set_config('quote_all_identifiers', 'off', true);
    FOR f IN
        SELECT p.oid, p.proname AS name, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
            pg_get_function_identity_arguments(p.oid) AS signature,
            CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END
                || CASE WHEN p.proisstrict THEN ' STRICT' ELSE '' END || CASE WHEN p.proretset THEN format(' ROWS %s', p.prorows) ELSE '' END AS traits
        FROM pg_proc p
        WHERE p.pronamespace = 'sea_mq'::regnamespace AND p.prosecdef AND p.proname <> 'workers'
    LOOP
        definition := replace(pg_get_functiondef(f.oid), format('FUNCTION sea_mq.%s(', f.name), format('FUNCTION sea_mq_inside.%s(', f.name));
        EXECUTE definition;
        EXECUTE format('ALTER FUNCTION sea_mq_inside.%s(%s) SECURITY INVOKER', f.name, f.signature);
        EXECUTE format('COMMENT ON FUNCTION sea_mq_inside.%s(%s) IS %L', f.name, f.signature,
            format('What sea_mq.%s does, as the extension''s owner; for internal use', f.name));
        EXECUTE format('CREATE OR REPLACE FUNCTION sea_mq.%s(%s) RETURNS %s LANGUAGE c %s AS ''MODULE_PATHNAME'', ''door_wrapper''',
            f.name, f.arguments, f.result, f.traits);
    END LOOP;
    PERFORM set_config('quote_all_identifiers', quotes, true);
END $$;

-- Messages belong to a role that owns nothing else, and that nobody is a member of. Schema, functions and views stay the
-- installing superuser's: what a superuser calls or reads is then not the owner's to change.
GRANT USAGE ON SCHEMA sea_mq, sea_mq_inside TO sea_mq_owner;
DO $$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT c.oid::regclass AS name FROM pg_class c
        WHERE c.relnamespace = 'sea_mq'::regnamespace AND (c.relkind IN ('r', 'p') OR (c.relkind = 'S'
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))))
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO sea_mq_owner', r.name);
    END LOOP;
END $$;
GRANT ALL ON ALL TABLES IN SCHEMA sea_mq TO sea_mq_owner;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA sea_mq, sea_mq_inside TO sea_mq_owner;

-- Nothing is granted to PUBLIC. Functions are executable by PUBLIC unless that is taken back.
REVOKE ALL ON SCHEMA sea_mq FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA sea_mq, sea_mq_inside FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA sea_mq FROM PUBLIC;

GRANT USAGE ON SCHEMA sea_mq TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer;

DO $$
DECLARE
    form regprocedure;
BEGIN
    FOR form IN SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'sea_mq'::regnamespace AND p.proname = 'emit' LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO sea_mq_producer', form);
    END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION sea_mq.emit_many, sea_mq.emit_array, sea_mq.pending_events, sea_mq.event_name, sea_mq.context_name
    TO sea_mq_producer;
-- The ids are for INSERT … RETURNING id.
GRANT INSERT, SELECT (id) ON sea_mq.outbox_events TO sea_mq_producer;

GRANT SELECT ON sea_mq.outbox_events, sea_mq.outbox_status, sea_mq.relay_status, sea_mq.stream_status, sea_mq.problems,
    sea_mq.status, sea_mq.streams, sea_mq.consumers, sea_mq.publish_failures, sea_mq.stream_divergences TO sea_mq_monitor, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.workers, sea_mq.worker_failures, sea_mq.unpublished, sea_mq.is_passed, sea_mq.stored_at, sea_mq.stored_as, sea_mq.pending_events_of, sea_mq.log_size, sea_mq.unpublished_bytes, sea_mq.preloaded, sea_mq.library_version, sea_mq.worker_problem, sea_mq.event_status, sea_mq.event_trace,
    sea_mq.install_report, sea_mq.event_name, sea_mq.context_name, sea_mq.sink_id TO sea_mq_monitor, sea_mq_operator;

GRANT EXECUTE ON FUNCTION sea_mq.create_stream, sea_mq.alter_stream, sea_mq.rename_stream, sea_mq.drop_stream, sea_mq.create_consumer,
    sea_mq.drop_consumer, sea_mq.start, sea_mq.stop, sea_mq.reload, sea_mq.adopt, sea_mq.test_mode TO sea_mq_operator;
-- Who subscribes owns the subscription. Nobody writes to the tables: who may do what is for the functions to say.
GRANT SELECT ON sea_mq.subscriptions, sea_mq.removed_messages TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.streams TO sea_mq_consumer;
GRANT EXECUTE ON FUNCTION sea_mq.subscribe, sea_mq.unsubscribe, sea_mq.alter_subscription, sea_mq.set_paused,
    sea_mq.pause_subscription, sea_mq.resume_subscription, sea_mq.forget_removed, sea_mq.event_name, sea_mq.context_name
    TO sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.receive, sea_mq.complete, sea_mq.fail, sea_mq.reject, sea_mq.extend_lease,
    sea_mq.inbox_accept(text, text, text, jsonb, text, integer, text, jsonb),
    sea_mq.inbox_accept(sea_mq.plain_text, text, text, sea_mq.json_text, text, integer, text, sea_mq.json_text),
    sea_mq.poison, sea_mq.skip TO sea_mq_consumer;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_list, sea_mq.dlq_replay, sea_mq.dlq_replay_all, sea_mq.dlq_discard TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_list, sea_mq.dlq_page TO sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_page, sea_mq.dlq_replay_batch TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.events_after, sea_mq.masked_payload TO sea_mq_monitor, sea_mq_operator;
GRANT SELECT ON sea_mq.subscription_status, sea_mq.inbox_status, sea_mq.dlq_status TO sea_mq_monitor, sea_mq_operator, sea_mq_consumer;
GRANT SELECT ON sea_mq.inbox_messages, sea_mq.dlq_messages TO sea_mq_monitor, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.inbox_counts, sea_mq.inbox_size, sea_mq.workers TO sea_mq_monitor, sea_mq_operator, sea_mq_consumer;

GRANT EXECUTE ON FUNCTION sea_mq.retry_failed, sea_mq.verify_stream, sea_mq.republish TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.wait_published, sea_mq.publication_now TO sea_mq_producer, sea_mq_operator, sea_mq_monitor;

-- A parameter whose value is known when the statement is planned is cast by these, with the rights of the caller.
GRANT EXECUTE ON FUNCTION sea_mq.json_text_in, sea_mq.json_text_out, sea_mq.id_text_in, sea_mq.id_text_out
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator;

-- How it goes, without what it is about.
GRANT EXECUTE ON FUNCTION sea_mq.metrics TO sea_mq_viewer, sea_mq_monitor, sea_mq_operator;
GRANT SELECT ON sea_mq.metrics, sea_mq.overview, sea_mq.stream_overview, sea_mq.subscription_overview, sea_mq.dlq_overview
    TO sea_mq_viewer, sea_mq_monitor, sea_mq_operator;
-- Functions in a view are called with the rights of whoever reads the view.
GRANT EXECUTE ON FUNCTION sea_mq.workers, sea_mq.preloaded, sea_mq.pending_events_of, sea_mq.log_size, sea_mq.inbox_counts, sea_mq.inbox_size,
    sea_mq.unpublished_bytes TO sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.overview_row TO sea_mq_viewer, sea_mq_monitor, sea_mq_operator;

-- The registry is open to all who use the extension; what is agreed on is registered by operators.
GRANT SELECT ON sea_mq.event_types, sea_mq.schema_definitions
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.contract_violations, sea_mq.contract_uri
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.partner_mappings TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.ingest TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.map_fields TO sea_mq_producer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.register_mapping, sea_mq.drop_mapping TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.external_view TO sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.register_event, sea_mq.register_schema, sea_mq.deprecate_event TO sea_mq_operator;

GRANT EXECUTE ON FUNCTION sea_mq.compare_schemas, sea_mq.compare_versions, sea_mq.export_contracts, sea_mq.contract_path,
    sea_mq.contract_file TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.lint, sea_mq.lint_contracts TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.import_contracts, sea_mq.contract_files TO sea_mq_operator;

-- Handlers link what they make, so whoever emits or handles may.
GRANT EXECUTE ON FUNCTION sea_mq.create_link, sea_mq.create_links, sea_mq.drop_link TO sea_mq_producer, sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.find_link, sea_mq.find_links_by_source, sea_mq.find_links_by_target, sea_mq.find_links_by_type,
    sea_mq.links_of TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.entity_links TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.subscriptions_of, sea_mq.event_names
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.is_processed(text, text), sea_mq.is_processed(uuid, text)
    TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;

GRANT EXECUTE ON FUNCTION sea_mq.create_endpoint, sea_mq.alter_endpoint, sea_mq.drop_endpoint, sea_mq.set_endpoint_paused,
    sea_mq.pause_endpoint, sea_mq.resume_endpoint, sea_mq.rotate_secret, sea_mq.set_secret, sea_mq.deliver, sea_mq.redeliver,
    sea_mq.redeliver_all, sea_mq.cancel_delivery, sea_mq.check_endpoint, sea_mq.forget_dropped TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.delivery_status TO sea_mq_operator, sea_mq_monitor, sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.reader_unread, sea_mq.endpoint_problems TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.endpoints, sea_mq.deliveries, sea_mq.endpoint_status TO sea_mq_operator, sea_mq_monitor;

-- Whoever captures a table must own it; the functions see to it.
GRANT SELECT ON sea_mq.captures, sea_mq.capture_triggers, sea_mq.captured_tables TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.capture_table, sea_mq.begin_capture, sea_mq.stop_capture, sea_mq.capture, sea_mq.capture_condition
    TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.capture_members TO sea_mq_operator, sea_mq_monitor;

DO $$
BEGIN
    IF NOT sea_mq.preloaded() THEN
        RAISE WARNING 'sea_mq is not in shared_preload_libraries'
            USING DETAIL = 'Events are stored, but no relay publishes them.',
                HINT = 'Add sea_mq to shared_preload_libraries and restart the server; until then, call sea_mq.start().';
    END IF;
END $$;
SELECT sea_mq.announce();

SELECT sea_mq.restart_at_commit();
