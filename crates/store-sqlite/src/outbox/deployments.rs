//! What is told about deployments and incidents: to whoever listens, and on the commit at the forge.

use pipeyard_api::deploys::IncidentView;
use pipeyard_model::{
    Timestamp,
    deployment::{Deployment, Outcome, Purpose, State, strategy_text},
};
use pipeyard_store::{
    StoreResult,
    outbox::{CommitState, Notice},
};
use serde_json::json;
use sqlx::SqliteConnection;

use super::enqueue;
use crate::column::failed;

/// The event of a deployment's change, its commit's state, and that in words; `None` for a change
/// that nobody is told of. `before` is the word of the state that it left, if there was one.
fn event(
    before: Option<&str>,
    deployment: &Deployment,
) -> Option<(Option<&'static str>, CommitState, &'static str)> {
    let asked = matches!(before, None | Some("awaiting_approval" | "queued" | "starting"));
    match &deployment.state {
        State::AwaitingApproval if before.is_none() => Some((
            Some("deployment.waiting_for_approval"),
            CommitState::Pending,
            "waits for approval",
        )),
        State::Queued if before != Some("queued") => {
            Some((None, CommitState::Pending, "waits for its turn"))
        }
        State::Finished(outcome) => Some(match outcome {
            Outcome::Succeeded => {
                (Some("deployment.succeeded"), CommitState::Success, "serves all users")
            }
            Outcome::RolledBack | Outcome::Aborted => {
                (Some("deployment.rolled_back"), CommitState::Failure, "rolled back")
            }
            Outcome::Failed | Outcome::RollbackFailed | Outcome::Rejected | Outcome::Expired => {
                (Some("deployment.failed"), CommitState::Failure, "failed")
            }
            Outcome::Cancelled | Outcome::Superseded => {
                (Some("deployment.cancelled"), CommitState::Error, "not deployed")
            }
        }),
        // The provider has it; asking it may be repeated.
        state if asked && state.started().is_some() => {
            Some((Some("deployment.started"), CommitState::Pending, "is being deployed"))
        }
        _ => None,
    }
}

/// Called in the transaction of a deployment's change.
pub(crate) async fn deployment_told(
    tx: &mut SqliteConnection,
    before: Option<&str>,
    deployment: &Deployment,
    now: Timestamp,
) -> StoreResult<()> {
    let Some((event, state, words)) = event(before, deployment) else { return Ok(()) };
    let place = format!("{}/{}", deployment.environment, deployment.service);
    if let Some(event) = event {
        let release = &deployment.release;
        let data = json!({
            "deployment": deployment.id,
            "environment": deployment.environment,
            "service": deployment.service,
            "sequence": deployment.sequence,
            "purpose": match deployment.purpose {
                Purpose::Ship => "ship",
                Purpose::Rollback { .. } => "rollback",
            },
            "strategy": strategy_text(&deployment.strategy),
            "repo": release.repo_name,
            "commit": release.commit,
            "run": release.run,
            "requested_by": deployment.requested_by,
            "state": deployment.state.as_str(),
            "reason": deployment.reason,
            "verdict": deployment.verdict.as_ref().map(|verdict| json!({
                "answer": verdict.answer,
                "code": verdict.code,
                "message": verdict.message,
            })),
            "serves_again": match deployment.state.outcome() {
                Some(Outcome::RolledBack | Outcome::Aborted) => {
                    deployment.replaces.as_ref().map(|old| old.release.commit.as_str())
                }
                _ => None,
            },
        });
        let notice = Notice::Notification { event: event.to_owned(), data };
        enqueue(tx, &format!("deployment {}", deployment.id), &notice, now).await?;
    }
    // A rollback ships an old commit; how that one once fared doesn't change.
    if deployment.purpose == Purpose::Ship {
        commit_status(tx, deployment, &place, state, words, now).await?;
    }
    Ok(())
}

/// The deployment's state on its commit, if the forge listens.
async fn commit_status(
    tx: &mut SqliteConnection,
    deployment: &Deployment,
    place: &str,
    state: CommitState,
    words: &str,
    now: Timestamp,
) -> StoreResult<()> {
    let repo = deployment.release.repo.to_string();
    let listens = sqlx::query_scalar!(
        "SELECT COUNT(*) FROM repos AS r JOIN forge_tokens AS f ON f.repo = r.id
         WHERE r.id = ? AND r.forge = 'github'",
        repo
    )
    .fetch_one(&mut *tx)
    .await
    .map_err(failed)?;
    if listens == 0 {
        return Ok(());
    }
    let commit = deployment.release.commit.clone();
    let key = format!("status {repo} {commit} deploy {place}");
    // What was not told yet is out of date.
    sqlx::query!("DELETE FROM outbox WHERE key = ? AND state = 'waiting'", key)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    let description = match (&deployment.reason, state) {
        (Some(why), CommitState::Failure | CommitState::Error) => {
            format!("{words}: {}", why.message).chars().take(140).collect()
        }
        (_, _) => words.to_owned(),
    };
    let notice = Notice::DeploymentStatus {
        repo: deployment.release.repo,
        deployment: deployment.id,
        commit,
        place: place.to_owned(),
        state,
        description,
    };
    enqueue(tx, &key, &notice, now).await
}

/// Called in the transaction in which an incident was opened or closed.
pub(crate) async fn incident_told(
    tx: &mut SqliteConnection,
    incident: &IncidentView,
    now: Timestamp,
) -> StoreResult<()> {
    let event =
        if incident.restored_at.is_some() { "incident.resolved" } else { "incident.opened" };
    let data = json!({
        "incident": incident.id,
        "environment": incident.environment,
        "service": incident.service,
        "title": incident.title,
        "impact_at": incident.impact_at,
        "detected_at": incident.detected_at,
        "restored_at": incident.restored_at,
        "deployment": incident.deployment,
        "link": incident.link,
        "opened_by": incident.opened_by,
        "closed_by": incident.closed_by,
    });
    let notice = Notice::Notification { event: event.to_owned(), data };
    enqueue(tx, &format!("incident {}", incident.id), &notice, now).await
}
