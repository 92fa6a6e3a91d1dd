//! Creating runs: their rows, and their graphs.
//!
//! Small ones in one transaction. Large ones in pieces behind interactive work, so that other writes
//! don't stand meanwhile: their runs are there from the first piece on and nobody sees them (`making`),
//! and the last step shows them and closes their request. What a killed server leaves half made is
//! removed at the next start, and made anew from its request.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use pipeyard_model::{
    Actor, JobId, RunId, Timestamp,
    admission::admit,
    origin::Origin,
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
    outbox,
    writer::Writer,
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

/// Nodes that are made in one transaction with their run; more are made in pieces.
pub(crate) const AT_ONCE: usize = 500;
/// Nodes of one piece.
const PIECE: usize = 250;
/// Edges of one piece.
const EDGES: usize = 2_000;

/// The graph of a new run.
struct Graph {
    run: i64,
    plan: Plan,
    held: bool,
    ids: Vec<String>,
    places: BTreeMap<String, usize>,
}

impl Graph {
    fn new(run: i64, plan: Plan, held: bool) -> StoreResult<Self> {
        let ids = plan.nodes.iter().map(|_| JobId::new().to_string()).collect();
        let places: BTreeMap<_, _> =
            plan.nodes.iter().enumerate().map(|(i, node)| (node.name.to_string(), i)).collect();
        let graph = Self { run, plan, held, ids, places };
        for node in &graph.plan.nodes {
            if let Some(need) =
                node.needs.iter().find(|need| !graph.places.contains_key(need.as_str()))
            {
                return Err(StoreError::conflict(
                    "unknown_need",
                    format!("{} needs {need}, which the plan lacks", node.name),
                ));
            }
        }
        Ok(graph)
    }

    fn nodes(&self, places: Range<usize>) -> StoreResult<Vec<NewNode>> {
        places.map(|place| self.node(place)).collect()
    }

    fn node(&self, position: usize) -> StoreResult<NewNode> {
        let node = &self.plan.nodes[position];
        let ready = !self.held && node.needs.is_empty();
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
        Ok(NewNode {
            id: self.ids[position].clone(),
            run: self.run,
            position,
            name: node.name.to_string(),
            kind,
            spec,
            labels,
            retry,
            once,
            state: if self.held {
                "held"
            } else if ready {
                "ready"
            } else {
                "waiting"
            },
            reason_code: ready.then_some(wait.0),
            reason_message: ready.then_some(wait.1),
        })
    }

    fn needs(&self, places: Range<usize>) -> Vec<Need> {
        let mut needs = Vec::new();
        for place in places {
            for need in &self.plan.nodes[place].needs {
                let need = self.places.get(need.as_str()).map(|place| self.ids[*place].clone());
                needs.extend(need.map(|need| (need, self.ids[place].clone())));
            }
        }
        needs
    }
}

async fn insert_nodes(c: &mut SqliteConnection, nodes: &[NewNode]) -> StoreResult<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let nodes = column::to_json(nodes)?;
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
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

async fn insert_needs(c: &mut SqliteConnection, needs: &[Need]) -> StoreResult<()> {
    if needs.is_empty() {
        return Ok(());
    }
    let needs = column::to_json(needs)?;
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

/// A run whose own row is there.
struct Inserted {
    id: i64,
    /// Somebody outside is to hear of it.
    told: bool,
    /// What was asked for, for the audit log.
    started: serde_json::Value,
}

/// Inserts the run's own row; its graph is added to `graphs`.
async fn insert(
    c: &mut SqliteConnection,
    run: NewRun,
    graphs: &mut Vec<Graph>,
    making: bool,
    now: Timestamp,
) -> StoreResult<Inserted> {
    let repo = run.repo.to_string();
    let event = run.event.as_str();
    let branch = run.reference.strip_prefix("refs/heads/").unwrap_or(&run.reference);
    let pull_request = run.pull_request.map(column::to_i64);
    let started_by = run.started_by.map(|user| user.to_string());
    let (diagnostics, failure, plan) = match &run.content {
        RunContent::Plan { plan, diagnostics } => (diagnostics, None, Some(plan)),
        RunContent::DoesNotCompile { code, message, diagnostics } => {
            (diagnostics, Some((code, message)), None)
        }
    };
    let fork = run.origin.is_fork();
    // What doesn't compile has nothing to be held.
    let held = fork && plan.is_some();
    let (code_branch, stranger) = match &run.origin {
        Origin::Branch(branch) => (branch.as_str(), None),
        Origin::Fork(why) => ("", Some(why.as_str())),
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
                             reason_message, diagnostics, created_at, finished_at, code_branch, stranger,
                             overtaken, making, forge_user, started_by)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
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
        fork,
        held,
        status,
        conclusion,
        code,
        message,
        diagnostics,
        run.received_at.0,
        finished_at,
        code_branch,
        stranger,
        run.overtaken,
        making,
        run.forge_user,
        started_by
    )
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    let told = new.forge_listens || failure.is_some();
    let started = json!({
        "repo": run.repo,
        "pipeline": run.pipeline,
        "event": event,
        "ref": run.reference,
        "commit": run.commit,
    });
    if let RunContent::Plan { plan, .. } = run.content {
        graphs.push(Graph::new(new.id, plan, held)?);
    }
    Ok(Inserted { id: new.id, told, started })
}

/// How many nodes these runs have.
pub(crate) fn nodes_of(runs: &[NewRun]) -> usize {
    runs.iter()
        .map(|run| match &run.content {
            RunContent::Plan { plan, .. } => plan.nodes.len(),
            RunContent::DoesNotCompile { .. } => 0,
        })
        .sum()
}

/// Jobs and deploys of a repository that aren't over: those that wait for an approval, or the others.
pub(crate) async fn open_nodes(
    c: &mut SqliteConnection,
    repo: &str,
    held: bool,
) -> StoreResult<u64> {
    let open = sqlx::query_scalar!(
        r#"SELECT count(*) AS "open!: i64" FROM runs AS r JOIN jobs AS j ON j.run = r.id
           WHERE r.status <> 'finished' AND r.repo = ? AND j.state <> 'finished'
           AND (j.state = 'held') = ?"#,
        repo,
        held
    )
    .fetch_one(c)
    .await
    .map_err(failed)?;
    Ok(open.unsigned_abs())
}

/// The same runs, or, where they are too much for the push or its repository, one that says so.
async fn admitted(c: &mut SqliteConnection, mut runs: Vec<NewRun>) -> StoreResult<Vec<NewRun>> {
    let new = nodes_of(&runs);
    let Some(first) = runs.first() else { return Ok(runs) };
    let held = first.origin.is_fork();
    let open = match new {
        0 => 0,
        _ => open_nodes(c, &first.repo.to_string(), held).await?,
    };
    if let Err(reason) = admit(new, open, held) {
        runs.truncate(1);
        for run in &mut runs {
            run.content = RunContent::DoesNotCompile {
                code: reason.code.clone(),
                message: reason.message.clone(),
                diagnostics: Vec::new(),
            };
        }
    }
    Ok(runs)
}

/// Closes the requests that these runs answer; false if one was closed already.
async fn close_requests(
    c: &mut SqliteConnection,
    requests: &BTreeSet<i64>,
    now: Timestamp,
) -> StoreResult<bool> {
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
            return Ok(false);
        }
    }
    Ok(true)
}

fn requests_of(runs: &[NewRun]) -> BTreeSet<i64> {
    runs.iter().filter_map(|run| run.request).collect()
}

/// Tells of runs that are complete.
async fn tell(
    c: &mut SqliteConnection,
    inserted: Vec<Inserted>,
    by: Actor,
    now: Timestamp,
) -> StoreResult<Vec<RunId>> {
    for run in &inserted {
        let target = format!("run {}", run.id);
        let detail = Detail::new(run.started.clone());
        audit::record_change(c, by, "run.start", &target, detail, now).await?;
    }
    let created: Vec<_> = inserted
        .iter()
        .map(|run| NewEvent { kind: "run.created", run: Some(run.id), ..NewEvent::default() })
        .collect();
    events::append(c, &created, now).await?;
    for run in inserted.iter().filter(|run| run.told) {
        outbox::run_changed(c, RunId(run.id), now).await?;
    }
    Ok(inserted.iter().map(|run| RunId(run.id)).collect())
}

/// Creates the runs of one request; none if the request is closed already.
pub(crate) async fn create_all(
    c: &mut SqliteConnection,
    runs: Vec<NewRun>,
    by: Actor,
    now: Timestamp,
) -> StoreResult<Vec<RunId>> {
    if !close_requests(c, &requests_of(&runs), now).await? {
        return Ok(vec![]);
    }
    let mut graphs = Vec::new();
    let mut inserted = Vec::with_capacity(runs.len());
    for run in admitted(c, runs).await? {
        inserted.push(insert(c, run, &mut graphs, false, now).await?);
    }
    for graph in &graphs {
        insert_nodes(c, &graph.nodes(0..graph.ids.len())?).await?;
        insert_needs(c, &graph.needs(0..graph.ids.len())).await?;
    }
    tell(c, inserted, by, now).await
}

/// The same in pieces. To the end, also when the caller goes away.
pub(crate) async fn create_in_pieces(
    writer: &Writer,
    runs: Vec<NewRun>,
    by: Actor,
    now: Timestamp,
) -> StoreResult<Vec<RunId>> {
    let writer = writer.clone();
    let work = tokio::spawn(async move { pieces(&writer, runs, by, now).await });
    work.await.map_err(|problem| StoreError::Unknown(problem.to_string()))?
}

async fn pieces(
    writer: &Writer,
    runs: Vec<NewRun>,
    by: Actor,
    now: Timestamp,
) -> StoreResult<Vec<RunId>> {
    let requests = requests_of(&runs);
    let begun = writer.write(move |c| {
        Box::pin(async move {
            let (mut graphs, mut inserted) = (Vec::new(), Vec::new());
            for run in admitted(c, runs).await? {
                inserted.push(insert(c, run, &mut graphs, true, now).await?);
            }
            Ok((graphs, inserted))
        })
    });
    let (graphs, inserted) = begun.await?;
    let ids: Vec<i64> = inserted.iter().map(|run| run.id).collect();
    let made = async {
        for graph in graphs {
            make(writer, Arc::new(graph)).await?;
        }
        writer
            .write(move |c| {
                Box::pin(async move {
                    if !close_requests(c, &requests, now).await? {
                        return Ok(vec![]);
                    }
                    for run in &inserted {
                        sqlx::query!("UPDATE runs SET making = 0 WHERE id = ?", run.id)
                            .execute(&mut *c)
                            .await
                            .map_err(failed)?;
                    }
                    tell(c, inserted, by, now).await
                })
            })
            .await
    };
    let made = made.await;
    if !matches!(&made, Ok(shown) if !shown.is_empty()) {
        // Refused, or somebody else was first: nothing of it stays.
        writer.write_bulk(move |c| Box::pin(async move { remove(c, &ids).await })).await?;
    }
    made
}

/// The nodes and edges of one run.
async fn make(writer: &Writer, graph: Arc<Graph>) -> StoreResult<()> {
    let all = graph.ids.len();
    for start in (0..all).step_by(PIECE) {
        let graph = Arc::clone(&graph);
        writer
            .write_bulk(move |c| {
                Box::pin(async move {
                    let nodes = graph.nodes(start..(start + PIECE).min(all))?;
                    insert_nodes(c, &nodes).await
                })
            })
            .await?;
    }
    let needs = graph.needs(0..all);
    for piece in needs.chunks(EDGES) {
        let piece = piece.to_vec();
        writer.write_bulk(move |c| Box::pin(async move { insert_needs(c, &piece).await })).await?;
    }
    Ok(())
}

/// Removes runs that are half made.
async fn remove(c: &mut SqliteConnection, runs: &[i64]) -> StoreResult<()> {
    for run in runs {
        sqlx::query!(
            "DELETE FROM needs WHERE job IN (SELECT j.id FROM jobs AS j JOIN runs AS r ON r.id = j.run
                                             WHERE r.id = ? AND r.making = 1)",
            run
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        sqlx::query!(
            "DELETE FROM jobs WHERE run IN (SELECT id FROM runs WHERE id = ? AND making = 1)",
            run
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        sqlx::query!("DELETE FROM runs WHERE id = ? AND making = 1", run)
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// Removes what a server that was killed left half made. Only at the start, before anything is made.
pub(crate) async fn remove_half_made(c: &mut SqliteConnection) -> StoreResult<()> {
    let runs = sqlx::query_scalar!("SELECT id FROM runs WHERE making = 1")
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
    remove(c, &runs).await
}
