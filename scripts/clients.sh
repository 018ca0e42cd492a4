#!/usr/bin/env bash
# Runs the programs of clients/programs, each with a database of its own, and the tests of the helpers in clients/python and
# clients/typescript, against real servers. `clients.sh NAME…` runs some.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
# shellcheck source=scripts/clients-setup.sh
"$root/scripts/clients-setup.sh"
tools=$dev/clients
export PATH=$tools/venv/bin:$PATH CHECKPOINT_DISABLE=1

here=$run_dir/clients-$$
finish() {
    # Its own id: what was started in the background is the shell around it.
    [ ! -s "$here/bouncer/pid" ] || kill "$(cat "$here/bouncer/pid")" 2>/dev/null || true
    servers_down "$here"
}
trap finish EXIT

# What each program leaves behind if all went well: events, effects, and what the inbox says.
readonly expected='events 1 3 5 6 7, parcels 1 3 5 6 7, orders 1, unsettled 0'
readonly left="SELECT format('events %s, parcels %s, orders %s, unsettled %s',
    (SELECT string_agg(aggregate_id, ' ' ORDER BY seq) FROM sea_mq.outbox_events
        WHERE event_type = 'order_created' AND payload = jsonb_build_object('n', aggregate_id::int)),
    (SELECT string_agg(order_id, ' ' ORDER BY order_id) FROM parcels), (SELECT string_agg(id::text, ' ') FROM orders),
    (SELECT count(*) FROM sea_mq.inbox_messages WHERE status <> 'processed'))"

servers() {
    nats_url=$(nats_start "$here/nats")
    pg_port=$(cluster_start "$here/pg" shared_preload_libraries=sea_mq max_worker_processes=64)
    # Without a broker, from a template: as docs/testing.md has it.
    sql "$pg_port" postgres <<'SQL'
CREATE ROLE app LOGIN;
ALTER ROLE app SET sea_mq.context = 'orders';
CREATE DATABASE template_app;
\connect template_app
SET client_min_messages = warning;
CREATE EXTENSION sea_mq;
GRANT sea_mq_producer, sea_mq_consumer TO app;
CREATE TABLE orders (id bigint PRIMARY KEY);
CREATE TABLE parcels (order_id text PRIMARY KEY);
GRANT SELECT, INSERT ON orders, parcels TO app;
SELECT sea_mq.test_mode(), sea_mq.subscribe('app__pull', 'orders', start_from => 'all', context => 'app') \g /dev/null
\connect postgres
ALTER DATABASE template_app IS_TEMPLATE true;
SQL
}

# Transaction mode, in front of the same server.
bouncer() {
    bouncer_port=$(free_port)
    mkdir -p "$here/bouncer"
    printf '%s\n' '[databases]' "* = host=127.0.0.1 port=$pg_port" '[pgbouncer]' 'listen_addr = 127.0.0.1' "listen_port = $bouncer_port" \
        'auth_type = trust' "auth_file = $here/bouncer/users" 'pool_mode = transaction' 'default_pool_size = 2' "unix_socket_dir =" "logfile = $here/bouncer/log" \
        "pidfile = $here/bouncer/pid" \
        'ignore_startup_parameters = extra_float_digits' >"$here/bouncer/ini"
    printf '"app" ""\n' >"$here/bouncer/users"
    [ "$(id -un)" = "$server_user" ] || chown -R "$server_user:" "$here/bouncer"
    as_server /usr/sbin/pgbouncer --quiet "$here/bouncer/ini" >/dev/null 2>&1 &
    wait_for 10 python -c "import socket; socket.create_connection(('127.0.0.1', $bouncer_port))" || die "PgBouncer did not start"
}

prepared_node() {
    [ ! -f "$here/node" ] || return 0
    cp clients/programs/node/* "$tools/node/"
    (cd "$tools/node" && PRISMA_SCHEMA_ENGINE_BINARY=/bin/true npx prisma generate >/dev/null)
    touch "$here/node"
}

prepared_typescript() {
    cp -r clients/typescript/{package.json,tsconfig.json,src,test} "$tools/typescript/"
    (cd "$tools/typescript" && npx tsc)
}

# program NAME: runs it in the database $DATABASE_URL.
program() {
    case $1 in
    psycopg | asyncpg | sqlalchemy | django | faststream | cloudevents) "$tools/venv/bin/python" "clients/programs/use_$1.py" ;;
    pgbouncer) "$tools/venv/bin/python" clients/programs/use_psycopg.py ;;
    pg | knex | drizzle) (cd "$tools/node" && node "use_$1.mjs") ;;
    prisma) (cd "$tools/node" && npx tsx use_prisma.ts) ;;
    tokio-postgres) cargo run --quiet --package use-tokio-postgres ;;
    sqlx) CARGO_TARGET_DIR=$root/target cargo run --quiet --locked --manifest-path clients/programs/sqlx/Cargo.toml ;;
    jdbc) java -cp /usr/share/java/postgresql.jar clients/programs/java/UseJdbc.java ;;
    esac
}

readonly drivers='psycopg asyncpg sqlalchemy django pg knex drizzle prisma tokio-postgres sqlx jdbc pgbouncer'
readonly receivers='faststream cloudevents'
passed=0 failed=()

# judge NAME DATABASE: what the program has left is what all leave.
judge() {
    local found
    found=$(sql "$pg_port" "$2" --tuples-only --no-align --command "$left")
    if [ "$found" = "$expected" ]; then
        passed=$((passed + 1))
        return
    fi
    printf '%s: %s\n    expected: %s\n' "$1" "$found" "$expected"
    failed+=("$1")
}

run_driver() {
    local database=use_${1//-/_} port=$pg_port
    [ "$1" != pgbouncer ] || port=$bouncer_port
    sql "$pg_port" postgres --command "CREATE DATABASE $database TEMPLATE template_app" >/dev/null
    export DATABASE_URL=postgresql://app@127.0.0.1:$port/$database JDBC_URL="jdbc:postgresql://127.0.0.1:$port/$database?user=app"
    say "$1"
    program "$1" || printf '%s: the program failed\n' "$1"
    judge "$1" "$database"
}

# Each receives from a stream of its own, which no program may have changed. The SDK of CloudEvents wants their attributes.
run_receiver() {
    local database=receive_$1 changed metadata=minimal
    [ "$1" != cloudevents ] || metadata=cloudevents
    sql "$pg_port" postgres <<SQL
CREATE DATABASE $database TEMPLATE template_app;
ALTER DATABASE $database SET sea_mq.nats_url = '$nats_url';
\connect $database
SELECT sea_mq.unsubscribe('app__pull'), sea_mq.test_mode(false), sea_mq.adopt() \g /dev/null
SET sea_mq.context = 'orders';
SELECT sea_mq.create_stream('orders', metadata => '$metadata') \g /dev/null
INSERT INTO orders VALUES (1);
SELECT sea_mq.emit('order', n, 'OrderCreated', jsonb_build_object('n', n)) FROM unnest('{1,3,5,6,7}'::int[]) n \g /dev/null
DO \$\$ BEGIN PERFORM sea_mq.wait_published((SELECT id FROM sea_mq.outbox_events ORDER BY seq DESC LIMIT 1), '30 s'); END \$\$;
SQL
    export DATABASE_URL=postgresql://app@127.0.0.1:$pg_port/$database NATS_URL=$nats_url
    say "$1"
    program "$1" || printf '%s: the program failed\n' "$1"
    judge "$1" "$database"
    changed=$(sql "$pg_port" "$database" --tuples-only --no-align \
        --command "SELECT count(*) FROM sea_mq.stream_status WHERE state <> 'ready' OR differences <> '{}'")
    [ "$changed" = 0 ] || failed+=("$1 changed the stream")
    # The next has a stream of its own.
    sql "$pg_port" "$database" --command "SELECT sea_mq.drop_stream(name, delete_remote => true) FROM sea_mq.streams" >/dev/null
    wait_for 20 test_gone "$database" || failed+=("$1's stream stays")
}

test_gone() { [ "$(sql "$pg_port" "$1" --tuples-only --no-align --command 'SELECT count(*) FROM sea_mq.stream_deletions')" = 0 ]; }

# A test suite of Django in parallel databases, on a server whose settings name a broker.
run_suite() {
    say "a test suite of Django"
    sql "$pg_port" postgres --command "ALTER SYSTEM SET sea_mq.nats_url = '$nats_url'" --command "SELECT pg_reload_conf()" >/dev/null
    if (cd clients/programs/django_suite && PGPORT=$pg_port DJANGO_SETTINGS_MODULE=settings PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 \
        "$tools/venv/bin/python" -m django test --parallel 3); then
        passed=$((passed + 1))
    else failed+=("the test suite"); fi
    sql "$pg_port" postgres --command "ALTER SYSTEM RESET sea_mq.nats_url" --command "SELECT pg_reload_conf()" >/dev/null
}

# The helpers' own tests, in a database each.
run_helpers() {
    local database
    for database in helper_python helper_typescript; do
        sql "$pg_port" postgres --command "CREATE DATABASE $database TEMPLATE template_app" >/dev/null
    done
    say "clients/python"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --no-deps ./clients/python
    if SEA_MQ_TEST_DATABASE="postgresql://postgres@127.0.0.1:$pg_port/helper_python" "$tools/venv/bin/python" -m pytest -q clients/python/tests &&
        (cd clients/python && "$tools/venv/bin/mypy" --strict src); then
        passed=$((passed + 1))
    else failed+=(clients/python); fi
    say "clients/typescript"
    prepared_typescript
    if (cd "$tools/typescript" && DATABASE_URL="postgresql://postgres@127.0.0.1:$pg_port/helper_typescript" node --test test/*.test.mjs); then
        passed=$((passed + 1))
    else failed+=(clients/typescript); fi
}

names=("$@")
[ $# -gt 0 ] || read -ra names <<<"docs $drivers $receivers suite helpers"
servers
for name in "${names[@]}"; do
    case $name in
    docs)
        if python scripts/clients_docs.py; then passed=$((passed + 1)); else failed+=(docs/clients.md); fi
        continue
        ;;
    helpers)
        run_helpers
        continue
        ;;
    suite)
        run_suite
        continue
        ;;
    pg | knex | drizzle | prisma) prepared_node ;;
    pgbouncer) bouncer ;;
    esac
    case " $receivers " in
    *" $name "*) run_receiver "$name" ;;
    *) run_driver "$name" ;;
    esac
done

say "closing lines"
[ ${#failed[@]} = 0 ] || printf 'failed: %s\n' "${failed[*]}"
printf 'clients: %d passed, %d failed\n' "$passed" ${#failed[@]}
[ ${#failed[@]} = 0 ]
