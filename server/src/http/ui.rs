//! (to be written)

use crate::AppState;

/// The routes of this file.
pub fn router() -> axum::Router<AppState> {
    axum::Router::new()
}
