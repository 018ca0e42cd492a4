#!/usr/bin/env bash
# test.sh [PART…] runs the parts (all of them unless told) and ends with the runners' closing lines.
# Parts: fmt lint unit regress isolation e2e chaos; "check" stands for the first three. `test.sh e2e FILTER` runs a part of e2e.
# ACCEPT=1 makes what regress and isolation print the expected output: read the difference before committing it.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
readonly pgxs_test=/usr/lib/postgresql/$pg_major/lib/pgxs/src/test
cd "$root"

part_fmt() { cargo fmt --all --check; }

# forbid WHAT PATTERN FILE…: none of the files may contain the pattern outside of comments.
forbid() {
    local what=$1 pattern=$2
    shift 2
    if grep -nE "^([^/]|/[^/])*($pattern)" "$@" /dev/null; then
        printf '%s\n' "$what"
        return 1
    fi
}

part_lint() {
    cargo clippy --quiet --workspace --all-targets -- -D warnings
    cargo clippy --quiet --package sea_mq-contracts --features command --all-targets -- -D warnings
    cargo run --quiet --package sea_mq-contracts --features command -- lint schemas/events
    shellcheck --external-sources scripts/*.sh .ci/run
    local files
    mapfile -t files < <(find src -name '*.rs' ! -path 'src/pg/*' ! -path src/lib.rs)
    forbid 'PostgreSQL is touched in src/pg alone' '\b(pgrx|pg_sys)\b' "${files[@]}"
    mapfile -t files < <(find src -name '*.rs' ! -path 'src/pg/*' ! -path src/nats/wake.rs)
    forbid 'unsafe code is in src/pg and src/nats/wake.rs alone' '\bunsafe\b' "${files[@]}"
    mapfile -t files < <(find src -name '*.rs' ! -path 'src/nats/*')
    forbid 'NATS is touched in src/nats alone' '\basync_nats\b' "${files[@]}"
    mapfile -t files < <(find src -name '*.rs' ! -path src/pg/door.rs)
    forbid 'users are switched in src/pg/door.rs alone' '\b(SetUserIdAndSecContext|SetSessionAuthorization|SetCurrentRoleId)\b' "${files[@]}"
}

# The command in a build of its own: with it, its feature would be on for the extension as well.
part_unit() {
    cargo test --quiet --workspace --lib
    cargo test --quiet --package sea_mq-contracts --features command --test '*'
}

# Neither needs a broker: what is shown is the database's side, and the relay, which runs, has nowhere to publish to.
with_cluster() {
    here=$run_dir/$1-$$
    trap 'cluster_stop "$here/pg"; rm -rf "$here"' EXIT
    pg_port=$(cluster_start "$here/pg" shared_preload_libraries=sea_mq fsync=off autovacuum=off)
}

# run_pg_regress RUNNER INPUT SUFFIX: runs the tests in INPUT, files in sql/ or specs/ ending in SUFFIX.
run_pg_regress() {
    local runner=$1 input=$2 folder=$3 suffix=$4 tests test status=0
    mapfile -t tests < <(cd "$input/$folder" && printf '%s\n' *."$suffix" | sed "s/\.$suffix\$//" | LC_ALL=C sort)
    if [ -n "${ACCEPT:-}" ]; then
        for test in "${tests[@]}"; do touch "$input/expected/$test.out"; done
    fi
    "$runner" --inputdir="$input" --outputdir="$here" --bindir="$pg_bin" --host=127.0.0.1 --port="$pg_port" --user=postgres \
        --dbname=sea_mq_regress --load-extension=sea_mq "${tests[@]}" || status=$?
    if [ "$status" != 0 ]; then
        cat "$here/regression.diffs"
        if [ -n "${ACCEPT:-}" ]; then
            cp "$here"/results/*.out "$input/expected/"
            warn "the output is now the expected one in $input/expected"
        fi
    fi
    return "$status"
}

part_regress() {
    with_cluster regress
    run_pg_regress "$pgxs_test/regress/pg_regress" tests/pg_regress sql sql
}

part_isolation() {
    with_cluster isolation
    run_pg_regress "$pgxs_test/isolation/pg_isolation_regress" tests/isolation specs spec
}

# Two at a time: each test has servers of its own, and most of its time is waiting.
part_e2e() { cargo test --workspace --test promises -- --test-threads=2 "$@"; }

# Every fault alone, and some seeds that are always the same; `make chaos` runs others.
part_chaos() { cargo run --quiet --package sea_mq-chaos -- --quick; }

if [ "${1:-}" = part ]; then
    shift
    "part_$1" "${@:2}"
    exit
fi

parts=("$@") arguments=()
if [ "${1:-}" = e2e ]; then
    parts=(e2e) arguments=("${@:2}")
elif [ "${1:-}" = check ]; then
    parts=(fmt lint unit)
elif [ $# = 0 ]; then
    parts=(fmt lint unit regress isolation e2e chaos)
fi

failed=() closing=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for part in "${parts[@]}"; do
    say "$part"
    begin=$SECONDS
    # In a process of its own, so that it ends at its first error.
    if "${BASH_SOURCE[0]}" part "$part" "${arguments[@]}" 2>&1 | tee "$log"; then result=ok; else
        result=FAILED
        failed+=("$part")
    fi
    lines=$(grep -E '^ *(test result: |All [0-9]+ tests passed|[0-9]+ of [0-9]+ tests failed)' "$log" | grep -v ' ok\. 0 passed; 0 failed' | sed 's/^ *//' || true)
    # One line for each runner: a part may have several.
    closing+=("$(printf '%-10s %-7s %4d s  %s' "$part" "$result" $((SECONDS - begin)) "${lines//$'\n'/$'\n'                           }")")
done

say "closing lines"
printf '%s\n' "${closing[@]}"
[ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}"
