//! A canary that has a share of the traffic: its weight is kept, and it is judged.

use std::time::Duration;

use pipeyard_api::deploys::{ArmView, SampleView};
use pipeyard_deploy::{
    judge::{Counts, Judge, Ruling, Slice},
    provider::ProviderStatus,
};
use pipeyard_model::{
    deployment::{Answer, Event, Shift, Started, State, Verdict, short},
    fleet::TrafficReport,
    plan::Strategy,
};

use super::{
    carry::{Beside, Carry, Trouble},
    plan::PATIENCE,
    watch::{Side, complete, over, side},
};

/// A gap in the data that is longer doesn't count as watched.
const GAP: Duration = Duration::from_secs(5);

/// Tells the proxy, and stores its word. The row's version fences: a server that lost its place
/// can't move traffic.
pub(super) async fn set_weight(
    carry: &mut Carry<'_>,
    side: &Side,
    started: &Started,
    shift: &Shift,
) -> Result<(), Trouble> {
    let report = tell_proxy(carry, side, started, shift.weight).await?;
    carry.look.measured_weight = report.and_then(|r| r.measured);
    carry.apply(Event::WeightSet).await
}

/// Tells the proxy only; its report, if there is a proxy that takes weights.
pub(super) async fn tell_proxy(
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

/// One look at a canary: what was counted since the last one, and what follows.
pub(super) async fn judge(
    carry: &mut Carry<'_>,
    started: &Started,
    shift: &Shift,
) -> Result<(), Trouble> {
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
    carry.look.health = judge.standings();
    let sample = slice.map(|slice| sample(&slice, &report));
    let beside = Beside { judge: serde_json::to_string(&judge).ok(), sample };
    if let Ruling::Broken(finding) = ruling {
        let verdict = verdict(carry, Answer::Broken, finding.code, finding.message);
        return carry.apply_with(Event::Judged(verdict), beside).await;
    }
    let (gap, taken) = (at.since(last), judge.last_reading() == Some(at));
    let by = if taken && gap <= GAP { gap } else { Duration::ZERO };
    carry.apply_with(Event::Watched { by }, beside).await?;
    let hold = hold_time(&carry.stored.deployment.strategy, shift.step);
    let State::Shifting(_, shift) = carry.stored.deployment.state.clone() else { return Ok(()) };
    let overdue = now.since(shift.set.unwrap_or(now)) >= hold + PATIENCE;
    match watched(&shift, hold).and_then(|()| judge.enough()) {
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
        Err(missing) if overdue => {
            let text = format!("{missing}, after {}", short(judge.age(now)));
            let verdict = verdict(carry, Answer::Inconclusive, "too_little_data", text);
            carry.apply(Event::Judged(verdict)).await
        }
        Err(_) => Ok(()),
    }
}

/// Whether the step was watched for its time on fresh data; otherwise what is missing.
fn watched(shift: &Shift, hold: Duration) -> Result<(), String> {
    let watched = shift.watched();
    if watched >= hold {
        return Ok(());
    }
    Err(format!("fresh data for {} of {} only", short(watched), short(hold)))
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
