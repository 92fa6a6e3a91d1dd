//! What proves the master key, and secrets of the installation itself. All of it is sealed before it
//! gets here.

use async_trait::async_trait;
use pipeyard_model::{Actor, RepoId, SecretName, Timestamp};

use crate::StoreResult;

/// What a sealed value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sample {
    /// A job's secret, of one repository or of all.
    Secret {
        /// Whose.
        repo: Option<RepoId>,
        /// Its name.
        name: SecretName,
    },
    /// The token for a repository's forge.
    ForgeToken(RepoId),
    /// The secret of a repository's webhook.
    HookSecret(RepoId),
}

/// A secret of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSecret {
    /// The encrypted value.
    pub sealed: Vec<u8>,
    /// When it was set.
    pub set_at: Timestamp,
}

/// What proves the master key, and secrets of the installation itself.
#[async_trait]
pub trait Keys {
    /// The check value, if one was kept.
    async fn key_check(&self) -> StoreResult<Option<Vec<u8>>>;
    /// Keeps a check value in place of the one before.
    async fn set_key_check(&self, sealed: Vec<u8>) -> StoreResult<()>;
    /// Some of what is sealed, of every kind; none if nothing is.
    async fn sealed_samples(&self) -> StoreResult<Vec<(Sample, Vec<u8>)>>;
    /// A secret of the installation by its name.
    async fn own_secret(&self, name: &str) -> StoreResult<Option<OwnSecret>>;
    /// Sets it, in place of the one before.
    async fn set_own_secret(
        &self,
        name: &'static str,
        sealed: Vec<u8>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()>;
}
