#!/usr/bin/env bash
# Pushes this repository at HEAD into a Pipeyard of its own, and ends green when its own pipeline
# does. Jobs run with the local executor: there may be no registry for the image that they name.
set -euo pipefail
cd "$(dirname "$0")/.."
pipectl=${PIPECTL:-target/debug/pipectl}
dir=$(mktemp -d)
export XDG_CONFIG_HOME="$dir/config"
up=
clean() {
    [ -z "$up" ] || { kill "$up" 2>/dev/null && wait "$up" 2>/dev/null; } || true
    rm -rf "$dir"
}
trap clean EXIT

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
listen=127.0.0.1:$(free)
"$pipectl" up --stop-proxy --executor local --data "$dir/data" --listen "$listen" \
    --fleet-listen "127.0.0.1:$(free)" --proxy-admin "127.0.0.1:$(free)" >"$dir/up.log" 2>&1 &
up=$!
"$pipectl" --server "http://$listen" wait server --timeout 60s
code=$("$pipectl" login-code --data "$dir/data/server")
"$pipectl" login "http://$listen" --code "$code"

git init -q --bare -b main "$dir/pipeyard.git"
"$pipectl" repos add "$dir/pipeyard.git" --install-hook >/dev/null
git push -q "$dir/pipeyard.git" HEAD:refs/heads/main
for _ in $(seq 100); do
    [ "$("$pipectl" runs list --query 'length(@)' -o text)" = 0 ] || break
    sleep 0.1
done
"$pipectl" runs watch latest --timeout 60m || {
    code=$?
    "$pipectl" logs latest --failed | tail -n 60
    exit "$code"
}
