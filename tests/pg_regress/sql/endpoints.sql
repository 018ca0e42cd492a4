-- Endpoints outside: what is described, what is refused before any event is accepted, and who may.
SET sea_mq.context = 'epr';
SELECT sea_mq.create_endpoint('acme', 'webhook', 'https://acme.example/hook', filter => '{OrderCreated,order_paid.v2}', source => 'epr');
-- The same again is the same; another one is not.
SELECT sea_mq.create_endpoint('acme', 'webhook', 'https://acme.example/hook', filter => '{OrderCreated,order_paid.v2}', source => 'epr');
SELECT kind, url, source, subject_filters, audience, format, method, headers, ordering, max_in_flight, timeout, paused FROM sea_mq.endpoints;
\set VERBOSITY sqlstate
SELECT sea_mq.create_endpoint('acme', 'webhook', 'https://other.example/');
-- What is no endpoint.
SELECT sea_mq.create_endpoint(NULL, 'webhook', 'https://a.example/');
SELECT sea_mq.create_endpoint('a b', 'webhook', 'https://a.example/');
SELECT sea_mq.create_endpoint('b', 'pigeon', 'https://a.example/');
SELECT sea_mq.create_endpoint('b', 'webhook', 'https://a.example/', timeout => '0');
SELECT sea_mq.create_endpoint('b', 'webhook', 'https://a.example/', max_in_flight => 2000);
SELECT sea_mq.create_endpoint('b', 'webhook', 'https://a.example/', retry_schedule => '{}');
SELECT sea_mq.create_endpoint('b', 'webhook', 'https://a.example/', retry_schedule => '{-1 s}');
SELECT sea_mq.create_endpoint('b', 'webhook', 'https://a.example/', rate => 0);
SELECT sea_mq.create_endpoint('b', 'webhook', 'https://a.example/', format => 'template');
SELECT sea_mq.create_endpoint('b', 'webhook', 'https://a.example/', filter => '{a b}');
SELECT sea_mq.create_endpoint('b', 'webhook', 'https://a.example/', audience => 'nobody');
SELECT sea_mq.create_endpoint('b', 'webhook', 'https://a.example/', start_from => 'some day');
\set VERBOSITY default
-- URLs and headers that could be read as something else, or lead inside.
CREATE FUNCTION public.refused(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT sea_mq.create_endpoint(''x'', ''webhook'', ' || call || ')';
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE;
END $$;
SELECT url, public.refused(quote_literal(url)) FROM unnest(ARRAY['http://a.example/', 'ftp://a.example/', 'https://u:p@a.example/', 'https://@a.example/',
    'https://127.0.0.1/', 'https://2130706433/', 'https://0x7f.1/', 'https://[::1]/', 'https://[::ffff:10.0.0.1]/', 'https://[64:ff9b::a00:1]/',
    'https://169.254.169.254/latest/meta-data', 'https://a.example/#f', 'https://a.example\@10.0.0.1/', 'a.example', '']) AS url;
SELECT headers, public.refused('''https://a.example/'', headers => ' || quote_literal(headers)) FROM unnest(ARRAY['[]', '{"X-A": 1}', '{"X A": "b"}',
    '{"X-A": "b\r\nX-B: c"}', '{"Host": "b"}', '{"content-length": "1"}', '{"Transfer-Encoding": "chunked"}', '{"webhook-id": "1"}', '{"Authorization": "b"}',
    '{"Accept-Encoding": "gzip"}', '{"ce-id": "1"}', '{"": "b"}']) AS headers;
SELECT auth, public.refused('''https://a.example/'', auth => ' || quote_literal(auth)) FROM unnest(ARRAY['[]', '{}', '{"type": "magic"}', '{"type": "basic", "user": "u"}',
    '{"type": "bearer", "token": "t", "more": "x"}', '{"type": "bearer", "token": "t", "scope": "x"}', '{"type": "oauth2", "token_url": "https://10.0.0.1/", "client_id": "c", "client_secret": "s"}']) AS auth;
SELECT count(*) FROM sea_mq.endpoints;

-- Changes.
SELECT sea_mq.alter_endpoint('acme', max_in_flight => 4, auth => '{"type": "bearer", "token": "token"}', headers => '{"X-Tenant": "t"}', rate => 5);
SELECT max_in_flight, auth, headers, rate, url FROM sea_mq.endpoints;
SELECT sea_mq.alter_endpoint('acme', auth => 'null', rate => 'Infinity');
SELECT auth, rate FROM sea_mq.endpoints;
SELECT sea_mq.pause_endpoint('acme');
SELECT state FROM sea_mq.endpoint_status;
SELECT sea_mq.resume_endpoint('acme');
\set VERBOSITY sqlstate
SELECT sea_mq.alter_endpoint('acme', url => 'https://10.0.0.1/');
SELECT sea_mq.alter_endpoint('nobody', url => 'https://a.example/');
SELECT sea_mq.pause_endpoint('nobody');
\set VERBOSITY default

-- Secrets are shown once, and kept encrypted.
SELECT sea_mq.rotate_secret('acme') ~ '^whsec_[A-Za-z0-9+/]{43}=$' AS symmetric, sea_mq.rotate_secret('acme', '1 h', 'v1a') ~ '^whpk_' AS public_key;
SELECT sea_mq.set_secret('acme', 'token', 'a token that nobody sees');
SELECT name, count(*), count(expires_at) AS expiring, bool_and(octet_length(sealed) > 28) AS sealed, bool_or(encode(sealed, 'escape') ~ 'nobody') AS readable
FROM sea_mq.endpoint_secrets GROUP BY name ORDER BY name;
\set VERBOSITY sqlstate
SELECT sea_mq.set_secret('acme', 'signing', 'short');
SELECT sea_mq.set_secret('acme', 'no name', 'x');
SELECT sea_mq.set_secret('acme', 'token', NULL);
SELECT sea_mq.rotate_secret('acme', '1 h', 'v2');
-- Sends of their own.
SELECT sea_mq.deliver('acme', 'InvoicePaid', NULL);
SELECT sea_mq.deliver('nobody', 'InvoicePaid', '{}');
SELECT sea_mq.deliver('acme', 'InvoicePaid', jsonb_build_object('x', repeat('x', 300000)));
\set VERBOSITY default
SELECT sea_mq.pause_endpoint('acme');
SELECT sea_mq.deliver('acme', 'InvoicePaid', '{"n": 1}') = sea_mq.deliver('acme', 'InvoicePaid', '{"n": 1}') AS the_same,
    sea_mq.deliver('acme', 'InvoicePaid', '{"n": 2}') <> sea_mq.deliver('acme', 'InvoicePaid', '{"n": 1}') AS another;
SELECT p.event_type, convert_from(p.body, 'UTF8')::jsonb - 'timestamp' AS body, p.headers, p.status FROM sea_mq.delivery_pending p ORDER BY p.seq;
SELECT s.endpoint, s.status, s.attempts FROM sea_mq.delivery_pending p CROSS JOIN LATERAL sea_mq.delivery_status(p.event_id) s ORDER BY p.seq;
SELECT sea_mq.cancel_delivery(p.event_id, 'acme') FROM sea_mq.delivery_pending p ORDER BY p.seq LIMIT 1;
SELECT status, count(*) FROM sea_mq.deliveries GROUP BY status ORDER BY status;
\set VERBOSITY sqlstate
SELECT sea_mq.drop_endpoint('acme');
\set VERBOSITY default

-- The forms of an event.
SELECT f, sea_mq.outgoing(ROW('01890a5d-ac96-774b-bcce-b302099a8070', '01890a5d-ac96-774b-bcce-b302099a8070', NULL, 'epr', 'order_created', 1, 'epr.event.order_created.v1',
        'order', 'ü 1', '{"n": 1.50}', '{}', 'c1', 'x', 'public', NULL, NULL, '2026-01-02 03:04:05.678+00')::sea_mq.event, 'internal', f, '{"id": "$.id", "n": "$.payload.n"}') - 'headers' AS body
FROM unnest('{standard,payload,template,cloudevents}'::text[]) AS f;

-- Who may.
CREATE ROLE sea_mq_ep_operator IN ROLE sea_mq_operator;
CREATE ROLE sea_mq_ep_producer IN ROLE sea_mq_producer;
CREATE ROLE sea_mq_ep_monitor IN ROLE sea_mq_monitor;
-- What may hold a secret is for those who may change it; the text of an error for those who look after it.
SELECT sea_mq.alter_endpoint('acme', url => 'https://acme.example/T0/B1?token=hidden', headers => '{"X-Key": "hidden"}',
    auth => '{"type": "oauth2", "token_url": "https://a.example/t?k=hidden", "client_id": "c", "client_secret": "s"}');
SELECT event_id AS event FROM sea_mq.delivery_pending LIMIT 1 \gset
UPDATE sea_mq.delivery_pending SET error = 'it says hidden';
SET ROLE sea_mq_ep_monitor;
SELECT url, headers, body, auth FROM sea_mq.endpoints;
SELECT error FROM sea_mq.delivery_status(:'event');
SELECT count(*) FROM sea_mq.endpoints e WHERE e::text LIKE '%hidden%';
SET ROLE sea_mq_ep_operator;
SELECT url, headers, auth -> 'token_url' AS token_url FROM sea_mq.endpoints;
SELECT error FROM sea_mq.delivery_status(:'event');
SET ROLE sea_mq_ep_producer;
SELECT status, error FROM sea_mq.delivery_status(:'event');
RESET ROLE;
SET ROLE sea_mq_ep_producer;
\set VERBOSITY sqlstate
SELECT sea_mq.create_endpoint('mine', 'webhook', 'https://a.example/');
SELECT sea_mq.deliver('acme', 'InvoicePaid', '{}');
SELECT * FROM sea_mq.endpoint_secrets;
SELECT * FROM sea_mq.endpoints;
SELECT * FROM sea_mq.endpoint_definitions;
SELECT sea_mq.forget_dropped('acme');
RESET ROLE;
SET ROLE sea_mq_ep_operator;
SELECT sea_mq.create_endpoint('mine', 'nats', 'nats://a.example:4222');
SELECT * FROM sea_mq.endpoint_secrets;
SELECT body FROM sea_mq.delivery_pending;
SELECT sea_mq.generate_secret(false);
\set VERBOSITY default
SELECT sea_mq.create_endpoint('mine', 'http', 'https://a.example/', format => 'cloudevents');
SELECT endpoint, created_by FROM sea_mq.endpoints ORDER BY 1;
SELECT sea_mq.drop_endpoint('mine'), sea_mq.drop_endpoint('acme', discard_pending => true);
RESET ROLE;
SELECT count(*) FROM sea_mq.endpoint_secrets;
SELECT count(*) FROM sea_mq.endpoint_readers;
DROP ROLE sea_mq_ep_operator, sea_mq_ep_producer, sea_mq_ep_monitor;
DROP FUNCTION public.refused;
