//! Production failures: opened, closed, listed.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use pipeyard_api::{
    ErrorBody,
    deploys::{CloseIncident, IncidentView, OpenIncident},
};
use pipeyard_model::{EnvironmentName, IncidentId, ServiceName};
use pipeyard_store::deployments::NewIncident;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{auth::Auth, deployments::past};
use crate::{
    AppState,
    error::{ApiResult, Failure},
};

/// The longest title, in characters.
const TITLE: usize = 200;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, open)).routes(routes!(close))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct IncidentsQuery {
    /// Only in this environment.
    env: Option<EnvironmentName>,
    /// Only of this service.
    service: Option<ServiceName>,
    /// `true`: only those that are open; `false`: only those that are restored; absent: all.
    open: Option<bool>,
}

/// Incidents, newest first.
#[utoipa::path(get, path = "/api/incidents", tag = "incidents", params(IncidentsQuery),
    responses((status = 200, body = Vec<IncidentView>)))]
async fn list(
    State(state): State<AppState>,
    Query(query): Query<IncidentsQuery>,
) -> ApiResult<Json<Vec<IncidentView>>> {
    let (environment, service) = (query.env.as_ref(), query.service.as_ref());
    Ok(Json(state.store.incidents(environment, service, query.open).await?))
}

/// Opens an incident. The same `key` a second time answers the first.
#[utoipa::path(post, path = "/api/incidents", tag = "incidents", request_body = OpenIncident,
    responses((status = 200, body = IncidentView), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn open(
    State(state): State<AppState>,
    auth: Auth,
    Json(body): Json<OpenIncident>,
) -> ApiResult<Json<IncidentView>> {
    let now = state.clock.now();
    let title = body.title.trim().to_owned();
    if title.is_empty() || title.chars().count() > TITLE {
        let message = format!("the title must have 1 to {TITLE} characters");
        return Err(Failure::bad_request("bad_title", message));
    }
    let impact_at = past(body.impact_at, now, "impact_at")?;
    let detected_at = past(body.detected_at, now, "detected_at")?.max(impact_at);
    let deployment = match body.deployment {
        Some(id) => Some((id, "manual".to_owned())),
        None => state
            .store
            .suspect(&body.environment, &body.service, impact_at)
            .await?
            .map(|id| (id, "inferred".to_owned())),
    };
    let new = NewIncident {
        key: body.key,
        environment: body.environment,
        service: body.service,
        title,
        impact_at,
        detected_at,
        deployment,
        actor: auth.actor(),
        by: auth.name,
    };
    Ok(Json(state.store.open_incident(new, now).await?))
}

/// Closes an incident: users don't suffer any more.
#[utoipa::path(post, path = "/api/incidents/{id}/close", tag = "incidents",
    params(("id" = IncidentId, Path,)), request_body = CloseIncident,
    responses((status = 200, body = IncidentView), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn close(
    State(state): State<AppState>,
    auth: Auth,
    Path(id): Path<IncidentId>,
    Json(body): Json<CloseIncident>,
) -> ApiResult<Json<IncidentView>> {
    let now = state.clock.now();
    let at = past(body.restored_at, now, "restored_at")?;
    Ok(Json(state.store.close_incident(id, at, &auth.name, auth.actor(), now).await?))
}
