//! Signed notifications, in the form of standardwebhooks.com: id, time and body are signed, so a
//! receiver can refuse a forged, changed or repeated message.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pipeyard_model::{OutboxId, Timestamp, address::CredentialUrl};
use serde_json::json;
use sha2::Sha256;

use super::{Undelivered, address, broken, client, judge};
use crate::{AppState, seal::Seal};

/// The signing secret as receivers take it. It belongs to the installation and never changes.
#[must_use]
pub fn secret(seal: &Seal) -> String {
    format!("whsec_{}", STANDARD.encode(seal.derive("notification")))
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
            address::Refused::Scheme | address::Refused::NoHost | address::Refused::Private(_) => {
                Undelivered::Never(problem)
            }
        }
    })?;
    let id = format!("msg_{}", id.0.simple());
    let body = json!({ "type": event, "timestamp": at, "data": data, "url": link(state, data) });
    let body = body.to_string();
    let seconds = state.clock.now().0 / 1_000_000;
    let signature = sign(&state.seal.derive("notification"), &id, seconds, &body);
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
