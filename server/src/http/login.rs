//! Signing in and out.
//!
//! The first start mints a one-time login, which the composition root prints; it is exchanged for
//! a session or a token. Wrong codes are answered alike and limited in number.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use pipeyard_api::{
    ErrorBody,
    views::{Login, Me},
};
use pipeyard_model::{
    Actor, Timestamp, TokenId, UserId, Who,
    credential::{BadLifetime, token_end},
};
use pipeyard_store::{
    StoreResult,
    accounts::{CredentialKind, Exchanged, NewCredential},
    audit::Note,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::{Auth, address, cookie_name, cross_site, same_origin};
use crate::{
    AppState,
    error::{ApiResult, Failure},
    tokens,
};

/// A browser stays signed in so long.
const SESSION: Duration = Duration::from_secs(30 * 24 * 3600);
/// A one-time login that nobody used is refused after this.
const ONE_TIME_LOGIN: Duration = Duration::from_secs(24 * 3600);
/// Wrong codes from one address within [`WINDOW`].
const TRIES: u32 = 10;
/// Wrong codes from all addresses within [`WINDOW`].
const ALL_TRIES: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// Stands for an address that isn't known.
const UNKNOWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(logout)).routes(routes!(me))
}

/// Mints a one-time login of the administrator; the ones before are worth nothing from then on.
/// It can be used once, within a day.
///
/// # Errors
/// When the store fails.
pub async fn mint_one_time_login(state: &AppState) -> anyhow::Result<String> {
    let admin = state.store.ensure_admin(state.clock.now()).await?;
    Ok(one_time_login(state, admin.id, Actor::pipeyard()).await?.0)
}

/// A one-time login of this user, and its end; the ones before are worth nothing from then on.
///
/// # Errors
/// When the user is gone or the store fails.
pub(crate) async fn one_time_login(
    state: &AppState,
    user: UserId,
    by: Actor,
) -> StoreResult<(String, Timestamp)> {
    let now = state.clock.now();
    let code = tokens::new_one_time_login();
    let expires_at = now + ONE_TIME_LOGIN;
    let credential = NewCredential {
        id: TokenId::new(),
        kind: CredentialKind::OneTimeLogin,
        label: "one-time login".to_owned(),
        hash: tokens::hash_presented(&code),
        expires_at,
        exact: true,
    };
    state.store.add_one_time_login(user, credential, by, now).await?;
    Ok((code, expires_at))
}

/// The same, but only while nobody has ever signed in: what a start prints.
///
/// # Errors
/// When the store fails.
pub async fn first_login(state: &AppState) -> anyhow::Result<Option<String>> {
    if state.store.anybody_signed_in().await? {
        return Ok(None);
    }
    mint_one_time_login(state).await.map(Some)
}

/// Counts wrong codes. In memory: the codes are too long to guess, this only keeps the noise down.
#[derive(Debug, Default)]
pub struct LoginLimit(Mutex<(i64, HashMap<IpAddr, u32>)>);

impl LoginLimit {
    /// Whether `from` may try (again) now.
    pub(crate) fn allows(&self, from: IpAddr, now: Timestamp) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(Timestamp(state.0)) >= WINDOW {
            *state = (now.0, HashMap::new());
        }
        let all: u32 = state.1.values().sum();
        all < ALL_TRIES && state.1.get(&from).copied().unwrap_or(0) < TRIES
    }

    pub(crate) fn count_wrong(&self, from: IpAddr) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state.1.entry(from).or_default() += 1;
    }
}

/// Sign in by a one-time login or an API token.
#[utoipa::path(post, path = "/api/login", tag = "accounts", request_body = Login, security(()),
    responses((status = 200, body = Me), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn login(
    State(state): State<AppState>,
    guest: Option<axum::Extension<pipeyard_listen::Guest>>,
    headers: HeaderMap,
    Json(body): Json<Login>,
) -> ApiResult<Response> {
    let from_browser =
        headers.contains_key("sec-fetch-site") || headers.contains_key(header::ORIGIN);
    if from_browser && !same_origin(&headers, &state) {
        return Err(cross_site());
    }
    let now = state.clock.now();
    let from = address(guest.map(|guest| guest.peer()), &headers, &state);
    refuse_guessing(&state, from, now)?;
    let wrong = |end: BadLifetime| Failure::bad_request("bad_days", end.to_string());
    let (kind, prefix, expires_at) = match body.want.as_deref() {
        None | Some("cookie") => (CredentialKind::Session, tokens::SESSION, now + SESSION),
        Some("token") => {
            let end = token_end(body.days, None, now).map_err(wrong)?;
            (CredentialKind::Token, tokens::API_TOKEN, end)
        }
        Some(other) => {
            return Err(Failure::bad_request(
                "bad_want",
                format!("want is {other:?}; it can be \"cookie\" or \"token\""),
            ));
        }
    };
    let label = body.label.filter(|text| !text.trim().is_empty());
    let label = label.unwrap_or_else(|| kind.as_str().to_owned()).chars().take(100).collect();
    let secret = tokens::new(prefix);
    let credential = NewCredential {
        id: TokenId::new(),
        kind,
        label,
        hash: tokens::hash(&secret),
        expires_at,
        exact: body.days.is_some(),
    };
    let presented = tokens::hash_presented(&body.code);
    let exchanged = state.store.exchange_credential(presented, credential, from, now).await?;
    let Some(Exchanged { user, expires_at }) = exchanged else {
        count_guess(&state, from, "login.refused", "a wrong code or token").await?;
        return Err(Failure::new(
            StatusCode::UNAUTHORIZED,
            "bad_code",
            "this code or token is unknown, used up or over",
        )
        .hint("a new one-time login: pipectl login-code on the server's machine, or pipectl users login NAME"));
    };
    let role = user.role.as_str().to_owned();
    let mut me = Me { user: user.id, name: user.name, role, expires_at, token: None };
    if kind == CredentialKind::Token {
        me.token = Some(secret);
        return Ok(Json(me).into_response());
    }
    let mut response = Json(me).into_response();
    let lifetime = expires_at.since(now);
    response.headers_mut().insert(header::SET_COOKIE, cookie(&secret, lifetime, &state)?);
    Ok(response)
}

/// Refuses an address that showed too many wrong codes or tokens.
pub(crate) fn refuse_guessing(
    state: &AppState,
    from: Option<IpAddr>,
    now: Timestamp,
) -> ApiResult<()> {
    if state.logins.allows(from.unwrap_or(UNKNOWN), now) {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_logins",
        "too many wrong codes; wait a minute",
    ))
}

/// Counts a wrong code or token, and records it. The limit bounds how many rows that makes.
pub(crate) async fn count_guess(
    state: &AppState,
    from: Option<IpAddr>,
    action: &'static str,
    target: &str,
) -> ApiResult<()> {
    state.logins.count_wrong(from.unwrap_or(UNKNOWN));
    let by = Actor::of(Who::Nobody).from(from);
    let note = Note { by, action, target: target.to_owned() };
    Ok(state.store.note(note, state.clock.now()).await?)
}

fn cookie(value: &str, lifetime: Duration, state: &AppState) -> ApiResult<HeaderValue> {
    let tls = state.config.is_reached_by_tls();
    let secure = if tls { "; Secure" } else { "" };
    let name = cookie_name(tls);
    let seconds = lifetime.as_secs();
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
        .parse()
        .map_err(Failure::internal)
}

/// Sign out: the session or token of this request, and what was made by it, is worth nothing from
/// now on.
#[utoipa::path(post, path = "/api/logout", tag = "accounts", responses((status = 204)))]
async fn logout(State(state): State<AppState>, auth: Auth) -> ApiResult<Response> {
    let now = state.clock.now();
    state.store.revoke_credential(auth.credential, Some(auth.user), auth.actor(), now).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie("", Duration::ZERO, &state)?);
    Ok(response)
}

/// Who is signed in.
#[utoipa::path(get, path = "/api/me", tag = "accounts", responses((status = 200, body = Me)))]
async fn me(auth: Auth) -> Json<Me> {
    let role = auth.role.as_str().to_owned();
    Json(Me { user: auth.user, name: auth.name, role, expires_at: auth.ends, token: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_codes_are_limited_by_address_and_in_all() {
        let limit = LoginLimit::default();
        let now = Timestamp::from_seconds(1_000_000);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..TRIES {
            assert!(limit.allows(a, now));
            limit.count_wrong(a);
        }
        assert!(!limit.allows(a, now));
        assert!(limit.allows(b, now));
        assert!(limit.allows(a, now + WINDOW));
        for host in 0..=255 {
            limit.count_wrong(IpAddr::from([10, 0, 1, host]));
        }
        assert!(!limit.allows(b, now + WINDOW));
    }
}
