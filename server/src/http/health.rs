//! For machines that watch over the server: alive, ready, and numbers for Prometheus.

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Auth;
use crate::{AppState, error::ApiResult};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(alive)).routes(routes!(ready)).routes(routes!(metrics))
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = String)))]
async fn alive() -> &'static str {
    "ok\n"
}

/// The process can do its work: a write would succeed now, the database is whole, and it isn't
/// stopping. Otherwise one line says why, beginning with a code.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = String), (status = 503, body = String)))]
async fn ready(State(state): State<AppState>) -> Response {
    let mut answer = is_ready(&state).await.into_response();
    // Whoever started this process knows by it that it speaks with this process.
    if let Some(start) = &state.start
        && let Ok(start) = HeaderValue::from_str(start)
    {
        answer.headers_mut().insert("x-pipeyard-start", start);
    }
    answer
}

async fn is_ready(state: &AppState) -> (StatusCode, String) {
    match state.health.ready(state).await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}: {}\n", why.code, why.message)),
    }
}

/// Numbers in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
async fn metrics(State(state): State<AppState>, _auth: Auth) -> ApiResult<Response> {
    let text = state.metrics.collect(&state).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
