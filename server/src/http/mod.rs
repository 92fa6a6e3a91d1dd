//! Every route, one file by resource. Each file has a `router()`; this one only joins them.

pub mod artifacts;
pub mod auth;
pub mod deployments;
pub mod dora;
pub mod environments;
pub mod events;
pub mod git;
pub mod health;
pub mod hooks;
pub mod incidents;
pub mod login;
pub mod logs;
pub mod repos;
pub mod runner;
pub mod runners;
pub mod runs;
pub mod secrets;
pub mod ui;

use axum::Router;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use crate::AppState;

/// The document that the routes are added to.
#[derive(utoipa::OpenApi)]
#[openapi(info(title = "Pipeyard", description = "Git push to judged canary to DORA metrics."))]
struct Document;

/// Routes that are part of the API document.
#[must_use]
pub fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(artifacts::router())
        .merge(deployments::router())
        .merge(dora::router())
        .merge(environments::router())
        .merge(events::router())
        .merge(git::router())
        .merge(hooks::router())
        .merge(incidents::router())
        .merge(login::router())
        .merge(logs::router())
        .merge(repos::router())
        .merge(runner::router())
        .merge(runners::router())
        .merge(runs::router())
        .merge(secrets::router())
        .merge(health::router())
}

/// Everything that the server answers.
pub fn router(state: AppState) -> Router {
    let (api, _document) = api().split_for_parts();
    api.merge(ui::router()).with_state(state)
}
