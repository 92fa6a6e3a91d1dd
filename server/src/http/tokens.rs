//! Sessions and API tokens: one's own, and for administrators everybody's.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    views::{NewToken, TokenAdded, TokenView},
};
use pipeyard_model::{
    Permission, TokenId, UserId,
    credential::{BadLifetime, token_end},
};
use pipeyard_store::accounts::{CredentialKind, NewCredential};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Auth;
use crate::{
    AppState,
    error::{ApiResult, Failure},
    tokens,
};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_tokens, add_token)).routes(routes!(remove_token))
}

/// Whose credentials somebody may see and end: everybody's, or their own.
fn reach(auth: &Auth) -> Option<UserId> {
    (!auth.role.may(Permission::Users)).then_some(auth.user)
}

/// Sessions and tokens that aren't over: one's own, and for administrators everybody's.
#[utoipa::path(get, path = "/api/tokens", tag = "accounts", responses((status = 200, body = [TokenView])))]
async fn list_tokens(State(state): State<AppState>, auth: Auth) -> ApiResult<Json<Vec<TokenView>>> {
    let rows = state.store.credentials(reach(&auth), state.clock.now()).await?;
    let view = rows.into_iter().map(|row| TokenView {
        id: row.id,
        user: row.user,
        kind: row.kind.as_str().to_owned(),
        label: row.label,
        created_at: row.created_at,
        used_at: row.used_at,
        expires_at: row.expires_at,
        parent: row.parent,
        current: row.id == auth.credential,
    });
    Ok(Json(view.collect()))
}

/// Make an API token. It is shown only in this answer, and ends with the session or token that makes
/// it.
#[utoipa::path(post, path = "/api/tokens", tag = "accounts", request_body = NewToken,
    responses((status = 200, body = TokenAdded), (status = 400, body = ErrorBody)))]
async fn add_token(
    State(state): State<AppState>,
    auth: Auth,
    Json(body): Json<NewToken>,
) -> ApiResult<Json<TokenAdded>> {
    let label: String = body.label.trim().chars().take(100).collect();
    if label.is_empty() {
        return Err(Failure::bad_request("bad_label", "the token needs a label to be told by"));
    }
    let now = state.clock.now();
    let expires_at = token_end(body.days, Some(auth.ends), now).map_err(|problem| {
        let message = problem.to_string();
        match problem {
            BadLifetime::Days(_) => Failure::bad_request("bad_days", message),
            BadLifetime::OutlivesParent { .. } => Failure::bad_request("outlives_parent", message)
                .hint("sign in for longer first: pipectl login --days DAYS"),
        }
    })?;
    let token = tokens::new(tokens::API_TOKEN);
    let id = TokenId::new();
    let credential = NewCredential {
        id,
        kind: CredentialKind::Token,
        label,
        hash: tokens::hash(&token),
        expires_at,
        exact: body.days.is_some(),
    };
    let by = auth.actor();
    let expires_at =
        state.store.add_credential(auth.user, credential, auth.credential, by, now).await?;
    Ok(Json(TokenAdded { id, token, expires_at }))
}

/// Revoke a session or token, and everything made by it.
#[utoipa::path(delete, path = "/api/tokens/{id}", tag = "accounts", params(("id" = TokenId, Path,)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove_token(
    State(state): State<AppState>,
    auth: Auth,
    Path(id): Path<TokenId>,
) -> ApiResult<StatusCode> {
    let now = state.clock.now();
    state.store.revoke_credential(id, reach(&auth), auth.actor(), now).await?;
    Ok(StatusCode::NO_CONTENT)
}
