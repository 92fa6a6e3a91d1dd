//! Facts with short names, for the tests.

use pipeyard_dora::{
    By, CommitFact, Confidence, DeploymentFact, Facts, FailureLink, IncidentFact, Kind, Method,
    Outcome, RangeStatus, Report, Scope, Window,
};
use pipeyard_model::{DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp};

/// The day on which the tests' stories begin.
pub(crate) const DAY: i64 = 86_400;

/// A moment: seconds after 2026-03-02, a Monday.
pub(crate) fn t(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_772_409_600 + seconds)
}

/// A success of `web` that ended at this second; traffic began ten seconds before.
pub(crate) fn deployment(id: i64, end: i64) -> DeploymentFact {
    DeploymentFact {
        id: DeploymentId(id),
        service: ServiceName::new("web").unwrap(),
        environment: EnvironmentName::new("production").unwrap(),
        team: Some("shop".into()),
        sha: format!("{id:040}"),
        kind: Kind::Normal,
        outcome: Outcome::Succeeded,
        created_at: t(end - 60),
        started_at: Some(t(end - 50)),
        first_traffic_at: Some(t(end - 10)),
        finished_at: Some(t(end)),
        restored_at: None,
        rollback_of: None,
        range_status: RangeStatus::Known,
        commits: Vec::new(),
    }
}

/// A commit that was authored at this second and seen a second later.
pub(crate) fn commit(name: &str, authored: i64) -> CommitFact {
    CommitFact {
        sha: name.into(),
        authored_at: t(authored),
        committed_at: t(authored),
        first_seen: Some(t(authored + 1)),
        is_merge: false,
        is_cherry_pick: false,
    }
}

/// An incident of `web`.
pub(crate) fn incident(id: i64, impact: i64, restored: Option<i64>) -> IncidentFact {
    IncidentFact {
        id: IncidentId(id),
        service: ServiceName::new("web").unwrap(),
        environment: EnvironmentName::new("production").unwrap(),
        impact_at: t(impact),
        detected_at: t(impact),
        restored_at: restored.map(t),
        duplicate_of: None,
    }
}

/// A link that a person made.
pub(crate) fn link(deployment: i64, incident: i64) -> FailureLink {
    FailureLink {
        deployment: DeploymentId(deployment),
        incident: Some(IncidentId(incident)),
        method: Method::Manual,
        confidence: Confidence::Certain,
    }
}

/// The report over some days from the first Monday, long afterwards.
pub(crate) fn report(
    days: i64,
    deployments: &[DeploymentFact],
    incidents: &[IncidentFact],
    links: &[FailureLink],
) -> Report {
    let window = Window::utc(t(0), t(days * DAY), By::Day).unwrap();
    Report::new(
        &Facts { deployments, incidents, links },
        &window,
        &Scope::default(),
        t(1_000 * DAY),
    )
}
