#!/usr/bin/env bash
# Checks every crate against the RustSec database of known vulnerabilities, with cargo-deny.
#
#   advisories.sh         with a database that is on this machine already: a Git clone of it that
#                         ADVISORY_DB names, or the one that `make advisories` left in the target
#                         folder. Where there is none it says that nothing was checked, and ends well.
#   advisories.sh fetch   fetches the database first; without the network it fails.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
kept=$target/advisory-db
origin=${ADVISORY_DB_URL:-https://github.com/rustsec/advisory-db}
days=90

if [ "${1:-}" = fetch ]; then
    if [ -d "$kept/.git" ]; then
        git -C "$kept" pull --quiet --ff-only
    else
        git clone --quiet "$origin" "$kept"
    fi || { echo "advisories: the database can't be fetched from $origin; nothing was checked" >&2; exit 1; }
fi
database=${ADVISORY_DB:-$kept}
if ! git -C "$database" rev-parse -q --verify HEAD >/dev/null 2>&1; then
    if [ -n "${ADVISORY_DB:-}" ]; then
        echo "advisories: ADVISORY_DB=$ADVISORY_DB is no Git clone of the RustSec database" >&2
        exit 1
    fi
    echo "SKIPPED advisories: there is no database of known vulnerabilities on this machine;" \
        "'make advisories' fetches it, ADVISORY_DB=FOLDER names a clone" >&2
    exit 0
fi
database=$(cd "$database" && pwd)
made=$(git -C "$database" log -1 --format=%ct)
age=$((($(date +%s) - made) / 86400))
echo "advisories: the database is of $(git -C "$database" log -1 --format=%cs), $age days old" >&2
[ "$age" -le $days ] || echo "advisories: OLD, later vulnerabilities aren't known to it; 'make advisories' fetches a newer one" >&2

# cargo-deny clones it: what it is told is where from and where to.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed "s|^\[advisories\]\$|&\ndb-path = \"$work/db\"\ndb-urls = [\"file://$database\"]|" deny.toml >"$work/deny.toml"
PATH="$PATH:$target/tools/bin" cargo deny check --config "$work/deny.toml" advisories
