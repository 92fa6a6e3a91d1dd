//! Repositories and what was last seen of their refs.

use async_trait::async_trait;
use pipeyard_model::{Actor, HookId, RepoId, RepoName, Timestamp};

use crate::StoreResult;

/// Which forge a repository lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forge {
    /// Plain Git, told by `pipectl hook` and by the comparison of refs.
    Git,
    /// GitHub.
    Github,
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Repo {
    /// Its id.
    pub id: RepoId,
    /// Its name, unique.
    pub name: RepoName,
    /// Its forge.
    pub forge: Forge,
    /// Where it is fetched from; holds no credentials.
    pub url: String,
    /// User and password for fetching it, sealed by the server's key; for private repositories.
    pub credentials: Option<Vec<u8>>,
    /// Its default branch.
    pub default_branch: String,
    /// The address of its webhook.
    pub hook: HookId,
    /// The webhook's secret, sealed by the server's key.
    pub hook_secret: Vec<u8>,
    /// The forge's own id of the repository, once a delivery told it.
    pub forge_id: Option<i64>,
    /// When it was added.
    pub created_at: Timestamp,
    /// The last problem with it: (code, message).
    pub problem: Option<(String, String)>,
}

/// Repositories.
#[async_trait]
pub trait Repos {
    /// Adds a repository. Conflict `name_taken`.
    async fn add_repo(&self, repo: Repo, by: Actor) -> StoreResult<()>;
    /// All, by name.
    async fn repos(&self) -> StoreResult<Vec<Repo>>;
    /// By id.
    async fn repo(&self, id: RepoId) -> StoreResult<Option<Repo>>;
    /// By name.
    async fn repo_by_name(&self, name: &RepoName) -> StoreResult<Option<Repo>>;
    /// By the address of its webhook.
    async fn repo_by_hook(&self, hook: HookId) -> StoreResult<Option<Repo>>;
    /// Removes it from lists and stops its hooks; runs and numbers stay. Not found if absent.
    async fn remove_repo(&self, id: RepoId, by: Actor, now: Timestamp) -> StoreResult<()>;
    /// Records or clears its last problem.
    async fn set_repo_problem(
        &self,
        id: RepoId,
        problem: Option<(String, String)>,
    ) -> StoreResult<()>;
    /// Records the forge's own id of the repository at its first verified delivery.
    async fn set_repo_forge_id(&self, id: RepoId, forge_id: i64) -> StoreResult<()>;
    /// The refs that were last seen: (full name, SHA).
    async fn seen_refs(&self, id: RepoId) -> StoreResult<Vec<(String, String)>>;
}
