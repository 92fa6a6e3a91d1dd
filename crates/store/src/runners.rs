//! Runners and their registration.

use std::net::IpAddr;

use async_trait::async_trait;
use pipeyard_api::views::RunnerView;
use pipeyard_model::{
    Actor, RunnerId, Timestamp,
    runner::{Grant, Holder},
};

use crate::StoreResult;

/// A runner that just registered.
#[derive(Debug, Clone)]
pub struct NewRunner {
    /// Its id.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Its version.
    pub version: String,
    /// SHA-256 of its key.
    pub key_hash: [u8; 32],
}

/// A token that registers one runner.
#[derive(Debug, Clone)]
pub struct NewEnrolment {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// It is refused after this.
    pub expires_at: Timestamp,
    /// What the runner gets.
    pub grant: Grant,
}

/// A process that says it is a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process<'p> {
    /// The nonce that it made up at its start; empty for one that says none.
    pub nonce: &'p str,
    /// The one before it, which it has proven to be dead.
    pub previous: Option<&'p str>,
}

/// What a runner's key is good for at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The key is unknown, or its runner was removed.
    Unknown,
    /// This process speaks for the runner.
    Speaks(RunnerId),
    /// Another one does.
    Taken(RunnerId, Holder),
}

/// Runners.
#[async_trait]
pub trait Runners {
    /// Stores a token by its hash. One that is known and unused gets the new end; one that was used
    /// stays used, and nothing is recorded.
    async fn add_enrolment(&self, new: NewEnrolment, by: Actor, now: Timestamp) -> StoreResult<()>;
    /// Registers a runner by a token that is neither unknown nor used nor expired: conflict
    /// `bad_token`. Labels that the token doesn't give: conflict `bad_label`. A repeat with the same
    /// token and key answers the first runner.
    async fn register_runner(
        &self,
        token_hash: [u8; 32],
        runner: NewRunner,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> StoreResult<RunnerId>;
    /// Who holds this key, and whether this process speaks for it; also notes that it spoke (at most
    /// once in 5 seconds).
    async fn runner_by_key(
        &self,
        key_hash: [u8; 32],
        process: Process<'_>,
        now: Timestamp,
    ) -> StoreResult<Standing>;
    /// The process that speaks for the runner ends; the next one needs not wait.
    async fn runner_leaves(&self, id: RunnerId, process: &str) -> StoreResult<()>;
    /// Notes why a runner can run nothing now, or that it can again. A repeat changes nothing.
    async fn note_trouble(
        &self,
        id: RunnerId,
        trouble: Option<String>,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// All that aren't removed, by name.
    async fn runners(&self, now: Timestamp) -> StoreResult<Vec<RunnerView>>;
    /// Its key is worth nothing from now on; its attempts end as lost at once.
    async fn remove_runner(&self, id: RunnerId, by: Actor, now: Timestamp) -> StoreResult<()>;
}
