//! A provider that doesn't answer, or refuses, in the middle of a deployment: people are told, it is
//! asked again in every pass, and there is an end to it.

use std::time::Duration;

use pipeyard_deploy::provider::ProviderError;
use pipeyard_model::{
    Timestamp,
    deployment::{Answer, Event, Reason, State, Trouble as Told, Verdict, short},
};

use super::carry::{Carry, Trouble};

/// Without data for so long, a canary's verdict is "inconclusive".
const BLIND: Duration = Duration::from_secs(120);
/// A deployment whose provider doesn't answer for so long ends as failed.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// The same when the provider says that it doesn't know the deployment.
const UNKNOWN: Duration = Duration::from_secs(300);

/// What came of a pass is told: trouble, or that there is none any more.
pub(super) async fn settle(
    carry: &mut Carry<'_>,
    passed: Result<(), Trouble>,
) -> Result<(), Trouble> {
    match passed {
        Ok(()) if carry.stored.deployment.trouble.is_some() => carry.apply(Event::Answers).await,
        Err(Trouble::Provider { error, .. }) => note(carry, &error).await,
        other => other,
    }
}

async fn note(carry: &mut Carry<'_>, error: &ProviderError) -> Result<(), Trouble> {
    let (now, d) = (carry.now(), &carry.stored.deployment);
    if !d.state.is_active() {
        return Ok(());
    }
    let since = d.trouble.as_ref().map_or(now, |trouble| trouble.since);
    let (silence, problem) = (now.since(since), reason(error));
    let patience = match &d.state {
        State::Shifting(..) => BLIND,
        _ if unknown(error) => UNKNOWN,
        _ => PATIENCE,
    };
    if silence <= patience {
        let until = since + patience;
        if !says(d.trouble.as_ref(), &problem, until) {
            tracing::warn!(deployment.id = %d.id, code = problem.code, "{}", problem.message);
            return carry.apply(Event::Troubled { problem, until }).await;
        }
        return Ok(());
    }
    let message = format!("no data for {}: {}", short(silence), problem.message);
    if matches!(d.state, State::Shifting(..)) {
        let (answer, code) = (Answer::Inconclusive, "no_data".to_owned());
        return carry.apply(Event::Judged(Verdict { answer, code, message, at: now })).await;
    }
    carry.apply(Event::GaveUp { problem: message }).await
}

/// Whether people are told this already. The words may differ a little each time.
fn says(told: Option<&Told>, problem: &Reason, until: Timestamp) -> bool {
    told.is_some_and(|told| told.code == problem.code && told.until == until)
}

fn reason(error: &ProviderError) -> Reason {
    match error {
        ProviderError::Unreachable(_) => Reason::new("provider_unreachable", error.to_string()),
        ProviderError::Refused { .. } => Reason::new("provider_refused", error.to_string()),
    }
}

/// It says that there is no such deployment. That may be said in error right after its creation.
fn unknown(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Refused { code, .. } if code.ends_with("DoesNotExistException"))
}
