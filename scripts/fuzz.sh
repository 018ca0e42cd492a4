#!/usr/bin/env bash
# fuzz.sh RUNS: the tests that try random input, so often, each time with another seed. Ends at the first failure, whose
# seed is printed: SEA_MQ_FUZZ_SEED repeats it.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

for run in $(seq "$1"); do
    SEA_MQ_FUZZ_SEED=$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')
    export SEA_MQ_FUZZ_SEED
    say "run $run of $1: SEA_MQ_FUZZ_SEED=$SEA_MQ_FUZZ_SEED"
    cargo test --quiet --package sea_mq-contracts --test robustness --test compare_random
    cargo test --quiet --package sea_mq --lib simulation::
    cargo test --quiet --workspace --test promises -- --test-threads=2 random_ names::
done
