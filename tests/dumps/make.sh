#!/usr/bin/env bash
# Makes a dump of an installation's data as one version of pipectl leaves it: make.sh PIPECTL OUT.tar.gz
#
# What it holds when it is cut off in the middle (every part is killed with -9):
#   run 1  finished: tested, packed, web's first release in production; its log and artifact
#   run 2  a canary of web in production in progress at 10 %, while worker waits for a label's runner
#   run 3  of branch `staging`: a deployment of web to staging waits for an approval
#   run 4  of branch `slow`: one job runs, one waits for it
# with a secret of all repositories, one of the repository, a closed incident and an API token.
# It lies under a neutral path and knows no host's name; open.py lets its times begin anew.
set -euo pipefail
pipectl=$(realpath "$1")
out=$(realpath -m "$2")
root=/tmp/pipeyard-dump
here=$(cd "$(dirname "$0")" && pwd)
finish() { [ -z "${up:-}" ] || kill "$up" 2>/dev/null || true; }
trap finish EXIT
[ -z "${PIPEYARD_DUMP_UTS:-}" ] && PIPEYARD_DUMP_UTS=1 exec unshare -u bash -c 'hostname build-1 && exec "$0" "$@"' "$here/make.sh" "$pipectl" "$out"

rm -rf "$root"
mkdir -p "$root"
export HOME=$root/home XDG_CONFIG_HOME=$root/home/config GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=Ada GIT_AUTHOR_EMAIL=ada@example.com GIT_COMMITTER_NAME=Ada GIT_COMMITTER_EMAIL=ada@example.com
mkdir -p "$HOME"
py() { "$pipectl" --output json "$@"; }
wait_until() { # what, command...
    local what=$1
    shift
    for _ in $(seq 150); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done
    echo "never came: $what" >&2
    exit 1
}

"$pipectl" up --data $root/data --listen 127.0.0.1:18470 --fleet-listen 127.0.0.1:18471 \
    --proxy-admin 127.0.0.1:18472 --slots 2 --stop-proxy >$root/up.log 2>&1 &
up=$!
wait_until "ready" curl -fs http://127.0.0.1:18470/readyz
wait_until "the fleet" test -s $root/data/fleet/credentials.json
wait_until "a login code" "$pipectl" login-code --data $root/data/server
"$pipectl" login http://127.0.0.1:18470 --code "$("$pipectl" login-code --data $root/data/server)"

git init -q --bare -b main $root/shop.git
git init -q -b main $root/work
cd $root/work
git remote add origin $root/shop.git
"$pipectl" repos add $root/shop.git --install-hook
echo "known to every repository" | "$pipectl" secrets set SHARED_PASSWORD --stdin
echo "known to the shop" | "$pipectl" secrets set SHOP_PASSWORD --repo shop --stdin
cat >$root/envs.yml <<'YML'
environments:
  production:
    production: true
    provider: {endpoint: "http://127.0.0.1:18471", region: local, credentials: fleet}
    services:
      web:
        listen: 18480
        container: {image: "pipeyard/busybox:test", command: [/app/bin/web], port: 8080, health_path: /healthz, replicas: 2}
  staging:
    provider: {endpoint: "http://127.0.0.1:18471", region: local, credentials: fleet}
    services:
      web:
        listen: 18482
        container: {image: "pipeyard/busybox:test", command: [/app/bin/web], port: 8080, health_path: /healthz}
YML
"$pipectl" envs apply $root/envs.yml

mkdir -p bin web
cat >bin/web <<'SH'
#!/bin/sh
exec busybox httpd -f -p "$PORT" -h /app/web
SH
chmod +x bin/web
echo ok >web/healthz
pipeline() { # deploys
    cat >.pipeyard.yml <<YML
when: {push: [main, staging, slow]}
jobs:
  test:
    image: pipeyard/busybox:test
    secrets: [SHARED_PASSWORD, SHOP_PASSWORD]
    run:
      - test -n "\$SHARED_PASSWORD" && test -n "\$SHOP_PASSWORD"
      - for n in 1 2 3 4 5 6 7 8 9 10; do echo "checked \$n"; done
  package:
    needs: test
    image: pipeyard/busybox:test
    run: tar czf shop.tar.gz bin web
    artifacts: shop.tar.gz
$1
YML
}
push() { git add -A && git commit -qm "$1" && git push -q origin "HEAD:$2"; }
run_state() { [ "$(py runs view "$1" --query "$2" | tr -d '"')" = "$3" ]; }

echo "shop one" >web/index.html
pipeline 'deploys:
  web: {needs: package, release: shop.tar.gz, to: production/web}'
push "Open the shop" main
wait_until "run 1 is over" run_state 1 conclusion success
curl -fs http://127.0.0.1:18480/ | grep -q "shop one"

echo "shop two" >web/index.html
pipeline 'deploys:
  web: {needs: package, release: shop.tar.gz, to: production/web, canary: [10% for 2h, 50% for 2h], healthy_when: [error_rate < 5%], otherwise: hold}'
push "Show prices" main
wait_until "the canary shifts" bash -c "'$pipectl' deploy list --output json | grep -q '\"shifting\"'"
for _ in $(seq 40); do curl -fs http://127.0.0.1:18480/ >/dev/null; done

echo "shop three" >web/index.html
pipeline 'deploys:
  web: {needs: package, release: shop.tar.gz, to: staging/web, approve: true, when: {push: staging}}'
push "Make the cart faster" staging
wait_until "an approval is awaited" bash -c "'$pipectl' deploy list --output json | grep -q '\"awaiting_approval\"'"

cat >.pipeyard.yml <<'YML'
when: {push: [slow]}
jobs:
  slow:
    image: pipeyard/busybox:test
    retry: 1
    run:
      - echo begun
      - if [ "$PIPEYARD_ATTEMPT" = 1 ]; then sleep 600; fi
      - echo done
  after:
    needs: slow
    image: pipeyard/busybox:test
    run: echo after
YML
push "Take its time" slow
wait_until "the slow job runs" bash -c "'$pipectl' logs 4 slow | grep -q begun"
"$pipectl" incidents open production/web "Carts were slow" --key one
py runs list --query '[].[id,status,conclusion]' | tr -d ' \n'
py deploy list --query '[].[id,environment,state]' | tr -d ' \n'
sleep 2

# Cut off: everything dies at once.
kill -STOP $up
for part in runner server fleet proxy; do kill -9 "$(cat $root/data/$part.pid)"; done
kill -9 $up
date +%s%6N >$root/made_at
# What they left in Docker: what carries an id that stands in the data.
for kind in container network; do
    for id in $(docker $kind ls -q $([ $kind = container ] && echo -a)); do
        format='{{range $k, $v := .Config.Labels}}{{println $v}}{{end}}'
        [ $kind = network ] && format='{{range $k, $v := .Labels}}{{println $v}}{{end}}'
        for value in $(docker $kind inspect -f "$format" "$id" | grep -E '^[0-9a-f-]{32,36}$'); do
            if grep -rqa "$value" $root/data; then docker $kind rm $([ $kind = container ] && echo -f) "$id" >/dev/null; break; fi
        done
    done
done
# Not part of what an upgrade must carry: the clone, samples, a program that every start writes anew.
rm -rf $root/work $root/up.log $root/data/*.pid $root/data/runner/shim $root/shop.git/hooks/*.sample

tar -C /tmp -cz -f "$out" --owner=0 --group=0 --numeric-owner pipeyard-dump
ls -l "$out"
