# shellcheck shell=bash
# Sourced by the other scripts: where things are, and how a throwaway PostgreSQL and nats-server are run.
#
#   .dev/         what these scripts install and write, all of it (`make clean` removes it)
#   $state        the same, or a directory of its own in /var/tmp where the servers' user cannot read the checkout
#   .dev/nats-*   nats-servers, one of each minor that was asked for
#   $pg_prefix    a PostgreSQL of its own for each major, so that the system's is never installed into
#   $run_dir      data directories of the servers
set -euo pipefail
umask 022

# So that what a script clears up on EXIT is cleared up then as well.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dev=$root/.dev
readonly root dev

# PG=17 in the environment chooses the major: Debian's own unless told.
readonly debian_major=15 pg_majors='14 15 16 17 18'
readonly pg_major=${PG:-$debian_major}

# NATS=2.12 likewise the minor of nats-server: the newest unless told. scripts/nats-server.txt has their versions.
readonly nats_newest=2.15 nats_minors='2.10 2.11 2.12 2.14 2.15'
readonly nats_minor=${NATS:-$nats_newest}

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
case " $pg_majors " in
*" $pg_major "*) ;;
*) die "PG=$pg_major: the majors are $pg_majors" ;;
esac
case " $nats_minors " in
*" $nats_minor "*) ;;
*) die "NATS=$nats_minor: the minors are $nats_minors" ;;
esac

# What every cargo command needs that builds the extension: it is built for one major.
# shellcheck disable=SC2034  # the scripts that source this use it
readonly cargo_features=(--no-default-features --features "pg$pg_major")

# PostgreSQL refuses to run as root: then its servers run as the package's user postgres, otherwise as whoever calls.
if [ "$(id -u)" = 0 ]; then server_user=postgres; else server_user=$(id -un); fi
readonly server_user

# as_server COMMAND…: runs it as the servers' user.
as_server() {
    if [ "$(id -un)" = "$server_user" ]; then "$@"; else setpriv --reuid="$server_user" --regid="$server_user" --init-groups -- "$@"; fi
}

# Where the servers' user can read and the caller can write.
choose_state() {
    if [ "$(id -un)" = "$server_user" ] || ! id "$server_user" >/dev/null 2>&1 || as_server test -r "$root/Cargo.toml" -a -x "$root"; then
        printf '%s' "$dev"
        return
    fi
    local directory
    directory=/var/tmp/sea_mq-$(printf '%s' "$root" | cksum | cut -d' ' -f1)
    mkdir -p "$directory"
    # /var/tmp is everybody's: a directory that somebody else made there is not to be trusted.
    if [ ! -O "$directory" ] || [ -L "$directory" ]; then
        die "$directory exists and is not ours; remove it, or move the checkout to where user $server_user can read it"
    fi
    printf '%s' "$directory"
}

# bin_of MAJOR: where its programs are. The private copy of Debian's has Debian's layout.
bin_of() {
    if [ "$1" = "$debian_major" ]; then printf '%s' "$state/pg$1/usr/lib/postgresql/$1/bin"; else printf '%s' "$state/pg$1/bin"; fi
}

# Sets $state and what depends on it. Called again by setup.sh once user postgres exists.
locate() {
    state=$(choose_state)
    # shellcheck disable=SC2034  # setup.sh and build.sh use it
    pg_prefix=$state/pg$pg_major
    pg_bin=$(bin_of "$pg_major")
    run_dir=$state/run
    # pg_dump 14 crashes on the extension's tables, since partitions are among those that it is to dump the data of. A later
    # one dumps a server 14 as well.
    export SEA_MQ_PG_DUMP=$pg_bin/pg_dump
    [ "$pg_major" != 14 ] || SEA_MQ_PG_DUMP=/usr/lib/postgresql/$debian_major/bin/pg_dump
    export SEA_MQ_PG_CONFIG=$pg_bin/pg_config SEA_MQ_RUN_DIR=$run_dir
}
locate

# The Python package whose source distribution contains the official JSON-Schema-Test-Suite.
readonly jsonschema_version=4.26.0
export SEA_MQ_JSON_SCHEMA_SUITE=$dev/jsonschema-$jsonschema_version/json
export PGRX_HOME=$dev/pgrx
# nats_bin_of MINOR: where that nats-server is.
nats_bin_of() { printf '%s' "$dev/nats-$1/bin"; }
PATH=$(nats_bin_of "$nats_minor"):$dev/cargo/bin:$dev/venv/bin:$PATH
export PATH
# Where the tests find the others, and which one they have by default.
export SEA_MQ_NATS_DIR=$dev SEA_MQ_NATS_MINOR=$nats_minor
# A server of the user's own must not be reached by accident.
unset PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGOPTIONS PSQLRC NATS_URL
# With it, PostgreSQL shows every ERROR with a trace of the library's own calls.
unset RUST_BACKTRACE
export PGCONNECT_TIMEOUT=10

python() { if [ -x "$dev/venv/bin/python3" ]; then "$dev/venv/bin/python3" "$@"; else python3 "$@"; fi; }

# A TCP port that nobody listens on now. Another process may take it before we do: callers retry.
free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_for SECONDS COMMAND…: until it succeeds; 1 when it did not in time.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# cluster_start DIRECTORY [SETTING=VALUE…]: starts the cluster in DIRECTORY, made if there is none. Prints its port.
cluster_start() {
    local directory=$1 setting port try
    shift
    mkdir -p "$directory"
    if [ ! -s "$directory/data/PG_VERSION" ]; then
        rm -rf "$directory/data"
        mkdir -m 0700 "$directory/data"
        [ "$(id -un)" = "$server_user" ] || chown "$server_user:" "$directory/data"
        as_server "$pg_bin/initdb" --pgdata="$directory/data" --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync >/dev/null
        {
            printf '%s\n' "listen_addresses = '127.0.0.1'" "unix_socket_directories = ''" "log_line_prefix = '%m [%p] %b '" \
                'max_prepared_transactions = 10' 'max_worker_processes = 16' "timezone = 'UTC'"
            for setting in "$@"; do printf "%s = '%s'\n" "${setting%%=*}" "${setting#*=}"; done
        } | as_server tee -a "$directory/data/postgresql.conf" >/dev/null
    fi
    for try in 1 2 3 4 5; do
        port=$(free_port)
        if as_server "$pg_bin/pg_ctl" start --silent --wait --timeout=60 --pgdata="$directory/data" --log="$directory/data/server.log" \
            --options="-p $port" >/dev/null 2>&1; then
            printf '%s' "$port" >"$directory/port"
            printf '%s' "$port"
            return
        fi
        grep -q 'Address already in use' "$directory/data/server.log" 2>/dev/null || break
    done
    as_server tail -n 20 "$directory/data/server.log" >&2 || true
    die "PostgreSQL did not start (try $try); its log is $directory/data/server.log"
}

cluster_running() { [ -s "$1/data/postmaster.pid" ] && as_server "$pg_bin/pg_ctl" status --pgdata="$1/data" >/dev/null 2>&1; }

# cluster_stop DIRECTORY: stops it, if it runs.
cluster_stop() {
    cluster_running "$1" || return 0
    as_server "$pg_bin/pg_ctl" stop --silent --wait --timeout=30 --mode=fast --pgdata="$1/data" >/dev/null 2>&1 ||
        as_server "$pg_bin/pg_ctl" stop --silent --wait --timeout=10 --mode=immediate --pgdata="$1/data" >/dev/null 2>&1 ||
        warn "PostgreSQL in $1/data does not stop"
}

# nats_running DIRECTORY: the pid in the pid file counts only if that process is our nats-server: pids are reused.
nats_running() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$1/nats.conf"
}

# nats_start DIRECTORY: starts a nats-server with JetStream. Prints its URL.
nats_start() {
    local directory=$1
    mkdir -p "$directory"
    rm -f "$directory"/*.ports "$directory/pid"
    printf '%s\n' 'listen: "127.0.0.1:-1"' 'server_name: "sea_mq"' "ports_file_dir: \"$directory\"" \
        "log_file: \"$directory/server.log\"" \
        "jetstream { store_dir: \"$directory/jetstream\", max_file_store: 1TB }" >"$directory/nats.conf"
    setsid nats-server --config "$directory/nats.conf" --pid "$directory/pid" </dev/null >/dev/null 2>&1 &
    if ! wait_for 20 sh -c "grep -q nats: '$directory'/*.ports"; then
        tail -n 20 "$directory/server.log" >&2 || true
        die "nats-server did not start; its log is $directory/server.log"
    fi
    sed -E 's/.*"(nats:[^"]*)".*/\1/' "$directory"/*.ports | tee "$directory/url"
}

# nats_stop DIRECTORY: stops it, if it runs.
nats_stop() {
    nats_running "$1" || return 0
    local pid
    pid=$(cat "$1/pid")
    kill "$pid" 2>/dev/null || true
    wait_for 10 sh -c "! kill -0 $pid" || kill -9 "$pid" 2>/dev/null || true
}

# sql PORT DATABASE: psql as the superuser, reading commands from standard input or from further arguments.
sql() {
    local port=$1 database=$2
    shift 2
    "$pg_bin/psql" --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host=127.0.0.1 --port="$port" --username=postgres --dbname="$database" "$@"
}

# servers_up DIRECTORY DATABASE: a cluster with the extension's workers, a nats-server, and a database of context
# "orders" that publishes to it. Sets $pg_port and $nats_url.
servers_up() {
    local directory=$1 database=$2
    nats_url=$(nats_start "$directory/nats")
    pg_port=$(cluster_start "$directory/pg" shared_preload_libraries=sea_mq)
    sql "$pg_port" postgres <<SQL
ALTER SYSTEM SET sea_mq.nats_url = '$nats_url';
SELECT pg_reload_conf() \g /dev/null
SQL
    database_up "$database" orders
}

# database_up DATABASE CONTEXT: one more database with the extension, in the cluster on $pg_port.
database_up() {
    sql "$pg_port" postgres <<SQL
CREATE DATABASE $1;
ALTER DATABASE $1 SET sea_mq.context = '$2';
\connect $1
SET client_min_messages = warning;
CREATE EXTENSION sea_mq;
SQL
}

# The command sea-mq, as the tests build it.
gateway_command() { printf '%s/debug/sea-mq' "${CARGO_TARGET_DIR:-$root/target}"; }
build_gateway() { (cd "$root" && cargo build --quiet --workspace --bin sea-mq); }

# gateway_running DIRECTORY: the pid counts only if that process is our gateway: pids are reused.
gateway_running() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$1/tokens"
}

# gateway_start DIRECTORY PORT DATABASE: `sea-mq serve` for a database of the cluster on PORT, and a role developer that has all
# roles of the extension, with the password developer and a token. Sets $gateway_url, $gateway_admin_url and $gateway_token.
# shellcheck disable=SC2034  # the scripts that source this use what it sets
gateway_start() {
    local directory=$1 port=$2 database=$3 made
    mkdir -p "$directory"
    sql "$port" "$database" <<'SQL'
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sea_mq_gateway') THEN
        CREATE ROLE sea_mq_gateway LOGIN NOINHERIT;
        CREATE ROLE developer LOGIN PASSWORD 'developer';
        GRANT sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer TO developer;
        GRANT developer, sea_mq_viewer TO sea_mq_gateway;
    END IF;
END $$;
SQL
    # The console asks for the password of a role, and the cluster for none but this one's.
    local hba
    hba=$(sql "$port" "$database" -AtX -c 'SHOW hba_file')
    {
        printf 'host all developer 127.0.0.1/32 scram-sha-256\n'
        as_server cat "$hba"
    } | as_server tee "$hba.new" >/dev/null
    as_server mv "$hba.new" "$hba"
    sql "$port" "$database" -c 'SELECT pg_reload_conf()' >/dev/null
    made=$("$(gateway_command)" token --role developer --label developer)
    gateway_token=$(printf '%s' "$made" | python -c 'import json, sys; print(json.load(sys.stdin)["token"])')
    printf '%s' "$made" | python -c 'import json, sys; print(json.load(sys.stdin)["line"])' >"$directory/tokens"
    chmod 0600 "$directory/tokens"
    PGHOST=127.0.0.1 PGPORT=$port PGUSER=sea_mq_gateway PGDATABASE=$database PGSSLMODE=disable setsid "$(gateway_command)" serve \
        --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --tokens "$directory/tokens" \
        </dev/null >"$directory/addresses" 2>"$directory/server.log" &
    printf '%s' $! >"$directory/pid"
    if ! wait_for 20 grep -q admin_url "$directory/addresses"; then
        tail -n 20 "$directory/server.log" >&2 || true
        die "sea-mq serve did not start; its log is $directory/server.log"
    fi
    gateway_url=$(sed -E 's/.*"url":"([^"]*)".*/\1/' "$directory/addresses")
    gateway_admin_url=$(sed -E 's/.*"admin_url":"([^"]*)".*/\1/' "$directory/addresses")
}

# gateway_stop DIRECTORY: stops it, if it runs.
gateway_stop() {
    gateway_running "$1" || return 0
    local pid
    pid=$(cat "$1/pid")
    kill "$pid" 2>/dev/null || true
    wait_for 15 sh -c "! kill -0 $pid" || kill -9 "$pid" 2>/dev/null || true
}

# servers_down DIRECTORY: stops all and removes their data. Safe to call at any time.
servers_down() {
    gateway_stop "$1/gateway"
    cluster_stop "$1/pg"
    nats_stop "$1/nats"
    rm -rf "${1:?}"
}
