#!/usr/bin/env bash
# Coverage-guided fuzzing with libFuzzer and AddressSanitizer:
# `tests/fuzz/run.sh [SECONDS] [TARGET...]`.
# SECONDS (60) are of each target, by default of all, two at a time. Needs the nightly compiler and
# a C++ compiler; without them it says so and ends well. What fails is copied to
# regressions/TARGET. Artefacts and corpus lie in `CHAINRING_FUZZ_DIR`.
set -eu
all="$(sed -n 's/^ *targets::.*::\([A-Z]*\),$/\L\1/p' "$(dirname "$0")/src/lib.rs" | xargs)"
. "$(dirname "$0")/../common/words.sh"
words "SECONDS $all" "$@"
cd "$(dirname "$0")"
seconds=60 targets=""
for word in "$@"; do
    case "$word" in
    *[!0-9]*) targets="$targets $word" ;;
    *) seconds="$word" ;;
    esac
done

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "skipped: no nightly compiler (rustup toolchain install nightly)"
    exit 0
fi
if ! c++ --version >/dev/null 2>&1; then
    echo "skipped: no C++ compiler"
    exit 0
fi

host="$(rustc +nightly -vV | sed -n 's/^host: //p')"
work="${CHAINRING_FUZZ_DIR:-${TMPDIR:-/tmp}/chainring-fuzz}"
mkdir -p "$work"
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
RUSTFLAGS="$(echo $coverage) -Zsanitizer=address" \
    cargo +nightly build --release --locked --target "$host" --target-dir "$work/target" \
    --manifest-path libfuzzer/Cargo.toml
binary="$work/target/$host/release/chainring-libfuzzer"

run_one() {
    target="$1"
    corpus="$work/corpus/$target" found="$work/found/$target"
    mkdir -p "$corpus" "$found" "regressions/$target"
    cargo run --quiet --profile fuzz --manifest-path Cargo.toml -- \
        --target "$target" --seeds "$corpus"
    length="$(cat "$corpus/../$target.bytes")"
    if ! CHAINRING_TARGET="$target" "$binary" -max_total_time="$seconds" -max_len="$length" \
        -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=64 -print_final_stats=1 \
        -artifact_prefix="$found/" "$corpus" "regressions/$target" >"$work/$target.log" 2>&1; then
        echo "FAILED $target: $work/$target.log"
        cp "$found"/* "regressions/$target/"
        return 1
    fi
    runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")"
    cover="$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/$target.log" | tail -1)"
    echo "$target: $runs executions, $cover edges"
    rmdir "regressions/$target" 2>/dev/null || true
}
export -f run_one
export seconds work binary
echo "${targets:-$all}" | xargs -n 1 | xargs -P 2 -I{} bash -c 'run_one {}'
