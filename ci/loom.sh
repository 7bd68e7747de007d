#!/bin/sh
# Runs the models of crates/friends/tests/loom: each race of the protocol, in every order of memory accesses.
#
#   ci/loom.sh
#
# Built apart, because all atomics are loom's there. It takes about a minute, most of it to build the first time.
set -eu

cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" CARGO_PROFILE_DEV_OPT_LEVEL=2
RUSTFLAGS="${RUSTFLAGS:-} --cfg loom" timeout --kill-after=10 5m cargo test -p midmile-friends --locked --test loom
