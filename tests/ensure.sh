#!/usr/bin/env bash
# Installs or starts what is named and missing: docker git node browser python registry deny.
# Where it may not (no root, no apt), says in one line what to install, and fails.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
deny=0.20.2

install() { # what for, packages...
    local what=$1
    shift
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: $what. Install (Debian's names): $*" >&2
        exit 1
    fi
    echo "installing $what: $*" >&2
    local log
    log=$(mktemp)
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1; then
        apt-get update -qq >>"$log" 2>&1 || true
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1 || {
            tail -n 20 "$log" >&2
            echo "could not install: $*" >&2
            exit 1
        }
    fi
    rm -f "$log"
}

for need in "$@"; do
    case $need in
        docker)
            [ -x /bin/busybox ] && [ -x /bin/bash-static ] || install "static shells for images" busybox-static bash-static
            "$here/docker.sh" ensure
            ;;
        git) command -v git >/dev/null || install "Git" git ;;
        node)
            command -v node >/dev/null && command -v npm >/dev/null || install "Node.js" nodejs npm
            major=$(node -p 'process.versions.node.split(".")[0]')
            [ "$major" -ge 20 ] || { echo "Node.js 20 or later is needed, this is $(node --version)" >&2; exit 1; }
            ;;
        browser) command -v chromium >/dev/null || install "Chromium" chromium ;;
        python) command -v python3 >/dev/null && python3 -c 'import venv, ensurepip' 2>/dev/null || install "Python" python3 python3-venv ;;
        registry) command -v docker-registry >/dev/null || install "an image registry for tests" docker-registry ;;
        deny)
            # Built once, into the cache of build output; its own intermediate files don't stay.
            tools=${CARGO_TARGET_DIR:-$here/../target}/tools
            if ! command -v cargo-deny >/dev/null && [ ! -x "$tools/bin/cargo-deny" ]; then
                echo "installing cargo-deny $deny" >&2
                CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --no-default-features \
                    --root "$tools" "cargo-deny@$deny"
                rm -rf "$tools/build"
            fi
            ;;
        *) echo "ensure.sh: unknown need: $need" >&2; exit 2 ;;
    esac
done
