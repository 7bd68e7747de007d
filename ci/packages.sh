#!/bin/sh
# Installs those of the named Debian packages that are missing.
#
#   ci/packages.sh PACKAGE...
#
# Does nothing, and needs no rights, where all are there. Services that come with a package aren't started: a policy-rc.d
# (Debian's invoke-rc.d policy layer) forbids it while we install, unless this host has one of its own already.
set -eu

missing=
for package in "$@"; do
    state=$(dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    case $state in
    ii*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "missing, and there is no apt-get to install them with:$missing" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    # A password may be asked for only where somebody sits in front of it.
    ask=-n
    if [ -t 0 ] && [ -t 2 ]; then ask=; fi
    if command -v sudo >/dev/null && sudo $ask true; then
        exec sudo $ask "$0" "$@"
    fi
    echo "missing, and this user may not install them; as root: apt-get install$missing" >&2
    exit 1
fi

echo "installing$missing"
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
made_policy=
tidy() {
    rm -f "$log"
    if [ -n "$made_policy" ]; then rm -f "$policy"; fi
}
trap tidy EXIT
trap 'exit 130' INT TERM
if ! [ -e "$policy" ]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
# The lock may be held by an automatic upgrade.
wait_for_lock="-o DPkg::Lock::Timeout=120"
# shellcheck disable=SC2086 # both are lists of words
if ! { apt-get $wait_for_lock update --quiet && apt-get $wait_for_lock install --yes --quiet --no-install-recommends $missing; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 30 "$log" >&2
    exit 1
fi
