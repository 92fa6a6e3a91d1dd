//! Killing parts in mid-canary, under traffic. One push gives one deployment; users are served; the
//! rollout goes on or rolls back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pipeyard_tests::{Site, TestRepo, docker, installation::free_address};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
const LONG: Duration = Duration::from_secs(150);
const ENDS: [&str; 3] = ["succeeded", "rolled_back", "failed"];

const PIPELINE: &str = r"
jobs:
  package:
    image: pipeyard/busybox:test
    run: mkdir -p www && cp index.html www/ && tar czf site.tar.gz www
    artifacts: [site.tar.gz]
deploys:
  web:
    needs: package
    release: site.tar.gz
    to: production/web
    canary: [30% for 3s, 60% for 3s]
    healthy_when:
      - error_rate < 20%
    otherwise: rollback
";

fn environments(fleet: &str, port: u16) -> String {
    format!(
        "environments:\n  production:\n    production: true\n    provider: {{endpoint: 'http://{fleet}', region: local, credentials: fleet}}\n    services:\n      web:\n        listen: {port}\n        container:\n          image: pipeyard/busybox:test\n          command: [httpd, -f, -p, '8080', -h, /app/www]\n          port: 8080\n          health_path: /index.html\n          replicas: 2\n"
    )
}

/// Users: what they asked for, and what they didn't get.
#[derive(Default)]
struct Users {
    asked: AtomicU64,
    failed: AtomicU64,
}

async fn visit(url: String, users: Arc<Users>, stop: CancellationToken) {
    let http =
        reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
    while !stop.is_cancelled() {
        let answer = http.get(&url).send().await;
        users.asked.fetch_add(1, Ordering::SeqCst);
        if !answer.is_ok_and(|a| a.status().is_success()) {
            users.failed.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_parts_in_mid_canary_fails_no_request_and_doubles_no_deployment() {
    if !docker("killing_parts_in_mid_canary_fails_no_request_and_doubles_no_deployment") {
        return;
    }
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let site = Site::start().await;
    let port = free_address().port();
    site.apply(&environments(&site.fleet.to_string(), port));
    let repo = TestRepo::new(site.dir.path(), "site");
    site.add_repo(&repo.bare);
    repo.write("index.html", "version 0\n");
    let first = repo.push_pipeline(PIPELINE);
    let deployment = site.deployment(&first, &ENDS, LONG).await;
    assert_eq!(deployment["state"], "succeeded", "{deployment:#}");

    let users = Arc::new(Users::default());
    let stop = CancellationToken::new();
    let url = format!("http://127.0.0.1:{port}/index.html");
    let visits: Vec<_> = (0..2)
        .map(|_| tokio::spawn(visit(url.clone(), Arc::clone(&users), stop.clone())))
        .collect();
    let mut commits = vec![first];
    for round in 0..ROUNDS {
        repo.write("index.html", &format!("version {}\n", round + 1));
        let commit = repo.commit(&format!("Round {round}"));
        repo.push("main");
        // In flight, or the kill would prove nothing.
        site.deployment(&commit, &["shifting"], LONG).await;
        for part in ["server", "fleet"] {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
            site.kill(part);
        }
        let ended = site.deployment(&commit, &ENDS, LONG).await;
        assert_eq!(ended["state"], "succeeded", "round {round}: {ended:#}");
        commits.push(commit);
    }
    assert_eq!(
        users.failed.load(Ordering::SeqCst),
        0,
        "of {} requests",
        users.asked.load(Ordering::SeqCst)
    );

    // The proxy itself: its port is closed until it is back, and it comes back with its routes.
    for round in 0..ROUNDS {
        let before = users.failed.load(Ordering::SeqCst);
        site.kill("proxy");
        let killed = Instant::now();
        let back =
            pipeyard_tests::until("the proxy serves again", Duration::from_secs(30), async || {
                let answer = reqwest::get(&url).await.ok()?;
                answer.text().await.ok()
            })
            .await;
        assert_eq!(back, format!("version {ROUNDS}\n"), "round {round}");
        let settled = users.failed.load(Ordering::SeqCst);
        eprintln!(
            "proxy back after {:?}, {} requests failed meanwhile",
            killed.elapsed(),
            settled - before
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let calm = users.failed.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(users.failed.load(Ordering::SeqCst), calm, "requests fail after the proxy is back");
    stop.cancel();
    for visitor in visits {
        visitor.await.expect("the visitor");
    }
    assert!(users.asked.load(Ordering::SeqCst) > 200, "nobody visited");

    let list = site.json(&["deploy", "list", "--limit", "100"]).expect("the deployments");
    let list = list.as_array().expect("a list");
    assert_eq!(list.len(), commits.len(), "one push gives one deployment: {list:#?}");
    for commit in &commits {
        assert_eq!(
            list.iter().filter(|d| d["release"]["commit"] == **commit).count(),
            1,
            "{commit}"
        );
    }
    let dora = site.json(&["dora", "--env", "production"]).expect("the metrics");
    assert_eq!(dora["metrics"][0]["n"], commits.len(), "{dora:#}");
}
