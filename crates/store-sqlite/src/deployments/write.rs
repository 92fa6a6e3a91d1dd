//! The changes of a deployment, each in its transaction: the row, its timeline, its node, what it
//! contributes to the metrics, and what is told of it.

use pipeyard_api::deploys::SampleView;
use pipeyard_model::{
    DeploymentId, Timestamp,
    deployment::{Approval, Deployment, Entry, Purpose, Reason, State, Times},
};
use pipeyard_store::{
    StoreError, StoreResult,
    deployments::{Change, DeployedCommit, MAX_SAMPLES, NewDeployment},
};
use serde_json::json;
use sqlx::SqliteConnection;

use super::Row;
use crate::{
    audit::{self, Detail},
    column,
    column::failed,
    deployments_dora::keep,
    events::{self, NewEvent},
    outbox, runs,
};

pub(super) async fn create(
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
    let turn = || Reason::new("waits_for_turn", "waits for its turn");
    let reason = new.waits.unwrap_or_else(turn);
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
        approvals: vec![],
        asks_approval: Some(new.asks_approval),
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
    let target = format!("deployment {id} of {environment}/{service}");
    let action = match deployment.purpose {
        Purpose::Ship => "deployment.request",
        Purpose::Rollback { .. } => "deployment.rollback",
    };
    let after = json!({
        "commit": deployment.release.commit,
        "run": deployment.release.run,
        "state": word,
    });
    audit::record_change(c, new.by, action, &target, Detail::new(after), now).await?;
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

pub(super) async fn change(
    c: &mut SqliteConnection,
    change: Change,
    now: Timestamp,
) -> StoreResult<()> {
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
        let detail = Detail {
            before: before.map(|state| json!({ "state": state })),
            after: Some(json!({ "state": next.state.as_str() })),
        };
        audit::record_change(c, by, action, &format!("deployment {id}"), detail, now).await?;
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

pub(super) async fn set_commits(
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
