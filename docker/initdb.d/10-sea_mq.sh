#!/usr/bin/env bash
# The database of compose.yaml: the extension, its context and broker, and who logs in to the gateway and its console.
set -euo pipefail
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=nats_url="$SEA_MQ_NATS_URL" --set=context="$SEA_MQ_CONTEXT" \
    --set=replicas="${SEA_MQ_REPLICAS:-1}" --set=database="$POSTGRES_DB" --set=gateway="$SEA_MQ_GATEWAY_PASSWORD" --set=developer="$SEA_MQ_DEVELOPER_PASSWORD" <<'SQL'
ALTER DATABASE :"database" SET sea_mq.nats_url = :'nats_url';
ALTER DATABASE :"database" SET sea_mq.context = :'context';
\connect :"database"
CREATE EXTENSION sea_mq;
SELECT sea_mq.create_stream(:'context', replicas => :replicas) WHERE :replicas > 1 \g /dev/null
SELECT sea_mq.alter_stream(s.stream, replicas => :replicas) FROM sea_mq.stream_status s WHERE s.kind = 'dlq' AND :replicas > 1 \g /dev/null
CREATE ROLE sea_mq_gateway LOGIN NOINHERIT PASSWORD :'gateway';
CREATE ROLE developer LOGIN PASSWORD :'developer';
GRANT sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor, sea_mq_viewer TO developer;
GRANT developer, sea_mq_viewer TO sea_mq_gateway;
SQL
