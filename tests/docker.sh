#!/usr/bin/env bash
# docker.sh ensure: makes sure that Docker answers.
#
# Where it doesn't: installs Debian's docker.io (as root on Debian), clears what a killed daemon left
# behind, starts dockerd detached with its log in a file, and waits until it answers. Does nothing
# where Docker answers already. Where it may not act, it says in one line what to do.
set -euo pipefail

log=${TMPDIR:-/tmp}/pipeyard-dockerd.log
pidfile=/var/run/docker.pid
socket=/var/run/docker.sock
wait_seconds=60

say() { echo "docker: $*" >&2; }
answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

# Whether process $1 runs program $2. One that is dead and was never reaped doesn't: Docker would wait
# for it for ever.
runs() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    case $stat in
        *") Z "*) return 1 ;;
        *"($2) "*) return 0 ;;
        *) return 1 ;;
    esac
}

install() {
    if ! is_root || ! command -v apt-get >/dev/null; then
        say "missing: run 'apt-get install $*' as root, or install the same by your system's means"
        exit 1
    fi
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    # No daemon is started by the packages: that is done below, the same way with and without systemd.
    apt-get install -y --no-install-recommends "$@" >"$log.apt" 2>&1 ||
        { apt-get update >>"$log.apt" 2>&1 &&
            apt-get install -y --no-install-recommends "$@" >>"$log.apt" 2>&1; } ||
        { tail -n 5 "$log.apt" >&2; say "apt-get failed, see $log.apt"; exit 1; }
}

# A daemon that was killed leaves its pid file, its socket and sometimes its containerd behind; each
# of them keeps the next daemon from starting.
clear_leftovers() {
    local pid file
    for file in "$pidfile" /run/docker/containerd/containerd.pid /var/run/docker/containerd/docker-containerd.pid; do
        [ -e "$file" ] || continue
        pid=$(cat "$file" 2>/dev/null || true)
        case $file in
            "$pidfile")
                if [ -n "$pid" ] && runs "$pid" dockerd; then
                    return 0 # it lives: it may only be slow to start
                fi
                ;;
            *)
                # The daemon's own containerd outlived it.
                if [ -n "$pid" ] && runs "$pid" containerd; then
                    kill "$pid" 2>/dev/null || true
                    for _ in $(seq 50); do runs "$pid" containerd || break; sleep 0.1; done
                fi
                ;;
        esac
        say "removing the stale $file"
        rm -f "$file"
    done
    [ ! -S "$socket" ] || rm -f "$socket"
}

daemon_pid() {
    local pid
    pid=$(cat "$pidfile" 2>/dev/null || true)
    [ -n "$pid" ] && runs "$pid" dockerd && echo "$pid"
}

start() {
    if ! is_root; then
        say "its daemon doesn't answer, and only root can start it: run 'sudo systemctl start docker', or add yourself to the group docker"
        exit 1
    fi
    command -v dockerd >/dev/null || PATH=$PATH:/usr/sbin:/sbin
    command -v dockerd >/dev/null || install docker.io iptables
    if [ -d /run/systemd/system ] && systemctl cat docker.service >/dev/null 2>&1; then
        systemctl start docker.service || { say "'systemctl start docker' failed: see 'journalctl -u docker'"; exit 1; }
    elif ! daemon_pid >/dev/null; then
        clear_leftovers
        say "starting dockerd, its log is $log"
        setsid dockerd >>"$log" 2>&1 </dev/null &
        local started=$!
        disown
    fi
    for _ in $(seq $((wait_seconds * 5))); do
        answers && return 0
        if [ -n "${started:-}" ] && ! kill -0 "$started" 2>/dev/null; then
            tail -n 5 "$log" >&2
            say "dockerd ended at once, see $log"
            exit 1
        fi
        sleep 0.2
    done
    say "dockerd doesn't answer after $wait_seconds s, see $log"
    exit 1
}

ensure() {
    # The address is the user's own: there is nothing to install or start here.
    if [ -n "${DOCKER_HOST:-}" ]; then
        answers && return 0
        say "nothing answers at DOCKER_HOST=$DOCKER_HOST"
        exit 1
    fi
    local missing=()
    command -v docker >/dev/null || missing+=(docker.io iptables)
    command -v busybox >/dev/null || missing+=(busybox-static)
    command -v bash-static >/dev/null || missing+=(bash-static)
    [ ${#missing[@]} -eq 0 ] || install "${missing[@]}"
    answers || start
}

case ${1:-} in
    ensure) ensure ;;
    *) echo "usage: docker.sh ensure" >&2; exit 2 ;;
esac
