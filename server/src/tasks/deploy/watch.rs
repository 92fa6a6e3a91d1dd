//! One step of a deployment that is under way.

use pipeyard_api::deploys::{TargetEventView, TargetView};
use pipeyard_deploy::provider::{GroupName, ProviderStatus, Snapshot, Style};
use pipeyard_model::deployment::{Duty, Event, Shift, Started, State};

use super::{
    back::go_back,
    carry::{Carry, Trouble},
    judging::{judge, set_weight, tell_proxy},
    start, trouble,
};
use crate::providers::Reach;

/// Does what the state asks for; trouble with the provider is told to people.
pub(super) async fn advance(carry: &mut Carry<'_>) -> Result<(), Trouble> {
    let passed = step(carry).await;
    trouble::settle(carry, passed).await
}

async fn step(carry: &mut Carry<'_>) -> Result<(), Trouble> {
    match carry.stored.deployment.state.clone().duty() {
        Duty::Find(intent) => start::find(carry, intent).await,
        Duty::Watch(started) => watch(carry, started).await,
        Duty::Judge(started, shift) => judge(carry, started, shift).await,
        Duty::Hold(started, shift) => hold(carry, started, shift).await,
        Duty::Complete(started) => complete(carry, started).await,
        Duty::Return(started, back) => go_back(carry, started, back).await,
        Duty::AwaitApproval | Duty::AwaitTurn | Duty::Nothing => Ok(()),
    }
}

/// The provider's side of this deployment.
pub(super) struct Side {
    pub(super) reach: Reach,
    pub(super) group: GroupName,
    pub(super) style: Style,
}

pub(super) async fn side(carry: &mut Carry<'_>) -> Result<Option<Side>, Trouble> {
    let found = start::reach(carry).await?;
    Ok(found.map(|(reach, target)| Side { reach, group: target.group.name, style: target.style }))
}

pub(super) async fn observe(
    carry: &mut Carry<'_>,
    side: &Side,
    id: &str,
) -> Result<Snapshot, Trouble> {
    let snapshot = side.reach.provider.observe(id).await;
    let snapshot = snapshot.map_err(|e| carry.provider_trouble(e))?;
    carry.look.provider_id = Some(id.to_owned());
    carry.look.provider_status = Some(snapshot.word.clone());
    Ok(snapshot)
}

/// Reads hosts and container sets; they are only shown, so a failure is passed over.
pub(super) async fn look_at_targets(carry: &mut Carry<'_>, side: &Side, id: &str) {
    if let Ok(targets) = side.reach.provider.targets(id).await {
        carry.look.targets = targets
            .into_iter()
            .map(|target| TargetView {
                id: target.id,
                state: target.state,
                events: target
                    .events
                    .into_iter()
                    .map(|event| TargetEventView {
                        name: event.name,
                        state: event.state,
                        started_at: event.started,
                        finished_at: event.finished,
                        problem: event.problem,
                        log_tail: event.log_tail,
                    })
                    .collect(),
            })
            .collect();
    }
}

/// The provider ended it by itself.
fn ended(snapshot: &Snapshot) -> Event {
    let problem = snapshot.problem.clone().unwrap_or_else(|| "it gave no reason".into());
    let problem = format!("the provider ended it as {}: {problem}", snapshot.word);
    Event::ProviderEnded { problem, successor: snapshot.successor.clone() }
}

async fn watch(carry: &mut Carry<'_>, started: &Started) -> Result<(), Trouble> {
    let Some(side) = side(carry).await? else { return Ok(()) };
    let snapshot = observe(carry, &side, &started.provider).await?;
    look_at_targets(carry, &side, &started.provider).await;
    let preparing = matches!(carry.stored.deployment.state, State::Preparing(_));
    let reached = matches!(side.style, Style::InPlace { .. })
        && carry.look.targets.iter().any(|t| matches!(t.state.as_str(), "succeeded" | "failed"));
    if !preparing && reached && carry.stored.deployment.times.first_traffic.is_none() {
        carry.apply(Event::TrafficBegan).await?;
    }
    match snapshot.status {
        ProviderStatus::Working => carry.seen().await,
        ProviderStatus::Ready if preparing => {
            carry.apply(Event::Ready).await?;
            if let State::Shifting(started, shift) = carry.stored.deployment.state.clone() {
                return set_weight(carry, &side, &started, &shift).await;
            }
            Ok(())
        }
        ProviderStatus::Ready => {
            let sent = side.reach.provider.proceed(&started.provider).await;
            sent.map_err(|e| carry.provider_trouble(e))?;
            carry.seen().await
        }
        ProviderStatus::Succeeded => carry.apply(Event::ProviderSucceeded).await,
        ProviderStatus::Failed | ProviderStatus::Stopped => carry.apply(ended(&snapshot)).await,
    }
}

/// A person decides; the weight stays.
async fn hold(carry: &mut Carry<'_>, started: &Started, shift: &Shift) -> Result<(), Trouble> {
    let Some(side) = side(carry).await? else { return Ok(()) };
    let snapshot = observe(carry, &side, &started.provider).await?;
    if snapshot.status != ProviderStatus::Ready {
        return over(carry, &snapshot).await;
    }
    if let Some(traffic) = &side.reach.traffic {
        let report = traffic.traffic(&side.group).await.map_err(|e| carry.provider_trouble(e))?;
        if report.intended != shift.weight {
            tell_proxy(carry, &side, started, shift.weight).await?;
        }
        carry.look.measured_weight = report.measured;
    }
    carry.seen().await
}

pub(super) async fn complete(carry: &mut Carry<'_>, started: &Started) -> Result<(), Trouble> {
    let Some(side) = side(carry).await? else { return Ok(()) };
    let snapshot = observe(carry, &side, &started.provider).await?;
    if snapshot.status == ProviderStatus::Ready {
        let sent = side.reach.provider.proceed(&started.provider).await;
        sent.map_err(|e| carry.provider_trouble(e))?;
        return carry.seen().await;
    }
    look_at_targets(carry, &side, &started.provider).await;
    over(carry, &snapshot).await
}

/// What follows when the provider may have ended it by itself.
pub(super) async fn over(carry: &mut Carry<'_>, snapshot: &Snapshot) -> Result<(), Trouble> {
    match snapshot.status {
        ProviderStatus::Succeeded => carry.apply(Event::ProviderSucceeded).await,
        ProviderStatus::Failed | ProviderStatus::Stopped => carry.apply(ended(snapshot)).await,
        ProviderStatus::Working | ProviderStatus::Ready => carry.seen().await,
    }
}
