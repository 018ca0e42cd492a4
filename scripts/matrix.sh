#!/usr/bin/env bash
# matrix.sh [FILTER…]: builds the extension for each major of PostgreSQL and runs regress, isolation and e2e (those that match)
# on it; then what of e2e speaks of nats-server, with each minor of that. It goes on after a failure, and ends with the closing
# lines of all. MATRIX_PG='14 18' and MATRIX_NATS='2.10 2.12' name the versions; SHORT=1 runs only some of e2e (see test.sh).
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# run_major MAJOR [FILTER…]
run_major() {
    export PG=$1
    shift
    scripts/setup.sh
    scripts/build.sh
    if [ -n "${SHORT:-}" ]; then
        scripts/test.sh short
    else
        # Not one after the other with `&&`: the later ones are of interest as well.
        local failed=0
        scripts/test.sh regress isolation || failed=1
        scripts/test.sh e2e "$@" || failed=1
        return "$failed"
    fi
}

# run_minor MINOR
run_minor() {
    export NATS=$1
    scripts/setup.sh
    scripts/build.sh
    scripts/test.sh broker
}

if [ "${1:-}" = major ] || [ "${1:-}" = minor ]; then
    "run_$1" "${@:2}"
    exit
fi

failed=() closing=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# one NAME major|minor VERSION [FILTER…]
one() {
    local name="$1 $3" result lines
    say "$name"
    # In a process of its own, so that it ends at its first error.
    if "${BASH_SOURCE[0]}" "${@:2}" 2>&1 | tee "$log"; then result=ok; else
        result=FAILED
        failed+=("$name")
    fi
    closing+=("$name: $result")
    mapfile -t lines < <(sed -nE '/==>.* closing lines$/,/^(error:|.*==>)/{/==>|^error:/!p}' "$log")
    closing+=("${lines[@]/#/    }")
}

majors=${MATRIX_PG:-$pg_majors} minors=${MATRIX_NATS:-$nats_minors}
for major in ${majors#none}; do one PostgreSQL major "$major" "$@"; done
for minor in ${minors#none}; do one nats-server minor "$minor"; done

say "closing lines of all"
printf '%s\n' "${closing[@]}"
[ ${#failed[@]} = 0 ] || die "failed: $(printf '%s; ' "${failed[@]}")"
