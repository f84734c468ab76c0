#!/usr/bin/env bash
# The long form of all that hunts for faults by itself: `tests/sim-long.sh [PART...]`, by default
# every part in turn, which takes hours. Each part prints the figures that docs/TESTING.md keeps.
# It goes on after a part that fails, and ends with 1 then. Parts:
#   worlds      simulated ones for ten minutes: events a second, faults by class, healing, marks
#   seeds       3,000 seeds that must be clean
#   clean       1,000 seeds in the build with planted faults, none of them chosen
#   mutants     every planted fault, until it is caught
#   digests     100 seeds with the same course in the builds for tests and for release
#   small       every order of events in small worlds
#   crash       every state that a crash of the log writer can leave
#   fuzz        hostile bytes at every decoder, for ten minutes
#   models      threads: mailboxes and the shard's start and end under models
#   sanitizers  unsafe code under sanitizers
set -eu
all="worlds seeds clean mutants digests small crash fuzz models sanitizers"
. "$(dirname "$0")/common/words.sh"
words "$all" "$@"
cd "$(dirname "$0")/.."
parts="${*:-$all}"
target="${CARGO_TARGET_DIR:-$PWD/target}"

sim() {
    "$target/sim/chainring" sim "$@"
}

plain() {
    cargo build --locked --profile sim --package chainring --bin chainring
}

planted() {
    cargo build --locked --profile sim --package chainring --bin chainring --features mutants
}

run() {
    case "$1" in
    worlds) plain && sim --seconds 600 ;;
    seeds) plain && sim --seeds 3000 --first-seed 1 ;;
    clean) planted && sim --mutant none --seeds 1000 --first-seed 1 ;;
    mutants) planted && sim --mutants --first-seed 1 ;;
    digests) CHAINRING_DIGESTS=100 cargo test --locked --test sim a_seed_has_one_course ;;
    small)
        CHAINRING_STATES=5000000 cargo test --locked --release --package chainring-ring \
            --test small_world -- --nocapture
        ;;
    crash)
        CHAINRING_CRASH_STATES=5000000 CHAINRING_SUPERBLOCK_LIVES=4 \
            cargo test --locked --release --package chainring --test crash_states -- --nocapture
        ;;
    fuzz) cargo run --locked --profile fuzz --package chainring-fuzz -- --seconds 600 ;;
    models) tests/models.sh long ;;
    sanitizers) tests/sanitize.sh ;;
    esac
}

failed=""
for part in $parts; do
    commit="$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)"
    printf '\n== %s, commit %s, %s\n' "$part" "$commit" "$(date -u +%F)"
    # In a shell of its own: `set -e` does not reach into a function whose result is asked for.
    words="$(declare -f run sim plain planted); target='$target'"
    if ! bash -eu -c "$words; run '$part'"; then
        failed="$failed $part"
    fi
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
