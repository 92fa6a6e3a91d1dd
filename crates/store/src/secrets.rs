//! Secrets, encrypted before they get here. A value can be taken by a job's claim and by nothing
//! else; there is no verb that shows one to a person.

use async_trait::async_trait;
use pipeyard_api::views::SecretView;
use pipeyard_model::{
    Actor, RepoId, SecretName, Timestamp,
    origin::{Event, Origin},
    secret::{BranchLimit, Refusal, Scope},
};

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

/// A secret that somebody sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSecret {
    /// Name, holder and value.
    pub secret: SealedSecret,
    /// The branches that it is limited to; as they were if absent.
    pub branches: Option<BranchLimit>,
    /// The events that it is limited to, every one if empty; as they were if absent.
    pub events: Option<Vec<Event>>,
}

/// An attempt that asks for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskingAttempt {
    /// Its repository.
    pub repo: RepoId,
    /// What started the run.
    pub event: Event,
    /// What is proven of the run's commit.
    pub origin: Origin,
}

/// What an attempt gets: all that it asks for, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Every one of them.
    Given(Vec<SealedSecret>),
    /// Nothing, because of these.
    Refused(Vec<(SecretName, Refusal)>),
}

/// Secrets.
#[async_trait]
pub trait Secrets {
    /// Sets or replaces a secret; answers what it is limited to from now on.
    async fn set_secret(&self, secret: NewSecret, by: Actor, now: Timestamp) -> StoreResult<Scope>;
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
    /// The secrets of these names for an attempt, by the rule of [`pipeyard_model::secret::may_have`];
    /// notes their use and records that each was granted to the attempt `to`. The repository's own goes
    /// before the general one, also where it refuses.
    async fn take_secrets(
        &self,
        asking: AskingAttempt,
        names: &[SecretName],
        to: Actor,
        now: Timestamp,
    ) -> StoreResult<Taken>;
    /// Which of these secrets such an attempt couldn't have, and why. Gives and notes nothing.
    async fn refused_secrets(
        &self,
        repo: RepoId,
        event: Event,
        origin: &Origin,
        names: &[SecretName],
    ) -> StoreResult<Vec<(SecretName, Refusal)>>;
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
