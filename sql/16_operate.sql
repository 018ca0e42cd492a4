-- For callers who must know, and for operators.

CREATE FUNCTION sea_mq.publication(event_id text, OUT state text, OUT error text, OUT available_at text)
RETURNS SETOF record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN o.publish_error IS NOT NULL THEN 'failed' WHEN o.published THEN 'published'
            WHEN o.seq IS NULL THEN 'scheduled' ELSE 'waiting' END, o.publish_error, o.available_at::text
    FROM sea_mq.outbox_events o WHERE o.id = $1::uuid ORDER BY o.seq DESC NULLS LAST LIMIT 1
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
    deadline timestamptz := clock_timestamp() + timeout;
    pause double precision := 0.001;
    found record;
BEGIN
    IF wait_published.event_id IS NULL OR timeout IS NULL THEN
        RAISE EXCEPTION 'event_id and timeout must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'As in sea_mq.wait_published(id, ''5 s'').';
    END IF;
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
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Mend what it says, then see sea_mq.retry_failed.';
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
own, since it keeps that one''s snapshot as long as it waits. Errors: 22004, 42704 (not known), 55000 (emitted by this transaction,
held back for longer, refused by the broker for good, or no broker)';
