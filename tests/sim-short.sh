#!/usr/bin/env bash
# The short form of all that hunts for faults by itself, for every change: simulated worlds,
# planted faults, small worlds, crash states, hostile bytes. Less than 3 minutes on two cores, what
# has to be built not counted; each step prints its figures. The long form is tests/sim-long.sh.
set -eu
cd "$(dirname "$0")/.."
seconds="${1:-40}"

step() {
    printf '\n-- %s (%s s)\n' "$1" "$SECONDS"
}

target="${CARGO_TARGET_DIR:-$PWD/target}"

step "worlds, $seconds seconds; of the release that the tests use too"
cargo build --release --locked --package chainring --bin chainring
# The same worlds every time, so that a change is judged by what it did; the long form hunts.
"$target/release/chainring" sim --first-seed 1 --seeds 150 --seconds "$seconds" --shrink-seconds 20

step "planted faults: some that few worlds are enough for, and none"
cargo build --locked --package chainring --bin chainring --features mutants
"$target/debug/chainring" sim --mutant none --first-seed 1 --seeds 60 --events 20000
planted=(PromiseNotPersisted AcceptBelowPromise VoteBeforeFlush VoteCountedTwice PromiseCountedTwice
    HolesFilledBlindly DeliverWithoutValue ReplayBeyondClaim)
mutants="$(IFS=,; echo "${planted[*]}")"
"$target/debug/chainring" sim --first-seed 1 --seeds 200 --events 20000 --mutant "$mutants"

step "small worlds"
cargo test --locked --quiet --package chainring-ring --test small_world -- --nocapture

step "crash states of the log"
cargo test --locked --quiet --package chainring --test crash_states -- --nocapture

step "hostile bytes"
cargo test --locked --quiet --package chainring-fuzz

printf '\n-- done (%s s)\n' "$SECONDS"
