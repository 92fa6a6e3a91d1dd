//! The metrics' sums are those of the facts, after any sequence of changes.

use std::{collections::HashMap, time::Duration};

use pipeyard_dora::{By, DeploymentFact, Facts, FailureLink, IncidentFact, Report, Scope, Window};
use pipeyard_model::{
    Actor, Clock as _, DeploymentId, EnvironmentName, IncidentId, ManualClock, ServiceName, UserId,
    deployment::{Outcome, Purpose, State},
};

use super::{
    make::{new_deployment, places},
    places::{commit, incident},
    rollouts::{carry, ship, stored},
};
use crate::{
    Store,
    deployments::{Change, DeployedCommit, DeploymentFilter, NewDeployment, NewIncident},
    dora::{CheckFrom, Whose, commit_fact, deployment_fact, failure_link, incident_fact, kind_of},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Numbers from a seed; good enough to choose by.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()].clone()
    }
}

/// A story that is told to a store, with what the store can't be asked for.
struct Story<'s, S> {
    store: &'s S,
    clock: &'s ManualClock,
    dice: Dice,
    deployments: Vec<DeploymentId>,
    incidents: Vec<IncidentId>,
    commits: HashMap<DeploymentId, (String, Vec<DeployedCommit>)>,
}

const PLACES: [(&str, &str); 3] =
    [("production", "web"), ("production", "worker"), ("testing", "web")];

impl<S: Store> Story<'_, S> {
    /// One change, chosen by chance.
    async fn step(&mut self) {
        self.clock.advance(MINUTE * u32::try_from(self.dice.below(40 * 60)).unwrap());
        match self.dice.below(8) {
            0 | 1 => self.ask().await,
            2..=4 => self.end().await,
            5 => self.know_commits().await,
            6 => self.open_incident().await,
            _ => self.close_incident().await,
        }
    }

    async fn ask(&mut self) {
        let (environment, service) = self.dice.of(&PLACES);
        // Mostly new commits: one that was deployed before is a rollback or a repetition.
        let commit = match self.dice.below(4) {
            0 => self.dice.of(&["a", "b", "c"]).to_owned(),
            _ => format!("{:x}", 4_096 + self.deployments.len()),
        };
        let mut new = new_deployment(environment, service, &commit);
        if let Some(of) =
            self.any_of(environment, service).await.filter(|_| self.dice.below(3) == 0)
        {
            new.purpose = Purpose::Rollback { of, to: of };
        }
        let asked: NewDeployment = new;
        let id = self.store.create_deployment(asked, self.clock.now()).await.unwrap().id;
        self.deployments.push(id);
    }

    async fn any_of(&mut self, environment: &str, service: &str) -> Option<DeploymentId> {
        let all = self.deployments.clone();
        let mut here = Vec::new();
        for id in all {
            let d = stored(self.store, id).await.deployment;
            if (d.environment.as_str(), d.service.as_str()) == (environment, service) {
                here.push(id);
            }
        }
        if here.is_empty() { None } else { Some(self.dice.of(&here)) }
    }

    /// Ends a deployment that is open, in one of the ways in which they end.
    async fn end(&mut self) {
        let open = self.store.open_deployments().await.unwrap();
        if open.is_empty() {
            return;
        }
        let mut next = self.dice.of(&open).deployment;
        next.version += 1;
        let outcome = self.dice.of(&[
            Outcome::Succeeded,
            Outcome::Succeeded,
            Outcome::Succeeded,
            Outcome::RolledBack,
            Outcome::Failed,
            Outcome::Aborted,
            Outcome::Cancelled,
        ]);
        let now = self.clock.now();
        if outcome != Outcome::Cancelled && self.dice.below(4) > 0 {
            next.times.first_traffic = Some(now - 5 * MINUTE);
        }
        if outcome == Outcome::RolledBack {
            next.times.restored = Some(now - MINUTE);
        }
        next.times.finished = Some(now);
        next.state = State::Finished(outcome);
        let change = Change {
            next,
            entries: vec![],
            look: None,
            judge: None,
            sample: None,
            by: None,
            quiet: false,
        };
        self.store.change_deployment(change, now).await.unwrap();
    }

    async fn know_commits(&mut self) {
        if self.deployments.is_empty() {
            return;
        }
        let id = self.dice.of(&self.deployments);
        let state = self.dice.of(&["known", "known", "unknown", "first_deployment"]);
        let mut commits = Vec::new();
        for n in 0..self.dice.below(4) {
            let mut commit = commit(&format!("{id}-{n}"), self.clock);
            let before = MINUTE * u32::try_from(self.dice.below(5_000)).unwrap();
            commit.authored_at = self.clock.now() + 100 * MINUTE - before;
            commit.first_seen = None;
            commit.is_merge = self.dice.below(5) == 0;
            commits.push(commit);
        }
        self.store.set_commits(id, state, commits.clone()).await.unwrap();
        self.commits.insert(id, (state.to_owned(), commits));
    }

    async fn open_incident(&mut self) {
        let (environment, service) = self.dice.of(&PLACES);
        let deployment = self.any_of(environment, service).await;
        let link = self.dice.of(&["manual", "inferred"]).to_owned();
        let new = NewIncident {
            environment: environment.parse().unwrap(),
            impact_at: self.clock.now() - MINUTE * u32::try_from(self.dice.below(3_000)).unwrap(),
            deployment: deployment.filter(|_| self.dice.below(3) > 0).map(|id| (id, link)),
            ..incident(self.clock, service)
        };
        let opened = self.store.open_incident(new, self.clock.now()).await.unwrap();
        self.incidents.push(opened.id);
    }

    async fn close_incident(&mut self) {
        if let Some(id) = self.incidents.pop() {
            let now = self.clock.now();
            self.store
                .close_incident(id, now, "ann", Actor::user(UserId::new()), now)
                .await
                .unwrap();
        }
    }

    /// The facts as the rows tell them, without the store's own sums and kinds.
    async fn facts(&self) -> (Vec<DeploymentFact>, Vec<IncidentFact>, Vec<FailureLink>) {
        let filter = DeploymentFilter { limit: 200, ..DeploymentFilter::default() };
        let mut rows: Vec<_> = self.store.deployments(filter).await.unwrap();
        rows.sort_by_key(|row| (row.deployment.times.finished, row.deployment.id));
        let mut shipped: HashMap<_, Vec<String>> = HashMap::new();
        let mut deployments = Vec::new();
        for row in rows {
            let d = row.deployment;
            let before = shipped.entry((d.environment.clone(), d.service.clone())).or_default();
            let again = before.contains(&d.release.commit);
            let kind = kind_of(&d, before.last().map(String::as_str), again);
            if d.state.outcome() == Some(Outcome::Succeeded) {
                before.push(d.release.commit.clone());
            }
            let (state, commits) = self.commits.get(&d.id).cloned().unwrap_or_default();
            deployments.push(deployment_fact(
                &d,
                kind,
                &state,
                commits.iter().map(commit_fact).collect(),
            ));
        }
        let incidents = self.store.incidents(None, None, None).await.unwrap();
        let links = incidents.iter().filter_map(failure_link).collect();
        (deployments, incidents.iter().map(incident_fact).collect(), links)
    }

    /// Reads reports of several windows and scopes from the store's sums, and from the facts.
    async fn compare(&self, what: &str) {
        let (deployments, incidents, links) = self.facts().await;
        let now = self.clock.now();
        let until = now + MINUTE;
        let production = |e: &EnvironmentName| e.as_str() == "production";
        for (days, by) in [(3, By::Day), (40, By::Week), (70, By::Month)] {
            let window = Window::utc(until - MINUTE * 60 * 24 * days, until, by).unwrap();
            for (environment, service) in [
                (None, None),
                (Some("testing"), None),
                (Some("production"), Some("web")),
                (None, Some("worker")),
            ] {
                let whose = Whose {
                    environment: environment.map(|name| name.parse().unwrap()),
                    service: service.map(|name| name.parse::<ServiceName>().unwrap()),
                };
                let scope = Scope {
                    environment: whose.environment.clone(),
                    service: whose.service.clone(),
                    team: None,
                };
                let wanted = |e: &EnvironmentName| environment.is_some() || production(e);
                let of: Vec<_> =
                    deployments.iter().filter(|d| wanted(&d.environment)).cloned().collect();
                let during: Vec<_> =
                    incidents.iter().filter(|i| wanted(&i.environment)).cloned().collect();
                let facts = Facts { deployments: &of, incidents: &during, links: &links };
                let computed = Report::new(&facts, &window, &scope, now);
                let (before, _) = window.previous();
                let sums = self.store.dora_sums(&whose, before, &window.edges()).await.unwrap();
                let read =
                    self.store.dora_facts(&whose, window.since, window.until, 1_000).await.unwrap();
                let facts = Facts {
                    deployments: &read.deployments,
                    incidents: &read.incidents,
                    links: &read.links,
                };
                let kept = Report::of_sums(&sums, &facts, &window, &scope, now);
                assert_eq!(kept, computed, "{what}, {days} days of {whose:?}");
            }
        }
    }
}

/// Checks everything; answers how much was added and corrected.
async fn check<S: Store>(store: &S) -> (u64, u64) {
    let (mut added, mut corrected) = (0, 0);
    let mut from = Some(CheckFrom::START);
    while let Some(place) = from {
        let piece = store.check_dora(place, 7).await.unwrap();
        added += piece.added;
        corrected += piece.corrected;
        from = piece.next;
    }
    (added, corrected)
}

/// Whatever happens in whatever order, the sums are those of the facts; a check finds nothing.
pub async fn sums_are_those_of_the_facts<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web", "worker"]).await;
    let mut story = Story {
        store,
        clock,
        dice: Dice(clock.now().0.unsigned_abs()),
        deployments: vec![],
        incidents: vec![],
        commits: HashMap::new(),
    };
    for n in 0..150 {
        story.step().await;
        if n % 10 == 9 {
            story.compare(&format!("after {n} changes")).await;
        }
    }
    assert_eq!(check(store).await, (0, 0));
    story.compare("after a check").await;
}

/// An incident that comes late changes the day of the deployment that failed, and takes nothing from
/// another.
pub async fn a_late_incident_changes_the_day_of_the_deployment<S: Store>(
    store: &S,
    clock: &ManualClock,
) {
    places(store, clock, &["web"]).await;
    let day = MINUTE * 60 * 24;
    let whose = Whose::default();
    let start = clock.now();
    let mut ids = Vec::new();
    for letter in ["a", "b"] {
        let new = new_deployment("production", "web", letter);
        let mut next = store.create_deployment(new, clock.now()).await.unwrap();
        ids.push(next.id);
        next.version += 1;
        (next.times.finished, next.state) =
            (Some(clock.now()), State::Finished(Outcome::Succeeded));
        let change = Change {
            next,
            entries: vec![],
            look: None,
            judge: None,
            sample: None,
            by: None,
            quiet: false,
        };
        store.change_deployment(change, clock.now()).await.unwrap();
        clock.advance(day);
    }
    let edges = [start, start + day, start + 2 * day];
    let failed = async || -> Vec<(u64, u64)> {
        let sums = store.dora_sums(&whose, start - day, &edges).await.unwrap();
        let counts = sums.buckets.iter().map(|totals| totals.cell.counts);
        counts.map(|counts| (counts.deployed, counts.failed)).collect()
    };
    assert_eq!(failed().await, [(1, 0), (1, 0)]);
    let late =
        NewIncident { deployment: Some((ids[0], "manual".into())), ..incident(clock, "web") };
    store.open_incident(late, clock.now()).await.unwrap();
    assert_eq!(failed().await, [(1, 1), (1, 0)]);
}

/// A rollback makes the deployment that it takes back a failure, in that one's own bucket, and isn't a
/// deployment itself.
pub async fn a_rollback_fails_what_it_takes_back<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let start = clock.now();
    let first = ship(store, clock, "web", "a").await;
    let second = ship(store, clock, "web", "b").await;
    let middle = clock.now() + MINUTE;
    clock.advance(2 * MINUTE);
    let back = NewDeployment {
        purpose: Purpose::Rollback { of: second.id, to: first.id },
        ..new_deployment("production", "web", "a")
    };
    let back = store.create_deployment(back, clock.now()).await.unwrap();
    carry(store, clock, back.id).await;
    let edges = [start, middle, clock.now() + MINUTE];
    let sums = store.dora_sums(&Whose::default(), start - MINUTE, &edges).await.unwrap();
    let counts = sums.buckets.iter().map(|totals| totals.cell.counts);
    let seen: Vec<_> = counts.map(|c| (c.deployed, c.failed, c.rollbacks, c.reworked)).collect();
    assert_eq!(seen, [(2, 1, 0, 0), (0, 0, 1, 1)]);
    let recoveries = &sums.buckets[0].samples.as_ref().unwrap().recoveries;
    let served = back.times.created.since(second.times.finished.unwrap()).as_secs();
    assert!(recoveries.len() == 1 && recoveries[0] >= served, "{recoveries:?}");
}
