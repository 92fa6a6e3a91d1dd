//! What happens to every answer on its way out: it is counted, and an error has the one shape.

use std::{any::Any, time::Instant};

use axum::{
    body::to_bytes,
    extract::{MatchedPath, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    AppState,
    error::{DamagedMark, Failure},
};

/// Longer error texts than this aren't ours.
const MAX_TEXT: usize = 16 << 10;

/// Counts the request and times it.
pub(super) async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    if response.extensions().get::<DamagedMark>().is_some() {
        state.health.damaged("a request met it");
    }
    let route = route.as_ref().map(MatchedPath::as_str);
    state.metrics.request(&method, route, response.status(), began.elapsed());
    response
}

/// Gives errors that the framework answers in plain text (a body that isn't JSON, a path that
/// isn't an id) the shape of all others.
pub(super) async fn shape_errors(request: Request, next: Next) -> Response {
    let ours = request.uri().path().starts_with("/api/");
    let response = next.run(request).await;
    let status = response.status();
    if !ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !plain {
        return response;
    }
    let text = to_bytes(response.into_body(), MAX_TEXT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let (code, fallback) = match status {
        StatusCode::NOT_FOUND => ("not_found", "there is nothing here"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this method isn't possible here"),
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("not_json", "the body must be application/json"),
        _ => ("bad_request", "the request can't be understood"),
    };
    let message = if text.trim().is_empty() { fallback } else { text.trim() };
    Failure::new(status, code, message).into_response()
}

/// A handler panicked: the caller gets an answer, the log the reason.
#[expect(clippy::needless_pass_by_value, reason = "the layer gives the panic's value away")]
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words");
    Failure::internal(format_args!("a handler panicked: {text}")).into_response()
}
