//! Kept outputs of jobs: rows only.

use async_trait::async_trait;
use pipeyard_api::views::ArtifactView;
use pipeyard_model::{ArtifactId, JobId, RunId, RunnerId, Timestamp};
use pipeyard_store::{
    StoreError, StoreResult,
    artifacts::{Artifacts, NewArtifact},
};

use crate::{
    SqliteStore,
    column::{failed, number, parse, time, to_i64},
};

struct Row {
    id: String,
    run: i64,
    name: String,
    path: String,
    size: i64,
    sha256: String,
    created_at: i64,
    removed_at: Option<i64>,
}

impl Row {
    fn view(self) -> StoreResult<ArtifactView> {
        Ok(ArtifactView {
            id: parse("artifacts", "id", &self.id, &self.id)?,
            run: RunId(self.run),
            job: parse("jobs", "name", &self.id, &self.name)?,
            path: self.path,
            size: number("artifacts", "size", &self.id, self.size)?,
            sha256: self.sha256,
            created_at: Timestamp(self.created_at),
            removed_at: time(self.removed_at),
        })
    }
}

#[async_trait]
impl Artifacts for SqliteStore {
    async fn add_artifact(
        &self,
        runner: RunnerId,
        artifact: NewArtifact,
        now: Timestamp,
    ) -> StoreResult<ArtifactId> {
        self.write(move |tx| {
            Box::pin(async move {
                let (job, epoch) = (artifact.attempt.job.to_string(), artifact.attempt.epoch.0);
                let (id, runner) = (artifact.id.to_string(), runner.to_string());
                let size = to_i64(artifact.size);
                // The attempt must be the job's present one and this runner's.
                let row = sqlx::query!(
                    "INSERT INTO artifacts (id, job, epoch, path, size, sha256, created_at)
                     SELECT ?, id, epoch, ?, ?, ?, ? FROM jobs
                     WHERE id = ? AND epoch = ? AND runner = ? AND state = 'running'
                     ON CONFLICT (job, epoch, path) DO UPDATE
                     SET size = excluded.size, sha256 = excluded.sha256
                     RETURNING id",
                    id,
                    artifact.path,
                    size,
                    artifact.sha256,
                    now.0,
                    job,
                    epoch,
                    runner
                )
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed)?
                .ok_or_else(|| {
                    StoreError::conflict(
                        "stale_epoch",
                        format!("attempt {} is over or another runner's", artifact.attempt),
                    )
                })?;
                parse("artifacts", "id", &row.id, &row.id)
            })
        })
        .await
    }

    async fn artifacts(&self, run: RunId) -> StoreResult<Vec<ArtifactView>> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT a.id, j.run, j.name, a.path, a.size, a.sha256, a.created_at, a.removed_at
             FROM jobs j JOIN artifacts a ON a.job = j.id AND a.epoch = j.epoch
             WHERE j.run = ? ORDER BY j.position, a.path LIMIT 10000",
            run.0
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter().map(Row::view).collect()
    }

    async fn artifact(&self, id: ArtifactId) -> StoreResult<Option<ArtifactView>> {
        let id = id.to_string();
        let row = sqlx::query_as!(
            Row,
            "SELECT a.id, j.run, j.name, a.path, a.size, a.sha256, a.created_at, a.removed_at
             FROM artifacts a JOIN jobs j ON j.id = a.job WHERE a.id = ?",
            id
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        row.map(Row::view).transpose()
    }

    async fn artifact_of_job(&self, job: JobId, path: &str) -> StoreResult<Option<ArtifactView>> {
        let job = job.to_string();
        let row = sqlx::query_as!(
            Row,
            "SELECT a.id, j.run, j.name, a.path, a.size, a.sha256, a.created_at, a.removed_at
             FROM jobs j JOIN artifacts a ON a.job = j.id AND a.epoch = j.epoch
             WHERE j.id = ? AND a.path = ?",
            job,
            path
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        row.map(Row::view).transpose()
    }
}
