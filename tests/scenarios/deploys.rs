//! Killing parts in mid-canary, under traffic. One push gives one deployment; users are served; the
//! rollout goes on or rolls back.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use pipeyard_tests::{Site, TestRepo, Users, docker, installation::free_address, until};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

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
        "environments:\n  production:\n    production: true\n    accepts: [{{repo: site, branches: main}}]\n    provider: {{endpoint: 'http://{fleet}', region: local, credentials: fleet}}\n    services:\n      web:\n        listen: {port}\n        container:\n          image: pipeyard/busybox:test\n          command: [httpd, -f, -p, '8080', -h, /app/www]\n          port: 8080\n          health_path: /index.html\n          replicas: 2\n"
    )
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
    let repo = TestRepo::new(site.dir.path(), "site");
    site.add_repo(&repo.bare);
    site.apply(&environments(&site.fleet.to_string(), port));
    repo.write("index.html", "version 0\n");
    let first = repo.push_pipeline(PIPELINE);
    let deployment = site.deployment(&first, &ENDS, LONG).await;
    assert_eq!(deployment["state"], "succeeded", "{deployment:#}");

    let url = format!("http://127.0.0.1:{port}/index.html");
    let users = Users::of(&url);
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
    assert_eq!(users.failed(), 0, "of {} requests", users.asked());

    // The proxy itself: its port is closed until it is back, and it comes back with its routes.
    for round in 0..ROUNDS {
        let before = users.failed();
        site.kill("proxy");
        let killed = Instant::now();
        let back = until("the proxy serves again", Duration::from_secs(30), async || {
            let answer = reqwest::get(&url).await.ok()?;
            answer.text().await.ok()
        })
        .await;
        assert_eq!(back, format!("version {ROUNDS}\n"), "round {round}");
        let settled = users.failed();
        eprintln!(
            "proxy back after {:?}, {} requests failed meanwhile",
            killed.elapsed(),
            settled - before
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let calm = users.failed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(users.failed(), calm, "requests fail after the proxy is back");
    let (asked, _) = users.leave().await;
    assert!(asked > 200, "nobody visited");

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

/// The fleet is dead and can't come back, because its port is taken: people must see that, and
/// since when, wherever they look at the deployment; users must not.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_away_in_mid_canary_is_seen_by_people_and_not_by_users() {
    if !docker("a_provider_that_is_away_in_mid_canary_is_seen_by_people_and_not_by_users") {
        return;
    }
    let site = Site::start().await;
    let port = free_address().port();
    let repo = TestRepo::new(site.dir.path(), "site");
    site.add_repo(&repo.bare);
    site.apply(&environments(&site.fleet.to_string(), port));
    repo.write("index.html", "version 0\n");
    let first = repo.push_pipeline(PIPELINE);
    let deployment = site.deployment(&first, &ENDS, LONG).await;
    assert_eq!(deployment["state"], "succeeded", "{deployment:#}");
    let users = Users::of(&format!("http://127.0.0.1:{port}/index.html"));
    repo.write("index.html", "version 1\n");
    let commit = repo.push_pipeline(&PIPELINE.replace("30% for 3s", "30% for 20s"));
    site.deployment(&commit, &["shifting"], LONG).await;

    // Whoever starts it again may be faster than this test: then it is killed once more.
    let in_its_way = until("the fleet is away", Duration::from_secs(20), async || {
        let _ = site.try_kill("fleet");
        TcpListener::bind(site.fleet).ok()
    })
    .await;
    in_its_way.set_nonblocking(true).expect("a listener that doesn't wait");
    let seen = until("people see the trouble", Duration::from_secs(60), async || {
        // Whoever calls is hung up on.
        while in_its_way.accept().is_ok() {}
        let found = site.json(&["deploy", "status", "latest"])?;
        found["trouble"].is_object().then_some(found)
    })
    .await;
    assert_eq!(seen["state"], "shifting", "{seen:#}");
    assert_eq!(seen["trouble"]["code"], "provider_unreachable", "{seen:#}");
    assert_eq!(seen["trouble"]["doing"], "30 % of the traffic stays with the new release");
    let words = site.pipectl_ok(&["deploy", "status", "latest"]);
    assert!(words.contains("the provider can't be reached"), "{words}");
    let told = |seen: &serde_json::Value, code: &str| {
        let lines = seen["timeline"].as_array().expect("a timeline");
        lines.iter().filter(|line| line["code"] == code).count()
    };
    assert_eq!(told(&seen, "provider_trouble"), 1, "{seen:#}");

    drop(in_its_way);
    let ended = site.deployment(&commit, &ENDS, LONG).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    let seen = site.json(&["deploy", "status", "latest"]).expect("the deployment");
    assert!(seen["trouble"].is_null(), "{seen:#}");
    assert_eq!(told(&seen, "provider_answers"), 1, "{seen:#}");
    let (asked, failed) = users.leave().await;
    assert!(asked > 200 && failed == 0, "{failed} of {asked} requests failed");
}
