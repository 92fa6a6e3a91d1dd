//! Repositories. Adding one asks the remote first, so that a wrong address or password is seen by
//! who gives it. The webhook's secret is shown in that one answer; stored are only sealed bytes.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use pipeyard_api::views::{AddRepo, AddedRepo, ReasonView, RepoView};
use pipeyard_git::{RemoteUrl, check_ref};
use pipeyard_model::{HookId, RepoId, RepoName};
use pipeyard_store::repos::{Forge, Repo};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    AppState,
    error::{ApiResult, Failure},
    http::auth::Auth,
    mirror,
    outgoing::address::check_remote,
    tasks, tokens,
};

/// In front of a webhook's secret.
const HOOK_SECRET: &str = "pph_";

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(remove))
        .routes(routes!(remove_of_team))
}

/// Lists the repositories by name.
#[utoipa::path(get, path = "/api/repos", tag = "repos", responses((status = 200, body = Vec<RepoView>)))]
async fn list(State(state): State<AppState>, _auth: Auth) -> ApiResult<Json<Vec<RepoView>>> {
    let repos = state.store.repos().await?;
    Ok(Json(repos.into_iter().map(view).collect()))
}

/// Adds a repository.
#[utoipa::path(
    post, path = "/api/repos", tag = "repos", request_body = AddRepo,
    responses(
        (status = 201, body = AddedRepo),
        (status = 400, description = "The address, name or branch isn't one"),
        (status = 409, description = "The name is taken"),
        (status = 422, description = "The remote can't be reached"),
    )
)]
async fn add(
    State(state): State<AppState>,
    auth: Auth,
    Json(wanted): Json<AddRepo>,
) -> ApiResult<(StatusCode, Json<AddedRepo>)> {
    let (url, credentials) = RemoteUrl::parse(&wanted.url)
        .map_err(|e| Failure::bad_request("remote_invalid", e.to_string()))?;
    let forge = match wanted.forge.as_deref() {
        None if url.is_github() => Forge::Github,
        None | Some("git") => Forge::Git,
        Some("github") => Forge::Github,
        Some(other) => {
            let message = format!("{other:?} is not a forge that Pipeyard knows");
            return Err(Failure::bad_request("forge_unknown", message).hint("use git or github"));
        }
    };
    let name = match wanted.name {
        Some(name) => name,
        None => RepoName::new(url.short_name()).map_err(|e| {
            Failure::bad_request("name_needed", e.to_string())
                .hint("give the repository a name of your choice")
        })?,
    };
    if state.store.repo_by_name(&name).await?.is_some() {
        return Err(taken(&name));
    }
    let url = check_remote(&state.config, url, false).await.map_err(|refused| {
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, refused.code(), refused.to_string())
    })?;
    let refs = pipeyard_git::remote_refs(&url, credentials.as_ref()).await.map_err(|e| {
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, e.code(), e.to_string())
            .hint("check the address; for a private repository put user and token into it: https://USER:TOKEN@host/path")
    })?;
    let default_branch =
        wanted.default_branch.or(refs.default_branch.clone()).unwrap_or_else(|| "main".to_owned());
    check_ref(&format!("refs/heads/{default_branch}"))
        .map_err(|e| Failure::bad_request("branch_invalid", format!("default branch: {e}")))?;
    let id = RepoId::new();
    let secret = tokens::new(HOOK_SECRET);
    let repo = Repo {
        id,
        name: name.clone(),
        forge,
        url: url.as_str().to_owned(),
        credentials: credentials.map(|c| mirror::seal_credentials(&state.seal, id, &c)),
        default_branch,
        hook: HookId::new(),
        hook_secret: state.seal.seal(&mirror::hook_secret_purpose(id), secret.as_bytes()),
        forge_id: None,
        created_at: state.clock.now(),
        problem: None,
    };
    state.store.add_repo(repo.clone(), auth.actor()).await?;
    // What is there already asks for no run; what comes from now on does, with or without a hook.
    let seen = tasks::refs::first_sight(&repo.default_branch, &refs);
    state.store.record_seen_refs(id, &seen).await?;
    tracing::info!(repo = %name, %url, by = %auth.name, "added a repository");
    Ok((StatusCode::CREATED, Json(AddedRepo { repo: view(repo), hook_secret: secret })))
}

/// Removes a repository: no hook and no comparison of its refs starts anything any more. Its runs
/// stay.
#[utoipa::path(
    delete, path = "/api/repos/{name}", tag = "repos",
    params(("name" = String, Path, description = "The repository's name")),
    responses((status = 204), (status = 404, description = "There is no such repository"))
)]
async fn remove(
    State(state): State<AppState>,
    auth: Auth,
    Path(name): Path<String>,
) -> ApiResult<StatusCode> {
    let missing = || Failure::not_found(format!("repository {name:?}"));
    let parsed = RepoName::new(name.as_str()).map_err(|_| missing())?;
    let repo = state.store.repo_by_name(&parsed).await?.ok_or_else(missing)?;
    state.store.remove_repo(repo.id, auth.actor(), state.clock.now()).await?;
    tracing::info!(repo = %parsed, by = %auth.name, "removed a repository");
    Ok(StatusCode::NO_CONTENT)
}

/// The same for a name with a slash that isn't escaped.
#[utoipa::path(
    delete, path = "/api/repos/{team}/{name}", tag = "repos",
    params(("team" = String, Path, description = "Before the slash"), ("name" = String, Path, description = "After it")),
    responses((status = 204), (status = 404, description = "There is no such repository"))
)]
async fn remove_of_team(
    state: State<AppState>,
    auth: Auth,
    Path((team, name)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    remove(state, auth, Path(format!("{team}/{name}"))).await
}

fn taken(name: &RepoName) -> Failure {
    Failure::conflict("name_taken", format!("there is a repository {name} already"))
        .hint("choose another name with --name")
}

/// A repository as people see it.
fn view(repo: Repo) -> RepoView {
    let forge = match repo.forge {
        Forge::Git => "git",
        Forge::Github => "github",
    };
    RepoView {
        id: repo.id,
        name: repo.name,
        forge: forge.to_owned(),
        url: repo.url,
        default_branch: repo.default_branch,
        hook_path: format!("/hooks/{forge}/{}", repo.hook),
        hook: repo.hook,
        created_at: repo.created_at,
        problem: repo.problem.map(|(code, message)| ReasonView { code, message }),
    }
}
