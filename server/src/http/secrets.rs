//! Secrets: set, listed by name, removed. No answer ever holds a value; only a claim takes one.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    views::{SecretView, SetSecret},
};
use pipeyard_model::{Actor, RepoId, RepoName, SecretName};
use pipeyard_store::{repos::Forge, secrets::SealedSecret};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{auth::Auth, repo_named};
use crate::{
    AppState,
    error::{ApiResult, Failure},
};

/// A shorter value can't be masked in logs without eating words.
const MIN: usize = 8;
const MAX: usize = 64 << 10;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(set, remove))
        .routes(routes!(set_forge_token, remove_forge_token))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct Scope {
    /// The repository that may use it; every repository if absent.
    repo: Option<RepoName>,
}

/// What a secret's sealed value is bound to.
pub(crate) fn purpose(repo: Option<RepoId>, name: &SecretName) -> String {
    repo.map_or_else(|| format!("secret:*:{name}"), |repo| format!("secret:{repo}:{name}"))
}

/// What a forge token's sealed value is bound to.
pub(crate) fn forge_token_purpose(repo: RepoId) -> String {
    format!("forge-token:{repo}")
}

/// Why a job can't have the secrets that it asks for.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// These are set neither for the repository nor for all.
    #[error(
        "secret {} isn't set for this repository. Fix: pipectl secrets set {}",
        names(.0), .0.first().map_or("NAME", SecretName::as_str)
    )]
    Missing(Vec<SecretName>),
    /// A fork's run gets no secrets, approved or not.
    #[error("a pull request from a fork gets no secrets, and this job asks for {}", names(.0))]
    Fork(Vec<SecretName>),
    /// The master key isn't the one that sealed it, or the value isn't text.
    #[error(
        "secret {0} can't be opened: the server's key file is not the one it was set with. Set it again"
    )]
    Unreadable(SecretName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] pipeyard_store::StoreError),
}

impl SecretsError {
    /// The stable code of the job's reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "secret_missing",
            Self::Fork(_) => "secret_refused_to_fork",
            Self::Unreadable(_) => "secret_unreadable",
            Self::Store(_) => "store_unavailable",
        }
    }
}

fn names(names: &[SecretName]) -> String {
    names.iter().map(SecretName::as_str).collect::<Vec<_>>().join(", ")
}

/// The values that a job of this repository asks for, for its claim's reply. Their use is noted.
/// All or none: a job doesn't start with half of its secrets. Each is recorded as granted to the attempt
/// `to`.
///
/// # Errors
/// When the run is a fork's, one is missing or can't be opened, or the store fails.
pub async fn secrets_for(
    state: &AppState,
    repo: RepoId,
    wanted: &[SecretName],
    fork: bool,
    to: Actor,
) -> Result<BTreeMap<SecretName, String>, SecretsError> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    if fork {
        return Err(SecretsError::Fork(wanted.to_vec()));
    }
    let mut values = BTreeMap::new();
    for secret in state.store.take_secrets(repo, wanted, to, state.clock.now()).await? {
        let plain = state.seal.unseal(&purpose(secret.repo, &secret.name), &secret.sealed);
        let Some(value) = plain.ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return Err(SecretsError::Unreadable(secret.name));
        };
        values.insert(secret.name, value);
    }
    let missing: Vec<_> =
        wanted.iter().filter(|name| !values.contains_key(*name)).cloned().collect();
    if missing.is_empty() { Ok(values) } else { Err(SecretsError::Missing(missing)) }
}

async fn scope(state: &AppState, scope: &Scope) -> ApiResult<Option<RepoId>> {
    match &scope.repo {
        Some(name) => Ok(Some(repo_named(state, name).await?.id)),
        None => Ok(None),
    }
}

/// Secrets by name, without values.
#[utoipa::path(get, path = "/api/secrets", tag = "secrets", responses((status = 200, body = [SecretView])))]
async fn list(State(state): State<AppState>, _auth: Auth) -> ApiResult<Json<Vec<SecretView>>> {
    Ok(Json(state.store.secrets().await?))
}

/// Set or replace a secret.
#[utoipa::path(put, path = "/api/secrets/{name}", tag = "secrets",
    params(("name" = String, Path,), Scope), request_body = SetSecret,
    responses((status = 204), (status = 400, body = ErrorBody)))]
async fn set(
    State(state): State<AppState>,
    auth: Auth,
    Path(name): Path<SecretName>,
    Query(query): Query<Scope>,
    Json(body): Json<SetSecret>,
) -> ApiResult<StatusCode> {
    check(&body.value)?;
    let repo = scope(&state, &query).await?;
    let sealed = state.seal.seal(&purpose(repo, &name), body.value.as_bytes());
    let secret = SealedSecret { name, repo, sealed };
    state.store.set_secret(secret, auth.actor(), state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(value: &str) -> ApiResult<()> {
    if value.len() < MIN {
        return Err(Failure::bad_request(
            "secret_too_short",
            format!("a secret needs at least {MIN} bytes: a shorter one can't be masked in logs"),
        ));
    }
    if value.len() > MAX {
        return Err(Failure::bad_request(
            "secret_too_long",
            format!("a secret may have at most {MAX} bytes"),
        ));
    }
    if value.contains('\0') {
        return Err(Failure::bad_request(
            "secret_with_nul",
            "a secret is given in an environment variable, which can't hold a NUL byte",
        ));
    }
    Ok(())
}

/// Remove a secret.
#[utoipa::path(delete, path = "/api/secrets/{name}", tag = "secrets",
    params(("name" = String, Path,), Scope),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove(
    State(state): State<AppState>,
    auth: Auth,
    Path(name): Path<SecretName>,
    Query(query): Query<Scope>,
) -> ApiResult<StatusCode> {
    let repo = scope(&state, &query).await?;
    state.store.remove_secret(repo, &name, auth.actor(), state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct OfRepo {
    /// The repository.
    repo: RepoName,
}

/// Set the token by which commit statuses are written at a repository's forge.
#[utoipa::path(put, path = "/api/forge-token", tag = "repos", params(OfRepo), request_body = SetSecret,
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn set_forge_token(
    State(state): State<AppState>,
    auth: Auth,
    Query(query): Query<OfRepo>,
    Json(body): Json<SetSecret>,
) -> ApiResult<StatusCode> {
    check(&body.value)?;
    if body.value.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err(Failure::bad_request(
            "bad_forge_token",
            "a forge's token holds no space and no control character",
        ));
    }
    let repo = repo_named(&state, &query.repo).await?;
    if repo.forge == Forge::Git {
        return Err(Failure::conflict(
            "no_forge",
            format!("repository {} is plain Git: there is nobody to tell", query.repo),
        ));
    }
    let repo = repo.id;
    let sealed = state.seal.seal(&forge_token_purpose(repo), body.value.as_bytes());
    state.store.set_forge_token(repo, Some(sealed), auth.actor(), state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a repository's forge token; commit statuses are no longer written.
#[utoipa::path(delete, path = "/api/forge-token", tag = "repos", params(OfRepo),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove_forge_token(
    State(state): State<AppState>,
    auth: Auth,
    Query(query): Query<OfRepo>,
) -> ApiResult<StatusCode> {
    let repo = repo_named(&state, &query.repo).await?.id;
    state.store.set_forge_token(repo, None, auth.actor(), state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
