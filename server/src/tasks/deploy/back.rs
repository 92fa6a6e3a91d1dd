//! The way back to the old release.

use std::time::Duration;

use pipeyard_deploy::provider::{ProviderStatus, Style};
use pipeyard_model::{
    deployment::{Event, Return, Started},
    fleet::ServingState,
};

use super::{
    carry::{Carry, Trouble},
    judging::tell_proxy,
    watch::{Side, look_at_targets, observe, side},
};

/// How long the provider may take to begin restoring the old release.
const RESTORES_WITHIN: Duration = Duration::from_secs(60);

/// Users first, then what is left of the new release.
pub(super) async fn go_back(
    carry: &mut Carry<'_>,
    started: &Started,
    back: &Return,
) -> Result<(), Trouble> {
    let Some(side) = side(carry).await? else { return Ok(()) };
    let id = &started.provider;
    let snapshot = observe(carry, &side, id).await?;
    match snapshot.status {
        ProviderStatus::Ready => {
            // Users first; the provider cleans up after, and it can do both.
            if tell_proxy(carry, &side, started, 0).await.is_ok() {
                carry.look.measured_weight = None;
                if carry.stored.deployment.times.restored.is_none() && dead(&side).await.is_none() {
                    carry.apply(Event::Restored).await?;
                }
            }
            let sent = side.reach.provider.stop(id, true).await;
            sent.map_err(|e| carry.provider_trouble(e))
        }
        ProviderStatus::Working => {
            let sent = side.reach.provider.stop(id, true).await;
            sent.map_err(|e| carry.provider_trouble(e))?;
            carry.seen().await
        }
        ProviderStatus::Succeeded => {
            let problem = "the provider had finished it before it could be stopped; use `pipectl deploy rollback`";
            carry.apply(Event::ReturnFailed { problem: problem.into() }).await
        }
        ProviderStatus::Failed | ProviderStatus::Stopped => {
            look_at_targets(carry, &side, id).await;
            let in_place = matches!(side.style, Style::InPlace { .. });
            if let Some(successor) = snapshot.successor {
                return restore(carry, &side, back, successor).await;
            }
            if carry.stored.deployment.replaces.is_none() {
                return carry.apply(Event::NothingBefore).await;
            }
            if !in_place {
                // The old set was never touched and has all traffic; but it may have died meanwhile.
                let Some(why) = dead(&side).await else {
                    return carry.apply(Event::Returned).await;
                };
                if carry.now().since(back.since) <= RESTORES_WITHIN {
                    return carry.seen().await;
                }
                let problem = format!("the old release has all traffic and doesn't serve: {why}");
                return carry.apply(Event::ReturnFailed { problem }).await;
            }
            if carry.now().since(back.since) > RESTORES_WITHIN {
                let problem = "the provider didn't begin to restore it; hosts may run either release, use `pipectl deploy rollback`";
                return carry.apply(Event::ReturnFailed { problem: problem.into() }).await;
            }
            carry.seen().await
        }
    }
}

/// Why users aren't served, if the provider says so.
async fn dead(side: &Side) -> Option<String> {
    let traffic = side.reach.traffic.as_ref()?;
    let health = traffic.health(&side.group).await.ok()?;
    let reason = health.reason.unwrap_or_else(|| "nothing answers its health check".into());
    (health.state == ServingState::Down).then_some(reason)
}

/// The provider restores the old release by a deployment of its own.
async fn restore(
    carry: &mut Carry<'_>,
    side: &Side,
    back: &Return,
    successor: String,
) -> Result<(), Trouble> {
    if back.successor.as_ref() != Some(&successor) {
        carry.apply(Event::SuccessorSeen { provider: successor.clone() }).await?;
    }
    let snapshot = side.reach.provider.observe(&successor).await;
    let snapshot = snapshot.map_err(|e| carry.provider_trouble(e))?;
    match snapshot.status {
        ProviderStatus::Working => {
            look_at_targets(carry, side, &successor).await;
            carry.seen().await
        }
        ProviderStatus::Ready => {
            let sent = side.reach.provider.proceed(&successor).await;
            sent.map_err(|e| carry.provider_trouble(e))
        }
        ProviderStatus::Succeeded => carry.apply(Event::Returned).await,
        ProviderStatus::Failed | ProviderStatus::Stopped => {
            let why = snapshot.problem.unwrap_or_else(|| "no reason given".into());
            let problem = format!("{successor} ended as {}: {why}", snapshot.word);
            carry.apply(Event::ReturnFailed { problem }).await
        }
    }
}
