//! A release that never becomes healthy, to containers and to hosts at once: both deployments end
//! in a bounded time and say why, and the release before serves everybody all the while.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use pipeyard_tests::{Site, TestRepo, Users, docker, installation::free_address, until};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(150);
const ENDS: [&str; 4] = ["succeeded", "rolled_back", "failed", "rollback_failed"];
/// How long a target may take to become healthy.
const PATIENCE: u64 = 5;

const PIPELINE: &str = r"
jobs:
  package:
    image: pipeyard/busybox:test
    run: tar czf site.tar.gz appspec.yml scripts www
    artifacts: [site.tar.gz]
deploys:
  web:
    needs: package
    release: site.tar.gz
    to: production/web
    canary: [30% for 3s]
    healthy_when: error_rate < 20%
  worker:
    needs: package
    release: site.tar.gz
    to: production/worker
    rolling: 1 at a time
";

const APPSPEC: &str = "version: 0.0
os: linux
files:
  - source: www
    destination: /www
hooks:
  ApplicationStop:
    - location: scripts/stop.sh
      timeout: 20
  ApplicationStart:
    - location: scripts/start.sh
      timeout: 20
";

const STOP: &str = "#!/bin/sh
pid=$(cat $PIPEYARD_ROOT/pid) || exit 0
kill $pid
while kill -0 $pid 2>/dev/null; do sleep 0.02; done
exit 0
";

const START: &str = "#!/bin/sh
cd $PIPEYARD_ROOT
setsid busybox httpd -f -p $HOST:$PORT -h $PIPEYARD_CURRENT/www &
echo $! > $PIPEYARD_ROOT/pid
";

fn environments(fleet: SocketAddr, web: u16, worker: u16) -> String {
    format!(
        "environments:
  production:
    production: true
    accepts: [{{repo: site, branches: main}}]
    provider: {{endpoint: 'http://{fleet}', region: local, credentials: fleet}}
    services:
      web:
        listen: {web}
        container:
          image: pipeyard/busybox:test
          command: [httpd, -f, -p, '8080', -h, /app/www]
          port: 8080
          health_path: /health
          healthy_within_seconds: {PATIENCE}
      worker:
        listen: {worker}
        hosts:
          tags: {{role: worker}}
          count: 2
          health_path: /health
          healthy_within_seconds: {PATIENCE}
"
    )
}

/// The deployment of this commit to this service, once it is over.
async fn ended(site: &Site, commit: &str, service: &str) -> Value {
    let id = until(&format!("{service} at {commit} is over"), LONG, async || {
        let list = site.json(&["deploy", "list", "--service", service])?;
        let mut list = list.as_array()?.iter();
        let found = list.find(|d| d["release"]["commit"] == commit)?;
        ENDS.contains(&found["state"].as_str()?).then(|| found["id"].to_string())
    })
    .await;
    site.json(&["deploy", "status", &id]).expect("the deployment")
}

/// Containers of a service that exist, with the deployment at the provider that made each.
fn containers(of: &str) -> Vec<String> {
    let filter = format!("label=pipeyard.service={of}");
    let format = "{{.Label \"pipeyard.deployment\"}}";
    let run = Command::new("docker")
        .args(["ps", "-a", "--filter", &filter, "--format", format])
        .output()
        .expect("docker");
    String::from_utf8_lossy(&run.stdout).lines().map(str::to_owned).collect()
}

fn has_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} isn't in {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_never_becomes_healthy_ends_with_its_reason_and_harms_nobody() {
    if !docker("a_release_that_never_becomes_healthy_ends_with_its_reason_and_harms_nobody") {
        return;
    }
    let mut site = Site::start().await;
    let hosts = [site.host(), site.host()];
    let (web, worker) = (free_address().port(), free_address().port());
    let repo = TestRepo::new(site.dir.path(), "site");
    site.add_repo(&repo.bare);
    site.apply(&environments(site.fleet, web, worker));
    for (path, content) in [
        ("appspec.yml", APPSPEC),
        ("scripts/stop.sh", STOP),
        ("scripts/start.sh", START),
        ("www/index.html", "good\n"),
        ("www/health", "ok\n"),
    ] {
        repo.write(path, content);
    }
    let good = repo.push_pipeline(PIPELINE);
    let mut made = Vec::new();
    for service in ["web", "worker"] {
        let found = ended(&site, &good, service).await;
        assert_eq!(found["state"], "succeeded", "{found:#}");
        made.push(found["provider_id"].as_str().expect("an id").to_owned());
    }
    let name = "web/production";
    let before: Vec<_> = containers(name).into_iter().filter(|id| *id == made[0]).collect();
    assert_eq!(before.len(), 1);

    let users = [web, worker].map(|port| Users::of(&format!("http://127.0.0.1:{port}/")));
    repo.write("www/index.html", "sick\n");
    fs::remove_file(repo.work.join("www/health")).expect("remove the health page");
    let sick = repo.commit("Forget the health page");
    repo.push("main");
    let began = Instant::now();

    // Containers: it is noticed before anybody gets there.
    let failed = ended(&site, &sick, "web").await;
    assert_eq!(failed["state"], "failed", "{failed:#}");
    assert!(failed["first_traffic_at"].is_null(), "{failed:#}");
    let reason = failed["reason"]["message"].as_str().expect("a reason");
    let within = format!("not healthy within {PATIENCE} s");
    has_all(reason, &[&within, "container 0: http://127.0.0.1:", "/health answered 404"]);

    // Hosts: the first one fails, and gets back what it had.
    let back = ended(&site, &sick, "worker").await;
    assert_eq!(back["state"], "rolled_back", "{back:#}");
    let reason = back["reason"]["message"].as_str().expect("a reason");
    let tried = hosts.iter().find(|address| reason.contains(&format!("http://{address}/health")));
    assert!(tried.is_some(), "no host's address in {reason:?}");
    has_all(reason, &[&within, "AllowTraffic on host", "answered 404"]);
    assert!(began.elapsed() < Duration::from_secs(90), "it took {:?}", began.elapsed());

    // Everybody was served by the release before, and nothing is left of the sick one.
    for address in hosts {
        let answer = reqwest::get(format!("http://{address}/")).await.expect("the host answers");
        assert_eq!(answer.text().await.expect("its words"), "good\n");
    }
    for users in users {
        let (asked, failed) = users.leave().await;
        assert!(asked > 50 && failed == 0, "{failed} of {asked} requests failed");
    }
    let sick_id = failed["provider_id"].as_str().expect("an id");
    until("its containers are gone", Duration::from_secs(30), async || {
        (!containers(name).iter().any(|id| id == sick_id)).then_some(())
    })
    .await;
    assert!(containers(name).contains(&made[0]));
    let runs = site.json(&["runs", "list"]).expect("the runs");
    let run = runs.as_array().and_then(|r| r.iter().find(|r| r["commit"] == *sick)).expect("a run");
    assert_eq!(run["conclusion"], "failure", "{run:#}");
}
