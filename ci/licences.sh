#!/bin/sh
# Checks the licence of every package that we build with against the list in deny.toml, without cargo-deny.
#
#   ci/licences.sh MANIFEST...
#
# A licence is an SPDX expression (SPDX 2.3, annex D) of identifiers, WITH, AND, OR and parentheses; "A/B" is the old way of
# writing "A OR B". Needs jq.
set -eu

cd "$(dirname "$0")/.."

allowed=$(awk '
    /^\[/ { table = $0; listing = 0 }
    table == "[licenses]" && /^allow = \[/ { listing = 1; next }
    listing && /^\]/ { listing = 0 }
    listing && match($0, /"[^"]+"/) { print substr($0, RSTART + 1, RLENGTH - 2) }
' deny.toml | jq --raw-input --slurp 'split("\n") | map(select(. != ""))')

# Reads the output of cargo metadata; answers the packages whose expression the list does not satisfy.
# shellcheck disable=SC2016 # the dollars are for jq
program='
    def term: gsub("^ +| +$"; "") as $id | $id == "@yes" or ($allowed | index([$id])) != null;
    def flat: split(" OR ") | any(.[]; split(" AND ") | all(.[]; term));
    def holds:
        if test("[(]") then
            capture("^(?<before>.*)[(](?<inner>[^()]*)[)](?<after>.*)$")
            | "\(.before)\(if .inner | flat then "@yes" else "@no" end)\(.after)" | holds
        else flat end;
    .packages[]
    | (.license // "none") as $licence
    | select($licence | gsub(" */ *"; " OR ") | holds | not)
    | "\(.name) \(.version): \($licence)"'

failed=
for manifest in "$@"; do
    metadata=$(cargo metadata --format-version 1 --locked --manifest-path "$manifest" \
        --filter-platform "$(rustc --print host-tuple)")
    refused=$(printf '%s' "$metadata" | jq --raw-output --argjson allowed "$allowed" "$program")
    count=$(printf '%s' "$metadata" | jq '.packages | length')
    if [ "$count" -eq 0 ]; then
        echo "$manifest: no packages" >&2
        failed=yes
    elif [ -n "$refused" ]; then
        echo "$manifest: not on the list in deny.toml:" >&2
        echo "$refused" >&2
        failed=yes
    else
        echo "$manifest: $count packages, all on the list"
    fi
done
[ -z "$failed" ]
