//! One step of a deployment that is under way.

use std::time::Duration;

use pipeyard_api::deploys::{ArmView, HealthView, SampleView, TargetEventView, TargetView};
use pipeyard_deploy::{
    judge::{Counts, Judge, Ruling, Slice, Standing},
    provider::{GroupName, ProviderStatus, Snapshot, Style},
};
use pipeyard_model::{
    deployment::{Answer, Duty, Event, Return, Shift, Started, State, Verdict, short},
    fleet::TrafficReport,
    plan::Strategy,
};

use super::{
    carry::{Beside, Carry, Trouble},
    plan::PATIENCE,
    start, trouble,
};
use crate::providers::Reach;

/// A gap in the data that is longer doesn't count as watched.
const GAP: Duration = Duration::from_secs(5);
/// How long the provider may take to begin restoring the old release.
const RESTORES_WITHIN: Duration = Duration::from_secs(60);

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
struct Side {
    reach: Reach,
    group: GroupName,
    style: Style,
}

async fn side(carry: &mut Carry<'_>) -> Result<Option<Side>, Trouble> {
    let found = start::reach(carry).await?;
    Ok(found.map(|(reach, target)| Side { reach, group: target.group.name, style: target.style }))
}

async fn observe(carry: &mut Carry<'_>, side: &Side, id: &str) -> Result<Snapshot, Trouble> {
    let snapshot = side.reach.provider.observe(id).await;
    let snapshot = snapshot.map_err(|e| carry.provider_trouble(e))?;
    carry.look.provider_id = Some(id.to_owned());
    carry.look.provider_status = Some(snapshot.word.clone());
    Ok(snapshot)
}

/// Reads hosts and container sets; they are only shown, so a failure is passed over.
async fn look_at_targets(carry: &mut Carry<'_>, side: &Side, id: &str) {
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

/// Tells the proxy, and stores its word. The row's version fences: a server that lost its place
/// can't move traffic.
async fn set_weight(
    carry: &mut Carry<'_>,
    side: &Side,
    started: &Started,
    shift: &Shift,
) -> Result<(), Trouble> {
    let report = tell_proxy(carry, side, started, shift.weight).await?;
    carry.look.measured_weight = report.and_then(|r| r.measured);
    carry.apply(Event::WeightSet).await
}

async fn tell_proxy(
    carry: &Carry<'_>,
    side: &Side,
    started: &Started,
    weight: u8,
) -> Result<Option<TrafficReport>, Trouble> {
    let Some(traffic) = &side.reach.traffic else { return Ok(None) };
    let epoch = carry.stored.deployment.version.unsigned_abs();
    let sent = traffic.set_weight(&side.group, &started.provider, weight, epoch).await;
    sent.map(Some).map_err(|e| carry.provider_trouble(e))
}

async fn judge(carry: &mut Carry<'_>, started: &Started, shift: &Shift) -> Result<(), Trouble> {
    let Some(side) = side(carry).await? else { return Ok(()) };
    if shift.set.is_none() {
        return set_weight(carry, &side, started, shift).await;
    }
    let mut judge: Judge = match &carry.stored.judge {
        // A judge that this version can't read begins anew: it only knows less.
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| new_judge(carry)),
        None => new_judge(carry),
    };
    let now = carry.now();
    let last = judge.last_reading().or(shift.set).unwrap_or(now);
    let snapshot = side.reach.provider.observe(&started.provider).await;
    let report = match (&snapshot, &side.reach.traffic) {
        (Ok(_), Some(traffic)) => traffic.traffic(&side.group).await,
        (Ok(_), None) => return Ok(()),
        (Err(error), _) => Err(error.clone()),
    };
    let (snapshot, report) = match (snapshot, report) {
        (Ok(snapshot), Ok(report)) => (snapshot, report),
        (Ok(snapshot), Err(_)) if snapshot.status != ProviderStatus::Ready => {
            return over(carry, &snapshot).await;
        }
        (_, Err(error)) | (Err(error), _) => return Err(carry.provider_trouble(error)),
    };
    carry.look.provider_status = Some(snapshot.word.clone());
    if snapshot.status != ProviderStatus::Ready {
        return over(carry, &snapshot).await;
    }
    if report.intended != shift.weight || report.deployment.as_ref() != Some(&started.provider) {
        // The proxy or the fleet lost it; set it again, and don't count this time.
        tell_proxy(carry, &side, started, shift.weight).await?;
        return Ok(());
    }
    let (ruling, slice) = judge.observe(&report);
    let at = report.at;
    carry.look.measured_weight = report.measured;
    carry.look.health = judge.standings().into_iter().map(health).collect();
    let sample = slice.map(|slice| sample(&slice, &report));
    let beside = Beside { judge: serde_json::to_string(&judge).ok(), sample };
    if let Ruling::Broken(finding) = ruling {
        let verdict = verdict(carry, Answer::Broken, finding.code, finding.message);
        return carry.apply_with(Event::Judged(verdict), beside).await;
    }
    let gap = at.since(last);
    let by = if gap <= GAP { gap } else { Duration::ZERO };
    carry.apply_with(Event::Watched { by }, beside).await?;
    let hold = hold_time(&carry.stored.deployment.strategy, shift.step);
    let State::Shifting(_, shift) = carry.stored.deployment.state.clone() else { return Ok(()) };
    if shift.watched() < hold {
        return Ok(());
    }
    match judge.enough() {
        Ok(()) => {
            let text = judge.why_it_passes(now);
            let verdict = verdict(carry, Answer::Healthy, "all_limits_held", text);
            carry.apply(Event::StepPassed { verdict }).await?;
            match carry.stored.deployment.state.clone() {
                State::Shifting(started, shift) => set_weight(carry, &side, &started, &shift).await,
                State::Completing(started) => complete(carry, &started).await,
                _ => Ok(()),
            }
        }
        Err(missing) if now.since(shift.set.unwrap_or(now)) >= hold + PATIENCE => {
            let text = format!("{missing}, after {}", short(judge.age(now)));
            let verdict = verdict(carry, Answer::Inconclusive, "too_little_data", text);
            carry.apply(Event::Judged(verdict)).await
        }
        Err(_) => Ok(()),
    }
}

/// While it was judged, the provider ended it.
async fn over(carry: &mut Carry<'_>, snapshot: &Snapshot) -> Result<(), Trouble> {
    match snapshot.status {
        ProviderStatus::Succeeded => carry.apply(Event::ProviderSucceeded).await,
        ProviderStatus::Failed | ProviderStatus::Stopped => carry.apply(ended(snapshot)).await,
        ProviderStatus::Working | ProviderStatus::Ready => carry.seen().await,
    }
}

fn new_judge(carry: &Carry<'_>) -> Judge {
    let d = &carry.stored.deployment;
    Judge::new(&d.limits, d.id.0.unsigned_abs())
}

fn verdict(carry: &Carry<'_>, answer: Answer, code: &str, message: String) -> Verdict {
    Verdict { answer, code: code.to_owned(), message, at: carry.now() }
}

fn hold_time(strategy: &Strategy, step: usize) -> Duration {
    match strategy {
        Strategy::Canary { steps } => steps.get(step).map(|s| s.hold).unwrap_or_default(),
        Strategy::AllAtOnce | Strategy::Rolling { .. } => Duration::ZERO,
    }
}

fn health(standing: Standing) -> HealthView {
    let state = if standing.broken {
        "broken"
    } else if standing.requests < standing.needed {
        "too_little_data"
    } else {
        "holding"
    };
    HealthView {
        limit: standing.limit,
        text: standing.text,
        state: state.into(),
        value: standing.value,
        baseline: standing.baseline,
        lower_bound: standing.lower_bound,
        requests: standing.requests,
        needed: standing.needed,
        evidence: standing.evidence,
        evidence_limit: standing.evidence_limit,
    }
}

fn sample(slice: &Slice, report: &TrafficReport) -> SampleView {
    let arm = |counts: &Counts| ArmView {
        requests: counts.requests,
        errors: counts.errors,
        p50_ms: counts.percentile_ms(50),
        p95_ms: counts.percentile_ms(95),
        p99_ms: counts.percentile_ms(99),
    };
    SampleView {
        at: report.at,
        intended_weight: report.intended,
        measured_weight: report.measured,
        canary: arm(&slice.canary),
        stable: Some(arm(&slice.stable)),
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

async fn complete(carry: &mut Carry<'_>, started: &Started) -> Result<(), Trouble> {
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

async fn go_back(carry: &mut Carry<'_>, started: &Started, back: &Return) -> Result<(), Trouble> {
    let Some(side) = side(carry).await? else { return Ok(()) };
    let id = &started.provider;
    let snapshot = observe(carry, &side, id).await?;
    match snapshot.status {
        ProviderStatus::Ready => {
            // Users first; the provider cleans up after, and it can do both.
            if tell_proxy(carry, &side, started, 0).await.is_ok() {
                carry.look.measured_weight = None;
                if carry.stored.deployment.times.restored.is_none() {
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
                // The old set was never touched, and has all traffic.
                return carry.apply(Event::Returned).await;
            }
            if carry.now().since(back.since) > RESTORES_WITHIN {
                let problem = "the provider didn't begin to restore it; hosts may run either release, use `pipectl deploy rollback`";
                return carry.apply(Event::ReturnFailed { problem: problem.into() }).await;
            }
            carry.seen().await
        }
    }
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
