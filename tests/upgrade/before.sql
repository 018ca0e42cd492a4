-- What a database has before it is upgraded: handled, failing, dead, scheduled, captured, with a contract, over HTTP to nobody.
CREATE TABLE upgraded (at timestamptz);
CREATE TABLE handled (id text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION handle(event sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.payload ->> 'kind' = 'poison' THEN PERFORM sea_mq.poison('it cannot be'); END IF;
    -- Until the upgrade is done, so that retries wait across it.
    IF event.payload ->> 'kind' = 'later' AND NOT EXISTS (SELECT FROM public.upgraded) THEN RAISE 'not yet'; END IF;
    INSERT INTO public.handled VALUES (event.message_id);
END $$;
SELECT sea_mq.subscribe('old__orders', 'orders', 'handle', start_from => 'all');
SELECT sea_mq.register_event('orders', 'OrderPaid', 1, '{"type": "object"}');
CREATE TABLE customers (id int PRIMARY KEY, name text);
SELECT sea_mq.capture_table('customers', 'customer', 'id');
SELECT sea_mq.create_endpoint('partner', 'webhook', 'https://partner.invalid/hook', source => 'orders', audience => 'internal');
SELECT sea_mq.emit('order', n::text, 'OrderCreated', '{}') FROM generate_series(1, 20) n;
SELECT sea_mq.emit('order', '21', 'OrderCreated', '{"kind": "poison"}');
SELECT sea_mq.emit('order', '22', 'OrderCreated', '{"kind": "later"}');
SELECT sea_mq.emit('order', '23', 'OrderPaid', '{}');
INSERT INTO customers VALUES (1, 'Ada');
SELECT sea_mq.emit('order', '24', 'OrderCreated', '{}', available_at => now() + interval '20 seconds');
