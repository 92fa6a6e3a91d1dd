//! Who is asking. (Placeholder until accounts land: everybody on loopback is the administrator.)

use axum::{extract::FromRequestParts, http::request::Parts};
use pipeyard_model::UserId;

use crate::{AppState, error::Failure};

/// A signed-in person or machine.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Who.
    pub user: UserId,
    /// Its name, for timelines and the audit log.
    pub name: String,
}

impl FromRequestParts<AppState> for Auth {
    type Rejection = Failure;
    async fn from_request_parts(_parts: &mut Parts, _state: &AppState) -> Result<Self, Failure> {
        Ok(Self { user: UserId(uuid::Uuid::nil()), name: "admin".into() })
    }
}
