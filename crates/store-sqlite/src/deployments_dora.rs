//! What the metrics rest on, and the commits of a deployment.

use std::time::Duration;

use pipeyard_api::deploys::{CommitView, CommitsView};
use pipeyard_model::{DeploymentId, EnvironmentName, ServiceName, Timestamp};
use pipeyard_store::{
    StoreError, StoreResult,
    deployments::{DeployedCommit, DoraRows},
};
use sqlx::SqliteConnection;

use crate::{column, column::failed, deployments::Row, deployments_incidents};

/// Rows of a kind that one answer may rest on.
const MAX_ROWS: i64 = 100_000;
/// Deployments that were asked for so long before the window may end in it.
const LOOK_BACK: Duration = Duration::from_secs(30 * 24 * 3600);

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

pub(crate) async fn rows(
    c: &mut SqliteConnection,
    environment: Option<&EnvironmentName>,
    service: Option<&ServiceName>,
    since: Timestamp,
) -> StoreResult<DoraRows> {
    let environment = environment.map(EnvironmentName::as_str);
    let service = service.map(ServiceName::as_str);
    let from = (since - LOOK_BACK).0;
    let deployments = sqlx::query_as!(
        Row,
        "SELECT d.id, d.version, d.document, d.look, d.judge, d.commits_state
         FROM deployments AS d JOIN environments AS e ON e.name = d.environment
         WHERE d.created_at >= ? AND (? IS NULL OR d.service = ?)
           AND ((? IS NULL AND e.production = 1) OR d.environment = ?)
         ORDER BY d.id LIMIT ?",
        from,
        service,
        service,
        environment,
        environment,
        MAX_ROWS
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let deployments: Vec<_> = deployments
        .into_iter()
        .map(|row| Ok((row.deployment()?, row.commits_state)))
        .collect::<StoreResult<_>>()?;
    let commits = sqlx::query!(
        "SELECT c.deployment, c.sha, c.title, c.author, c.authored_at, c.committed_at,
             c.first_seen, c.is_merge, c.is_cherry_pick
         FROM deployment_commits AS c
         JOIN deployments AS d ON d.id = c.deployment
         JOIN environments AS e ON e.name = d.environment
         WHERE d.created_at >= ? AND (? IS NULL OR d.service = ?)
           AND ((? IS NULL AND e.production = 1) OR d.environment = ?)
         ORDER BY c.deployment, c.position LIMIT ?",
        from,
        service,
        service,
        environment,
        environment,
        MAX_ROWS
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let commits = commits.into_iter().map(|row| {
        let commit = DeployedCommit {
            sha: row.sha,
            title: row.title,
            author: row.author,
            authored_at: Timestamp(row.authored_at),
            committed_at: Timestamp(row.committed_at),
            first_seen: column::time(row.first_seen),
            is_merge: row.is_merge != 0,
            is_cherry_pick: row.is_cherry_pick != 0,
        };
        (DeploymentId(row.deployment), commit)
    });
    let incidents = sqlx::query_as!(
        deployments_incidents::Row,
        "SELECT i.id, i.environment, i.service, i.title, i.impact_at, i.detected_at, i.restored_at,
             i.deployment, i.link, i.opened_by, i.closed_by
         FROM incidents AS i JOIN environments AS e ON e.name = i.environment
         WHERE i.impact_at >= ? AND (? IS NULL OR i.service = ?)
           AND ((? IS NULL AND e.production = 1) OR i.environment = ?)
         ORDER BY i.id LIMIT ?",
        from,
        service,
        service,
        environment,
        environment,
        MAX_ROWS
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    Ok(DoraRows {
        deployments,
        commits: commits.collect(),
        incidents: incidents
            .into_iter()
            .map(deployments_incidents::Row::view)
            .collect::<StoreResult<_>>()?,
    })
}
