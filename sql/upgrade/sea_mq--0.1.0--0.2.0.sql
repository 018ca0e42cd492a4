-- From 0.1.0 to 0.2.0. Made by scripts/upgrade.py; what is said by hand is in 0.1.0--0.2.0.by-hand.sql.
SELECT sea_mq.check_library();



GRANT EXECUTE ON FUNCTION sea_mq.library_version TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.publish_failures TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.streams TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.consumers, sea_mq.stream_divergences TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.unpublished, sea_mq.is_passed, sea_mq.stored_at, sea_mq.stored_as TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.pending_events_of TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION
    sea_mq.emit(text, text, text, jsonb, integer, text, uuid, text, text, jsonb, text, timestamptz),
    sea_mq.emit(text, anynonarray, text, jsonb, integer, text, uuid, text, text, jsonb, text, timestamptz),
    sea_mq.emit(sea_mq.plain_text, text, sea_mq.plain_text, sea_mq.json_text, integer, text, sea_mq.id_text, text, text, sea_mq.json_text,
        text, timestamptz),
    sea_mq.emit(sea_mq.plain_text, anynonarray, sea_mq.plain_text, sea_mq.json_text, integer, text, sea_mq.id_text, text, text,
        sea_mq.json_text, text, timestamptz)
    TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.emit_many, sea_mq.emit_array, sea_mq.pending_events TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.event_name, sea_mq.context_name TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.outbox_events TO sea_mq_operator, sea_mq_monitor;
GRANT INSERT, SELECT (id) ON sea_mq.outbox_events TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.sink_id TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.json_text_in, sea_mq.json_text_out, sea_mq.id_text_in, sea_mq.id_text_out
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.workers TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.worker_problem, sea_mq.worker_failures TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.preloaded TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.create_stream, sea_mq.alter_stream, sea_mq.rename_stream, sea_mq.drop_stream,
    sea_mq.create_consumer, sea_mq.drop_consumer, sea_mq.start, sea_mq.stop, sea_mq.reload, sea_mq.adopt, sea_mq.test_mode
    TO sea_mq_operator;
GRANT SELECT ON sea_mq.subscriptions, sea_mq.removed_messages TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.subscribe, sea_mq.unsubscribe, sea_mq.alter_subscription, sea_mq.set_paused,
    sea_mq.pause_subscription, sea_mq.resume_subscription, sea_mq.forget_removed TO sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.poison, sea_mq.skip, sea_mq.receive, sea_mq.complete, sea_mq.fail, sea_mq.reject,
    sea_mq.extend_lease,
    sea_mq.inbox_accept(sea_mq.plain_text, text, text, sea_mq.json_text, text, integer, text, sea_mq.json_text),
    sea_mq.inbox_accept(text, text, text, jsonb, text, integer, text, jsonb) TO sea_mq_consumer;
GRANT SELECT ON sea_mq.inbox_messages TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_list TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_replay, sea_mq.dlq_discard, sea_mq.dlq_replay_all TO sea_mq_operator;
GRANT SELECT ON sea_mq.dlq_messages TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.subscription_status, sea_mq.inbox_status, sea_mq.dlq_status TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.inbox_counts, sea_mq.inbox_size TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.endpoint_problems TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.outbox_status, sea_mq.relay_status, sea_mq.stream_status, sea_mq.problems, sea_mq.status
    TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.log_size, sea_mq.unpublished_bytes TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.worker_pauses, sea_mq.event_status, sea_mq.install_report TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.event_types, sea_mq.schema_definitions TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.contract_uri, sea_mq.contract_violations
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.register_event, sea_mq.register_schema, sea_mq.deprecate_event TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.compare_schemas, sea_mq.compare_versions, sea_mq.contract_path, sea_mq.contract_file,
    sea_mq.export_contracts TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.lint_contracts, sea_mq.lint TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.contract_files, sea_mq.import_contracts TO sea_mq_operator;
GRANT SELECT ON sea_mq.captures, sea_mq.capture_triggers TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.capture, sea_mq.capture_condition TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.capture_members TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.captured_tables TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.begin_capture, sea_mq.capture_table, sea_mq.stop_capture TO sea_mq_operator;
GRANT SELECT ON sea_mq.partner_mappings TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.ingest TO sea_mq_producer;
GRANT EXECUTE ON FUNCTION sea_mq.map_fields TO sea_mq_producer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.register_mapping, sea_mq.drop_mapping TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.external_view TO sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.retry_failed, sea_mq.verify_stream, sea_mq.republish TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.publication_now, sea_mq.wait_published TO sea_mq_producer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_page, sea_mq.events_after, sea_mq.masked_payload TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.dlq_replay_batch TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.metrics, sea_mq.overview_row TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT SELECT ON sea_mq.metrics, sea_mq.overview, sea_mq.stream_overview, sea_mq.subscription_overview, sea_mq.dlq_overview
    TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.create_links, sea_mq.create_link, sea_mq.drop_link TO sea_mq_producer, sea_mq_consumer, sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.find_links_by_source, sea_mq.find_links_by_target, sea_mq.find_links_by_type, sea_mq.find_link,
    sea_mq.links_of TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.entity_links TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.subscriptions_of, sea_mq.event_names
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.is_processed(text, text), sea_mq.is_processed(uuid, text)
    TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.create_endpoint, sea_mq.alter_endpoint, sea_mq.set_endpoint_paused, sea_mq.pause_endpoint,
    sea_mq.resume_endpoint, sea_mq.drop_endpoint, sea_mq.forget_dropped, sea_mq.rotate_secret, sea_mq.set_secret,
    sea_mq.check_endpoint TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.deliver, sea_mq.redeliver, sea_mq.redeliver_all, sea_mq.cancel_delivery TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.delivery_status TO sea_mq_producer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.reader_unread TO sea_mq_operator, sea_mq_monitor;
GRANT SELECT ON sea_mq.endpoints, sea_mq.deliveries, sea_mq.endpoint_status TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.event_trace TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.trace_places, sea_mq.traced_events, sea_mq.traced_messages
    TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;

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
BEGIN
    IF NOT sea_mq.preloaded() THEN
        RAISE WARNING 'sea_mq is not in shared_preload_libraries'
            USING DETAIL = 'Events are stored, but no relay publishes them.',
                HINT = 'Add sea_mq to shared_preload_libraries and restart the server; until then, call sea_mq.start().';
    END IF;
END $$;
SELECT sea_mq.announce();

SELECT sea_mq.restart_at_commit();
