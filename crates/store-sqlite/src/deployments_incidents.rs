//! Incidents and the deployments that they are blamed on.

use pipeyard_api::deploys::IncidentView;
use pipeyard_model::{DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp};
use pipeyard_store::{StoreError, StoreResult, deployments::NewIncident};
use sqlx::SqliteConnection;

use crate::{
    audit, column,
    column::failed,
    deployments_dora::keep,
    events::{self, NewEvent},
    outbox,
};

/// How long before its impact a deployment may have caused an incident, in microseconds.
const SUSPECT: i64 = 24 * 3600 * 1_000_000;

pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) environment: String,
    pub(crate) service: String,
    pub(crate) title: String,
    pub(crate) impact_at: i64,
    pub(crate) detected_at: i64,
    pub(crate) restored_at: Option<i64>,
    pub(crate) deployment: Option<i64>,
    pub(crate) link: Option<String>,
    pub(crate) opened_by: String,
    pub(crate) closed_by: Option<String>,
}

impl Row {
    pub(crate) fn view(self) -> StoreResult<IncidentView> {
        Ok(IncidentView {
            kind: "incident".into(),
            id: IncidentId(self.id),
            environment: column::parse("incidents", "environment", self.id, &self.environment)?,
            service: column::parse("incidents", "service", self.id, &self.service)?,
            title: self.title,
            impact_at: Timestamp(self.impact_at),
            detected_at: Timestamp(self.detected_at),
            restored_at: column::time(self.restored_at),
            deployment: self.deployment.map(DeploymentId),
            link: self.link,
            opened_by: self.opened_by,
            closed_by: self.closed_by,
        })
    }
}

pub(crate) async fn one(c: &mut SqliteConnection, id: i64) -> StoreResult<IncidentView> {
    sqlx::query_as!(
        Row,
        "SELECT id, environment, service, title, impact_at, detected_at, restored_at, deployment,
             link, opened_by, closed_by
         FROM incidents WHERE id = ?",
        id
    )
    .fetch_optional(c)
    .await
    .map_err(failed)?
    .ok_or_else(|| StoreError::not_found(format!("incident {id}")))?
    .view()
}

pub(crate) async fn open(
    c: &mut SqliteConnection,
    new: NewIncident,
    now: Timestamp,
) -> StoreResult<IncidentView> {
    if let Some(key) = &new.key {
        let known = sqlx::query_scalar!("SELECT id FROM incidents WHERE key = ?", key)
            .fetch_optional(&mut *c)
            .await
            .map_err(failed)?;
        if let Some(id) = known {
            return one(c, id).await;
        }
    }
    let (environment, service) = (new.environment.as_str(), new.service.as_str());
    let known = sqlx::query_scalar!(
        "SELECT COUNT(*) FROM services WHERE environment = ? AND name = ?",
        environment,
        service
    )
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    if known == 0 {
        return Err(StoreError::not_found(format!("service {environment}/{service}")));
    }
    let (deployment, link) = new.deployment.map(|(id, link)| (id.0, link)).unzip();
    if let Some(id) = deployment {
        let same = sqlx::query_scalar!(
            "SELECT COUNT(*) FROM deployments WHERE id = ? AND environment = ? AND service = ?",
            id,
            environment,
            service
        )
        .fetch_one(&mut *c)
        .await
        .map_err(failed)?;
        if same == 0 {
            let what = format!("deployment {id} of {environment}/{service}");
            return Err(StoreError::not_found(what));
        }
    }
    let id = sqlx::query_scalar!(
        r#"INSERT INTO incidents (key, environment, service, title, impact_at, detected_at,
             deployment, link, opened_by, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id AS "id!: i64""#,
        new.key,
        environment,
        service,
        new.title,
        new.impact_at.0,
        new.detected_at.0,
        deployment,
        link,
        new.by,
        now.0
    )
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    let event = NewEvent { kind: "incident.changed", run: None, job: None, deployment };
    events::append(c, &[event], now).await?;
    keep::incident_changed(c, id).await?;
    audit::record(c, new.actor, "incident.open", &format!("incident {id}"), now).await?;
    let opened = one(c, id).await?;
    outbox::incident_told(c, &opened, now).await?;
    Ok(opened)
}

pub(crate) async fn close(
    c: &mut SqliteConnection,
    id: IncidentId,
    restored_at: Timestamp,
    by: &str,
    now: Timestamp,
) -> StoreResult<IncidentView> {
    let incident = one(c, id.0).await?;
    if incident.restored_at.is_some() {
        let by = incident.closed_by.unwrap_or_default();
        return Err(StoreError::conflict(
            "incident_closed",
            format!("incident {id} was closed by {by} already"),
        ));
    }
    if restored_at < incident.impact_at {
        return Err(StoreError::conflict(
            "restored_before_impact",
            format!("incident {id} began at {}, after that time", incident.impact_at),
        ));
    }
    sqlx::query!(
        "UPDATE incidents SET restored_at = ?, closed_by = ? WHERE id = ?",
        restored_at.0,
        by,
        id.0
    )
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    let deployment = incident.deployment.map(|d| d.0);
    let event = NewEvent { kind: "incident.changed", run: None, job: None, deployment };
    events::append(c, &[event], now).await?;
    keep::incident_changed(c, id.0).await?;
    let closed = one(c, id.0).await?;
    outbox::incident_told(c, &closed, now).await?;
    Ok(closed)
}

pub(crate) async fn list(
    c: &mut SqliteConnection,
    environment: Option<&EnvironmentName>,
    service: Option<&ServiceName>,
    open: Option<bool>,
) -> StoreResult<Vec<IncidentView>> {
    let environment = environment.map(EnvironmentName::as_str);
    let service = service.map(ServiceName::as_str);
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, environment, service, title, impact_at, detected_at, restored_at, deployment,
             link, opened_by, closed_by
         FROM incidents
         WHERE (? IS NULL OR environment = ?) AND (? IS NULL OR service = ?)
           AND (? IS NULL OR (restored_at IS NULL) = ?)
         ORDER BY impact_at DESC, id DESC LIMIT 500",
        environment,
        environment,
        service,
        service,
        open,
        open
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    rows.into_iter().map(Row::view).collect()
}

pub(crate) async fn suspect(
    c: &mut SqliteConnection,
    environment: &EnvironmentName,
    service: &ServiceName,
    at: Timestamp,
) -> StoreResult<Option<DeploymentId>> {
    let (environment, service) = (environment.as_str(), service.as_str());
    let (from, to) = (at.0.saturating_sub(SUSPECT), at.0);
    let id = sqlx::query_scalar!(
        "SELECT id FROM deployments
         WHERE environment = ? AND service = ? AND state = 'succeeded'
           AND finished_at BETWEEN ? AND ?
         ORDER BY finished_at DESC, id DESC LIMIT 1",
        environment,
        service,
        from,
        to
    )
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    Ok(id.map(DeploymentId))
}
