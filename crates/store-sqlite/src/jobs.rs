//! Nodes of runs: loading them, moving them by the state machine, and everything that follows from
//! a move inside the same transaction: attempts, what needs them, their run, events.
//!
//! [`Change::apply`] is the only place that writes a node's state, but for the lease's renewal.

use std::collections::{BTreeMap, BTreeSet};

use pipeyard_model::{
    Conclusion, Epoch, JobId, RunId, Status, Timestamp, UserId,
    job::{Cancel, Effect, Job, JobEvent, JobState, Kind, Reason},
    run::Tally,
};
use pipeyard_store::{StoreError, StoreResult};
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::{
    column::{self, failed},
    events::{self, NewEvent},
    outbox,
};

/// The columns that the state machine lives in.
#[derive(Debug)]
pub(crate) struct JobRow {
    pub(crate) id: String,
    pub(crate) run: i64,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) retry: i64,
    pub(crate) once: i64,
    pub(crate) state: String,
    pub(crate) epoch: i64,
    pub(crate) failures: i64,
    pub(crate) losses: i64,
    pub(crate) runner: Option<String>,
    pub(crate) lease_until: Option<i64>,
    pub(crate) cancel_by: Option<String>,
    pub(crate) cancel_at: Option<i64>,
    pub(crate) deployment: Option<i64>,
    pub(crate) conclusion: Option<String>,
    pub(crate) reason_code: Option<String>,
    pub(crate) reason_message: Option<String>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    pub(crate) needed: bool,
}

/// Loads nodes: `load_nodes!(connection, "run = ?", run)`.
macro_rules! load_nodes {
    ($connection:expr, $condition:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::jobs::JobRow,
            r#"SELECT id, run, name, kind, retry, once, state, epoch, failures, losses, runner, lease_until,
                      cancel_by, cancel_at, deployment, conclusion, reason_code, reason_message, started_at,
                      finished_at, EXISTS (SELECT 1 FROM needs AS n WHERE n.need = jobs.id) AS "needed!: bool"
               FROM jobs WHERE "# + $condition
            $(, $argument)*
        )
        .fetch_all(&mut *$connection)
        .await
        .map_err(crate::column::failed)?
        .into_iter()
        .map(crate::jobs::Node::try_from)
        .collect::<pipeyard_store::StoreResult<Vec<_>>>()?
    };
}
pub(crate) use load_nodes;

/// A node as the state machine sees it, with what it needs to be written back.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: JobId,
    pub(crate) run: i64,
    pub(crate) name: String,
    pub(crate) job: Job,
    /// Something needs it.
    needed: bool,
    deployment: Option<i64>,
    started_at: Option<i64>,
}

impl TryFrom<JobRow> for Node {
    type Error = StoreError;

    fn try_from(row: JobRow) -> StoreResult<Self> {
        let id = row.id.as_str();
        let reason = column::reason(row.reason_code, row.reason_message);
        let by: Option<UserId> =
            column::parse_opt("jobs", "cancel_by", id, row.cancel_by.as_deref())?;
        let cancel = by.zip(row.cancel_at).map(|(by, at)| Cancel { by, at: Timestamp(at) });
        let missing = |column| column::corrupt("jobs", column, id, "it is missing");
        let state = match row.state.as_str() {
            "held" => JobState::Held,
            "waiting" => JobState::Waiting,
            "ready" => JobState::Ready { reason: reason.ok_or_else(|| missing("reason_code"))? },
            "running" => JobState::Running {
                runner: column::parse(
                    "jobs",
                    "runner",
                    id,
                    row.runner.as_deref().unwrap_or_default(),
                )?,
                lease_until: Timestamp(row.lease_until.ok_or_else(|| missing("lease_until"))?),
                cancel,
            },
            "deploying" => JobState::Deploying {
                deployment: row.deployment.ok_or_else(|| missing("deployment"))?,
                progress: reason,
                cancel,
            },
            "finished" => JobState::Finished {
                conclusion: column::parse(
                    "jobs",
                    "conclusion",
                    id,
                    row.conclusion.as_deref().unwrap_or_default(),
                )?,
                reason,
                at: Timestamp(row.finished_at.ok_or_else(|| missing("finished_at"))?),
            },
            other => {
                return Err(column::corrupt(
                    "jobs",
                    "state",
                    id,
                    format!("unknown word {other:?}"),
                ));
            }
        };
        let kind = match row.kind.as_str() {
            "deploy" => Kind::Deploy,
            _ => Kind::Job {
                retry: column::number("jobs", "retry", id, row.retry)?,
                once: row.once != 0,
            },
        };
        Ok(Self {
            job: Job {
                kind,
                epoch: Epoch(column::number("jobs", "epoch", id, row.epoch)?),
                failures: column::number("jobs", "failures", id, row.failures)?,
                losses: column::number("jobs", "losses", id, row.losses)?,
                state,
            },
            id: column::parse("jobs", "id", id, id)?,
            run: row.run,
            name: row.name,
            needed: row.needed,
            deployment: row.deployment,
            started_at: row.started_at,
        })
    }
}

/// A node's changing columns, for one statement over many of them.
#[derive(Serialize)]
struct Saved<'n> {
    id: String,
    state: &'static str,
    epoch: u32,
    failures: u32,
    losses: u32,
    runner: Option<String>,
    lease_until: Option<i64>,
    cancel_by: Option<String>,
    cancel_at: Option<i64>,
    deployment: Option<i64>,
    conclusion: Option<&'static str>,
    reason_code: Option<&'n str>,
    reason_message: Option<&'n str>,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

impl<'n> Saved<'n> {
    fn of(node: &'n Node) -> Self {
        let mut saved = Self {
            id: node.id.to_string(),
            state: node.job.state.word(),
            epoch: node.job.epoch.0,
            failures: node.job.failures,
            losses: node.job.losses,
            runner: None,
            lease_until: None,
            cancel_by: None,
            cancel_at: None,
            deployment: node.deployment,
            conclusion: None,
            reason_code: None,
            reason_message: None,
            started_at: node.started_at,
            finished_at: None,
        };
        let (reason, cancel) = match &node.job.state {
            JobState::Held | JobState::Waiting => (None, None),
            JobState::Ready { reason } => (Some(reason), None),
            JobState::Running { runner, lease_until, cancel } => {
                saved.runner = Some(runner.to_string());
                saved.lease_until = Some(lease_until.0);
                (None, *cancel)
            }
            JobState::Deploying { progress, cancel, .. } => (progress.as_ref(), *cancel),
            JobState::Finished { conclusion, reason, at } => {
                saved.conclusion = Some(conclusion.as_str());
                saved.finished_at = Some(at.0);
                (reason.as_ref(), None)
            }
        };
        saved.reason_code = reason.map(|r| r.code.as_str());
        saved.reason_message = reason.map(|r| r.message.as_str());
        saved.cancel_by = cancel.map(|c| c.by.to_string());
        saved.cancel_at = cancel.map(|c| c.at.0);
        saved
    }
}

/// An attempt that opens or closes.
#[derive(Serialize)]
struct AttemptChange {
    job: String,
    epoch: u32,
    runner: Option<String>,
    conclusion: Option<&'static str>,
    reason_code: Option<String>,
    reason_message: Option<String>,
    reported: Option<&'static str>,
    log_bytes: Option<i64>,
}

/// What a runner said about an attempt that ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) conclusion: Conclusion,
    /// Length of the attempt's log.
    pub(crate) log_bytes: i64,
}

/// One transaction's changes to nodes.
pub(crate) struct Change<'c> {
    pub(crate) connection: &'c mut SqliteConnection,
    pub(crate) now: Timestamp,
    /// The claim request that opens attempts.
    pub(crate) request: Option<String>,
    /// What runners said about attempts that end.
    pub(crate) said: BTreeMap<JobId, Said>,
}

impl<'c> Change<'c> {
    pub(crate) fn new(connection: &'c mut SqliteConnection, now: Timestamp) -> Self {
        Self { connection, now, request: None, said: BTreeMap::new() }
    }

    /// Moves these nodes, then what needs them, and brings their runs up to date. Answers the
    /// nodes that were given, as they are now.
    pub(crate) async fn apply(&mut self, moves: Vec<(Node, JobEvent)>) -> StoreResult<Vec<Node>> {
        let mut runs: BTreeMap<i64, bool> = BTreeMap::new();
        let mut happened = Vec::new();
        let first = self.step(moves, &mut runs, &mut happened).await?;
        let (answer, mut settled) = first;
        // Ends because each round settles nodes that were waiting, and nothing waits twice.
        while !settled.is_empty() {
            let next = self.dependents(&settled).await?;
            settled = self.step(next, &mut runs, &mut happened).await?.1;
        }
        for run in refresh_runs(self.connection, &runs, self.now).await? {
            happened.push(NewEvent { kind: "run.changed", run: Some(run), ..NewEvent::default() });
        }
        events::append(self.connection, &happened, self.now).await?;
        Ok(answer)
    }

    /// Offers or skips the waiting nodes of a run, after an approval or a rerun.
    pub(crate) async fn release(&mut self, run: i64) -> StoreResult<()> {
        let rows = sqlx::query!(
            r#"SELECT w.id,
                (SELECT count(*) FROM needs AS n JOIN jobs AS d ON d.id = n.need
                 WHERE n.job = w.id AND d.state <> 'finished') AS "unfinished!: i64",
                (SELECT d.name FROM needs AS n JOIN jobs AS d ON d.id = n.need
                 WHERE n.job = w.id AND d.state = 'finished' AND d.conclusion <> 'success'
                 ORDER BY d.position LIMIT 1) AS "broken: String"
               FROM jobs AS w WHERE w.run = ? AND w.state = 'waiting'"#,
            run
        )
        .fetch_all(&mut *self.connection)
        .await
        .map_err(failed)?;
        let rows = rows.into_iter().map(|row| (row.id, row.unfinished, row.broken)).collect();
        let moves = self.decide(rows).await?;
        self.apply(moves).await.map(drop)
    }

    async fn step(
        &mut self,
        moves: Vec<(Node, JobEvent)>,
        runs: &mut BTreeMap<i64, bool>,
        happened: &mut Vec<NewEvent>,
    ) -> StoreResult<(Vec<Node>, Vec<JobId>)> {
        let (mut opened, mut closed, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        let mut nodes = Vec::with_capacity(moves.len());
        for (mut node, event) in moves {
            let (next, effects) = node.job.apply(&event, self.now).map_err(|e| {
                StoreError::conflict("invalid_transition", format!("{}: {e}", node.name))
            })?;
            let started = runs.entry(node.run).or_default();
            for effect in effects {
                match effect {
                    Effect::AttemptOpened { epoch, runner } => opened.push(AttemptChange {
                        job: node.id.to_string(),
                        epoch: epoch.0,
                        runner: Some(runner.to_string()),
                        conclusion: None,
                        reason_code: None,
                        reason_message: None,
                        reported: None,
                        log_bytes: None,
                    }),
                    Effect::AttemptClosed { epoch, conclusion, reason } => {
                        let (reason_code, reason_message) =
                            reason.map(|r| (r.code, r.message)).unzip();
                        let said = self.said.get(&node.id);
                        closed.push(AttemptChange {
                            job: node.id.to_string(),
                            epoch: epoch.0,
                            runner: None,
                            conclusion: Some(conclusion.as_str()),
                            reason_code,
                            reason_message,
                            reported: said.map(|said| said.conclusion.as_str()),
                            log_bytes: said.map(|said| said.log_bytes),
                        });
                    }
                    Effect::Settled { .. } if node.needed => settled.push(node.id),
                    // Nothing needs it; whoever else waits is woken by the commit.
                    Effect::Settled { .. } | Effect::Offered | Effect::CancelAsked => {}
                }
            }
            let was = node.job.state.status();
            match &next.state {
                JobState::Held | JobState::Waiting | JobState::Ready { .. } => {
                    node.started_at = None;
                }
                JobState::Running { .. } | JobState::Deploying { .. } if was != Status::Running => {
                    node.started_at = Some(self.now.0);
                    *started = true;
                }
                JobState::Running { .. }
                | JobState::Deploying { .. }
                | JobState::Finished { .. } => {}
            }
            if let JobState::Deploying { deployment, .. } = &next.state {
                node.deployment = Some(*deployment);
            }
            node.job = next;
            happened.push(NewEvent {
                kind: "job.changed",
                run: Some(node.run),
                job: Some(node.name.clone()),
                deployment: None,
            });
            nodes.push(node);
        }
        save(self.connection, &nodes).await?;
        self.open_attempts(&opened).await?;
        self.close_attempts(&closed).await?;
        Ok((nodes, settled))
    }

    /// What becomes of the nodes that wait for these.
    async fn dependents(&mut self, settled: &[JobId]) -> StoreResult<Vec<(Node, JobEvent)>> {
        let settled = column::to_json(settled)?;
        let rows = sqlx::query!(
            r#"SELECT w.id,
                (SELECT count(*) FROM needs AS n JOIN jobs AS d ON d.id = n.need
                 WHERE n.job = w.id AND d.state <> 'finished') AS "unfinished!: i64",
                (SELECT d.name FROM needs AS n JOIN jobs AS d ON d.id = n.need
                 WHERE n.job = w.id AND d.state = 'finished' AND d.conclusion <> 'success'
                 ORDER BY d.position LIMIT 1) AS "broken: String"
               FROM jobs AS w WHERE w.state = 'waiting' AND w.id IN
                (SELECT job FROM needs WHERE need IN (SELECT value FROM json_each(?)))"#,
            settled
        )
        .fetch_all(&mut *self.connection)
        .await
        .map_err(failed)?;
        self.decide(rows.into_iter().map(|row| (row.id, row.unfinished, row.broken)).collect())
            .await
    }

    async fn decide(
        &mut self,
        rows: Vec<(String, i64, Option<String>)>,
    ) -> StoreResult<Vec<(Node, JobEvent)>> {
        let mut decided = BTreeMap::new();
        for (id, unfinished, broken) in rows {
            let event = match broken {
                Some(need) => {
                    JobEvent::NeedFailed { need: column::parse("jobs", "name", &id, &need)? }
                }
                None if unfinished == 0 => JobEvent::NeedsMet,
                None => continue,
            };
            decided.insert(id, event);
        }
        if decided.is_empty() {
            return Ok(vec![]);
        }
        let ids = column::to_json(&decided.keys().collect::<BTreeSet<_>>())?;
        let nodes = load_nodes!(
            self.connection,
            "id IN (SELECT value FROM json_each(?)) ORDER BY run, position",
            ids
        );
        Ok(nodes
            .into_iter()
            .filter_map(|node| decided.remove(&node.id.to_string()).map(|event| (node, event)))
            .collect())
    }

    async fn open_attempts(&mut self, opened: &[AttemptChange]) -> StoreResult<()> {
        if opened.is_empty() {
            return Ok(());
        }
        let opened = column::to_json(opened)?;
        let request = self.request.clone().unwrap_or_default();
        sqlx::query!(
            "INSERT INTO attempts (job, epoch, runner, request, started_at)
             SELECT a.value ->> 'job', a.value ->> 'epoch', a.value ->> 'runner', ?, ? FROM json_each(?) AS a",
            request,
            self.now.0,
            opened
        )
        .execute(&mut *self.connection)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn close_attempts(&mut self, closed: &[AttemptChange]) -> StoreResult<()> {
        if closed.is_empty() {
            return Ok(());
        }
        let closed = column::to_json(closed)?;
        sqlx::query!(
            "UPDATE attempts SET finished_at = ?, reported = c.value ->> 'reported',
                    log_bytes = coalesce(c.value ->> 'log_bytes', log_bytes),
                    conclusion = c.value ->> 'conclusion',
                    reason_code = c.value ->> 'reason_code', reason_message = c.value ->> 'reason_message'
             FROM json_each(?) AS c
             WHERE attempts.job = c.value ->> 'job' AND attempts.epoch = c.value ->> 'epoch'",
            self.now.0,
            closed
        )
        .execute(&mut *self.connection)
        .await
        .map_err(failed)?;
        Ok(())
    }
}

async fn save(connection: &mut SqliteConnection, nodes: &[Node]) -> StoreResult<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let saved = column::to_json(&nodes.iter().map(Saved::of).collect::<Vec<_>>())?;
    let done = sqlx::query!(
        "UPDATE jobs SET state = n.value ->> 'state', epoch = n.value ->> 'epoch',
                failures = n.value ->> 'failures', losses = n.value ->> 'losses',
                runner = n.value ->> 'runner', lease_until = n.value ->> 'lease_until',
                cancel_by = n.value ->> 'cancel_by', cancel_at = n.value ->> 'cancel_at',
                deployment = n.value ->> 'deployment', conclusion = n.value ->> 'conclusion',
                reason_code = n.value ->> 'reason_code', reason_message = n.value ->> 'reason_message',
                started_at = n.value ->> 'started_at', finished_at = n.value ->> 'finished_at'
         FROM json_each(?) AS n WHERE jobs.id = n.value ->> 'id'",
        saved
    )
    .execute(connection)
    .await
    .map_err(failed)?;
    if done.rows_affected() == nodes.len() as u64 {
        Ok(())
    } else {
        Err(column::corrupt("jobs", "id", "", "a node vanished inside a transaction"))
    }
}

/// A run's own columns.
#[derive(Serialize)]
struct Summary {
    id: i64,
    status: &'static str,
    conclusion: Option<&'static str>,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

/// Brings the runs' own columns up to date; `true` stands for a run that a node was started of.
/// Answers which runs changed.
async fn refresh_runs(
    connection: &mut SqliteConnection,
    runs: &BTreeMap<i64, bool>,
    now: Timestamp,
) -> StoreResult<Vec<i64>> {
    if runs.is_empty() {
        return Ok(vec![]);
    }
    let ids = column::to_json(&runs.keys().collect::<Vec<_>>())?;
    let rows = sqlx::query!(
        r#"SELECT run, state, conclusion, count(*) AS "nodes!: i64" FROM jobs
           WHERE run IN (SELECT value FROM json_each(?)) GROUP BY run, state, conclusion"#,
        ids
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    let mut tallies: BTreeMap<i64, Tally> = BTreeMap::new();
    for row in rows {
        let status = match row.state.as_str() {
            "running" | "deploying" => Status::Running,
            "finished" => Status::Finished,
            _ => Status::Queued,
        };
        let conclusion =
            column::parse_opt("jobs", "conclusion", row.run, row.conclusion.as_deref())?;
        tallies.entry(row.run).or_default().add(status, conclusion, row.nodes.unsigned_abs());
    }
    let summary = |(id, tally): (&i64, &Tally)| {
        let (status, conclusion) = tally.summary();
        Summary {
            id: *id,
            status: status.as_str(),
            conclusion: conclusion.map(Conclusion::as_str),
            started_at: runs.get(id).copied().unwrap_or_default().then_some(now.0),
            finished_at: (status == Status::Finished).then_some(now.0),
        }
    };
    let summaries = column::to_json(&tallies.iter().map(summary).collect::<Vec<_>>())?;
    let changed = sqlx::query!(
        r#"UPDATE runs SET status = n.value ->> 'status', conclusion = n.value ->> 'conclusion',
                  finished_at = n.value ->> 'finished_at',
                  started_at = coalesce(started_at, n.value ->> 'started_at')
           FROM json_each(?) AS n
           WHERE runs.id = n.value ->> 'id'
             AND (runs.status <> n.value ->> 'status' OR runs.conclusion IS NOT n.value ->> 'conclusion')
           RETURNING id AS "id!: i64", conclusion,
             EXISTS (SELECT 1 FROM forge_tokens AS f WHERE f.repo = runs.repo) AS "forge_listens!: bool""#,
        summaries
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failed)?;
    let mut ids = Vec::with_capacity(changed.len());
    for row in changed {
        let conclusion =
            column::parse_opt("runs", "conclusion", row.id, row.conclusion.as_deref())?;
        if row.forge_listens || outbox::is_bad(conclusion) {
            outbox::run_changed(connection, RunId(row.id), now).await?;
        }
        ids.push(row.id);
    }
    ids.sort_unstable();
    Ok(ids)
}

/// A reason for people from the machine's.
pub(crate) fn reason_of(view: Option<pipeyard_api::runner::ReasonView>) -> Option<Reason> {
    view.map(|view| Reason { code: view.code, message: view.message })
}
