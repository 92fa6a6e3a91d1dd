//! The proxy's admin API, on a listener of its own, for the fleet alone.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/services` | every route's status by name |
//! | `GET /v1/services/{application}/{group}` | [`RouteStatus`] |
//! | `PUT` the same, a [`Route`] | [`RouteStatus`], or 409 [`Refusal::StaleEpoch`] |
//! | `DELETE` the same `?epoch=n` | 204 |

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State as Shared},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::{
    route::{Refusal, Route, RouteStatus},
    state::State,
};
use crate::token::{SharedToken, require_shared};

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::StaleEpoch { .. } => StatusCode::CONFLICT,
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::Port { .. } | Self::Disk { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unknown => StatusCode::NOT_FOUND,
        };
        (status, Json(self)).into_response()
    }
}

pub(super) fn router(state: Arc<State>, token: SharedToken) -> Router {
    Router::new()
        .route("/v1/services", get(all))
        .route("/v1/services/{application}/{group}", get(one).put(put).delete(remove))
        .layer(DefaultBodyLimit::max(1 << 20))
        .layer(middleware::from_fn_with_state(token, require_shared))
        .with_state(state)
}

async fn all(Shared(state): Shared<Arc<State>>) -> Response {
    Json(state.all()).into_response()
}

async fn one(
    Shared(state): Shared<Arc<State>>,
    Path((application, group)): Path<(String, String)>,
) -> Result<Json<RouteStatus>, Refusal> {
    state.get(&format!("{application}/{group}")).map(Json).ok_or(Refusal::Unknown)
}

async fn put(
    Shared(state): Shared<Arc<State>>,
    Path((application, group)): Path<(String, String)>,
    Json(route): Json<Route>,
) -> Result<Json<RouteStatus>, Refusal> {
    state.put(&format!("{application}/{group}"), route).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    epoch: u64,
}

async fn remove(
    Shared(state): Shared<Arc<State>>,
    Path((application, group)): Path<(String, String)>,
    Query(at): Query<At>,
) -> Result<StatusCode, Refusal> {
    state.remove(&format!("{application}/{group}"), at.epoch).await?;
    Ok(StatusCode::NO_CONTENT)
}
