//! The server's settings: one struct, unknown keys are errors.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use pipeyard_model::{
    address::{CredentialUrl, may_listen},
    net::Allowed,
};
use serde::{Deserialize, Serialize};

/// The server's settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// UI, API and hooks.
    pub listen: SocketAddr,
    /// Database, logs, blobs, mirrors, key.
    pub data_dir: PathBuf,
    /// Holds the master key; systemd's credential `pipeyard-key` if absent, or else `key` in the data
    /// folder.
    pub key_file: Option<PathBuf>,
    /// How people and forges reach the server; for links. The address of `listen` if absent.
    pub public_url: Option<String>,
    /// The certificate chain, PEM; with `tls_key` the server speaks TLS. Read again when it changes.
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
    /// A proxy that ends TLS stands in front; without it, and without TLS, the server binds to loopback
    /// only.
    pub trusted_proxy: bool,
    /// Base of GitHub's API, for commit statuses.
    pub github_api: String,
    /// Receives a signed message for every failed run, deployment and incident.
    pub notify_url: Option<String>,
    /// Allows repositories at private addresses, where companies have their forges. Link-local addresses
    /// and metadata services are never dialed.
    pub git_private: bool,
    /// Allows repositories on this machine: loopback addresses and folders. If absent, only a server
    /// that listens on loopback, without a proxy in front, allows them. What was added before stays.
    pub git_local: Option<bool>,
    /// The most that is fetched for the commit of a stranger's run, in bytes.
    pub max_stranger_bytes: u64,
    /// Allows outgoing messages to loopback and private addresses.
    pub notify_private: bool,
    /// The largest artifact, in bytes.
    pub max_artifact_bytes: u64,
    /// The longest log of an attempt, in bytes. A job that writes more is ended with the code
    /// `log_limit`; what it wrote until then is kept.
    pub max_log_bytes: u64,
    /// A reader of a stream, or of any answer, that takes nothing for so many seconds loses its
    /// connection. One of a stream comes back and goes on where it stopped.
    pub stalled_reader_seconds: u64,
    /// Credentials of deploy providers: the name that an environment uses, and a JSON file with
    /// `access_key_id`, `secret_access_key` and, for the fleet, `token`. Read when it is needed.
    pub credentials: BTreeMap<String, PathBuf>,
    /// Logs and artifacts are removed so many days after their run has ended; 0 keeps them for ever.
    /// Releases that are deployed, or could be gone back to, stay.
    pub keep_days: u32,
    /// How often the refs of every repository are compared with the last seen, in seconds.
    pub refs_seconds: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8470)),
            data_dir: PathBuf::from("pipeyard-data"),
            key_file: None,
            public_url: None,
            tls_cert: None,
            tls_key: None,
            trusted_proxy: false,
            github_api: "https://api.github.com".into(),
            notify_url: None,
            git_private: true,
            git_local: None,
            max_stranger_bytes: 256 << 20,
            notify_private: false,
            max_artifact_bytes: 1 << 30,
            max_log_bytes: 4 << 30,
            stalled_reader_seconds: 60,
            credentials: BTreeMap::new(),
            keep_days: 90,
            refs_seconds: 60,
        }
    }
}

impl ServerConfig {
    /// Refuses settings that would send credentials over a network in clear text.
    ///
    /// # Errors
    /// When it would listen beyond loopback without TLS and without a proxy that ends it, or when an
    /// address that credentials are sent to isn't one for them.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.tls_cert.is_some() == self.tls_key.is_some(),
            "TLS needs both a certificate and its key: set tls_cert and tls_key, or neither"
        );
        may_listen(self.listen, self.tls_cert.is_some(), self.trusted_proxy)?;
        CredentialUrl::parse(&self.github_api).context("github_api, which gets tokens")?;
        if let Some(url) = &self.public_url {
            CredentialUrl::parse(url).context("public_url, which people sign in at")?;
        }
        if let Some(url) = &self.notify_url
            && !self.notify_private
        {
            let url = CredentialUrl::parse(url).context("notify_url")?;
            anyhow::ensure!(
                url.url().scheme() == "https",
                "notify_url must begin with https://, unless notify_private says that messages go to \
                 a private network"
            );
        }
        Ok(())
    }

    /// Whether browsers reach it by TLS, its own or a proxy's.
    #[must_use]
    pub fn is_reached_by_tls(&self) -> bool {
        self.trusted_proxy || self.tls_cert.is_some() || self.url().starts_with("https://")
    }

    /// Which remotes of repositories may be dialed.
    #[must_use]
    pub fn remotes_allowed(&self) -> Allowed {
        let alone = self.listen.ip().is_loopback() && !self.trusted_proxy;
        Allowed { private: self.git_private, local: self.git_local.unwrap_or(alone) }
    }

    /// How long logs and artifacts are kept; for ever if absent.
    #[must_use]
    pub fn keep(&self) -> Option<Duration> {
        (self.keep_days > 0).then(|| Duration::from_secs(u64::from(self.keep_days) * 24 * 3600))
    }

    /// How long a reader may take nothing.
    #[must_use]
    pub fn stalled_reader(&self) -> Duration {
        Duration::from_secs(self.stalled_reader_seconds)
    }

    /// The address for links, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        let url = self.public_url.clone().unwrap_or_else(|| format!("{scheme}://{}", self.listen));
        url.trim_end_matches('/').to_owned()
    }
}
