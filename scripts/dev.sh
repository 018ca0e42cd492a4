#!/usr/bin/env bash
# Leaves a throwaway cluster with the extension, a nats-server and `sea-mq serve` running; scripts/stop.sh ends them.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

here=$run_dir/dev
database=sea_mq_dev

# shellcheck disable=SC2034  # the environment has more than is printed
report() {
    local PGHOST PGPORT PGUSER PGDATABASE NATS_URL SEA_MQ_URL SEA_MQ_ADMIN_URL SEA_MQ_TOKEN
    # shellcheck source=/dev/null
    . "$dev/env"
    cat <<TEXT
PostgreSQL   psql -h $PGHOST -p $PGPORT -U $PGUSER $PGDATABASE
NATS         $NATS_URL
Console      $SEA_MQ_URL/  (log in as developer, password developer)
REST         curl -H "Authorization: Bearer \$SEA_MQ_TOKEN" $SEA_MQ_URL/v1/status
Metrics      $SEA_MQ_ADMIN_URL/metrics
All in the shell: set -a; . .dev/env; set +a
Logs: ${here#"$root"/}/pg/data/server.log, ${here#"$root"/}/nats/server.log, ${here#"$root"/}/gateway/server.log
TEXT
}

if [ -f "$dev/env" ] && cluster_running "$here/pg" && nats_running "$here/nats" && gateway_running "$here/gateway"; then
    say "Already running (make stop ends it)"
    report
    exit 0
fi

say "Building the command sea-mq (a minute the first time)"
build_gateway
# What a crash or a reboot left is of no use: the environment is a throwaway one.
servers_down "$here"
rm -f "$dev/env"
trap 'servers_down "$here"' EXIT
servers_up "$here" "$database"
gateway_start "$here/gateway" "$pg_port" "$database"
printf '%s\n' "PGHOST=127.0.0.1" "PGPORT=$pg_port" "PGUSER=postgres" "PGDATABASE=$database" "NATS_URL=$nats_url" \
    "SEA_MQ_URL=$gateway_url" "SEA_MQ_ADMIN_URL=$gateway_admin_url" "SEA_MQ_TOKEN=$gateway_token" >"$dev/env"
trap - EXIT
say "Running until make stop"
report
