#!/bin/sh
# Builds every fuzz target with coverage instrumentation, and runs each for some seconds, starting from its corpus.
#
#   fuzz/smoke.sh SECONDS
#
# Works with stable Rust and without cargo-fuzz: the instrumentation is a pass of LLVM that `-C passes` can name. There
# is no address sanitizer then (that needs nightly); what is fuzzed has no unsafe code. Needs a C++ compiler, with which
# libfuzzer-sys builds libFuzzer.
#
# The committed corpus is only read: a run works on a temporary copy. An input that fails is kept in
# fuzz/artifacts/<target>/, and the exit status is 1 once all targets have had their turn.
set -eu

usage() {
    echo "usage: $0 SECONDS (a whole number, at least 1)" >&2
    exit 2
}

[ $# -eq 1 ] || usage
case $1 in
'' | 0* | *[!0-9]*) usage ;;
esac
seconds=$1

# Longest time for one input, and most memory of a run.
input_seconds_max=10
memory_mb_max=1024
# Where the choice of inputs begins. A run tries the same ones each time, so that what it finds is of the change that it runs for;
# FUZZ_SEED=0 tries others each time.
seed=${FUZZ_SEED:-1}

cd "$(dirname "$0")"

# With --target the flags below stay away from build scripts and procedural macros, which could not link with them.
host=$(rustc --print host-tuple)
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table"
flags="$flags -Cllvm-args=-sanitizer-coverage-trace-compares"
flags="$flags --cfg fuzzing -Ccodegen-units=1"
RUSTFLAGS="$flags" cargo build --release --locked --bins --target "$host"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# One target: its log in $work/<target>.log, what is to be shown of it on the output, and the status.
run_target() {
    target=$1
    binary=${CARGO_TARGET_DIR:-target}/$host/release/$target
    log=$work/$target.log
    if ! [ -x "$binary" ]; then
        echo "$target: not built; is there a [[bin]] of this name in fuzz/Cargo.toml?"
        return 1
    fi
    mkdir -p "$work/$target" "artifacts/$target"
    if [ -d "corpus/$target" ]; then
        cp -R "corpus/$target/." "$work/$target/"
    fi
    echo "== $target: $seconds s"
    status=0
    "$binary" -max_total_time="$seconds" -seed="$seed" -timeout="$input_seconds_max" -rss_limit_mb="$memory_mb_max" \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="artifacts/$target/" "$work/$target" \
        >"$log" 2>&1 || status=$?
    # Without coverage a run says nothing, however long: that is a failure of the build above.
    if [ "$status" -ne 0 ] || grep -q 'no interesting inputs were found' "$log"; then
        cat "$log"
        return 1
    fi
    grep '^stat::number_of_executed_units\|^stat::new_units_added' "$log" || true
}

# As many at once as there are CPUs.
cpus=$(nproc)
running=0
for source in fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    (run_target "$target" >"$work/$target.out" || echo "$target" >>"$work/failed") &
    running=$((running + 1))
    if [ "$running" -ge "$cpus" ]; then
        wait
        running=0
    fi
done
wait
cat "$work"/*.out

if [ -s "$work/failed" ]; then
    echo "fuzz: failed: $(tr '\n' ' ' <"$work/failed")" >&2
    exit 1
fi
