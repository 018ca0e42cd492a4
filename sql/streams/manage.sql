-- ASCII letters alone become capitals: others would by the rules of the database's locale, where two contexts may have the
-- same capitals (i and ı) and two databases have different rules for one context.
CREATE FUNCTION sea_mq.default_stream(context text, kind text) RETURNS sea_mq.streams
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT upper($1 COLLATE "C") || CASE $2 WHEN 'event' THEN '_EVENTS' ELSE '_DLQ' END, $1, $2, sea_mq.sink_id($1, $2),
        ARRAY[$1 || '.' || $2 || '.>'], 'limits', interval '7 days',
        CASE $2 WHEN 'event' THEN 10737418240 ELSE 1073741824 END, -1::bigint, -1, 'file', 1, interval '2 minutes',
        'payload', 'minimal', false, true, i.install_id, false, now(), now()
    FROM sea_mq.installation i
$$;
COMMENT ON FUNCTION sea_mq.default_stream IS 'The description of a context''s stream with all defaults';

-- Called by emit's pre-commit hook, as the extension's owner, for a context that has no stream yet.
CREATE FUNCTION sea_mq.describe_default_stream(context text, kind text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.streams
    SELECT (sea_mq.default_stream($1, k)).* FROM (VALUES ('event'), ('dlq')) AS kinds(k)
    WHERE k = $2 OR k = 'dlq'
    ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION sea_mq.describe_default_stream IS
'Describes the stream of a context with the defaults, unless there is one; an event stream comes with its dead-letter stream.
For internal use';

CREATE FUNCTION sea_mq.create_stream(
    context text, name text DEFAULT NULL, subjects text[] DEFAULT NULL, kind text DEFAULT 'event',
    retention text DEFAULT 'limits', max_age interval DEFAULT '7 days', max_bytes bigint DEFAULT NULL,
    max_msgs bigint DEFAULT -1, max_msg_size integer DEFAULT -1, storage text DEFAULT 'file', replicas integer DEFAULT 1,
    duplicate_window interval DEFAULT '2 minutes', body text DEFAULT 'payload', managed boolean DEFAULT true,
    atomic_transactions boolean DEFAULT false, metadata text DEFAULT 'minimal')
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ctx text := sea_mq.context_name(context);
    new_name text;
BEGIN
    IF ctx IS NULL THEN
        RAISE EXCEPTION 'context must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Pass the name of the bounded context, as in ''orders''.';
    END IF;
    IF kind IS NULL OR kind NOT IN ('event', 'dlq') THEN
        RAISE EXCEPTION 'kind "%" is not known', kind
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use event or dlq.';
    END IF;
    new_name := coalesce(create_stream.name, upper(ctx COLLATE "C") || CASE kind WHEN 'event' THEN '_EVENTS' ELSE '_DLQ' END);
    IF new_name = 'SEA_MQ_RELAYS' THEN
        RAISE EXCEPTION 'the name "%" is reserved', new_name
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the stream another name: sea_mq keeps in that one which relay publishes.';
    END IF;
    INSERT INTO sea_mq.streams (name, context, kind, sink, subjects, retention, max_age, max_bytes, max_msgs, max_msg_size,
        storage, replicas, duplicate_window, body, metadata, atomic_transactions, managed, owner)
    SELECT new_name, ctx, create_stream.kind, sea_mq.sink_id(ctx, create_stream.kind),
        coalesce(create_stream.subjects, ARRAY[ctx || '.' || create_stream.kind || '.>']), create_stream.retention,
        create_stream.max_age, coalesce(create_stream.max_bytes, d.max_bytes), create_stream.max_msgs, create_stream.max_msg_size, create_stream.storage,
        create_stream.replicas, create_stream.duplicate_window, create_stream.body, create_stream.metadata, create_stream.atomic_transactions,
        create_stream.managed, i.install_id
    FROM sea_mq.installation i, sea_mq.default_stream(ctx, create_stream.kind) d;
    IF create_stream.kind = 'event' THEN
        PERFORM sea_mq.describe_default_stream(ctx, 'dlq');
    END IF;
    PERFORM sea_mq.wake_at_commit();
    RETURN new_name;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'there is a stream for context "%" already, or one with that name', ctx
        USING ERRCODE = 'duplicate_object', HINT = 'See sea_mq.streams; change it with sea_mq.alter_stream.';
WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the stream cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'max_age is 0 to 100 years, duplicate_window 100 ms to 100 years; see the constraints of sea_mq.streams for the others.';
END $$;
COMMENT ON FUNCTION sea_mq.create_stream IS
'Describes a context''s stream and returns its name; the relay creates it in JetStream. Parameters are the columns of
sea_mq.streams. max_bytes is 10 GiB, and 1 GiB for dead letters, unless given. A context''s event stream comes with its dead-letter stream. Errors: 22004, 22023, 42710 (exists already)';

CREATE FUNCTION sea_mq.alter_stream(
    name text, subjects text[] DEFAULT NULL, max_age interval DEFAULT NULL, max_bytes bigint DEFAULT NULL,
    max_msgs bigint DEFAULT NULL, max_msg_size integer DEFAULT NULL, storage text DEFAULT NULL, retention text DEFAULT NULL,
    replicas integer DEFAULT NULL, duplicate_window interval DEFAULT NULL, body text DEFAULT NULL, managed boolean DEFAULT NULL,
    atomic_transactions boolean DEFAULT NULL, metadata text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    UPDATE sea_mq.streams s SET
        subjects = coalesce(alter_stream.subjects, s.subjects), max_age = coalesce(alter_stream.max_age, s.max_age),
        max_bytes = coalesce(alter_stream.max_bytes, s.max_bytes), max_msgs = coalesce(alter_stream.max_msgs, s.max_msgs),
        max_msg_size = coalesce(alter_stream.max_msg_size, s.max_msg_size), storage = coalesce(alter_stream.storage, s.storage),
        retention = coalesce(alter_stream.retention, s.retention), replicas = coalesce(alter_stream.replicas, s.replicas),
        duplicate_window = coalesce(alter_stream.duplicate_window, s.duplicate_window),
        body = coalesce(alter_stream.body, s.body), metadata = coalesce(alter_stream.metadata, s.metadata), managed = coalesce(alter_stream.managed, s.managed),
        atomic_transactions = coalesce(alter_stream.atomic_transactions, s.atomic_transactions), updated_at = now()
    WHERE s.name = alter_stream.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no stream "%"', alter_stream.name
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.streams.';
    END IF;
    PERFORM sea_mq.wake_at_commit();
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'the stream cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'max_age is 0 to 100 years, duplicate_window 100 ms to 100 years; see the constraints of sea_mq.streams for the others.';
END $$;
COMMENT ON FUNCTION sea_mq.alter_stream IS
'Changes the description of a stream; NULL leaves a setting as it is. The relay updates the stream in JetStream; what JetStream
refuses to change (storage, retention) shows in sea_mq.stream_status. Errors: 42704 (no such stream), 22023';

-- Any slot will do: see sea_mq.cursor_log.
CREATE FUNCTION sea_mq.move_cursor(reader_kind text, reader bigint, done pg_snapshot) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.cursor_log (slot, reader_kind, reader, done, next_xid, floor) VALUES (0, $1, $2, $3, 0, 0)
$$;
COMMENT ON FUNCTION sea_mq.move_cursor IS 'Puts a reader''s cursor behind what a snapshot shows; for internal use';

CREATE FUNCTION sea_mq.forget_stream(sink bigint, from_start boolean) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.stream_progress_log (slot, sink, stream_sequence, published, tail_from, refilling, not_atomic, last_not_atomic,
        updated_at)
    SELECT 0, p.sink, CASE WHEN $2 THEN 0 ELSE p.stream_sequence END, p.published, CASE WHEN NOT $2 THEN p.tail_from END, p.refilling, p.not_atomic,
        p.last_not_atomic, p.updated_at
    FROM sea_mq.stream_progress p WHERE p.sink = $1
$$;
COMMENT ON FUNCTION sea_mq.forget_stream IS
'The stream that a sink finds in JetStream may be another one than so far; from_start: it holds nothing that was stored. For internal use';

CREATE FUNCTION sea_mq.rename_stream(name text, new_name text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    renamed sea_mq.streams;
BEGIN
    IF rename_stream.new_name IS NULL THEN
        RAISE EXCEPTION 'new_name must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.rename_stream(''ORDERS_EVENTS'', ''ORDERS_MIRROR'').';
    END IF;
    SELECT * INTO renamed FROM sea_mq.streams s WHERE s.name = rename_stream.name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no stream "%"', rename_stream.name
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.streams.';
    END IF;
    IF renamed.name = rename_stream.new_name THEN
        RETURN renamed.name;
    END IF;
    UPDATE sea_mq.streams s SET name = rename_stream.new_name, updated_at = now() WHERE s.name = renamed.name;
    UPDATE sea_mq.consumers c SET state = 'pending', error = NULL WHERE c.stream = rename_stream.new_name AND c.state <> 'removing';
    UPDATE sea_mq.stream_state s SET state = 'pending', error_kind = NULL, error = NULL, hint = NULL, differences = '{}', marked_us = NULL
    WHERE s.sink = renamed.sink;
    -- One that is to be used again is not to be deleted.
    DELETE FROM sea_mq.stream_deletions d WHERE d.name = rename_stream.new_name;
    -- This database's own subscriptions go along. What they have handled they know by its id.
    INSERT INTO sea_mq.consumer_deletions (stream, name)
    SELECT b.stream, b.subscription FROM sea_mq.subscriptions b WHERE b.stream = renamed.name ON CONFLICT DO NOTHING;
    UPDATE sea_mq.subscriptions b SET stream = rename_stream.new_name,
        source = CASE b.source WHEN renamed.name THEN rename_stream.new_name ELSE b.source END
    WHERE b.stream = renamed.name;
    PERFORM sea_mq.forget_stream(renamed.sink, from_start => true);
    -- Whatever the other stream lacks, as a mirror may that was promoted, is published there, ahead of the backlog.
    IF sea_mq.has_broker() AND renamed.kind = 'event' AND renamed.retention = 'limits' THEN
        PERFORM sea_mq.republish(rename_stream.new_name);
    END IF;
    PERFORM sea_mq.wake_at_commit();
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN rename_stream.new_name;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'there is a stream "%" already', rename_stream.new_name
        USING ERRCODE = 'duplicate_object', HINT = 'See sea_mq.streams.';
WHEN check_violation THEN
    RAISE EXCEPTION 'a stream cannot have the name "%"', rename_stream.new_name
        USING ERRCODE = 'invalid_parameter_value', HINT = 'White space, ., *, >, / and \ are not allowed, 255 characters at most, and SEA_MQ_RELAYS is reserved.';
END $$;
COMMENT ON FUNCTION sea_mq.rename_stream IS
'Has a context''s events published to the stream of another name from now on, such as a mirror that was promoted, and returns that
name. The backlog is kept. What is retained and is not in that stream is published there first. Subscriptions and consumers of this
database go along. The stream of the old name stays in JetStream as it is. Errors: 22004, 22023, 42704 (no such stream), 42710 (the
name is another one''s)';

CREATE FUNCTION sea_mq.drop_stream(name text, delete_remote boolean DEFAULT false, discard_pending boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    dropped sea_mq.streams;
    pending bigint;
BEGIN
    SELECT * INTO dropped FROM sea_mq.streams s WHERE s.name = drop_stream.name FOR UPDATE;
    IF NOT FOUND THEN
        IF NOT delete_remote THEN
            -- It stays in JetStream after all.
            DELETE FROM sea_mq.stream_deletions d WHERE d.name = drop_stream.name;
            IF FOUND THEN
                RETURN;
            END IF;
        END IF;
        RAISE EXCEPTION 'there is no stream "%"', drop_stream.name
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.streams.';
    END IF;
    pending := sea_mq.pending_count(dropped.sink);
    IF pending > 0 AND NOT discard_pending THEN
        RAISE EXCEPTION 'stream "%" has % unpublished events', drop_stream.name, pending
            USING ERRCODE = 'object_in_use',
                HINT = 'Wait until they are published, or give them up with discard_pending => true.';
    END IF;
    PERFORM sea_mq.restart_at_commit();
    IF pending > 0 THEN
        PERFORM sea_mq.move_cursor('stream', dropped.sink, pg_current_snapshot());
    END IF;
    DELETE FROM sea_mq.stream_deletions d WHERE d.name = dropped.name;
    IF delete_remote THEN
        INSERT INTO sea_mq.stream_deletions (name, stream_created_us)
        VALUES (dropped.name, (SELECT p.stream_created_us FROM sea_mq.stream_progress p WHERE p.sink = dropped.sink));
        -- A stream that takes its place has not lost anything.
        PERFORM sea_mq.forget_stream(dropped.sink, from_start => true);
    END IF;
    -- Removals that were asked for go on without the description.
    INSERT INTO sea_mq.consumer_deletions (stream, name)
    SELECT c.stream, c.name FROM sea_mq.consumers c WHERE c.stream = dropped.name AND c.state = 'removing' AND NOT delete_remote
    ON CONFLICT DO NOTHING;
    DELETE FROM sea_mq.streams s WHERE s.name = dropped.name;
    DELETE FROM sea_mq.stream_state s WHERE s.sink = dropped.sink;
    PERFORM sea_mq.wake_at_commit();
END $$;
COMMENT ON FUNCTION sea_mq.drop_stream IS
'Removes the description of a stream. The stream in JetStream stays unless delete_remote is true; then the relay deletes it, if it
carries this installation''s mark. Called again without delete_remote, it takes back a deletion that has not happened. Refused while
events are unpublished unless discard_pending is true. Errors: 42704 (no such stream), 55006 (unpublished events)';

CREATE FUNCTION sea_mq.create_consumer(
    context text, name text DEFAULT NULL, filter text DEFAULT NULL, ack_wait interval DEFAULT '120 s',
    max_deliver integer DEFAULT 20, max_ack_pending integer DEFAULT 50, deliver_policy text DEFAULT 'all')
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ctx text := sea_mq.context_name(context);
    stream_name text;
    new_name text := coalesce(create_consumer.name, ctx || '__default');
BEGIN
    IF ctx IS NULL THEN
        RAISE EXCEPTION 'context must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Pass the name of the bounded context, as in ''orders''.';
    END IF;
    IF new_name LIKE 'sea\_mq\_\_%' THEN
        RAISE EXCEPTION 'names that begin with sea_mq__ are reserved'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the consumer another name.';
    END IF;
    SELECT s.name INTO stream_name FROM sea_mq.streams s WHERE s.context = ctx AND s.kind = 'event';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'context "%" has no stream', context
            USING ERRCODE = 'undefined_object', HINT = 'Create it first: SELECT sea_mq.create_stream(''orders'').';
    END IF;
    INSERT INTO sea_mq.consumers (stream, name, filter, ack_wait, max_deliver, max_ack_pending, deliver_policy)
    VALUES (stream_name, new_name, coalesce(create_consumer.filter, ctx || '.event.>'), create_consumer.ack_wait,
        create_consumer.max_deliver, create_consumer.max_ack_pending, create_consumer.deliver_policy)
    ON CONFLICT (stream, name) DO UPDATE SET filter = excluded.filter, ack_wait = excluded.ack_wait,
        max_deliver = excluded.max_deliver, max_ack_pending = excluded.max_ack_pending,
        deliver_policy = excluded.deliver_policy, state = 'pending', error = NULL, updated_at = now();
    PERFORM sea_mq.wake_at_commit();
    RETURN new_name;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'the consumer cannot be described so: %', SQLERRM
        USING ERRCODE = 'invalid_parameter_value', HINT = 'ack_wait is 1 ms to 1 day; see the constraints of sea_mq.consumers for the others.';
END $$;
COMMENT ON FUNCTION sea_mq.create_consumer IS
'Describes (or changes) a durable pull consumer with explicit acks on a context''s event stream and returns its name,
{context}__default unless given; the relay creates it in JetStream and reports in sea_mq.consumers. Errors: 42704 (the context
has no stream), 22023';

CREATE FUNCTION sea_mq.drop_consumer(stream text, name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    UPDATE sea_mq.consumers c SET state = 'removing', error = NULL, updated_at = now()
    WHERE c.stream = drop_consumer.stream AND c.name = drop_consumer.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no consumer "%" on stream "%"', drop_consumer.name, drop_consumer.stream
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.consumers.';
    END IF;
    PERFORM sea_mq.wake_at_commit();
END $$;
COMMENT ON FUNCTION sea_mq.drop_consumer IS
'Removes a consumer here and in JetStream, where only one that carries this installation''s mark is removed. Error 42704: no such
consumer';

CREATE FUNCTION sea_mq.wake_at_commit() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'wake_at_commit_wrapper';
COMMENT ON FUNCTION sea_mq.wake_at_commit IS 'Makes the relay read the descriptions again when this transaction commits; for internal use';
CREATE FUNCTION sea_mq.restart_at_commit() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'restart_at_commit_wrapper';
COMMENT ON FUNCTION sea_mq.restart_at_commit IS 'Restarts the relay when this transaction commits; for internal use';

CREATE FUNCTION sea_mq.start() RETURNS text LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'start_wrapper';
COMMENT ON FUNCTION sea_mq.start IS
'Starts this database''s relay if it is not running, and says so. Without shared_preload_libraries it runs until the server
restarts. Errors: 25006 (on a standby), 53400 (no free worker slot, max_worker_processes; no free place, sea_mq.max_databases), 55000
(a template database, or one that takes no connections)';
CREATE FUNCTION sea_mq.stop() RETURNS text LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'stop_wrapper';
COMMENT ON FUNCTION sea_mq.stop IS
'Stops this database''s relay until start() or a restart of the server, and says so. Events are kept meanwhile. Error 25006: on a standby';
CREATE FUNCTION sea_mq.reload() RETURNS text LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'reload_wrapper';
COMMENT ON FUNCTION sea_mq.reload IS
'Makes this database''s relay take up changed settings, those of ALTER DATABASE … SET included. Error 25006: on a standby';
CREATE FUNCTION sea_mq.preloaded() RETURNS boolean LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'preloaded_wrapper';
COMMENT ON FUNCTION sea_mq.preloaded IS 'Whether sea_mq is in shared_preload_libraries';
CREATE FUNCTION sea_mq.has_broker() RETURNS boolean LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'has_broker_wrapper';
COMMENT ON FUNCTION sea_mq.has_broker IS 'Whether sea_mq.nats_url is set and the database is not in test mode; for internal use';
CREATE FUNCTION sea_mq.worker_problem(OUT problem text, OUT hint text) RETURNS SETOF record
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'worker_problem_wrapper';
COMMENT ON FUNCTION sea_mq.worker_problem IS
'Why no worker can serve this database: it is a template, all places (sea_mq.max_databases) are taken, no worker slot
(max_worker_processes) is free. No row: nothing is in the way';
CREATE FUNCTION sea_mq.announce() RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'announce_wrapper';
COMMENT ON FUNCTION sea_mq.announce IS 'Tells the launcher at commit that this database has the extension; for internal use';

CREATE FUNCTION sea_mq.begin_outbox_again() RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moved bigint := 0;
BEGIN
    IF EXISTS (SELECT FROM sea_mq.streams s, sea_mq.installation i WHERE s.owner <> i.install_id)
        OR EXISTS (SELECT FROM sea_mq.outbox_log l, sea_mq.outbox_ring r WHERE l.origin <> r.origin)
    THEN
        LOCK TABLE sea_mq.outbox_log, sea_mq.relay_journal, sea_mq.cursor_log, sea_mq.stream_progress_log, sea_mq.streams IN ACCESS EXCLUSIVE MODE;
        -- A restored dump. What is unpublished is queued again and gets places and transaction ids of this cluster; the rest
        -- is history of another cluster, in terms that mean nothing here. What was emitted here has waited; what came with
        -- the copy is judged by the cursor that came with it.
        INSERT INTO sea_mq.scheduled_events (available_at, seq, id, created_at, sink, event_version, context, subject,
            aggregate_type, aggregate_id, event_type, payload, headers, correlation_id, causation_id, visibility)
        SELECT now(), l.seq, l.id, l.created_at, l.sink, l.event_version, l.context, l.subject, l.aggregate_type, l.aggregate_id,
            l.event_type, l.payload, l.headers, l.correlation_id, l.causation_id, l.visibility
        FROM sea_mq.outbox_log l
        CROSS JOIN sea_mq.outbox_ring r
        LEFT JOIN sea_mq.cursors c ON c.reader_kind = 'stream' AND c.reader = l.sink
        WHERE c.sink IS NULL OR l.origin = r.origin OR NOT (pg_visible_in_snapshot(l.xid, c.done)
            OR (c.batch_upto IS NOT NULL AND l.seq <= c.batch_at AND pg_visible_in_snapshot(l.xid, c.batch_upto)));
        GET DIAGNOSTICS moved = ROW_COUNT;
        PERFORM sea_mq.keep_for_endpoints();
        TRUNCATE sea_mq.outbox_log, sea_mq.relay_journal;
        PERFORM sea_mq.move_cursor(c.reader_kind, c.reader, '1:1:') FROM sea_mq.cursors c;
        PERFORM sea_mq.forget_stream(p.sink, from_start => false) FROM sea_mq.stream_progress p;
        PERFORM sea_mq.pin_names(strange => true);
    END IF;
    RETURN moved;
END $$;
COMMENT ON FUNCTION sea_mq.begin_outbox_again IS
'In a restored dump: queues unpublished events again, and drops the rest of the log. Returns how many were queued. For internal use';

CREATE FUNCTION sea_mq.adopt() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moved bigint := 0;
BEGIN
    LOCK TABLE sea_mq.outbox_log, sea_mq.relay_journal, sea_mq.cursor_log, sea_mq.stream_progress_log, sea_mq.streams IN ACCESS EXCLUSIVE MODE;
    moved := sea_mq.begin_outbox_again();
    -- A copied data directory or database brings its identity along, which belongs to the original.
    UPDATE sea_mq.installation i SET install_id = gen_random_uuid(), system_identifier = here.system_identifier, database_oid = here.oid
    FROM (SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()) here
    WHERE (i.system_identifier, i.database_oid) <> (here.system_identifier, here.oid);
    -- The relay takes the lease from whoever has it, and publishes behind what its streams hold by then.
    UPDATE sea_mq.installation SET fenced = NULL, cleared_server = NULL, adopting = true;
    UPDATE sea_mq.stream_divergences SET accepted_at = now() WHERE accepted_at IS NULL;
    UPDATE sea_mq.streams SET owner = (SELECT install_id FROM sea_mq.installation), take_over = true;
    PERFORM sea_mq.pin_names(strange => false);
    UPDATE sea_mq.subscriptions s SET take_over = true;
    UPDATE sea_mq.consumers SET take_over = true, state = CASE state WHEN 'removing' THEN state ELSE 'pending' END;
    UPDATE sea_mq.stream_state SET state = 'pending', error_kind = NULL, error = NULL, hint = NULL;
    PERFORM sea_mq.come_home();
    PERFORM sea_mq.restart_at_commit();
    RETURN format('adopted: %s unpublished events queued again', moved);
END $$;
COMMENT ON FUNCTION sea_mq.adopt IS
'Lets this database publish where its relay has paused: in a copy (restored dump, cloned data directory, copy by template), beside or
after another relay of the same installation, which is stopped by it, and after a recovery or a failover that lost events which the
streams hold. In a restored dump, unpublished events are queued again, in order, and retained published ones are dropped from the log.
Call it when this database is to go on and no other';

-- Kept in the database, and not as a setting of it: CREATE DATABASE … TEMPLATE copies the one and not the other.
CREATE FUNCTION sea_mq.test_mode(enabled boolean DEFAULT true) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF enabled IS NULL THEN
        RAISE EXCEPTION 'enabled must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'SELECT sea_mq.test_mode(), or sea_mq.test_mode(false) to end it.';
    END IF;
    UPDATE sea_mq.installation i SET test_mode = enabled WHERE i.test_mode <> enabled;
    IF enabled AND (FOUND OR EXISTS (SELECT FROM sea_mq.outbox_log l, sea_mq.outbox_ring r WHERE l.origin <> r.origin)) THEN
        -- What came with a restored dump is in terms of another cluster.
        PERFORM sea_mq.begin_outbox_again();
    END IF;
    PERFORM sea_mq.restart_at_commit();
    PERFORM sea_mq.announce();
    RETURN CASE WHEN enabled THEN 'on' ELSE 'off' END;
END $$;
COMMENT ON FUNCTION sea_mq.test_mode IS
'For databases of tests: no broker, whatever the settings say, here and in databases that are copied from this one. Events go to the
subscriptions of the same database. Starts the workers at once, in a restored dump as well. With false it ends, and what was emitted meanwhile is published if
there is a broker. Error 22004';

CREATE FUNCTION sea_mq.workers(
    OUT pid integer, OUT backend_type text, OUT state text, OUT wait_event text, OUT backend_start timestamptz)
RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.pid, a.backend_type, a.state, a.wait_event, a.backend_start
    FROM pg_stat_activity a
    WHERE starts_with(a.backend_type, 'sea_mq') AND (a.datname = current_database() OR a.datname IS NULL)
$$;
COMMENT ON FUNCTION sea_mq.workers IS 'The processes of sea_mq that serve this database: the launcher, the relay, the consumer and its handlers';

CREATE FUNCTION sea_mq.worker_failures(
    OUT worker text, OUT failures integer, OUT since timestamptz, OUT last_at timestamptz, OUT error text)
RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'worker_failures_wrapper';
COMMENT ON FUNCTION sea_mq.worker_failures IS
'Workers of this database that failed and have not worked for a minute since then without failing again: how often, since when, and
the last error that is known. None without shared_preload_libraries';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.workers TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.worker_problem, sea_mq.worker_failures TO sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.preloaded TO sea_mq_operator, sea_mq_monitor, sea_mq_viewer;
GRANT EXECUTE ON FUNCTION sea_mq.create_stream, sea_mq.alter_stream, sea_mq.rename_stream, sea_mq.drop_stream,
    sea_mq.create_consumer, sea_mq.drop_consumer, sea_mq.start, sea_mq.stop, sea_mq.reload, sea_mq.adopt, sea_mq.test_mode
    TO sea_mq_operator;
