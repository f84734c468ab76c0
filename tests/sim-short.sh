#!/usr/bin/env bash
# The short form of all that hunts for faults by itself: `tests/sim-short.sh [PART...] [SECONDS]`.
# Parts, by default all of them: worlds (simulated ones, for at most SECONDS, 40), planted (faults
# planted on purpose are caught), small (worlds searched whole), crash (states that a crash leaves
# of a log), fuzz (hostile bytes). Less than 3 minutes on two cores, what has to be built not
# counted; each part prints its figures. The long form is tests/sim-long.sh.
set -eu
all="worlds planted small crash fuzz"
. "$(dirname "$0")/common/words.sh"
words "$all SECONDS" "$@"
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"

seconds=40 parts=""
for word in "$@"; do
    case "$word" in
    *[!0-9]*) parts="$parts $word" ;;
    *) seconds="$word" ;;
    esac
done
[ "$seconds" -gt 0 ] || { echo "${0##*/}: SECONDS is at least 1" >&2; exit 2; }

step() {
    printf '\n-- %s (%s s)\n' "$1" "$SECONDS"
}

# Of the whole workspace, so that what is built serves its other tests too.
tests() {
    cargo test --locked --quiet --workspace "$@"
}

# In the release that the tests use too. The same worlds every time, so that a change is judged by
# what it did; the long form hunts.
worlds() {
    cargo build --release --locked --package chainring --bin chainring
    "$target/release/chainring" sim --first-seed 1 --seeds 150 --seconds "$seconds" \
        --shrink-seconds 20
}

# One build with planted faults: its tests, then some faults that few worlds are enough for, then
# none.
planted() {
    tests --features chainring/mutants,chainring-ring/mutants --test sim --test small_world \
        -- --nocapture planted
    local some=PromiseNotPersisted,AcceptBelowPromise,VoteBeforeFlush,VoteCountedTwice
    some="$some,PromiseCountedTwice,HolesFilledBlindly,DeliverWithoutValue,ReplayBeyondClaim"
    "$target/debug/chainring" sim --first-seed 1 --seeds 200 --events 20000 --mutant "$some"
    "$target/debug/chainring" sim --first-seed 1 --seeds 60 --events 20000 --mutant none
}

small() {
    tests --test small_world -- --nocapture
}

crash() {
    tests --test crash_states -- --nocapture
}

fuzz() {
    tests --test pass
}

for part in ${parts:-$all}; do
    step "$part"
    "$part"
done
step "done"
