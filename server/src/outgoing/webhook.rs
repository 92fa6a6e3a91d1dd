//! Signed notifications, in the form of standardwebhooks.com: id, time and body are signed, so a
//! receiver can refuse a forged, changed or repeated message.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pipeyard_model::{OutboxId, Timestamp, address::CredentialUrl};
use serde_json::json;
use sha2::Sha256;

use super::{Undelivered, address, broken, client, judge};
use crate::{AppState, http::notifications::SIGNING_SECRET, seal::Seal};

/// In front of a signing secret.
const PREFIX: &str = "whsec_";

/// A new signing secret as receivers take it.
#[must_use]
pub fn new_secret() -> String {
    let key: [u8; 32] = rand::random();
    format!("{PREFIX}{}", STANDARD.encode(key))
}

/// The same, sealed for the store.
#[must_use]
pub fn sealed_secret(seal: &Seal, secret: &str) -> Vec<u8> {
    seal.seal(SIGNING_SECRET, secret.as_bytes())
}

/// What messages are signed with: the secret that somebody had made. Before that, one that is made of
/// the master key, which receivers of an earlier version know.
async fn key(state: &AppState) -> Result<Vec<u8>, Undelivered> {
    let kept = state.store.own_secret(SIGNING_SECRET).await;
    let kept = kept.map_err(|error| Undelivered::Later(error.to_string(), None))?;
    let Some(kept) = kept else { return Ok(state.seal.derive("notification").to_vec()) };
    let opened = state.seal.unseal(SIGNING_SECRET, &kept.sealed);
    opened
        .ok()
        .and_then(|text| String::from_utf8(text).ok())
        .and_then(|text| STANDARD.decode(text.strip_prefix(PREFIX)?).ok())
        .ok_or_else(|| Undelivered::Never("the signing secret can't be opened".to_owned()))
}

/// The value of `webhook-signature`.
///
/// # Panics
/// Never: HMAC takes keys of any length.
#[must_use]
pub fn sign(key: &[u8], id: &str, seconds: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is good");
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

pub(super) async fn send(
    state: &AppState,
    id: OutboxId,
    event: &str,
    at: Timestamp,
    data: &serde_json::Value,
) -> Result<(), Undelivered> {
    let Some(url) = &state.config.notify_url else {
        return Ok(()); // nobody listens
    };
    let url = CredentialUrl::parse_any(url)
        .map_err(|error| Undelivered::Never(format!("notify_url: {error}")))?;
    let addresses = address::check(&url, state.config.notify_private).await.map_err(|refused| {
        let problem = refused.to_string();
        match refused {
            address::Refused::Unresolved(_) => Undelivered::Later(problem, None),
            address::Refused::Scheme
            | address::Refused::NoHost
            | address::Refused::Private(_)
            | address::Refused::Remote(..) => Undelivered::Never(problem),
        }
    })?;
    let id = format!("msg_{}", id.0.simple());
    let body = json!({ "type": event, "timestamp": at, "data": data, "url": link(state, data) });
    let body = body.to_string();
    let seconds = state.clock.now().0 / 1_000_000;
    let signature = sign(&key(state).await?, &id, seconds, &body);
    let host = url.host_str().unwrap_or_default().to_owned();
    let client =
        client().resolve_to_addrs(&host, &addresses).build().map_err(|error| broken(&error))?;
    let response = client
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", signature)
        .body(body)
        .send()
        .await
        .map_err(|error| broken(&error))?;
    judge(&response)
}

/// Where a person sees more.
fn link(state: &AppState, data: &serde_json::Value) -> Option<String> {
    let base = state.config.url();
    if data.get("incident").is_some() {
        return Some(format!("{base}/incidents"));
    }
    if let Some(deployment) = data.get("deployment").and_then(serde_json::Value::as_i64) {
        return Some(format!("{base}/deployments/{deployment}"));
    }
    data.get("run").and_then(serde_json::Value::as_i64).map(|run| format!("{base}/runs/{run}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that standardwebhooks.com's libraries test with.
    #[test]
    fn the_signature_is_the_one_of_the_standard() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
