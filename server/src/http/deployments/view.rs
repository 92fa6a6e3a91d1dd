//! A stored deployment in the words of the API.

use pipeyard_api::deploys::{
    ApprovalView, CommitsView, DeploymentDetail, DeploymentKind, DeploymentView, GivenView,
    ReasonView, ReleaseView, SampleView, StepProgress, TimelineView, TroubleView, VerdictView,
};
use pipeyard_model::{
    IncidentId, Status,
    deployment::{Approval, Deployment, Outcome, Purpose, Release, State, Trouble, strategy_text},
    environment::Given,
    plan::Strategy,
};
use pipeyard_store::deployments::{Look, Stored};

/// A release for people.
pub(crate) fn release_view(release: &Release) -> ReleaseView {
    ReleaseView {
        id: release.id,
        repo: release.repo_name.clone(),
        commit: release.commit.clone(),
        run: release.run,
        artifact: release.artifact.clone(),
        sha256: release.sha256.clone(),
        size: release.size,
    }
}

/// A deployment for people.
pub(crate) fn deployment_view(d: &Deployment, look: &Look) -> DeploymentView {
    let (purpose, rollback_of) = match &d.purpose {
        Purpose::Ship => (DeploymentKind::Ship, None),
        Purpose::Rollback { of, .. } => (DeploymentKind::Rollback, Some(*of)),
    };
    let intended = d.state.weight().filter(|_| d.is_canary());
    let taken_back = matches!(d.state.outcome(), Some(Outcome::RolledBack | Outcome::Aborted));
    let rolled_back_to =
        d.replaces.as_ref().filter(|_| taken_back).map(|replaced| replaced.deployment);
    DeploymentView {
        kind: "deployment".into(),
        id: d.id,
        environment: d.environment.clone(),
        service: d.service.clone(),
        sequence: d.sequence,
        purpose,
        release: release_view(&d.release),
        replaces: d.replaces.as_ref().map(|replaced| release_view(&replaced.release)),
        strategy: d.strategy.clone(),
        strategy_text: strategy_text(&d.strategy),
        status: d.state.status(),
        conclusion: d.state.outcome().map(Outcome::conclusion),
        state: d.state.as_str().into(),
        reason: d
            .reason
            .as_ref()
            .map(|r| ReasonView { code: r.code.clone(), message: r.message.clone() }),
        trouble: d.trouble.as_ref().map(trouble),
        intended_weight: intended,
        measured_weight: look.measured_weight.filter(|_| intended.is_some()),
        verdict: d.verdict.as_ref().map(|v| VerdictView {
            verdict: v.answer.as_str().into(),
            code: v.code.clone(),
            message: v.message.clone(),
            at: v.at,
        }),
        approval: approval(d),
        run: d.job.map(|_| d.release.run),
        job: d.job,
        requested_by: d.requested_by.clone(),
        rollback_of,
        rolled_back_to,
        created_at: d.times.created,
        started_at: d.times.started,
        first_traffic_at: d.times.first_traffic,
        finished_at: d.times.finished,
    }
}

fn trouble(trouble: &Trouble) -> TroubleView {
    let Trouble { since, code, message, doing, until, then } = trouble.clone();
    TroubleView { since, code, message, doing, until, then }
}

/// As the row tells it; what is missing under the rules of now is added to one that waits.
fn approval(d: &Deployment) -> ApprovalView {
    let given = d.given();
    let last = match &d.approval {
        Approval::Given { .. } => given.last().cloned(),
        Approval::NotNeeded | Approval::Needed => None,
    };
    let needed = d.approval != Approval::NotNeeded;
    ApprovalView {
        needed,
        by: last.as_ref().map(|given| given.by.clone()),
        at: last.as_ref().map(|given| given.at),
        own: given.iter().any(|given| given.own == Some(true)),
        comment: last.and_then(|given| given.comment),
        count: u32::try_from(given.len()).unwrap_or(u32::MAX).max(u32::from(needed)),
        missing: 0,
        who: None,
        not_the_author: false,
        rule: None,
        given: given
            .into_iter()
            .map(|Given { user: _, by, at, own, comment }| GivenView {
                by,
                at,
                own,
                comment,
                counts: true,
            })
            .collect(),
    }
}

/// What belongs to a deployment beside its row.
pub(crate) struct Seen {
    pub(crate) timeline: Vec<TimelineView>,
    pub(crate) samples: Vec<SampleView>,
    pub(crate) commits: CommitsView,
    pub(crate) incidents: Vec<IncidentId>,
}

/// Everything behind a deployment.
pub(crate) fn detail(stored: &Stored, seen: Seen) -> DeploymentDetail {
    let (d, look) = (&stored.deployment, &stored.look);
    DeploymentDetail {
        deployment: deployment_view(d, look),
        provider_id: look
            .provider_id
            .clone()
            .or_else(|| d.state.started().map(|started| started.provider.clone())),
        provider_status: look.provider_status.clone(),
        steps: steps(d, look),
        health: look.health.clone(),
        otherwise: d.otherwise,
        targets: look.targets.clone(),
        samples: seen.samples,
        timeline: seen.timeline,
        commits: seen.commits,
        incidents: seen.incidents,
    }
}

/// The weights of a canary with what came of each, and 100 % at the end.
fn steps(d: &Deployment, look: &Look) -> Vec<StepProgress> {
    let Strategy::Canary { steps } = &d.strategy else { return Vec::new() };
    if !d.is_canary() && d.state != State::AwaitingApproval && d.state != State::Queued {
        return Vec::new();
    }
    let current = match &d.state {
        State::Shifting(_, shift) | State::Holding(_, shift) => Some(shift.step),
        State::Completing(_) | State::Finished(Outcome::Succeeded) => Some(steps.len()),
        _ => None,
    };
    let at = |n: usize| look.steps_at.get(n).copied().flatten();
    let status = |n: usize| match current {
        Some(_) if d.is_finished() => Status::Finished,
        Some(current) if n == current => Status::Running,
        Some(current) if n > current => Status::Queued,
        Some(_) => Status::Finished,
        // It was ended on the way, or hasn't begun.
        None if at(n).is_some() => Status::Finished,
        None => Status::Queued,
    };
    let mut all: Vec<StepProgress> = steps
        .iter()
        .enumerate()
        .map(|(n, step)| StepProgress {
            weight: step.weight,
            hold_seconds: step.hold.as_secs(),
            judged_seconds: look.watched_seconds.get(n).copied().unwrap_or(0),
            status: status(n),
            measured_weight: look.measured_steps.get(n).copied().flatten(),
            started_at: at(n),
        })
        .collect();
    all.push(StepProgress {
        weight: 100,
        hold_seconds: 0,
        judged_seconds: 0,
        status: status(steps.len()),
        measured_weight: None,
        started_at: None,
    });
    all
}
