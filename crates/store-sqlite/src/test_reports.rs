//! What the test reports of attempts say: counts in columns, the rest as it was told.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pipeyard_api::test_report::{TestCounts, TestReport, TestSummary};
use pipeyard_model::{AttemptId, RunId, RunnerId, Timestamp};
use pipeyard_store::{StoreError, StoreResult, test_reports::TestReports};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    column::{self, failed},
    events::{self, NewEvent},
};

#[async_trait]
impl TestReports for SqliteStore {
    async fn report_tests(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        report: TestReport,
        now: Timestamp,
    ) -> StoreResult<()> {
        let text = column::to_json(&report)?;
        self.write(move |c| {
            Box::pin(async move {
                let (job, epoch) = (attempt.job.to_string(), attempt.epoch.0);
                let runner = runner.to_string();
                let TestCounts { passed, failed: bad, errored, skipped, flaky, duration_ms } =
                    report.counts;
                let duration_ms = column::to_i64(duration_ms);
                let problems = column::to_i64(report.problems.len() as u64);
                // The attempt must be the job's present one and this runner's.
                let kept = sqlx::query!(
                    "INSERT INTO test_reports
                        (job, epoch, passed, failed, errored, skipped, flaky, duration_ms, problems, report)
                     SELECT id, epoch, ?, ?, ?, ?, ?, ?, ?, ? FROM jobs
                     WHERE id = ? AND epoch = ? AND runner = ? AND state = 'running'
                     ON CONFLICT (job, epoch) DO UPDATE
                     SET passed = excluded.passed, failed = excluded.failed, errored = excluded.errored,
                         skipped = excluded.skipped, flaky = excluded.flaky,
                         duration_ms = excluded.duration_ms, problems = excluded.problems,
                         report = excluded.report",
                    passed,
                    bad,
                    errored,
                    skipped,
                    flaky,
                    duration_ms,
                    problems,
                    text,
                    job,
                    epoch,
                    runner
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                if kept.rows_affected() == 0 {
                    return Err(StoreError::conflict(
                        "stale_epoch",
                        format!("attempt {attempt} is over or another runner's"),
                    ));
                }
                let node = sqlx::query!("SELECT run, name FROM jobs WHERE id = ?", job)
                    .fetch_one(&mut *c)
                    .await
                    .map_err(failed)?;
                let event = NewEvent {
                    kind: "job.changed",
                    run: Some(node.run),
                    job: Some(node.name),
                    deployment: None,
                };
                events::append(c, &[event], now).await
            })
        })
        .await
    }

    async fn test_report(&self, attempt: AttemptId) -> StoreResult<Option<TestReport>> {
        let job = attempt.job.to_string();
        let text = sqlx::query_scalar!(
            "SELECT report FROM test_reports WHERE job = ? AND epoch = ?",
            job,
            attempt.epoch.0
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        text.map(|text| column::json("test_reports", "report", attempt, &text)).transpose()
    }
}

/// The counts of every attempt of a run's jobs, or of one of them, by job and epoch.
pub(crate) async fn summaries(
    c: &mut SqliteConnection,
    run: RunId,
    name: Option<&str>,
) -> StoreResult<BTreeMap<(String, i64), TestSummary>> {
    let rows = sqlx::query!(
        "SELECT t.job, t.epoch, t.passed, t.failed, t.errored, t.skipped, t.flaky, t.duration_ms, t.problems
         FROM jobs AS j JOIN test_reports AS t ON t.job = j.id
         WHERE j.run = ?1 AND (?2 IS NULL OR j.name = ?2)",
        run.0,
        name
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    rows.into_iter()
        .map(|row| {
            let number = |name, value| column::number("test_reports", name, &row.job, value);
            let counts = TestCounts {
                passed: number("passed", row.passed)?,
                failed: number("failed", row.failed)?,
                errored: number("errored", row.errored)?,
                skipped: number("skipped", row.skipped)?,
                flaky: number("flaky", row.flaky)?,
                duration_ms: row.duration_ms.unsigned_abs(),
            };
            let problems = number("problems", row.problems)?;
            Ok(((row.job.clone(), row.epoch), TestSummary { counts, problems }))
        })
        .collect()
}
