//! Test reports: told by the runner of an attempt, shown to people.

use axum::{
    Json,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    test_report::{MAX_FAILURES, MAX_PROBLEMS, MAX_SUITES, TestReport, TestReportView},
};
use pipeyard_model::{AttemptId, Epoch, JobId, NodeName};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    auth::{Auth, RunnerAuth},
    runs::run_id,
};
use crate::{
    AppState,
    error::{ApiResult, Failure},
};

/// A report as JSON; its texts are bounded by the runner to well below this.
const MAX_BODY: usize = 4 << 20;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(tell))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .routes(routes!(view))
}

/// Tell what the test reports of an attempt say; the last word counts.
#[utoipa::path(post, path = "/api/runner/jobs/{job}/{epoch}/tests", tag = "runner",
    params(("job" = JobId, Path,), ("epoch" = u32, Path,)), request_body = TestReport,
    responses((status = 204), (status = 409, body = ErrorBody), (status = 413, body = ErrorBody)))]
async fn tell(
    State(state): State<AppState>,
    RunnerAuth { id: runner, .. }: RunnerAuth,
    Path((job, epoch)): Path<(JobId, u32)>,
    Json(report): Json<TestReport>,
) -> ApiResult<StatusCode> {
    if report.failures.len() > MAX_FAILURES
        || report.suites.len() > MAX_SUITES
        || report.problems.len() > MAX_PROBLEMS
    {
        return Err(Failure::bad_request(
            "bad_test_report",
            format!(
                "a test report lists at most {MAX_FAILURES} failed tests, {MAX_SUITES} suites and \
                 {MAX_PROBLEMS} problems"
            ),
        ));
    }
    let attempt = AttemptId { job, epoch: Epoch(epoch) };
    let now = state.clock.now();
    // Records the refusal of a late runner.
    state.store.check_attempt(runner, attempt, now).await?;
    state.store.report_tests(runner, attempt, report, now).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct Which {
    /// Which attempt; the last one if absent.
    attempt: Option<u32>,
}

/// What the test reports of a job's attempt say: counts, suites, failed tests.
#[utoipa::path(get, path = "/api/runs/{run}/jobs/{name}/tests", tag = "runs",
    params(("run" = String, Path, description = "number or `latest`"), ("name" = NodeName, Path,), Which),
    responses((status = 200, body = TestReportView), (status = 404, body = ErrorBody)))]
async fn view(
    State(state): State<AppState>,
    _auth: Auth,
    Path((run, name)): Path<(String, String)>,
    Query(query): Query<Which>,
) -> ApiResult<Json<TestReportView>> {
    let run = run_id(&state, &run).await?;
    let unknown = || Failure::not_found(format_args!("job {name} in run {run}"));
    let node: NodeName = name.parse().map_err(|_| unknown())?;
    let job = state.store.job(run, &node).await?.ok_or_else(unknown)?;
    let attempt = match query.attempt {
        Some(epoch) => job.attempts.iter().find(|attempt| attempt.epoch == Epoch(epoch)),
        None => job.attempts.last(),
    };
    let epoch = attempt.map(|attempt| attempt.epoch);
    let report = match epoch {
        Some(epoch) => state.store.test_report(AttemptId { job: job.id, epoch }).await?,
        None => None,
    };
    let (Some(attempt), Some(report)) = (epoch, report) else {
        let what = match query.attempt {
            Some(epoch) => format!("test report of attempt {epoch} of job {name}"),
            None => format!("test report of job {name} yet"),
        };
        return Err(Failure::not_found(what).hint(
            "name JUnit reports under `tests:` of the job; they are read when its steps end",
        ));
    };
    Ok(Json(TestReportView { kind: "test_report".into(), attempt, report }))
}
