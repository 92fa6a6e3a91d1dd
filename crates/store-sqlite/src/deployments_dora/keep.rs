//! Contributions and cells, kept up in the transaction of the change.
//!
//! A deployment's contribution rests on its own row and commits, on its incidents, on the rollbacks
//! that took it back, and on what had been deployed to its place before. Each change below updates
//! whatever rests on it; the difference goes into the cells.

use std::collections::BTreeMap;

use pipeyard_dora::{
    Cell, CellKey, Contribution, DeploymentFact, IncidentFact, Kind, Outcome, Source, Tier,
    cell_keys, contribution, failure_of, incident_contribution,
};
use pipeyard_model::{DeploymentId, EnvironmentName, ServiceName, Timestamp};
use pipeyard_store::{
    StoreResult,
    dora::{failure_link, incident_fact},
};
use sqlx::SqliteConnection;

use super::facts;
use crate::{column, column::failed, deployments_incidents};

/// A deployment was asked for, has ended, or its commits became known.
pub(crate) async fn deployment_changed(c: &mut SqliteConnection, id: i64) -> StoreResult<()> {
    let (fact, _) = keep_deployment(c, id).await?;
    if let Some(of) = fact.rollback_of {
        keep_deployment(c, of.0).await?;
    }
    // Times may go back when a clock is set: what ended later has this one before it now.
    if let (Outcome::Succeeded, Some(ended)) = (fact.outcome, fact.finished_at) {
        let (environment, service) = (fact.environment.as_str(), fact.service.as_str());
        let later = sqlx::query_scalar!(
            r#"SELECT id AS "id!: i64" FROM dora_contributions
             WHERE environment = ?1 AND service = ?2 AND (at > ?3 OR (at = ?3 AND id > ?4))
               AND at >= ?3 AND source = 'deployment' AND over = 1"#,
            environment,
            service,
            ended.0,
            id
        )
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        for id in later {
            keep_deployment(c, id).await?;
        }
    }
    Ok(())
}

/// An incident was opened, closed or linked to another deployment.
pub(crate) async fn incident_changed(c: &mut SqliteConnection, id: i64) -> StoreResult<()> {
    let (_, deployment, _) = keep_incident(c, id).await?;
    if let Some(deployment) = deployment {
        keep_deployment(c, deployment.0).await?;
    }
    Ok(())
}

/// How a stored contribution compared with the one that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Same,
    Missing,
    Other,
}

/// Makes the contribution of a deployment what its facts say.
pub(super) async fn keep_deployment(
    c: &mut SqliteConnection,
    id: i64,
) -> StoreResult<(DeploymentFact, Found)> {
    let fact = facts::deployment(c, id).await?;
    let incidents = facts::incidents_of(c, id).await?;
    let links: Vec<_> = incidents.iter().filter_map(failure_link).collect();
    let incidents: Vec<IncidentFact> = incidents.iter().map(incident_fact).collect();
    let by_id = incidents.iter().map(|incident| (incident.id, incident)).collect();
    let repairs = facts::repairs_of(c, id).await?;
    let failure = failure_of(&fact, &links, &by_id, &repairs);
    let part = contribution(&fact, failure.as_ref());
    let found = store(c, &fact.environment, &fact.service, &part, Some(&fact)).await?;
    Ok((fact, found))
}

/// Makes the contribution of an incident what its row says.
pub(super) async fn keep_incident(
    c: &mut SqliteConnection,
    id: i64,
) -> StoreResult<(IncidentFact, Option<DeploymentId>, Found)> {
    let view = deployments_incidents::one(c, id).await?;
    let fact = incident_fact(&view);
    let part = incident_contribution(&fact);
    let found = store(c, &fact.environment, &fact.service, &part, None).await?;
    Ok((fact, view.deployment, found))
}

/// Stores a contribution, and brings its cells from the old one to the new one.
async fn store(
    c: &mut SqliteConnection,
    environment: &EnvironmentName,
    service: &ServiceName,
    part: &Contribution,
    deployment: Option<&DeploymentFact>,
) -> StoreResult<Found> {
    let (source, id) = match part.source {
        Source::Deployment(id) => ("deployment", id.0),
        Source::Incident(id) => ("incident", id.0),
    };
    let kind = deployment.map(|fact| match fact.kind {
        Kind::Normal => "normal",
        Kind::Hotfix => "hotfix",
        Kind::Rollback => "rollback",
        Kind::Redeploy => "redeploy",
    });
    let repairs = deployment.and_then(|fact| fact.rollback_of).map(|of| of.0);
    let old = sqlx::query!(
        "SELECT kind, repairs, part FROM dora_contributions WHERE source = ? AND id = ?",
        source,
        id
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    let (old, same) = match old {
        Some(row) => {
            let old: Contribution = column::json("dora_contributions", "part", id, &row.part)?;
            let same = old == *part && row.kind.as_deref() == kind && row.repairs == repairs;
            (Some(old), same)
        }
        None => (None, false),
    };
    if same {
        return Ok(Found::Same);
    }
    let text = column::to_json(part)?;
    let (at, place) = (part.at.0, (environment.as_str(), service.as_str()));
    let counts = &part.counts;
    let (over, leads, fails) = (counts.over > 0, counts.lead_rows > 0, counts.failed > 0);
    sqlx::query!(
        "INSERT INTO dora_contributions (source, id, environment, service, at, kind, repairs, over,
             leads, failed, part)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET at = excluded.at, kind = excluded.kind,
             repairs = excluded.repairs, over = excluded.over, leads = excluded.leads,
             failed = excluded.failed, part = excluded.part",
        source,
        id,
        place.0,
        place.1,
        at,
        kind,
        repairs,
        over,
        leads,
        fails,
        text
    )
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    if old.as_ref() != Some(part) {
        move_cells(c, environment, service, old.as_ref(), part).await?;
    }
    Ok(if old.is_some() { Found::Other } else { Found::Missing })
}

/// Takes the old contribution out of its cells and puts the new one into its own.
async fn move_cells(
    c: &mut SqliteConnection,
    environment: &EnvironmentName,
    service: &ServiceName,
    old: Option<&Contribution>,
    new: &Contribution,
) -> StoreResult<()> {
    // Days before their month, which can be built again from them.
    let mut moves: BTreeMap<(Tier, CellKey), [Option<&Contribution>; 2]> = BTreeMap::new();
    for (at, part) in [old, Some(new)].into_iter().enumerate() {
        let Some(part) = part else { continue };
        for key in cell_keys(part.at, environment, service) {
            moves.entry((key.tier, key)).or_default()[at] = Some(part);
        }
    }
    for ((_, key), [old, new]) in moves {
        let mut cell = cell(c, &key).await?.unwrap_or_default();
        match old.map_or(Ok(()), |old| cell.remove(old)) {
            Ok(()) => {
                if let Some(new) = new {
                    cell.add(new);
                }
            }
            Err(drift) => {
                tracing::error!(error = %drift, cell = ?key, "a cell of the metrics is built again");
                cell = built(c, &key).await?;
            }
        }
        write(c, &key, &cell).await?;
    }
    Ok(())
}

/// A stored cell.
pub(super) async fn cell(c: &mut SqliteConnection, key: &CellKey) -> StoreResult<Option<Cell>> {
    let (environment, service) = place(key);
    let (tier, start) = (key.tier.as_str(), key.start.0);
    let bytes = sqlx::query_scalar!(
        "SELECT cell FROM dora_cells
         WHERE environment = ? AND service = ? AND tier = ? AND start = ?",
        environment,
        service,
        tier,
        start
    )
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    // One that can't be read is one that isn't there: it is built again.
    Ok(bytes.and_then(|bytes| Cell::from_bytes(&bytes)))
}

/// A cell as its days, or the contributions to it, say.
pub(super) async fn built(c: &mut SqliteConnection, key: &CellKey) -> StoreResult<Cell> {
    let (environment, service) = place(key);
    let (from, to) = (key.start.0, key.tier.end(key.start).0);
    let mut cell = Cell::default();
    if key.tier == Tier::Month {
        let days = sqlx::query_scalar!(
            "SELECT cell FROM dora_cells
             WHERE environment = ? AND service = ? AND tier = 'day' AND start >= ? AND start < ?",
            environment,
            service,
            from,
            to
        )
        .fetch_all(c)
        .await
        .map_err(failed)?;
        for day in days {
            cell.merge(&read(&day, Timestamp(from))?);
        }
        return Ok(cell);
    }
    let parts = sqlx::query!(
        r#"SELECT id AS "id!: i64", part FROM dora_contributions
         WHERE environment = ?1 AND (?2 = '' OR service = ?2) AND at >= ?3 AND at < ?4"#,
        environment,
        service,
        from,
        to
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    for row in parts {
        cell.add(&column::json("dora_contributions", "part", row.id, &row.part)?);
    }
    Ok(cell)
}

/// Stores a cell; one without anything in it goes.
pub(super) async fn write(c: &mut SqliteConnection, key: &CellKey, cell: &Cell) -> StoreResult<()> {
    let (environment, service) = place(key);
    let (tier, start) = (key.tier.as_str(), key.start.0);
    if cell.is_empty() {
        sqlx::query!(
            "DELETE FROM dora_cells
             WHERE environment = ? AND service = ? AND tier = ? AND start = ?",
            environment,
            service,
            tier,
            start
        )
        .execute(c)
        .await
        .map_err(failed)?;
        return Ok(());
    }
    let bytes = cell.to_bytes();
    sqlx::query!(
        "INSERT INTO dora_cells (environment, service, tier, start, cell) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET cell = excluded.cell",
        environment,
        service,
        tier,
        start,
        bytes
    )
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Reads the bytes of a cell.
pub(super) fn read(bytes: &[u8], start: Timestamp) -> StoreResult<Cell> {
    Cell::from_bytes(bytes)
        .ok_or_else(|| column::corrupt("dora_cells", "cell", start, "isn't a cell"))
}

fn place(key: &CellKey) -> (&str, &str) {
    (key.environment.as_str(), key.service.as_ref().map_or("", ServiceName::as_str))
}
