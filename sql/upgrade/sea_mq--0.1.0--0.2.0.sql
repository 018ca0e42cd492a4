-- From 0.1.0 to 0.2.0. Made by scripts/upgrade.py; what is said by hand is in 0.1.0--0.2.0.by-hand.sql.
SELECT sea_mq.check_library();

-- The encoding does not change, and the library was looked at above.
-- 1a284f090969

CREATE FUNCTION sea_mq.library_version() RETURNS text LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'library_version_wrapper';
COMMENT ON FUNCTION sea_mq.library_version IS
'Version of the library that this session has loaded. The version of the SQL is in pg_extension; sea_mq.problems says when they differ';
CREATE FUNCTION sea_mq.check_library() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- While a script runs, this is the version that it leads to.
    needed text := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'sea_mq');
BEGIN
    IF string_to_array(sea_mq.library_version(), '.')::integer[] < string_to_array(needed, '.')::integer[] THEN
        RAISE EXCEPTION 'the SQL is of version % and the library of version %', needed, sea_mq.library_version()
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = format('Install version %s of the library (the package of this server''s major), restart the server, and say it again.', needed);
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_library IS 'Refuses a script that is newer than the library; for internal use';
CREATE OR REPLACE VIEW sea_mq.problems AS
SELECT 1 AS rank, 'relay is not running' || coalesce(': ' || w.problem, '') AS problem,
    CASE WHEN w.problem IS NOT NULL THEN w.hint
        WHEN r.preloaded THEN 'Call sea_mq.start(); if that fails, look for sea_mq in the server''s log.'
        ELSE 'Add sea_mq to shared_preload_libraries and restart the server; until then, call sea_mq.start().' END AS hint
FROM sea_mq.relay_status r LEFT JOIN sea_mq.worker_problem() w ON true WHERE NOT r.running AND r.state <> 'standby'
UNION ALL

SELECT 2, format('the %s has failed %s times since %s: %s', f.worker, f.failures, date_trunc('second', f.since),
        coalesce(f.error, 'its process ended; see the server''s log')),
    'It tries again by itself. If that does not help, look for sea_mq in the server''s log; once the cause is mended, it goes on.'
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
    'Mend what holds them up (see the other problems), or raise sea_mq.max_outbox_size.'
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
WHERE r.running AND r.state <> 'connected'
    
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
    'See sea_mq.dlq_list() for the reasons; once mended, sea_mq.retry_failed() sends them.'
FROM (SELECT p.sink, count(*) AS events FROM sea_mq.publish_failures p WHERE p.resolved_at IS NULL GROUP BY p.sink) f
JOIN sea_mq.streams s ON s.sink = f.sink
UNION ALL
SELECT 5, format('what %s names expires at %s', r.expiring_setting, r.expires_at),
    'Replace the file, then call sea_mq.reload(): it is read when a connection is made.'
FROM sea_mq.relay_status r WHERE r.state = 'connected' AND r.expires_at < now() + interval '7 days'
UNION ALL
SELECT 5, format('more than 1000 events wait for stream %s', s.name),
    'If the number does not fall, see sea_mq.relay_status and the broker''s load.'
FROM sea_mq.relay_status r, sea_mq.streams s CROSS JOIN LATERAL sea_mq.pending_events_of(s.sink) o
WHERE o.pending > 1000 AND r.state <> 'unconfigured'
UNION ALL
SELECT 6, format('consumer %s on stream %s: %s', c.name, c.stream, c.error),
    'Describe it anew with sea_mq.create_consumer under the same name, or give it up with sea_mq.drop_consumer.'
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
SELECT 3, 'consumer is not running' || coalesce(': ' || w.problem, ''),
    coalesce(w.hint, 'Call sea_mq.start(); if that fails, look for sea_mq in the server''s log.')
FROM sea_mq.relay_status r LEFT JOIN sea_mq.worker_problem() w ON true WHERE r.running AND EXISTS (SELECT FROM sea_mq.subscriptions)
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
GRANT EXECUTE ON FUNCTION sea_mq.workers, sea_mq.worker_failures, sea_mq.unpublished, sea_mq.is_passed, sea_mq.stored_at, sea_mq.stored_as, sea_mq.pending_events_of, sea_mq.log_size, sea_mq.unpublished_bytes, sea_mq.preloaded, sea_mq.library_version, sea_mq.worker_problem, sea_mq.event_status,
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
