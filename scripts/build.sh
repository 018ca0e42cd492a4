#!/usr/bin/env bash
# Builds the extension and installs it into PostgreSQL $PG of .dev (see lib.sh): optimised, or by the Cargo profile $PROFILE
# (PROFILE=dev is built in a fraction of the time).
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# cargo pgrx takes seconds to find out that there is nothing to do.
stamp=$pg_prefix/sea_mq.built
if [ -f "$stamp" ] && [ -z "$(find Cargo.toml Cargo.lock sea_mq.control crates src sql -newer "$stamp" -print -quit)" ]; then
    exit 0
fi
log=$(mktemp)
# Taken before the build, so that what is edited during it is built next time.
started=$(mktemp)
trap 'rm -f "$log" "$started"' EXIT
say "Building the extension for PostgreSQL $pg_major (some minutes the first time)"
# cargo pgrx unlinks the old library first, so a server that has it mapped goes on with the old one.
if ! cargo pgrx install --profile "${PROFILE:-release}" --package sea_mq "${cargo_features[@]}" --pg-config "$SEA_MQ_PG_CONFIG" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    die "the extension does not build for PostgreSQL $pg_major"
fi
# What cargo pgrx does not know of: the scripts of released versions, and those that lead on from them.
install -m 0644 -t "$("$SEA_MQ_PG_CONFIG" --sharedir)/extension" sql/released/sea_mq--*.sql sql/upgrade/sea_mq--*.sql
touch --reference="$started" "$stamp"
