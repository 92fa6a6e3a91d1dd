//! Deployments and incidents as the metrics see them.

use std::collections::HashMap;

use pipeyard_api::deploys::IncidentView;
use pipeyard_dora::{CommitFact, DeploymentFact, Kind};
use pipeyard_model::{ServiceName, Timestamp, deployment::Deployment};
use pipeyard_store::{
    StoreError, StoreResult,
    dora::{DoraFacts, Whose, deployment_fact, failure_link, incident_fact, kind_of},
};
use sqlx::SqliteConnection;

use super::environments;
use crate::{
    column,
    column::failed,
    deployments::Row,
    deployments_incidents::{self, Row as IncidentRow},
};

/// One deployment with its commits.
pub(super) async fn deployment(c: &mut SqliteConnection, id: i64) -> StoreResult<DeploymentFact> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, version, document, look, judge, commits_state FROM deployments WHERE id = ?",
        id
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?
    .ok_or_else(|| StoreError::not_found(format!("deployment {id}")))?;
    let deployment = row.deployment()?;
    let kind = kind(c, &deployment).await?;
    let commits = commits(c, &[id]).await?.remove(&id).unwrap_or_default();
    Ok(deployment_fact(&deployment, kind, &row.commits_state, commits))
}

/// What a deployment is for, by what had been deployed to its place before it ended.
async fn kind(c: &mut SqliteConnection, deployment: &Deployment) -> StoreResult<Kind> {
    let Some(ended) = deployment.times.finished else { return Ok(Kind::Normal) };
    let (environment, service) = (deployment.environment.as_str(), deployment.service.as_str());
    let (id, own) = (deployment.id.0, deployment.release.commit.as_str());
    let served = sqlx::query_scalar!(
        "SELECT commit_sha FROM deployments
         WHERE environment = ?1 AND service = ?2 AND state = 'succeeded'
           AND (finished_at < ?3 OR (finished_at = ?3 AND id < ?4))
         ORDER BY finished_at DESC, id DESC LIMIT 1",
        environment,
        service,
        ended.0,
        id
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    let again = sqlx::query_scalar!(
        "SELECT COUNT(*) FROM deployments
         WHERE environment = ?1 AND service = ?2 AND commit_sha = ?3 AND state = 'succeeded'
           AND (finished_at < ?4 OR (finished_at = ?4 AND id < ?5))",
        environment,
        service,
        own,
        ended.0,
        id
    )
    .fetch_one(c)
    .await
    .map_err(failed)?;
    Ok(kind_of(deployment, served.as_deref(), again > 0))
}

/// The incidents that are laid to a deployment.
pub(super) async fn incidents_of(
    c: &mut SqliteConnection,
    id: i64,
) -> StoreResult<Vec<IncidentView>> {
    linked(c, &[id]).await
}

/// The rollbacks that took a deployment back.
pub(super) async fn repairs_of(
    c: &mut SqliteConnection,
    id: i64,
) -> StoreResult<Vec<DeploymentFact>> {
    let ids = sqlx::query_scalar!(
        r#"SELECT id AS "id!: i64" FROM dora_contributions WHERE repairs = ?"#,
        id
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    with_kinds(c, &ids).await
}

/// The facts behind the newest rows of a window.
pub(super) async fn newest(
    c: &mut SqliteConnection,
    whose: &Whose,
    from: Timestamp,
    to: Timestamp,
    limit: u32,
) -> StoreResult<DoraFacts> {
    let service = whose.service.as_ref().map(ServiceName::as_str);
    let (mut deployments, mut incidents) = (Vec::new(), Vec::new());
    for environment in environments(c, whose).await? {
        // All, those with rows behind the lead time, those that failed: each list its own newest.
        for (leads, fails) in [(false, false), (true, false), (false, true)] {
            let ids = sqlx::query_scalar!(
                r#"SELECT id AS "id!: i64" FROM dora_contributions
                 WHERE environment = ?1 AND (?2 IS NULL OR service = ?2) AND at >= ?3 AND at < ?4
                   AND source = 'deployment' AND (NOT ?5 OR leads = 1) AND (NOT ?6 OR failed = 1)
                 ORDER BY at DESC, id DESC LIMIT ?7"#,
                environment,
                service,
                from.0,
                to.0,
                leads,
                fails,
                limit
            )
            .fetch_all(&mut *c)
            .await
            .map_err(failed)?;
            deployments.extend(ids);
        }
        let rows = sqlx::query_as!(
            IncidentRow,
            "SELECT id, environment, service, title, impact_at, detected_at, restored_at,
                 deployment, link, opened_by, closed_by
             FROM incidents
             WHERE environment = ?1 AND (?2 IS NULL OR service = ?2)
               AND impact_at >= ?3 AND impact_at < ?4
             ORDER BY impact_at DESC, id DESC LIMIT ?5",
            environment,
            service,
            from.0,
            to.0,
            limit
        )
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        for row in rows {
            incidents.push(row.view()?);
        }
    }
    deployments.sort_unstable();
    deployments.dedup();
    let wanted = column::to_json(&deployments)?;
    let repairs = sqlx::query_scalar!(
        r#"SELECT id AS "id!: i64" FROM dora_contributions
         WHERE repairs IN (SELECT value FROM json_each(?))"#,
        wanted
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    // Incidents before the window's, or after it, may be those of its deployments.
    incidents.extend(linked(c, &deployments).await?);
    incidents.sort_unstable_by_key(|incident| incident.id);
    incidents.dedup_by_key(|incident| incident.id);
    deployments.extend(repairs);
    deployments.sort_unstable();
    deployments.dedup();
    let deployments = with_kinds(c, &deployments).await?;
    Ok(DoraFacts {
        links: incidents.iter().filter_map(failure_link).collect(),
        incidents: incidents.iter().map(incident_fact).collect(),
        deployments,
    })
}

/// Deployments with their commits and the kinds that were kept.
async fn with_kinds(c: &mut SqliteConnection, ids: &[i64]) -> StoreResult<Vec<DeploymentFact>> {
    let wanted = column::to_json(ids)?;
    let rows = sqlx::query!(
        r#"SELECT d.id, d.version, d.document, d.commits_state, k.kind AS "kind!: String"
         FROM deployments AS d
         JOIN dora_contributions AS k ON k.source = 'deployment' AND k.id = d.id
         WHERE d.id IN (SELECT value FROM json_each(?)) ORDER BY d.id"#,
        wanted
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let mut commits = commits(c, ids).await?;
    let mut facts = Vec::with_capacity(rows.len());
    for row in rows {
        let deployment: Deployment =
            column::json("deployments", "document", row.id, &row.document)?;
        let kind = match row.kind.as_str() {
            "normal" => Kind::Normal,
            "hotfix" => Kind::Hotfix,
            "rollback" => Kind::Rollback,
            "redeploy" => Kind::Redeploy,
            other => {
                return Err(column::corrupt("dora_contributions", "kind", row.id, other));
            }
        };
        let commits = commits.remove(&row.id).unwrap_or_default();
        facts.push(deployment_fact(&deployment, kind, &row.commits_state, commits));
    }
    Ok(facts)
}

async fn commits(
    c: &mut SqliteConnection,
    ids: &[i64],
) -> StoreResult<HashMap<i64, Vec<CommitFact>>> {
    let wanted = column::to_json(ids)?;
    let rows = sqlx::query!(
        "SELECT deployment, sha, authored_at, committed_at, first_seen, is_merge, is_cherry_pick
         FROM deployment_commits WHERE deployment IN (SELECT value FROM json_each(?))
         ORDER BY deployment, position",
        wanted
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    let mut commits: HashMap<i64, Vec<CommitFact>> = HashMap::new();
    for row in rows {
        commits.entry(row.deployment).or_default().push(CommitFact {
            sha: row.sha,
            authored_at: Timestamp(row.authored_at),
            committed_at: Timestamp(row.committed_at),
            first_seen: column::time(row.first_seen),
            is_merge: row.is_merge != 0,
            is_cherry_pick: row.is_cherry_pick != 0,
        });
    }
    Ok(commits)
}

async fn linked(c: &mut SqliteConnection, ids: &[i64]) -> StoreResult<Vec<IncidentView>> {
    let wanted = column::to_json(ids)?;
    let rows = sqlx::query_as!(
        IncidentRow,
        "SELECT id, environment, service, title, impact_at, detected_at, restored_at, deployment,
             link, opened_by, closed_by
         FROM incidents WHERE deployment IN (SELECT value FROM json_each(?)) ORDER BY id",
        wanted
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    rows.into_iter().map(deployments_incidents::Row::view).collect()
}
