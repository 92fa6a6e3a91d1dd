//! How long users of a service are without an answer after somebody stopped everything that serves.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use pipeyard_tests::{Site, TestRepo, installation::free_address, until};

use crate::figure::{Figure, Figures, median};

/// How often the set is stopped.
const TIMES: usize = 7;
const LONG: Duration = Duration::from_secs(150);

const PIPELINE: &str = r"
jobs:
  package:
    image: pipeyard/busybox:test
    run: mkdir -p www && cp index.html www/ && tar czf site.tar.gz www
    artifacts: [site.tar.gz]
deploys:
  web: {needs: package, release: site.tar.gz, to: production/web}
";

/// `docker stop` of the whole set until users get 200 again; beside it, `docker start` of the same
/// containers by hand until they do.
pub(crate) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let site = Site::start().await;
    let port = free_address().port();
    let repo = TestRepo::new(site.dir.path(), "site");
    site.add_repo(&repo.bare);
    site.apply(&format!(
        "environments:\n  production:\n    production: true\n    accepts: [{{repo: site, branches: main}}]\n    provider: {{endpoint: 'http://{}', region: local, credentials: fleet}}\n    services:\n      web:\n        listen: {port}\n        container:\n          image: pipeyard/busybox:test\n          command: [httpd, -f, -p, '8080', -h, /app/www]\n          port: 8080\n          health_path: /index.html\n          replicas: 2\n",
        site.fleet
    ));
    repo.write("index.html", "serves\n");
    let commit = repo.push_pipeline(PIPELINE);
    let deployment = site.deployment(&commit, &["succeeded", "failed"], LONG).await;
    anyhow::ensure!(deployment["state"] == "succeeded", "not deployed: {deployment:#}");
    let url = format!("http://127.0.0.1:{port}/index.html");
    let detail = site.json(&["deploy", "status", &deployment["id"].to_string()]);
    let detail = detail.context("no status of the deployment")?;
    let id = detail["provider_id"].as_str().context("it has no id of its provider")?;
    let filter = format!("label=pipeyard.deployment={id}");
    let list = Command::new("docker").args(["ps", "-q", "--filter", &filter]).output()?;
    let ids = String::from_utf8(list.stdout)?;
    let ids: Vec<&str> = ids.lines().collect();
    anyhow::ensure!(ids.len() == 2, "there aren't two containers: {ids:?}");
    let (mut back, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        // Long enough for the last time to be forgotten.
        tokio::time::sleep(Duration::from_secs(12)).await;
        docker("stop", &ids)?;
        let began = Instant::now();
        served(&url).await;
        back.push(began.elapsed().as_secs_f64());
    }
    // The floor, while nobody else brings anything back.
    let fleet = std::fs::read_to_string(site.dir.path().join("data/fleet.pid"))?;
    signal("-STOP", fleet.trim())?;
    for _ in 0..TIMES {
        docker("stop", &ids)?;
        let began = Instant::now();
        docker("start", &ids)?;
        served(&url).await;
        floor.push(began.elapsed().as_secs_f64());
    }
    signal("-CONT", fleet.trim())?;
    let figure = Figure::new("dead_service_back_s", median(&mut back), "s");
    figures.add(figure.floor(Some(median(&mut floor))));
    Ok(())
}

fn docker(verb: &str, ids: &[&str]) -> anyhow::Result<()> {
    let args: &[&str] = if verb == "stop" { &["stop", "-t", "0"] } else { &["start"] };
    let status = Command::new("docker").args(args).args(ids).stdout(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "docker {verb} failed");
    Ok(())
}

fn signal(signal: &str, pid: &str) -> anyhow::Result<()> {
    anyhow::ensure!(Command::new("kill").args([signal, pid]).status()?.success(), "no signal");
    Ok(())
}

async fn served(url: &str) {
    until("users are served", LONG, async || {
        let answer = reqwest::get(url).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
}
