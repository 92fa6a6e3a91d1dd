//! The queue: claims, leases, and the fence before every write of a runner.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use pipeyard_api::runner::{AttemptRef, FinishRequest, HANDED_BACK, StepReport};
use pipeyard_model::{
    AttemptId, Conclusion, Epoch, JobId, RequestId, RunId, RunnerId, Timestamp,
    job::{JobEvent, JobState},
};
use pipeyard_store::{
    StoreError, StoreResult,
    queue::{Appends, Claimed, HeartbeatNews, LATE_LOG, LEASE_SECONDS, LogState, Queue},
};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    column::{self, failed},
    events::{self, NewEvent},
    intake::event_of,
    jobs::{Change, Node, Said, load_nodes, reason_of},
    waits,
    writer::Work,
};

/// Attempts that one transaction ends.
const EXPIRED: u32 = 200;

/// What a guarded write answers: a refusal is committed too, because it is recorded.
type Guarded<T> = StoreResult<Result<T, StoreError>>;

fn lease(now: Timestamp) -> Timestamp {
    now + Duration::from_secs(u64::from(LEASE_SECONDS))
}

fn stale(attempt: AttemptId) -> StoreError {
    StoreError::conflict(
        "stale_epoch",
        format!(
            "attempt {attempt} isn't this runner's any more: it is over, or the job was offered again"
        ),
    )
}

async fn claim(
    c: &mut SqliteConnection,
    runner: RunnerId,
    request: RequestId,
    slots: u32,
    now: Timestamp,
) -> StoreResult<Vec<Claimed>> {
    let (runner_text, request_text) = (runner.to_string(), request.to_string());
    let standing = sqlx::query!(
        r#"SELECT (SELECT labels FROM runners WHERE id = ?1 AND removed_at IS NULL) AS "labels: String",
                  (SELECT repos FROM runners WHERE id = ?1) AS "repos: String",
                  coalesce((SELECT forks FROM runners WHERE id = ?1), 0) AS "forks!: i64",
                  EXISTS (SELECT 1 FROM attempts WHERE request = ?2 AND runner = ?1) AS "repeated!: bool""#,
        runner_text,
        request_text
    )
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    if !standing.repeated {
        let labels =
            standing.labels.ok_or_else(|| StoreError::not_found(format!("runner {runner}")))?;
        let nodes = load_nodes!(
            c,
            "kind = 'job' AND state = 'ready' AND (labels = '[]' OR NOT EXISTS
                 (SELECT 1 FROM json_each(jobs.labels) AS l
                  WHERE l.value NOT IN (SELECT value FROM json_each(?))))
             AND EXISTS (SELECT 1 FROM runs AS r WHERE r.id = jobs.run AND r.making = 0
                 AND (? OR r.fork = 0)
                 AND (? IS NULL OR r.repo IN (SELECT value FROM json_each(?))))
             ORDER BY run, position LIMIT ?",
            labels,
            standing.forks,
            standing.repos,
            standing.repos,
            slots
        );
        if nodes.is_empty() {
            return Ok(vec![]);
        }
        let claimed = JobEvent::Claimed { runner, lease_until: lease(now) };
        let moves = nodes.into_iter().map(|node| (node, claimed.clone())).collect();
        let mut change = Change::new(c, now);
        change.request = Some(request_text.clone());
        change.apply(moves).await?;
    }
    claimed_by(c, &runner_text, &request_text).await
}

/// What this request was given, as far as it is still this runner's.
async fn claimed_by(
    c: &mut SqliteConnection,
    runner: &str,
    request: &str,
) -> StoreResult<Vec<Claimed>> {
    let rows = sqlx::query!(
        "SELECT j.id, j.epoch, j.run, r.repo, j.name, j.spec, r.commit_sha, r.branch, r.author, r.event,
                r.code_branch, r.stranger
         FROM attempts AS a JOIN jobs AS j ON j.id = a.job AND j.epoch = a.epoch AND j.state = 'running'
         JOIN runs AS r ON r.id = j.run
         WHERE a.request = ? AND a.runner = ? ORDER BY j.run, j.position",
        request,
        runner
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    rows.into_iter()
        .map(|row| {
            let id = row.id.as_str();
            Ok(Claimed {
                job: column::parse("jobs", "id", id, id)?,
                epoch: Epoch(column::number("jobs", "epoch", id, row.epoch)?),
                run: RunId(row.run),
                repo: column::parse("runs", "repo", row.run, &row.repo)?,
                name: column::parse("jobs", "name", id, &row.name)?,
                spec: column::json("jobs", "spec", id, &row.spec)?,
                commit: row.commit_sha,
                branch: row.branch,
                author: row.author,
                event: event_of("runs", row.run, &row.event)?,
                origin: column::origin(row.run, row.code_branch, row.stranger.as_deref())?,
            })
        })
        .collect()
}

/// Whether the attempt is the node's present one, and this runner's.
fn is_present(node: &Node, runner: RunnerId, attempt: AttemptId) -> bool {
    let held =
        matches!(node.job.state, JobState::Running { runner: holder, .. } if holder == runner);
    held && node.job.epoch == attempt.epoch
}

/// Whether this runner has ended the attempt this way before.
async fn is_repeated(
    c: &mut SqliteConnection,
    runner: RunnerId,
    attempt: AttemptId,
    conclusion: Conclusion,
) -> StoreResult<bool> {
    let (id, who, reported) = (attempt.job.to_string(), runner.to_string(), conclusion.as_str());
    let repeated = sqlx::query_scalar!(
        r#"SELECT 1 AS "yes!: i64" FROM attempts
           WHERE job = ? AND epoch = ? AND runner = ? AND finished_at IS NOT NULL AND reported = ?"#,
        id,
        attempt.epoch.0,
        who,
        reported
    )
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    Ok(repeated.is_some())
}

/// The node of an attempt, if it is this runner's present one; otherwise the refusal is recorded.
async fn guard(
    c: &mut SqliteConnection,
    runner: RunnerId,
    attempt: AttemptId,
    what: &str,
    now: Timestamp,
) -> Guarded<Node> {
    let id = attempt.job.to_string();
    let Some(node) = load_nodes!(c, "id = ?", id).pop() else {
        return Ok(Err(StoreError::not_found(format!("job {id}"))));
    };
    if is_present(&node, runner, attempt) {
        return Ok(Ok(node));
    }
    record_refusal(c, runner, attempt, what, now).await?;
    Ok(Err(stale(attempt)))
}

async fn record_refusal(
    c: &mut SqliteConnection,
    runner: RunnerId,
    attempt: AttemptId,
    what: &str,
    now: Timestamp,
) -> StoreResult<()> {
    let (id, runner) = (attempt.job.to_string(), runner.to_string());
    // Epochs that the job never had share one row.
    sqlx::query!(
        "INSERT INTO rejected_writes (job, epoch, runner, what, times, first_at, last_at)
         SELECT id, CASE WHEN ?2 <= epoch THEN ?2 ELSE -1 END, ?3, ?4, 1, ?5, ?5 FROM jobs WHERE id = ?1
         ON CONFLICT DO UPDATE SET times = times + 1, last_at = excluded.last_at",
        id,
        attempt.epoch.0,
        runner,
        what,
        now.0
    )
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

async fn news(
    c: &mut SqliteConnection,
    runner: RunnerId,
    attempts: &[AttemptRef],
) -> StoreResult<HeartbeatNews> {
    let ids = column::to_json(&attempts.iter().map(|a| a.job).collect::<Vec<_>>())?;
    let runner = runner.to_string();
    let rows = sqlx::query!(
        r#"SELECT id, epoch, (cancel_at IS NOT NULL) AS "cancel!: bool" FROM jobs
           WHERE state = 'running' AND runner = ? AND id IN (SELECT value FROM json_each(?))"#,
        runner,
        ids
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let mine: BTreeMap<(String, i64), bool> =
        rows.into_iter().map(|row| ((row.id, row.epoch), row.cancel)).collect();
    let mut news = HeartbeatNews::default();
    for attempt in attempts {
        match mine.get(&(attempt.job.to_string(), i64::from(attempt.epoch.0))) {
            Some(true) => news.cancel.push(*attempt),
            Some(false) => {}
            None => news.stale.push(*attempt),
        }
    }
    Ok(news)
}

async fn report_steps(
    c: &mut SqliteConnection,
    runner: RunnerId,
    attempt: AttemptId,
    steps: &[StepReport],
    now: Timestamp,
) -> Guarded<()> {
    let node = match guard(c, runner, attempt, "steps", now).await? {
        Ok(node) => node,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let id = attempt.job.to_string();
    let known = sqlx::query_scalar!(
        r#"SELECT json_array_length(spec, '$.steps') AS "steps!: i64" FROM jobs WHERE id = ?"#,
        id
    )
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    for step in steps {
        if step.step == 0 || i64::from(step.step) > known {
            let message = format!("job {} has {known} steps, not a step {}", node.name, step.step);
            return Ok(Err(StoreError::conflict("no_such_step", message)));
        }
        let end = step.finished.as_ref();
        let (at, conclusion) = (end.map(|e| e.at.0), end.map(|e| e.conclusion.as_str()));
        let exit_code = end.and_then(|e| e.exit_code);
        sqlx::query!(
            "INSERT INTO steps (job, epoch, step, started_at, finished_at, conclusion, exit_code)
             VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET
                started_at = min(coalesce(started_at, excluded.started_at), excluded.started_at), finished_at = excluded.finished_at,
                conclusion = excluded.conclusion, exit_code = excluded.exit_code",
            id,
            attempt.epoch.0,
            step.step,
            step.started_at.0,
            at,
            conclusion,
            exit_code
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    }
    job_changed(c, &node, now).await?;
    Ok(Ok(()))
}

async fn job_changed(c: &mut SqliteConnection, node: &Node, now: Timestamp) -> StoreResult<()> {
    let event = NewEvent {
        kind: "job.changed",
        run: Some(node.run),
        job: Some(node.name.clone()),
        deployment: None,
    };
    events::append(c, &[event], now).await
}

/// A runner's word that an attempt has ended.
#[derive(Debug)]
pub(crate) struct Finish {
    runner: RunnerId,
    attempt: AttemptId,
    end: FinishRequest,
    now: Timestamp,
}

impl Finish {
    fn event(&self) -> JobEvent {
        let reason = reason_of(self.end.reason.clone());
        match (self.end.conclusion, reason) {
            // A runner that was restarted says itself that the attempt was lost.
            (Conclusion::Error, Some(reason)) if reason.code == "runner_lost" => {
                JobEvent::RunnerLost
            }
            (Conclusion::Error, Some(reason)) if reason.code == HANDED_BACK => {
                JobEvent::HandedBack { reason }
            }
            (conclusion, reason) => JobEvent::Ended { conclusion, reason },
        }
    }
}

/// Ends attempts. A refusal is recorded and is its own attempt's alone.
pub(crate) fn finish_all(
    c: &mut SqliteConnection,
    asked: Vec<Finish>,
) -> Work<'_, Vec<StoreResult<()>>> {
    Box::pin(async move {
        let mut answers = Vec::with_capacity(asked.len());
        let mut left = asked.as_slice();
        // Two words about one job: the second is judged by what the first has done.
        while !left.is_empty() {
            let mut jobs = BTreeSet::new();
            let many = left.iter().take_while(|f| jobs.insert(f.attempt.job)).count();
            let (round, rest) = left.split_at(many);
            answers.extend(finish_round(c, round).await?);
            left = rest;
        }
        Ok(answers)
    })
}

/// The same for words about different jobs.
async fn finish_round(
    c: &mut SqliteConnection,
    round: &[Finish],
) -> StoreResult<Vec<StoreResult<()>>> {
    let ids = column::to_json(&round.iter().map(|f| f.attempt.job).collect::<Vec<_>>())?;
    let nodes = load_nodes!(c, "id IN (SELECT value FROM json_each(?))", ids);
    let mut nodes: BTreeMap<JobId, Node> = nodes.into_iter().map(|n| (n.id, n)).collect();
    let (mut answers, mut moves, mut said) = (Vec::new(), Vec::new(), BTreeMap::new());
    for finish in round {
        let Finish { runner, attempt, end, now } = finish;
        let answer = match nodes.remove(&attempt.job) {
            None => Err(StoreError::not_found(format!("job {}", attempt.job))),
            Some(node) if is_present(&node, *runner, *attempt) => {
                let log_bytes = column::to_i64(end.log_bytes);
                said.insert(attempt.job, Said { conclusion: end.conclusion, log_bytes });
                moves.push((node, finish.event()));
                Ok(())
            }
            Some(_) if is_repeated(c, *runner, *attempt, end.conclusion).await? => Ok(()),
            Some(_) => {
                record_refusal(c, *runner, *attempt, "finish", *now).await?;
                Err(stale(*attempt))
            }
        };
        answers.push(answer);
    }
    if let Some(now) = round.iter().map(|f| f.now).max().filter(|_| !moves.is_empty()) {
        let mut change = Change::new(c, now);
        change.said = said;
        change.apply(moves).await?;
    }
    Ok(answers)
}

async fn expire(c: &mut SqliteConnection, now: Timestamp) -> StoreResult<Vec<AttemptId>> {
    let nodes = load_nodes!(
        c,
        "state = 'running' AND lease_until < ? ORDER BY lease_until LIMIT ?",
        now.0,
        EXPIRED
    );
    let ended =
        nodes.iter().map(|node| AttemptId { job: node.id, epoch: node.job.epoch }).collect();
    let moves = nodes.into_iter().map(|node| (node, JobEvent::RunnerLost)).collect();
    Change::new(c, now).apply(moves).await?;
    Ok(ended)
}

#[async_trait]
impl Queue for SqliteStore {
    async fn claim_jobs(
        &self,
        runner: RunnerId,
        request: RequestId,
        slots: u32,
        now: Timestamp,
    ) -> StoreResult<Vec<Claimed>> {
        // Most looks find nothing; they cost the writer nothing.
        let text = request.to_string();
        let worth = sqlx::query_scalar!(
            r#"SELECT (EXISTS (SELECT 1 FROM attempts WHERE request = ?)
                    OR EXISTS (SELECT 1 FROM jobs WHERE kind = 'job' AND state = 'ready')) AS "worth!: bool""#,
            text
        )
        .fetch_one(&self.read)
        .await
        .map_err(failed)?;
        if !worth {
            return Ok(vec![]);
        }
        self.write(move |c| Box::pin(claim(c, runner, request, slots, now))).await
    }

    async fn heartbeat(
        &self,
        runner: RunnerId,
        attempts: &[AttemptRef],
        now: Timestamp,
    ) -> StoreResult<HeartbeatNews> {
        let attempts = attempts.to_vec();
        self.write(move |c| {
            Box::pin(async move {
                let refs = column::to_json(&attempts)?;
                let (who, until) = (runner.to_string(), lease(now).0);
                // The one write to a node that isn't a move: its guard is the machine's own.
                sqlx::query!(
                    "UPDATE jobs SET lease_until = ? FROM json_each(?) AS a
                     WHERE jobs.id = a.value ->> 'job' AND jobs.epoch = a.value ->> 'epoch'
                       AND jobs.state = 'running' AND jobs.runner = ?",
                    until,
                    refs,
                    who
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                news(c, runner, &attempts).await
            })
        })
        .await
    }

    async fn heartbeat_news(
        &self,
        runner: RunnerId,
        attempts: &[AttemptRef],
    ) -> StoreResult<HeartbeatNews> {
        let mut connection = self.read.acquire().await.map_err(failed)?;
        news(&mut connection, runner, attempts).await
    }

    async fn check_attempt(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        now: Timestamp,
    ) -> StoreResult<()> {
        let (id, who) = (attempt.job.to_string(), runner.to_string());
        let present = sqlx::query_scalar!(
            r#"SELECT 1 AS "yes!: i64" FROM jobs WHERE id = ? AND epoch = ? AND runner = ? AND state = 'running'"#,
            id,
            attempt.epoch.0,
            who
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        if present.is_some() {
            return Ok(());
        }
        let guarded = self.write(move |c| Box::pin(guard_only(c, runner, attempt, now))).await?;
        guarded.map(drop)
    }

    async fn may_append(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        now: Timestamp,
    ) -> StoreResult<Appends> {
        let (id, who, since) = (attempt.job.to_string(), runner.to_string(), (now - LATE_LOG).0);
        // What the runner has finished itself carries what it reported.
        let late = sqlx::query_scalar!(
            r#"SELECT (finished_at IS NOT NULL) AS "late!: bool" FROM attempts
               WHERE job = ? AND epoch = ? AND runner = ?
                 AND (finished_at IS NULL OR (finished_at > ? AND reported IS NULL))"#,
            id,
            attempt.epoch.0,
            who,
            since
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        match late {
            Some(true) => Ok(Appends::Late),
            Some(false) => Ok(Appends::InWork),
            // Refuses, and records it.
            None => self.check_attempt(runner, attempt, now).await.map(|()| Appends::InWork),
        }
    }

    async fn report_steps(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        steps: &[StepReport],
        now: Timestamp,
    ) -> StoreResult<()> {
        let steps = steps.to_vec();
        self.write(move |c| {
            Box::pin(async move { report_steps(c, runner, attempt, &steps, now).await })
        })
        .await?
    }

    async fn report_log(
        &self,
        attempt: AttemptId,
        bytes: u64,
        first_lines: &[(u16, u64)],
        now: Timestamp,
    ) -> StoreResult<()> {
        let first_lines = first_lines.to_vec();
        self.write(move |c| {
            Box::pin(async move {
                let (id, bytes) = (attempt.job.to_string(), column::to_i64(bytes));
                sqlx::query!(
                    "UPDATE attempts SET log_bytes = max(log_bytes, ?) WHERE job = ? AND epoch = ?",
                    bytes,
                    id,
                    attempt.epoch.0
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                for (step, line) in &first_lines {
                    let line = column::to_i64(*line);
                    sqlx::query!(
                        "INSERT INTO steps (job, epoch, step, first_line) VALUES (?, ?, ?, ?)
                         ON CONFLICT DO UPDATE SET first_line = coalesce(first_line, excluded.first_line)",
                        id,
                        attempt.epoch.0,
                        step,
                        line
                    )
                    .execute(&mut *c)
                    .await
                    .map_err(failed)?;
                }
                if !first_lines.is_empty() {
                    let node = load_nodes!(c, "id = ?", id).pop();
                    if let Some(node) = node {
                        job_changed(c, &node, now).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }

    async fn finish_attempt(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        end: FinishRequest,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.finishes.ask(&self.writer, Finish { runner, attempt, end, now }).await
    }

    async fn expire_leases(&self, now: Timestamp) -> StoreResult<Vec<AttemptId>> {
        let any = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_until < ?) AS "any!: bool""#,
            now.0
        )
        .fetch_one(&self.read)
        .await
        .map_err(failed)?;
        if !any {
            return Ok(vec![]);
        }
        self.write(move |c| Box::pin(expire(c, now))).await
    }

    async fn extend_all_leases(&self, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                let until = lease(now).0;
                sqlx::query!("UPDATE jobs SET lease_until = ? WHERE state = 'running'", until)
                    .execute(c)
                    .await
                    .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn log_state(&self, attempt: AttemptId) -> StoreResult<Option<LogState>> {
        let id = attempt.job.to_string();
        let row = sqlx::query!(
            r#"SELECT (finished_at IS NOT NULL) AS "complete!: bool", log_bytes, log_digest,
                      CASE WHEN reported IS NULL THEN finished_at END AS "ended_without_runner: i64"
               FROM attempts WHERE job = ? AND epoch = ?"#,
            id,
            attempt.epoch.0
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        Ok(row.map(|row| LogState {
            complete: row.complete,
            late_until: row.ended_without_runner.map(|at| Timestamp(at) + LATE_LOG),
            bytes: row.log_bytes.unsigned_abs(),
            digest: row.log_digest,
        }))
    }

    async fn record_sealed_log(&self, attempt: AttemptId, digest: &str) -> StoreResult<()> {
        let digest = digest.to_owned();
        self.writer
            .write_bulk(move |c| {
                Box::pin(async move {
                    let id = attempt.job.to_string();
                    sqlx::query!(
                        "UPDATE attempts SET log_digest = ? WHERE job = ? AND epoch = ?",
                        digest,
                        id,
                        attempt.epoch.0
                    )
                    .execute(c)
                    .await
                    .map_err(failed)?;
                    Ok(())
                })
            })
            .await
    }

    async fn queue_counts(&self) -> StoreResult<(u64, u64)> {
        let row = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM jobs WHERE kind = 'job' AND state = 'ready') AS "queued!: i64",
                      (SELECT count(*) FROM jobs WHERE state = 'running') AS "running!: i64""#
        )
        .fetch_one(&self.read)
        .await
        .map_err(failed)?;
        Ok((row.queued.unsigned_abs(), row.running.unsigned_abs()))
    }

    async fn explain_waits(&self, now: Timestamp) -> StoreResult<()> {
        waits::explain(self, now).await
    }

    async fn rejected_writes(&self) -> StoreResult<u64> {
        let count = sqlx::query_scalar!(
            r#"SELECT coalesce(sum(times), 0) AS "times!: i64" FROM rejected_writes"#
        )
        .fetch_one(&self.read)
        .await
        .map_err(failed)?;
        Ok(count.unsigned_abs())
    }
}

async fn guard_only(
    c: &mut SqliteConnection,
    runner: RunnerId,
    attempt: AttemptId,
    now: Timestamp,
) -> Guarded<()> {
    Ok(guard(c, runner, attempt, "log", now).await?.map(drop))
}
