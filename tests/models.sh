#!/usr/bin/env bash
# `tests/models.sh [long]`: mailboxes and waker under loom, start and end of a shard under shuttle.
# With "long" the forms for the night: loom interrupts threads five times, shuttle draws 100,000
# schedules of each of four kinds. A failure prints the schedule. Models have target directories of
# their own, since the whole tree is built for them; without optimisation and debug information, as
# that takes longest.
set -eu
. "$(dirname "$0")/common/words.sh"
words "long" "$@"
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 SHUTTLE_SILENCE_WARNINGS=1

if [ "${1:-}" = long ]; then
    export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-5}"
    export CHAINRING_SCHEDULES="${CHAINRING_SCHEDULES:-100000}"
fi

# One cfg for each: the flags go to every crate, and some of those below know `loom`.
model() {
    RUSTFLAGS="--cfg $1" CARGO_TARGET_DIR="$target/$1" \
        cargo test --quiet --locked -p "$2" --lib "$3" -- --nocapture
}

model loom chainring-net mailbox::loom_tests
CARGO_PROFILE_DEV_OPT_LEVEL="${CHAINRING_OPT_LEVEL:-0}" model shuttle chainring shard::shuttle_tests
