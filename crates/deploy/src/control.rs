//! The embedded fleet's own resources over HTTP: services, traffic, bundles. Every request has a
//! time limit; a repeat is always safe.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use pipeyard_model::{
    address::CredentialUrl,
    fleet::{ControlError, ServiceDefinition, ServiceHealth, SetWeight, TrafficReport},
};
use reqwest::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::{
    provider::{BUCKET, Bundle, GroupName, ProviderError, RELEASE_DAMAGED, TrafficControl},
    said,
};

/// A short request's time limit.
const SHORT: Duration = Duration::from_secs(10);
/// An upload's time limit.
const UPLOAD: Duration = Duration::from_secs(600);

/// The fleet's own resources.
#[derive(Clone)]
pub struct FleetControl {
    client: Client,
    base: String,
    token: String,
}

impl std::fmt::Debug for FleetControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FleetControl({})", self.base)
    }
}

impl FleetControl {
    /// The fleet at this address; `token` is its bearer token.
    ///
    /// # Errors
    /// When no token may be sent there, or the HTTP client can't be made.
    pub fn new(base: &str, token: String) -> Result<Self, ProviderError> {
        let base = CredentialUrl::parse(base).map_err(|error| ProviderError::Refused {
            code: "bad_endpoint".into(),
            message: format!("the provider's endpoint: {error}"),
        })?;
        let client = pipeyard_trust::client()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|e| ProviderError::Unreachable(e.to_string()))?;
        Ok(Self { client, base: base.base(), token })
    }

    /// Stores what a group runs.
    ///
    /// # Errors
    /// When the fleet can't be reached or refuses it.
    pub async fn put_service(
        &self,
        group: &GroupName,
        definition: &ServiceDefinition,
    ) -> Result<(), ProviderError> {
        let url = format!("{}/services/{}/{}", self.base, group.application, group.group);
        let request = self.client.put(url).json(definition).timeout(SHORT);
        self.send(request).await.map(|_| ())
    }

    /// Stores a bundle.
    ///
    /// # Errors
    /// When the file can't be read, or the fleet can't be reached or refuses it.
    pub async fn put_bundle(&self, bundle: &Bundle, file: &Path) -> Result<(), ProviderError> {
        let problem = |e: std::io::Error| ProviderError::Refused {
            code: "bundle_unreadable".into(),
            message: format!("failed to read bundle {}: {e}", bundle.sha256),
        };
        let file = tokio::fs::File::open(file).await.map_err(problem)?;
        let size = file.metadata().await.map_err(problem)?.len();
        let url = format!("{}/bundles/{BUCKET}/{}", self.base, bundle.key());
        let request = self
            .client
            .put(url)
            .header("content-length", size)
            .header("x-amz-content-sha256", &bundle.sha256)
            .body(reqwest::Body::from(file))
            .timeout(UPLOAD);
        let damaged =
            |message: String| ProviderError::Refused { code: RELEASE_DAMAGED.into(), message };
        let answer = self.send(request).await.map_err(|error| match error {
            ProviderError::Refused { code, message } if code == "digest_mismatch" => {
                damaged(message)
            }
            error => error,
        })?;
        let etag = answer.headers().get("etag").and_then(|v| v.to_str().ok()).unwrap_or("");
        if etag.trim_matches('"') == bundle.sha256 {
            return Ok(());
        }
        let text = format!("bundle {} arrived with the digest {etag:?}", bundle.sha256);
        Err(damaged(text))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ProviderError> {
        let sent = request.bearer_auth(&self.token).send().await;
        let answer = sent.map_err(|e| ProviderError::Unreachable(said(&e)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.unwrap_or_default();
        let error: ControlError = serde_json::from_slice(&body).unwrap_or_else(|_| ControlError {
            code: status.as_u16().to_string(),
            message: String::from_utf8_lossy(&body).chars().take(200).collect(),
        });
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(ProviderError::Unreachable(error.to_string()));
        }
        Err(ProviderError::Refused { code: error.code, message: error.message })
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ProviderError> {
        let answer = self.send(request.timeout(SHORT)).await?;
        answer.json().await.map_err(|e| ProviderError::Unreachable(said(&e)))
    }

    fn traffic_url(&self, group: &GroupName) -> String {
        format!("{}/traffic/{}/{}", self.base, group.application, group.group)
    }
}

#[async_trait]
impl TrafficControl for FleetControl {
    async fn set_weight(
        &self,
        group: &GroupName,
        deployment: &str,
        weight: u8,
        epoch: u64,
    ) -> Result<TrafficReport, ProviderError> {
        let body = SetWeight { deployment: deployment.to_owned(), weight, epoch };
        self.read(self.client.post(self.traffic_url(group)).json(&body)).await
    }

    async fn traffic(&self, group: &GroupName) -> Result<TrafficReport, ProviderError> {
        self.read(self.client.get(self.traffic_url(group))).await
    }

    async fn health(&self, group: &GroupName) -> Result<ServiceHealth, ProviderError> {
        let url = format!("{}/health/{}/{}", self.base, group.application, group.group);
        self.read(self.client.get(url)).await
    }
}
