//! Hosts: who they are to the fleet, and how they get there.
//!
//! A person lets a host enrol ([`enrol`]) and says its name, tags and address; the answer holds a
//! code, shown once. The host's agent exchanges the code for an access key of its own, once
//! ([`exchange`]), and signs everything with it from then on ([`require`]). What a host is never
//! comes from what its agent says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, Request, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use pipeyard_model::fleet::{EnrolHost, Enrolment, HostView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Token,
    control::Refused,
    credentials::AccessKey,
    db::{Access, Enrolling, NewEnrolment},
    fleet::Fleet,
    sigv4::{self, Scope, Signed},
};

/// The service that agents sign for, as CodeDeploy's own agents do.
pub(crate) const SERVICE: &str = "codedeploy-commands";
/// Hosts that one fleet keeps.
pub(crate) const MAX_HOSTS: usize = 10_000;
/// How long a code is good unless said otherwise, and the bounds.
const VALID: u64 = 24 * 3_600;
const VALID_WITHIN: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3_600;
/// Bodies of agents' requests.
const BODY_LIMIT: usize = 1 << 20;
/// What a code begins with, so that it is told from other secrets.
const CODE: &str = "ppe_";

/// `POST /agent/enrol`: a code for a key. The agent makes the secret, and keeps it before it asks,
/// so that a lost answer can be asked for again.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Exchange {
    pub(crate) code: String,
    pub(crate) secret: Token,
}

/// The answer to [`Exchange`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Exchanged {
    pub(crate) name: String,
    pub(crate) access_key_id: String,
    pub(crate) arn: String,
    /// What signatures are scoped to.
    pub(crate) region: String,
}

/// The host that signed a request.
#[derive(Debug, Clone)]
pub(crate) struct HostAuth(pub(crate) String);

fn name_is_legal(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._+=,@-".contains(&b);
    (1..=100).contains(&name.len())
        && name.bytes().all(legal)
        && !name.starts_with('-')
        && name != "."
        && name != ".."
}

fn check(wish: &EnrolHost) -> Result<(), Refused> {
    if !name_is_legal(&wish.name) {
        return Err(Refused::invalid("a host's name has 1 to 100 letters, digits or ._+=,@-"));
    }
    let tags = wish.tags.as_ref();
    if tags.is_some_and(|tags| tags.len() > 50) {
        return Err(Refused::invalid("a host has at most 50 tags"));
    }
    let bad = |(key, value): (&String, &String)| {
        key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256
    };
    if tags.is_some_and(|tags| tags.iter().any(bad)) {
        return Err(Refused::invalid("a tag's key has 1 to 128 letters, its value at most 256"));
    }
    if let Some(address) = wish.address
        && (address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast())
    {
        let text = format!("{address} can't be where a service answers: write IP:PORT of the host");
        return Err(Refused::invalid(text));
    }
    if wish.valid_seconds.is_some_and(|seconds| !VALID_WITHIN.contains(&seconds)) {
        return Err(Refused::invalid("an enrolment is good for a minute to seven days"));
    }
    Ok(())
}

pub(crate) fn code_hash(code: &str) -> String {
    hex::encode(Sha256::digest(code.trim().as_bytes()))
}

/// `POST /hosts`: lets a host enrol once.
pub(crate) async fn enrol(
    State(fleet): State<Arc<Fleet>>,
    body: Result<Json<EnrolHost>, JsonRejection>,
) -> Result<Json<Enrolment>, Refused> {
    let Json(wish) = body?;
    check(&wish)?;
    let now = fleet.clock.now();
    let code = format!("{CODE}{}", Token::mint().reveal());
    let expires = now + Duration::from_secs(wish.valid_seconds.unwrap_or(VALID));
    let identity = format!("arn:aws:iam::000000000000:user/{}", wish.name);
    let new = NewEnrolment {
        name: &wish.name,
        identity: &identity,
        tags: wish.tags.as_ref(),
        address: wish.address,
        code: &code_hash(&code),
        expires,
    };
    let arn = match fleet.db.put_enrolment(&new, MAX_HOSTS, now).await? {
        Enrolling::Done { identity } => identity,
        Enrolling::NoAddress => {
            let text = format!("say where the service of {} answers: --address IP:PORT", wish.name);
            return Err(Refused::invalid(text));
        }
        Enrolling::Full => {
            return Err(Refused::invalid(format!("this fleet keeps at most {MAX_HOSTS} hosts")));
        }
    };
    retell(&fleet, &wish.name).await?;
    tracing::info!(host = wish.name, until = %expires, "a host may enrol");
    Ok(Json(Enrolment { name: wish.name, arn, code, expires_at: expires }))
}

/// Tells the proxy anew about every service of a host whose row has changed.
async fn retell(fleet: &Fleet, host: &str) -> Result<(), Refused> {
    let known = fleet.db.instance(host).await?;
    for group in known.iter().flat_map(|known| known.doc.installed.keys()) {
        let Some((application, group)) = group.split_once('/') else { continue };
        // A proxy that is away hears of it with the next change, or when it is back.
        if let Err(error) = fleet.routes.sync(fleet, application, group, "host").await {
            tracing::warn!(host, %error, "the proxy isn't told of a changed host yet");
        }
    }
    Ok(())
}

/// `GET /hosts`.
pub(crate) async fn list(State(fleet): State<Arc<Fleet>>) -> Result<Json<Vec<HostView>>, Refused> {
    let mut access = fleet.db.access(fleet.clock.now()).await?;
    let hosts = fleet.db.instances().await?;
    let views = hosts.into_iter().filter(|host| host.deregistered.is_none()).map(|host| {
        let Access { access_key, enrolment_until } = access.remove(&host.name).unwrap_or_default();
        let agent = match (&host.doc.boot, fleet.agents.is_lost(&host.name)) {
            (None, _) => "never",
            (Some(_), true) => "silent",
            (Some(_), false) => "online",
        };
        HostView {
            arn: host.identity,
            address: host.doc.address,
            tags: host.tags.into_iter().collect::<BTreeMap<_, _>>(),
            enrolled_at: access_key.as_ref().map(|(_, at)| *at),
            access_key_id: access_key.map(|(id, _)| id),
            enrolment_until,
            agent: agent.to_owned(),
            agent_user: host.doc.abilities.map(|abilities| abilities.user),
            name: host.name,
        }
    });
    Ok(Json(views.collect()))
}

/// `DELETE /hosts/{name}`: its key is worth nothing from now on, and it gets no traffic.
pub(crate) async fn remove(
    State(fleet): State<Arc<Fleet>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    let known = fleet.db.instance(&name).await?.filter(|host| host.deregistered.is_none());
    if known.is_none() {
        return Err(Refused::not_found(format!("no host {name}: pipectl fleet hosts list")));
    }
    fleet.db.deregister_instance(&name, fleet.clock.now()).await?;
    fleet.agents.forget(&name);
    retell(&fleet, &name).await?;
    fleet.engine.wake_all();
    tracing::info!(host = name, "a host was removed");
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /agent/enrol`.
pub(crate) async fn exchange(
    State(fleet): State<Arc<Fleet>>,
    body: Result<Json<Exchange>, JsonRejection>,
) -> Result<Json<Exchanged>, Refused> {
    let Json(wish) = body?;
    let secret = wish.secret.reveal();
    if secret.len() != 64 || !secret.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Refused::invalid("a secret is 32 random bytes in hex"));
    }
    let key = AccessKey::mint(wish.secret.clone());
    let made = fleet.db.enrol(&code_hash(&wish.code), &key, fleet.clock.now()).await?;
    let Some(made) = made else {
        let text =
            "this enrolment is unknown, used up or over; a new one: pipectl fleet enroll NAME";
        return Err(Refused::new(StatusCode::UNAUTHORIZED, "enrolment_refused", text));
    };
    // Who had the key before is out.
    fleet.agents.forget(&made.instance);
    tracing::info!(host = made.instance, key = made.key.access_key_id, "a host enrolled");
    Ok(Json(Exchanged {
        name: made.instance,
        access_key_id: made.key.access_key_id,
        arn: made.identity,
        region: fleet.region.clone(),
    }))
}

fn unknown_key() -> Refused {
    let text = "sign it with the key of an enrolled host; this one is missing, unknown, revoked or \
                replaced: pipectl fleet enroll NAME gives the host a new one";
    Refused::new(StatusCode::UNAUTHORIZED, "unknown_key", text)
}

/// Lets requests pass that a host signed, and says which. Whose key it is is looked up before
/// anything of the body is read.
pub(crate) async fn require(
    State(fleet): State<Arc<Fleet>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match authenticate(&fleet, &parts, body).await {
        Ok((host, body)) => {
            if let Some(guest) = parts.extensions.get::<pipeyard_listen::Guest>() {
                guest.known();
            }
            parts.extensions.insert(host);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refused) => refused.into_response(),
    }
}

/// Lets an administrator's token pass, or a host's signature.
pub(crate) async fn require_admin_or_host(
    state: State<Arc<Fleet>>,
    request: Request,
    next: Next,
) -> Response {
    if state.credentials.token.is_in(request.headers()) {
        if let Some(guest) = request.extensions().get::<pipeyard_listen::Guest>() {
            guest.known();
        }
        return next.run(request).await;
    }
    require(state, request, next).await
}

async fn authenticate(
    fleet: &Fleet,
    parts: &Parts,
    body: Body,
) -> Result<(HostAuth, Body), Refused> {
    let id = sigv4::access_key_id(&parts.headers).ok_or_else(unknown_key)?;
    let known = fleet.db.host_key(id).await?.ok_or_else(unknown_key)?;
    let bytes = axum::body::to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|_| Refused::invalid(format!("a request has at most {BODY_LIMIT} bytes")))?;
    let request = signed(parts, &parts.headers, &bytes);
    let scope = Scope { region: &fleet.region, service: SERVICE };
    sigv4::verify(&request, std::slice::from_ref(&known.key), scope, fleet.clock.now()).map_err(
        |error| Refused::new(StatusCode::UNAUTHORIZED, "bad_signature", error.to_string()),
    )?;
    Ok((HostAuth(known.instance), Body::from(bytes)))
}

fn signed<'a>(parts: &'a Parts, headers: &'a HeaderMap, body: &'a [u8]) -> Signed<'a> {
    Signed {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers,
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_may_be_called_and_where_it_may_answer() {
        let wish = |name: &str, address: &str| EnrolHost {
            name: name.into(),
            tags: None,
            address: Some(address.parse().unwrap()),
            valid_seconds: None,
        };
        assert!(check(&wish("web-1.example", "10.0.0.1:80")).is_ok());
        for (name, address) in [
            ("", "10.0.0.1:80"),
            ("..", "10.0.0.1:80"),
            ("-x", "10.0.0.1:80"),
            ("a/b", "10.0.0.1:80"),
            ("a b", "10.0.0.1:80"),
            ("a", "10.0.0.1:0"),
            ("a", "0.0.0.0:80"),
            ("a", "224.0.0.1:80"),
        ] {
            assert!(check(&wish(name, address)).is_err(), "{name:?} {address}");
        }
        let long = EnrolHost { valid_seconds: Some(8 * 24 * 3_600), ..wish("a", "10.0.0.1:80") };
        assert!(check(&long).is_err());
    }
}
