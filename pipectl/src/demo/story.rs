//! The story: three pushes and what came of them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use pipeyard_api::{
    client::Client,
    deploys::{
        Applied, DeploymentDetail, DeploymentView, DoraView, EnvironmentView, EnvironmentsFile,
        IncidentView, OpenIncident,
    },
    views::{AddRepo, AddedRepo, Page, RunDetail, RunView},
};
use pipeyard_model::{RunId, Status};
use serde_json::{Value, json};

use super::{load::Load, parts::Running, repo::ShopRepo, tell};

/// The longest that a version may take from its push to its end.
const VERSION: Duration = Duration::from_secs(240);
/// Requests a second that the simulated users of the web make: the judge wants a hundred requests of
/// a canary before a step passes, and at 10 % that many come in some 13 seconds.
const WEB_LOAD: f64 = 80.0;
/// Requests a second of the independent prober at the worker.
const WORKER_LOAD: f64 = 10.0;

/// Tells the story; answers its facts.
pub(crate) async fn tell_story(
    demo: &Running,
    shop: &Path,
    envs: &EnvironmentsFile,
    seed: u64,
) -> anyhow::Result<Value> {
    let client = demo.client();
    let mut facts = json!({"seed": seed, "runs": {}, "deployments": {}, "durations": {}});

    let repo = ShopRepo::make(&demo.dir().join("git"), shop).await?;
    let added: AddedRepo = client
        .post(
            "/api/repos",
            &AddRepo {
                name: None,
                url: repo.bare.display().to_string(),
                forge: None,
                default_branch: None,
            },
        )
        .await
        .context("failed to add the repository")?;
    pipeyard_cli::commands::hook::install(
        &repo.bare,
        &format!("{}{}", client.base(), added.repo.hook_path),
        &added.hook_secret,
    )
    .map_err(|f| anyhow::anyhow!(f.message))?;
    let ports: Vec<(String, u16)> = envs
        .environments
        .values()
        .flat_map(|e| e.services.iter().map(|(name, s)| (name.to_string(), s.listen)))
        .collect();
    let port = |name: &str| {
        ports
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, p)| *p)
            .context("a service is missing in envs.yml")
    };
    let (web, worker) = (port("web")?, port("worker")?);
    let _: Applied =
        client.put("/api/environments", envs).await.context("failed to apply the environments")?;
    tell("1. a bare repository with the sample shop, two services in production: web and worker");

    tell("2. push v1: the first release of both services");
    version(client, &repo, "v1", "Open the shop", &mut facts).await?;

    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let users = Load::start(http.clone(), format!("http://127.0.0.1:{web}/"), WEB_LOAD, seed);
    let prober =
        Load::start(http.clone(), format!("http://127.0.0.1:{worker}/"), WORKER_LOAD, seed ^ 1);
    tell(&format!("   users arrive: {WEB_LOAD} requests a second at http://127.0.0.1:{web}/"));

    tell("3. push v2: a canary for web, judged while traffic shifts, then rolling for worker");
    version(client, &repo, "v2", "Show prices", &mut facts).await?;
    facts["users"] = json!({"errors_before_v3": users.seen().server_errors});

    tell("4. push v3: it answers 8 % of the requests with errors");
    let before = Instant::now();
    version(client, &repo, "v3", "Make the cart faster", &mut facts).await?;
    facts["durations"]["v3_push_to_rolled_back_s"] = json!(before.elapsed().as_secs());

    tell("5. on-call writes the incident down and closes it");
    incident(client, &facts).await?;

    facts["users"]["web"] = json!(users.stop().await);
    facts["users"]["worker"] = json!(prober.stop().await);
    facts["serving"] = serving(client, &facts).await?;
    facts["answers"] = json!({
        "web": answer(&http, web).await,
        "worker": answer(&http, worker).await,
    });

    let dora: DoraView = client.get("/api/dora?env=production&since=1d&by=day").await?;
    facts["dora"] = metrics(&dora);
    tell("6. DORA metrics, each with the rows behind it:");
    for metric in &dora.metrics {
        let value =
            metric.value.map_or_else(|| "-".to_owned(), |v| format!("{v:.3} {}", metric.unit));
        let numerator = metric.numerator.map(|n| format!("{n} of ")).unwrap_or_default();
        tell(&format!("   {:<34} {value} ({numerator}{})", metric.title, metric.n));
    }
    Ok(facts)
}

fn metrics(dora: &DoraView) -> Value {
    let mut all = json!({});
    for metric in &dora.metrics {
        all[&metric.name] = json!({
            "value": metric.value, "unit": metric.unit, "n": metric.n, "numerator": metric.numerator,
            "rows": metric.rows_total,
        });
    }
    all
}

/// Pushes a version and waits until its run has ended; notes what came of it.
async fn version(
    client: &Client,
    repo: &ShopRepo,
    name: &str,
    message: &str,
    facts: &mut Value,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let commit = repo.push_version(name, message).await?;
    let id = run_of(client, &commit).await?;
    tell(&format!("   run {id} for {}: {}/runs/{id}", &commit[..10], client.base()));
    let run = ended(client, id).await?;
    for job in &run.jobs {
        let conclusion = job.conclusion.map_or("-", |c| c.as_str());
        let why = job.reason.as_ref().map(|r| format!(": {}", r.message)).unwrap_or_default();
        tell(&format!("   {:<10} {conclusion}{why}", job.name));
        if let Some(deployment) = job.deployment {
            let detail: DeploymentDetail =
                client.get(&format!("/api/deployments/{deployment}")).await?;
            note_deployment(name, &detail, facts);
        }
    }
    facts["runs"][name] = json!({"id": id, "commit": commit, "conclusion": run.run.conclusion});
    facts["durations"][format!("{name}_s")] = json!(began.elapsed().as_secs());
    Ok(())
}

fn note_deployment(version: &str, detail: &DeploymentDetail, facts: &mut Value) {
    let view: &DeploymentView = &detail.deployment;
    let strategy = view.strategy_text.split_whitespace().next().unwrap_or("");
    let key = format!("{version}/{}", view.service);
    facts["deployments"][&key] = json!({
        "id": view.id,
        "strategy": strategy,
        "state": view.state,
        "verdict": view.verdict.as_ref().map(|v| v.verdict.clone()),
        "why": view.verdict.as_ref().map(|v| v.message.clone()),
        "weights": detail.steps.iter().map(|s| json!({"intended": s.weight, "measured": s.measured_weight})).collect::<Vec<_>>(),
    });
    if let Some(verdict) = &view.verdict {
        tell(&format!("              {}: {}", verdict.verdict, verdict.message));
    }
}

async fn run_of(client: &Client, commit: &str) -> anyhow::Result<RunId> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let page: Page<RunView> = client.get("/api/runs?limit=20").await?;
        if let Some(run) = page.items.iter().find(|r| r.commit == commit) {
            return Ok(run.id);
        }
        anyhow::ensure!(Instant::now() < deadline, "no run came of {commit} within a minute");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ended(client: &Client, id: RunId) -> anyhow::Result<RunDetail> {
    let deadline = Instant::now() + VERSION;
    loop {
        let run: RunDetail = client.get(&format!("/api/runs/{id}")).await?;
        if run.run.status == Status::Finished {
            return Ok(run);
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "run {id} hasn't ended within {} s",
            VERSION.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn incident(client: &Client, facts: &Value) -> anyhow::Result<()> {
    let deployment = serde_json::from_value(facts["deployments"]["v3/web"]["id"].clone()).ok();
    let open = OpenIncident {
        environment: "production".parse()?,
        service: "web".parse()?,
        title: "Carts fail since v3".into(),
        key: Some("demo".into()),
        impact_at: None,
        detected_at: None,
        deployment,
    };
    let incident: IncidentView = client.post("/api/incidents", &open).await?;
    // Told twice, as pagers do: it stays one.
    let again: IncidentView = client.post("/api/incidents", &open).await?;
    anyhow::ensure!(incident.id == again.id, "the same incident was opened twice");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _: IncidentView =
        client.post(&format!("/api/incidents/{}/close", incident.id), &json!({})).await?;
    Ok(())
}

/// Which version each service serves, by the commit of its release.
async fn serving(client: &Client, facts: &Value) -> anyhow::Result<Value> {
    let environments: Vec<EnvironmentView> = client.get("/api/environments").await?;
    let mut found = json!({});
    for service in environments.iter().flat_map(|e| &e.services) {
        let commit = service.serving.as_ref().map(|s| s.release.commit.clone());
        let version = ["v1", "v2", "v3"]
            .into_iter()
            .find(|v| facts["runs"][*v]["commit"].as_str() == commit.as_deref());
        found[service.name.as_str()] = json!(version);
    }
    Ok(found)
}

async fn answer(http: &reqwest::Client, port: u16) -> Option<String> {
    let text =
        http.get(format!("http://127.0.0.1:{port}/")).send().await.ok()?.text().await.ok()?;
    text.lines().next().map(|line| line.chars().take(120).collect())
}
