//! Runs: creating them, and what people and the deploy driver do to them.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use pipeyard_api::views::{JobView, RunDetail, RunView};
use pipeyard_model::{
    Conclusion, JobId, NodeName, RunId, Timestamp, UserId,
    job::{JobEvent, JobState, Kind, Reason},
    plan::{NodeKind, Plan},
};
use pipeyard_store::{
    StoreError, StoreResult,
    runs::{NewRun, ReadyDeploy, RunContent, RunFilter, Runs},
};
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::{
    SqliteStore, audit,
    column::{self, failed},
    events::{self, NewEvent},
    intake::event_word,
    jobs::{Change, Node, load_nodes},
    outbox, run_view,
};

/// A node as it is inserted.
#[derive(Serialize)]
struct NewNode {
    id: String,
    name: String,
    kind: &'static str,
    spec: String,
    labels: String,
    retry: u32,
    once: bool,
    state: &'static str,
    reason_code: Option<&'static str>,
    reason_message: Option<&'static str>,
}

/// An edge of the graph: what is needed, by whom.
type Need = (String, String);

fn new_nodes(plan: &Plan, held: bool) -> StoreResult<(Vec<NewNode>, Vec<Need>)> {
    let ids: BTreeMap<&str, String> =
        plan.nodes.iter().map(|node| (node.name.as_str(), JobId::new().to_string())).collect();
    let mut needs = Vec::new();
    let mut nodes = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        let id = ids[node.name.as_str()].clone();
        for need in &node.needs {
            let need = ids.get(need.as_str()).ok_or_else(|| {
                StoreError::conflict(
                    "unknown_need",
                    format!("{} needs {need}, which the plan lacks", node.name),
                )
            })?;
            needs.push((need.clone(), id.clone()));
        }
        let ready = !held && node.needs.is_empty();
        let (kind, spec, labels, retry, once, wait) = match &node.kind {
            NodeKind::Job(spec) => (
                "job",
                column::to_json(spec)?,
                column::to_json(&spec.labels)?,
                spec.retry,
                spec.once,
                ("waiting_for_runner", "waits for a free runner"),
            ),
            NodeKind::Deploy(spec) => (
                "deploy",
                column::to_json(spec)?,
                "[]".to_owned(),
                0,
                false,
                ("waiting_for_deployment", "waits for its deployment to be started"),
            ),
        };
        nodes.push(NewNode {
            id,
            name: node.name.to_string(),
            kind,
            spec,
            labels,
            retry,
            once,
            state: if held {
                "held"
            } else if ready {
                "ready"
            } else {
                "waiting"
            },
            reason_code: ready.then_some(wait.0),
            reason_message: ready.then_some(wait.1),
        });
    }
    Ok((nodes, needs))
}

async fn create(c: &mut SqliteConnection, run: NewRun, now: Timestamp) -> StoreResult<RunId> {
    let repo = run.repo.to_string();
    let event = event_word(run.event);
    let branch = run.reference.strip_prefix("refs/heads/").unwrap_or(&run.reference);
    let pull_request = run.pull_request.map(column::to_i64);
    let (diagnostics, held, failure, plan) = match &run.content {
        RunContent::Plan { plan, diagnostics, held } => (diagnostics, *held, None, Some(plan)),
        RunContent::DoesNotCompile { code, message, diagnostics } => {
            (diagnostics, false, Some((code, message)), None)
        }
    };
    let empty = plan.is_some_and(|plan| plan.nodes.is_empty());
    let diagnostics = column::to_json(diagnostics)?;
    let (status, conclusion) = match (failure.is_some(), empty) {
        (true, _) => ("finished", Some("error")),
        (false, true) => ("finished", Some("skipped")),
        (false, false) => ("queued", None),
    };
    let finished_at = conclusion.map(|_| now.0);
    let (code, message) = failure.unzip();
    let new = sqlx::query!(
        r#"INSERT INTO runs (repo, request, pipeline, event, reference, branch, pull_request, commit_sha,
                             before_sha, title, author, fork, held, status, conclusion, reason_code,
                             reason_message, diagnostics, created_at, finished_at)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
           RETURNING id AS "id!: i64",
             EXISTS (SELECT 1 FROM forge_tokens AS f WHERE f.repo = runs.repo) AS "forge_listens!: bool""#,
        repo,
        run.request,
        run.pipeline,
        event,
        run.reference,
        branch,
        pull_request,
        run.commit,
        run.before,
        run.title,
        run.author,
        held,
        status,
        conclusion,
        code,
        message,
        diagnostics,
        run.received_at.0,
        finished_at
    )
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    let id = new.id;
    if let Some(plan) = plan {
        let (nodes, needs) = new_nodes(plan, held)?;
        let nodes = column::to_json(&nodes)?;
        sqlx::query!(
            "INSERT INTO jobs (id, run, position, name, kind, spec, labels, retry, once, state, epoch, failures,
                               losses, reason_code, reason_message)
             SELECT n.value ->> 'id', ?, n.key, n.value ->> 'name', n.value ->> 'kind', n.value ->> 'spec',
                    n.value ->> 'labels', n.value ->> 'retry', n.value ->> 'once', n.value ->> 'state', 0, 0, 0,
                    n.value ->> 'reason_code', n.value ->> 'reason_message'
             FROM json_each(?) AS n",
            id,
            nodes
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        if !needs.is_empty() {
            let needs = column::to_json(&needs)?;
            sqlx::query!(
                "INSERT OR IGNORE INTO needs (need, job)
                 SELECT n.value ->> 0, n.value ->> 1 FROM json_each(?) AS n",
                needs
            )
            .execute(&mut *c)
            .await
            .map_err(failed)?;
        }
    }
    events::append(
        c,
        &[NewEvent { kind: "run.created", run: Some(id), ..NewEvent::default() }],
        now,
    )
    .await?;
    if new.forge_listens || failure.is_some() {
        outbox::run_changed(c, RunId(id), now).await?;
    }
    Ok(RunId(id))
}

async fn create_all(
    c: &mut SqliteConnection,
    runs: Vec<NewRun>,
    now: Timestamp,
) -> StoreResult<Vec<RunId>> {
    let requests: BTreeSet<i64> = runs.iter().filter_map(|run| run.request).collect();
    for request in requests {
        let closed = sqlx::query!(
            "UPDATE run_requests SET closed_at = ?, outcome = 'run' WHERE id = ? AND closed_at IS NULL",
            now.0,
            request
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        if closed.rows_affected() == 0 {
            return Ok(vec![]);
        }
    }
    let mut ids = Vec::with_capacity(runs.len());
    for run in runs {
        ids.push(create(c, run, now).await?);
    }
    Ok(ids)
}

/// The run's status word and whether it is held; not found if it isn't there.
async fn standing(c: &mut SqliteConnection, id: RunId) -> StoreResult<(String, bool)> {
    let row = sqlx::query!("SELECT status, held FROM runs WHERE id = ?", id.0)
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| (row.status, row.held != 0))
        .ok_or_else(|| StoreError::not_found(format!("run {id}")))
}

async fn cancel(
    c: &mut SqliteConnection,
    id: RunId,
    by: UserId,
    now: Timestamp,
) -> StoreResult<()> {
    let (status, _) = standing(c, id).await?;
    if status == "finished" {
        return Err(StoreError::conflict(
            "run_finished",
            format!("run {id} is over; there is nothing to cancel"),
        ));
    }
    let nodes = load_nodes!(c, "run = ? AND state <> 'finished' ORDER BY position", id.0);
    let moves = nodes.into_iter().map(|node| (node, JobEvent::Cancelled { by })).collect();
    Change::new(c, now).apply(moves).await.map(drop)
}

async fn approve(c: &mut SqliteConnection, id: RunId, now: Timestamp) -> StoreResult<()> {
    let (status, held) = standing(c, id).await?;
    if !held || status == "finished" {
        return Err(StoreError::conflict(
            "run_not_held",
            format!("run {id} doesn't wait for an approval"),
        ));
    }
    sqlx::query!("UPDATE runs SET held = 0 WHERE id = ?", id.0)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let nodes = load_nodes!(c, "run = ? AND state = 'held' ORDER BY position", id.0);
    let moves = nodes.into_iter().map(|node| (node, JobEvent::Approved)).collect();
    let mut change = Change::new(c, now);
    change.apply(moves).await?;
    change.release(id.0).await?;
    events::append(
        c,
        &[NewEvent { kind: "run.changed", run: Some(id.0), ..NewEvent::default() }],
        now,
    )
    .await?;
    outbox::run_changed(c, id, now).await
}

async fn run_again(
    c: &mut SqliteConnection,
    id: RunId,
    only_failed: bool,
    now: Timestamp,
) -> StoreResult<()> {
    let (status, held) = standing(c, id).await?;
    if status != "finished" {
        return Err(StoreError::conflict(
            "run_not_finished",
            format!("run {id} is still going; wait for its end or cancel it first"),
        ));
    }
    if held {
        return Err(StoreError::conflict(
            "run_held",
            format!("run {id} ended before anybody approved it; it must be pushed again"),
        ));
    }
    let mut nodes = load_nodes!(c, "run = ? ORDER BY position", id.0);
    if nodes.is_empty() {
        return Err(StoreError::conflict(
            "nothing_to_run",
            format!(
                "run {id} has no jobs: its pipeline file doesn't compile; push a corrected one"
            ),
        ));
    }
    if only_failed {
        let chosen = not_succeeded(c, id, &nodes).await?;
        nodes.retain(|node| chosen.contains(&node.id.to_string()));
        if nodes.is_empty() {
            return Err(StoreError::conflict(
                "nothing_failed",
                format!("every job of run {id} succeeded"),
            ));
        }
    }
    let moves = nodes.into_iter().map(|node| (node, JobEvent::Rerun)).collect();
    let mut change = Change::new(c, now);
    change.apply(moves).await?;
    change.release(id.0).await
}

/// What didn't succeed, and everything that needs it.
async fn not_succeeded(
    c: &mut SqliteConnection,
    id: RunId,
    nodes: &[Node],
) -> StoreResult<BTreeSet<String>> {
    let edges = sqlx::query!(
        "SELECT n.need, n.job FROM needs AS n JOIN jobs AS j ON j.id = n.job WHERE j.run = ?",
        id.0
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let mut after: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for edge in &edges {
        after.entry(&edge.need).or_default().push(&edge.job);
    }
    let mut open: Vec<String> = nodes
        .iter()
        .filter(|node| {
            !matches!(node.job.state, JobState::Finished { conclusion: Conclusion::Success, .. })
        })
        .map(|node| node.id.to_string())
        .collect();
    let mut chosen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if let Some(next) = after.get(id.as_str()) {
            open.extend(
                next.iter().filter(|next| !chosen.contains(**next)).map(|next| (*next).to_owned()),
            );
        }
        chosen.insert(id);
    }
    Ok(chosen)
}

/// The deploy node of this id.
async fn deploy_node(c: &mut SqliteConnection, job: JobId) -> StoreResult<Node> {
    let id = job.to_string();
    let node = load_nodes!(c, "id = ?", id).pop();
    node.filter(|node| node.job.kind == Kind::Deploy)
        .ok_or_else(|| StoreError::not_found(format!("deploy {job}")))
}

#[async_trait]
impl Runs for SqliteStore {
    async fn create_runs(&self, runs: Vec<NewRun>, now: Timestamp) -> StoreResult<Vec<RunId>> {
        self.write(move |c| Box::pin(create_all(c, runs, now))).await
    }

    async fn run(&self, id: RunId) -> StoreResult<Option<RunDetail>> {
        let mut tx = self.snapshot().await?;
        run_view::detail(&mut tx, id).await
    }

    async fn latest_run(&self) -> StoreResult<Option<RunId>> {
        let id = sqlx::query_scalar!("SELECT id FROM runs ORDER BY id DESC LIMIT 1")
            .fetch_optional(&self.read)
            .await
            .map_err(failed)?;
        Ok(id.map(RunId))
    }

    async fn runs(&self, filter: RunFilter) -> StoreResult<Vec<RunView>> {
        run_view::list(&self.read, filter).await
    }

    async fn job(&self, run: RunId, name: &NodeName) -> StoreResult<Option<JobView>> {
        let mut tx = self.snapshot().await?;
        Ok(run_view::jobs(&mut tx, run, Some(name)).await?.pop())
    }

    async fn cancel_run(&self, id: RunId, by: UserId, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                cancel(c, id, by, now).await?;
                audit::record(c, Some(by), "run.cancel", &format!("run {id}"), now).await
            })
        })
        .await
    }

    async fn approve_run(&self, id: RunId, by: UserId, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                approve(c, id, now).await?;
                audit::record(c, Some(by), "run.approve", &format!("run {id}"), now).await
            })
        })
        .await
    }

    async fn rerun(&self, id: RunId, failed: bool, by: UserId, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                run_again(c, id, failed, now).await?;
                audit::record(c, Some(by), "run.rerun", &format!("run {id}"), now).await
            })
        })
        .await
    }

    async fn ready_deploys(&self, limit: u32) -> StoreResult<Vec<ReadyDeploy>> {
        let rows = sqlx::query!(
            "SELECT j.id, j.epoch, j.run, r.repo, j.name, j.spec, r.commit_sha, r.branch, r.author
             FROM jobs AS j JOIN runs AS r ON r.id = j.run
             WHERE j.kind = 'deploy' AND j.state = 'ready' ORDER BY j.run, j.position LIMIT ?",
            limit
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter()
            .map(|row| {
                let id = row.id.as_str();
                let epoch: u32 = column::number("jobs", "epoch", id, row.epoch)?;
                Ok(ReadyDeploy {
                    job: column::parse("jobs", "id", id, id)?,
                    attempt: pipeyard_model::Epoch(epoch + 1),
                    run: RunId(row.run),
                    repo: column::parse("runs", "repo", row.run, &row.repo)?,
                    name: column::parse("jobs", "name", id, &row.name)?,
                    spec: column::json("jobs", "spec", id, &row.spec)?,
                    commit: row.commit_sha,
                    branch: row.branch,
                    author: row.author,
                })
            })
            .collect()
    }

    async fn deploy_started(&self, job: JobId, deployment: i64, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| Box::pin(async move { deploy_started(c, job, deployment, now).await }))
            .await
    }

    async fn deploy_progress(
        &self,
        job: JobId,
        code: &str,
        message: &str,
        now: Timestamp,
    ) -> StoreResult<()> {
        let reason = Reason::new(code, message);
        self.write(move |c| {
            Box::pin(async move {
                let node = deploy_node(c, job).await?;
                let shown = match &node.job.state {
                    JobState::Ready { reason } => Some(reason),
                    JobState::Deploying { progress, .. } => progress.as_ref(),
                    JobState::Held
                    | JobState::Waiting
                    | JobState::Running { .. }
                    | JobState::Finished { .. } => {
                        return Ok(());
                    }
                };
                if shown == Some(&reason) {
                    return Ok(());
                }
                Change::new(c, now)
                    .apply(vec![(node, JobEvent::DeployProgress { reason })])
                    .await
                    .map(drop)
            })
        })
        .await
    }

    async fn deploy_finished(
        &self,
        job: JobId,
        conclusion: Conclusion,
        reason: Option<(String, String)>,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move { deploy_finished(c, job, conclusion, reason, now).await })
        })
        .await
    }

    async fn cancelled_deploys(&self, limit: u32) -> StoreResult<Vec<(JobId, i64)>> {
        let rows = sqlx::query!(
            r#"SELECT id, deployment AS "deployment!: i64" FROM jobs
               WHERE state = 'deploying' AND cancel_at IS NOT NULL ORDER BY cancel_at LIMIT ?"#,
            limit
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter()
            .map(|row| Ok((column::parse("jobs", "id", &row.id, &row.id)?, row.deployment)))
            .collect()
    }
}

/// For the deployments' own use cases too: the node moves in their transaction.
pub(crate) async fn deploy_started(
    c: &mut SqliteConnection,
    job: JobId,
    deployment: i64,
    now: Timestamp,
) -> StoreResult<()> {
    let node = deploy_node(c, job).await?;
    if matches!(node.job.state, JobState::Deploying { deployment: known, .. } if known == deployment)
    {
        return Ok(());
    }
    Change::new(c, now).apply(vec![(node, JobEvent::DeployStarted { deployment })]).await.map(drop)
}

/// For the deployments' own use cases too: the node moves in their transaction.
pub(crate) async fn deploy_finished(
    c: &mut SqliteConnection,
    job: JobId,
    conclusion: Conclusion,
    reason: Option<(String, String)>,
    now: Timestamp,
) -> StoreResult<()> {
    let node = deploy_node(c, job).await?;
    if matches!(node.job.state, JobState::Finished { .. }) {
        return Ok(());
    }
    let reason = reason.map(|(code, message)| Reason { code, message });
    Change::new(c, now)
        .apply(vec![(node, JobEvent::DeployEnded { conclusion, reason })])
        .await
        .map(drop)
}
