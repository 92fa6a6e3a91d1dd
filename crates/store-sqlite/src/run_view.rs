//! Runs and jobs as people see them, read from one snapshot.

use std::collections::BTreeMap;

use pipeyard_api::views::{AttemptView, JobView, ReasonView, RunDetail, RunView, StepView};
use pipeyard_model::{
    Conclusion, Epoch, NodeName, RunId, Status, Timestamp,
    origin::Stranger,
    plan::{DeploySpec, JobSpec},
};
use pipeyard_store::{StoreError, StoreResult, runs::RunFilter};
use serde::Deserialize;
use sqlx::{SqliteConnection, SqlitePool};

use crate::{
    column::{self, failed},
    intake::event_of,
    test_reports,
};

struct RunRow {
    id: i64,
    repo: String,
    pipeline: String,
    event: String,
    branch: String,
    pull_request: Option<i64>,
    commit_sha: String,
    title: String,
    author: String,
    held: i64,
    stranger: Option<String>,
    status: String,
    conclusion: Option<String>,
    reason_code: Option<String>,
    reason_message: Option<String>,
    failed: Option<String>,
    created_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

/// The job or deploy that made a run fail: the first that did.
#[derive(Deserialize)]
struct Failed {
    kind: String,
    name: String,
    code: Option<String>,
    message: Option<String>,
}

/// Why a run failed, from the JSON of [`Failed`].
pub(crate) fn failed_reason(run: i64, failed: Option<&str>) -> StoreResult<Option<ReasonView>> {
    let Some(failed) = failed else { return Ok(None) };
    let Failed { kind, name, code, message } = column::json("jobs", "reason", run, failed)?;
    let message = message.unwrap_or_else(|| "failed".to_owned());
    // "Step 2 (make) exited with 1." goes on in the middle of a sentence.
    let message =
        message.strip_prefix("Step ").map_or(message.clone(), |rest| format!("step {rest}"));
    let code = code.unwrap_or_else(|| "job_failed".to_owned());
    Ok(Some(view(&code, format!("{kind} {name}: {message}"))))
}

macro_rules! select_runs {
    ($condition:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            RunRow,
            r#"SELECT r.id, p.name AS repo, r.pipeline, r.event, r.branch, r.pull_request, r.commit_sha, r.title,
                    r.author, r.held, r.stranger, r.status, r.conclusion, r.reason_code, r.reason_message, r.created_at,
                    r.started_at, r.finished_at,
                    CASE WHEN r.conclusion IN ('failure', 'error', 'timed_out') THEN (
                        SELECT json_object('kind', j.kind, 'name', j.name, 'code', j.reason_code,
                            'message', j.reason_message)
                        FROM jobs AS j WHERE j.run = r.id AND j.state = 'finished'
                          AND j.conclusion IN ('failure', 'error', 'timed_out')
                        ORDER BY j.finished_at, j.position LIMIT 1) END AS "failed: String"
             FROM runs AS r JOIN repos AS p ON p.id = r.repo WHERE r.making = 0 AND "# + $condition
            $(, $argument)*
        )
    };
}

impl TryFrom<RunRow> for RunView {
    type Error = StoreError;

    fn try_from(row: RunRow) -> StoreResult<Self> {
        let status: Status = column::parse("runs", "status", row.id, &row.status)?;
        let held = row.held != 0 && status != Status::Finished;
        let stranger: Option<Stranger> =
            column::parse_opt("runs", "stranger", row.id, row.stranger.as_deref())?;
        let reason = if held {
            let what = stranger.unwrap_or(Stranger::PullRequest).words();
            Some(view(
                "held",
                format!("{what}: a person must look at the change and approve the run"),
            ))
        } else {
            match column::reason_view(row.reason_code, row.reason_message) {
                Some(own) => Some(own),
                None => failed_reason(row.id, row.failed.as_deref())?,
            }
        };
        Ok(Self {
            kind: "run".into(),
            id: RunId(row.id),
            repo: column::parse("repos", "name", row.id, &row.repo)?,
            pipeline: row.pipeline,
            event: event_of("runs", row.id, &row.event)?,
            branch: row.branch,
            pull_request: row.pull_request.map(i64::unsigned_abs),
            commit: row.commit_sha,
            title: row.title,
            author: row.author,
            status,
            conclusion: column::parse_opt("runs", "conclusion", row.id, row.conclusion.as_deref())?,
            reason,
            held,
            fork: stranger.is_some(),
            created_at: Timestamp(row.created_at),
            started_at: column::time(row.started_at),
            finished_at: column::time(row.finished_at),
        })
    }
}

fn view(code: &str, message: impl Into<String>) -> ReasonView {
    ReasonView { code: code.to_owned(), message: message.into() }
}

/// Runs, newest first.
pub(crate) async fn list(pool: &SqlitePool, filter: RunFilter) -> StoreResult<Vec<RunView>> {
    let repo = filter.repo.map(|id| id.to_string());
    let status = filter.status.map(Status::as_str);
    let conclusion = filter.conclusion.map(Conclusion::as_str);
    let commit = filter.commit.map(|commit| commit.to_ascii_lowercase());
    let before = filter.before.map_or(i64::MAX, |id| id.0);
    let limit = filter.limit.clamp(1, 200);
    let rows = select_runs!(
        "r.id < ?1 AND (?2 IS NULL OR r.repo = ?2) AND (?3 IS NULL OR r.branch = ?3)
         AND (?4 IS NULL OR r.status = ?4) AND (?5 IS NULL OR r.conclusion = ?5)
         AND (?6 IS NULL OR substr(r.commit_sha, 1, length(?6)) = ?6)
         ORDER BY r.id DESC LIMIT ?7",
        before,
        repo,
        filter.branch,
        status,
        conclusion,
        commit,
        limit
    )
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    rows.into_iter().map(RunView::try_from).collect()
}

/// One run with its jobs.
pub(crate) async fn detail(c: &mut SqliteConnection, id: RunId) -> StoreResult<Option<RunDetail>> {
    let Some(row) = select_runs!("r.id = ?", id.0).fetch_optional(&mut *c).await.map_err(failed)?
    else {
        return Ok(None);
    };
    let diagnostics = sqlx::query_scalar!("SELECT diagnostics FROM runs WHERE id = ?", id.0)
        .fetch_one(&mut *c)
        .await
        .map_err(failed)?;
    Ok(Some(RunDetail {
        run: row.try_into()?,
        jobs: jobs(c, id, None).await?,
        diagnostics: column::json("runs", "diagnostics", id, &diagnostics)?,
    }))
}

/// The jobs of a run in the order of the file, or the one of this name.
pub(crate) async fn jobs(
    c: &mut SqliteConnection,
    run: RunId,
    name: Option<&NodeName>,
) -> StoreResult<Vec<JobView>> {
    let name = name.map(NodeName::as_str);
    let rows = sqlx::query!(
        "SELECT id, name, kind, spec, state, epoch, cancel_at, deployment, conclusion, reason_code, reason_message,
                started_at, finished_at
         FROM jobs WHERE run = ?1 AND (?2 IS NULL OR name = ?2) ORDER BY position",
        run.0,
        name
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let mut needs = needs(c, run, name).await?;
    let mut attempts = attempts(c, run, name).await?;
    let mut steps = steps(c, run, name).await?;
    let mut tests = test_reports::summaries(c, run, name).await?;
    let mut views = Vec::with_capacity(rows.len());
    for row in rows {
        let id = row.id.as_str();
        let needs = needs.remove(id).unwrap_or_default();
        let mut attempts = attempts.remove(id).unwrap_or_default();
        let status = match row.state.as_str() {
            "running" | "deploying" => Status::Running,
            "finished" => Status::Finished,
            _ => Status::Queued,
        };
        let reason = match row.state.as_str() {
            "held" => Some(view("held", "waits for a person's approval of the run")),
            "waiting" => {
                let open: Vec<_> =
                    needs.iter().filter(|n| !n.done).map(|n| n.name.as_str()).collect();
                Some(view("waiting_for_needs", format!("waits for {}", open.join(", "))))
            }
            _ if row.cancel_at.is_some() => {
                Some(view("cancelling", "a person cancelled it; it is being ended"))
            }
            _ => column::reason_view(row.reason_code, row.reason_message),
        };
        let names: Vec<String> = if row.kind == "job" {
            let spec: JobSpec = column::json("jobs", "spec", id, &row.spec)?;
            spec.steps.into_iter().map(|step| step.name).collect()
        } else {
            let _: DeploySpec = column::json("jobs", "spec", id, &row.spec)?;
            vec![]
        };
        for attempt in &mut attempts {
            let key = (row.id.clone(), i64::from(attempt.epoch.0));
            attempt.tests = tests.remove(&key);
            let rows = steps.remove(&key).unwrap_or_default();
            let over = attempt.finished_at.zip(attempt.conclusion);
            attempt.steps = step_views(&names, &rows, over);
        }
        let current = match row.state.as_str() {
            "running" | "finished" => attempts.last(),
            _ => None,
        };
        views.push(JobView {
            id: column::parse("jobs", "id", id, id)?,
            name: column::parse("jobs", "name", id, &row.name)?,
            steps: current.map_or_else(
                || step_views(&names, &BTreeMap::new(), None),
                |attempt| attempt.steps.clone(),
            ),
            tests: current.and_then(|attempt| attempt.tests),
            node: row.kind,
            needs: needs
                .iter()
                .map(|need| column::parse("jobs", "name", id, &need.name))
                .collect::<StoreResult<_>>()?,
            status,
            conclusion: column::parse_opt("jobs", "conclusion", id, row.conclusion.as_deref())?,
            reason,
            epoch: Epoch(column::number("jobs", "epoch", id, row.epoch)?),
            started_at: column::time(row.started_at),
            finished_at: column::time(row.finished_at),
            attempts,
            deployment: row.deployment,
        });
    }
    Ok(views)
}

struct Need {
    name: String,
    done: bool,
}

async fn needs(
    c: &mut SqliteConnection,
    run: RunId,
    name: Option<&str>,
) -> StoreResult<BTreeMap<String, Vec<Need>>> {
    let rows = sqlx::query!(
        r#"SELECT j.id, d.name, (d.state = 'finished') AS "done!: bool"
           FROM jobs AS j JOIN needs AS n ON n.job = j.id JOIN jobs AS d ON d.id = n.need
           WHERE j.run = ?1 AND (?2 IS NULL OR j.name = ?2) ORDER BY d.position"#,
        run.0,
        name
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let mut needs: BTreeMap<String, Vec<Need>> = BTreeMap::new();
    for row in rows {
        needs.entry(row.id).or_default().push(Need { name: row.name, done: row.done });
    }
    Ok(needs)
}

async fn attempts(
    c: &mut SqliteConnection,
    run: RunId,
    name: Option<&str>,
) -> StoreResult<BTreeMap<String, Vec<AttemptView>>> {
    let rows = sqlx::query!(
        "SELECT a.job, a.epoch, n.name AS runner, a.started_at, a.finished_at, a.conclusion, a.reason_code,
                a.reason_message, a.log_bytes, a.log_removed_at
         FROM jobs AS j JOIN attempts AS a ON a.job = j.id JOIN runners AS n ON n.id = a.runner
         WHERE j.run = ?1 AND (?2 IS NULL OR j.name = ?2) ORDER BY a.job, a.epoch",
        run.0,
        name
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let mut attempts: BTreeMap<String, Vec<AttemptView>> = BTreeMap::new();
    for row in rows {
        let attempt = AttemptView {
            epoch: Epoch(column::number("attempts", "epoch", &row.job, row.epoch)?),
            runner: row.runner,
            started_at: Timestamp(row.started_at),
            finished_at: column::time(row.finished_at),
            conclusion: column::parse_opt(
                "attempts",
                "conclusion",
                &row.job,
                row.conclusion.as_deref(),
            )?,
            reason: column::reason_view(row.reason_code, row.reason_message),
            log_bytes: row.log_bytes.unsigned_abs(),
            log_removed_at: column::time(row.log_removed_at),
            steps: vec![],
            tests: None,
        };
        attempts.entry(row.job).or_default().push(attempt);
    }
    Ok(attempts)
}

/// What is stored of a step of an attempt.
struct StepRow {
    started_at: Option<i64>,
    finished_at: Option<i64>,
    conclusion: Option<Conclusion>,
    exit_code: Option<i64>,
    first_line: Option<i64>,
}

/// What is stored of the steps of every attempt, by job and epoch, then by the step's number.
async fn steps(
    c: &mut SqliteConnection,
    run: RunId,
    name: Option<&str>,
) -> StoreResult<BTreeMap<(String, i64), BTreeMap<i64, StepRow>>> {
    let rows = sqlx::query!(
        "SELECT s.job, s.epoch, s.step, s.started_at, s.finished_at, s.conclusion, s.exit_code, s.first_line
         FROM jobs AS j JOIN steps AS s ON s.job = j.id
         WHERE j.run = ?1 AND (?2 IS NULL OR j.name = ?2)",
        run.0,
        name
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let mut steps: BTreeMap<(String, i64), BTreeMap<i64, StepRow>> = BTreeMap::new();
    for row in rows {
        let conclusion =
            column::parse_opt("steps", "conclusion", &row.job, row.conclusion.as_deref())?;
        let step = StepRow {
            started_at: row.started_at,
            finished_at: row.finished_at,
            conclusion,
            exit_code: row.exit_code,
            first_line: row.first_line,
        };
        steps.entry((row.job, row.epoch)).or_default().insert(row.step, step);
    }
    Ok(steps)
}

/// Every step of the spec with what is known of it. When the attempt is over, no step is left open:
/// one that began ended with the attempt, one that didn't was skipped.
fn step_views(
    names: &[String],
    rows: &BTreeMap<i64, StepRow>,
    over: Option<(Timestamp, Conclusion)>,
) -> Vec<StepView> {
    let view = |(number, name): (u16, &String)| {
        let row = rows.get(&i64::from(number));
        let started_at = row.and_then(|row| row.started_at);
        let ended = row.and_then(|row| row.finished_at.zip(row.conclusion));
        let (status, conclusion, finished_at) = match (started_at, ended, over) {
            (_, Some((at, conclusion)), _) => {
                (Status::Finished, Some(conclusion), Some(Timestamp(at)))
            }
            (Some(_), None, Some((at, conclusion))) => {
                (Status::Finished, Some(conclusion), Some(at))
            }
            (Some(_), None, None) => (Status::Running, None, None),
            (None, None, Some(_)) => (Status::Finished, Some(Conclusion::Skipped), None),
            (None, None, None) => (Status::Queued, None, None),
        };
        StepView {
            step: number,
            name: name.clone(),
            status,
            conclusion,
            exit_code: row.and_then(|row| row.exit_code).and_then(|code| i32::try_from(code).ok()),
            started_at: column::time(started_at),
            finished_at,
            first_line: row.and_then(|row| row.first_line).map(i64::unsigned_abs),
        }
    };
    (1..).zip(names).map(view).collect()
}
