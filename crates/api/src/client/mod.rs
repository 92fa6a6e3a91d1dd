//! The HTTP client over the user API: one request path, typed answers, errors that tell a program
//! what to do next.
//!
//! Reads are tried again while the server can't be reached, a bounded number of times; writes never
//! are, because their outcome is unknown. Streams resume by their last id ([`events`]).

pub mod events;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use pipeyard_model::address::CredentialUrl;
use reqwest::{Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{ApiError, ErrorBody};

/// Tries of a read, and the pause before the second; it doubles.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// How long the server may be away before somebody who follows gives up.
const AWAY: Duration = Duration::from_secs(300);
/// The pause between later tries.
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer that isn't a stream or a file may take.
const ANSWER: Duration = Duration::from_secs(60);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("failed to reach {url}: {cause}")]
    Unreachable {
        /// The server's address.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// The server refused.
    #[error("{}", error.message)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        error: ApiError,
    },
    /// The answer isn't what this version understands.
    #[error("failed to understand the answer of {url}: {cause}")]
    BadAnswer {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The address can't be one.
    #[error("{url:?} isn't the address of a server: {cause}")]
    BadAddress {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// Speaks to one server as one user. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// Makes ring the process's provider of cryptography, once.
pub fn install_crypto() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // An error means that the composition root was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Begins an HTTP client for the server at `base`, `http://127.0.0.1:8470`. It believes the authorities
/// of `--ca-file` and follows no redirect. What is on this machine is asked directly, whatever proxy
/// the environment names: it would ask its own loopback.
///
/// # Errors
/// When no credential may be sent to `base`: see [`CredentialUrl`].
pub fn builder(base: &str) -> Result<reqwest::ClientBuilder, ClientError> {
    install_crypto();
    let url = CredentialUrl::parse(base)
        .map_err(|cause| ClientError::BadAddress { url: shown(base), cause: cause.to_string() })?;
    let builder = pipeyard_trust::client().connect_timeout(CONNECT);
    Ok(if url.is_loopback() { builder.no_proxy() } else { builder })
}

/// An address without what may be a password in it.
fn shown(base: &str) -> String {
    base.rsplit('@').next().unwrap_or_default().chars().take(200).collect()
}

impl Client {
    /// A client for the server at `base`, `http://127.0.0.1:8470`.
    ///
    /// # Errors
    /// When `base` isn't an http or https address, or would send a token in clear text beyond
    /// loopback.
    pub fn new(base: &str, token: Option<String>) -> Result<Self, ClientError> {
        let bad = |e: reqwest::Error| ClientError::BadAddress {
            url: base.to_owned(),
            cause: e.to_string(),
        };
        let http = builder(base)?
            .user_agent(concat!("pipectl/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(bad)?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// The server's address, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Reads; tried again while the server can't be reached.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            let request = self.request(Method::GET, path).timeout(ANSWER);
            match self.answer(path, request).await {
                Err(ClientError::Unreachable { .. } | ClientError::Refused { status: 503, .. }) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
        self.answer(path, self.request(Method::GET, path).timeout(ANSWER)).await
    }

    /// Reads, over a restart of the server: for whoever follows something and wants to go on.
    ///
    /// # Errors
    /// When the server refuses, or is away for more than five minutes.
    pub async fn get_patiently<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let since = Instant::now();
        loop {
            match self.get(path).await {
                Err(ClientError::Unreachable { .. } | ClientError::Refused { status: 503, .. })
                    if since.elapsed() < AWAY =>
                {
                    tokio::time::sleep(LAST_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Sends `body` as JSON; never repeated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.answer(path, self.request(Method::POST, path).json(body).timeout(ANSWER)).await
    }

    /// Replaces what is at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.answer(path, self.request(Method::PUT, path).json(body).timeout(ANSWER)).await
    }

    /// Changes what is at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn patch<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.answer(path, self.request(Method::PATCH, path).json(body).timeout(ANSWER)).await
    }

    /// Removes what is at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(path, self.request(Method::DELETE, path).timeout(ANSWER)).await.map(drop)
    }

    /// A body to read piece by piece: a file, a stream. Has no deadline as a whole.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn open(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<reqwest::Response, ClientError> {
        let mut request = self.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.send(path, request).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send(path, request).await?;
        let bytes = response.bytes().await.map_err(|e| self.unreachable(&e))?;
        // A request without an answer's body, such as a logout, is read as null.
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes).map_err(|e| ClientError::BadAnswer {
            url: format!("{}{path}", self.base),
            cause: e.to_string(),
        })
    }

    async fn send(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ClientError> {
        let response = request
            .header(header::ACCEPT, "application/json, text/event-stream, */*")
            .send()
            .await
            .map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status.is_redirection() {
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.map(shown).unwrap_or_default();
            return Err(ClientError::BadAddress {
                url: self.base.clone(),
                cause: format!(
                    "it leads on to {to:?}; give the address where the server itself answers"
                ),
            });
        }
        let bytes = response.bytes().await.unwrap_or_default();
        let error = serde_json::from_slice::<ErrorBody>(&bytes).map(|body| body.error);
        // The fleet says the same two words without a frame.
        let error =
            error.or_else(|_| serde_json::from_slice::<ApiError>(&bytes)).unwrap_or_else(|_| {
                ApiError {
                    code: format!("http_{}", status.as_u16()),
                    message: match status {
                        StatusCode::UNAUTHORIZED => "you aren't signed in".to_owned(),
                        _ => format!("{}{path} answered {status}", self.base),
                    },
                    hint: None,
                }
            });
        Err(ClientError::Refused { status: status.as_u16(), error })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        ClientError::Unreachable { url: self.base.clone(), cause: cause.to_string() }
    }
}

/// Posts a body with its signature, as `pipectl hook` does; answers what the server says for people.
///
/// # Errors
/// In words: the address, the network, or the server's refusal.
pub async fn post_signed(url: &str, signature: String, body: Vec<u8>) -> Result<(), String> {
    let base = url.split("/hooks/").next().unwrap_or(url);
    let client = Client::new(base, None).map_err(|e| e.to_string())?;
    let path = url.strip_prefix(client.base()).unwrap_or(url);
    let request = client
        .request(Method::POST, path)
        .header("x-pipeyard-signature-256", signature)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .timeout(CONNECT);
    client.send(path, request).await.map(drop).map_err(|e| e.to_string())
}

/// Escapes one part of a path or a query value.
#[must_use]
pub fn escape(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_crosses_a_network_in_clear_text() {
        assert!(Client::new("http://127.0.0.1:8470", None).is_ok());
        assert!(Client::new("https://ci.example.com", None).is_ok());
        for loopback in ["http://127.1.2.3:1", "http://[::1]:8470", "http://LOCALHOST"] {
            assert!(Client::new(loopback, None).is_ok(), "{loopback}");
        }
        for bad in [
            "http://ci.example.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "ftp://x",
            "ci.example.com",
            "",
        ] {
            assert!(matches!(Client::new(bad, None), Err(ClientError::BadAddress { .. })), "{bad}");
        }
    }

    #[test]
    fn a_name_with_a_slash_is_one_part_of_a_path() {
        assert_eq!(escape("team/shop 한"), "team%2Fshop%20%ED%95%9C");
    }
}
