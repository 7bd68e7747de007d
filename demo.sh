#!/bin/bash
# Shows midmile at work: builds it, puts it in front of an nginx, and fetches a gibibyte with curl, directly and through it.
#
#   ./demo.sh
#
# Everything runs on the loopback interface, on ports of its own choice, and is gone at the end. Needs Rust and a C compiler;
# nginx and curl are installed where they are missing and this user may install (Debian: apt).
#
#   MIDMILE_DEMO_MIB=64   a smaller file
set -euo pipefail
cd "$(dirname "$0")"

readonly MIB=${MIDMILE_DEMO_MIB:-1024}
# How long nginx and midmile may take to be there.
readonly PATIENCE_SECS=20

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
if ! [ -t 1 ]; then say() { printf '\n%s\n' "$*"; }; fi

fail() {
    echo "demo: $*" >&2
    exit 1
}

dir=
nginx_pid=
relay_pid=

tidy() {
    local pid
    # A second signal ends a drain at once; what is left after that is killed.
    for pid in $relay_pid $nginx_pid; do
        kill -TERM "$pid" 2>/dev/null || continue
        sleep 0.2
        kill -TERM "$pid" 2>/dev/null || continue
        sleep 0.5
        kill -KILL "$pid" 2>/dev/null || true
    done
    if [ -n "$dir" ]; then rm -rf "$dir"; fi
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Tries a command until it succeeds, while a process lives.
until_ok() {
    local pid=$1 deadline=$((SECONDS + PATIENCE_SECS))
    shift
    until "$@" 2>/dev/null; do
        if ! kill -0 "$pid" 2>/dev/null || [ $SECONDS -ge $deadline ]; then return 1; fi
        sleep 0.05
    done
}

# --- What it needs -----------------------------------------------------------------------------------------------------

[ "$(uname -s)" = Linux ] || fail "midmile runs on Linux alone"
if ! command -v cargo >/dev/null; then PATH="$HOME/.cargo/bin:$PATH"; fi
command -v cargo >/dev/null || fail "no cargo; install Rust from https://rustup.rs"
PATH="$PATH:/usr/sbin"
command -v nginx >/dev/null || ci/packages.sh nginx-light || fail "nginx is missing"
command -v curl >/dev/null || ci/packages.sh curl || fail "curl is missing"

say "Building midmile (a few minutes the first time)"
cargo build --release --locked --bin midmile
midmile=${CARGO_TARGET_DIR:-target}/release/midmile
[ -x "$midmile" ] || fail "no $midmile after the build"

dir=$(mktemp -d)
free_kib=$(df --output=avail -k "$dir" | tail -n 1)
[ "$free_kib" -gt $((MIB * 1024 + 65536)) ] || fail "no room for a file of $MIB MiB in $dir; set TMPDIR"

# --- A web server ------------------------------------------------------------------------------------------------------

say "A file of $MIB MiB, and nginx to serve it"
mkdir "$dir/www"
head -c "${MIB}M" /dev/urandom >"$dir/www/file"

start_nginx() {
    local port=$1 kind temporary=
    for kind in client_body proxy fastcgi uwsgi scgi; do temporary+="${kind}_temp_path $dir/$kind; "; done
    cat >"$dir/nginx.conf" <<CONFIGURATION
daemon off;
master_process off;
pid $dir/nginx.pid;
error_log $dir/nginx.log;
events { }
http {
    access_log off;
    sendfile on;
    $temporary
    server { listen 127.0.0.1:$port; root $dir/www; }
}
CONFIGURATION
    nginx -p "$dir" -e "$dir/nginx.log" -c "$dir/nginx.conf" >>"$dir/nginx.out" 2>&1 &
    nginx_pid=$!
    until_ok "$nginx_pid" curl --silent --fail --head --output /dev/null "http://127.0.0.1:$port/file"
}

# Below the range that the kernel hands out to clients, so that few are taken; another one where one is.
for attempt in 1 2 3 4 5 last; do
    port=$((20000 + RANDOM % 10000))
    if start_nginx $port; then break; fi
    kill -KILL "$nginx_pid" 2>/dev/null || true
    wait "$nginx_pid" 2>/dev/null || true
    nginx_pid=
    [ $attempt != last ] || fail "nginx doesn't start: $(tail -n 3 "$dir/nginx.log" "$dir/nginx.out")"
done
echo "nginx serves http://127.0.0.1:$port/file"

# --- The relay ---------------------------------------------------------------------------------------------------------

say "midmile relay --listen 127.0.0.1:0 --to 127.0.0.1:$port --admin 127.0.0.1:0"
"$midmile" relay --listen 127.0.0.1:0 --to "127.0.0.1:$port" --admin 127.0.0.1:0 >"$dir/ready" 2>"$dir/log" </dev/null &
relay_pid=$!
until_ok "$relay_pid" grep --quiet '^ready ' "$dir/ready" || fail "midmile doesn't start: $(cat "$dir/log")"
ready=$(head -n 1 "$dir/ready")
echo "$ready"
listen=${ready#ready listen=}
listen=${listen%% to=*}
# The admin server's port is in the log, which is JSON where standard error is no terminal.
until_ok "$relay_pid" grep --quiet 'the admin server accepts' "$dir/log" || fail "no admin server: $(cat "$dir/log")"
admin=$(sed -n '/the admin server accepts/s/.*"listen":"\([^"]*\)".*/\1/p' "$dir/log")

# --- The same file twice -----------------------------------------------------------------------------------------------

# Once for the rate, to /dev/null; once for the checksum.
fetch() {
    local name=$1 url=$2 rate
    rate=$(curl --silent --show-error --fail --output /dev/null --write-out '%{speed_download}' "$url")
    sum=$(curl --silent --show-error --fail "$url" | sha256sum)
    sum=${sum%% *}
    printf '%-16s %6d MB/s   sha256 %s\n' "$name" "$((${rate%.*} / 1000000))" "$sum"
}

# Seconds of CPU that the process has used (proc(5): utime and stime, in ticks).
cpu_secs() {
    awk -v hertz="$(getconf CLK_TCK)" '{ printf "%.2f", ($14 + $15) / hertz }' "/proc/$1/stat"
}

say "Fetching it, each way twice"
fetch directly "http://127.0.0.1:$port/file"
sum_direct=$sum
cpu_before=$(cpu_secs "$relay_pid")
fetch "through midmile" "http://$listen/file"
sum_relayed=$sum
cpu_after=$(cpu_secs "$relay_pid")
[ "$sum_direct" = "$sum_relayed" ] || fail "the checksums differ"
echo "The checksums are the same. On one machine the relay is but one more hop: this shows its cost, not a gain."

# --- What it cost ------------------------------------------------------------------------------------------------------

say "What the relay used for 2 x $MIB MiB"
awk -v before="$cpu_before" -v after="$cpu_after" -v mib="$MIB" 'BEGIN {
    printf "CPU     %.2f s, %.2f s for a GB\n", after - before, (after - before) / (2 * mib * 1048576 / 1e9)
}'
awk '/^VmRSS:/ { rss = $2 } /^RssAnon:/ { anon = $2 } END {
    printf "memory  %.1f MiB resident, of which %.1f MiB its own and the rest the program file\n", rss / 1024, anon / 1024
}' "/proc/$relay_pid/status"

say "What it says of itself: curl http://$admin/status.json"
curl --silent --fail "http://$admin/status.json" | sed -n '/"totals"/,/"ends"/p' | sed '1d;$d'

# --- The end -----------------------------------------------------------------------------------------------------------

say "SIGTERM: it drains"
kill -TERM "$relay_pid"
code=0
wait "$relay_pid" || code=$?
relay_pid=
sed -n 's/.*"level":"\([^"]*\)","message":"\([^"]*\)".*/\1 \2/p' "$dir/log" | tail -n 2
echo "exit code $code"
[ "$code" -eq 0 ] || fail "it should have been 0: $(cat "$dir/log")"

say "Done. Next: ./ci.sh runs all tests; README.md has configurations to start from."
