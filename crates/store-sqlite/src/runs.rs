//! Runs: what people and the deploy driver do to them.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use pipeyard_api::views::{JobView, RunDetail, RunView};
use pipeyard_model::{
    Actor, Conclusion, JobId, NodeName, RunId, Timestamp,
    admission::admit,
    job::{JobEvent, JobState, Kind, Reason},
};
use pipeyard_store::{
    StoreError, StoreResult,
    runs::{NewRun, ReadyDeploy, RunFilter, Runs},
};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore, audit,
    column::{self, failed},
    events::{self, NewEvent},
    jobs::{Change, Node, load_nodes},
    outbox, run_view,
    runs_new::{AT_ONCE, create_all, create_in_pieces, nodes_of, open_nodes},
};

/// The run's status word and whether it is held; not found if it isn't there.
async fn standing(c: &mut SqliteConnection, id: RunId) -> StoreResult<(String, bool)> {
    let row = sqlx::query!("SELECT status, held FROM runs WHERE id = ? AND making = 0", id.0)
        .fetch_optional(c)
        .await
        .map_err(failed)?;
    row.map(|row| (row.status, row.held != 0))
        .ok_or_else(|| StoreError::not_found(format!("run {id}")))
}

async fn cancel(c: &mut SqliteConnection, id: RunId, by: Actor, now: Timestamp) -> StoreResult<()> {
    let (status, _) = standing(c, id).await?;
    if status == "finished" {
        return Err(StoreError::conflict(
            "run_finished",
            format!("run {id} is over; there is nothing to cancel"),
        ));
    }
    let nodes = load_nodes!(c, "run = ? AND state <> 'finished' ORDER BY position", id.0);
    let moves =
        nodes.into_iter().map(|node| (node, JobEvent::Cancelled { by: by.user_id() })).collect();
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
    let repo = sqlx::query_scalar!("SELECT repo FROM runs WHERE id = ?", id.0)
        .fetch_one(&mut *c)
        .await
        .map_err(failed)?;
    let open = open_nodes(c, &repo, false).await?;
    admit(nodes.len(), open, false)
        .map_err(|reason| StoreError::conflict("repository_queue_full", reason.message))?;
    // A person asks for it, whatever was pushed since.
    sqlx::query!("UPDATE runs SET overtaken = 0 WHERE id = ? AND overtaken = 1", id.0)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
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
    async fn create_runs(
        &self,
        runs: Vec<NewRun>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<Vec<RunId>> {
        if nodes_of(&runs) > AT_ONCE {
            return create_in_pieces(&self.writer, runs, by, now).await;
        }
        self.write(move |c| Box::pin(create_all(c, runs, by, now))).await
    }

    async fn run(&self, id: RunId) -> StoreResult<Option<RunDetail>> {
        let mut tx = self.snapshot().await?;
        run_view::detail(&mut tx, id).await
    }

    async fn latest_run(&self) -> StoreResult<Option<RunId>> {
        let id =
            sqlx::query_scalar!("SELECT id FROM runs WHERE making = 0 ORDER BY id DESC LIMIT 1")
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

    async fn cancel_run(&self, id: RunId, by: Actor, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                cancel(c, id, by, now).await?;
                audit::record(c, by, "run.cancel", &format!("run {id}"), now).await
            })
        })
        .await
    }

    async fn approve_run(&self, id: RunId, by: Actor, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                approve(c, id, now).await?;
                audit::record(c, by, "run.approve", &format!("run {id}"), now).await
            })
        })
        .await
    }

    async fn rerun(&self, id: RunId, failed: bool, by: Actor, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                run_again(c, id, failed, now).await?;
                audit::record(c, by, "run.rerun", &format!("run {id}"), now).await
            })
        })
        .await
    }

    async fn ready_deploys(&self, limit: u32) -> StoreResult<Vec<ReadyDeploy>> {
        let rows = sqlx::query!(
            "SELECT j.id, j.epoch, j.run, r.repo, j.name, j.spec, r.commit_sha, r.branch, r.author,
                    r.code_branch, r.stranger, r.overtaken
             FROM jobs AS j JOIN runs AS r ON r.id = j.run
             WHERE j.kind = 'deploy' AND j.state = 'ready' AND r.making = 0 ORDER BY j.run, j.position LIMIT ?",
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
                    origin: column::origin(row.run, row.code_branch, row.stranger.as_deref())?,
                    overtaken: row.overtaken != 0,
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
