//! One place: who waits, whose turn it is, and one step for the one that is under way.

use std::time::Duration;

use pipeyard_api::deploys::QueuePolicy;
use pipeyard_model::{
    DeploymentId,
    deployment::{Deployment, Event, Purpose, Reason, State},
};
use pipeyard_store::deployments::Stored;

use super::{
    carry::{Carry, Trouble},
    plan, start, watch,
};
use crate::AppState;

/// How long a deployment waits for an approval.
const APPROVAL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Moves the deployments of one place, oldest first, as far as they go now.
pub(super) async fn drive(state: &AppState, deployments: Vec<Stored>) -> Result<(), Trouble> {
    let mut waiting = Vec::new();
    let mut active = None;
    let place = match deployments.first().map(|s| &s.deployment) {
        Some(first) => state.store.place(&first.environment, &first.service).await?,
        None => None,
    };
    let policy = place.as_ref().map_or(QueuePolicy::InOrder, |place| place.spec.queue);
    let newest = newest(&deployments, policy);
    for stored in deployments {
        let mut carry = Carry::new(state, stored);
        let d = &carry.stored.deployment;
        if let Some(by) = superseded(d, newest) {
            carry.apply(Event::Superseded { by }).await?;
        } else if d.state.is_active() {
            active = Some(carry);
        } else if let Some(reason) = place.as_ref().and_then(|p| plan::impossible(d, p)) {
            carry.apply(Event::Refused(reason)).await?;
        } else if d.state == State::AwaitingApproval {
            if carry.now().since(d.times.created) > APPROVAL {
                carry.apply(Event::Expired).await?;
            }
        } else {
            waiting.push(carry);
        }
    }
    if let Some(mut carry) = active {
        let before = carry.stored.deployment.id;
        for other in &mut waiting {
            let text = format!("waits for the end of deployment {before}");
            other.wait(Reason::new("waits_for_turn", text)).await?;
        }
        return watch::advance(&mut carry).await;
    }
    // A rollback goes first.
    waiting.sort_by_key(|c| {
        let d = &c.stored.deployment;
        (d.purpose == Purpose::Ship, d.sequence)
    });
    let mut waiting = waiting.into_iter();
    if let Some(mut next) = waiting.next() {
        for mut other in waiting {
            let text = format!("waits for the end of deployment {}", next.stored.deployment.id);
            other.wait(Reason::new("waits_for_turn", text)).await?;
        }
        start::start(&mut next).await?;
    }
    Ok(())
}

/// The newest that may start, and the newest of all that wait.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    queued: Option<(i64, DeploymentId)>,
    waiting: Option<(i64, DeploymentId)>,
}

fn newest(deployments: &[Stored], policy: QueuePolicy) -> Newest {
    let mut newest = Newest::default();
    if policy == QueuePolicy::InOrder {
        return newest;
    }
    for d in deployments.iter().map(|s| &s.deployment).filter(|d| d.purpose == Purpose::Ship) {
        let this = Some((d.sequence, d.id));
        if d.state == State::Queued {
            newest.queued = newest.queued.max(this);
        }
        if matches!(d.state, State::Queued | State::AwaitingApproval) {
            newest.waiting = newest.waiting.max(this);
        }
    }
    newest
}

/// A newer one takes its place; one that still needs an approval doesn't push out one that may go.
fn superseded(d: &Deployment, newest: Newest) -> Option<DeploymentId> {
    if d.purpose != Purpose::Ship {
        return None;
    }
    let newer = match d.state {
        State::Queued => newest.queued,
        State::AwaitingApproval => newest.waiting,
        State::Starting(_)
        | State::Ambiguous(_)
        | State::Preparing(_)
        | State::Working(_)
        | State::Shifting(..)
        | State::Holding(..)
        | State::Completing(_)
        | State::RollingBack(..)
        | State::Finished(_) => None,
    };
    newer.filter(|(sequence, _)| *sequence > d.sequence).map(|(_, id)| id)
}
