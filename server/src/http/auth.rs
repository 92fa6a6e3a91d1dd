//! Who is asking. One guard stands before every route and asks for what [`access`] says, so a new
//! route is closed until somebody decides otherwise.
//!
//! A program sends `Authorization: Bearer ppt_...`; a browser sends its session cookie. A write by
//! cookie must come from the server's own pages. A runner sends its key, which is good for the
//! runner protocol and for nothing else. Git has credentials of its own, checked by its handlers.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use pipeyard_api::runner::PROCESS;
use pipeyard_listen::Guest;
use pipeyard_model::{Actor, Permission, Role, RunnerId, Timestamp, TokenId, UserId, Who};
use pipeyard_store::{
    accounts::{CredentialKind, SecretHash},
    runners::{Process, Standing},
};

use super::access::{self, Access};
use crate::{AppState, error::Failure, tokens};

/// The session cookie's name.
pub const COOKIE: &str = "pipeyard_session";
/// The same where browsers come by TLS: they take it from this host alone, over TLS alone.
const SECURE_COOKIE: &str = "__Host-pipeyard_session";

/// The name of the session cookie for browsers that come this way.
#[must_use]
pub(crate) fn cookie_name(tls: bool) -> &'static str {
    if tls { SECURE_COOKIE } else { COOKIE }
}

/// A signed-in person or machine.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Who.
    pub user: UserId,
    /// Its name, for timelines and the audit log.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The session or token that it came with.
    pub credential: TokenId,
    /// When that ends.
    pub ends: Timestamp,
    /// Where the request came from.
    pub from: Option<IpAddr>,
}

impl Auth {
    /// Who changes something, for the store's verbs.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor { credential: Some(self.credential), ..Actor::user(self.user).from(self.from) }
    }

    /// Refuses who lacks this permission.
    ///
    /// # Errors
    /// When the role doesn't have it.
    pub fn needs(&self, permission: Permission) -> Result<(), Failure> {
        if self.role.may(permission) {
            return Ok(());
        }
        let message = format!(
            "{} is for administrators; {} is a {}",
            permission.words(),
            self.name,
            self.role
        );
        Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", message)
            .hint("ask an administrator, who may change it: pipectl users set-role"))
    }
}

impl FromRequestParts<AppState> for Auth {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        if let Some(auth) = parts.extensions.get::<Self>() {
            return Ok(auth.clone());
        }
        let peer = parts.extensions.get::<Guest>().map(Guest::peer);
        let from = address(peer, &parts.headers, state);
        authenticate(&parts.method, &parts.headers, from, state).await
    }
}

/// A runner, by its key. Its identity comes from the key only, never from what it says of itself.
#[derive(Debug, Clone)]
pub struct RunnerAuth {
    /// Its id.
    pub id: RunnerId,
    /// The hash of its key, by which a long poll finds out that it was removed meanwhile.
    pub key: SecretHash,
    /// Where the request came from.
    pub from: Option<IpAddr>,
    /// The nonce of the process that speaks for it; empty for one that says none.
    pub process: String,
}

impl RunnerAuth {
    /// Who changes something, for the store's verbs.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::of(Who::Runner(self.id)).from(self.from)
    }

    /// Notes that it is still there.
    ///
    /// # Errors
    /// When it was removed meanwhile, or the store fails.
    pub async fn touch(&self, state: &AppState) -> Result<(), Failure> {
        let process = Process { nonce: &self.process, previous: None };
        let now = state.clock.now();
        standing(state.store.runner_by_key(self.key, process, now).await?).map(drop)
    }
}

/// The runner that this process speaks for.
fn standing(standing: Standing) -> Result<RunnerId, Failure> {
    match standing {
        Standing::Speaks(id) => Ok(id),
        Standing::Unknown => Err(unknown_runner()),
        Standing::Taken(id, holder) => Err(Failure::conflict(
            "runner_is_live",
            format!(
                "another process speaks as runner {id}, and last did at {}: two with one identity would take each other's jobs and containers",
                holder.seen_at
            ),
        )
        .hint("give this one a data folder and an identity of its own: pipectl runners token")),
    }
}

/// The answer to a runner whose key is worth nothing: it ends what it does and waits for a person.
pub(crate) fn unknown_runner() -> Failure {
    Failure::new(
        StatusCode::UNAUTHORIZED,
        "unknown_runner",
        "the runner's key is missing, unknown, or belongs to a runner that was removed",
    )
    .hint("register it again with a token from `pipectl runners token`")
}

impl FromRequestParts<AppState> for RunnerAuth {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        match parts.extensions.get::<Self>() {
            Some(runner) => Ok(runner.clone()),
            None => {
                let peer = parts.extensions.get::<Guest>().map(Guest::peer);
                let from = address(peer, &parts.headers, state);
                authenticate_runner(&parts.headers, from, state).await
            }
        }
    }
}

/// Refuses requests that lack what their route asks for, before anything else of them is looked at.
pub async fn guard(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let path = path.unwrap_or_default();
    let peer = request.extensions().get::<Guest>().map(Guest::peer);
    let from = address(peer, request.headers(), &state);
    let refused = match access::asked(request.method(), &path) {
        Some(Access::Open) => None,
        Some(Access::Runner) => match authenticate_runner(request.headers(), from, &state).await {
            Ok(runner) => {
                request.extensions_mut().insert(runner);
                None
            }
            Err(failure) => Some(failure),
        },
        asked => match authenticate(request.method(), request.headers(), from, &state).await {
            Ok(auth) => match asked {
                Some(Access::Person(permission)) => {
                    let refused = auth.needs(permission).err();
                    request.extensions_mut().insert(auth);
                    refused
                }
                // The router says which methods there are.
                _ if access::knows(&path) => None,
                _ => Some(undecided(&path)),
            },
            Err(failure) => Some(failure),
        },
    };
    match refused {
        Some(failure) => refuse(failure),
        None => {
            // Who proved who they are is none of those that give way to others.
            if access::asked(request.method(), &path) != Some(Access::Open)
                && let Some(guest) = request.extensions().get::<Guest>()
            {
                guest.known();
            }
            next.run(request).await
        }
    }
}

/// The answer for a route that was added without a word about who may call it.
fn undecided(path: &str) -> Failure {
    tracing::error!(path, "nobody may call this route: http/access.rs doesn't name it");
    Failure::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        format!("nobody may call {path}: what it asks for isn't decided"),
    )
}

async fn authenticate_runner(
    headers: &HeaderMap,
    from: Option<IpAddr>,
    state: &AppState,
) -> Result<RunnerAuth, Failure> {
    let key = tokens::hash(bearer(headers).ok_or_else(unknown_runner)?);
    let nonce = process(headers)?;
    let asks = Process { nonce: &nonce, previous: None };
    let found = state.store.runner_by_key(key, asks, state.clock.now()).await?;
    Ok(RunnerAuth { id: standing(found)?, key, from, process: nonce })
}

/// The nonce of a runner's process.
pub(crate) fn process(headers: &HeaderMap) -> Result<String, Failure> {
    let Some(value) = headers.get(PROCESS) else { return Ok(String::new()) };
    let plain = |text: &&str| text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic());
    let text = value.to_str().ok().filter(plain).ok_or_else(|| {
        Failure::bad_request("bad_process", format!("{PROCESS} has at most 64 plain characters"))
    })?;
    Ok(text.to_owned())
}

/// The key that a runner shows.
pub(crate) fn runner_key(headers: &HeaderMap) -> Result<SecretHash, Failure> {
    bearer(headers).map(tokens::hash).ok_or_else(unknown_runner)
}

/// The caller's address: the last one that a trusted proxy saw, otherwise the peer's.
pub(crate) fn address(
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    state: &AppState,
) -> Option<IpAddr> {
    let forwarded = || pipeyard_listen::forwarded_for(headers);
    let proxied = state.config.trusted_proxy.then(forwarded).flatten();
    proxied.or(peer.map(|peer| peer.ip()))
}

fn refuse(failure: Failure) -> Response {
    let status = failure.status();
    let mut response = failure.into_response();
    if status == StatusCode::UNAUTHORIZED {
        let value = header::HeaderValue::from_static("Bearer realm=\"pipeyard\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

async fn authenticate(
    method: &Method,
    headers: &HeaderMap,
    from: Option<IpAddr>,
    state: &AppState,
) -> Result<Auth, Failure> {
    let (secret, expected) = if let Some(token) = bearer(headers) {
        (token, CredentialKind::Token)
    } else if let Some(cookie) = session(headers, cookie_name(state.config.is_reached_by_tls())) {
        (cookie, CredentialKind::Session)
    } else {
        return Err(unauthenticated("you are not signed in"));
    };
    let signed_in = state
        .store
        .signed_in(tokens::hash(secret), state.clock.now())
        .await?
        .filter(|who| who.kind == expected)
        .ok_or_else(|| unauthenticated("the token or session is unknown, revoked or over"))?;
    if expected == CredentialKind::Session && !method.is_safe() && !same_origin(headers, state) {
        return Err(cross_site());
    }
    Ok(Auth {
        user: signed_in.user.id,
        role: signed_in.user.role,
        name: signed_in.user.name,
        credential: signed_in.credential,
        ends: signed_in.expires_at,
        from,
    })
}

/// The answer to a write that another site's page sent.
pub(crate) fn cross_site() -> Failure {
    Failure::new(
        StatusCode::FORBIDDEN,
        "cross_site",
        "a write by cookie must come from Pipeyard's own pages",
    )
    .hint("programs use a token: pipectl login")
}

fn unauthenticated(message: &str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "unauthenticated", message).hint("pipectl login")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn session<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Whether a browser says that the request comes from this server's own page. Browsers send
/// `Sec-Fetch-Site` or `Origin` with every write; without either it isn't believed.
pub(crate) fn same_origin(headers: &HeaderMap, state: &AppState) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let host = |text: &str| {
        text.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string))
    };
    let Some(origin) = host(origin) else { return false };
    let here = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    here == Some(origin.as_str()) || host(&state.config.url()) == Some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "a=b; pipeyard_session=pps_x; c=d".parse().unwrap());
        assert_eq!(session(&headers, COOKIE), Some("pps_x"));
        // A name that another host of the domain could set counts for nothing where there is TLS.
        assert_eq!(session(&headers, SECURE_COOKIE), None);
        headers.insert(
            header::COOKIE,
            "pipeyard_session=1; __Host-pipeyard_session=pps_y".parse().unwrap(),
        );
        assert_eq!(session(&headers, SECURE_COOKIE), Some("pps_y"));
        headers.insert(header::COOKIE, "xpipeyard_session=1; pipeyard_session2=2".parse().unwrap());
        assert_eq!(session(&headers, COOKIE), None);
    }
}
