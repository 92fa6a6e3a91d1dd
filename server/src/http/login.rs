//! Signing in and out, API tokens, and the audit log.
//!
//! The first start mints a one-time login, which the composition root prints; it is exchanged for
//! a session or a token. Wrong codes are answered alike and limited in number.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use pipeyard_api::{
    ErrorBody,
    views::{AuditView, Login, Me, NewToken, Page, TokenAdded, TokenView},
};
use pipeyard_model::{Timestamp, TokenId};
use pipeyard_store::accounts::{CredentialKind, NewCredential};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::{Auth, cookie_name, cross_site, same_origin};
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

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(list_tokens, add_token))
        .routes(routes!(remove_token))
        .routes(routes!(audit))
}

/// Mints a one-time login of the administrator; the ones before are worth nothing from then on.
/// It can be used once, within a day.
///
/// # Errors
/// When the store fails.
pub async fn mint_one_time_login(state: &AppState) -> anyhow::Result<String> {
    let now = state.clock.now();
    let admin = state.store.ensure_admin(now).await?;
    let code = tokens::new_one_time_login();
    let credential = NewCredential {
        id: TokenId::new(),
        kind: CredentialKind::OneTimeLogin,
        label: "one-time login".to_owned(),
        hash: tokens::hash_presented(&code),
        expires_at: Some(now + ONE_TIME_LOGIN),
    };
    state.store.add_one_time_login(admin.id, credential, now).await?;
    Ok(code)
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
    fn allows(&self, from: IpAddr, now: Timestamp) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(Timestamp(state.0)) >= WINDOW {
            *state = (now.0, HashMap::new());
        }
        let all: u32 = state.1.values().sum();
        all < ALL_TRIES && state.1.get(&from).copied().unwrap_or(0) < TRIES
    }

    fn count_wrong(&self, from: IpAddr) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state.1.entry(from).or_default() += 1;
    }
}

/// The caller's address: the last one that a trusted proxy saw, otherwise the peer's.
fn address(peer: Option<SocketAddr>, headers: &HeaderMap, state: &AppState) -> IpAddr {
    let forwarded = || pipeyard_listen::forwarded_for(headers);
    let proxied = state.config.trusted_proxy.then(forwarded).flatten();
    proxied.or(peer.map(|peer| peer.ip())).unwrap_or(IpAddr::from([0, 0, 0, 0]))
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
    if !state.logins.allows(from, now) {
        return Err(Failure::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_logins",
            "too many wrong codes; wait a minute",
        ));
    }
    let (kind, prefix, lifetime) = match body.want.as_deref() {
        None | Some("cookie") => (CredentialKind::Session, tokens::SESSION, Some(SESSION)),
        Some("token") => (CredentialKind::Token, tokens::API_TOKEN, None),
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
        expires_at: lifetime.map(|lifetime| now + lifetime),
    };
    let presented = tokens::hash_presented(&body.code);
    let Some(user) = state.store.exchange_credential(presented, credential, now).await? else {
        state.logins.count_wrong(from);
        return Err(Failure::new(
            StatusCode::UNAUTHORIZED,
            "bad_code",
            "this code or token is unknown, used up or over",
        )
        .hint("a new one-time login: pipectl login-code, on the server's machine"));
    };
    let mut me =
        Me { user: user.id, name: user.name, role: user.role.as_str().to_owned(), token: None };
    if kind == CredentialKind::Token {
        me.token = Some(secret);
        return Ok(Json(me).into_response());
    }
    let mut response = Json(me).into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie(&secret, SESSION, &state)?);
    Ok(response)
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

/// Sign out: the session or token of this request is worth nothing from now on.
#[utoipa::path(post, path = "/api/logout", tag = "accounts", responses((status = 204)))]
async fn logout(State(state): State<AppState>, auth: Auth) -> ApiResult<Response> {
    state.store.revoke_credential(auth.credential, auth.user, state.clock.now()).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie("", Duration::ZERO, &state)?);
    Ok(response)
}

/// Who is signed in.
#[utoipa::path(get, path = "/api/me", tag = "accounts", responses((status = 200, body = Me)))]
async fn me(auth: Auth) -> Json<Me> {
    Json(Me { user: auth.user, name: auth.name, role: auth.role.to_owned(), token: None })
}

/// Sessions and tokens that aren't over.
#[utoipa::path(get, path = "/api/tokens", tag = "accounts", responses((status = 200, body = [TokenView])))]
async fn list_tokens(State(state): State<AppState>, auth: Auth) -> ApiResult<Json<Vec<TokenView>>> {
    let rows = state.store.credentials(state.clock.now()).await?;
    let view = rows.into_iter().map(|row| TokenView {
        id: row.id,
        user: row.user,
        kind: row.kind.as_str().to_owned(),
        label: row.label,
        created_at: row.created_at,
        used_at: row.used_at,
        expires_at: row.expires_at,
        current: row.id == auth.credential,
    });
    Ok(Json(view.collect()))
}

/// Make an API token. It is shown only in this answer.
#[utoipa::path(post, path = "/api/tokens", tag = "accounts", request_body = NewToken,
    responses((status = 200, body = TokenAdded)))]
async fn add_token(
    State(state): State<AppState>,
    auth: Auth,
    Json(body): Json<NewToken>,
) -> ApiResult<Json<TokenAdded>> {
    let label: String = body.label.trim().chars().take(100).collect();
    if label.is_empty() {
        return Err(Failure::bad_request("bad_label", "the token needs a label to be told by"));
    }
    let days = body.days.map(u64::from);
    if days.is_some_and(|days| days == 0 || days > 3650) {
        return Err(Failure::bad_request("bad_days", "a token lasts 1 to 3650 days"));
    }
    let now = state.clock.now();
    let token = tokens::new(tokens::API_TOKEN);
    let id = TokenId::new();
    let credential = NewCredential {
        id,
        kind: CredentialKind::Token,
        label,
        hash: tokens::hash(&token),
        expires_at: days.map(|days| now + Duration::from_secs(days * 24 * 3600)),
    };
    state.store.add_credential(auth.user, credential, now).await?;
    Ok(Json(TokenAdded { id, token }))
}

/// Revoke a session or token.
#[utoipa::path(delete, path = "/api/tokens/{id}", tag = "accounts", params(("id" = TokenId, Path,)),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove_token(
    State(state): State<AppState>,
    auth: Auth,
    Path(id): Path<TokenId>,
) -> ApiResult<StatusCode> {
    state.store.revoke_credential(id, auth.user, state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct AuditQuery {
    /// `next` of the page before.
    before: Option<i64>,
    /// 1 to 200, 50 if absent.
    limit: Option<u32>,
}

/// Privileged changes, newest first.
#[utoipa::path(get, path = "/api/audit", tag = "accounts", params(AuditQuery),
    responses((status = 200, body = Page<AuditView>)))]
async fn audit(
    State(state): State<AppState>,
    _auth: Auth,
    Query(query): Query<AuditQuery>,
) -> ApiResult<Json<Page<AuditView>>> {
    let limit = query.limit.unwrap_or(50).clamp(1, 200);
    let rows = state.store.audit(query.before, limit).await?;
    let full = rows.len() == limit as usize;
    let next = rows.last().filter(|_| full).map(|row| row.seq.to_string());
    let items = rows.into_iter().map(|row| AuditView {
        seq: row.seq,
        at: row.at,
        actor: row.actor,
        action: row.action,
        target: row.target,
    });
    Ok(Json(Page { items: items.collect(), next }))
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
