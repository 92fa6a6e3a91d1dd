use std::fmt::Write as _;

use super::*;
use crate::{
    ReleaseId, RepoId, RunId,
    deployment::{Purpose, Release, Times},
    plan::CanaryStep,
};

const START: Timestamp = Timestamp::from_seconds(1_772_366_400);

fn release(commit: &str) -> Release {
    Release {
        id: ReleaseId(uuid::Uuid::from_u128(1)),
        repo: RepoId(uuid::Uuid::from_u128(2)),
        repo_name: "shop".parse().unwrap(),
        commit: commit.repeat(40),
        run: RunId(1),
        job: "package".parse().unwrap(),
        artifact: "shop.tar.gz".into(),
        sha256: "ab".repeat(32),
        size: 1,
    }
}

fn replaced() -> Replaced {
    Replaced { deployment: DeploymentId(1), release: release("a") }
}

fn deployment(state: State, otherwise: Otherwise) -> Deployment {
    let steps = [(10, 60), (50, 120)]
        .map(|(weight, hold)| CanaryStep { weight, hold: Duration::from_secs(hold) });
    Deployment {
        id: DeploymentId(7),
        version: 1,
        environment: "production".parse().unwrap(),
        service: "web".parse().unwrap(),
        sequence: 3,
        purpose: Purpose::Ship,
        release: release("b"),
        replaces: Some(replaced()),
        strategy: Strategy::Canary { steps: steps.to_vec() },
        limits: vec![],
        otherwise,
        job: None,
        requested_by: "ann".into(),
        approval: Approval::Needed,
        approvals: vec![],
        asks_approval: Some(true),
        state,
        reason: None,
        verdict: None,
        trouble: None,
        troubles: 0,
        times: Times {
            created: START,
            started: None,
            first_traffic: None,
            restored: None,
            finished: None,
        },
    }
}

fn token() -> IntentId {
    IntentId(uuid::Uuid::from_u128(3))
}

fn started() -> Started {
    Started { token: token(), provider: "d-1".into() }
}

fn states() -> Vec<(&'static str, State)> {
    let intent = Intent { token: token(), since: START, asked: START, ended_by: None };
    let ended = Intent { ended_by: Some("ann".into()), ..intent.clone() };
    let shift = |step, weight| Shift { step, weight, set: None, watched_us: 0 };
    let back = Return { since: START, by_person: false, successor: None };
    vec![
        ("awaiting_approval", State::AwaitingApproval),
        ("queued", State::Queued),
        ("starting", State::Starting(intent.clone())),
        ("ambiguous", State::Ambiguous(intent)),
        ("ambiguous, ended", State::Ambiguous(ended)),
        ("preparing", State::Preparing(started())),
        ("working", State::Working(started())),
        ("shifting 1 of 2", State::Shifting(started(), shift(0, 10))),
        ("shifting 2 of 2", State::Shifting(started(), shift(1, 50))),
        ("holding", State::Holding(started(), shift(0, 10))),
        ("completing", State::Completing(started())),
        ("rolling_back", State::RollingBack(started(), back.clone())),
        (
            "rolling_back, a person's",
            State::RollingBack(started(), Return { by_person: true, ..back }),
        ),
        ("succeeded", State::Finished(Outcome::Succeeded)),
        ("rolled_back", State::Finished(Outcome::RolledBack)),
    ]
}

fn verdict(answer: Answer) -> Verdict {
    Verdict { answer, code: "limit_broken".into(), message: "why".into(), at: START }
}

fn given(by: &str) -> Given {
    Given { user: None, by: by.into(), at: START, own: Some(false), comment: None }
}

fn events() -> Vec<(&'static str, Event)> {
    let ended = |successor| Event::ProviderEnded { problem: "it broke".into(), successor };
    vec![
        ("approved", Event::Approved { given: given("ann"), missing: None }),
        (
            "approved, one more is needed",
            Event::Approved { given: given("ann"), missing: Some(Reason::new("x", "y")) },
        ),
        ("approval missing", Event::ApprovalMissing(Reason::new("x", "y"))),
        ("approval met", Event::ApprovalMet),
        ("aborted", Event::Aborted { by: "ann".into(), comment: None }),
        ("promoted", Event::Promoted { by: "ann".into(), comment: None }),
        ("superseded", Event::Superseded { by: DeploymentId(8) }),
        ("expired", Event::Expired),
        ("waits", Event::Waits(Reason::new("x", "y"))),
        ("turn came", Event::TurnCame { token: token(), replaces: Some(replaced()) }),
        ("refused", Event::Refused(Reason::new("x", "y"))),
        ("created", Event::Created { provider: "d-1".into(), adopted: false }),
        ("lost", Event::Lost { problem: "reset".into() }),
        ("absent", Event::Absent),
        ("busy", Event::Busy { provider: "d-0".into() }),
        ("ready", Event::Ready),
        ("weight set", Event::WeightSet),
        ("traffic began", Event::TrafficBegan),
        ("watched", Event::Watched { by: Duration::from_secs(1) }),
        ("step passed", Event::StepPassed { verdict: verdict(Answer::Healthy) }),
        ("judged broken", Event::Judged(verdict(Answer::Broken))),
        ("provider succeeded", Event::ProviderSucceeded),
        ("provider ended", ended(None)),
        ("provider ended, restores", ended(Some("d-2".into()))),
        ("successor seen", Event::SuccessorSeen { provider: "d-2".into() }),
        ("restored", Event::Restored),
        ("returned", Event::Returned),
        ("nothing before", Event::NothingBefore),
        ("return failed", Event::ReturnFailed { problem: "gone".into() }),
        ("trouble", Event::Troubled { problem: Reason::new("x", "y"), until: START }),
        ("answers", Event::Answers),
        ("gave up", Event::GaveUp { problem: "y".into() }),
    ]
}

fn after(applied: &Applied) -> String {
    let state = &applied.next.state;
    let mut text = match state {
        State::Ambiguous(_) => "ambiguous".to_owned(),
        State::AwaitingApproval
        | State::Queued
        | State::Starting(_)
        | State::Preparing(_)
        | State::Working(_)
        | State::Shifting(..)
        | State::Holding(..)
        | State::Completing(_)
        | State::RollingBack(..)
        | State::Finished(_) => state.as_str().to_owned(),
    };
    if let State::Shifting(_, shift) | State::Holding(_, shift) = state {
        let _ = write!(text, " {} %", shift.weight);
    }
    text
}

/// Reviewed by a person: every cell is what should happen.
#[test]
fn every_state_and_event_has_a_reviewed_answer() {
    let mut text = String::new();
    for (otherwise, word) in [(Otherwise::Rollback, "rollback"), (Otherwise::Hold, "hold")] {
        for (name, state) in states() {
            let d = deployment(state, otherwise);
            let _ = writeln!(text, "{name} (otherwise: {word})");
            for (event_name, event) in events() {
                match d.apply(event, START) {
                    Ok(applied) => {
                        let _ = writeln!(text, "  {event_name} -> {}", after(&applied));
                    }
                    Err(refusal) if refusal.code == "does_not_fit" => {}
                    Err(refusal) if refusal.code == "deployment_finished" => {}
                    Err(refusal) => {
                        let _ = writeln!(text, "  {event_name} !! {}", refusal.code);
                    }
                }
            }
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_finished_deployment_never_changes() {
    for outcome in [
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::RolledBack,
        Outcome::Aborted,
        Outcome::RollbackFailed,
        Outcome::Cancelled,
        Outcome::Superseded,
        Outcome::Expired,
        Outcome::Rejected,
    ] {
        for (_, event) in events() {
            let d = deployment(State::Finished(outcome), Otherwise::Rollback);
            assert_eq!(d.apply(event, START).unwrap_err().code, "deployment_finished");
        }
    }
}

#[test]
fn a_canary_goes_through_its_steps_and_then_takes_all_traffic() {
    let mut d = deployment(State::Queued, Otherwise::Rollback);
    let at = |s| START + Duration::from_secs(s);
    let walk = [
        (1, Event::TurnCame { token: token(), replaces: Some(replaced()) }),
        (2, Event::Created { provider: "d-1".into(), adopted: false }),
        (3, Event::Ready),
        (4, Event::WeightSet),
        (64, Event::StepPassed { verdict: verdict(Answer::Healthy) }),
        (65, Event::WeightSet),
        (185, Event::StepPassed { verdict: verdict(Answer::Healthy) }),
        (186, Event::ProviderSucceeded),
    ];
    let mut weights = vec![];
    for (second, event) in walk {
        d = d.apply(event, at(second)).unwrap().next;
        weights.push(d.state.weight());
    }
    let all = [None, Some(0), Some(10), Some(10), Some(50), Some(50), Some(100), None];
    assert_eq!(weights, all);
    assert_eq!(d.state, State::Finished(Outcome::Succeeded));
    assert_eq!((d.times.started, d.times.first_traffic), (Some(at(1)), Some(at(4))));
    assert_eq!(d.times.finished, Some(at(186)));
    assert_eq!(d.version, 9);
}

#[test]
fn a_first_release_is_not_shifted_step_by_step() {
    let d = deployment(State::Queued, Otherwise::Rollback);
    let d = d.apply(Event::TurnCame { token: token(), replaces: None }, START).unwrap().next;
    let d = d.apply(Event::Created { provider: "d-1".into(), adopted: false }, START).unwrap();
    assert_eq!(d.next.state, State::Working(started()));
}

#[test]
fn an_abort_while_the_answer_is_lost_takes_it_back_once_it_is_found() {
    let intent = Intent { token: token(), since: START, asked: START, ended_by: None };
    let d = deployment(State::Ambiguous(intent), Otherwise::Rollback);
    let d = d.apply(Event::Aborted { by: "ann".into(), comment: None }, START).unwrap().next;
    let found = d.apply(Event::Created { provider: "d-1".into(), adopted: true }, START).unwrap();
    assert!(matches!(found.next.state, State::RollingBack(_, Return { by_person: true, .. })));
    let absent = d.apply(Event::Absent, START).unwrap();
    assert_eq!(absent.next.state, State::Finished(Outcome::Cancelled));
}

#[test]
fn trouble_is_told_once_and_forgotten_when_it_is_over() {
    let at = |s| START + Duration::from_secs(s);
    let shift = Shift { step: 0, weight: 10, set: Some(START), watched_us: 0 };
    let mut d = deployment(State::Shifting(started(), shift), Otherwise::Rollback);
    let down = |code: &str| Event::Troubled { problem: Reason::new(code, "down"), until: at(120) };
    let mut told = vec![];
    for (second, event) in [
        (1, down("provider_unreachable")),
        (2, down("provider_unreachable")),
        (3, down("provider_refused")),
        (64, Event::Answers),
        (65, Event::Answers),
    ] {
        let applied = d.apply(event, at(second)).unwrap();
        told.push(applied.entries.iter().map(|e| e.message.clone()).collect::<Vec<_>>());
        d = applied.next;
        if second < 64 {
            let trouble = d.trouble.as_ref().unwrap();
            assert_eq!((trouble.since, trouble.until), (at(1), at(120)));
        }
    }
    let doing = "10 % of the traffic stays with the new release";
    assert_eq!(
        told,
        [
            vec![format!("down; {doing}")],
            vec![],
            vec![format!("down; {doing}")],
            vec!["the provider answers again, after 1m3s".to_owned()],
            vec![],
        ]
    );
    assert_eq!((d.trouble, d.troubles), (None, 1));
}

#[test]
fn a_provider_that_comes_and_goes_does_not_fill_the_timeline() {
    let mut d = deployment(State::Completing(started()), Otherwise::Rollback);
    let mut told = 0;
    for _ in 0..1_000 {
        let down = Event::Troubled { problem: Reason::new("x", "down"), until: START };
        for event in [down, Event::Answers] {
            let applied = d.apply(event, START).unwrap();
            told += applied.entries.len();
            d = applied.next;
        }
    }
    assert!((20..200).contains(&told), "{told}");
}

#[test]
fn it_starts_once_every_approval_is_there_and_keeps_each() {
    let d = deployment(State::AwaitingApproval, Otherwise::Rollback);
    let missing = Some(Reason::new("waits_for_approval", "1 of 2"));
    let one = d.apply(Event::Approved { given: given("ann"), missing }, START).unwrap().next;
    assert_eq!((&one.state, &one.approval), (&State::AwaitingApproval, &Approval::Needed));
    let both = one.apply(Event::Approved { given: given("ben"), missing: None }, START).unwrap();
    assert_eq!(both.next.state, State::Queued);
    let by: Vec<String> = both.next.given().into_iter().map(|given| given.by).collect();
    assert_eq!(by, ["ann", "ben"]);
}

#[test]
fn what_an_earlier_version_stored_of_an_approval_is_still_read() {
    let mut json = serde_json::to_value(deployment(State::Queued, Otherwise::Hold)).unwrap();
    let map = json.as_object_mut().unwrap();
    map.remove("approvals");
    map.remove("asks_approval");
    let old: Deployment = serde_json::from_value(json.clone()).unwrap();
    assert!(old.asks_approval() && old.given().is_empty());
    json["approval"] = serde_json::json!(
        {"given": {"by": "ann", "at": "2026-03-01T12:00:00Z", "own": true, "comment": null}});
    let approved: Deployment = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(approved.given().len(), 1);
    json["approval"] = "not_needed".into();
    assert!(!serde_json::from_value::<Deployment>(json).unwrap().asks_approval());
}

#[test]
fn a_deployment_survives_its_row() {
    for (_, state) in states() {
        let d = deployment(state, Otherwise::Hold);
        let json = serde_json::to_string(&d).unwrap();
        assert_eq!(serde_json::from_str::<Deployment>(&json).unwrap(), d);
    }
}
