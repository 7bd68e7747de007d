#!/bin/sh
# Compares the pages with the code where they say the same thing twice.
#
# - CLAIMS.md: each test that is named stands in the file that is named with it.
# - docs/operations.md: each metric, and each reason of an end or a refusal, has its row, and no row is of another.
# - docs/friends.md: each reason has its row, and no row is of another.
# - All pages: links to files lead somewhere.
set -eu

cd "$(dirname "$0")/.."
failed=$(mktemp)
work=$(mktemp -d)
trap 'rm -rf "$failed" "$work"' EXIT

# In a row of CLAIMS.md a file stands in backquotes, and behind it the tests in it.
awk -F'`' '/^\|/ {
    file = ""
    for (i = 2; i <= NF; i += 2) {
        if ($i ~ /\.rs$/) file = $i
        else if (file != "" && $i ~ /^[a-z0-9_]+$/) print file, $i
    }
}' CLAIMS.md >"$work/tests"
while read -r file test; do
    grep -q "fn ${test}[(<]" "$file" || echo "CLAIMS.md: no test $test in $file" >>"$failed"
done <"$work/tests"
echo "CLAIMS.md names $(wc -l <"$work/tests") tests"

# Names in the first column of the tables.
# shellcheck disable=SC2016 # backquotes are what is looked for
sed -n 's/^| `\([a-z_-]*\)` |.*/\1/p' docs/operations.md >"$work/rows"

tr '\n' ' ' <src/admin/metrics.rs |
    grep -oE '(gauges?|counters|encode_descriptor)\( *\(?"[a-z_]+", *(Some\(&Unit::[A-Z][a-z]+\)|help, Some\(&Unit::[A-Z][a-z]+\)|"[^"]*", Some\(&Unit::[A-Z][a-z]+\))?' |
    sed -E 's/^[a-z_]+\( *\(?"([a-z_]+)",/\1/; s/^([a-z_]+).*Unit::([A-Z])([a-z]+).*/\1_\L\2\3/; s/ *$//; s/^/midmile_/' |
    sort >"$work/metrics"
grep '^midmile_' "$work/rows" | sed 's/_total$//' | sort >"$work/metrics-told"
diff "$work/metrics" "$work/metrics-told" >"$work/diff" ||
    sed -n 's/^</docs\/operations.md lacks the metric/p; s/^>/docs\/operations.md has a metric that the code lacks:/p' "$work/diff" >>"$failed"
echo "docs/operations.md has $(wc -l <"$work/metrics-told") metrics"

sed -n 's/^ *[A-Z][A-Za-z]* => "\([a-z-]*\)",$/\1/p' crates/gateway/src/reason.rs | sort >"$work/reasons"
grep -v '_' "$work/rows" | grep -v -x -e route -e end | sort >"$work/reasons-told"
diff "$work/reasons" "$work/reasons-told" >"$work/diff" ||
    sed -n 's/^</docs\/operations.md lacks the reason/p; s/^>/docs\/operations.md has a reason that the code lacks:/p' "$work/diff" >>"$failed"
echo "docs/operations.md has $(wc -l <"$work/reasons-told") reasons"

sed -n 's/^ *Self::[A-Za-z]* => "\([a-z-]*\)",$/\1/p' crates/kernel/src/friends/figures.rs | sort >"$work/friends"
# A row may be of several.
sed -n '/^## Reasons/,/^## S/s/^| \(`[^|]*\) |.*/\1/p' docs/friends.md | grep -o '[a-z-]*' | sort >"$work/friends-told"
diff "$work/friends" "$work/friends-told" >"$work/diff" ||
    sed -n 's/^</docs\/friends.md lacks the reason/p; s/^>/docs\/friends.md has a reason that the code lacks:/p' "$work/diff" >>"$failed"
echo "docs/friends.md has $(wc -l <"$work/friends-told") reasons"

for page in *.md docs/*.md; do
    grep -oE '\]\([^)#]+' "$page" | sed 's/^](//' | grep -v '^https\?:' >"$work/links" || true
    while read -r link; do
        [ -e "$(dirname "$page")/$link" ] || echo "$page: the link to $link leads nowhere" >>"$failed"
    done <"$work/links"
done

if [ -s "$failed" ]; then
    cat "$failed" >&2
    exit 1
fi
