-- What a registry of subscribers answers.

-- Events have the subject {context}.event.{type}.v{version}; what is NULL here may be anything.
CREATE FUNCTION sea_mq.covers_type(subject_filter text, event_type text, context text, event_version integer) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH filter AS (SELECT string_to_array($1, '.') AS tokens)
    SELECT CASE WHEN tokens[cardinality(tokens)] = '>' THEN cardinality(tokens) <= 4 ELSE cardinality(tokens) = 4 END
        AND NOT EXISTS (SELECT FROM unnest(tokens) WITH ORDINALITY AS t(token, place)
            WHERE t.token NOT IN ('*', '>') AND t.token <> (ARRAY[$3, 'event', $2, 'v' || $4])[t.place])
    FROM filter
$$;
COMMENT ON FUNCTION sea_mq.covers_type IS 'Whether a subject filter covers events of a type, in some context and version where they are NULL; for internal use';

CREATE FUNCTION sea_mq.subscriptions_of(event_type text, context text DEFAULT NULL, event_version integer DEFAULT NULL)
RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.subscription FROM sea_mq.subscriptions s
    WHERE sea_mq.covers_type(s.subject_filter, sea_mq.event_name($1), sea_mq.context_name($2), $3)
    ORDER BY 1
$$;
COMMENT ON FUNCTION sea_mq.subscriptions_of IS
'The subscriptions that get events of a type (order_created or OrderCreated); context, event_version: those of one context, of one
version. Error 22023: no name of an event';

CREATE FUNCTION sea_mq.is_processed(message_id text, subscription text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT EXISTS (SELECT FROM sea_mq.inbox_log l WHERE l.message_id = $1 AND l.subscription = $2 AND l.status = 'processed')
$$;
CREATE FUNCTION sea_mq.is_processed(message_id uuid, subscription text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT EXISTS (SELECT FROM sea_mq.inbox_log l WHERE l.message_id = $1::text AND l.subscription = $2 AND l.status = 'processed')
$$;
COMMENT ON FUNCTION sea_mq.is_processed(text, text) IS
'Whether a subscription has processed a message: its handler''s effects are committed. False also for what was skipped or is dead, and
for what the inbox no longer retains (sea_mq.inbox_retention)';
COMMENT ON FUNCTION sea_mq.is_processed(uuid, text) IS 'As the form with text, for ids of events';

CREATE FUNCTION sea_mq.event_names() RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT e.event_type FROM sea_mq.event_types e
    UNION
    SELECT split_part(s.subject_filter, '.', 3) FROM sea_mq.subscriptions s
    WHERE split_part(s.subject_filter, '.', 2) = 'event' AND split_part(s.subject_filter, '.', 3) NOT IN ('', '*', '>')
    ORDER BY 1
$$;
COMMENT ON FUNCTION sea_mq.event_names IS 'The names of all events that are registered, or that a subscription names, in their normalised form';

-- Who may use it.
GRANT EXECUTE ON FUNCTION sea_mq.subscriptions_of, sea_mq.event_names
    TO sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
GRANT EXECUTE ON FUNCTION sea_mq.is_processed(text, text), sea_mq.is_processed(uuid, text)
    TO sea_mq_consumer, sea_mq_operator, sea_mq_monitor;
