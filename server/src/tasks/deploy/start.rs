//! Starting at the provider, exactly once.

use pipeyard_deploy::provider::{Bundle, CreateAnswer, CreateRequest, ProviderError};
use pipeyard_model::{
    IntentId,
    deployment::{Event, Intent, Reason, Replaced},
    plan::Otherwise,
};

use super::{
    carry::{Carry, Trouble},
    commits,
    plan::{self, Target},
};
use crate::{blobs::Unsound, providers::Reach};

/// The code of a release whose bytes aren't those that were built.
const DAMAGED: &str = pipeyard_deploy::provider::RELEASE_DAMAGED;

/// Its turn came: everything that may be repeated is done first, then the intent is stored, then
/// the provider is asked.
pub(super) async fn start(carry: &mut Carry<'_>) -> Result<(), Trouble> {
    let store = &carry.state.store;
    let d = &carry.stored.deployment;
    let serving = store.serving(&d.environment, &d.service).await?;
    let replaces = serving.map(|s| Replaced { deployment: s.id, release: s.release });
    // What it replaces decides whether it is a canary at all.
    carry.stored.deployment.replaces.clone_from(&replaces);
    let Some((reach, target)) = reach(carry).await? else { return Ok(()) };
    let bundle = Bundle { sha256: carry.stored.deployment.release.sha256.clone() };
    // Before anything is asked for: what is damaged here will be damaged there.
    let file = match carry.state.blobs.verified(&bundle.sha256).await {
        Ok(file) => file,
        Err(Unsound::Missing) => {
            let text = format!("the bundle {} is gone from the server's store", bundle.sha256);
            return carry.apply(Event::Refused(Reason::new("bundle_gone", text))).await;
        }
        Err(problem) => return carry.apply(Event::Refused(damaged(&problem))).await,
    };
    let ready = async {
        reach.provider.prepare(&target.group, target.style).await?;
        reach.provider.upload(&bundle, &file).await
    };
    if let Err(error) = ready.await {
        return unavailable(carry, error).await;
    }
    commits::record(carry).await?;
    let token = IntentId::new();
    carry.apply(Event::TurnCame { token, replaces }).await?;
    ask(carry, &reach, &target, token).await
}

/// Nothing helps but other bytes.
fn damaged(problem: &dyn std::fmt::Display) -> Reason {
    let text = format!(
        "the release is damaged: {problem}. Run its commit again, go back to another release, or bring \
         the file back from a backup"
    );
    Reason::new(DAMAGED, text)
}

/// Asks the provider and stores what came of it. Only called right after the intent was stored, or
/// its token was proven absent, by this very pass.
async fn ask(
    carry: &mut Carry<'_>,
    reach: &Reach,
    target: &Target,
    token: IntentId,
) -> Result<(), Trouble> {
    let d = &carry.stored.deployment;
    let commit = d.release.commit.get(..9).unwrap_or(&d.release.commit);
    let request = CreateRequest {
        group: target.group.name.clone(),
        token,
        note: format!("deployment {} of {} at {commit}", d.id, d.release.repo_name),
        bundle: Bundle { sha256: d.release.sha256.clone() },
        style: target.style,
        roll_back: d.otherwise == Otherwise::Rollback,
    };
    tracing::info!(deployment.id = %d.id, limits = carry.limits_text(), "the provider is asked");
    let event = match reach.provider.create(&request).await {
        CreateAnswer::Created(provider) => Event::Created { provider, adopted: false },
        // Whose it is: the next pass looks.
        CreateAnswer::Busy => Event::Lost { problem: "it is busy".into() },
        CreateAnswer::Lost(problem) => Event::Lost { problem },
        CreateAnswer::Refused { code, message } => {
            let text = format!("the provider refused it: {code}: {message}");
            Event::Refused(Reason::new("provider_refused", text))
        }
    };
    carry.apply(event).await
}

/// The intent is stored, and whether the provider heard isn't known.
pub(super) async fn find(carry: &mut Carry<'_>, intent: &Intent) -> Result<(), Trouble> {
    let Some((reach, target)) = reach(carry).await? else { return Ok(()) };
    let found = reach.provider.find(&target.group.name, intent.token, intent.since).await;
    let finding = found.map_err(|error| carry.provider_trouble(error))?;
    if let Some(provider) = finding.ours {
        return carry.apply(Event::Created { provider, adopted: true }).await;
    }
    if carry.now().since(intent.asked) < reach.provider.settles_within() {
        // A request that is still under way would be doubled.
        return Ok(());
    }
    if let Some(provider) = finding.active {
        return carry.apply(Event::Busy { provider }).await;
    }
    let ended = intent.ended_by.is_some();
    carry.apply(Event::Absent).await?;
    if ended { Ok(()) } else { ask(carry, &reach, &target, intent.token).await }
}

/// Who deploys this, and what is asked for; none when it waits or was refused.
pub(super) async fn reach<'c>(carry: &mut Carry<'c>) -> Result<Option<(Reach, Target)>, Trouble> {
    let d = &carry.stored.deployment;
    let Some(place) = carry.state.store.place(&d.environment, &d.service).await? else {
        let text = format!("{}/{} was retired", d.environment, d.service);
        carry.apply(Event::Refused(Reason::new("service_not_found", text))).await?;
        return Ok(None);
    };
    let reach = match carry.state.providers.reach(&place.provider).await {
        Ok(reach) => reach,
        Err(error) => {
            unavailable(carry, error).await?;
            return Ok(None);
        }
    };
    match plan::target(d, &place, reach.traffic.is_some()) {
        Ok(target) => Ok(Some((reach, target))),
        // The provider was changed under its feet: somebody may change it back.
        Err(Reason { code, message }) if d.state.started().is_some() => {
            Err(carry.provider_trouble(ProviderError::Refused { code, message }))
        }
        Err(reason) => {
            carry.apply(Event::Refused(reason)).await?;
            Ok(None)
        }
    }
}

/// Waits when it may get better, ends when it won't.
async fn unavailable(carry: &mut Carry<'_>, error: ProviderError) -> Result<(), Trouble> {
    let waits = !carry.stored.deployment.state.is_active();
    match error {
        ProviderError::Unreachable(problem) if waits => {
            let text = format!("waits until the provider answers: {problem}");
            carry.wait(Reason::new("provider_unreachable", text)).await
        }
        ProviderError::Refused { code, message } if waits && code == DAMAGED => {
            carry.apply(Event::Refused(damaged(&message))).await
        }
        ProviderError::Refused { code, message } if waits => {
            let text = format!("the provider refused it: {code}: {message}");
            carry.apply(Event::Refused(Reason::new("provider_refused", text))).await
        }
        error => Err(carry.provider_trouble(error)),
    }
}
