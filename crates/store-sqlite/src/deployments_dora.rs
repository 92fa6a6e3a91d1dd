//! The commits of a deployment, and the metrics: what each change contributes ([`keep`]), the sums
//! ([`sums`]), the facts behind them ([`facts`]), and their check ([`check`]).

mod check;
mod facts;
pub(crate) mod keep;
mod sums;

use async_trait::async_trait;
use pipeyard_api::deploys::{CommitView, CommitsView};
use pipeyard_dora::Sums;
use pipeyard_model::{DeploymentId, EnvironmentName, Timestamp};
use pipeyard_store::{
    StoreError, StoreResult,
    dora::{CheckFrom, Checked, Dora, DoraFacts, Whose},
};
use sqlx::SqliteConnection;

use crate::{SqliteStore, column::failed};

pub(crate) async fn commits(
    c: &mut SqliteConnection,
    id: DeploymentId,
) -> StoreResult<CommitsView> {
    let state = sqlx::query_scalar!("SELECT commits_state FROM deployments WHERE id = ?", id.0)
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?
        .ok_or_else(|| StoreError::not_found(format!("deployment {id}")))?;
    let count =
        sqlx::query_scalar!("SELECT COUNT(*) FROM deployment_commits WHERE deployment = ?", id.0)
            .fetch_one(&mut *c)
            .await
            .map_err(failed)?;
    let rows = sqlx::query!(
        "SELECT sha, title, author, authored_at, first_seen FROM deployment_commits
         WHERE deployment = ? ORDER BY position LIMIT 100",
        id.0
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let items = rows.into_iter().map(|row| CommitView {
        sha: row.sha,
        title: row.title,
        author: row.author,
        since: Timestamp(row.first_seen.map_or(row.authored_at, |seen| seen.min(row.authored_at))),
    });
    Ok(CommitsView { state, count: count.unsigned_abs(), items: items.collect() })
}

/// The environments that somebody asks about.
async fn environments(c: &mut SqliteConnection, whose: &Whose) -> StoreResult<Vec<String>> {
    let only = whose.environment.as_ref().map(EnvironmentName::as_str);
    sqlx::query_scalar!(
        "SELECT name FROM environments WHERE (?1 IS NULL AND production = 1) OR name = ?1",
        only
    )
    .fetch_all(c)
    .await
    .map_err(failed)
}

#[async_trait]
impl Dora for SqliteStore {
    async fn dora_sums(
        &self,
        whose: &Whose,
        before: Timestamp,
        edges: &[Timestamp],
    ) -> StoreResult<Sums> {
        let mut tx = self.snapshot().await?;
        sums::read(&mut tx, whose, before, edges).await
    }

    async fn dora_facts(
        &self,
        whose: &Whose,
        from: Timestamp,
        to: Timestamp,
        limit: u32,
    ) -> StoreResult<DoraFacts> {
        let mut tx = self.snapshot().await?;
        facts::newest(&mut tx, whose, from, to, limit).await
    }

    async fn check_dora(&self, from: CheckFrom, limit: u32) -> StoreResult<Checked> {
        self.writer.write_bulk(move |c| Box::pin(check::piece(c, from, limit))).await
    }
}
