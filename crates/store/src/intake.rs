//! Deliveries and run requests: what came in, before anything is decided about it.

use async_trait::async_trait;
use pipeyard_api::views::Event;
use pipeyard_model::{RepoId, Timestamp};

use crate::StoreResult;

/// The event of a delivery that the comparison of refs made up.
pub const COMPARISON: &str = "refs";

/// One webhook delivery, or one comparison of refs that found a push.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// The repository whose hook received it.
    pub repo: RepoId,
    /// The forge's id of the delivery; for plain Git the hook's own, with the ref that it is about.
    /// Unique with the repository.
    pub delivery: String,
    /// The forge's name of the event: `push`, `pull_request`, `ping`, ...
    pub event: String,
    /// The body as it was received, for replay and questions; at most 25 MiB.
    pub body: Vec<u8>,
    /// SHA-256 of the body, where the body itself tells one delivery from another: the same body under
    /// another id is then known.
    pub body_hash: Option<[u8; 32]>,
    /// When.
    pub received_at: Timestamp,
    /// What came of it.
    pub disposition: Disposition,
}

/// What came of a delivery.
#[derive(Debug, Clone)]
pub enum Disposition {
    /// It asks for these runs (one for each ref that a push moved).
    Requests(Vec<NewRunRequest>),
    /// It asks for none; the reason is kept: `ping`, `branch deleted`, ...
    Ignored(String),
}

/// Asks for the runs of one commit; how many pipelines that gives is found out later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRunRequest {
    /// Push, pull request, or a person.
    pub event: Event,
    /// The full ref that moved, `refs/heads/main`; for a pull request the target's.
    pub reference: String,
    /// SHA before, if there was one.
    pub before: Option<String>,
    /// Full SHA to run.
    pub after: String,
    /// The pull request, if it is one.
    pub pull_request: Option<PullRequest>,
    /// The forge's user who did it, as the forge signed it; none where no forge says it.
    pub forge_user: Option<String>,
}

/// What is known of a pull request when it arrives.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PullRequest {
    /// Its number.
    pub number: u64,
    /// The forge's id of the repository that the commits come from; `None` when it was deleted.
    pub head_repo: Option<i64>,
    /// The forge's id of the repository that they should go to.
    pub base_repo: i64,
    /// SHA of the target branch's tip: the pipeline file of a fork comes from here.
    pub base_sha: String,
    /// The branch that the commits come from, without `refs/heads/`.
    #[serde(default)]
    pub head_branch: String,
    /// Who opened it.
    pub author: String,
}

impl PullRequest {
    /// Whether the commits come from another repository, or from one that is gone.
    #[must_use]
    pub fn is_fork(&self) -> bool {
        self.head_repo != Some(self.base_repo)
    }
}

/// Whether a delivery was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Stored, with its run requests, in one transaction.
    New,
    /// Known already; nothing changed.
    Duplicate,
}

/// A stored run request that no run came of yet.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Its number; requests are handled in this order within a repository.
    pub id: i64,
    /// The repository.
    pub repo: RepoId,
    /// What is asked for.
    pub request: NewRunRequest,
    /// Where its ref was last seen before this was told of; empty if it wasn't, absent if that isn't
    /// known.
    pub seen: Option<String>,
    /// When the delivery came in.
    pub received_at: Timestamp,
    /// How often handling it failed for reasons outside of the repository (can't fetch).
    pub tries: u32,
}

/// When a run request is due again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutOff {
    /// Which.
    pub id: i64,
    /// When.
    pub next: Timestamp,
    /// Whether it counts as a try.
    pub tried: bool,
}

/// What comes in.
#[async_trait]
pub trait Intake {
    /// Stores the delivery, its run requests and the refs that they saw, in one transaction.
    /// A delivery that is known, by its id or by its body, changes nothing. A run request that repeats
    /// (repo, event, ref, before, after, and a pull request's number and head repository) of the last 10 minutes asks for nothing, but its delivery is stored and its ref
    /// counts as seen. Where one of the two came from a [`COMPARISON`], `before` doesn't matter: a
    /// comparison doesn't see the steps in between. A push that takes a branch to a commit which it
    /// has left since, back by force and forward again, is no repetition.
    async fn accept_delivery(&self, delivery: NewDelivery) -> StoreResult<Accepted>;
    /// The oldest due run request of each repository that has one, oldest first. Requests that are
    /// due later hold back nobody.
    async fn due_run_requests(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<RunRequest>>;
    /// The due run requests of one repository with numbers above `after`, oldest first.
    async fn due_run_requests_of(
        &self,
        repo: RepoId,
        now: Timestamp,
        after: i64,
        limit: u32,
    ) -> StoreResult<Vec<RunRequest>>;
    /// Nothing came of these for now; they are due again later. One that was answered meanwhile
    /// stays answered.
    async fn postpone_run_requests(&self, requests: Vec<PutOff>, problem: &str) -> StoreResult<()>;
    /// Nothing came of it (no pipeline is triggered); the reason is kept.
    async fn close_run_request(&self, id: i64, reason: &str, now: Timestamp) -> StoreResult<()>;
    /// Records these refs as seen, without asking for runs: at first sight. Others stay as they
    /// were. Names and SHAs are not interpreted.
    async fn record_seen_refs(&self, repo: RepoId, refs: &[(String, String)]) -> StoreResult<()>;
    /// Forgets the bodies of some deliveries from before `before`; their ids stay, so that a late
    /// repeat is still known. Answers how many; call again until none is left.
    async fn trim_deliveries(&self, before: Timestamp) -> StoreResult<u64>;
}
