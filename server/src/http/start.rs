//! Starting a run by hand: the branch's present commit, or a commit of one's choice.

use axum::{Json, extract::State, http::StatusCode};
use pipeyard_api::views::{Event, RunView, StartRun};
use pipeyard_git::{GitError, Sha};
use pipeyard_model::{Timestamp, UserId};
use pipeyard_store::{intake::NewRunRequest, repos::Repo};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    AppState,
    error::{ApiResult, Failure},
    http::auth::Auth,
    intake::{
        plan::{Asked, Planned, plan},
        prove::prove,
    },
    mirror::{self, MirrorError},
};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(start))
}

/// Starts a run. Every pipeline of the commit is started, whatever its `when` says; the answer is
/// the first of them. A commit runs as the branch that it can be reached from, the default branch
/// before others. One that no branch has, such as a pull request's, is treated as a fork's: its run is
/// held, gets no secrets and deploys nothing, and the answer says so (`fork`, `held`, `reason`).
#[utoipa::path(
    post, path = "/api/runs", tag = "runs", request_body = StartRun,
    responses(
        (status = 201, body = RunView),
        (status = 404, description = "There is no such repository, branch or commit"),
        (status = 502, description = "The remote can't be reached"),
    )
)]
async fn start(
    State(state): State<AppState>,
    auth: Auth,
    Json(wanted): Json<StartRun>,
) -> ApiResult<(StatusCode, Json<RunView>)> {
    let repo = state
        .store
        .repo_by_name(&wanted.repo)
        .await?
        .ok_or_else(|| Failure::not_found(format!("repository {:?}", wanted.repo.as_str())))?;
    let (branch, sha) = resolve(&state, &repo, wanted.reference.as_deref()).await?;
    let received_at = state.clock.now();
    let reference = |branch: &str| format!("refs/heads/{branch}");
    let mut request = NewRunRequest {
        event: Event::Manual,
        reference: reference(branch.as_deref().unwrap_or(&repo.default_branch)),
        before: None,
        after: sha.into(),
        pull_request: None,
        forge_user: None,
    };
    let by_commit = branch.is_none();
    let person = Person { user: auth.user, by_commit, at: received_at };
    // To resolve a branch, the remote was just asked.
    let fresh = !by_commit;
    let proof =
        prove(&state, person.asks(&repo, &request), fresh).await.map_err(|e| failed(&repo, &e))?;
    if let Some(branch) = proof.origin.branch() {
        request.reference = reference(branch);
    }
    let planned = plan(person.asks(&repo, &request), &proof).await;
    let runs = match planned.map_err(|e| failed(&repo, &e.into()))? {
        Planned::Runs(runs) => runs,
        Planned::NoFile(run) => vec![*run],
        Planned::NotTriggered(reason) => return Err(Failure::conflict("nothing_to_run", reason)),
    };
    let ids = state.store.create_runs(runs, auth.actor(), state.clock.now()).await?;
    state.wake.outbox.notify_one();
    let first = ids.first().copied().ok_or_else(|| Failure::internal("no run was created"))?;
    tracing::info!(run = %first, repo = %repo.name, by = %auth.name, "a person started a run");
    let detail =
        state.store.run(first).await?.ok_or_else(|| Failure::not_found(format!("run {first}")))?;
    Ok((StatusCode::CREATED, Json(detail.run)))
}

/// Who starts a run, and how.
#[derive(Clone, Copy)]
struct Person {
    user: UserId,
    by_commit: bool,
    at: Timestamp,
}

impl Person {
    fn asks<'a>(self, repo: &'a Repo, request: &'a NewRunRequest) -> Asked<'a> {
        Asked {
            repo,
            id: None,
            request,
            received_at: self.at,
            started_by: Some(self.user),
            seen: None,
            by_commit: self.by_commit,
        }
    }
}

/// The branch that is named, if one is, and the commit that is meant, after a look at the remote.
async fn resolve(
    state: &AppState,
    repo: &Repo,
    wanted: Option<&str>,
) -> ApiResult<(Option<String>, Sha)> {
    let wanted = wanted.unwrap_or(&repo.default_branch);
    if let Ok(sha) = wanted.parse::<Sha>() {
        return Ok((None, sha));
    }
    let branch = wanted.strip_prefix("refs/heads/").unwrap_or(wanted);
    let mirror = mirror::fetch(state, repo).await.map_err(|e| failed(repo, &e))?;
    let tip = mirror.branch(branch).await.map_err(|e| failed(repo, &e.into()))?;
    let tip = tip.ok_or_else(|| {
        Failure::new(
            StatusCode::NOT_FOUND,
            "branch_not_found",
            format!("repository {} has no branch {branch:?}", repo.name),
        )
        .hint("give a branch or a full commit SHA of 40 digits")
    })?;
    Ok((Some(branch.to_owned()), tip))
}

fn failed(repo: &Repo, error: &MirrorError) -> Failure {
    let message = format!("repository {}: {error}", repo.name);
    match error {
        MirrorError::Git(GitError::NoCommit(_)) => {
            Failure::new(StatusCode::NOT_FOUND, error.code(), message)
        }
        MirrorError::Git(_)
        | MirrorError::Url(_)
        | MirrorError::Address(_)
        | MirrorError::Credentials => {
            tracing::warn!(repo = %repo.name, %error, "a person's run can't be prepared");
            Failure::new(StatusCode::BAD_GATEWAY, error.code(), message)
        }
    }
}
