//! Bearer tokens: a secret type that isn't printed, and the check in front of a router.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

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

use crate::files::{create_once, set_aside};

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
    /// When the file can't be read or made. One that holds no token is set aside.
    pub fn shared(path: &Path) -> io::Result<Self> {
        match Self::stored(path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                set_aside(path, &error.to_string());
                Self::stored(path)
            }
            stored => stored,
        }
    }

    fn stored(path: &Path) -> io::Result<Self> {
        let bytes = create_once(path, || Ok(Self::mint().0.into_bytes()))?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        // What can't be sent in a header is no token, whoever made it.
        if text.is_empty() || text.len() > 1_024 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let message = format!("{} holds no token", path.display());
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

/// A token that two processes read from one file. It is read again when it doesn't fit any more: the
/// other may have found the file damaged or gone, and have made another.
#[derive(Debug, Clone)]
pub(crate) struct SharedToken {
    path: Arc<PathBuf>,
    current: Arc<RwLock<Token>>,
}

impl SharedToken {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let current = Arc::new(RwLock::new(Token::shared(path)?));
        Ok(Self { path: Arc::new(path.to_owned()), current })
    }

    pub(crate) fn current(&self) -> Token {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again; whether it says something else now.
    pub(crate) fn read_again(&self) -> bool {
        let Ok(text) = std::fs::read_to_string(&*self.path) else { return false };
        let new = Token(text.trim().to_owned());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let differs = !new.0.is_empty() && *current != new;
        if differs {
            *current = new;
        }
        differs
    }

    fn is_in(&self, headers: &HeaderMap) -> bool {
        self.current().is_in(headers) || (self.read_again() && self.current().is_in(headers))
    }
}

/// Lets requests pass that carry the token.
pub(crate) async fn require_shared(
    State(token): State<SharedToken>,
    request: Request,
    next: Next,
) -> Response {
    if token.is_in(request.headers()) {
        if let Some(guest) = request.extensions().get::<pipeyard_listen::Guest>() {
            guest.known();
        }
        return next.run(request).await;
    }
    unauthorized()
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
    unauthorized()
}

fn unauthorized() -> Response {
    let message = "send `Authorization: Bearer <token>` with the token that was made at the \
                   first start"
        .to_owned();
    let body = ControlError { code: "unauthorized".to_owned(), message };
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}
