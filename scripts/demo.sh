#!/usr/bin/env bash
# Shows sea_mq at work on servers of its own, and stops them at the end, however it ends.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

bold() { printf '\n\033[1m%s\033[0m\n' "$*"; }
number=0
step() {
    number=$((number + 1))
    bold "$number. $*"
}

# What an earlier demo left that could not clean up after itself.
for left in "$run_dir"/demo-*; do
    if [ -e "$left" ] && [ ! -e "/proc/${left##*-}" ]; then servers_down "$left"; fi
done

say "Building the demo's tools (a minute the first time)"
cargo build --quiet --package sea_mq-e2e --bins
build_gateway
tools=${CARGO_TARGET_DIR:-target}/debug
peek() { "$tools/sea-mq-peek" "$nats_url" ORDERS_EVENTS "$@"; }

here=$run_dir/demo-$$
database=shop
trap 'servers_down "$here"' EXIT
begin=$SECONDS

step "A throwaway PostgreSQL with the extension, and a nats-server with JetStream"
servers_up "$here" "$database"
shop() { sql "$pg_port" "$database" --pset=footer=off "$@"; }
published() { [ "$(shop -AtX -c "SELECT count(*) FROM sea_mq.outbox_events WHERE published")" -ge "$1" ]; }
printf 'PostgreSQL on port %s, NATS on %s\n' "$pg_port" "$nats_url"

step "An order and its event, in one transaction"
shop --echo-queries <<'SQL'
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text, total numeric);
BEGIN;
INSERT INTO orders (customer, total) VALUES ('Ada', 42.50) RETURNING id, customer, total;
SELECT sea_mq.emit('order', '1', 'OrderCreated', '{"order": 1, "customer": "Ada", "total": 42.50}');
COMMIT;
SQL

step "The message, as JetStream stored it"
wait_for 20 published 1 || die "the event was not published: $(shop -AtX -c 'SELECT summary, hint FROM sea_mq.status')"
peek

step "A transaction that is rolled back: nothing of it arrives"
shop --echo-queries <<'SQL'
BEGIN;
INSERT INTO orders (customer, total) VALUES ('Mallory', 1000000);
SELECT sea_mq.emit('order', '2', 'OrderCreated', '{"order": 2, "customer": "Mallory"}');
SELECT subject, payload FROM sea_mq.pending_events();
ROLLBACK;
-- A later event, so that there is something to wait for.
SELECT sea_mq.emit('order', '1', 'OrderPaid', '{"order": 1, "paid": 42.50}', causation_id => 'payment-77');
SQL
wait_for 20 published 2 || die "the event was not published"
peek 3

export PGHOST=127.0.0.1 PGPORT=$pg_port PGUSER=postgres PGDATABASE=$database NATS_URL=$nats_url
step "10,000 orders as fast as four sessions can"
"$tools/sea-mq-load" ORDERS_EVENTS 10000 4

step "1,000 orders at a quieter 200 a second"
"$tools/sea-mq-load" ORDERS_EVENTS 1000 4 200

step "Another database, shipping, handles the orders: a function, and a subscription to it"
database_up shipping shipping
shipping() { sql "$pg_port" shipping --pset=footer=off "$@"; }
is() { [ "$(shipping -AtX -c "SELECT $1")" = t ]; }
shipping --echo-queries <<'SQL'
CREATE ROLE shipping_app;
GRANT sea_mq_consumer, sea_mq_producer TO shipping_app;
GRANT CREATE ON SCHEMA public TO shipping_app;
SET ROLE shipping_app;
CREATE TABLE parcels (order_id bigint, customer text);
CREATE FUNCTION pack(event sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.payload ->> 'customer' IS NULL THEN
        PERFORM sea_mq.poison('an order without a customer cannot be packed');
    END IF;
    INSERT INTO parcels VALUES (event.aggregate_id::bigint, event.payload ->> 'customer');
    PERFORM sea_mq.emit('parcel', event.aggregate_id, 'ParcelPacked', '{}');
END $$;
SELECT sea_mq.subscribe('shipping__orders', 'orders', 'pack', filter => 'OrderCreated', start_from => 'all', max_ack_pending => 1000);
SQL
handled=$(shop -AtX -c "SELECT count(*) FROM sea_mq.outbox_events WHERE event_type = 'order_created'")
wait_for 60 is "count(*) = $handled FROM parcels" || die "not all was handled: $(shipping -AtX -c 'SELECT summary, hint FROM sea_mq.status')"

step "Every order that was created is packed once, and what the handler emitted says which event it comes from"
shipping --echo-queries <<'SQL'
SELECT count(*) AS parcels, count(DISTINCT order_id) AS orders FROM parcels;
SELECT state, processed, failures, dead, redelivered FROM sea_mq.subscription_status;
SELECT subject, aggregate_id, correlation_id, causation_id FROM sea_mq.outbox_events ORDER BY seq LIMIT 1;
SQL

step "An order that cannot be packed: a dead letter"
shop --echo-queries <<'SQL'
SELECT sea_mq.emit('order', '1000000', 'OrderCreated', '{"order": 1000000, "total": 1}');
SQL
wait_for 20 is "count(*) = 1 FROM sea_mq.dlq_list() WHERE stream_seq IS NOT NULL" || die "there is no dead letter"
shipping --expanded --echo-queries <<'SQL'
SELECT id, context, original_subject, subscription, reason, failure_count, error, payload FROM sea_mq.dlq_list();
SELECT summary, hint FROM sea_mq.status;
SQL
"$tools/sea-mq-peek" "$nats_url" SHIPPING_DLQ

step "Mended and replayed, it is handled, and the queue is empty"
shipping --echo-queries <<'SQL'
SELECT sea_mq.dlq_replay(id, payload || '{"customer": "Grace"}') FROM sea_mq.dlq_list(subscription => 'shipping__orders');
SQL
wait_for 20 is "EXISTS (SELECT FROM parcels WHERE order_id = 1000000)" || die "the replay was not handled"
shipping --echo-queries <<'SQL'
SELECT * FROM parcels WHERE order_id = 1000000;
SELECT message_id, status, attempts, headers ->> 'X-Replayed-From' AS replayed_from FROM sea_mq.inbox_messages
WHERE aggregate_id = '1000000' ORDER BY id;
SELECT open, replayed FROM sea_mq.dlq_status;
SQL

step "Over HTTP: a request, and what became of its event"
gateway_start "$here/gateway" "$pg_port" "$database"
request() { curl -sS -H "Authorization: Bearer $gateway_token" -H 'Content-Type: application/json' "$@"; echo; }
printf 'curl -d … %s/v1/events\n' "$gateway_url"
answer=$(request -d '{"aggregate_type": "order", "aggregate_id": "1", "event_type": "OrderShipped", "payload": {"order": 1}}' "$gateway_url/v1/events")
printf '%s\n' "$answer"
request "$gateway_url/v1/events/$(sed -E 's/.*"id": ?"([^"]*)".*/\1/' <<<"$answer")?wait=5s"
printf 'The console is at %s/ while it runs; docs/screenshots/overview-light.png shows it.\n' "$gateway_url"

step "To a partner without NATS: a webhook, and the signature that it verifies"
shop -q <<'SQL'
ALTER SYSTEM SET sea_mq.endpoint_allow_http = on;
ALTER SYSTEM SET sea_mq.endpoint_allowed_networks = '127.0.0.0/8';
SELECT pg_reload_conf() \g /dev/null
SQL
allowed() { [ "$(shop -AtX -c 'SHOW sea_mq.endpoint_allow_http')" = on ]; }
wait_for 10 allowed || die "the settings were not read"
# It begins where the log ends now; the secret is shown once.
shop -AtX -q -c "SELECT sea_mq.create_endpoint('acme', 'webhook', 'http://127.0.0.1:1/hooks', audience => 'internal', filter => '{OrderPaid}')" >/dev/null
scripts/demo_receiver.py "$(shop -AtX -c "SELECT sea_mq.rotate_secret('acme', grace => '0')")" >"$here/webhook" &
receiver=$!
listens() { [ -s "$here/webhook" ]; }
wait_for 10 listens || die "the receiver does not listen"
shop -AtX -q -c "SELECT sea_mq.alter_endpoint('acme', url => 'http://127.0.0.1:$(head -n 1 "$here/webhook")/hooks')" >/dev/null
shop --echo-queries <<'SQL'
SELECT sea_mq.emit('order', '2', 'OrderPaid', '{"order": 2, "paid": 10}');
SQL
wait "$receiver"
tail -n +2 "$here/webhook"
grep -q '^signature: verified' "$here/webhook" || die "the webhook did not come, or its signature is wrong"
delivered() { [ "$(shop -AtX -c 'SELECT delivered FROM sea_mq.endpoint_status')" = 1 ]; }
wait_for 10 delivered || die "the delivery was not recorded"
shop -c 'SELECT endpoint, state, delivered, p50 FROM sea_mq.endpoint_status'

step "Is everything all right?"
shop --expanded -c 'SELECT * FROM sea_mq.status'
shipping -c 'SELECT ok, summary, relay, published, streams FROM sea_mq.status'

step "Stopping the servers and removing their data"
servers_down "$here"
trap - EXIT
bold "Done in $((SECONDS - begin)) seconds. Next: make dev keeps the servers running for you; README.md says what else there is."
