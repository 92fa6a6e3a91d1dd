//! Properties over random stories, against an oracle that knows nothing of the crate's own rules: it
//! reads the table of what counts, row by row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pipeyard_dora::{
    By, Cell, CellKey, Contribution, DeploymentFact, Facts, FailureLink, IncidentFact, Kind,
    MAX_RELATIVE_ERROR, Metric, MetricName, Outcome, RangeStatus, Report, Scope, Standing, Sums,
    Tier, Totals, Window, cell_keys, contribution, failure_of, incident_contribution, pieces,
};
use pipeyard_model::{DeploymentId, IncidentId, Timestamp};
use proptest::prelude::*;

use crate::common::{DAY, commit, deployment, incident, link, t};

#[derive(Debug, Clone)]
struct Story {
    deployments: Vec<DeploymentFact>,
    incidents: Vec<IncidentFact>,
    links: Vec<FailureLink>,
}

const DAYS: i64 = 70;

fn a_deployment(id: i64) -> impl Strategy<Value = DeploymentFact> {
    let kind = prop::sample::select(vec![
        Kind::Normal,
        Kind::Normal,
        Kind::Normal,
        Kind::Hotfix,
        Kind::Rollback,
        Kind::Redeploy,
    ]);
    let outcome = prop::sample::select(vec![
        Outcome::Succeeded,
        Outcome::Succeeded,
        Outcome::Succeeded,
        Outcome::Partial,
        Outcome::AbortedAfterTraffic,
        Outcome::FailedBeforeTraffic,
        Outcome::NeverStarted,
        Outcome::Unfinished,
    ]);
    let range = prop::sample::select(vec![
        RangeStatus::Known,
        RangeStatus::Known,
        RangeStatus::First,
        RangeStatus::Unknown,
    ]);
    let commits = prop::collection::vec((-100_000_i64..1_000, any::<bool>()), 0..5);
    let of = prop::option::of(1_i64..30);
    let restored = prop::option::of(0_i64..50_000);
    (0..DAYS * DAY, kind, outcome, range, commits, of, restored, 0_usize..3).prop_map(
        move |(end, kind, outcome, range_status, commits, of, restored, team)| {
            let commits = commits.iter().enumerate().map(|(n, (before, merge))| {
                let mut commit = commit(&format!("{id}-{n}"), end + before);
                commit.is_merge = *merge;
                commit
            });
            DeploymentFact {
                kind,
                outcome,
                range_status,
                commits: commits.collect(),
                rollback_of: of
                    .filter(|of| *of != id && matches!(kind, Kind::Hotfix | Kind::Rollback))
                    .map(DeploymentId),
                restored_at: restored.map(|after| t(end + after)),
                finished_at: (outcome != Outcome::Unfinished).then(|| t(end)),
                team: [None, Some("a".to_owned()), Some("b".to_owned())][team].clone(),
                ..deployment(id, end)
            }
        },
    )
}

fn story() -> impl Strategy<Value = Story> {
    let deployments: Vec<_> = (1..30).map(a_deployment).collect();
    let incidents = prop::collection::vec(
        (0..DAYS * DAY, prop::option::of(0_i64..100_000), prop::option::of(1_i64..12)),
        0..12,
    );
    let links = prop::collection::vec((1_i64..30, 1_i64..12), 0..15);
    (deployments, incidents, links).prop_map(|(deployments, incidents, links)| {
        let incidents = incidents.iter().zip(1..).map(|((impact, restored, twin), id)| {
            let mut fact = incident(id, *impact, restored.map(|after| impact + after));
            // Only of earlier ones, so that there is no circle; that has a test of its own.
            fact.duplicate_of = twin.filter(|twin| *twin < id).map(IncidentId);
            fact
        });
        Story {
            deployments,
            incidents: incidents.collect(),
            links: links.iter().map(|(d, i)| link(*d, *i)).collect(),
        }
    })
}

/// The table of what counts, as one reads it.
struct Oracle {
    deployments: usize,
    failed: usize,
    could_fail: usize,
    rework: usize,
    worked: usize,
    leads: Vec<i64>,
    recoveries: Vec<i64>,
    restores: Vec<i64>,
}

fn oracle(story: &Story, from: Timestamp, to: Timestamp) -> Oracle {
    let by_id: HashMap<i64, &IncidentFact> = story.incidents.iter().map(|i| (i.id.0, i)).collect();
    let root = |mut id: i64| {
        while let Some(twin) = by_id.get(&id).and_then(|i| i.duplicate_of) {
            id = twin.0;
        }
        id
    };
    let mut o = Oracle {
        deployments: 0,
        failed: 0,
        could_fail: 0,
        rework: 0,
        worked: 0,
        leads: vec![],
        recoveries: vec![],
        restores: vec![],
    };
    for d in &story.deployments {
        let Some(end) = d.finished_at else { continue };
        let good = matches!(d.outcome, Outcome::Succeeded | Outcome::Partial);
        let aborted = d.outcome == Outcome::AbortedAfterTraffic;
        if end < from || end >= to || !(good || aborted) {
            continue;
        }
        match d.kind {
            Kind::Redeploy => continue,
            Kind::Rollback => {
                if good {
                    o.rework += 1;
                    o.worked += 1;
                }
                continue;
            }
            Kind::Hotfix => o.rework += 1,
            Kind::Normal => {}
        }
        o.worked += 1;
        o.could_fail += 1;
        if good {
            o.deployments += 1;
            if d.range_status == RangeStatus::Known {
                let samples = d.commits.iter().filter(|c| !c.is_merge);
                let late = 300_000_000;
                let counted = samples.filter(|c| c.authored_at.0 <= end.0 + late);
                o.leads.extend(counted.map(|c| (end.0 - c.authored_at.0).max(0) / 1_000_000));
            }
        }
        let own: BTreeSet<i64> = story
            .links
            .iter()
            .filter(|l| l.deployment == d.id)
            .filter_map(|l| Some(root(l.incident?.0)))
            .collect();
        let linked = story.links.iter().any(|l| l.deployment == d.id);
        let repairs = story.deployments.iter().filter(|r| {
            r.rollback_of == Some(d.id)
                && matches!(r.outcome, Outcome::Succeeded | Outcome::Partial)
                && matches!(r.kind, Kind::Rollback | Kind::Hotfix)
        });
        let repaired = repairs.filter_map(|r| r.finished_at).min();
        if !(aborted || linked || repaired.is_some()) {
            continue;
        }
        o.failed += 1;
        let known: Vec<_> = own.iter().filter_map(|id| by_id.get(id)).collect();
        let over = if known.is_empty() {
            d.restored_at.or(repaired)
        } else if known.iter().all(|i| i.restored_at.is_some()) {
            known.iter().filter_map(|i| i.restored_at).max()
        } else {
            None
        };
        let began = d.first_traffic_at.unwrap_or(end);
        o.recoveries.extend(over.map(|over| (over.0 - began.0).max(0) / 1_000_000));
    }
    for i in &story.incidents {
        if i.impact_at >= from && i.impact_at < to && i.duplicate_of.is_none() {
            o.restores.extend(i.restored_at.map(|r| (r.0 - i.impact_at.0) / 1_000_000));
        }
    }
    o
}

/// The lower of the two middle ones.
fn median(mut of: Vec<i64>) -> Option<f64> {
    of.sort_unstable();
    let last = of.len().checked_sub(1)?;
    Some(of[last / 2] as f64)
}

fn window() -> Window {
    Window::utc(t(10 * DAY), t(45 * DAY), By::Week).unwrap()
}

fn report_of(story: &Story) -> Report {
    let Story { deployments, incidents, links } = story;
    Report::new(
        &Facts { deployments, incidents, links },
        &window(),
        &Scope::default(),
        t(1_000 * DAY),
    )
}

fn metric(report: &Report, name: MetricName) -> &Metric {
    report.metric(name).unwrap()
}

fn contributions(story: &Story) -> Vec<(DeploymentFact, Contribution)> {
    let incidents: BTreeMap<_, _> = story.incidents.iter().map(|i| (i.id, i)).collect();
    let of = |fact: &DeploymentFact| {
        let failure = failure_of(fact, &story.links, &incidents, &story.deployments);
        (fact.clone(), contribution(fact, failure.as_ref()))
    };
    story.deployments.iter().map(of).collect()
}

fn cells(parts: &[(DeploymentFact, Contribution)]) -> BTreeMap<CellKey, Cell> {
    let mut cells: BTreeMap<CellKey, Cell> = BTreeMap::new();
    for (fact, part) in parts {
        for key in cell_keys(part.at, &fact.environment, &fact.service) {
            cells.entry(key).or_default().add(part);
        }
    }
    cells
}

fn sum<'c>(cells: impl IntoIterator<Item = &'c Cell>) -> Cell {
    let mut all = Cell::default();
    cells.into_iter().for_each(|cell| all.merge(cell));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_report_says_what_the_table_says(story in story()) {
        let report = report_of(&story);
        for (from, to, previous) in [(t(10 * DAY), t(45 * DAY), false), (t(-25 * DAY), t(10 * DAY), true)] {
            let o = oracle(&story, from, to);
            let check = |name, n: usize, value: Option<f64>| {
                let metric = metric(&report, name);
                let said = if previous { (metric.previous_n, metric.previous) } else { (metric.n, metric.value) };
                assert_eq!(said, (n as u64, value), "{name:?}");
            };
            let ratio = |part: usize, of: usize| (of > 0).then(|| part as f64 / of as f64);
            check(MetricName::DeploymentFrequency, o.deployments, Some(o.deployments as f64 / 35.0));
            check(MetricName::ChangeLeadTime, o.leads.len(), median(o.leads));
            check(MetricName::ChangeFailRate, o.could_fail, ratio(o.failed, o.could_fail));
            check(MetricName::FailedDeploymentRecoveryTime, o.recoveries.len(), median(o.recoveries));
            check(MetricName::ReworkRate, o.worked, ratio(o.rework, o.worked));
            check(MetricName::TimeToRestore, o.restores.len(), median(o.restores));
        }
    }

    #[test]
    fn the_rows_and_the_buckets_add_up_to_the_number(story in story()) {
        for metric in report_of(&story).metrics {
            let counted = metric.rows.iter().filter(|row| row.standing != Standing::Excluded).count() as u64;
            prop_assert_eq!(counted, metric.n);
            prop_assert_eq!(metric.rows.len() as u64, metric.rows_total);
            prop_assert_eq!(metric.buckets.iter().map(|bucket| bucket.n).sum::<u64>(), metric.n);
            prop_assert!(metric.rows.iter().all(|row| row.reason.contains("count")), "{:?}", metric.rows);
            prop_assert!(metric.rows.windows(2).all(|pair| pair[0].at >= pair[1].at));
        }
    }

    #[test]
    fn order_and_repetition_change_nothing(story in story(), seed in any::<u64>()) {
        let mut mixed = story.clone();
        let mut state = seed;
        let mut shuffle = |len: usize, swap: &mut dyn FnMut(usize, usize)| {
            for at in (1..len).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                swap(at, (state >> 33) as usize % (at + 1));
            }
        };
        mixed.deployments.extend(story.deployments.iter().take(9).cloned());
        mixed.incidents.extend(story.incidents.iter().take(5).cloned());
        mixed.links.extend(story.links.iter().take(5).cloned());
        shuffle(mixed.deployments.len(), &mut |a, b| mixed.deployments.swap(a, b));
        shuffle(mixed.incidents.len(), &mut |a, b| mixed.incidents.swap(a, b));
        shuffle(mixed.links.len(), &mut |a, b| mixed.links.swap(a, b));
        prop_assert_eq!(report_of(&mixed), report_of(&story));

        let mut parts = contributions(&story);
        let forward = cells(&parts);
        parts.reverse();
        prop_assert_eq!(cells(&parts), forward);
    }

    #[test]
    fn sums_of_cells_say_what_the_facts_say(story in story(), exact in any::<bool>()) {
        let (report, window) = (report_of(&story), window());
        let incidents = story.incidents.iter().map(incident_contribution);
        let parts: Vec<_> = contributions(&story).into_iter().map(|(_, part)| part).chain(incidents).collect();
        let total = |from: Timestamp, to: Timestamp| {
            let mut totals = if exact { Totals::exact() } else { Totals::default() };
            parts.iter().filter(|part| from <= part.at && part.at < to).for_each(|part| totals.add(part));
            totals
        };
        let (before, _) = window.previous();
        let spans = window.edges();
        let sums = Sums {
            buckets: spans.windows(2).map(|span| total(span[0], span[1])).collect(),
            previous: total(before, window.since),
            places: 1,
        };
        let facts = Facts { deployments: &story.deployments, incidents: &story.incidents, links: &story.links };
        let kept = Report::of_sums(&sums, &facts, &window, &Scope::default(), t(1_000 * DAY));
        if exact {
            prop_assert_eq!(&kept.metrics, &report.metrics);
        }
        let near = |told: Option<f64>, exact: Option<f64>| match (told, exact) {
            (Some(told), Some(exact)) => (told - exact).abs() <= exact * MAX_RELATIVE_ERROR,
            (told, exact) => told.is_none() && exact.is_none(),
        };
        for (kept, report) in kept.metrics.iter().zip(&report.metrics) {
            prop_assert_eq!((kept.n, kept.numerator, kept.previous_n), (report.n, report.numerator, report.previous_n));
            prop_assert!(near(kept.value, report.value) && near(kept.previous, report.previous), "{:?}", kept.name);
            for (kept, report) in kept.buckets.iter().zip(&report.buckets) {
                prop_assert!(kept.n == report.n && near(kept.value, report.value));
            }
        }
    }

    #[test]
    fn pieces_cover_every_span_once_and_each_is_as_long_as_it_can_be(
        spans in prop::collection::vec(1_i64..5_000_000_000_000, 1..6),
        start in 1_700_000_000_000_000_i64..1_800_000_000_000_000,
        service in any::<bool>(),
    ) {
        let mut edges = vec![Timestamp(start)];
        spans.iter().for_each(|span| edges.push(Timestamp(edges[edges.len() - 1].0 + span)));
        let tiers = if service { Tier::OF_SERVICES } else { Tier::OF_ENVIRONMENTS };
        let pieces = pieces(&edges, tiers);
        prop_assert_eq!((pieces[0].from, pieces[pieces.len() - 1].to), (edges[0], edges[edges.len() - 1]));
        prop_assert!(pieces.windows(2).all(|pair| pair[0].to == pair[1].from));
        for piece in pieces {
            let shortest = tiers[tiers.len() - 1];
            match piece.tier {
                Some(tier) => prop_assert!(tier.start(piece.from) == piece.from && tier.start(piece.to) == piece.to),
                // No whole hour (or day) of one span is read contribution by contribution.
                None => for span in edges.windows(2) {
                    let (from, to) = (piece.from.max(span[0]), piece.to.min(span[1]));
                    let whole = if shortest.start(from) == from { from } else { shortest.end(from) };
                    prop_assert!(from >= to || shortest.end(whole) > to);
                },
            }
        }
    }

    #[test]
    fn taking_away_what_was_added_restores_the_bytes(story in story(), more in story()) {
        let mut cell = Cell::default();
        contributions(&story).iter().for_each(|(_, part)| cell.add(part));
        let before = cell.to_bytes();
        let more = contributions(&more);
        more.iter().for_each(|(_, part)| cell.add(part));
        more.iter().for_each(|(_, part)| cell.remove(part).unwrap());
        prop_assert_eq!(cell.to_bytes(), before.clone());
        prop_assert_eq!(Cell::from_bytes(&before), Some(cell));
    }

    #[test]
    fn a_month_is_its_days_and_an_environment_is_its_services(story in story()) {
        let cells = cells(&contributions(&story));
        let of = |tier: Tier, whole: bool| {
            sum(cells.iter().filter(|(key, _)| key.tier == tier && key.service.is_none() == whole).map(|(_, cell)| cell))
        };
        prop_assert_eq!(of(Tier::Month, true), of(Tier::Day, true));
        prop_assert_eq!(of(Tier::Hour, true), of(Tier::Day, true));
        prop_assert_eq!(of(Tier::Day, false), of(Tier::Day, true));
        for (key, month) in cells.iter().filter(|(key, _)| key.tier == Tier::Month) {
            let days = cells.iter().filter(|(day, _)| {
                day.tier == Tier::Day && day.service == key.service && Tier::Month.start(day.start) == key.start
            });
            prop_assert_eq!(&sum(days.map(|(_, cell)| cell)), month);
        }
    }

    #[test]
    fn bytes_that_are_no_cell_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Some(cell) = Cell::from_bytes(&bytes) {
            prop_assert_eq!(Cell::from_bytes(&cell.to_bytes()), Some(cell));
        }
    }
}

#[test]
fn a_contribution_that_was_never_added_is_drift_and_changes_nothing() {
    let story = Story {
        deployments: vec![deployment(1, 100), deployment(2, 200)],
        incidents: vec![],
        links: vec![],
    };
    let parts = contributions(&story);
    let mut cell = Cell::default();
    cell.add(&parts[0].1);
    cell.remove(&parts[1].1).unwrap();
    assert!(cell.is_empty());
    assert!(cell.remove(&parts[0].1).is_err());
    assert!(cell.is_empty());
}

#[test]
fn an_edited_incident_moves_the_contribution_and_nothing_else() {
    let mut story = Story {
        deployments: vec![deployment(1, 100), deployment(2, 200)],
        incidents: vec![incident(1, 300, None)],
        links: vec![link(2, 1)],
    };
    let before = contributions(&story);
    let mut cell = Cell::default();
    before.iter().for_each(|(_, part)| cell.add(part));
    story.incidents[0].restored_at = Some(t(500));
    let after = contributions(&story);
    let changed: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old.1 != new.1).collect();
    assert_eq!(changed.len(), 1);
    for (old, new) in changed {
        cell.remove(&old.1).unwrap();
        cell.add(&new.1);
    }
    let mut fresh = Cell::default();
    after.iter().for_each(|(_, part)| fresh.add(part));
    assert_eq!(cell.to_bytes(), fresh.to_bytes());
    assert_eq!(cell.recoveries.percentile(50), Some(310));
}
