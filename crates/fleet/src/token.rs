//! Bearer tokens: a secret type that isn't printed, and the check in front of a router.

use std::{fmt, io, path::Path, sync::Arc};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use pipeyard_model::fleet::ControlError;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::files::create_once;

/// A secret that lets its bearer in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Takes a secret that somebody else made.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// 256 random bits in hex.
    #[must_use]
    pub fn mint() -> Self {
        Self(hex::encode(rand::rng().random::<[u8; 32]>()))
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The token in this file; made if there is none. Processes that start at once agree.
    ///
    /// # Errors
    /// When the file can't be read or made, or is empty.
    pub fn shared(path: &Path) -> io::Result<Self> {
        let bytes = create_once(path, || Ok(Self::mint().0.into_bytes()))?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        if text.is_empty() {
            let message = format!("the token file {} is empty", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self(text))
    }

    /// Whether a request carries this token; takes the same time for every wrong one.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        bool::from(given.as_bytes().ct_eq(self.0.as_bytes()))
    }
}

/// Lets requests pass that carry one of the tokens.
pub(crate) async fn require(
    State(tokens): State<Arc<Vec<Token>>>,
    request: Request,
    next: Next,
) -> Response {
    if tokens.iter().fold(false, |found, token| token.is_in(request.headers()) | found) {
        if let Some(guest) = request.extensions().get::<pipeyard_listen::Guest>() {
            guest.known();
        }
        return next.run(request).await;
    }
    let message = "send `Authorization: Bearer <token>` with the token that was made at the \
                   first start"
        .to_owned();
    let body = ControlError { code: "unauthorized".to_owned(), message };
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}
