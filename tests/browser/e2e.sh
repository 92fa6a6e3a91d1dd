#!/usr/bin/env bash
# The web UI on a real server: PIPECTL names the program; the installation is the test's own.
set -euo pipefail
cd "$(dirname "$0")"
: "${PIPECTL:?set PIPECTL to the pipectl under test}"
[ -d node_modules ] || npm ci --no-audit --no-fund --silent
exec npm run --silent e2e
