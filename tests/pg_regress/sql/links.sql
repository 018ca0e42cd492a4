-- Links between entities of several contexts, and the questions that a registry of subscribers answers.
CREATE ROLE sea_mq_links_clerk IN ROLE sea_mq_producer;
SET ROLE sea_mq_links_clerk;
SELECT sea_mq.create_link('billing', 'invoice', 'i-1', 'tasks', 'task', 't-1') AS first \gset
-- Repeated: the same.
SELECT sea_mq.create_link('billing', 'invoice', 'i-1', 'tasks', 'task', 't-1') = :'first' AS the_same;
-- Another type is another link; so is the other direction.
SELECT sea_mq.create_link('billing', 'invoice', 'i-1', 'tasks', 'task', 't-1', 'cascade', '{"why": "reminder"}') <> :'first' AS another;
SELECT sea_mq.create_link('tasks', 'task', 't-1', 'billing', 'invoice', 'i-1', link_type => 'pays_for') <> :'first' AS another;
-- With other metadata it is another link, which has no place.
\set VERBOSITY sqlstate
SELECT sea_mq.create_link('billing', 'invoice', 'i-1', 'tasks', 'task', 't-1', metadata => '{"a": 1}');
-- What is no link.
SELECT sea_mq.create_link('billing', 'invoice', NULL, 'tasks', 'task', 't-1');
SELECT sea_mq.create_link('billing', 'invoice', '', 'tasks', 'task', 't-1');
SELECT sea_mq.create_link('billing', 'invoice', repeat('x', 401), 'tasks', 'task', 't-1');
SELECT sea_mq.create_link('billing', 'invoice', 'i-1', 'tasks', 'task', 't-1', 'No Type');
SELECT sea_mq.create_link('billing', 'invoice', 'i-1', 'tasks', 'task', 't-1', metadata => '[]');
SELECT sea_mq.create_links(ARRAY['{"source_module": "a", "sauce": 1}']::jsonb[]);
SELECT sea_mq.create_links(ARRAY['[1]']::jsonb[]);
SELECT sea_mq.create_links(ARRAY[NULL]::jsonb[]);
INSERT INTO sea_mq.entity_links (source_module) VALUES ('x');
\set VERBOSITY default

-- Many at once, one of them twice and one there already: ids in the order of the array. All or none.
SELECT count(*), count(DISTINCT id), max(id::text) FILTER (WHERE place = 3) = :'first' AS knows_the_first,
    max(id::text) FILTER (WHERE place = 1) = max(id::text) FILTER (WHERE place = 4) AS knows_its_own
FROM sea_mq.create_links(ARRAY[
    '{"source_module": "crm", "source_type": "customer", "source_id": "c-1", "target_module": "billing", "target_type": "invoice", "target_id": "i-1", "link_type": "aggregate_root"}',
    '{"source_module": "crm", "source_type": "customer", "source_id": "c-1", "target_module": "billing", "target_type": "invoice", "target_id": "i-2", "link_type": "aggregate_root", "metadata": {"n": 2}}',
    '{"source_module": "billing", "source_type": "invoice", "source_id": "i-1", "target_module": "tasks", "target_type": "task", "target_id": "t-1"}',
    '{"source_module": "crm", "source_type": "customer", "source_id": "c-1", "target_module": "billing", "target_type": "invoice", "target_id": "i-1", "link_type": "aggregate_root", "metadata": null}'
    ]::jsonb[]) WITH ORDINALITY AS l(id, place);
\set VERBOSITY sqlstate
SELECT sea_mq.create_links(ARRAY[
    '{"source_module": "crm", "source_type": "customer", "source_id": "c-9", "target_module": "billing", "target_type": "invoice", "target_id": "i-9"}',
    '{"source_module": "crm", "source_type": "customer", "source_id": "c-1", "target_module": "billing", "target_type": "invoice", "target_id": "i-2", "link_type": "aggregate_root", "metadata": {"n": 3}}'
    ]::jsonb[]);
\set VERBOSITY default
SELECT count(*) FROM sea_mq.find_links_by_source('crm', 'customer', 'c-9');

SELECT target_id, link_type, metadata, created_by FROM sea_mq.find_links_by_source('crm', 'customer', 'c-1') ORDER BY target_id;
SELECT source_module, link_type FROM sea_mq.find_links_by_target('billing', 'invoice', 'i-1') ORDER BY 1;
SELECT link_type FROM sea_mq.find_links_by_source('billing', 'invoice', 'i-1', 'cascade');
SELECT link_type, source_module FROM sea_mq.find_link('tasks', 'task', 't-1', 'billing', 'invoice', 'i-1') ORDER BY 1;
SELECT direction, link_type, other_module, other_type, other_id FROM sea_mq.links_of('billing', 'invoice', 'i-1') ORDER BY 1, 2;
-- An entity linked to itself is at both ends.
SELECT sea_mq.create_link('a', 'b', 'c', 'a', 'b', 'c') IS NOT NULL AS linked;
SELECT direction FROM sea_mq.links_of('a', 'b', 'c') ORDER BY 1;
SELECT count(*) FROM sea_mq.find_link('a', 'b', 'c', 'a', 'b', 'c');

-- By type, some at a time: each once.
SELECT count(*) FROM sea_mq.create_links((SELECT array_agg(jsonb_build_object('source_module', 'm', 'source_type', 't', 'source_id', n::text,
    'target_module', 'm', 'target_type', 't', 'target_id', (n + 1)::text, 'link_type', 'next')) FROM generate_series(1, 25) n));
WITH RECURSIVE page AS (
    SELECT 1 AS n, array_agg(l.id ORDER BY l.id) AS ids FROM sea_mq.find_links_by_type('next', max => 10) l
    UNION ALL
    SELECT p.n + 1, (SELECT array_agg(l.id ORDER BY l.id) FROM sea_mq.find_links_by_type('next', p.ids[cardinality(p.ids)], 10) l)
    FROM page p WHERE p.ids IS NOT NULL)
SELECT n, cardinality(ids) FROM page WHERE ids IS NOT NULL;

-- A rollback takes a link back; dropping it does.
BEGIN;
SELECT sea_mq.create_link('x', 'y', 'z', 'x', 'y', 'w') IS NOT NULL AS linked;
ROLLBACK;
SELECT count(*) FROM sea_mq.links_of('x', 'y', 'z');
RESET ROLE;
-- Only its creator and operators drop a link.
CREATE ROLE sea_mq_links_other IN ROLE sea_mq_producer, sea_mq_consumer;
CREATE ROLE sea_mq_links_operator IN ROLE sea_mq_operator;
SET ROLE sea_mq_links_other;
SELECT sea_mq.create_link('a', 'b', 'other', 'a', 'b', 'c') AS others \gset
\set VERBOSITY sqlstate
SELECT sea_mq.drop_link(:'first');
\set VERBOSITY default
SELECT sea_mq.drop_link(gen_random_uuid()) AS unknown;
SET ROLE sea_mq_links_clerk;
SELECT sea_mq.drop_link(:'first'), sea_mq.drop_link(:'first') AS again;
SET ROLE sea_mq_links_operator;
SELECT sea_mq.drop_link(:'others');
RESET ROLE;
DROP ROLE sea_mq_links_other, sea_mq_links_operator;
SET ROLE sea_mq_links_clerk;
RESET ROLE;

-- A look-up goes by an index in both directions, however many links there are.
INSERT INTO sea_mq.entity_links (source_module, source_type, source_id, target_module, target_type, target_id, link_type, created_by)
SELECT 'big', 't', n::text, 'wide', 't', (n % 1000)::text, 'bulk', 'me' FROM generate_series(1, 20000) n;
CREATE FUNCTION pg_temp.blocks(call text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) ' || call INTO plan;
    RETURN (plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::int + (plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::int < 150;
END $$;
SELECT count(*) FROM sea_mq.links_of('wide', 't', '7');
SELECT call, pg_temp.blocks('SELECT * FROM sea_mq.' || call) AS few_blocks FROM unnest(ARRAY[
    'find_links_by_source(''big'', ''t'', ''7'')', 'find_links_by_target(''wide'', ''t'', ''7'')', 'links_of(''wide'', ''t'', ''7'')',
    'find_link(''big'', ''t'', ''7'', ''wide'', ''t'', ''7'')', 'find_links_by_type(''bulk'', max => 10)']) AS call;
TRUNCATE sea_mq.entity_links;
DROP ROLE sea_mq_links_clerk;

-- Who subscribes to what.
CREATE FUNCTION public.links_handler(event sea_mq.event) RETURNS void LANGUAGE sql AS '';
SELECT sea_mq.subscribe('links__all', 'link_orders', context => 'links'), sea_mq.subscribe('links__one', 'link_orders', filter => 'OrderCreated', context => 'links'),
    sea_mq.subscribe('links__v2', 'link_orders', filter => 'order_created.v2', context => 'links'),
    sea_mq.subscribe('links__wide', 'LINKS_FOREIGN', filter => '*.event.order_created.>', context => 'links'),
    sea_mq.subscribe('links__else', 'LINKS_FOREIGN', filter => 'link_orders.command.order_created.v1', context => 'links'),
    sea_mq.subscribe('links__payments', 'link_payments', context => 'links');
SELECT * FROM sea_mq.subscriptions_of('OrderCreated');
SELECT * FROM sea_mq.subscriptions_of('order_created', 'link_payments');
SELECT * FROM sea_mq.subscriptions_of('order_created', 'link_orders', 1);
SELECT * FROM sea_mq.subscriptions_of('PaymentMade');
SELECT n FROM sea_mq.event_names() n WHERE n = 'order_created';
SELECT sea_mq.inbox_accept('links-m1', 'link_orders', 'order_created', '{}', 'links_app') AS accepted;
SELECT sea_mq.is_processed('links-m1', 'links_app') AS processed, sea_mq.is_processed('links-m2', 'links_app') AS unknown,
    sea_mq.is_processed('01890a5d-ac96-774b-bcce-b302099a8070'::uuid, 'links_app') AS unknown_uuid;
SELECT count(sea_mq.unsubscribe(s)) FROM unnest('{links__all,links__one,links__v2,links__wide,links__else,links__payments}'::text[]) s;
DROP FUNCTION public.links_handler;
