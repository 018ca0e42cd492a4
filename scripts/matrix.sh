#!/usr/bin/env bash
# matrix.sh [FILTER…]: builds the extension for each major of PostgreSQL and runs regress, isolation and e2e (those that match)
# on it. It goes on after a failure, and ends with the closing lines of all. MATRIX_PG='14 18' names the majors;
# SHORT=1 runs only some of e2e (see test.sh).
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

if [ "${1:-}" = major ]; then
    run_major "${@:2}"
    exit
fi

failed=() closing=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for major in ${MATRIX_PG:-$pg_majors}; do
    say "PostgreSQL $major"
    # In a process of its own, so that it ends at its first error.
    if "${BASH_SOURCE[0]}" major "$major" "$@" 2>&1 | tee "$log"; then result=ok; else
        result=FAILED
        failed+=("$major")
    fi
    closing+=("PostgreSQL $major: $result")
    mapfile -t lines < <(sed -nE '/==>.* closing lines$/,/^(error:|.*==>)/{/==>|^error:/!p}' "$log")
    closing+=("${lines[@]/#/    }")
done

say "closing lines of all"
printf '%s\n' "${closing[@]}"
[ ${#failed[@]} = 0 ] || die "failed on PostgreSQL ${failed[*]}"
