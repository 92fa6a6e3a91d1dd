//! Kept outputs of jobs: rows only, the bytes lie in the blob store under their SHA-256.

use async_trait::async_trait;
use pipeyard_api::views::ArtifactView;
use pipeyard_model::{ArtifactId, AttemptId, JobId, RunId, RunnerId, Timestamp};

use crate::StoreResult;

/// An output whose bytes are durable in the blob store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewArtifact {
    /// Its id.
    pub id: ArtifactId,
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// Path in the workspace, relative, with single slashes.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of its bytes, in hex.
    pub sha256: String,
}

/// Kept outputs of jobs.
#[async_trait]
pub trait Artifacts {
    /// Records an output of the job's present attempt; another epoch is refused as `stale_epoch`.
    /// The same path again replaces the row, so that a repeated upload is harmless. Answers the id
    /// that the artifact has.
    async fn add_artifact(
        &self,
        runner: RunnerId,
        artifact: NewArtifact,
        now: Timestamp,
    ) -> StoreResult<ArtifactId>;
    /// Outputs of a run: of each job those of its present attempt, by job and path.
    async fn artifacts(&self, run: RunId) -> StoreResult<Vec<ArtifactView>>;
    /// One output.
    async fn artifact(&self, id: ArtifactId) -> StoreResult<Option<ArtifactView>>;
    /// The output of a job's present attempt with this path.
    async fn artifact_of_job(&self, job: JobId, path: &str) -> StoreResult<Option<ArtifactView>>;
}
