#!/usr/bin/env bash
# The figure demo_cold_s: `make demo CHECK=1` of this commit, from nothing: a new clone, an empty cargo
# home, an empty npm cache, an empty target folder. What the system has (Rust, Node.js, Docker) stays.
set -euo pipefail
cd "$(dirname "$0")/.."
kept=${CARGO_TARGET_DIR:-$PWD/target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet . "$work/clone"
fresh=$(tests/fresh.sh "$work")
eval "$fresh"
began=$(date +%s.%N)
(cd "$work/clone" && env -u MAKEFLAGS -u MAKELEVEL CARGO_TARGET_DIR="$work/target" \
    make demo CHECK=1 PORT="${PORT:-9470}") >"$work/facts" || {
    echo "the demo failed" >&2
    exit 1
}
seconds=$(awk -v began="$began" -v ended="$(date +%s.%N)" 'BEGIN { printf "%.1f", ended - began }')
echo "bench demo_cold_s $seconds s"
mkdir -p "$kept"
printf '[{"name":"demo_cold_s","value":%s,"unit":"s","floor":null,"ratio":null}]\n' "$seconds" >"$kept/bench.json"
