//! One place: who waits, whose turn it is, and one step for the one that is under way.

use std::time::Duration;

use pipeyard_api::deploys::QueuePolicy;
use pipeyard_model::{
    DeploymentId,
    deployment::{Deployment, Event, Purpose, Reason, State},
};
use pipeyard_store::deployments::{Place, Stored};

use super::{
    carry::{Carry, Trouble},
    plan, start, watch,
};
use crate::{AppState, gate};

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
    let deployments = still_taken(state, deployments, place.as_ref()).await?;
    let newest = newest(&deployments, policy);
    for stored in deployments {
        let mut carry = Carry::new(state, stored);
        let d = &carry.stored.deployment;
        if let Some(by) = superseded(d, newest) {
            carry.apply(Event::Superseded { by }).await?;
        } else if d.state.is_active() {
            active = Some(carry);
        } else if let Some(frozen) = rules_hold(&mut carry).await? {
            waiting.push((carry, frozen));
        }
    }
    if let Some(mut carry) = active {
        let before = carry.stored.deployment.id;
        for (other, _) in &mut waiting {
            let text = format!("waits for the end of deployment {before}");
            other.wait(Reason::new("waits_for_turn", text)).await?;
        }
        return watch::advance(&mut carry).await;
    }
    // A rollback goes first; what is frozen holds back nobody.
    waiting.sort_by_key(|(carry, frozen)| {
        let d = &carry.stored.deployment;
        (frozen.is_some(), d.purpose == Purpose::Ship, d.sequence)
    });
    let mut waiting = waiting.into_iter();
    let Some((mut next, frozen)) = waiting.next() else { return Ok(()) };
    for (mut other, frozen) in waiting {
        let text = format!("waits for the end of deployment {}", next.stored.deployment.id);
        let reason = frozen.unwrap_or_else(|| Reason::new("waits_for_turn", text));
        other.wait(reason).await?;
    }
    match frozen {
        Some(reason) => next.wait(reason).await,
        None => start::start(&mut next).await,
    }
}

/// Those that may still go on; the others are ended with the reason. Before anything else, so that one
/// that isn't taken any more pushes out none that is.
async fn still_taken(
    state: &AppState,
    deployments: Vec<Stored>,
    place: Option<&Place>,
) -> Result<Vec<Stored>, Trouble> {
    let mut taken = Vec::new();
    for stored in deployments {
        let d = &stored.deployment;
        let refused = if matches!(d.state, State::AwaitingApproval | State::Queued) {
            let verdict = gate::verdict(state, d).await?;
            let not_taken = verdict.and_then(|verdict| verdict.taken.err());
            not_taken.or_else(|| place.and_then(|place| plan::impossible(d, place)))
        } else {
            None
        };
        match refused {
            Some(reason) => Carry::new(state, stored).apply(Event::Refused(reason)).await?,
            None => taken.push(stored),
        }
    }
    Ok(taken)
}

/// Asks for what the environment's rules want by now of one that waits. Answers nothing while people
/// must act; otherwise why it is frozen, if it is.
async fn rules_hold(carry: &mut Carry<'_>) -> Result<Option<Option<Reason>>, Trouble> {
    let d = &carry.stored.deployment;
    let awaits = d.state == State::AwaitingApproval;
    let expired = awaits && carry.now().since(d.times.created) > APPROVAL;
    // Without a verdict the rules have no say: nothing but an approval that was asked for holds it.
    let verdict = gate::verdict(carry.state, d).await?;
    let missing = match &verdict {
        Some(verdict) => verdict.approvals.waits(),
        None if awaits => d.reason.clone(),
        None => None,
    };
    match missing {
        Some(_) if expired => carry.apply(Event::Expired).await?,
        Some(reason) if awaits => carry.wait(reason).await?,
        Some(reason) => carry.apply(Event::ApprovalMissing(reason)).await?,
        None if awaits => carry.apply(Event::ApprovalMet).await?,
        None => return Ok(Some(verdict.and_then(|verdict| verdict.frozen).map(|f| f.reason))),
    }
    Ok(None)
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
