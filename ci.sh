#!/bin/bash
# Everything that has to hold before a change goes in. CI runs this; run it before you push.
#
#   ./ci.sh            every step
#   ./ci.sh STEP...    those steps alone: ./ci.sh format lints
#
# All steps run, whatever fails. A line for each test program, fuzz target and step is shown, and then what failed and said why;
# all else is in target/ci/STEP.log. The last line is "N passed, N failed, N skipped": tests that passed; tests, other steps and
# unexpected skips that failed; tests and steps that were skipped. The exit code is 1 if anything failed.
#
# A test that can't run here prints a line "SKIP: why"; one that ci/expected-skips.txt doesn't list is a failure.
# Needs Rust with clippy and rustfmt, a C compiler, and on Debian apt: what else is missing is installed.
set -uo pipefail
cd "$(dirname "$0")" || exit 1

readonly STEPS=(packages format lints docs objects tests fuzz pages scripts licences advisories)
# Seconds that each fuzz target runs.
readonly FUZZ_SECONDS=5
# Tests of whole programs that run by epoll and by io_uring.
readonly RING_TESTS=(--test={half_close,messages,misbehaviour,mux_dns,mux_redis,proxy_protocol,reload_drain,running,scarcity}
    --test={trunk,trunk_answers,trunk_ends,trunk_faults,unix_sockets})
# Tools that the steps below use; what the tests use is in tests/packages.txt.
readonly TOOLS=(g++ jq shellcheck)

# Where cargo puts the programs of the dev profile.
readonly BUILT=${CARGO_TARGET_DIR:-target}/debug
# What each step said in the last run: STEP.log.
readonly LOGS=${CARGO_TARGET_DIR:-target}/ci

export CARGO_TERM_COLOR=never
if ! command -v cargo >/dev/null; then PATH="$HOME/.cargo/bin:$PATH"; fi

step_packages() {
    local wanted=("${TOOLS[@]}")
    if [ -f tests/packages.txt ]; then
        local package
        while read -r package; do wanted+=("$package"); done < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d' tests/packages.txt)
    fi
    ci/packages.sh "${wanted[@]}"
}

step_format() {
    cargo fmt --all --check -- --color never && cargo fmt --manifest-path fuzz/Cargo.toml --check -- --color never
}

step_lints() {
    # What fuzzers call is there under `fuzzing` alone, which fuzz/smoke.sh sets too.
    cargo clippy --workspace --all-targets --locked -- -D warnings &&
        RUSTFLAGS="${RUSTFLAGS:-} --cfg fuzzing" cargo clippy --manifest-path fuzz/Cargo.toml --all-targets --locked -- -D warnings
}

step_docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
}

# The compiled BPF programs that the kernel crate carries are those of its sources: the same compiler makes the same bytes.
step_objects() {
    if ! ci/packages.sh clang-19 llvm-19; then
        echo "SKIP: objects aren't compared: clang-19 can't be had"
        return
    fi
    local built status=0
    built=$(mktemp -d)
    if crates/kernel/bpf/build.sh "$built"; then
        diff --recursive --brief crates/kernel/bpf/obj "$built" && echo "$(find "$built" -type f | wc -l) objects, as committed"
    fi || status=1
    rm -rf "$built"
    return "$status"
}

# In the dev profile: it has the debug assertions, the simulation takes seconds in it, and an optimised build takes minutes.
step_tests() {
    local others status=0
    mapfile -t others < <(cargo metadata --no-deps --format-version 1 --locked |
        jq -r '.packages[].targets[] | select(.kind == ["test"] and .name != "conformance") | "--test=" + .name' | sort -u)
    run_tests 22m --lib --bins --examples "${others[@]}" || status=1
    # Its cases mostly wait for their peers, and each has its own.
    RUST_TEST_THREADS=6 run_tests 6m --test=conformance || status=1
    run_tests 5m --doc || status=1
    ci/loom.sh || status=1
    if [ "$("$BUILT/midmile" doctor --json | jq -r '.findings[] | select(.feature == "io_uring").state')" = absent ]; then
        echo "SKIP: io_uring isn't tried"
        return "$status"
    fi
    # The programs again, their loops waiting by io_uring. A limit of descriptors that changes while an accept is armed shows there
    # only later: the kernel keeps the one that it began with.
    MIDMILE_TEST_WAIT_BY=io_uring run_tests 5m "${RING_TESTS[@]}" -- --skip without_a_descriptor_clients_wait || status=1
    return "$status"
}

# Tests of the workspace (of one package, cargo would build all anew with other features), by what follows the time limit.
# Passing tests show their output too: that is where skips are. A test that hangs is ended, and is a failure.
run_tests() {
    local limit=$1 targets=() options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        targets+=("$1")
        shift
    done
    if [ $# -gt 0 ]; then options=("${@:2}"); fi
    timeout --kill-after=10 "$limit" cargo test --workspace --locked --no-fail-fast "${targets[@]}" -- --show-output \
        ${options[@]+"${options[@]}"}
}

step_fuzz() {
    fuzz/smoke.sh "$FUZZ_SECONDS"
}

step_pages() {
    ci/pages.sh
}

step_scripts() {
    local scripts
    mapfile -t scripts < <(find . \( -name target -o -name .git \) -prune -o \( -name '*.sh' -o -path ./.ci/run \) -type f -print | sort)
    printf '%s\n' "${scripts[@]}"
    shellcheck "${scripts[@]}"
}

step_licences() {
    local manifests=(Cargo.toml fuzz/Cargo.toml) manifest
    if ! command -v cargo-deny >/dev/null; then
        ci/licences.sh "${manifests[@]}"
        return
    fi
    for manifest in "${manifests[@]}"; do
        cargo deny --manifest-path "$manifest" check --config "$PWD/deny.toml" licenses bans sources || return
    done
}

step_advisories() {
    if ! command -v cargo-deny >/dev/null; then
        echo "SKIP: advisories: cargo-deny isn't installed"
    elif ! cargo deny fetch db; then
        echo "SKIP: advisories: the database can't be fetched"
    else
        cargo deny check --disable-fetch --config "$PWD/deny.toml" advisories
    fi
}

# Reads the output of cargo test; prints how many tests passed, failed, were ignored, and how many of those that passed said
# SKIP. A test's output stands below a line "---- its::name stdout ----". A test program that ends without a result (a crash, or
# the time limit) counts as one that failed.
count_tests() {
    awk '
        /^ +(Running|Doc-tests) / {
            if (running) failed++
            running = 1
            program++
        }
        /^---- .* stdout ----$/ { test = program " " $2 }
        /^successes:$/ { good = 1 }
        /^failures:$/ { good = 0 }
        good && /^SKIP:/ && !(test in skipping) { skipping[test]; skips++ }
        /^test result: / {
            running = 0
            for (i = 2; i <= NF; i++) {
                if ($i == "passed;") passed += $(i - 1)
                if ($i == "failed;") failed += $(i - 1)
                if ($i == "ignored;") ignored += $(i - 1)
            }
        }
        END { print passed + 0, failed + running, ignored + 0, skips + 0 }
    ' "$1"
}

# Of what a step says, what is shown while it runs: each test program's result, each failed test, each fuzz target.
digest() {
    awk '
        /^ +(Running|Doc-tests) / {
            program = $2
            # Of "unittests src/main.rs (target/debug/deps/midmile-0123)" its crate says more.
            if (program == "unittests") { program = $NF; sub(/.*\//, "", program); sub(/-[0-9a-f]+\)$/, "", program) }
        }
        /^test result: / && $4 + $6 > 0 { print program ": " $4 " passed, " $6 " failed, " $NF; fflush() }
        /^test .* \.\.\. FAILED$/ || /^== / { print; fflush() }
    '
}

# What failed tests said, the first 40 lines of each: it stands between the first "failures:" of a program and the second.
said_by_failed() {
    awk '
        /^failures:$/ { failing = !failing; shown = 0; next }
        /^test result: / { failing = 0 }
        /^---- .* stdout ----$/ { shown = 0 }
        failing && shown++ < 40
    ' "$1"
}

# Why a step failed, by its log: its last lines, or for the tests what each of them said.
said_by_step() {
    if [ "$1" != tests ]; then
        echo "== the end of $LOGS/$1.log"
        tail -n 40 "$LOGS/$1.log"
        return
    fi
    # shellcheck disable=SC2016 # cargo names them in backquotes
    sed -n 's/^test \(.*\) \.\.\. FAILED$/failed test: \1/p; s/^    \(`.*`\)$/failed program: \1/p' "$LOGS/tests.log"
    grep -A 10 '^error' "$LOGS/tests.log" | head -n 40
    said_by_failed "$LOGS/tests.log"
}

# The SKIP lines in the logs that nobody expected.
unexpected_skips() {
    cat "$LOGS"/*.log | grep '^SKIP:' | grep -v -F -f <(grep -v '^#' ci/expected-skips.txt | grep -v '^$') | sort -u
}

minutes() {
    printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

steps=("$@")
if [ $# -eq 0 ]; then steps=("${STEPS[@]}"); fi
for step in "${steps[@]}"; do
    if ! declare -F "step_$step" >/dev/null; then
        echo "no step is called \"$step\"; there are: ${STEPS[*]}" >&2
        exit 2
    fi
done

mkdir -p "$LOGS"
rm -f "$LOGS"/*
trap 'exit 130' INT TERM

failures=()
summary=()
for step in "${steps[@]}"; do
    echo "== $step"
    began=$SECONDS
    "step_$step" 2>&1 </dev/null | tee "$LOGS/$step.log" | digest
    status=${PIPESTATUS[0]}
    verdict=ok
    if [ "$status" -ne 0 ]; then
        verdict=FAILED
        failures+=("$step")
    fi
    summary+=("$(printf '%-12s %-8s %s' "$step" "$verdict" "$(minutes $((SECONDS - began)))")")
done

passed=0 failed=0 ignored=0 skipping=0
if [ -f "$LOGS/tests.log" ]; then
    read -r passed failed ignored skipping < <(count_tests "$LOGS/tests.log")
fi
broken=0
for step in ${failures[@]+"${failures[@]}"}; do
    # Failed tests are counted one by one, unless it didn't come to that.
    if [ "$step" != tests ] || [ "$failed" -eq 0 ]; then broken=$((broken + 1)); fi
    said_by_step "$step"
done
mapfile -t surprises < <(unexpected_skips)
left_out=$(find "$LOGS" -name '*.log' ! -name tests.log -exec cat {} + | grep -c '^SKIP:')

echo "== summary, after $(minutes $SECONDS)"
printf '%s\n' "${summary[@]}"
if [ ${#surprises[@]} -gt 0 ]; then
    printf 'not in ci/expected-skips.txt: %s\n' "${surprises[@]}"
fi
failed=$((failed + broken + ${#surprises[@]}))
echo "$((passed - skipping)) passed, $failed failed, $((ignored + skipping + left_out)) skipped"
[ "$failed" -eq 0 ]
