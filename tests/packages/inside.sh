#!/usr/bin/env bash
# Runs in a clean container of Debian, as root (scripts/deb-test.sh): /packages has old.deb, new.deb, again.deb and perhaps command.deb.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive PGUSER=postgres
step() { printf '==> %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    tail -n 30 /var/log/postgresql/*.log >&2 || true
    exit 1
}
apt() { apt-get -qq -y --no-install-recommends "$@" >/tmp/apt.log 2>&1 || { tail -n 20 /tmp/apt.log >&2; die "apt-get $*"; }; }
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
sql() { as_postgres psql -X -At -v ON_ERROR_STOP=1 --dbname="${database:-postgres}" -c "$1"; }
is() { [ "$(sql "$1")" = "$2" ] || die "$1 is $(sql "$1") instead of $2"; }
restart() { pg_ctlcluster "$PG" main restart || die "the server does not restart"; }
wait_for() {
    local try
    for try in $(seq 1 300); do
        [ "$(sql "$1")" = t ] && return 0
        sleep 0.2
    done
    die "try $try: not $1"
}

step "Installing old.deb, with what it depends on"
apt update
apt install /packages/old.deb
pg_ctlcluster "$PG" main start || true
sql "ALTER SYSTEM SET shared_preload_libraries = 'sea_mq'"
sql "ALTER SYSTEM SET max_worker_processes = 16"
restart
sql "CREATE DATABASE shop"
database=shop
sql "ALTER DATABASE shop SET sea_mq.context = 'orders'"
sql "CREATE EXTENSION sea_mq"
step "An event, in version $(sql "SELECT extversion FROM pg_extension WHERE extname = 'sea_mq'")"
sql "SELECT sea_mq.emit('order', '1', 'OrderCreated', '{}')" >/dev/null
wait_for "SELECT running FROM sea_mq.relay_status"

step "Upgrading to new.deb, while the server runs"
apt install /packages/new.deb
sql "SELECT sea_mq.emit('order', '2', 'OrderCreated', '{}')" >/dev/null
restart
wait_for "SELECT running FROM sea_mq.relay_status"
sql "SELECT sea_mq.emit('order', '3', 'OrderCreated', '{}')" >/dev/null
sql "ALTER EXTENSION sea_mq UPDATE" >/dev/null
is "SELECT extversion = default_version FROM pg_extension JOIN pg_available_extensions ON name = extname WHERE extname = 'sea_mq'" t
is "SELECT sea_mq.library_version() = extversion FROM pg_extension WHERE extname = 'sea_mq'" t
is "SELECT count(*) FROM sea_mq.outbox_events" 3

step "Upgrading to a later revision: it says what is to be done"
apt install /packages/again.deb
grep -q 'ALTER EXTENSION sea_mq UPDATE' /tmp/apt.log || die "the package says nothing about the restart"

step "Removing it: the data stays, and the server's log names what is missing"
apt remove "postgresql-$PG-sea-mq"
! pg_ctlcluster "$PG" main restart 2>/dev/null || die "the server starts without the library that it is to preload"
grep -q 'could not access file "sea_mq"' /var/log/postgresql/*.log || die "the log does not name the library"

step "Installing it again: all is there"
apt install /packages/new.deb
pg_ctlcluster "$PG" main start || die "the server does not start"
wait_for "SELECT running FROM sea_mq.relay_status"
is "SELECT count(*) FROM sea_mq.outbox_events" 3
sql "SELECT sea_mq.emit('order', '4', 'OrderCreated', '{}')" >/dev/null
is "SELECT count(*) FROM sea_mq.outbox_events" 4

if [ -f /packages/command.deb ]; then
    step "The command"
    apt install /packages/command.deb
    as_postgres sea-mq --version
    PGHOST=/var/run/postgresql PGDATABASE=shop as_postgres sea-mq status || [ $? = 1 ] || die "sea-mq status"
    [ "$(stat --format='%U:%G %a' /etc/sea-mq/environment)" = 'root:sea-mq 640' ] || die "the environment is readable by others"
    [ -s /usr/share/man/man1/sea-mq.1.gz ] || grep -q 'path-exclude.*man' -r /etc/dpkg/dpkg.cfg.d || die "there is no manual page"
fi

step "Purging it: nothing is left"
pg_ctlcluster "$PG" main stop
apt purge "postgresql-$PG-sea-mq"
if [ -f /packages/command.deb ]; then apt purge sea-mq; fi
left=$(find /usr /etc /lib/systemd -name '*sea_mq*' -o -name '*sea-mq*')
[ -z "$left" ] || die "left: $left"
step "All of it passed: PostgreSQL $PG on $(. /etc/os-release && echo "$PRETTY_NAME")"
