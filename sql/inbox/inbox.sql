-- The inbox: every received message once for each subscription. What waits is in inbox_pending, which is small; what is done
-- is in inbox_log, an append-only ring of slots. docs/inbox.md has the states of a message.
CREATE SEQUENCE sea_mq.inbox_id AS bigint;
COMMENT ON SEQUENCE sea_mq.inbox_id IS 'Numbers of inbox messages';

CREATE TABLE sea_mq.inbox_pending (
    id bigint PRIMARY KEY DEFAULT nextval('sea_mq.inbox_id'),
    subscription text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    status text NOT NULL CHECK (status IN ('received', 'processing', 'failed')),
    lane smallint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    -- A first attempt is always due: the clock does not say which of two comes first. Only the consumer stores such rows, one
    -- transaction after the other, so that none appears with a smaller id than one that is there.
    due_at timestamptz NOT NULL DEFAULT 'epoch',
    lease_until timestamptz,
    source_context text,
    event_type text NOT NULL,
    event_version integer,
    subject text NOT NULL,
    aggregate_type text,
    aggregate_id text,
    payload jsonb NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    stream_seq bigint,
    event_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at timestamptz,
    processing_error text,
    errors jsonb NOT NULL DEFAULT '[]'
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX inbox_pending_message ON sea_mq.inbox_pending (message_id, subscription);
CREATE INDEX inbox_pending_due ON sea_mq.inbox_pending (subscription, lane, due_at, id);

CREATE TABLE sea_mq.inbox_log (
    slot smallint NOT NULL,
    id bigint NOT NULL,
    subscription text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    status text NOT NULL,
    attempts integer NOT NULL,
    source_context text,
    event_type text NOT NULL,
    event_version integer,
    subject text NOT NULL,
    aggregate_type text,
    aggregate_id text,
    payload jsonb NOT NULL,
    headers jsonb NOT NULL,
    stream_seq bigint,
    event_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    delivered_at timestamptz,
    processed_at timestamptz NOT NULL,
    processing_error text,
    errors jsonb
) PARTITION BY LIST (slot);

-- Which slot is appended to.
CREATE TABLE sea_mq.inbox_ring (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    current_slot smallint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO sea_mq.inbox_ring (current_slot) VALUES (0);
CREATE TABLE sea_mq.inbox_slots (
    slot smallint PRIMARY KEY,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz
) WITH (fillfactor = 10);

DO $$
DECLARE
    slots CONSTANT integer := 4;
BEGIN
    FOR slot IN 0 .. slots - 1 LOOP
        EXECUTE format('CREATE TABLE sea_mq.inbox_log_%s PARTITION OF sea_mq.inbox_log FOR VALUES IN (%s)'
            ' WITH (autovacuum_vacuum_insert_threshold = -1)', slot, slot);
        -- Also what makes a second message with the same id impossible; between slots, the lock of sea_mq.inbox_slot does.
        EXECUTE format('CREATE UNIQUE INDEX inbox_log_%s_message ON sea_mq.inbox_log_%s (message_id, subscription)', slot, slot);
        -- What people ask sea_mq.inbox_messages for: the latest, and those that were not processed. What the consumer appends
        -- directly is processed, and is not entered into the second (see Appender in src/sys/relation.rs).
        EXECUTE format('CREATE INDEX inbox_log_%s_id ON sea_mq.inbox_log_%s (id)', slot, slot);
        EXECUTE format('CREATE INDEX inbox_log_%s_unprocessed ON sea_mq.inbox_log_%s (status, id) WHERE status <> ''processed''',
            slot, slot);
        EXECUTE format('COMMENT ON TABLE sea_mq.inbox_log_%s IS %L', slot, 'Slot ' || slot || ' of the inbox''s ring');
        EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.inbox_log_' || slot);
    END LOOP;
END $$;
SELECT pg_catalog.pg_extension_config_dump('sea_mq.inbox_id', '');
SELECT pg_catalog.pg_extension_config_dump('sea_mq.inbox_pending', '');

COMMENT ON TABLE sea_mq.inbox_pending IS 'Messages that wait: to be received, for another attempt, or while they are processed. Query sea_mq.inbox_messages instead';
COMMENT ON COLUMN sea_mq.inbox_pending.lane IS 'Which of the subscription''s lanes it is in, from 0; follows from the aggregate';
COMMENT ON COLUMN sea_mq.inbox_pending.due_at IS 'When it may be handled; 1970 before the first attempt of what the consumer stored';
COMMENT ON COLUMN sea_mq.inbox_pending.lease_until IS 'Until when the application that received it has it; NULL while a worker has it';
COMMENT ON COLUMN sea_mq.inbox_pending.event_at IS 'When the stream stored it; inside the database: when it was emitted';
COMMENT ON TABLE sea_mq.inbox_log IS 'Messages that are done: processed, skipped or dead. Query sea_mq.inbox_messages instead';
COMMENT ON COLUMN sea_mq.inbox_log.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.inbox_log.event_at IS 'When the stream stored it; inside the database: when it was emitted';
COMMENT ON TABLE sea_mq.inbox_ring IS 'Which slot of the inbox''s ring is appended to; one row, not part of a dump';
COMMENT ON COLUMN sea_mq.inbox_ring.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN sea_mq.inbox_ring.current_slot IS 'The slot that is appended to';
COMMENT ON TABLE sea_mq.inbox_slots IS 'History of the inbox ring''s slots; not part of a dump';
COMMENT ON COLUMN sea_mq.inbox_slots.slot IS 'Slot of the ring';
COMMENT ON COLUMN sea_mq.inbox_slots.opened_at IS 'When it became the current one';
COMMENT ON COLUMN sea_mq.inbox_slots.closed_at IS 'When the next took over; NULL for the current slot';

-- Of two plain tables, so that an order by id comes from their indexes and conditions on the status go down to them.
CREATE VIEW sea_mq.inbox_messages AS
SELECT m.id, m.message_id, m.subscription, m.source_context, m.event_type, m.event_version, m.subject, m.aggregate_type,
    m.aggregate_id, m.payload, m.headers, m.headers ->> 'X-Correlation-Id' AS correlation_id,
    m.headers ->> 'X-Causation-Id' AS causation_id, m.status,
    -- The condition on id says something to the planner alone: NOT processed is about few, and there is an index of those.
    NOT (m.status IN ('received', 'processing', 'failed', 'skipped', 'dead')
        AND m.id BETWEEN 0 AND (SELECT 9223372036854775807)) AS processed, m.processing_error, m.errors,
    m.attempts, m.next_attempt_at, m.created_at, m.delivered_at, m.processed_at, m.stream_seq
FROM (
    SELECT l.id, l.message_id, l.subscription, l.source_context, l.event_type, l.event_version, l.subject, l.aggregate_type,
        l.aggregate_id, l.payload, l.headers, l.status, l.processing_error, l.errors, l.attempts,
        NULL::timestamptz AS next_attempt_at, l.created_at, l.delivered_at, l.processed_at, l.stream_seq
    FROM sea_mq.inbox_log l
    UNION ALL
    SELECT p.id, p.message_id, p.subscription, p.source_context, p.event_type, p.event_version, p.subject, p.aggregate_type,
        p.aggregate_id, p.payload, p.headers, p.status, p.processing_error, p.errors, p.attempts,
        CASE WHEN p.status <> 'processing' THEN greatest(p.due_at, p.created_at) END, p.created_at, p.delivered_at, NULL, p.stream_seq
    FROM sea_mq.inbox_pending p
) m;
COMMENT ON VIEW sea_mq.inbox_messages IS 'One row per received message and subscription, for as long as it is retained';
COMMENT ON COLUMN sea_mq.inbox_messages.id IS 'Number of the row; what sea_mq.complete and its like take';
COMMENT ON COLUMN sea_mq.inbox_messages.message_id IS 'Nats-Msg-Id; unique together with subscription';
COMMENT ON COLUMN sea_mq.inbox_messages.subscription IS 'Subscription';
COMMENT ON COLUMN sea_mq.inbox_messages.source_context IS 'Context that emitted it';
COMMENT ON COLUMN sea_mq.inbox_messages.event_type IS 'Normalised event name; the subject if the message does not say';
COMMENT ON COLUMN sea_mq.inbox_messages.event_version IS 'Version of the event type';
COMMENT ON COLUMN sea_mq.inbox_messages.subject IS 'NATS subject';
COMMENT ON COLUMN sea_mq.inbox_messages.aggregate_type IS 'Type of the aggregate that changed';
COMMENT ON COLUMN sea_mq.inbox_messages.aggregate_id IS 'Id of the aggregate that changed';
COMMENT ON COLUMN sea_mq.inbox_messages.payload IS 'Content';
COMMENT ON COLUMN sea_mq.inbox_messages.headers IS 'Headers: an object of strings';
COMMENT ON COLUMN sea_mq.inbox_messages.correlation_id IS 'Correlation id';
COMMENT ON COLUMN sea_mq.inbox_messages.causation_id IS 'Causation id';
COMMENT ON COLUMN sea_mq.inbox_messages.status IS 'received, processing, failed (another attempt follows), processed, skipped or dead';
COMMENT ON COLUMN sea_mq.inbox_messages.processed IS 'Whether it was handled successfully';
COMMENT ON COLUMN sea_mq.inbox_messages.processing_error IS 'What went wrong last, or why it was skipped';
COMMENT ON COLUMN sea_mq.inbox_messages.errors IS 'The last 20 failures: [{at, attempt, kind, sqlstate, error, detail}]';
COMMENT ON COLUMN sea_mq.inbox_messages.attempts IS 'Attempts so far that count';
COMMENT ON COLUMN sea_mq.inbox_messages.next_attempt_at IS 'When it is handled next';
COMMENT ON COLUMN sea_mq.inbox_messages.created_at IS 'When it was received';
COMMENT ON COLUMN sea_mq.inbox_messages.delivered_at IS 'When it was handed to the handler or application last';
COMMENT ON COLUMN sea_mq.inbox_messages.processed_at IS 'When it was done';
COMMENT ON COLUMN sea_mq.inbox_messages.stream_seq IS 'Sequence in the stream; NULL if it came another way';

-- The two tables of the view, of which the same is true.
DO $$
DECLARE
    remark record;
BEGIN
    FOR remark IN
        SELECT t.attrelid::regclass AS tab, t.attname AS col, col_description(v.attrelid, v.attnum) AS words
        FROM pg_catalog.pg_attribute t
        JOIN pg_catalog.pg_attribute v ON v.attrelid = 'sea_mq.inbox_messages'::regclass AND v.attname = t.attname
        WHERE t.attrelid IN ('sea_mq.inbox_pending'::regclass, 'sea_mq.inbox_log'::regclass) AND t.attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', remark.tab, remark.col, remark.words);
    END LOOP;
END $$;

CREATE FUNCTION sea_mq.inbox_slot() RETURNS smallint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'inbox_slot_wrapper';
COMMENT ON FUNCTION sea_mq.inbox_slot IS
'The slot to append to, locked until the transaction ends so that no other becomes the current one meanwhile; for internal use';
CREATE FUNCTION sea_mq.inbox_holds(message_id text, subscription text) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'inbox_holds_wrapper';
COMMENT ON FUNCTION sea_mq.inbox_holds IS 'Whether the inbox has this message for this subscription, as of now; for internal use';

-- Moves a message from what waits to what is done.
CREATE FUNCTION sea_mq.settle(message sea_mq.inbox_pending, status text, error text DEFAULT NULL) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM sea_mq.inbox_pending p WHERE p.id = ($1).id;
    INSERT INTO sea_mq.inbox_log (slot, id, subscription, message_id, status, attempts, source_context, event_type, event_version,
        subject, aggregate_type, aggregate_id, payload, headers, stream_seq, event_at, created_at, delivered_at, processed_at,
        processing_error, errors)
    VALUES (sea_mq.inbox_slot(), ($1).id, ($1).subscription, ($1).message_id, $2, ($1).attempts, ($1).source_context,
        ($1).event_type, ($1).event_version, ($1).subject, ($1).aggregate_type, ($1).aggregate_id, ($1).payload, ($1).headers,
        ($1).stream_seq, ($1).event_at, ($1).created_at, ($1).delivered_at, clock_timestamp(), $3,
        nullif(($1).errors, '[]'));
$$;
COMMENT ON FUNCTION sea_mq.settle IS 'Moves a message from what waits to what is done; for internal use';

-- Counts not added to the subscriptions' progress yet. Appended to, since transactions that counted in one row would wait for
-- each other. The consumer adds up a slot that has grown and empties it by TRUNCATE, in one transaction. Writers move on by the
-- clock, so that a slot gets free of them; which one they append to makes no difference to the sum.
CREATE TABLE sea_mq.outcome_log (
    slot smallint NOT NULL,
    subscription_id bigint NOT NULL,
    processed bigint NOT NULL,
    skipped bigint NOT NULL,
    failed bigint NOT NULL,
    dead bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY LIST (slot);
DO $$
BEGIN
    FOR slot IN 0 .. 3 LOOP
        EXECUTE format('CREATE TABLE sea_mq.outcome_log_%s PARTITION OF sea_mq.outcome_log FOR VALUES IN (%s)'
            ' WITH (autovacuum_vacuum_insert_threshold = -1)', slot, slot);
        EXECUTE format('COMMENT ON TABLE sea_mq.outcome_log_%s IS %L', slot, 'Slot ' || slot || ' of the outcomes');
        EXECUTE format('SELECT pg_catalog.pg_extension_config_dump(%L, '''')', 'sea_mq.outcome_log_' || slot);
    END LOOP;
END $$;
COMMENT ON TABLE sea_mq.outcome_log IS 'Outcomes not added to sea_mq.progress_log yet';
COMMENT ON COLUMN sea_mq.outcome_log.slot IS 'Slot of the ring: sea_mq.outcome_slot()';
COMMENT ON COLUMN sea_mq.outcome_log.subscription_id IS 'Number of the subscription';

CREATE VIEW sea_mq.inbox_tally AS
SELECT s.subscription, o.processed, o.skipped, o.failed, o.dead, o.at
FROM sea_mq.outcome_log o JOIN sea_mq.subscriptions s ON s.id = o.subscription_id;
COMMENT ON VIEW sea_mq.inbox_tally IS 'Outcomes not added to sea_mq.subscription_state yet';
COMMENT ON COLUMN sea_mq.inbox_tally.subscription IS 'Subscription';
DO $$
DECLARE
    remark record;
BEGIN
    FOR remark IN
        SELECT * FROM (VALUES ('processed', 'Messages handled'), ('skipped', 'Messages skipped'), ('failed', 'Failed attempts'),
            ('dead', 'Dead letters'), ('at', 'When')) AS r(col, words)
    LOOP
        EXECUTE format('COMMENT ON COLUMN sea_mq.inbox_tally.%I IS %L', remark.col, remark.words);
        EXECUTE format('COMMENT ON COLUMN sea_mq.outcome_log.%I IS %L', remark.col, remark.words);
    END LOOP;
END $$;

CREATE FUNCTION sea_mq.outcome_slot() RETURNS smallint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (extract(epoch FROM clock_timestamp())::bigint / 4 % 4)::smallint
$$;
COMMENT ON FUNCTION sea_mq.outcome_slot IS 'The slot of sea_mq.outcome_log to append to: each for four seconds; for internal use';

CREATE FUNCTION sea_mq.count_outcomes(subscription text, processed bigint DEFAULT 0, skipped bigint DEFAULT 0,
    failed bigint DEFAULT 0, dead bigint DEFAULT 0) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO sea_mq.outcome_log (slot, subscription_id, processed, skipped, failed, dead)
    SELECT sea_mq.outcome_slot(), s.id, $2, $3, $4, $5 FROM sea_mq.subscriptions s WHERE s.subscription = $1
$$;
COMMENT ON FUNCTION sea_mq.count_outcomes IS 'Adds to a subscription''s counters; for internal use';

-- One more failure in the history, which keeps the last 20.
CREATE FUNCTION sea_mq.with_error(errors jsonb, attempt integer, kind text, sqlstate text, error text, detail text) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_array_length($1) >= 20 THEN $1 - 0 ELSE $1 END || jsonb_strip_nulls(jsonb_build_object(
        'at', clock_timestamp(), 'attempt', $2, 'kind', $3, 'sqlstate', $4, 'error', left($5, 2000), 'detail', left($6, 2000)))
$$;
COMMENT ON FUNCTION sea_mq.with_error IS 'Adds a failure to a message''s history, which keeps the last 20; for internal use';

-- What follows from a failed attempt: another one, or the dead letter queue. The attempt has been counted already.
CREATE FUNCTION sea_mq.attempt_failed(message sea_mq.inbox_pending, kind text, sqlstate text, error text, detail text DEFAULT NULL,
    retry_in interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s sea_mq.subscriptions;
    first_delay interval;
    longest_delay interval;
BEGIN
    SELECT * INTO s FROM sea_mq.subscriptions t WHERE t.subscription = message.subscription;
    message.processing_error := left(error, 2000);
    message.errors := sea_mq.with_error(message.errors, message.attempts, kind, sqlstate, error, detail);
    PERFORM sea_mq.count_outcomes(message.subscription, failed => 1);
    IF s.max_deliver > 0 AND message.attempts >= s.max_deliver THEN
        PERFORM sea_mq.bury(message, 'exhausted', error);
        RETURN 'dead';
    END IF;
    -- At most what the table allows, whatever was restored into it: an error here would stop the worker and not the message.
    first_delay := least(coalesce(s.retry_delay, current_setting('sea_mq.retry_delay')::interval), '1 day');
    longest_delay := least(coalesce(s.retry_delay_max, current_setting('sea_mq.retry_delay_max')::interval), '1 day');
    -- Doubled each time up to the longest, half of it random, so that what failed together does not come back together.
    retry_in := coalesce(retry_in, least(first_delay * pow(2, least(message.attempts, 30) - 1), longest_delay)
        * (0.5 + random() / 2));
    UPDATE sea_mq.inbox_pending p SET status = 'failed', lease_until = NULL, due_at = clock_timestamp() + retry_in,
        attempts = message.attempts, processing_error = message.processing_error, errors = message.errors
    WHERE p.id = message.id;
    RETURN 'failed';
END $$;
COMMENT ON FUNCTION sea_mq.attempt_failed IS
'Notes a failed attempt and plans the next, or moves the message to the dead letter queue; for internal use';

CREATE FUNCTION sea_mq.poison(reason text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%', coalesce(reason, 'no reason given') USING ERRCODE = 'SM001',
        HINT = 'In a handler, this moves the message to the dead letter queue.';
END $$;
COMMENT ON FUNCTION sea_mq.poison IS
'Called by a handler: the message can never be handled. Ends the handler (SQLSTATE SM001), undoes what it has done, and moves the
message to the dead letter queue without another attempt';
CREATE FUNCTION sea_mq.skip(reason text DEFAULT NULL) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%', coalesce(reason, 'no reason given') USING ERRCODE = 'SM002',
        HINT = 'In a handler, this marks the message as skipped.';
END $$;
COMMENT ON FUNCTION sea_mq.skip IS
'Called by a handler: the message is of no interest. Ends the handler (SQLSTATE SM002), undoes what it has done, and marks the
message as skipped';

-- For applications that handle messages themselves.

CREATE FUNCTION sea_mq.release_expired(subscription text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    message sea_mq.inbox_pending;
BEGIN
    FOR message IN SELECT p.* FROM sea_mq.inbox_pending p
        WHERE p.subscription = release_expired.subscription AND p.status = 'processing' AND p.lease_until < clock_timestamp()
        ORDER BY p.id LIMIT 1000 FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM sea_mq.attempt_failed(message, 'lease', NULL, 'the lease ran out', retry_in => '0');
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.release_expired IS 'Gives messages back whose lease has run out; for internal use';

CREATE FUNCTION sea_mq.check_lease(lease interval) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF lease IS NULL OR lease <= '0' OR lease > '1 day' THEN
        RAISE EXCEPTION 'lease must be positive, and a day at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in ''30 s''; sea_mq.extend_lease keeps a message for longer.';
    END IF;
END $$;
COMMENT ON FUNCTION sea_mq.check_lease IS 'An error unless a message can be leased for so long. Error 22023; for internal use';

-- How a receiver waits: it looks again and again, each time with a snapshot of its own and without a lock on a row or an xid. What
-- holds its statement's snapshot is the statement, so it does not last long.
CREATE FUNCTION sea_mq.await_messages(subscription text, wait interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    until timestamptz := clock_timestamp() + wait;
    began timestamptz;
    pause double precision := 0.005;
BEGIN
    IF wait < '0' OR wait > '30 s' THEN
        RAISE EXCEPTION 'wait must not be negative, and 30 s at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in ''5 s''; call sea_mq.receive again when nothing has come.';
    END IF;
    IF wait > '0' AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'receive can only wait at the isolation level READ COMMITTED'
            USING ERRCODE = 'feature_not_supported', HINT = 'At others, a transaction does not see what comes after its first statement.';
    END IF;
    LOOP
        began := clock_timestamp();
        EXIT WHEN wait IS NULL OR began >= until OR EXISTS (SELECT FROM sea_mq.inbox_pending p
            WHERE p.subscription = await_messages.subscription
                AND CASE p.status WHEN 'processing' THEN p.lease_until ELSE p.due_at END <= clock_timestamp());
        -- To look takes a twentieth of the time at most, however much is under way.
        pause := greatest(pause, 20 * extract(epoch FROM clock_timestamp() - began));
        PERFORM pg_sleep(least(pause, extract(epoch FROM until - clock_timestamp())));
        pause := least(pause * 1.5, 0.05);
    END LOOP;
END $$;
COMMENT ON FUNCTION sea_mq.await_messages IS
'Waits until a subscription has a message to receive, or the time has passed. Errors: 22023, 0A000 (not READ COMMITTED); for internal use';

CREATE FUNCTION sea_mq.receive(subscription text, max integer DEFAULT 10, lease interval DEFAULT '30 s',
    wait interval DEFAULT NULL, per_aggregate boolean DEFAULT false)
RETURNS TABLE (id bigint, message_id text, source_context text, event_type text, event_version integer, subject text,
    aggregate_type text, aggregate_id text, payload jsonb, headers jsonb, correlation_id text, causation_id text,
    attempts integer, created_at timestamptz, lease_until timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    first bigint[];
BEGIN
    IF max IS NULL OR max < 1 THEN
        RAISE EXCEPTION 'max must be positive'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in sea_mq.receive(''billing__orders'', 10, ''30 s'').';
    END IF;
    PERFORM sea_mq.check_lease(lease);
    IF NOT EXISTS (SELECT FROM sea_mq.subscriptions s WHERE s.subscription = receive.subscription AND s.handler IS NULL AND s.endpoint IS NULL) THEN
        RAISE EXCEPTION 'there is no subscription "%" without a handler', subscription
            USING ERRCODE = 'undefined_object', HINT = 'Make it with sea_mq.subscribe(subscription, source), without a handler.';
    END IF;
    PERFORM sea_mq.check_receiver(receive.subscription);
    PERFORM sea_mq.await_messages(receive.subscription, wait);
    PERFORM sea_mq.release_expired(receive.subscription);
    IF per_aggregate THEN
        -- Of each aggregate the oldest that is not done, whoever has it: the next is nobody's before that one is settled.
        first := ARRAY(SELECT DISTINCT ON (p.aggregate_type, p.aggregate_id, CASE WHEN p.aggregate_id IS NULL THEN p.id END) p.id
            FROM sea_mq.inbox_pending p WHERE p.subscription = receive.subscription
            ORDER BY p.aggregate_type, p.aggregate_id, CASE WHEN p.aggregate_id IS NULL THEN p.id END, p.id);
    END IF;
    RETURN QUERY
    WITH taken AS (
        UPDATE sea_mq.inbox_pending p SET status = 'processing', attempts = p.attempts + 1, delivered_at = clock_timestamp(),
            lease_until = clock_timestamp() + lease
        WHERE p.id IN (SELECT w.id FROM sea_mq.inbox_pending w
            WHERE w.subscription = receive.subscription AND w.status <> 'processing' AND w.due_at <= clock_timestamp()
                AND (first IS NULL OR w.id = ANY (first))
            ORDER BY w.id LIMIT receive.max FOR UPDATE SKIP LOCKED)
        RETURNING p.*)
    SELECT t.id, t.message_id, t.source_context, t.event_type, t.event_version, t.subject, t.aggregate_type, t.aggregate_id,
        t.payload, t.headers, t.headers ->> 'X-Correlation-Id', t.headers ->> 'X-Causation-Id', t.attempts, t.event_at, t.lease_until
    FROM taken t ORDER BY t.id;
END $$;
COMMENT ON FUNCTION sea_mq.receive IS
'Takes up to max messages of a subscription without a handler, oldest first, for as long as lease; many clients may call it at
once. Commit at once: until then nobody else sees that they are taken. wait: how long to wait for the first, 30 s at most.
per_aggregate: of each aggregate only the oldest that is not done, so that no two clients have events of one, and a failed one is
handled before those that follow it. Then call complete, fail or reject for each, in the
transaction that has the effects. A message whose lease runs out is given back, and that counts as a failed attempt. Errors: 0A000 (it is to wait and cannot), 22023, 42704';

CREATE FUNCTION sea_mq.taken(id bigint) RETURNS sea_mq.inbox_pending
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    message sea_mq.inbox_pending;
BEGIN
    SELECT p.* INTO message FROM sea_mq.inbox_pending p
    JOIN sea_mq.subscriptions s ON s.subscription = p.subscription AND s.handler IS NULL AND s.endpoint IS NULL
    WHERE p.id = taken.id AND p.attempts > 0 FOR UPDATE OF p;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'message % is not under way', id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'It was completed or rejected already, perhaps by somebody who received it after its lease had run out. Roll back.';
    END IF;
    PERFORM sea_mq.check_receiver(message.subscription);
    RETURN message;
END $$;
COMMENT ON FUNCTION sea_mq.taken IS 'A message that an application has received, locked. Error 55000; for internal use';

CREATE FUNCTION sea_mq.complete(id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    message sea_mq.inbox_pending := sea_mq.taken(id);
BEGIN
    PERFORM sea_mq.settle(message, 'processed');
    PERFORM sea_mq.count_outcomes(message.subscription, processed => 1);
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN 'processed';
END $$;
COMMENT ON FUNCTION sea_mq.complete IS
'Marks a received message as processed, and returns this status. Called in the transaction that has the effects, both commit or neither: of two clients
that have the same message, the second gets an error (55000) and rolls back';

CREATE FUNCTION sea_mq.fail(id bigint, error text, retry_in interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF retry_in < '0' OR retry_in > '1 year' THEN
        RAISE EXCEPTION 'retry_in must not be negative, and a year at most'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'As in ''10 s''; leave it out for the subscription''s own delay.';
    END IF;
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN sea_mq.attempt_failed(sea_mq.taken(id), 'error', NULL, coalesce(error, 'no reason given'), retry_in => retry_in);
END $$;
COMMENT ON FUNCTION sea_mq.fail IS
'Gives a received message back after a failure, for another attempt after retry_in (or the subscription''s backoff), or, if
max_deliver is reached, to the dead letter queue. Call it in a transaction of its own, after rolling back. Returns the status that
follows: failed or dead. Errors: 22023 (retry_in is negative, or more than a year), 55000';

CREATE FUNCTION sea_mq.reject(id bigint, reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    message sea_mq.inbox_pending := sea_mq.taken(id);
BEGIN
    message.errors := sea_mq.with_error(message.errors, message.attempts, 'poison', NULL, reason, NULL);
    PERFORM sea_mq.bury(message, 'poison', coalesce(reason, 'no reason given'));
    PERFORM sea_mq.inbox_wake_at_commit();
    RETURN 'dead';
END $$;
COMMENT ON FUNCTION sea_mq.reject IS
'Moves a received message to the dead letter queue without another attempt, and returns the status: dead. Error 55000';

CREATE FUNCTION sea_mq.extend_lease(id bigint, lease interval DEFAULT '30 s') RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    message sea_mq.inbox_pending := sea_mq.taken(id);
    until timestamptz;
BEGIN
    PERFORM sea_mq.check_lease(lease);
    until := clock_timestamp() + lease;
    IF message.status <> 'processing' THEN
        RAISE EXCEPTION 'the lease of message % has run out', id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Roll back; the message comes again.';
    END IF;
    UPDATE sea_mq.inbox_pending p SET lease_until = until WHERE p.id = message.id;
    RETURN until;
END $$;
COMMENT ON FUNCTION sea_mq.extend_lease IS 'Keeps a received message for longer, from now on. Returns until when. Errors: 22023 (not
positive, or more than a day), 55000 (the lease has run out)';

CREATE FUNCTION sea_mq.is_reserved(subscription text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT $1 LIKE 'ingest:%' OR $1 LIKE 'endpoint:%' $$;
COMMENT ON FUNCTION sea_mq.is_reserved IS 'Whether a name is not for subscriptions and applications: those that begin with "ingest:" or "endpoint:"; for internal use';

CREATE FUNCTION sea_mq.accept_once(message_id text, source_context text, event_type text, payload jsonb, subscription text,
    event_version integer, subject text, headers jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    slot smallint := sea_mq.inbox_slot();
    accepted bigint;
BEGIN
    IF sea_mq.inbox_holds(accept_once.message_id, accept_once.subscription) THEN
        RETURN false;
    END IF;
    INSERT INTO sea_mq.inbox_log (slot, id, subscription, message_id, status, attempts, source_context, event_type, event_version,
        subject, payload, headers, event_at, created_at, delivered_at, processed_at)
    VALUES (slot, nextval('sea_mq.inbox_id'), accept_once.subscription, accept_once.message_id, 'processed', 1,
        accept_once.source_context, accept_once.event_type, accept_once.event_version,
        coalesce(accept_once.subject, concat_ws('.', accept_once.source_context, 'event', accept_once.event_type,
            'v' || coalesce(accept_once.event_version, 1))),
        coalesce(accept_once.payload, 'null'), coalesce(accept_once.headers, '{}'), clock_timestamp(), clock_timestamp(),
        clock_timestamp(), clock_timestamp())
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS accepted = ROW_COUNT;
    RETURN accepted = 1;
END $$;
COMMENT ON FUNCTION sea_mq.accept_once IS 'Stores a message as processed; false if the inbox has it; for internal use';

CREATE FUNCTION sea_mq.inbox_accept(message_id text, source_context text, event_type text, payload jsonb, subscription text,
    event_version integer DEFAULT NULL, subject text DEFAULT NULL, headers jsonb DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    -- Other publishers may have names that are no token of a subject.
    kind text := CASE WHEN inbox_accept.event_type ~ '^[^[:space:].*>]+$' THEN sea_mq.event_name(inbox_accept.event_type)
        ELSE inbox_accept.event_type END;
BEGIN
    IF inbox_accept.message_id IS NULL OR inbox_accept.subscription IS NULL OR inbox_accept.event_type IS NULL THEN
        RAISE EXCEPTION 'message_id, event_type and subscription must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'message_id is the Nats-Msg-Id of the message.';
    END IF;
    IF sea_mq.is_reserved(inbox_accept.subscription) THEN
        RAISE EXCEPTION 'the name "%" is reserved', inbox_accept.subscription
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Names that begin with "ingest:" stand for the messages of partners (sea_mq.ingest): choose another.';
    END IF;
    PERFORM sea_mq.claim_name(inbox_accept.subscription);
    RETURN sea_mq.accept_once(inbox_accept.message_id, inbox_accept.source_context, kind, inbox_accept.payload,
        inbox_accept.subscription, inbox_accept.event_version, inbox_accept.subject, inbox_accept.headers);
END $$;
COMMENT ON FUNCTION sea_mq.inbox_accept(text, text, text, jsonb, text, integer, text, jsonb) IS
'For applications with a NATS consumer of their own: true the first time that a message is accepted for a subscription, false
afterwards. Call it in the transaction that has the effects, and acknowledge the message after the commit. Waits for a concurrent
transaction that accepts the same message. A name belongs to the role that uses it first, or that has subscribed under it. Errors:
22004, 22023 (a name of sea_mq.ingest), 42501 (another role''s name)';

-- As the forms of emit: chosen only where the one above does not fit.
CREATE FUNCTION sea_mq.inbox_accept(message_id sea_mq.plain_text, source_context text, event_type text, payload sea_mq.json_text,
    subscription text, event_version integer DEFAULT NULL, subject text DEFAULT NULL, headers sea_mq.json_text DEFAULT NULL) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT sea_mq.inbox_accept($1::text, $2, $3, $4::text::jsonb, $5, $6, $7, $8::text::jsonb)
$$;
COMMENT ON FUNCTION sea_mq.inbox_accept(sea_mq.plain_text, text, text, sea_mq.json_text, text, integer, text, sea_mq.json_text) IS
'inbox_accept with JSON as text or json. Errors: as the form with jsonb; 22P02 (no JSON)';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.poison, sea_mq.skip, sea_mq.receive, sea_mq.complete, sea_mq.fail, sea_mq.reject,
    sea_mq.extend_lease,
    sea_mq.inbox_accept(sea_mq.plain_text, text, text, sea_mq.json_text, text, integer, text, sea_mq.json_text),
    sea_mq.inbox_accept(text, text, text, jsonb, text, integer, text, jsonb) TO sea_mq_consumer;
GRANT SELECT ON sea_mq.inbox_messages TO sea_mq_operator, sea_mq_monitor;
