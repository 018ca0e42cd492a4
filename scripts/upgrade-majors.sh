#!/usr/bin/env bash
# upgrade-majors.sh OLD NEW: pg_upgrade of a cluster of major OLD to NEW, while events wait, are scheduled and are to be handled again,
# and the broker is away. The new cluster publishes nothing until sea_mq.adopt(); then the stream has each event once. The old server,
# started again by mistake, publishes nothing. tests/upgrade/before.sql makes the data.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
readonly old_major=$1 new_major=$2
here=$run_dir/majors-$$

for major in "$old_major" "$new_major"; do
    PG=$major scripts/setup.sh
    PG=$major scripts/build.sh
done

# server_of MAJOR: its programs. Of Debian's major not Debian's own: 15.20 gives each column an option, pg_attver, which servers that came
# out before it refuse, so pg_upgrade works between servers of one time. The files of the extension are Debian's.
server_of() {
    if [ "$1" != "$debian_major" ]; then
        bin_of "$1"
        return
    fi
    local prefix=$state/pg$1-python ours
    ours=$(bin_of "$1")/pg_config
    scripts/setup.sh server "$1" "$prefix" >&2
    cp "$("$ours" --pkglibdir)/sea_mq.so" "$("$prefix/bin/pg_config" --pkglibdir)/sea_mq.so.new"
    mv "$("$prefix/bin/pg_config" --pkglibdir)"/sea_mq.so{.new,}
    cp "$("$ours" --sharedir)"/extension/sea_mq* "$("$prefix/bin/pg_config" --sharedir)/extension/"
    printf '%s' "$prefix/bin"
}
old_bin=$(server_of "$old_major") new_bin=$(server_of "$new_major")

# Which of the two the functions of lib.sh work with.
on_old() { pg_bin=$old_bin; }
on_new() { pg_bin=$new_bin; }
end() {
    on_old
    cluster_stop "$here/old"
    on_new
    cluster_stop "$here/new"
    servers_down "$here"
}
trap end EXIT

shop() { sql "$pg_port" shop "$@"; }
is() { [ "$(shop -At -c "SELECT $1")" = t ]; }
must() { is "$1" || die "not: $1; $(shop -At -c 'SELECT problem, hint FROM sea_mq.problems')"; }
# ALTER SYSTEM is of a cluster: pg_upgrade does not take it along.
broker() { sql "$pg_port" postgres -c "ALTER SYSTEM SET sea_mq.nats_url = '$nats_url'" -c 'SELECT pg_reload_conf()' >/dev/null; }
stored() { python scripts/stored.py "$nats_url" ORDERS_EVENTS; }

# An empty cluster of the new major beside the old one, which has no checksums, as 18 would have unless told.
make_new() {
    local checksums=()
    [ "$new_major" -lt 18 ] || checksums=(--no-data-checksums)
    mkdir -p "$here/new"
    rm -rf "$here/new/data"
    mkdir -m 0700 "$here/new/data" "$here/work"
    [ "$(id -un)" = "$server_user" ] || chown "$server_user:" "$here/new/data" "$here/work"
    as_server "$pg_bin/initdb" --pgdata="$here/new/data" --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync \
        "${checksums[@]}" >/dev/null
    grep -E '^(listen_addresses|unix_socket_directories|log_line_prefix|max_prepared_transactions|max_worker_processes|timezone|shared_preload_libraries) = ' \
        "$here/old/data/postgresql.conf" | as_server tee -a "$here/new/data/postgresql.conf" >/dev/null
}

say "PostgreSQL $old_major, with data of all kinds"
on_old
pg_port=$(cluster_start "$here/old" shared_preload_libraries=sea_mq fsync=off)
nats_url=$(nats_start "$here/nats")
broker
sql "$pg_port" postgres -c 'CREATE DATABASE shop' -c "ALTER DATABASE shop SET sea_mq.context = 'orders'"
shop -c 'SET client_min_messages = warning' -c 'CREATE EXTENSION sea_mq'
shop --file=tests/upgrade/before.sql >/dev/null
wait_for 60 is "count(*) >= 20 FROM handled" || die "nothing is handled: $(shop -c 'TABLE sea_mq.status')"
wait_for 30 is "open = 1 FROM sea_mq.dlq_status" || die "there is no dead letter"
wait_for 30 is "count(*) > 0 FROM sea_mq.inbox_messages WHERE NOT processed AND attempts > 0 AND status = 'failed'" || die "nothing waits to be tried again"

nats_stop "$here/nats"
shop -c "SELECT sea_mq.emit('order', n::text, 'OrderCreated', '{}') FROM generate_series(101, 110) n" >/dev/null
shop -c "SELECT sea_mq.emit('order', '111', 'OrderCreated', '{}', available_at => now() + interval '1 minute')" >/dev/null
shop -At -c "SELECT id FROM sea_mq.outbox_events WHERE subject LIKE 'orders.event.%' ORDER BY id" >"$here/emitted"
shop -At -c 'SELECT id FROM handled ORDER BY id' >"$here/handled"
must "count(*) >= 11 FROM sea_mq.outbox_events WHERE NOT published"
cluster_stop "$here/old"

say "pg_upgrade to $new_major"
on_new
make_new
begin=$SECONDS
(cd "$here/work" && as_server "$pg_bin/pg_upgrade" --old-bindir="$old_bin" --new-bindir="$new_bin" --old-datadir="$here/old/data" \
    --new-datadir="$here/new/data" --username=postgres --socketdir="$here/work" >"$here/log" 2>&1) || {
    tail -n 20 "$here/log" >&2
    as_server find "$here/new/data/pg_upgrade_output.d" -name '*.log' -exec tail -n 20 {} + >&2
    die "pg_upgrade failed"
}
say "pg_upgrade took $((SECONDS - begin)) s"
pg_port=$(cluster_start "$here/new")
nats_url=$(nats_start "$here/nats")
broker
wait_for 60 is "state = 'paused' FROM sea_mq.relay_status" || die "the new cluster does not pause: $(shop -c 'TABLE sea_mq.relay_status')"
must "count(*) = 1 FROM sea_mq.problems WHERE problem LIKE 'relay:%' AND hint LIKE '%sea_mq.adopt()%'"
shop -c "SELECT sea_mq.emit('order', '112', 'OrderCreated', '{}')" >>"$here/emitted.new" -At
stored >"$here/before"
# What waits would take a second.
wait_for 5 false || true
[ "$(stored)" = "$(cat "$here/before")" ] || die "the copy publishes before it is adopted"

say "adopt()"
shop -At -c 'SELECT sea_mq.adopt()' -c 'INSERT INTO upgraded VALUES (now())'
cat "$here/emitted.new" >>"$here/emitted"
wait_for 120 is "count(*) = 0 FROM sea_mq.outbox_events WHERE NOT published" || die "not all is published: $(shop -At -c 'SELECT problem, hint FROM sea_mq.problems')"
diff <(sort "$here/emitted") <(stored | sort) || die "the stream does not have each event once (< emitted, > stored)"
# All but the poison are handled once, by the old cluster or by the new one; what was handled there is not handled again.
expected=$(($(wc -l <"$here/emitted") - 1))
wait_for 120 is "count(*) = $expected FROM handled" || die "$(shop -At -c 'SELECT count(*) FROM handled') were handled, not $expected"
must "count(DISTINCT id) = count(*) FROM handled"
must "open = 1 FROM sea_mq.dlq_status"
must "count(*) = 1 FROM sea_mq.endpoints"
shop -c "INSERT INTO customers VALUES (2, 'Grace')"
wait_for 30 is "count(*) = 1 FROM sea_mq.outbox_events WHERE event_type = 'customer_created' AND aggregate_id = '2' AND published" || die "the table is captured no more"

say "The old server, started again by mistake"
new_port=$pg_port count=$(stored | wc -l)
on_old
pg_port=$(cluster_start "$here/old")
broker
shop -c "SELECT sea_mq.emit('order', '113', 'OrderCreated', '{}')" >/dev/null
wait_for 60 is "count(*) = 1 FROM sea_mq.problems WHERE problem LIKE 'stream ORDERS_EVENTS:%' AND hint LIKE '%sea_mq.adopt()%'" ||
    die "the old server does not see that its stream has another owner: $(shop -x -c 'TABLE sea_mq.problems' -c 'TABLE sea_mq.stream_status')"
must "count(*) = 1 FROM sea_mq.outbox_events WHERE NOT published AND aggregate_id = '113'"
[ "$(stored | wc -l)" = "$count" ] || die "the old server publishes beside the new one"
pg_port=$new_port
must "state = 'connected' FROM sea_mq.relay_status"
say "All of it passed: PostgreSQL $old_major to $new_major, $count events are stored once, $expected of them handled once"
