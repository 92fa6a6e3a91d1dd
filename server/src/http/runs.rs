//! Runs: listed, viewed, cancelled, approved, run again.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    views::{Page, Rerun, RunDetail, RunView},
};
use pipeyard_git::{GitError, Sha};
use pipeyard_model::{Conclusion, RepoName, RunId, Status};
use pipeyard_store::runs::RunFilter;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{auth::Auth, repo_named};
use crate::{
    AppState,
    error::{ApiResult, Failure},
    mirror::{self, MirrorError},
};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(view))
        .routes(routes!(cancel))
        .routes(routes!(approve))
        .routes(routes!(rerun))
}

/// How long `latest` waits for the run of a push that was just accepted.
const LATEST: Duration = Duration::from_secs(2);

/// Waits, for a moment, until accepted pushes have become runs: who pushes and asks for `latest` means
/// that push, not the one before.
async fn pushes_are_handled(state: &AppState) -> ApiResult<()> {
    let end = tokio::time::Instant::now() + LATEST;
    let mut commits = state.store.wake();
    while !state.store.due_run_requests(state.clock.now(), 1).await?.is_empty() {
        if !matches!(tokio::time::timeout_at(end, commits.changed()).await, Ok(Ok(()))) {
            break;
        }
    }
    Ok(())
}

/// The run that a path names: a number or `latest`.
pub(crate) async fn run_id(state: &AppState, text: &str) -> ApiResult<RunId> {
    if text == "latest" {
        pushes_are_handled(state).await?;
        let latest = state.store.latest_run().await?;
        return latest.ok_or_else(|| {
            Failure::not_found("run yet").hint("start one: git push, or pipectl runs start REPO")
        });
    }
    text.parse().map_err(|_| {
        Failure::bad_request("bad_run", format!("{text:?} is no run: give its number or `latest`"))
    })
}

async fn detail(state: &AppState, run: RunId) -> ApiResult<RunDetail> {
    let found = state.store.run(run).await?;
    found.ok_or_else(|| Failure::not_found(format_args!("run {run}")).hint("pipectl runs list"))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct RunsQuery {
    /// Only of this repository.
    repo: Option<RepoName>,
    /// Only of this branch.
    branch: Option<String>,
    /// `queued`, `running` or `finished`.
    status: Option<String>,
    /// `success`, `failure`, `error`, `timed_out`, `cancelled` or `skipped`.
    conclusion: Option<String>,
    /// Only of this commit; 7 digits are enough.
    commit: Option<String>,
    /// 1 to 200, 50 if absent.
    limit: Option<u32>,
    /// `next` of the page before.
    before: Option<String>,
}

fn word<T: std::str::FromStr>(name: &str, text: Option<&str>, words: &str) -> ApiResult<Option<T>> {
    text.map(|text| {
        text.parse().map_err(|_| {
            Failure::bad_request("bad_filter", format!("{name} is {text:?}; it can be {words}"))
        })
    })
    .transpose()
}

/// Runs, newest first.
#[utoipa::path(get, path = "/api/runs", tag = "runs", params(RunsQuery),
    responses((status = 200, body = Page<RunView>), (status = 400, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    _auth: Auth,
    Query(query): Query<RunsQuery>,
) -> ApiResult<Json<Page<RunView>>> {
    let limit = query.limit.unwrap_or(50).clamp(1, 200);
    let repo = match &query.repo {
        Some(name) => Some(repo_named(&state, name).await?.id),
        None => None,
    };
    if let Some(commit) = &query.commit
        && (commit.len() < 7 || !commit.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        let message = format!("commit is {commit:?}; give 7 or more hex digits");
        return Err(Failure::bad_request("bad_filter", message));
    }
    let before: Option<RunId> = word("before", query.before.as_deref(), "`next` of a page")?;
    let conclusions = "success, failure, error, timed_out, cancelled or skipped";
    let filter = RunFilter {
        repo,
        branch: query.branch,
        status: word::<Status>("status", query.status.as_deref(), "queued, running or finished")?,
        conclusion: word::<Conclusion>("conclusion", query.conclusion.as_deref(), conclusions)?,
        commit: query.commit.map(|commit| commit.to_ascii_lowercase()),
        before,
        limit: limit + 1,
    };
    let mut items = state.store.runs(filter).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|run| run.id.to_string());
    Ok(Json(Page { items, next }))
}

/// One run with its jobs.
#[utoipa::path(get, path = "/api/runs/{run}", tag = "runs",
    params(("run" = String, Path, description = "number or `latest`")),
    responses((status = 200, body = RunDetail), (status = 404, body = ErrorBody)))]
async fn view(
    State(state): State<AppState>,
    _auth: Auth,
    Path(run): Path<String>,
) -> ApiResult<Json<RunDetail>> {
    let run = run_id(&state, &run).await?;
    Ok(Json(detail(&state, run).await?))
}

/// End what isn't finished: queued jobs at once, running ones within seconds.
#[utoipa::path(post, path = "/api/runs/{run}/cancel", tag = "runs", params(("run" = String, Path,)),
    responses((status = 200, body = RunView), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn cancel(
    State(state): State<AppState>,
    auth: Auth,
    Path(run): Path<String>,
) -> ApiResult<Json<RunView>> {
    let run = run_id(&state, &run).await?;
    state.store.cancel_run(run, auth.actor(), state.clock.now()).await?;
    state.wake.deploy.notify_one();
    Ok(Json(detail(&state, run).await?.run))
}

/// Brings a stranger's commit into the mirror: before a person looks, nothing of it is fetched, and
/// after a while it is kept no longer.
async fn admit(state: &AppState, run: RunId) -> ApiResult<()> {
    let run = detail(state, run).await?.run;
    if !run.fork {
        return Ok(());
    }
    let Some(repo) = state.store.repo_by_name(&run.repo).await? else {
        return Err(Failure::not_found(format_args!("repository {}", run.repo)));
    };
    let sha = run.commit.parse::<Sha>().map_err(Failure::internal)?;
    mirror::admit(state, &repo, &sha).await.map_err(|error| {
        let gone = matches!(error, MirrorError::Git(GitError::NoCommit(_)));
        let status = if gone { StatusCode::CONFLICT } else { StatusCode::BAD_GATEWAY };
        let message = format!("run {} can't go on: {error}", run.id);
        Failure::new(status, error.code(), message)
    })
}

/// Let a held run go: a pull request from a fork, or a commit that no branch has. Its commit is fetched
/// now, not earlier.
#[utoipa::path(post, path = "/api/runs/{run}/approve", tag = "runs", params(("run" = String, Path,)),
    responses((status = 200, body = RunView), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn approve(
    State(state): State<AppState>,
    auth: Auth,
    Path(run): Path<String>,
) -> ApiResult<Json<RunView>> {
    let run = run_id(&state, &run).await?;
    admit(&state, run).await?;
    state.store.approve_run(run, auth.actor(), state.clock.now()).await?;
    Ok(Json(detail(&state, run).await?.run))
}

/// Run a finished run's jobs again on the same commit: all, or what didn't succeed.
#[utoipa::path(post, path = "/api/runs/{run}/rerun", tag = "runs", params(("run" = String, Path,)),
    request_body = Rerun,
    responses((status = 200, body = RunView), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn rerun(
    State(state): State<AppState>,
    auth: Auth,
    Path(run): Path<String>,
    Json(body): Json<Rerun>,
) -> ApiResult<Json<RunView>> {
    let run = run_id(&state, &run).await?;
    state.store.rerun(run, body.failed, auth.actor(), state.clock.now()).await?;
    // Only what a person approved once is run again, which the store knows.
    admit(&state, run).await?;
    Ok(Json(detail(&state, run).await?.run))
}
