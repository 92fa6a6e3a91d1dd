//! Runners and their registration.

use std::net::IpAddr;

use async_trait::async_trait;
use pipeyard_api::views::RunnerView;
use pipeyard_model::{Actor, RunnerId, Timestamp};

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

/// Runners.
#[async_trait]
pub trait Runners {
    /// Stores a registration token by its hash; a known one gets the new end. `by` is absent for a
    /// token that the server was started with.
    async fn add_registration_token(
        &self,
        hash: [u8; 32],
        expires_at: Timestamp,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Registers a runner by a token that is neither unknown nor expired: conflict `bad_token`.
    async fn register_runner(
        &self,
        token_hash: [u8; 32],
        runner: NewRunner,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Who holds this key; also notes that the runner spoke (at most once in 5 seconds).
    async fn runner_by_key(
        &self,
        key_hash: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<Option<RunnerId>>;
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
