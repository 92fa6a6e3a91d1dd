//! Messages that must leave the server: commit statuses, notifications.
//!
//! A message is stored in the transaction of the change that it tells of. It leaves at least once:
//! a crash between the sending and its record sends it again, so each carries an id by which a
//! receiver can tell a repeat. Messages of one key leave in the order of their changes; another
//! key doesn't wait for them. Tries are bounded; what was given up is kept and shown.

use async_trait::async_trait;
use pipeyard_model::{DeploymentId, OutboxId, RepoId, RunId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::StoreResult;

/// How a commit stands, in the words of the forges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitState {
    /// Not over.
    Pending,
    /// Good.
    Success,
    /// The user's own commands failed.
    Failure,
    /// Cancelled, or Pipeyard failed.
    Error,
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Notice {
    /// A run's state, on its commit at the forge.
    CommitStatus {
        /// The repository.
        repo: RepoId,
        /// The run.
        run: RunId,
        /// Full SHA.
        commit: String,
        /// The pipeline's name; statuses of different pipelines stand beside each other.
        pipeline: String,
        /// How it stands.
        state: CommitState,
        /// One sentence, at most 140 characters.
        description: String,
    },
    /// A deployment's state, on its commit at the forge.
    DeploymentStatus {
        /// The repository.
        repo: RepoId,
        /// The deployment.
        deployment: DeploymentId,
        /// Full SHA.
        commit: String,
        /// `production/web`; statuses of different places stand beside each other.
        place: String,
        /// How it stands.
        state: CommitState,
        /// One sentence, at most 140 characters.
        description: String,
    },
    /// Something that a person should hear of, to the configured address.
    Notification {
        /// `run.failed`, `deployment.rolled_back`, `incident.opened`, ...
        event: String,
        /// What happened, as the receiver gets it.
        data: serde_json::Value,
    },
}

/// A message that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id, the same at every try.
    pub id: OutboxId,
    /// Messages of one key leave in order.
    pub key: String,
    /// What is to be told.
    pub notice: Notice,
    /// When the change happened.
    pub created_at: Timestamp,
    /// How often sending it failed.
    pub tries: u32,
}

/// How many messages there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxCounts {
    /// To be sent.
    pub waiting: u64,
    /// Given up after the last try.
    pub dead: u64,
}

/// The outbox. Messages are put in by the verbs that make the changes.
#[async_trait]
pub trait Outbox {
    /// Messages that are due, oldest first, at most one for each key.
    async fn due_messages(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<Message>>;
    /// When the next message is due; `None` if there is none.
    async fn next_message_at(&self) -> StoreResult<Option<Timestamp>>;
    /// It was sent. Idempotent.
    async fn message_sent(&self, id: OutboxId, now: Timestamp) -> StoreResult<()>;
    /// Sending failed; it is tried again at `next`, or given up.
    async fn message_failed(
        &self,
        id: OutboxId,
        problem: &str,
        next: Option<Timestamp>,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// How many there are.
    async fn outbox_counts(&self) -> StoreResult<OutboxCounts>;
    /// Removes messages that were sent or given up before `before`.
    async fn trim_outbox(&self, before: Timestamp) -> StoreResult<u64>;
}
