#!/usr/bin/env bash
# test.sh [PART…] runs the parts (all of them unless told) and ends with the runners' closing lines.
# Parts: fmt lint unit regress isolation e2e gateway chaos; "check" stands for the first three, "short" for regress, isolation and
# some of e2e, "broker" for what of e2e speaks of nats-server. `test.sh e2e FILTER…` runs a part of e2e. PG=17 in the environment:
# on that major; NATS=2.12: with that nats-server.
# ACCEPT=1 makes what regress and isolation print the expected output: read the difference before committing it.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# pgxs_test RUNNER: one of the runners that come with the server.
pgxs_test() { printf '%s' "$("$SEA_MQ_PG_CONFIG" --pkglibdir)/pgxs/src/test/$1"; }
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

# An error leaves a #[pg_guard] function by a jump, over the frames of whoever has called it. So it is for C to call: in Rust by
# plain frames alone, which have nothing to clean up (src/host/utility.rs, src/api/door.rs).
guarded_calls() {
    local file names status=0
    while read -r file; do
        names=$(grep -A2 '#\[pg_guard\]' "$file" | sed -nE 's/.*extern "C-unwind" fn ([a-z_0-9]+).*/\1/p' | paste -sd'|')
        if grep -nE "(^|[^a-z_0-9.:])($names)\(" "$file" | grep -vE "fn ($names)\("; then
            printf '%s: a #[pg_guard] function is called from Rust\n' "$file"
            status=1
        fi
    done < <(grep -rl '#\[pg_guard\]' src | grep -vE '^src/(host/utility|api/door)\.rs$')
    return "$status"
}

part_lint() {
    scripts/storeys.py
    guarded_calls
    scripts/upgrade.py check
    cargo clippy --quiet --workspace "${cargo_features[@]}" --all-targets -- -D warnings
    # As the gateway's tests build it: by itself it would have other features, and be built once more.
    cargo build --quiet --workspace --bin sea-mq
    target/debug/sea-mq contracts lint schemas/events
    shellcheck --external-sources scripts/*.sh .ci/run docker/*.sh docker/initdb.d/*.sh tests/packages/*.sh
    local files
    # The compiler keeps PostgreSQL and NATS out of where they do not belong: only the extension depends on pgrx, only io on async-nats.
    mapfile -t files < <(find crates -name '*.rs' ! -path crates/io/src/wake.rs ! -path crates/io/src/handle.rs)
    forbid 'unsafe code is in the extension and crates/io/src/{wake,handle}.rs alone' '\bunsafe\b' "${files[@]}"
    mapfile -t files < <(find src -name '*.rs' ! -path src/sys/versions.rs)
    forbid 'which PostgreSQL it is, is asked in src/sys/versions.rs alone' 'feature *= *"pg' "${files[@]}"
    mapfile -t files < <(find src -name '*.rs' ! -path src/host/door.rs)
    forbid 'users are switched in src/host/door.rs alone' '\b(SetUserIdAndSecContext|SetSessionAuthorization|SetCurrentRoleId)\b' "${files[@]}"
}

part_unit() {
    cargo test --quiet --workspace "${cargo_features[@]}" --lib
    cargo test --quiet --workspace --test compare_random --test conformance --test contracts --test robustness
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
    run_pg_regress "$(pgxs_test regress/pg_regress)" tests/pg_regress sql sql
}

part_isolation() {
    with_cluster isolation
    run_pg_regress "$(pgxs_test isolation/pg_isolation_regress)" tests/isolation specs spec
}

# Four at a time: each test has servers of its own, and most of its time is waiting.
part_e2e() { cargo test --workspace --test promises -- --test-threads=4 "$@"; }

# Of each mechanism a test or two: enough to see that a major works, in some minutes. Each is exactly one test.
readonly short=(
    # relay
    order::late_commit_is_published
    order::a_commit_wakes_the_relay
    atomic::a_prepared_transaction_sends_its_events_when_it_is_committed_and_not_when_it_is_rolled_back
    failure::a_relay_killed_while_writers_write_loses_doubles_and_reorders_nothing
    storage::emitting_sends_no_notify
    # scheduled
    message::an_event_held_back_is_published_when_its_time_comes
    # capture
    capture::changes_of_a_captured_table_are_published_whoever_makes_them
    capture::a_bulk_change_is_published_row_by_row_once
    # inbox
    handlers::whatever_a_handler_does_ends_as_documented_and_its_neighbours_and_successors_are_handled
    inbox::what_a_consumer_killed_between_handler_and_commit_had_is_handled_once_and_soon
    pull::a_received_message_is_completed_failed_or_rejected
    local::without_a_broker_failures_are_retried_skipped_dead_lettered_and_replayed
    # endpoints
    endpoints::a_webhook_gets_each_event_once_signed_and_soon
    endpoints_copies::a_cloned_data_directory_sends_nothing_until_it_is_adopted
    # dead letters and their replay
    dlq::a_dead_letter_says_what_happened
    dlq::a_replay_is_handled_by_the_subscription_that_had_failed_and_by_no_other
    # contracts
    contracts::what_breaks_its_contract_is_poison_for_those_who_ask
    # roles
    door::a_handler_sees_its_owner_as_the_user_of_the_session
    door::what_runs_at_the_commit_leaves_no_setting_behind
    roles::a_handler_has_the_rights_of_its_owner_and_no_others
    rights::a_superuser_s_rights_are_lent_by_what_security_md_lists_alone
    shadows::what_the_database_s_search_path_hides_runs_as_nobody_else
    # events on disk
    spills::a_full_temporary_tablespace_costs_what_did_not_fit
    # crash and standby
    failure::a_crash_of_the_whole_cluster_loses_doubles_and_reorders_nothing
    identity::a_standby_promoted_without_a_loss_goes_on_by_itself_and_the_old_primary_stops
    # copies
    identity::a_clone_beside_its_original_keeps_quiet_until_it_is_adopted
    copies::a_restored_dump_goes_on_where_the_original_was_once_it_is_adopted
    # statements about databases
    lifecycle::databases_are_dropped_renamed_and_copied_while_the_workers_run
    utility::an_owner_drops_a_database_by_force_while_the_workers_run
    utility::databases_are_made_from_a_template_with_the_extension
    utility::errors_arrive_as_they_were_raised
)

# The runner says nothing of a name that no test has.
part_short_e2e() {
    local output count
    output=$(mktemp)
    part_e2e --exact "${short[@]}" 2>&1 | tee "$output"
    count=$(sed -nE 's/^running ([0-9]+) tests?$/\1/p' "$output")
    rm -f "$output"
    [ "$count" = ${#short[@]} ] || die "$count tests ran instead of ${#short[@]}: a name in scripts/test.sh is nobody's"
}

# What speaks of nats-server: these modules.
readonly broker=(account_limits addresses atomic_batches backlog budget cloud_events clusters connection drift failure far foreign identity inbox leaf limits marks
    message payload_limits permissions problems removed renames republish slow_lines streams subscriptions switched verify)

# without MINOR NAME…: what that nats-server does not have, and has not to be tried with it.
without() {
    if [ "$(printf '%s\n' "$1" "$nats_minor" | sort -V | head -n 1)" != "$1" ]; then
        shift
        local name
        for name in "$@"; do skipped+=(--skip "$name"); done
    fi
}

part_broker() {
    local skipped=()
    # Atomic batches, and mirrors that are promoted.
    without 2.12 atomic_batches:: renames::a_mirror_
    # Consumers that are paused, and a refusal of copies by a server that is alone.
    without 2.11 limits::a_consumer_that_somebody_has_paused_is_said_to_be \
        drift::a_change_that_the_broker_declines_leaves_the_stream_in_use
    part_e2e "${broker[@]/%/::}" "${skipped[@]}"
}

# One cluster, one nats-server and one gateway for all of them; then the console in a browser, and generated requests.
part_gateway() {
    cargo test --workspace --bin sea-mq --test gateway -- --test-threads=4 "$@"
    if [ $# = 0 ]; then
        scripts/console.sh
        RUNS=2 scripts/schemathesis.sh
    fi
}

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
elif [ "${1:-}" = gateway ]; then
    parts=(gateway) arguments=("${@:2}")
elif [ "${1:-}" = short ]; then
    parts=(regress isolation short_e2e)
elif [ "${1:-}" = check ]; then
    parts=(fmt lint unit)
elif [ $# = 0 ]; then
    parts=(fmt lint unit regress isolation e2e gateway chaos)
fi

# left_of PART: the processes that it has started and not ended, by what their environment says.
left_of() { grep -lzsx "SEA_MQ_PART=$1" /proc/[0-9]*/environ | cut -d/ -f3 || true; }
nobody_left() { [ -z "$(left_of "$1")" ]; }

# Runs a part in a process of its own, so that it ends at its first error. A process that it leaves would keep our output
# open, and whoever reads that would wait for ever: it is named and killed, and the part has failed.
run_part() {
    local status=0 left
    SEA_MQ_PART=$1-$$ "${BASH_SOURCE[0]}" part "$@" || status=$?
    if ! wait_for 5 nobody_left "$1-$$"; then
        mapfile -t left < <(left_of "$1-$$")
        warn "$1 has left these processes:"
        ps -o pid=,args= -p "$(IFS=, && printf '%s' "${left[*]}")" >&2 || true
        kill -KILL "${left[@]}" || true
        status=1
    fi
    return "$status"
}

failed=() closing=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for part in "${parts[@]}"; do
    say "$part"
    begin=$SECONDS
    if run_part "$part" "${arguments[@]}" 2>&1 | tee "$log"; then result=ok; else
        result=FAILED
        failed+=("$part")
    fi
    lines=$(grep -E '^[ #]*(test result: |All [0-9]+ tests passed|[0-9]+ of [0-9]+ tests failed)' "$log" | grep -v ' ok\. 0 passed; 0 failed' | sed 's/^[ #]*//' || true)
    # One line for each runner: a part may have several.
    closing+=("$(printf '%-10s %-7s %4d s  %s' "$part" "$result" $((SECONDS - begin)) "${lines//$'\n'/$'\n'                           }")")
done

say "closing lines"
printf '%s\n' "${closing[@]}"
[ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}"
