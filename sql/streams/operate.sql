-- For callers who must know, and for operators.

CREATE FUNCTION sea_mq.publication(event_id text, OUT state text, OUT error text, OUT available_at text)
RETURNS SETOF record LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
    SELECT CASE WHEN f.error IS NOT NULL THEN 'failed' WHEN e.passed THEN 'published' WHEN e.seq IS NULL THEN 'scheduled'
            ELSE 'waiting' END, f.error, sea_mq.header_time(e.available_at)
    FROM (SELECT l.seq, l.passed, l.available_at FROM sea_mq.fate_of($1::uuid) l
        UNION ALL SELECT NULL, false, h.available_at FROM sea_mq.scheduled_events h WHERE h.id = $1::uuid) e
    LEFT JOIN sea_mq.publish_failures f ON f.event_id = $1::uuid AND f.seq = e.seq
    ORDER BY e.seq DESC NULLS LAST LIMIT 1
$$;
COMMENT ON FUNCTION sea_mq.publication IS 'What became of an event: failed, published, scheduled or waiting; for internal use';

CREATE FUNCTION sea_mq.publication_now(event_id uuid, OUT state text, OUT error text, OUT available_at text)
RETURNS SETOF record LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'publication_now_wrapper';
COMMENT ON FUNCTION sea_mq.publication_now IS
'As sea_mq.publication, as of now and not as of the transaction''s snapshot; or unconfigured (no broker), pending (emitted by this
transaction); no row for an event that is not known; for internal use';

CREATE FUNCTION sea_mq.wait_published(event_id uuid, timeout interval DEFAULT '10 s') RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deadline timestamptz;
    pause double precision := 0.001;
    found record;
BEGIN
    IF wait_published.event_id IS NULL OR timeout IS NULL THEN
        RAISE EXCEPTION 'event_id and timeout must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.wait_published(id, ''5 s'').';
    ELSIF timeout > '1 day' THEN
        RAISE EXCEPTION 'timeout must be a day at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in sea_mq.wait_published(id, ''5 s''); the transaction keeps its snapshot as long as it waits.';
    END IF;
    deadline := clock_timestamp() + greatest(timeout, '0');
    LOOP
        SELECT p.* INTO found FROM sea_mq.publication_now(wait_published.event_id) p;
        CASE coalesce(found.state, 'unknown')
        WHEN 'published' THEN
            RETURN true;
        WHEN 'waiting' THEN
            NULL;
        WHEN 'scheduled' THEN
            IF found.available_at::timestamptz > deadline THEN
                RAISE EXCEPTION 'event % is held back until %', wait_published.event_id, found.available_at
                    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Wait for it after that time, or longer.';
            END IF;
        WHEN 'failed' THEN
            RAISE EXCEPTION 'the broker will not take event %: %', wait_published.event_id, found.error
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Fix what it says, then see sea_mq.retry_failed.';
        WHEN 'pending' THEN
            RAISE EXCEPTION 'event % was emitted by this transaction, which has not committed', wait_published.event_id
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Commit first: nothing is published before.';
        WHEN 'unconfigured' THEN
            RAISE EXCEPTION 'there is no broker to publish to'
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set sea_mq.nats_url.';
        ELSE
            RAISE EXCEPTION 'event % is not known', wait_published.event_id
                USING ERRCODE = 'undefined_object', HINT = 'It is known once it has committed, and for as long as it is retained (sea_mq.retention).';
        END CASE;
        IF clock_timestamp() >= deadline THEN
            RETURN false;
        END IF;
        PERFORM pg_sleep(least(pause, extract(epoch FROM deadline - clock_timestamp())));
        pause := least(pause * 1.5, 0.02);
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.wait_published IS
'Waits until the stream has stored an event: true, or false when the time is over. Call it after the commit, in a transaction of its
own, since it keeps that one''s snapshot as long as it waits. Errors: 22004, 22023 (more than a day), 42704 (not known), 55000 (emitted by this transaction,
held back for longer, refused by the broker for good, or no broker)';

-- An event that the broker will never take as it is: kept whole, and listed among the dead letters.
CREATE FUNCTION sea_mq.set_aside(event_id uuid, seq bigint, sink bigint, error text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    l sea_mq.outbox_log;
BEGIN
    SELECT o.* INTO l FROM sea_mq.outbox_log o WHERE o.id = set_aside.event_id AND o.seq = set_aside.seq LIMIT 1;
    INSERT INTO sea_mq.publish_failures AS f (event_id, seq, sink, attempts, error, failed_at, event)
    VALUES (set_aside.event_id, set_aside.seq, set_aside.sink, 1, set_aside.error, clock_timestamp(), to_jsonb(l))
    ON CONFLICT ON CONSTRAINT publish_failures_pkey DO UPDATE
        SET attempts = f.attempts + 1, error = excluded.error, failed_at = excluded.failed_at;
    -- A dead letter that does not fit has its row there already.
    INSERT INTO sea_mq.dlq_messages (context, original_subject, message_id, source_context, event_type, event_version, aggregate_type,
        aggregate_id, payload, headers, reason, failure_count, error, first_failed_at, last_failed_at, dlq_message_id)
    SELECT l.context, coalesce(l.subject, concat_ws('.', l.context, 'event', l.event_type, 'v' || l.event_version)), l.id::text, l.context,
        l.event_type, l.event_version, l.aggregate_type, l.aggregate_id, l.payload::jsonb,
        coalesce(l.headers::jsonb, '{}') || jsonb_strip_nulls(jsonb_build_object('X-Correlation-Id', coalesce(l.correlation_id, l.id::text),
            'X-Causation-Id', l.causation_id, 'X-Sea-Visibility', l.visibility)),
        'unpublishable', 1, left(set_aside.error, 2000), clock_timestamp(), clock_timestamp(), 'unpublishable:' || l.id || ':' || l.seq
    WHERE l.id IS NOT NULL AND set_aside.sink = sea_mq.sink_id(l.context, 'event')
    ON CONFLICT ON CONSTRAINT dlq_messages_dlq_message_id_key DO NOTHING;
END $$;
COMMENT ON FUNCTION sea_mq.set_aside IS 'Notes that the broker will never take an event as it is; for internal use';

CREATE FUNCTION sea_mq.learn_limits() RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'learn_limits_wrapper';
COMMENT ON FUNCTION sea_mq.learn_limits IS 'Has the relay ask for the broker''s limit of a message once more, and waits up to 5 s for that; for internal use';

CREATE FUNCTION sea_mq.retry_failed(event_id uuid DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    f sea_mq.publish_failures;
    e sea_mq.outbox_log;
    kind text;
    retried bigint := 0;
BEGIN
    -- What was raised in NATS since the relay has connected.
    PERFORM sea_mq.learn_limits()
    WHERE EXISTS (SELECT FROM sea_mq.publish_failures p WHERE p.resolved_at IS NULL);
    FOR f IN SELECT p.* FROM sea_mq.publish_failures p
        WHERE p.resolved_at IS NULL AND (retry_failed.event_id IS NULL OR p.event_id = retry_failed.event_id) ORDER BY p.seq FOR UPDATE
    LOOP
        e := jsonb_populate_record(NULL::sea_mq.outbox_log, f.event);
        kind := CASE f.sink WHEN sea_mq.sink_id(e.context, 'event') THEN 'event' ELSE 'dlq' END;
        IF NOT sea_mq.emit_raw(kind, e.context, coalesce(e.subject, concat_ws('.', e.context, 'event', e.event_type, 'v' || e.event_version)),
            e.id, e.event_type, e.event_version, e.aggregate_type, e.aggregate_id, e.payload::jsonb, e.headers::jsonb, e.correlation_id,
            e.causation_id, e.visibility, e.created_at)
        THEN
            CONTINUE WHEN retry_failed.event_id IS NULL;
            RAISE EXCEPTION 'event % is still too large: %', f.event_id, f.error
                USING ERRCODE = 'program_limit_exceeded', HINT = 'Raise the limit that it names, or replay it with a smaller payload: sea_mq.dlq_replay.';
        END IF;
        UPDATE sea_mq.publish_failures p SET resolved_at = clock_timestamp() WHERE p.event_id = f.event_id AND p.seq = f.seq;
        UPDATE sea_mq.dlq_messages d SET replayed_at = clock_timestamp(), replay_event_id = f.event_id,
            replayed_by = sea_mq.caller_name(), actor = sea_mq.actor()
        WHERE d.dlq_message_id = 'unpublishable:' || f.event_id || ':' || f.seq AND d.replayed_at IS NULL AND d.discarded_at IS NULL;
        retried := retried + 1;
    END LOOP;
    IF retried = 0 AND retry_failed.event_id IS NOT NULL THEN
        RAISE EXCEPTION 'event % was not refused by the broker, or something was decided about it already', retry_failed.event_id
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.publish_failures and sea_mq.dlq_list().';
    END IF;
    RETURN retried;
END $$;
COMMENT ON FUNCTION sea_mq.retry_failed IS
'Sends an event that the broker had refused for a reason of its own once more, under its id, behind what was emitted since; NULL: all
of them that fit the present limits. Returns how many. Errors: 42704 (nothing to be tried again), 54000 (it is still too large)';

-- What the relay has found for the session that waits in verify_stream. Of use to nobody after a crash.
CREATE UNLOGGED TABLE sea_mq.stream_findings (
    kind text NOT NULL,
    event_id uuid,
    seq bigint,
    stream_seq bigint,
    detail text NOT NULL,
    hint text
);
COMMENT ON TABLE sea_mq.stream_findings IS 'What sea_mq.verify_stream found last; written by the relay';
COMMENT ON COLUMN sea_mq.stream_findings.kind IS 'missing, doubled, reordered, changed or foreign; trouble: it could not be found out';
COMMENT ON COLUMN sea_mq.stream_findings.event_id IS 'The event';
COMMENT ON COLUMN sea_mq.stream_findings.seq IS 'Its place in the log';
COMMENT ON COLUMN sea_mq.stream_findings.stream_seq IS 'Stream sequence of the message; NULL: there is none';
COMMENT ON COLUMN sea_mq.stream_findings.detail IS 'What else there is to say';
COMMENT ON COLUMN sea_mq.stream_findings.hint IS 'What to do about trouble';

CREATE FUNCTION sea_mq.lasting_stream(stream text) RETURNS sea_mq.streams
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s sea_mq.streams;
BEGIN
    IF stream IS NULL THEN
        RAISE EXCEPTION 'stream must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Pass the name of a stream, as in ''ORDERS_EVENTS''.';
    END IF;
    SELECT t.* INTO s FROM sea_mq.streams t WHERE t.name = lasting_stream.stream;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no stream "%"', stream
            USING ERRCODE = 'undefined_object', HINT = 'See sea_mq.streams.';
    END IF;
    IF s.kind <> 'event' OR s.retention <> 'limits' THEN
        RAISE EXCEPTION 'stream "%" does not keep what was published', stream
            USING ERRCODE = 'feature_not_supported', HINT = CASE s.kind
                WHEN 'dlq' THEN 'Dead letters are removed when something is decided about them: see sea_mq.dlq_list().'
                ELSE 'With the retention interest or workqueue, messages are removed when they are acknowledged.' END;
    END IF;
    RETURN s;
END $$;
COMMENT ON FUNCTION sea_mq.lasting_stream IS
'The description of a stream in which what was published stays until it is old; errors: 22004, 42704, 0A000. For internal use';

CREATE FUNCTION sea_mq.compare_stream(
    sink bigint, OUT kind text, OUT event_id uuid, OUT seq bigint, OUT stream_seq bigint, OUT detail text)
RETURNS SETOF record LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'compare_stream_wrapper';
COMMENT ON FUNCTION sea_mq.compare_stream IS 'Lets the relay compare a stream with the log, and waits for what it finds; for internal use';

CREATE FUNCTION sea_mq.verify_stream(stream text)
RETURNS TABLE (kind text, event_id uuid, seq bigint, stream_seq bigint, detail text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.* FROM sea_mq.lasting_stream($1) s, sea_mq.compare_stream(s.sink) c
$$;
COMMENT ON FUNCTION sea_mq.verify_stream IS
'Compares what is retained and published with what the stream holds, a row per difference: missing, doubled, reordered, changed
(subject or payload) or foreign (of somebody else). What the stream''s limits have removed is not missing. The relay does it beside
its work; it can take minutes. Errors: 22004, 42704 (no such stream), 0A000 (the stream does not keep what was published), 55000 (no
relay, no broker, or the stream is not ready within 5 seconds)';

CREATE TABLE sea_mq.republish_requests (
    sink bigint PRIMARY KEY REFERENCES sea_mq.streams (sink) ON DELETE CASCADE,
    from_seq bigint NOT NULL
);
COMMENT ON TABLE sea_mq.republish_requests IS 'Streams that the relay is still to begin to refill (sea_mq.republish); normally empty';
COMMENT ON COLUMN sea_mq.republish_requests.sink IS 'The stream''s sink';
COMMENT ON COLUMN sea_mq.republish_requests.from_seq IS 'From which place in the log on';

CREATE FUNCTION sea_mq.republish(stream text, from_time timestamptz DEFAULT NULL, from_seq bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s sea_mq.streams := sea_mq.lasting_stream(stream);
    found record;
BEGIN
    IF from_time IS NOT NULL AND from_seq IS NOT NULL THEN
        RAISE EXCEPTION 'from_time and from_seq are two ways to say the same'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass one of them, or none for all that is retained.';
    END IF;
    IF from_seq < 1 OR from_time > now() THEN
        RAISE EXCEPTION 'nothing was published there'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a time in the past, or a seq as in sea_mq.outbox_events.';
    END IF;
    IF NOT sea_mq.has_broker() THEN
        RAISE EXCEPTION 'there is no broker to publish to'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set sea_mq.nats_url.';
    END IF;
    -- What is published, as of the cursor last saved; the rest comes by itself.
    SELECT count(*) AS events, min(l.seq) AS first INTO found
    FROM sea_mq.outbox_log l JOIN sea_mq.cursors c ON c.reader_kind = 'stream' AND c.reader = l.sink
    WHERE l.sink = s.sink AND l.seq >= coalesce(from_seq, 1)
        AND (from_time IS NULL OR greatest(l.created_at, l.available_at) >= from_time)
        AND (pg_visible_in_snapshot(l.xid, c.done)
            OR (c.batch_upto IS NOT NULL AND l.seq <= c.batch_at AND pg_visible_in_snapshot(l.xid, c.batch_upto)));
    IF found.events > 0 THEN
        INSERT INTO sea_mq.republish_requests AS r (sink, from_seq) VALUES (s.sink, found.first)
        ON CONFLICT ON CONSTRAINT republish_requests_pkey DO UPDATE SET from_seq = least(r.from_seq, excluded.from_seq);
        PERFORM sea_mq.wake_at_commit();
    END IF;
    RETURN found.events;
END $$;
COMMENT ON FUNCTION sea_mq.republish IS
'Refills a stream from the log: what is retained from a time or a place on and is not in the stream is published once more, in order,
behind what is there. Returns how many events are to be looked at; the relay does so after the commit. Errors: 22004, 22023, 42704
(no such stream), 0A000 (the stream does not keep what was published), 55000 (no broker)';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.retry_failed, sea_mq.verify_stream, sea_mq.republish TO sea_mq_operator;
GRANT EXECUTE ON FUNCTION sea_mq.publication_now, sea_mq.wait_published TO sea_mq_producer, sea_mq_operator, sea_mq_monitor;
