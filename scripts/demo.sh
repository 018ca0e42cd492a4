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

step "Is everything all right?"
shop --expanded -c 'SELECT * FROM sea_mq.status'

step "Stopping both servers and removing their data"
servers_down "$here"
trap - EXIT
bold "Done in $((SECONDS - begin)) seconds. Next: make dev keeps the servers running for you; README.md says what else there is."
