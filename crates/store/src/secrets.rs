//! Secrets, encrypted before they get here. A value can be taken by a job's claim and by nothing
//! else; there is no verb that shows one to a person.

use async_trait::async_trait;
use pipeyard_api::views::SecretView;
use pipeyard_model::{Actor, RepoId, SecretName, Timestamp};

use crate::StoreResult;

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Its name.
    pub name: SecretName,
    /// The repository that may use it; `None` for every repository.
    pub repo: Option<RepoId>,
    /// The encrypted value.
    pub sealed: Vec<u8>,
}

/// Secrets.
#[async_trait]
pub trait Secrets {
    /// Sets or replaces a secret.
    async fn set_secret(&self, secret: SealedSecret, by: Actor, now: Timestamp) -> StoreResult<()>;
    /// All of them without values, by name and repository.
    async fn secrets(&self) -> StoreResult<Vec<SecretView>>;
    /// Removes a secret. Not found if absent.
    async fn remove_secret(
        &self,
        repo: Option<RepoId>,
        name: &SecretName,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// The secrets of these names for a job of this repository, granted to the attempt `to`, which is
    /// recorded; and notes their use. The
    /// repository's own goes before the general one; a name that is in neither is missing in the
    /// answer.
    async fn take_secrets(
        &self,
        repo: RepoId,
        names: &[SecretName],
        to: Actor,
        now: Timestamp,
    ) -> StoreResult<Vec<SealedSecret>>;
    /// Keeps the encrypted token for a repository's forge; `None` removes it.
    async fn set_forge_token(
        &self,
        repo: RepoId,
        sealed: Option<Vec<u8>>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// The encrypted token for a repository's forge.
    async fn forge_token(&self, repo: RepoId) -> StoreResult<Option<Vec<u8>>>;
}
