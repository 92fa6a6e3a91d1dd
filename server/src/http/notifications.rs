//! Where notifications go. What they are signed with is shown once, when it is made, and can't be read
//! again by anybody.

use axum::{Json, extract::State};
use pipeyard_api::views::{NotificationSecret, NotificationsView};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Auth;
use crate::{
    AppState,
    error::ApiResult,
    outgoing::{new_notification_secret, sealed_notification_secret},
};

/// The name of the secret in the store.
pub(crate) const SIGNING_SECRET: &str = "notifications";

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(notifications)).routes(routes!(renew))
}

/// Where notifications go, and whether there is a secret that a receiver can know. The address is
/// told without its path: that is a password at some receivers.
#[utoipa::path(get, path = "/api/notifications", tag = "accounts", responses((status = 200, body = NotificationsView)))]
async fn notifications(
    State(state): State<AppState>,
    _auth: Auth,
) -> ApiResult<Json<NotificationsView>> {
    let secret = state.store.own_secret(SIGNING_SECRET).await?;
    Ok(Json(NotificationsView {
        url: state.config.notify_url.as_deref().map(shown),
        secret_set_at: secret.map(|secret| secret.set_at),
    }))
}

/// `https://chat.example.com/...`, without user, password, path and query.
fn shown(url: &str) -> String {
    let Ok(url) = url.parse::<reqwest::Url>() else { return "not an address".to_owned() };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let rest = if url.path() == "/" && url.query().is_none() { "" } else { "/..." };
    format!("{}://{host}{port}{rest}", url.scheme())
}

/// Make a new signing secret. It is shown only in this answer; messages are signed with it from now
/// on.
#[utoipa::path(post, path = "/api/notifications/secret", tag = "accounts",
    responses((status = 200, body = NotificationSecret)))]
async fn renew(State(state): State<AppState>, auth: Auth) -> ApiResult<Json<NotificationSecret>> {
    let secret = new_notification_secret();
    let sealed = sealed_notification_secret(&state.seal, &secret);
    let now = state.clock.now();
    state.store.set_own_secret(SIGNING_SECRET, sealed, auth.actor(), now).await?;
    Ok(Json(NotificationSecret { secret }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_may_be_a_password() {
        for (url, expected) in [
            ("https://ann:pw@chat.example.com/hook/T0/x?key=y", "https://chat.example.com/..."),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("nonsense", "not an address"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
