#!/usr/bin/env bash
# What the gateway answers to generated requests, compared with docs/openapi.json by schemathesis: seeded, and in sequences. RUNS=50
# says how many a route gets, SEED=7 which ones.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
readonly version=4.32.5
here=$run_dir/schemathesis-$$ tool=$dev/schemathesis

if [ "$("$tool/bin/schemathesis" --version 2>/dev/null)" != "schemathesis, version $version" ]; then
    say "Installing schemathesis $version"
    python3 -m venv "$tool"
    "$tool/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi
build_gateway
trap 'servers_down "$here"' EXIT
servers_up "$here" schemathesis
gateway_start "$here/gateway" "$pg_port" schemathesis
# The first event of a context makes its stream, so that more than errors is met.
sql "$pg_port" schemathesis -c "SELECT sea_mq.create_stream('orders'), sea_mq.subscribe('routes__s', 'orders')" >/dev/null
# A tail does not end. A role that may do all cannot be refused for its rights, so that is no subject here.
"$tool/bin/schemathesis" run "$gateway_url/v1/openapi.json" --url "$gateway_url" --header "Authorization: Bearer $gateway_token" \
    --exclude-path-regex '/tail$' --exclude-path-regex '/checks$' --seed "${SEED:-1}" --max-examples "${RUNS:-20}" --workers 2 \
    --phases examples,coverage,fuzzing,stateful --suppress-health-check all --request-timeout 12 \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,use_after_free "$@"
