#!/usr/bin/env bash
# `tests/sanitize.sh [address] [thread]`: net's tests, with all of its `unsafe`, under
# AddressSanitizer (leaks included) and ThreadSanitizer, by default both. They need a nightly
# toolchain; without one this says so and succeeds.
set -eu
. "$(dirname "$0")/common/words.sh"
words "address thread" "$@"
cd "$(dirname "$0")/.."
host=x86_64-unknown-linux-gnu
target="${CARGO_TARGET_DIR:-target}"
export CARGO_INCREMENTAL=0

if ! rustc +nightly --version >/dev/null 2>&1; then
    echo "skipped: no nightly toolchain"
    exit 0
fi

# With its source, the standard library is built with the sanitizer too, and nothing is forgiven.
build=()
mix=()
quiet=()
if [ -e "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; then
    build=(-Zbuild-std)
else
    echo "no rust-src: the standard library itself is not watched"
    mix=(-Cunsafe-allow-abi-mismatch=sanitizer)
    # The harness's own queue and its handover of a test lie in that library, so ThreadSanitizer
    # does not see their locks. No frame of a test of ours has these names in it.
    forgiven="$(mktemp)"
    trap 'rm -f "$forgiven"' EXIT
    echo 'race:core::mem::maybe_uninit::MaybeUninit<test::event::CompletedTest>' >"$forgiven"
    echo 'race:Mutex<core::option::Option<test::run_test::' >>"$forgiven"
    quiet=("suppressions=$forgiven")
fi

for sanitizer in ${*:-address thread}; do
    echo "== $sanitizer"
    RUSTFLAGS="-Zsanitizer=$sanitizer ${mix[*]-}" CARGO_TARGET_DIR="$target/$sanitizer" \
        TSAN_OPTIONS="halt_on_error=1 ${quiet[*]-}" ASAN_OPTIONS="detect_leaks=1" \
        cargo +nightly test --quiet --locked -p chainring-net --lib --tests \
        --target "$host" ${build[@]+"${build[@]}"}
done
