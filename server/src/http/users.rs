//! Users: added with a one-time login, given roles and identities, removed.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    views::{ChangeUser, NewUser, UserLogin, UserView},
};
use pipeyard_model::{Role, UserId, UserName};
use pipeyard_store::accounts::{Account, Identity, User};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{auth::Auth, login::one_time_login};
use crate::{
    AppState,
    error::{ApiResult, Failure},
};

/// Forges that tell who somebody is.
const FORGES: [&str; 1] = ["github"];

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_users, add_user))
        .routes(routes!(change_user, remove_user))
        .routes(routes!(mint_login))
}

/// Users by name.
#[utoipa::path(get, path = "/api/users", tag = "accounts", responses((status = 200, body = [UserView])))]
async fn list_users(State(state): State<AppState>, _auth: Auth) -> ApiResult<Json<Vec<UserView>>> {
    Ok(Json(state.store.users().await?.into_iter().map(view).collect()))
}

/// Add a user. The answer holds a one-time login, which is shown only once.
#[utoipa::path(post, path = "/api/users", tag = "accounts", request_body = NewUser,
    responses((status = 201, body = UserLogin), (status = 400, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn add_user(
    State(state): State<AppState>,
    auth: Auth,
    Json(body): Json<NewUser>,
) -> ApiResult<(StatusCode, Json<UserLogin>)> {
    let identities = identities(&body.identities)?;
    let user = User {
        id: UserId::new(),
        name: body.name.to_string(),
        role: body.role.unwrap_or(Role::Developer),
    };
    state.store.add_user(user, identities, auth.actor(), state.clock.now()).await?;
    Ok((StatusCode::CREATED, Json(login_of(&state, &auth, &body.name).await?)))
}

/// Make a new one-time login of a user; the one before is worth nothing from then on.
#[utoipa::path(post, path = "/api/users/{name}/login", tag = "accounts",
    params(("name" = String, Path,)),
    responses((status = 200, body = UserLogin), (status = 404, body = ErrorBody)))]
async fn mint_login(
    State(state): State<AppState>,
    auth: Auth,
    Path(name): Path<String>,
) -> ApiResult<Json<UserLogin>> {
    Ok(Json(login_of(&state, &auth, &named(&name)?).await?))
}

async fn login_of(state: &AppState, auth: &Auth, name: &UserName) -> ApiResult<UserLogin> {
    let account = state.store.user_by_name(name).await?.ok_or_else(|| missing(name.as_str()))?;
    let (code, expires_at) = one_time_login(state, account.user.id, auth.actor()).await?;
    let link = format!("{}/login#code={code}", state.config.url());
    Ok(UserLogin { user: view(account), code, link, expires_at })
}

/// Give a user another role or other identities.
#[utoipa::path(patch, path = "/api/users/{name}", tag = "accounts", request_body = ChangeUser,
    params(("name" = String, Path,)),
    responses((status = 200, body = UserView), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn change_user(
    State(state): State<AppState>,
    auth: Auth,
    Path(name): Path<String>,
    Json(body): Json<ChangeUser>,
) -> ApiResult<Json<UserView>> {
    let name = named(&name)?;
    let identities = body.identities.as_deref().map(identities).transpose()?;
    let now = state.clock.now();
    state.store.change_user(&name, body.role, identities, auth.actor(), now).await?;
    let account = state.store.user_by_name(&name).await?.ok_or_else(|| missing(name.as_str()))?;
    Ok(Json(view(account)))
}

/// Remove a user: every session and token that they have ends at once.
#[utoipa::path(delete, path = "/api/users/{name}", tag = "accounts", params(("name" = String, Path,)),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn remove_user(
    State(state): State<AppState>,
    auth: Auth,
    Path(name): Path<String>,
) -> ApiResult<StatusCode> {
    let name = named(&name)?;
    state.store.remove_user(&name, auth.actor(), state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What can't be a name is nobody's.
fn named(name: &str) -> ApiResult<UserName> {
    UserName::new(name).map_err(|_| missing(name))
}

fn missing(name: &str) -> Failure {
    Failure::not_found(format_args!("user {name:?}")).hint("pipectl users list")
}

fn identities(given: &[String]) -> ApiResult<Vec<Identity>> {
    given.iter().map(|text| identity(text)).collect()
}

/// `github=ann-lee`; GitHub takes its names in any case.
fn identity(text: &str) -> ApiResult<Identity> {
    let bad = |problem: &str| {
        let text: String = text.chars().take(80).collect();
        let message = format!("{text:?} is no identity: {problem}");
        Failure::bad_request("bad_identity", message).hint("write FORGE=LOGIN, github=ann-lee")
    };
    let (forge, login) = text.split_once('=').ok_or_else(|| bad("there is no \"=\""))?;
    if !FORGES.contains(&forge) {
        return Err(bad("the only forge that tells who somebody is, is github"));
    }
    let plain = !login.is_empty()
        && login.len() <= 39
        && login.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !plain {
        return Err(bad("a login has 1 to 39 letters, digits and '-'"));
    }
    Ok(Identity { forge: forge.to_owned(), login: login.to_lowercase() })
}

fn view(account: Account) -> UserView {
    UserView {
        id: account.user.id,
        name: account.user.name,
        role: account.user.role,
        identities: account
            .identities
            .into_iter()
            .map(|one| format!("{}={}", one.forge, one.login))
            .collect(),
        created_at: account.created_at,
        first_seen_at: account.first_seen_at,
    }
}
