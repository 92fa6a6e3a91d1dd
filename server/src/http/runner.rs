//! (to be written)

use crate::AppState;

/// The routes of this file.
pub fn router() -> utoipa_axum::router::OpenApiRouter<AppState> {
    utoipa_axum::router::OpenApiRouter::new()
}
