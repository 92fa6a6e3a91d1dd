//! From an environment's `provider` to somebody who deploys.
//!
//! Credentials lie in files that the configuration names, never in the database; a file is read at
//! each use, so a new key works without a restart.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use pipeyard_api::deploys::ProviderSpec;
use pipeyard_deploy::{
    codedeploy::{CodeDeploy, Keys},
    control::FleetControl,
    provider::{Provider, ProviderError, TrafficControl},
};
use serde::Deserialize;

/// Who carries deployments of an environment out.
#[derive(Debug, Clone)]
pub struct Reach {
    /// CodeDeploy.
    pub provider: Arc<dyn Provider>,
    /// Weights of our own; none on AWS.
    pub traffic: Option<Arc<dyn TrafficControl>>,
}

/// Finds who deploys.
#[async_trait]
pub trait Providers: Send + Sync + fmt::Debug {
    /// Who deploys for an environment with this `provider`.
    async fn reach(&self, spec: &ProviderSpec) -> Result<Reach, ProviderError>;
}

/// Providers by the server's configuration.
#[derive(Debug, Default)]
pub struct ConfiguredProviders {
    files: BTreeMap<String, PathBuf>,
    /// By endpoint, region and what the file said.
    made: Mutex<HashMap<String, Reach>>,
}

#[derive(Deserialize)]
struct CredentialsFile {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    /// The fleet's bearer token.
    token: Option<String>,
}

impl ConfiguredProviders {
    /// Reads credentials from these files, by name.
    #[must_use]
    pub fn new(files: BTreeMap<String, PathBuf>) -> Self {
        Self { files, made: Mutex::default() }
    }

    async fn credentials(&self, name: &str) -> Result<(String, CredentialsFile), ProviderError> {
        let refused =
            |code: &str, message: String| ProviderError::Refused { code: code.to_owned(), message };
        let file = self.files.get(name).ok_or_else(|| {
            refused(
                "no_credentials",
                format!("the server's configuration has no credentials named {name:?}; start it with --credentials {name}=FILE"),
            )
        })?;
        // The fleet makes the file at its first start, which may be after ours.
        let text = match pipeyard_private::secret(file) {
            Ok(text) => text,
            Err(error @ pipeyard_private::NotPrivate::Io { .. }) => {
                return Err(ProviderError::Unreachable(format!("failed to read {error}")));
            }
            Err(error) => return Err(refused("bad_credentials", error.to_string())),
        };
        let read = serde_json::from_str(&text).map_err(|e| {
            refused("bad_credentials", format!("{} isn't credentials: {e}", file.display()))
        })?;
        Ok((text, read))
    }
}

#[async_trait]
impl Providers for ConfiguredProviders {
    async fn reach(&self, spec: &ProviderSpec) -> Result<Reach, ProviderError> {
        let (text, credentials) = match &spec.credentials {
            Some(name) => {
                let (text, read) = self.credentials(name).await?;
                (text, Some(read))
            }
            None => (String::new(), None),
        };
        let endpoint = spec.endpoint.clone().unwrap_or_default();
        let key = format!("{endpoint}\n{}\n{text}", spec.region);
        let known = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(reach) = known {
            return Ok(reach);
        }
        let token = credentials.as_ref().and_then(|c| c.token.clone());
        let keys = credentials.map(|c| Keys {
            access_key_id: c.access_key_id,
            secret_access_key: c.secret_access_key,
            session_token: c.session_token,
        });
        let client = match (&spec.endpoint, keys, token) {
            (None, keys, _) => CodeDeploy::aws(spec.region.clone(), keys).await,
            (Some(endpoint), Some(keys), Some(token)) => {
                let control = FleetControl::new(endpoint, token)?;
                CodeDeploy::fleet(endpoint, spec.region.clone(), keys, control)
            }
            (Some(endpoint), _, _) => {
                return Err(ProviderError::Refused {
                    code: "no_credentials".into(),
                    message: format!("the fleet at {endpoint} needs credentials with a token"),
                });
            }
        };
        let traffic = client.traffic_control().cloned();
        let traffic = traffic.map(|fleet| Arc::new(fleet) as Arc<dyn TrafficControl>);
        let reach = Reach { provider: Arc::new(client), traffic };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= 64 {
            made.clear();
        }
        made.insert(key, reach.clone());
        Ok(reach)
    }
}
