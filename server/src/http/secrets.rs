//! Secrets: set, listed by name, removed. No answer ever holds a value; only a claim takes one.
//!
//! Whose a secret is has to be said: one repository's, or all of them. Which attempt may have it is
//! decided by `pipeyard_model::secret`.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    views::{CheckSecrets, RefusedSecret, SecretLimits, SecretView, SetForgeToken, SetSecret},
};
use pipeyard_model::{
    Actor, BranchGlob, RepoId, RepoName, SecretName,
    origin::{Event, Origin},
    secret::{BranchLimit, MAX_PATTERNS, Refusal, Scope as Limits},
};
use pipeyard_store::{
    repos::Forge,
    secrets::{AskingAttempt, NewSecret, SealedSecret, Taken},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{auth::Auth, repo_named};
use crate::{
    AppState,
    error::{ApiResult, Failure},
};

/// A shorter value can't be masked in logs without eating words.
const MIN: usize = 8;
const MAX: usize = 64 << 10;
/// Secrets of one question.
const MOST_NAMES: usize = 200;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(set, remove))
        .routes(routes!(check_secrets))
        .routes(routes!(set_forge_token, remove_forge_token))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct Scope {
    /// The repository that may use it.
    repo: Option<RepoName>,
    /// It is for all repositories.
    #[serde(default)]
    all_repos: bool,
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
    /// The rule refuses at least one of them.
    #[error("{}", words(.0))]
    Refused(Vec<(SecretName, Refusal)>),
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
            Self::Refused(refused) => {
                refused.first().map_or("secret_missing", |(_, why)| why.code())
            }
            Self::Unreadable(_) => "secret_unreadable",
            Self::Store(_) => "store_unavailable",
        }
    }
}

/// One sentence for each, of which a person reads at most five.
fn words(refused: &[(SecretName, Refusal)]) -> String {
    let mut words: Vec<_> = refused.iter().take(5).map(|(name, why)| why.words(name)).collect();
    if refused.len() > words.len() {
        words.push(format!("and {} more", refused.len() - words.len()));
    }
    words.join("; ")
}

/// The values that an attempt asks for, for its claim's reply. Their use is noted, and each is recorded
/// as granted to the attempt `to`. All or none: a job doesn't start with half of its secrets.
///
/// # Errors
/// When the rule refuses one, one can't be opened, or the store fails.
pub async fn secrets_for(
    state: &AppState,
    asking: AskingAttempt,
    wanted: &[SecretName],
    to: Actor,
) -> Result<BTreeMap<SecretName, String>, SecretsError> {
    let taken = state.store.take_secrets(asking, wanted, to, state.clock.now()).await?;
    let given = match taken {
        Taken::Given(given) => given,
        Taken::Refused(refused) => return Err(SecretsError::Refused(refused)),
    };
    let mut values = BTreeMap::new();
    for secret in given {
        let plain = state.seal.unseal(&purpose(secret.repo, &secret.name), &secret.sealed);
        let Some(value) = plain.ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return Err(SecretsError::Unreadable(secret.name));
        };
        values.insert(secret.name, value);
    }
    Ok(values)
}

async fn scope(state: &AppState, scope: &Scope) -> ApiResult<Option<RepoId>> {
    match (&scope.repo, scope.all_repos) {
        (Some(name), false) => Ok(Some(repo_named(state, name).await?.id)),
        (None, true) => Ok(None),
        (Some(_), true) => Err(Failure::bad_request(
            "secret_scope_missing",
            "a secret is one repository's or all repositories', not both",
        )),
        (None, false) => Err(Failure::bad_request(
            "secret_scope_missing",
            "say whose the secret is: nothing is for all repositories unless that is said",
        )
        .hint("name the repository with repo=NAME (pipectl: --repo NAME), or say all_repos=true (pipectl: --all-repos)")),
    }
}

/// What a secret is to be limited to: branches and events, where they are named.
fn limits(body: &SetSecret) -> ApiResult<(Option<BranchLimit>, Option<Vec<Event>>)> {
    let bad = |message: String| Failure::bad_request("secret_limit_invalid", message);
    if body.environments.as_ref().is_some_and(|names| !names.is_empty()) {
        let message = "a secret can't be limited to an environment: no job can name one yet";
        return Err(Failure::bad_request("secret_limit_unsupported", message)
            .hint("limit it to the branches that are deployed from: --branch main"));
    }
    let branches = match (&body.branches, body.default_branch_only) {
        (Some(_), Some(true)) => {
            return Err(bad("name branches, or the default branch only, not both".into()));
        }
        (None, Some(true)) => Some(BranchLimit::Default),
        (Some(globs), _) if globs.len() > MAX_PATTERNS => {
            return Err(bad(format!("at most {MAX_PATTERNS} patterns of branches can be named")));
        }
        (Some(globs), _) if globs.is_empty() || globs.iter().any(|glob| glob == "**") => {
            Some(BranchLimit::Any)
        }
        (Some(globs), _) => {
            let globs: Result<Vec<_>, _> =
                globs.iter().map(|glob| BranchGlob::new(glob.as_str())).collect();
            Some(BranchLimit::Matching(globs.map_err(|e| bad(e.to_string()))?))
        }
        (None, Some(false)) => Some(BranchLimit::Any),
        (None, None) => None,
    };
    let events = body.events.clone().map(|mut events| {
        events.sort();
        events.dedup();
        // All of them is no limit.
        if events.len() == Event::ALL.len() { Vec::new() } else { events }
    });
    Ok((branches, events))
}

/// Secrets by name, without values.
#[utoipa::path(get, path = "/api/secrets", tag = "secrets", responses((status = 200, body = [SecretView])))]
async fn list(State(state): State<AppState>, _auth: Auth) -> ApiResult<Json<Vec<SecretView>>> {
    Ok(Json(state.store.secrets().await?))
}

/// Set or replace a secret. Limits that aren't named stay as they were.
#[utoipa::path(put, path = "/api/secrets/{name}", tag = "secrets",
    params(("name" = String, Path,), Scope), request_body = SetSecret,
    responses((status = 200, body = SecretLimits), (status = 400, body = ErrorBody)))]
async fn set(
    State(state): State<AppState>,
    auth: Auth,
    Path(name): Path<SecretName>,
    Query(query): Query<Scope>,
    Json(body): Json<SetSecret>,
) -> ApiResult<Json<SecretLimits>> {
    check(&body.value)?;
    let (branches, events) = limits(&body)?;
    let repo = scope(&state, &query).await?;
    let sealed = state.seal.seal(&purpose(repo, &name), body.value.as_bytes());
    let new = NewSecret { secret: SealedSecret { name, repo, sealed }, branches, events };
    let limits: Limits = state.store.set_secret(new, auth.actor(), state.clock.now()).await?;
    Ok(Json(SecretLimits { scope: limits.words() }))
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

/// Which of these secrets a job wouldn't get. Nothing is given, and no value is read.
#[utoipa::path(post, path = "/api/secrets/check", tag = "secrets", params(OfRepo),
    request_body = CheckSecrets,
    responses((status = 200, body = [RefusedSecret]), (status = 404, body = ErrorBody)))]
async fn check_secrets(
    State(state): State<AppState>,
    _auth: Auth,
    Query(query): Query<OfRepo>,
    Json(body): Json<CheckSecrets>,
) -> ApiResult<Json<Vec<RefusedSecret>>> {
    if body.names.len() > MOST_NAMES {
        let message = format!("at most {MOST_NAMES} secrets can be asked about at once");
        return Err(Failure::bad_request("too_many_secrets", message));
    }
    let repo = repo_named(&state, &query.repo).await?;
    let origin = Origin::Branch(body.branch.unwrap_or(repo.default_branch));
    let refused = state.store.refused_secrets(repo.id, body.event, &origin, &body.names).await?;
    let refused = refused.into_iter().map(|(name, why)| RefusedSecret {
        code: why.code().to_owned(),
        message: why.words(&name),
        name,
    });
    Ok(Json(refused.collect()))
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
#[utoipa::path(put, path = "/api/forge-token", tag = "repos", params(OfRepo), request_body = SetForgeToken,
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn set_forge_token(
    State(state): State<AppState>,
    auth: Auth,
    Query(query): Query<OfRepo>,
    Json(body): Json<SetForgeToken>,
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
