//! Runners as people see them: listed, registered by a token, removed.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    views::{RegistrationToken, RunnerView},
};
use pipeyard_model::{Actor, RunnerId};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Auth;
use crate::{AppState, error::ApiResult, tokens};

/// A registration token is refused after this.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(token)).routes(routes!(remove))
}

/// A new registration token, good for an hour and any number of runners.
///
/// # Errors
/// When the store fails.
pub async fn mint_registration_token(state: &AppState, by: Actor) -> ApiResult<RegistrationToken> {
    let now = state.clock.now();
    let token = tokens::new("ppr_");
    let expires_at = now + TOKEN_LIFE;
    state.store.add_registration_token(tokens::hash(&token), expires_at, by, now).await?;
    Ok(RegistrationToken { token, expires_at })
}

/// Runners by name, with what they work on.
#[utoipa::path(get, path = "/api/runners", tag = "runners", responses((status = 200, body = [RunnerView])))]
async fn list(State(state): State<AppState>, _auth: Auth) -> ApiResult<Json<Vec<RunnerView>>> {
    Ok(Json(state.store.runners(state.clock.now()).await?))
}

/// Make a token that registers runners for an hour.
#[utoipa::path(post, path = "/api/runners/tokens", tag = "runners",
    responses((status = 200, body = RegistrationToken)))]
async fn token(State(state): State<AppState>, auth: Auth) -> ApiResult<Json<RegistrationToken>> {
    Ok(Json(mint_registration_token(&state, auth.actor()).await?))
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
