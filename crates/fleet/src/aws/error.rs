//! Errors as CodeDeploy's clients expect them: status 400, `__type` and `message`.

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{db::DbError, sigv4::SigError};

/// An exception of the CodeDeploy API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct AwsError {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl AwsError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Something that the caller can't mend.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "an operation failed");
        Self::new("InternalFailure", "the fleet failed; its log says why")
    }
}

impl From<DbError> for AwsError {
    fn from(error: DbError) -> Self {
        Self::internal(&error)
    }
}

impl From<SigError> for AwsError {
    fn from(error: SigError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl IntoResponse for AwsError {
    fn into_response(self) -> Response {
        let status = match self.code {
            "InternalFailure" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = json!({"__type": self.code, "message": self.message}).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let kind = header::HeaderValue::from_static("application/x-amz-json-1.1");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Ok(code) = header::HeaderValue::from_str(self.code) {
            response.headers_mut().insert("x-amzn-errortype", code);
        }
        response
    }
}
