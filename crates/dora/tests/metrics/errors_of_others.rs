//! Mistakes that users of other tools have met, one test each.

use std::collections::BTreeMap;

use crate::common::{DAY, commit, deployment, incident, link, report, t};
use pipeyard_dora::{
    By, Facts, FailureLink, Kind, Metric, MetricName, Outcome, RangeStatus, Report, Rhythm, Scope,
    Standing, Window, attribute,
};
use pipeyard_model::DeploymentId;

use MetricName::{
    ChangeFailRate, ChangeLeadTime, DeploymentFrequency, FailedDeploymentRecoveryTime, ReworkRate,
    TimeToRestore,
};

fn metric(report: &Report, name: MetricName) -> &Metric {
    report.metric(name).unwrap()
}

fn with<T>(mut fact: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut fact);
    fact
}

#[test]
fn a_deployment_with_many_incidents_fails_once() {
    let deployments =
        [deployment(1, 100), deployment(2, 200), deployment(3, 300), deployment(4, 400)];
    let incidents =
        [incident(1, 500, Some(600)), incident(2, 510, Some(900)), incident(3, 520, Some(700))];
    let links = [link(4, 1), link(4, 2), link(4, 3)];
    let report = report(1, &deployments, &incidents, &links);
    let rate = metric(&report, ChangeFailRate);
    assert_eq!((rate.value, rate.numerator, rate.n), (Some(0.25), Some(1), 4));
    let recovery = metric(&report, FailedDeploymentRecoveryTime);
    // From first traffic at 390 to the last restore at 900.
    assert_eq!((recovery.value, recovery.n), (Some(510.0), 1));
    assert_eq!(metric(&report, TimeToRestore).n, 3);
}

#[test]
fn an_incident_that_is_edited_or_delivered_twice_counts_once() {
    let deployments = [deployment(1, 100), deployment(1, 100)];
    let incidents = [incident(1, 200, Some(300)), incident(1, 200, Some(300))];
    let links = [link(1, 1), link(1, 1)];
    let report = report(1, &deployments, &incidents, &links);
    assert_eq!(metric(&report, DeploymentFrequency).n, 1);
    assert_eq!(metric(&report, ChangeFailRate).value, Some(1.0));
    assert_eq!(metric(&report, TimeToRestore).n, 1);
}

#[test]
fn a_repeated_incident_counts_as_the_one_that_it_repeats() {
    let incidents = [
        incident(1, 200, Some(300)),
        with(incident(2, 210, Some(900)), |i| i.duplicate_of = Some(incident(1, 0, None).id)),
    ];
    let report = report(1, &[deployment(1, 100)], &incidents, &[link(1, 1), link(1, 2)]);
    assert_eq!(metric(&report, TimeToRestore).n, 1);
    assert_eq!(metric(&report, FailedDeploymentRecoveryTime).value, Some(210.0));
}

#[test]
fn an_open_incident_is_not_restored() {
    let report = report(1, &[deployment(1, 100)], &[incident(1, 200, None)], &[link(1, 1)]);
    let recovery = metric(&report, FailedDeploymentRecoveryTime);
    assert_eq!((recovery.value, recovery.n), (None, 0));
    assert_eq!(recovery.rows[0].reason, "does not count yet because it is not restored");
    assert_eq!(metric(&report, TimeToRestore).value, None);
    assert_eq!(metric(&report, ChangeFailRate).value, Some(1.0));
}

#[test]
fn the_first_deployment_does_not_swallow_history() {
    let first = with(deployment(1, 1000), |d| {
        d.range_status = RangeStatus::First;
        d.commits = vec![commit("a", -400 * DAY)];
    });
    let report = report(1, &[first], &[], &[]);
    let lead = metric(&report, ChangeLeadTime);
    assert_eq!((lead.value, lead.n), (None, 0));
    assert!(lead.rows[0].reason.contains("first deployment"));
    assert_eq!(metric(&report, DeploymentFrequency).n, 1);
}

#[test]
fn commits_of_a_failed_deployment_count_with_the_next_success() {
    // The range of the success holds the commits that never served before; so says the contract.
    let failed = with(deployment(1, 1000), |d| {
        d.outcome = Outcome::FailedBeforeTraffic;
        d.commits = vec![commit("a", 0)];
    });
    let success =
        with(deployment(2, 2000), |d| d.commits = vec![commit("a", 0), commit("b", 1500)]);
    let report = report(1, &[failed, success], &[], &[]);
    let lead = metric(&report, ChangeLeadTime);
    assert_eq!((lead.value, lead.n), (Some(500.0), 2));
    assert_eq!(metric(&report, ChangeFailRate).n, 1);
    assert_eq!(metric(&report, DeploymentFrequency).n, 1);
}

#[test]
fn an_incident_is_not_laid_to_an_old_or_unrelated_deployment() {
    let day_before = [deployment(1, 1000)];
    let soon = incident(1, 1000 + DAY - 10, None);
    let late = incident(1, 1001 + DAY, None);
    let elsewhere = with(incident(1, 2000, None), |i| i.service = "worker".parse().unwrap());
    assert_eq!(attribute(&soon, &day_before).map(|l| l.deployment), Some(DeploymentId(1)));
    assert_eq!(attribute(&late, &day_before), None);
    assert_eq!(attribute(&elsewhere, &day_before), None);
}

#[test]
fn an_incident_is_laid_to_what_served_and_not_to_what_came_later_or_failed() {
    let facts = [
        deployment(1, 1000),
        with(deployment(2, 2000), |d| d.outcome = Outcome::FailedBeforeTraffic),
        deployment(3, 9000),
    ];
    assert_eq!(
        attribute(&incident(1, 3000, None), &facts).map(|l| l.deployment),
        Some(DeploymentId(1))
    );
    // After a rollback nothing new serves.
    let back = with(deployment(4, 2500), |d| d.kind = Kind::Rollback);
    assert_eq!(attribute(&incident(1, 3000, None), &[facts[0].clone(), back]), None);
}

#[test]
fn the_same_commit_again_is_no_new_deployment() {
    assert_eq!(Kind::detect("b", &["a", "b"]), Kind::Redeploy);
    assert_eq!(Kind::detect("a", &["a", "b"]), Kind::Rollback);
    assert_eq!(Kind::detect("c", &["a", "b"]), Kind::Normal);
    let again = with(deployment(2, 2000), |d| d.kind = Kind::Redeploy);
    let report = report(1, &[deployment(1, 1000), again], &[], &[]);
    assert_eq!(metric(&report, DeploymentFrequency).n, 1);
    assert_eq!(metric(&report, ChangeFailRate).n, 1);
}

#[test]
fn a_rollback_is_no_deployment_and_makes_the_other_one_failed() {
    let back = with(deployment(3, 3000), |d| {
        d.kind = Kind::Rollback;
        d.rollback_of = Some(DeploymentId(2));
    });
    let report = report(1, &[deployment(1, 1000), deployment(2, 2000), back], &[], &[]);
    assert_eq!(metric(&report, DeploymentFrequency).n, 2);
    let rate = metric(&report, ChangeFailRate);
    assert_eq!((rate.value, rate.n), (Some(0.5), 2));
    let failed = rate.rows.iter().find(|row| row.standing == Standing::Numerator).unwrap();
    assert_eq!(failed.reason, "counts as failed because deployment 3 rolled it back");
    let rework = metric(&report, ReworkRate);
    assert_eq!((rework.numerator, rework.n), (Some(1), 3));
    // From first traffic at 1990 to the end of the rollback at 3000.
    assert_eq!(metric(&report, FailedDeploymentRecoveryTime).value, Some(1010.0));
}

#[test]
fn an_aborted_canary_is_in_the_fail_rate_and_not_in_the_frequency() {
    let aborted = with(deployment(3, 3000), |d| {
        d.outcome = Outcome::AbortedAfterTraffic;
        d.restored_at = Some(t(2995));
        d.commits = vec![commit("c", 2900)];
    });
    let report = report(1, &[deployment(1, 1000), deployment(2, 2000), aborted], &[], &[]);
    assert_eq!(metric(&report, DeploymentFrequency).n, 2);
    let rate = metric(&report, ChangeFailRate);
    assert_eq!((rate.numerator, rate.n), (Some(1), 3));
    assert_eq!(metric(&report, ChangeLeadTime).n, 0);
    assert_eq!(metric(&report, FailedDeploymentRecoveryTime).value, Some(5.0));
    let rework = metric(&report, ReworkRate);
    assert_eq!((rework.numerator, rework.n), (Some(0), 3));
}

#[test]
fn a_hotfix_counts_everywhere_and_as_rework() {
    let hotfix = with(deployment(2, 2000), |d| {
        d.kind = Kind::Hotfix;
        d.rollback_of = Some(DeploymentId(1));
    });
    let report = report(1, &[deployment(1, 1000), hotfix], &[], &[]);
    assert_eq!(metric(&report, DeploymentFrequency).n, 2);
    assert_eq!(metric(&report, ChangeFailRate).numerator, Some(1));
    assert_eq!(metric(&report, ReworkRate).value, Some(0.5));
    assert_eq!(metric(&report, FailedDeploymentRecoveryTime).value, Some(1010.0));
}

#[test]
fn a_partial_success_is_a_deployment() {
    let partial = with(deployment(1, 1000), |d| d.outcome = Outcome::Partial);
    let report = report(1, &[partial], &[], &[]);
    let frequency = metric(&report, DeploymentFrequency);
    assert_eq!(frequency.n, 1);
    assert!(frequency.rows[0].reason.contains("some targets"));
}

#[test]
fn what_is_not_over_or_never_started_counts_nowhere() {
    let waiting = with(deployment(1, 1000), |d| {
        d.outcome = Outcome::Unfinished;
        d.finished_at = None;
    });
    let superseded = with(deployment(2, 1000), |d| d.outcome = Outcome::NeverStarted);
    let report = report(1, &[waiting, superseded], &[], &[]);
    for metric in &report.metrics {
        assert_eq!(metric.n, 0, "{:?}", metric.name);
        assert!(metric.rows.iter().all(|row| row.standing == Standing::Excluded));
    }
    assert_eq!(metric(&report, DeploymentFrequency).value, Some(0.0));
}

#[test]
fn the_median_is_over_commits_and_never_over_daily_medians() {
    // Day one: 1 commit of 10,000 s. Day two: 3 commits of 100 s. Medians of days would say 10,000 or 5,050.
    let one = with(deployment(1, 20_000), |d| d.commits = vec![commit("a", 10_000)]);
    let two = with(deployment(2, DAY + 20_000), |d| {
        d.commits = ["b", "c", "d"].map(|name| commit(name, DAY + 19_900)).to_vec();
    });
    let report = report(2, &[one, two], &[], &[]);
    assert_eq!(metric(&report, ChangeLeadTime).value, Some(100.0));
}

#[test]
fn a_frequency_below_one_a_day_is_not_rounded_to_zero() {
    let report = report(4, &[deployment(1, 1000)], &[], &[]);
    assert_eq!(metric(&report, DeploymentFrequency).value, Some(0.25));
}

#[test]
fn a_negative_lead_time_is_zero_within_the_skew_and_left_out_beyond() {
    let facts = [with(deployment(1, 1000), |d| {
        let mut late = [commit("a", 1200), commit("b", 1301), commit("c", 990)];
        late.iter_mut().for_each(|c| c.first_seen = None);
        d.commits = late.to_vec();
    })];
    let report = report(1, &facts, &[], &[]);
    let lead = metric(&report, ChangeLeadTime);
    let of = |name: &str| lead.rows.iter().find(|row| row.commit.as_deref() == Some(name)).unwrap();
    assert_eq!(of("a").value, Some(0.0));
    assert_eq!(of("b").standing, Standing::Excluded);
    assert_eq!(of("c").value, Some(10.0));
    assert!(report.notes.iter().any(|note| note.contains("date in the future")));
}

#[test]
fn a_merge_adds_no_sample_and_a_cherry_pick_starts_at_its_commit() {
    let facts = [with(deployment(1, 1000), |d| {
        let merge = with(commit("m", 999), |c| c.is_merge = true);
        let pick = with(commit("p", -90 * DAY), |c| {
            c.is_cherry_pick = true;
            c.committed_at = t(900);
            c.first_seen = Some(t(950));
        });
        // An author date after the push is a wrong clock.
        let skewed = with(commit("s", 990), |c| c.first_seen = Some(t(800)));
        d.commits = vec![merge, pick, skewed];
    })];
    let report = report(1, &facts, &[], &[]);
    let lead = metric(&report, ChangeLeadTime);
    assert_eq!((lead.n, lead.value), (2, Some(100.0)));
    assert_eq!(lead.percentiles.get("p90"), Some(&200.0));
}

#[test]
fn a_deployment_outside_of_the_window_counts_in_the_window_before() {
    let facts = [deployment(1, -10), deployment(2, 0), deployment(3, DAY - 1), deployment(4, DAY)];
    let report = report(1, &facts, &[], &[]);
    let frequency = metric(&report, DeploymentFrequency);
    assert_eq!((frequency.n, frequency.previous_n), (2, 1));
    let ids: Vec<_> = frequency.rows.iter().filter_map(|row| row.deployment).collect();
    assert_eq!(ids, [DeploymentId(3), DeploymentId(2)]);
}

#[test]
fn an_empty_bucket_has_no_duration_and_no_ratio_but_a_count_of_zero() {
    let report =
        report(2, &[with(deployment(1, 1000), |d| d.commits = vec![commit("a", 0)])], &[], &[]);
    let second = |name| metric(&report, name).buckets[1].value;
    assert_eq!(second(DeploymentFrequency), Some(0.0));
    for name in
        [ChangeLeadTime, ChangeFailRate, ReworkRate, FailedDeploymentRecoveryTime, TimeToRestore]
    {
        assert_eq!(second(name), None, "{name:?}");
    }
}

#[test]
fn a_late_incident_changes_the_bucket_of_the_deployment_that_failed() {
    let facts = [deployment(1, 1000), deployment(2, 2 * DAY + 1000)];
    let late = [incident(1, 3 * DAY, Some(3 * DAY + 60))];
    let report = report(4, &facts, &late, &[link(1, 1)]);
    let rates: Vec<_> = metric(&report, ChangeFailRate).buckets.iter().map(|b| b.value).collect();
    assert_eq!(rates, [Some(1.0), None, Some(0.0), None]);
}

#[test]
fn recent_buckets_are_provisional() {
    let window = Window::utc(t(0), t(20 * DAY), By::Day).unwrap();
    let facts = Facts { deployments: &[], incidents: &[], links: &[] };
    let report = Report::new(&facts, &window, &Scope::default(), t(20 * DAY));
    let provisional = report.metrics[0].buckets.iter().filter(|bucket| bucket.provisional).count();
    assert_eq!(provisional, 7);
}

#[test]
fn a_scope_keeps_to_its_service_and_blending_is_said() {
    let worker = with(deployment(2, 2000), |d| d.service = "worker".parse().unwrap());
    let facts = [deployment(1, 1000), worker];
    let all = report(1, &facts, &[], &[]);
    assert!(all.notes[0].contains("blend 2 services"));
    let window = Window::utc(t(0), t(DAY), By::Day).unwrap();
    let scope = Scope { service: Some("worker".parse().unwrap()), ..Scope::default() };
    let facts = Facts { deployments: &facts, incidents: &[incident(1, 1500, None)], links: &[] };
    let only = Report::new(&facts, &window, &scope, t(1_000 * DAY));
    assert_eq!(metric(&only, DeploymentFrequency).n, 1);
    assert!(metric(&only, TimeToRestore).rows.is_empty());
}

#[test]
fn a_circle_of_repeated_incidents_ends() {
    let one = with(incident(1, 200, Some(300)), |i| i.duplicate_of = Some(incident(2, 0, None).id));
    let two = with(incident(2, 200, Some(400)), |i| i.duplicate_of = Some(incident(1, 0, None).id));
    let report = report(1, &[deployment(1, 100)], &[one, two], &[link(1, 2)]);
    assert_eq!(metric(&report, ChangeFailRate).value, Some(1.0));
}

#[test]
fn deploy_days_are_counted_in_whole_weeks() {
    let facts: Vec<_> = [0, 0, 1, 2, 7, 8]
        .iter()
        .zip(1..)
        .map(|(day, id)| deployment(id, day * DAY + 1000))
        .collect();
    let report = report(14, &facts, &[], &[]);
    let window = Window::utc(t(0), t(14 * DAY), By::Day).unwrap();
    // Three days in the first week, two in the second: the lower median.
    let wanted = Rhythm { deploy_days_per_week: Some(2), median_gap_seconds: Some(86_400) };
    assert_eq!(Rhythm::of(&report, &window), wanted);
}

#[test]
fn a_marked_failure_without_incident_is_over_when_it_is_restored() {
    let failed = with(deployment(1, 1000), |d| d.restored_at = Some(t(1500)));
    let marked = FailureLink { incident: None, ..link(1, 1) };
    let report = report(1, &[failed], &[], &[marked]);
    let recovery = metric(&report, FailedDeploymentRecoveryTime);
    assert_eq!(recovery.value, Some(510.0));
    let failing: BTreeMap<_, _> =
        metric(&report, ChangeFailRate).rows.iter().map(|r| (r.deployment, &r.reason)).collect();
    assert!(failing[&Some(DeploymentId(1))].contains("a person marked it"));
}
