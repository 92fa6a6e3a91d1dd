//! `make bench`: what Pipeyard costs, each figure beside a floor that was measured in the same run on
//! the same machine. One line a figure, and all of them in `target/bench.json`.
//!
//! Only the outside is used: the executable, Git, the API. Figures are medians unless their name says
//! otherwise; machines are noisy, so a figure without its floor says little. Arguments choose parts:
//! `idle`, `jobs`, `steps`, `log`, `webhooks`, `hook`, `ghosts`, `dead`, `queue`; without any, all are
//! measured.

mod dead;
mod figure;
mod floors;
mod ghosts;
mod hook;
mod queue;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use figure::{Figure, Figures, median, percentile};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pipeyard_model::Timestamp;
use pipeyard_tests::{Installation, Options, TestRepo};
use serde_json::Value;
use sha2::Sha256;
use tokio::sync::Semaphore;

/// One-step jobs that are measured one after another.
const JOBS: usize = 8;
/// Steps of the long job.
const STEPS: usize = 101;
/// Webhooks a second, and for how long.
const HOOKS: (u32, u32) = (500, 6);
/// Bytes of log that a job writes.
const LOG_MB: u64 = 128;
const SOON: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    pipeyard_api::client::install_crypto();
    let chosen = Chosen::from_arguments()?;
    let mut figures = Figures::default();
    if chosen.any_of(&PARTS[..PARTS.len() - 2]) {
        installation(&chosen, &mut figures).await?;
    }
    if chosen.has("dead") {
        dead::measure(&mut figures).await?;
    }
    if chosen.has("queue") {
        let (jobs, commits) =
            (queue::jobs_per_second().await?, floors::sqlite_commits_per_second());
        figures.add(Figure::new("queue_jobs_per_s", jobs, "jobs/s").floor(commits));
    }
    figures.write()
}

/// The parts that arguments name; the last two need no installation of the others.
const PARTS: [&str; 9] =
    ["idle", "jobs", "steps", "log", "webhooks", "hook", "ghosts", "dead", "queue"];

/// What is measured in this run.
struct Chosen(Vec<String>);

impl Chosen {
    fn from_arguments() -> anyhow::Result<Self> {
        let named: Vec<_> = std::env::args().skip(1).collect();
        if let Some(unknown) = named.iter().find(|name| !PARTS.contains(&name.as_str())) {
            anyhow::bail!("unknown part {unknown:?}; there are {}", PARTS.join(", "));
        }
        Ok(Self(named))
    }

    fn has(&self, part: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name == part)
    }

    fn any_of(&self, parts: &[&str]) -> bool {
        parts.iter().any(|part| self.has(part))
    }
}

/// The figures of a whole installation: server, runner, Docker, a repository.
async fn installation(chosen: &Chosen, figures: &mut Figures) -> anyhow::Result<()> {
    let pipeyard = Installation::start(Options { slots: 2, ..Options::default() }).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "bench");
    let hook = add_repo(&pipeyard, &repo);
    if chosen.has("idle") {
        idle(&pipeyard, figures).await?;
    }
    if chosen.has("jobs") {
        jobs(&pipeyard, &repo, floors::docker_run(JOBS)?, figures).await?;
    }
    if chosen.has("steps") {
        steps(&pipeyard, &repo, figures).await?;
    }
    if chosen.has("log") {
        log(&pipeyard, &repo, figures).await?;
    }
    if chosen.has("webhooks") {
        webhooks(&pipeyard, &repo, &hook, figures).await?;
    }
    if chosen.has("hook") {
        let sha = nothing_for_branches(&pipeyard, &repo).await;
        let url = format!("{}{}", pipeyard.url(), hook.path);
        figures.add(hook::hook_ms(&repo, &url, &hook.secret, &sha)?);
    }
    if chosen.has("ghosts") {
        let (behind, alone) = ghosts::wait(&pipeyard).await?;
        figures.add(Figure::new("ghost_push_wait_s", behind, "s").floor(Some(alone)));
    }
    Ok(())
}

#[derive(Clone)]
struct Hook {
    path: String,
    secret: String,
}

fn add_repo(pipeyard: &Installation, repo: &TestRepo) -> Hook {
    self::repo(pipeyard, repo, &["--install-hook"])
}

fn repo(pipeyard: &Installation, repo: &TestRepo, flags: &[&str]) -> Hook {
    let path = repo.bare.display().to_string();
    let added = pipeyard.json(&[&["repos", "add", &path], flags].concat());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Hook { path: text(&added["repo"]["hook_path"]), secret: text(&added["hook_secret"]) }
}

/// Resident memory of both processes after they have started and done nothing.
async fn idle(pipeyard: &Installation, figures: &mut Figures) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (server, runner) =
        (pipeyard.server_pid().context("no server")?, pipeyard.runner_pid().context("no runner")?);
    figures.add(Figure::new("server_idle_mb", floors::resident_mb(server)?, "MB"));
    figures.add(Figure::new("runner_idle_mb", floors::resident_mb(runner)?, "MB"));
    Ok(())
}

fn seconds(from: &Value, to: &Value) -> anyhow::Result<f64> {
    let at = |value: &Value| -> anyhow::Result<Timestamp> {
        Ok(value.as_str().context("no time")?.parse()?)
    };
    Ok(at(to)?.since(at(from)?).as_secs_f64())
}

async fn jobs(
    pipeyard: &Installation,
    repo: &TestRepo,
    docker_run: f64,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let mut claimed_to_done = Vec::new();
    let mut push_to_line = Vec::new();
    for round in 0..JOBS {
        repo.write("round", &round.to_string());
        repo.write(
            ".pipeyard.yml",
            "jobs:\n  one:\n    image: pipeyard/busybox:test\n    run: echo first-line\n",
        );
        let sha = repo.commit("Measure a job");
        let pushed = Instant::now();
        repo.push("main");
        push_to_line.push(first_line(pipeyard, &sha, pushed).await?);
        let run = pipeyard.finished_run(&sha, SOON).await;
        anyhow::ensure!(run["conclusion"] == "success", "the job failed: {run:#}");
        let attempt = &run["jobs"][0]["attempts"][0];
        claimed_to_done.push(seconds(&attempt["started_at"], &attempt["finished_at"])?);
    }
    figures.add(
        Figure::new("job_overhead", median(&mut claimed_to_done), "s").floor(Some(docker_run)),
    );
    figures.add(
        Figure::new("push_to_first_line_ms", median(&mut push_to_line) * 1000.0, "ms")
            .floor(Some(docker_run * 1000.0)),
    );
    Ok(())
}

/// From the push to the first line in a reader's hands.
async fn first_line(pipeyard: &Installation, sha: &str, pushed: Instant) -> anyhow::Result<f64> {
    let client = pipeyard.client();
    let deadline = Instant::now() + SOON;
    loop {
        let page: Value = client.get("/api/runs?limit=5").await?;
        if let Some(run) =
            page["items"].as_array().and_then(|runs| runs.iter().find(|r| r["commit"] == sha))
        {
            let path = format!("/api/runs/{}/jobs/one/log?from=1&count=50", run["id"]);
            let log: Result<Value, _> = client.get(&path).await;
            let lines = log.as_ref().ok().and_then(|l| l["lines"].as_array());
            if lines.is_some_and(|lines| lines.iter().any(|l| l["text"] == "first-line")) {
                return Ok(pushed.elapsed().as_secs_f64());
            }
        }
        anyhow::ensure!(Instant::now() < deadline, "no line came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn steps(
    pipeyard: &Installation,
    repo: &TestRepo,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let list = vec!["'true'"; STEPS].join(", ");
    let sha = repo.push_pipeline(&format!(
        "jobs:\n  many:\n    image: pipeyard/busybox:test\n    run: [{list}]\n"
    ));
    let run = pipeyard.finished_run(&sha, SOON).await;
    let steps = run["jobs"][0]["steps"].as_array().context("no steps")?;
    anyhow::ensure!(steps.len() == STEPS, "{} steps instead of {STEPS}", steps.len());
    let all = seconds(&steps[0]["finished_at"], &steps[STEPS - 1]["finished_at"])?;
    let each = all * 1000.0 / (STEPS - 1) as f64;
    figures.add(Figure::new("step_overhead_ms", each, "ms").floor(floors::shell_true_ms()));
    Ok(())
}

async fn log(
    pipeyard: &Installation,
    repo: &TestRepo,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let names: Vec<_> = (0..100).map(|n| format!("SECRET_{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let client = pipeyard.client();
        let body = pipeyard_api::views::SetSecret {
            value: format!("a-secret-value-{n}-{:x}", n * 7919 + 13),
            ..Default::default()
        };
        let _: Value = client.put(&format!("/api/secrets/{name}?all_repos=true"), &body).await?;
    }
    // Written by `cat`: what makes the lines (`tr`, `fold`) takes longer than all that carries them.
    repo.write("lines", &floors::a_megabyte_of_lines());
    let sha = repo.push_pipeline(&format!(
        "jobs:\n  loud:\n    image: pipeyard/busybox:test\n    secrets: [{}]\n    run: {}\n",
        names.join(", "),
        floors::cat_megabytes("lines", LOG_MB)
    ));
    let run = pipeyard.finished_run(&sha, SOON).await;
    anyhow::ensure!(run["conclusion"] == "success", "the loud job failed: {run:#}");
    let job = &run["jobs"][0];
    let took = seconds(&job["steps"][0]["started_at"], &job["finished_at"])?;
    let mb = job["attempts"][0]["log_bytes"].as_f64().context("no length")? / 1e6;
    figures.add(
        Figure::new("log_mb_per_s", mb / took, "MB/s").floor(floors::cat_mb_per_second(LOG_MB)),
    );
    Ok(())
}

/// Tells of a push of a new branch as the hook does; answers the status.
async fn deliver(
    http: &reqwest::Client,
    url: &str,
    hook: &Hook,
    branch: &str,
    sha: &str,
) -> anyhow::Result<u16> {
    let zero = "0".repeat(40);
    let body =
        format!(r#"{{"updates":[{{"ref":"refs/heads/{branch}","old":"{zero}","new":"{sha}"}}]}}"#);
    let mut mac = Hmac::<Sha256>::new_from_slice(hook.secret.as_bytes())?;
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let url = format!("{url}{}", hook.path);
    let request = http.post(url).header("x-pipeyard-signature-256", signature).body(body);
    Ok(request.send().await?.status().as_u16())
}

/// A commit that has no pipeline for branches: what is measured is the acknowledgement, not the work
/// after.
async fn nothing_for_branches(pipeyard: &Installation, repo: &TestRepo) -> String {
    let sha = repo.push_pipeline(
        "when:\n  push: main\njobs:\n  one:\n    image: pipeyard/busybox:test\n    run: 'true'\n",
    );
    let _ = pipeyard.finished_run(&sha, SOON).await;
    sha
}

async fn webhooks(
    pipeyard: &Installation,
    repo: &TestRepo,
    hook: &Hook,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let sha = nothing_for_branches(pipeyard, repo).await;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let hook = Arc::new(hook.clone());
    let places = Arc::new(Semaphore::new(256));
    let began = Instant::now();
    let mut sent = Vec::new();
    for n in 0..HOOKS.0 * HOOKS.1 {
        tokio::time::sleep_until(
            (began + Duration::from_secs_f64(f64::from(n) / f64::from(HOOKS.0))).into(),
        )
        .await;
        let place = Arc::clone(&places).acquire_owned().await?;
        let (http, url, hook, sha) = (http.clone(), pipeyard.url(), Arc::clone(&hook), sha.clone());
        sent.push(tokio::spawn(async move {
            let asked = Instant::now();
            let status = deliver(&http, &url, &hook, &format!("b{n}"), &sha).await;
            drop(place);
            (status, asked.elapsed().as_secs_f64() * 1000.0)
        }));
    }
    let mut took = Vec::new();
    for request in sent {
        let (status, ms) = request.await?;
        anyhow::ensure!(matches!(status, Ok(200..=299)), "a webhook was answered with {status:?}");
        took.push(ms);
    }
    figures.add(
        Figure::new("webhook_ack_p99_ms", percentile(&mut took, 99), "ms")
            .floor(Some(floors::sync_p99_ms()?)),
    );
    Ok(())
}
