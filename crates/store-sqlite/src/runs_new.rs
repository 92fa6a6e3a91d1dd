//! Creating runs: their rows, and the graphs of all of them in one statement each.

use std::collections::{BTreeMap, BTreeSet};

use pipeyard_model::{
    Actor, JobId, RunId, Timestamp,
    plan::{NodeKind, Plan},
};
use pipeyard_store::{
    StoreError, StoreResult,
    runs::{NewRun, RunContent},
};
use serde::Serialize;
use serde_json::json;
use sqlx::SqliteConnection;

use crate::{
    audit::{self, Detail},
    column::{self, failed},
    events::{self, NewEvent},
    intake::event_word,
    outbox,
};

/// A node as it is inserted.
#[derive(Serialize)]
struct NewNode {
    id: String,
    run: i64,
    position: usize,
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

/// The graphs of all new runs, for one statement over them.
#[derive(Default)]
struct Graphs {
    nodes: Vec<NewNode>,
    needs: Vec<Need>,
}

impl Graphs {
    fn add(&mut self, run: i64, plan: &Plan, held: bool) -> StoreResult<()> {
        let ids: BTreeMap<&str, String> =
            plan.nodes.iter().map(|node| (node.name.as_str(), JobId::new().to_string())).collect();
        for (position, node) in plan.nodes.iter().enumerate() {
            let id = ids[node.name.as_str()].clone();
            for need in &node.needs {
                let need = ids.get(need.as_str()).ok_or_else(|| {
                    StoreError::conflict(
                        "unknown_need",
                        format!("{} needs {need}, which the plan lacks", node.name),
                    )
                })?;
                self.needs.push((need.clone(), id.clone()));
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
            self.nodes.push(NewNode {
                id,
                run,
                position,
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
        Ok(())
    }

    async fn insert(&self, c: &mut SqliteConnection) -> StoreResult<()> {
        if self.nodes.is_empty() {
            return Ok(());
        }
        let nodes = column::to_json(&self.nodes)?;
        sqlx::query!(
        "INSERT INTO jobs (id, run, position, name, kind, spec, labels, retry, once, state, epoch, failures,
                           losses, reason_code, reason_message)
         SELECT n.value ->> 'id', n.value ->> 'run', n.value ->> 'position', n.value ->> 'name',
                n.value ->> 'kind', n.value ->> 'spec', n.value ->> 'labels', n.value ->> 'retry',
                n.value ->> 'once', n.value ->> 'state', 0, 0, 0, n.value ->> 'reason_code',
                n.value ->> 'reason_message'
         FROM json_each(?) AS n",
        nodes
    )
    .execute(&mut *c)
    .await
    .map_err(failed)?;
        if self.needs.is_empty() {
            return Ok(());
        }
        let needs = column::to_json(&self.needs)?;
        sqlx::query!(
            "INSERT OR IGNORE INTO needs (need, job)
         SELECT n.value ->> 0, n.value ->> 1 FROM json_each(?) AS n",
            needs
        )
        .execute(c)
        .await
        .map_err(failed)?;
        Ok(())
    }
}

/// A run whose own row is there.
struct Inserted {
    id: i64,
    /// Somebody outside is to hear of it.
    told: bool,
}

/// Inserts the run's own row; its nodes are added to `graphs`.
async fn insert(
    c: &mut SqliteConnection,
    run: NewRun,
    graphs: &mut Graphs,
    now: Timestamp,
) -> StoreResult<Inserted> {
    let repo = run.repo.to_string();
    let event = event_word(run.event);
    let branch = run.reference.strip_prefix("refs/heads/").unwrap_or(&run.reference);
    let pull_request = run.pull_request.map(column::to_i64);
    let started_by = run.started_by.map(|user| user.to_string());
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
                             reason_message, diagnostics, created_at, finished_at, forge_user, started_by)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19,
                   ?20, ?21)
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
        finished_at,
        run.forge_user,
        started_by
    )
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    if let Some(plan) = plan {
        graphs.add(new.id, plan, held)?;
    }
    Ok(Inserted { id: new.id, told: new.forge_listens || failure.is_some() })
}

/// Creates the runs of one request; none if the request is closed already.
pub(crate) async fn create_all(
    c: &mut SqliteConnection,
    runs: Vec<NewRun>,
    by: Actor,
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
    let mut graphs = Graphs::default();
    let mut inserted = Vec::with_capacity(runs.len());
    for run in runs {
        let started = json!({
            "repo": run.repo,
            "pipeline": run.pipeline,
            "event": event_word(run.event),
            "ref": run.reference,
            "commit": run.commit,
        });
        let new = insert(c, run, &mut graphs, now).await?;
        let target = format!("run {}", new.id);
        audit::record_change(c, by, "run.start", &target, Detail::new(started), now).await?;
        inserted.push(new);
    }
    graphs.insert(c).await?;
    let created: Vec<_> = inserted
        .iter()
        .map(|run| NewEvent { kind: "run.created", run: Some(run.id), ..NewEvent::default() })
        .collect();
    events::append(c, &created, now).await?;
    for run in inserted.iter().filter(|run| run.told) {
        outbox::run_changed(c, RunId(run.id), now).await?;
    }
    Ok(inserted.into_iter().map(|run| RunId(run.id)).collect())
}
