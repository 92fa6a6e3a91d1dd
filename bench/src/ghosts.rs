//! Pushes of commits that don't exist, and what a true push waits behind them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use pipeyard_tests::{Installation, TestRepo};
use tokio::sync::Semaphore;

use crate::{Hook, deliver, figure::median};

/// Requests whose commit never was, open at once.
const GHOSTS: usize = 1_000;
/// True pushes of which the median is taken, with and without them.
const PUSHES: usize = 5;

/// Seconds until a true push has its run: behind the ghosts, and without them.
pub(crate) async fn wait(pipeyard: &Installation) -> anyhow::Result<(f64, f64)> {
    let repo = TestRepo::new(pipeyard.dir.path(), "ghosts");
    // Without the hook in the repository: what is measured is the server.
    let hook = crate::repo(pipeyard, &repo, &[]);
    repo.push_pipeline("jobs:\n  one:\n    image: none\n    labels: [nobody]\n    run: 'true'\n");
    let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
    let floor = pushes(pipeyard, &repo, &hook, &http).await?;
    let hook = Arc::new(hook);
    let places = Arc::new(Semaphore::new(32));
    let mut sent = Vec::new();
    for n in 0..GHOSTS {
        let place = Arc::clone(&places).acquire_owned().await?;
        let (http, hook, url) = (http.clone(), Arc::clone(&hook), pipeyard.url());
        sent.push(tokio::spawn(async move {
            let status =
                deliver(&http, &url, &hook, &format!("ghost{n}"), &format!("{n:040x}")).await;
            drop(place);
            status
        }));
    }
    for one in sent {
        let status = one.await??;
        anyhow::ensure!((200..300).contains(&status), "a push was answered with {status}");
    }
    Ok((pushes(pipeyard, &repo, &hook, &http).await?, floor))
}

async fn pushes(
    pipeyard: &Installation,
    repo: &TestRepo,
    hook: &Hook,
    http: &reqwest::Client,
) -> anyhow::Result<f64> {
    let mut took = Vec::new();
    for _ in 0..PUSHES {
        let sha = repo.commit("A true push");
        repo.push("main");
        let began = Instant::now();
        deliver(http, &pipeyard.url(), hook, "main", &sha).await?;
        loop {
            let page: serde_json::Value = pipeyard.client().get("/api/runs?limit=5").await?;
            let runs = page["items"].as_array().context("no list of runs")?;
            if runs.iter().any(|run| run["commit"] == sha) {
                break;
            }
            anyhow::ensure!(began.elapsed() < Duration::from_secs(120), "the push has no run");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        took.push(began.elapsed().as_secs_f64());
        // Between two looks of a person, so to say: not in step with the server's own.
        tokio::time::sleep(Duration::from_millis(730)).await;
    }
    Ok(median(&mut took))
}
