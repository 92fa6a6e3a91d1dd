//! Every route, one file by resource. Each file has a `router()`; this one only joins them.

pub mod access;
pub mod artifacts;
pub mod audit;
pub mod auth;
pub mod deployments;
pub mod dora;
mod environment_rules;
pub mod environments;
pub mod events;
pub mod git;
pub mod health;
pub mod hooks;
pub mod incidents;
pub mod login;
pub mod logs;
pub mod notifications;
mod observe;
mod range;
pub mod repos;
pub mod runner;
pub mod runners;
pub mod runs;
pub mod secrets;
pub mod start;
pub mod test_reports;
pub mod tokens;
pub mod ui;
pub mod users;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, HeaderValue, header},
    middleware::{from_fn, from_fn_with_state},
};
use pipeyard_model::RepoName;
use pipeyard_store::repos::Repo;
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{DefaultPredicate, NotForContentType, Predicate as _},
    },
    set_header::SetResponseHeaderLayer,
};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    AppState,
    error::{ApiResult, Failure},
    openapi,
};

/// Routes that are part of the API document. Every route is added by [`routes!`], so that none is
/// missing there.
#[must_use]
pub fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Base::openapi())
        .merge(artifacts::router())
        .merge(audit::router())
        .merge(deployments::router())
        .merge(dora::router())
        .merge(environments::router())
        .merge(events::router())
        .merge(git::router())
        .merge(hooks::router())
        .merge(incidents::router())
        .merge(login::router())
        .merge(logs::router())
        .merge(notifications::router())
        .merge(repos::router())
        .merge(runner::router())
        .merge(runners::router())
        .merge(runs::router())
        .merge(secrets::router())
        .merge(start::router())
        .merge(test_reports::router())
        .merge(tokens::router())
        .merge(users::router())
        .merge(health::router())
        .routes(routes!(document))
}

/// Everything that the server answers.
pub fn router(state: AppState) -> Router {
    let (api, _document) = api().split_for_parts();
    let header = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    // Bytes of artifacts keep their length and their ranges.
    let compress = DefaultPredicate::new()
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("application/x-git"));
    api.route_layer(from_fn_with_state(state.clone(), auth::guard))
        .route_layer(from_fn(observe::shape_errors))
        .route_layer(from_fn_with_state(state.clone(), observe::count))
        .fallback(ui::serve)
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "same-origin"))
        .layer(header(header::CONTENT_SECURITY_POLICY, ui::CONTENT_SECURITY_POLICY))
        .layer(header(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
        .layer(CompressionLayer::new().compress_when(compress))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .with_state(state)
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "health", responses((status = 200, body = Object)))]
async fn document(State(_state): State<AppState>) -> Json<utoipa::openapi::OpenApi> {
    Json(openapi::document())
}

/// The repository of this name.
pub(crate) async fn repo_named(state: &AppState, name: &RepoName) -> ApiResult<Repo> {
    let found = state.store.repo_by_name(name).await?;
    found.ok_or_else(|| {
        Failure::not_found(format_args!("repository {name}")).hint("pipectl repos list")
    })
}
