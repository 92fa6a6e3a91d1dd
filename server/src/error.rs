//! Errors as HTTP answers: a public message for the caller, the cause for the log.

use std::fmt::Display;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use pipeyard_api::{ApiError, ErrorBody};
use pipeyard_model::Timestamp;
use pipeyard_store::StoreError;

/// The code of a database that isn't what was written; [`DamagedMark`] goes with it.
const DAMAGED: &str = "database_damaged";

/// In the extensions of an answer: the database told that it is damaged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DamagedMark;

/// The result of a handler.
pub type ApiResult<T> = Result<T, Failure>;

/// Why a request failed.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    error: ApiError,
}

impl Failure {
    /// A failure with this status, stable code and message.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            error: ApiError { code: code.to_owned(), message: message.into(), hint: None },
        }
    }

    /// Adds the fix.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hint = Some(hint.into());
        self
    }

    /// 400.
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 410 for something that was removed because of its age; `what` in words: `the log of job test`.
    pub fn removed(code: &str, what: impl Display, at: Timestamp) -> Self {
        let day: String = at.to_string().chars().take(10).collect();
        Self::new(StatusCode::GONE, code, format!("{what} was removed on {day} because of its age"))
            .hint("keep_days in the server's settings says how long logs and artifacts are kept")
    }

    /// 404 for something in words: `run 81`.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what}"))
    }

    /// 409.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 500; the cause goes to the log only.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server failed; its log tells why",
        )
    }

    /// What it tells.
    #[must_use]
    pub fn body(self) -> ErrorBody {
        ErrorBody { error: self.error }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::not_found(what),
            StoreError::Conflict { code, message } => Self::conflict(code, message),
            StoreError::Unavailable(_) | StoreError::Unknown(_) => {
                tracing::error!(error = %error, "the store failed");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store_unavailable",
                    "the database can't be reached; try again",
                )
            }
            StoreError::Damaged(_) => {
                tracing::error!(error = %error, "the store failed");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    DAMAGED,
                    "the server's database is damaged",
                )
                .hint(
                    "its administrator has to restore a backup: `pipectl explain database_damaged`",
                )
            }
            StoreError::Corrupt { .. } => Self::internal(error),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let damaged = self.error.code == DAMAGED;
        let mut response = (self.status, Json(ErrorBody { error: self.error })).into_response();
        if damaged {
            response.extensions_mut().insert(DamagedMark);
        }
        response
    }
}
