#!/usr/bin/env bash
# Puts GitHub's published example payloads under target/github-payloads, for the webhook's test.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
into=${1:-"$here/../../../target/github-payloads"}
mkdir -p "$into"
cp "$here/package.json" "$here/package-lock.json" "$into/"
npm --prefix "$into" ci --ignore-scripts --no-audit --no-fund --silent
