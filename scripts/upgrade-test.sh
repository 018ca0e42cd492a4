#!/usr/bin/env bash
# upgrade-test.sh: a database of the last released version, with data of every kind, under this library: it works, says what is to be
# done, and is upgraded while the broker is away. Then its catalogue is that of a fresh installation, and nothing was lost, doubled or
# sent twice. tests/upgrade/ has the data and the catalogue.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

here=$run_dir/upgrade-$$
trap 'servers_down "$here"' EXIT
released=$(find sql/released -name 'sea_mq--*.sql' | sed -E 's/.*--(.*)\.sql/\1/' | sort -V | tail -n 1)
version=$(sed -nE '0,/^version/s/^version = "(.*)"/\1/p' Cargo.toml)
readonly released version

old() { sql "$pg_port" old "$@"; }
is() { [ "$(old -At -c "SELECT $1")" = t ]; }
must() { is "$1" || die "not: $1; $(old -At -c 'SELECT problem FROM sea_mq.problems')"; }
broker() {
    nats_url=$(nats_start "$here/nats")
    sql "$pg_port" postgres -c "ALTER SYSTEM SET sea_mq.nats_url = '$nats_url'" -c 'SELECT pg_reload_conf()' >/dev/null
}

say "Version $released under the library of $version"
pg_port=$(cluster_start "$here/pg" shared_preload_libraries=sea_mq fsync=off)
broker
sql "$pg_port" postgres -c 'CREATE DATABASE old' -c 'CREATE DATABASE fresh' -c "ALTER DATABASE old SET sea_mq.context = 'orders'"
old -c 'SET client_min_messages = warning' -c "CREATE EXTENSION sea_mq VERSION '$released'"
old --file=tests/upgrade/before.sql >/dev/null
must "sea_mq.library_version() = '$version'"
must "(SELECT extversion FROM pg_extension WHERE extname = 'sea_mq') = '$released'"
wait_for 60 is "count(*) >= 22 FROM handled" || die "the old version does not work: $(old -c 'TABLE sea_mq.status')"
wait_for 30 is "open = 1 FROM sea_mq.dlq_status" || die "there is no dead letter"
wait_for 30 is "count(*) > 0 FROM sea_mq.inbox_messages WHERE NOT processed AND attempts > 0 AND status = 'failed'" || die "nothing waits to be tried again"
must "count(*) = 1 FROM sea_mq.problems WHERE problem LIKE '%version $version%$released' AND hint LIKE 'ALTER EXTENSION sea_mq UPDATE%'"
as_server grep -q "the library is version $version and the SQL of database old $released: ALTER EXTENSION sea_mq UPDATE" "$here/pg/data/server.log" ||
    die "the server's log does not say what is to be done"

say "The upgrade, while the broker is away and events wait"
nats_stop "$here/nats"
old -c "SELECT sea_mq.emit('order', n::text, 'OrderCreated', '{}') FROM generate_series(101, 105) n" >/dev/null
old -c "SELECT sea_mq.emit('order', '106', 'OrderCreated', '{}', available_at => now() + interval '5 seconds')" >/dev/null
old -c 'ALTER EXTENSION sea_mq UPDATE' -c 'INSERT INTO upgraded VALUES (now())'
must "(SELECT extversion FROM pg_extension WHERE extname = 'sea_mq') = '$version'"
must "count(*) = 0 FROM sea_mq.problems WHERE problem LIKE 'the library is version%'"
sql "$pg_port" fresh -c 'SET client_min_messages = warning' -c 'CREATE EXTENSION sea_mq'
old -At --file=tests/upgrade/catalogue.sql >"$here/upgraded"
sql "$pg_port" fresh -At --file=tests/upgrade/catalogue.sql >"$here/fresh"
[ "$(wc -l <"$here/fresh")" -gt 1000 ] || die "the catalogue is not looked at"
diff "$here/fresh" "$here/upgraded" || die "an upgraded database differs from a fresh one (< fresh, > upgraded)"

say "The broker is back"
broker
wait_for 90 is "count(*) = 0 FROM sea_mq.outbox_events WHERE NOT published" || die "not all is published: $(old -At -c 'SELECT problem FROM sea_mq.problems')"
# All but the poison and the customer, each once; the one that waited to be tried again is among them.
wait_for 120 is "count(*) = 30 FROM handled" || die "$(old -At -c 'SELECT count(*) FROM handled') were handled, not 30"
must "count(DISTINCT id) = count(*) FROM handled"
must "open = 1 FROM sea_mq.dlq_status"
must "count(*) = 1 FROM sea_mq.event_types WHERE context = 'orders' AND event_type = 'order_paid'"
must "count(*) = 1 FROM sea_mq.endpoints"
old -c "INSERT INTO customers VALUES (2, 'Grace')"
wait_for 30 is "count(*) = 2 FROM sea_mq.outbox_events WHERE event_type = 'customer_created' AND published" || die "the table is captured no more"
old -At -c "SELECT id FROM sea_mq.outbox_events WHERE context = 'orders' AND subject LIKE 'orders.event.%' ORDER BY id" >"$here/emitted"
python scripts/stored.py "$nats_url" ORDERS_EVENTS >"$here/stored"
diff "$here/emitted" <(sort "$here/stored") || die "the stream does not have each event once (< emitted, > stored)"

say "A script that is newer than the library"
newer=$("$SEA_MQ_PG_CONFIG" --sharedir)/extension/sea_mq--$version--99.0.0.sql
printf 'SELECT sea_mq.check_library();\n' >"$newer"
output=$(old -c '\set VERBOSITY verbose' -c "ALTER EXTENSION sea_mq UPDATE TO '99.0.0'" 2>&1) && refused=0 || refused=1
rm -f "$newer"
if [ "$refused" = 0 ] || ! grep -q 55000 <<<"$output" || ! grep -q 'restart the server' <<<"$output"; then
    die "it was not refused with the remedy: $output"
fi
must "(SELECT extversion FROM pg_extension WHERE extname = 'sea_mq') = '$version'"
say "All of it passed: $(wc -l <"$here/fresh") lines of the catalogue are the same, $(wc -l <"$here/stored") events are stored once"
