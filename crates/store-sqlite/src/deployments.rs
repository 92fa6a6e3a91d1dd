//! Environments, services, deployments and incidents: the trait and what is read of deployments.
//! What changes is in [`write`].

use async_trait::async_trait;
use pipeyard_api::deploys::{
    Applied, CommitsView, EnvironmentsFile, IncidentView, SampleView, TimelineView,
};
use pipeyard_model::{
    Actor, DeploymentId, EnvironmentName, IncidentId, RunId, ServiceName, Timestamp,
    deployment::{Deployment, Purpose},
    environment::{Person, Policy, Source},
};
use pipeyard_store::{
    StoreResult,
    deployments::{
        Change, DeployedCommit, DeploymentFilter, Deployments, Environment, NewDeployment,
        NewIncident, Place, Stored,
    },
};

use crate::{
    SqliteStore, audit, column, column::failed, deployments_dora, deployments_env,
    deployments_incidents, deployments_policy,
};

mod write;

const TABLE: &str = "deployments";

/// Columns that make a [`Stored`].
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) version: i64,
    pub(crate) document: String,
    pub(crate) look: String,
    pub(crate) judge: Option<String>,
    pub(crate) commits_state: String,
}

impl Row {
    pub(crate) fn deployment(&self) -> StoreResult<Deployment> {
        let deployment: Deployment = column::json(TABLE, "document", self.id, &self.document)?;
        if deployment.version == self.version {
            return Ok(deployment);
        }
        Err(column::corrupt(TABLE, "version", self.id, "differs from the document's"))
    }

    fn stored(self) -> StoreResult<Stored> {
        Ok(Stored {
            deployment: self.deployment()?,
            look: column::json(TABLE, "look", self.id, &self.look)?,
            judge: self.judge,
            commits_state: self.commits_state,
        })
    }
}

#[async_trait]
impl Deployments for SqliteStore {
    async fn apply_environments(
        &self,
        file: EnvironmentsFile,
        dry_run: bool,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<Applied> {
        deployments_env::apply(self, file, dry_run, by, now).await
    }

    async fn change_policy(
        &self,
        environment: &EnvironmentName,
        from: Policy,
        to: Policy,
        what: &str,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()> {
        let (environment, what) = (environment.clone(), what.to_owned());
        self.write(move |c| {
            Box::pin(async move {
                deployments_policy::change(c, &environment, &from, &to, &what, by, now).await
            })
        })
        .await
    }

    async fn policy(&self, environment: &EnvironmentName) -> StoreResult<Option<Policy>> {
        let mut tx = self.snapshot().await?;
        deployments_policy::policy(&mut tx, environment).await
    }

    async fn source(&self, run: RunId) -> StoreResult<Option<Source>> {
        let mut tx = self.snapshot().await?;
        deployments_policy::source(&mut tx, run).await
    }

    async fn people(&self) -> StoreResult<Vec<Person>> {
        let mut tx = self.snapshot().await?;
        deployments_policy::people(&mut tx).await
    }

    async fn environments(&self) -> StoreResult<Vec<Environment>> {
        let mut tx = self.snapshot().await?;
        deployments_env::environments(&mut tx).await
    }

    async fn place(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
    ) -> StoreResult<Option<Place>> {
        let mut tx = self.snapshot().await?;
        deployments_env::place(&mut tx, environment, service).await
    }

    async fn create_deployment(
        &self,
        new: NewDeployment,
        now: Timestamp,
    ) -> StoreResult<Deployment> {
        self.write(move |c| Box::pin(write::create(c, new, now))).await
    }

    async fn deployment(&self, id: DeploymentId) -> StoreResult<Option<Stored>> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, version, document, look, judge, commits_state FROM deployments WHERE id = ?",
            id.0
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        row.map(Row::stored).transpose()
    }

    async fn latest_deployment(&self) -> StoreResult<Option<DeploymentId>> {
        let id = sqlx::query_scalar!("SELECT id FROM deployments ORDER BY id DESC LIMIT 1")
            .fetch_optional(&self.read)
            .await
            .map_err(failed)?;
        Ok(id.map(DeploymentId))
    }

    async fn deployments(&self, filter: DeploymentFilter) -> StoreResult<Vec<Stored>> {
        let environment = filter.environment.as_ref().map(EnvironmentName::as_str);
        let service = filter.service.as_ref().map(ServiceName::as_str);
        let before = filter.before.map_or(i64::MAX, |id| id.0);
        let limit = i64::from(filter.limit.clamp(1, 200));
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, version, document, look, judge, commits_state FROM deployments
             WHERE id < ? AND (? IS NULL OR environment = ?) AND (? IS NULL OR service = ?)
               AND (NOT ? OR finished = 0)
             ORDER BY id DESC LIMIT ?",
            before,
            environment,
            environment,
            service,
            service,
            filter.active,
            limit
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter().map(Row::stored).collect()
    }

    async fn open_deployments(&self) -> StoreResult<Vec<Stored>> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, version, document, look, judge, commits_state FROM deployments
             WHERE finished = 0 ORDER BY id LIMIT 1000"
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter().map(Row::stored).collect()
    }

    async fn change_deployment(&self, wanted: Change, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| Box::pin(write::change(c, wanted, now))).await
    }

    async fn serving(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
    ) -> StoreResult<Option<Deployment>> {
        let (environment, service) = (environment.as_str(), service.as_str());
        let row = sqlx::query_as!(
            Row,
            "SELECT id, version, document, look, judge, commits_state FROM deployments
             WHERE environment = ? AND service = ? AND state = 'succeeded'
             ORDER BY finished_at DESC, id DESC LIMIT 1",
            environment,
            service
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        row.map(|row| row.deployment()).transpose()
    }

    async fn good_before(&self, than: &Deployment) -> StoreResult<Option<Deployment>> {
        let (environment, service) = (than.environment.as_str(), than.service.as_str());
        let before = match than.purpose {
            Purpose::Ship => than.id.0,
            // Going back once more goes behind what was gone back to.
            Purpose::Rollback { to, .. } => to.0,
        };
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, version, document, look, judge, commits_state FROM deployments
             WHERE environment = ? AND service = ? AND state = 'succeeded' AND id < ?
             ORDER BY id DESC LIMIT 50",
            environment,
            service,
            before
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        for row in rows {
            let deployment = row.deployment()?;
            let other = deployment.release.sha256 != than.release.sha256;
            if other && deployment.purpose == Purpose::Ship {
                return Ok(Some(deployment));
            }
        }
        Ok(None)
    }

    async fn timeline(&self, id: DeploymentId) -> StoreResult<Vec<TimelineView>> {
        let rows = sqlx::query!(
            "SELECT n, at, who, code, message FROM deployment_timeline
             WHERE deployment = ? ORDER BY n LIMIT 2000",
            id.0
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        let view = rows.into_iter().map(|row| TimelineView {
            n: row.n,
            at: Timestamp(row.at),
            who: row.who,
            code: row.code,
            message: row.message,
        });
        Ok(view.collect())
    }

    async fn samples(&self, id: DeploymentId) -> StoreResult<Vec<SampleView>> {
        let rows = sqlx::query_scalar!(
            "SELECT sample FROM deployment_samples WHERE deployment = ? ORDER BY at",
            id.0
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.iter().map(|text| column::json("deployment_samples", "sample", id, text)).collect()
    }

    async fn deployed_shas(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
    ) -> StoreResult<Vec<String>> {
        let (environment, service) = (environment.as_str(), service.as_str());
        sqlx::query_scalar!(
            r#"SELECT commit_sha AS "commit_sha!: String" FROM deployments
             WHERE environment = ? AND service = ? AND state = 'succeeded'
             GROUP BY commit_sha ORDER BY MIN(id)"#,
            environment,
            service
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)
    }

    async fn set_commits(
        &self,
        id: DeploymentId,
        state: &str,
        commits: Vec<DeployedCommit>,
    ) -> StoreResult<()> {
        let state = state.to_owned();
        self.write(move |c| {
            Box::pin(async move { write::set_commits(c, id.0, &state, &commits).await })
        })
        .await
    }

    async fn commits(&self, id: DeploymentId) -> StoreResult<CommitsView> {
        let mut tx = self.snapshot().await?;
        deployments_dora::commits(&mut tx, id).await
    }

    async fn open_incident(&self, new: NewIncident, now: Timestamp) -> StoreResult<IncidentView> {
        self.write(move |c| Box::pin(deployments_incidents::open(c, new, now))).await
    }

    async fn close_incident(
        &self,
        id: IncidentId,
        restored_at: Timestamp,
        by: &str,
        actor: Actor,
        now: Timestamp,
    ) -> StoreResult<IncidentView> {
        let by = by.to_owned();
        self.write(move |c| {
            Box::pin(async move {
                audit::record(c, actor, "incident.close", &format!("incident {id}"), now).await?;
                deployments_incidents::close(c, id, restored_at, &by, now).await
            })
        })
        .await
    }

    async fn incidents(
        &self,
        environment: Option<&EnvironmentName>,
        service: Option<&ServiceName>,
        open: Option<bool>,
    ) -> StoreResult<Vec<IncidentView>> {
        let mut tx = self.snapshot().await?;
        deployments_incidents::list(&mut tx, environment, service, open).await
    }

    async fn suspect(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        at: Timestamp,
    ) -> StoreResult<Option<DeploymentId>> {
        let mut tx = self.snapshot().await?;
        deployments_incidents::suspect(&mut tx, environment, service, at).await
    }
}
