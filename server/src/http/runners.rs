//! Runners as people see them: listed, registered by a token, removed.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    views::{NewRegistrationToken, RegistrationToken, RunnerView},
};
use pipeyard_model::{Actor, RunnerId, runner::Grant};
use pipeyard_store::runners::NewEnrolment;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{auth::Auth, repo_named};
use crate::{
    AppState,
    error::{ApiResult, Failure},
    tokens,
};

/// A token is refused after this, if nobody says otherwise.
const TOKEN_MINUTES: u32 = 60;
/// No token lasts longer.
const MOST_MINUTES: u32 = 24 * 60;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(token)).routes(routes!(remove))
}

/// A new token that registers one runner.
///
/// # Errors
/// When the store fails.
pub async fn mint_registration_token(
    state: &AppState,
    grant: Grant,
    life: Duration,
    by: Actor,
) -> ApiResult<RegistrationToken> {
    let now = state.clock.now();
    let token = tokens::new("ppr_");
    let expires_at = now + life;
    let new = NewEnrolment { hash: tokens::hash(&token), expires_at, grant };
    state.store.add_enrolment(new, by, now).await?;
    Ok(RegistrationToken { token, expires_at })
}

/// Runners by name, with what they work on.
#[utoipa::path(get, path = "/api/runners", tag = "runners", responses((status = 200, body = [RunnerView])))]
async fn list(State(state): State<AppState>, _auth: Auth) -> ApiResult<Json<Vec<RunnerView>>> {
    Ok(Json(state.store.runners(state.clock.now()).await?))
}

/// Make a token that registers one runner.
#[utoipa::path(post, path = "/api/runners/tokens", tag = "runners",
    request_body = Option<NewRegistrationToken>,
    responses((status = 200, body = RegistrationToken), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn token(
    State(state): State<AppState>,
    auth: Auth,
    body: Bytes,
) -> ApiResult<Json<RegistrationToken>> {
    // Who wants nothing special may send nothing.
    let wanted: Option<NewRegistrationToken> = match body.trim_ascii() {
        [] => None,
        text => serde_json::from_slice(text)
            .map_err(|e| Failure::bad_request("bad_request", e.to_string()))?,
    };
    let wanted = wanted.unwrap_or_default();
    let good = |label: &String| {
        !label.is_empty() && label.len() <= 63 && !label.chars().any(char::is_control)
    };
    if wanted.labels.len() > 50 || !wanted.labels.iter().all(good) {
        return Err(Failure::bad_request(
            "bad_label",
            "a runner has at most 50 labels of 1 to 63 characters",
        ));
    }
    let minutes = wanted.minutes.unwrap_or(TOKEN_MINUTES);
    if minutes == 0 || minutes > MOST_MINUTES {
        let message = format!("the token lasts 1 to {MOST_MINUTES} minutes, not {minutes}");
        return Err(Failure::bad_request("bad_minutes", message));
    }
    let mut repos = Vec::new();
    for name in &wanted.repos {
        repos.push(repo_named(&state, name).await?.id);
    }
    let grant = Grant {
        labels: wanted.labels,
        any_label: wanted.any_label,
        repos: (!repos.is_empty()).then_some(repos),
        forks: wanted.forks,
    };
    let life = Duration::from_secs(u64::from(minutes) * 60);
    Ok(Json(mint_registration_token(&state, grant, life, auth.actor()).await?))
}

/// Remove a runner: its key is worth nothing, its jobs are offered again at once.
#[utoipa::path(delete, path = "/api/runners/{id}", tag = "runners", params(("id" = RunnerId, Path,)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove(
    State(state): State<AppState>,
    auth: Auth,
    Path(id): Path<RunnerId>,
) -> ApiResult<StatusCode> {
    state.store.remove_runner(id, auth.actor(), state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
