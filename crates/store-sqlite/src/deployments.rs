//! Environments, services, deployments and incidents: the trait and the statements of deployments.

use async_trait::async_trait;
use pipeyard_api::deploys::{
    Applied, CommitsView, EnvironmentsFile, IncidentView, SampleView, TimelineView,
};
use pipeyard_model::{
    DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp, UserId,
    deployment::{Approval, Deployment, Entry, Purpose, Reason, State, Times},
};
use pipeyard_store::{
    StoreError, StoreResult,
    deployments::{
        Change, DeployedCommit, DeploymentFilter, Deployments, Environment, MAX_SAMPLES,
        NewDeployment, NewIncident, Place, Stored,
    },
};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore, audit, column,
    column::failed,
    deployments_dora::{self, keep},
    deployments_env, deployments_incidents,
    events::{self, NewEvent},
    outbox, runs,
};

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

async fn create(
    c: &mut SqliteConnection,
    new: NewDeployment,
    now: Timestamp,
) -> StoreResult<Deployment> {
    let (job, attempt) = match new.job {
        Some((job, attempt)) => (Some(job.to_string()), Some(i64::from(attempt.0))),
        None => (None, None),
    };
    let known = sqlx::query_as!(
        Row,
        "SELECT id, version, document, look, judge, commits_state FROM deployments
         WHERE job = ? AND attempt = ?",
        job,
        attempt
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    if let Some(row) = known {
        return row.deployment();
    }
    let (environment, service) = (new.environment.to_string(), new.service.to_string());
    let sequence = sqlx::query_scalar!(
        "UPDATE services SET sequence = sequence + 1
         WHERE environment = ? AND name = ? AND retired_at IS NULL RETURNING sequence",
        environment,
        service
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?
    .ok_or_else(|| StoreError::not_found(format!("service {environment}/{service}")))?;
    let state = if new.needs_approval { State::AwaitingApproval } else { State::Queued };
    let reason = if new.needs_approval {
        Reason::new("waits_for_approval", "an administrator must approve it")
    } else {
        Reason::new("waits_for_turn", "waits for its turn")
    };
    let word = state.as_str();
    let run = new.release.run.0;
    let commit = new.release.commit.clone();
    let id = sqlx::query_scalar!(
        r#"INSERT INTO deployments (environment, service, sequence, version, state, finished, active,
             job, attempt, run, commit_sha, created_at, document)
         VALUES (?, ?, ?, 0, ?, 0, 0, ?, ?, ?, ?, ?, '') RETURNING id AS "id!: i64""#,
        environment,
        service,
        sequence,
        word,
        job,
        attempt,
        run,
        commit,
        now.0
    )
    .fetch_one(&mut *c)
    .await
    .map_err(failed)?;
    let deployment = Deployment {
        id: DeploymentId(id),
        version: 1,
        environment: new.environment,
        service: new.service,
        sequence,
        purpose: new.purpose,
        release: new.release,
        replaces: None,
        strategy: new.strategy,
        limits: new.limits,
        otherwise: new.otherwise,
        job: new.job.map(|(job, _)| job),
        requested_by: new.requested_by,
        approval: if new.needs_approval { Approval::Needed } else { Approval::NotNeeded },
        state,
        reason: Some(reason),
        verdict: None,
        trouble: None,
        troubles: 0,
        times: Times {
            created: now,
            started: None,
            first_traffic: None,
            restored: None,
            finished: None,
        },
    };
    let mut requested = deployment.requested();
    if let Some(comment) = new.comment {
        requested.message = format!("{}: {comment}", requested.message);
    }
    write_document(c, &deployment, 0).await?;
    keep::deployment_changed(c, id).await?;
    outbox::deployment_told(c, None, &deployment, now).await?;
    tell(c, &deployment, &[requested], now).await?;
    if let Some(job) = deployment.job {
        runs::deploy_started(c, job, id, now).await?;
    }
    if let Some(by) = new.by {
        let target = format!("deployment {id} of {environment}/{service}");
        audit::record(c, Some(by), "deployment.rollback", &target, now).await?;
    }
    Ok(deployment)
}

/// Writes the document if the row is at version `from`.
async fn write_document(
    c: &mut SqliteConnection,
    deployment: &Deployment,
    from: i64,
) -> StoreResult<()> {
    let document = column::to_json(deployment)?;
    let (id, version) = (deployment.id.0, deployment.version);
    let state = deployment.state.as_str();
    let (finished, active) = (deployment.is_finished(), deployment.state.is_active());
    let finished_at = deployment.times.finished.map(|t| t.0);
    let written = sqlx::query!(
        "UPDATE deployments SET version = ?, state = ?, finished = ?, active = ?, finished_at = ?,
             document = ?
         WHERE id = ? AND version = ? AND finished = 0",
        version,
        state,
        finished,
        active,
        finished_at,
        document,
        id,
        from
    )
    .execute(c)
    .await;
    let written = written.map_err(|error| match error.as_database_error() {
        Some(problem) if problem.is_unique_violation() => StoreError::conflict(
            "deployment_active",
            format!(
                "another deployment of {}/{} is under way",
                deployment.environment, deployment.service
            ),
        ),
        Some(_) | None => failed(error),
    })?;
    if written.rows_affected() == 1 {
        return Ok(());
    }
    Err(StoreError::conflict(
        "stale_deployment",
        format!("deployment {id} was changed by somebody else meanwhile; try again"),
    ))
}

async fn tell(
    c: &mut SqliteConnection,
    deployment: &Deployment,
    entries: &[Entry],
    now: Timestamp,
) -> StoreResult<()> {
    let id = deployment.id.0;
    for entry in entries {
        sqlx::query!(
            "INSERT INTO deployment_timeline (deployment, n, at, who, code, message)
             SELECT ?, COALESCE(MAX(n), 0) + 1, ?, ?, ?, ? FROM deployment_timeline
             WHERE deployment = ?",
            id,
            now.0,
            entry.who,
            entry.code,
            entry.message,
            id
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    }
    let event = NewEvent {
        kind: "deployment.changed",
        run: Some(deployment.release.run.0),
        job: None,
        deployment: Some(id),
    };
    events::append(c, &[event], now).await
}

async fn change(c: &mut SqliteConnection, change: Change, now: Timestamp) -> StoreResult<()> {
    let Change { next, entries, look, judge, sample, by, quiet } = change;
    let id = next.id.0;
    let before = sqlx::query_scalar!("SELECT state FROM deployments WHERE id = ?", id)
        .fetch_optional(&mut *c)
        .await
        .map_err(failed)?;
    write_document(c, &next, next.version - 1).await?;
    outbox::deployment_told(c, before.as_deref(), &next, now).await?;
    if let Some(look) = look {
        let look = column::to_json(&look)?;
        sqlx::query!("UPDATE deployments SET look = ? WHERE id = ?", look, id)
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    if let Some(judge) = judge {
        sqlx::query!("UPDATE deployments SET judge = ? WHERE id = ?", judge, id)
            .execute(&mut *c)
            .await
            .map_err(failed)?;
    }
    if let Some(sample) = sample {
        add_sample(c, id, &sample).await?;
    }
    if next.is_finished() {
        // What isn't over adds nothing that changes.
        keep::deployment_changed(c, id).await?;
    }
    if let (Some(outcome), Some(job)) = (next.state.outcome(), next.job) {
        let reason = next.reason.as_ref().map(|r| (r.code.clone(), r.message.clone()));
        runs::deploy_finished(c, job, outcome.conclusion(), reason, now).await?;
    }
    if let Some((by, action)) = by {
        audit::record(c, Some(by), action, &format!("deployment {id}"), now).await?;
    }
    if quiet { Ok(()) } else { tell(c, &next, &entries, now).await }
}

async fn add_sample(c: &mut SqliteConnection, id: i64, sample: &SampleView) -> StoreResult<()> {
    let at = sample.at.0;
    let text = column::to_json(sample)?;
    sqlx::query!(
        "INSERT INTO deployment_samples (deployment, at, sample) VALUES (?, ?, ?)
         ON CONFLICT DO NOTHING",
        id,
        at,
        text
    )
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    let count =
        sqlx::query_scalar!("SELECT COUNT(*) FROM deployment_samples WHERE deployment = ?", id)
            .fetch_one(&mut *c)
            .await
            .map_err(failed)?;
    if count > MAX_SAMPLES {
        sqlx::query!(
            "DELETE FROM deployment_samples WHERE deployment = ? AND at IN (
                 SELECT at FROM (
                     SELECT at, ROW_NUMBER() OVER (ORDER BY at) AS n FROM deployment_samples
                     WHERE deployment = ?
                 ) WHERE n % 2 = 0
             )",
            id,
            id
        )
        .execute(c)
        .await
        .map_err(failed)?;
    }
    Ok(())
}

async fn set_commits(
    c: &mut SqliteConnection,
    id: i64,
    state: &str,
    commits: &[DeployedCommit],
) -> StoreResult<()> {
    let done = sqlx::query!("UPDATE deployments SET commits_state = ? WHERE id = ?", state, id)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    if done.rows_affected() != 1 {
        return Err(StoreError::not_found(format!("deployment {id}")));
    }
    sqlx::query!("DELETE FROM deployment_commits WHERE deployment = ?", id)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    for (position, commit) in (0_i64..).zip(commits) {
        let first_seen = commit.first_seen.map(|t| t.0);
        sqlx::query!(
            "INSERT INTO deployment_commits (deployment, position, sha, title, author, authored_at,
                 committed_at, first_seen, is_merge, is_cherry_pick)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            id,
            position,
            commit.sha,
            commit.title,
            commit.author,
            commit.authored_at.0,
            commit.committed_at.0,
            first_seen,
            commit.is_merge,
            commit.is_cherry_pick
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    }
    keep::deployment_changed(c, id).await
}

#[async_trait]
impl Deployments for SqliteStore {
    async fn apply_environments(
        &self,
        file: EnvironmentsFile,
        dry_run: bool,
        by: UserId,
        now: Timestamp,
    ) -> StoreResult<Applied> {
        deployments_env::apply(self, file, dry_run, by, now).await
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
        self.write(move |c| Box::pin(create(c, new, now))).await
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
        self.write(move |c| Box::pin(change(c, wanted, now))).await
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
        self.write(move |c| Box::pin(async move { set_commits(c, id.0, &state, &commits).await }))
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
        user: UserId,
        now: Timestamp,
    ) -> StoreResult<IncidentView> {
        let by = by.to_owned();
        self.write(move |c| {
            Box::pin(async move {
                audit::record(c, Some(user), "incident.close", &format!("incident {id}"), now)
                    .await?;
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
