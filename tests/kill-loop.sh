#!/usr/bin/env bash
# `tests/kill-loop.sh`: fifty times kill -9 and restart of one of three processes under load, with
# the release build: no acknowledged record may be lost, doubled or moved. `CHAINRING_KILL_ROUNDS`
# for another number, `CHAINRING_KILL_SEED` to repeat a run, `CHAINRING_BIN` for another binary.
set -eu
. "$(dirname "$0")/common/words.sh"
words "" "$@"
cd "$(dirname "$0")/.."

if [ -z "${CHAINRING_BIN:-}" ]; then
    cargo build --release --locked --package chainring --bin chainring
    CHAINRING_BIN="${CARGO_TARGET_DIR:-$PWD/target}/release/chainring"
fi
export CHAINRING_BIN
export CHAINRING_KILL_ROUNDS="${CHAINRING_KILL_ROUNDS:-50}"
exec cargo test --locked --package chainring --test faults -- --nocapture kill::
