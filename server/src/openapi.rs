//! The API's document: OpenAPI 3.1, made from the routes themselves.

use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use crate::http::auth::COOKIE;

/// The document before its routes are added.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pipeyard",
        description = "From a Git push to a judged canary to DORA metrics. Times are RFC 3339 text in UTC. \
            An answer with a status of 400 or above is an `ErrorBody` with a stable code.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(pipeyard_api::ErrorBody)),
    security(("token" = []), ("session" = [])),
    modifiers(&Schemes)
)]
pub(crate) struct Base;

/// How callers say who they are.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let session = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE)));
        components.add_security_scheme("token", token);
        components.add_security_scheme("session", session);
    }
}

/// The whole document.
#[must_use]
pub fn document() -> Document {
    crate::http::api().split_for_parts().1
}
