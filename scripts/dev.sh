#!/usr/bin/env bash
# Leaves a throwaway cluster with the extension and a nats-server running; scripts/stop.sh ends them.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

here=$run_dir/dev
database=sea_mq_dev

report() {
    local PGHOST PGPORT PGUSER PGDATABASE NATS_URL
    # shellcheck source=/dev/null
    . "$dev/env"
    cat <<TEXT
PostgreSQL   psql -h $PGHOST -p $PGPORT -U $PGUSER $PGDATABASE
NATS         $NATS_URL
Both in the shell: set -a; . .dev/env; set +a
Logs: ${here#"$root"/}/pg/data/server.log, ${here#"$root"/}/nats/server.log
TEXT
}

if [ -f "$dev/env" ] && cluster_running "$here/pg" && nats_running "$here/nats"; then
    say "Already running (make stop ends it)"
    report
    exit 0
fi

# What a crash or a reboot left is of no use: the environment is a throwaway one.
servers_down "$here"
rm -f "$dev/env"
trap 'servers_down "$here"' EXIT
servers_up "$here" "$database"
printf '%s\n' "PGHOST=127.0.0.1" "PGPORT=$pg_port" "PGUSER=postgres" "PGDATABASE=$database" "NATS_URL=$nats_url" >"$dev/env"
trap - EXIT
say "Running until make stop"
report
