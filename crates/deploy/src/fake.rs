//! A provider in memory, for tests: it deploys nothing, keeps CodeDeploy's rules (one active
//! deployment in a group, a canary waits until told, a stop may restore), counts traffic by the
//! clock that it is given, and fails as it is told.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pipeyard_model::{
    Clock, IntentId, Timestamp,
    fleet::{ArmReport, LatencyHistogram, Outage, ServiceHealth, ServingState, TrafficReport},
};

use crate::provider::{
    Bundle, CreateAnswer, CreateRequest, Finding, Group, GroupName, Provider, ProviderError,
    ProviderStatus, Snapshot, Style, Target, TrafficControl, marker,
};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request never arrives.
    CutBefore,
    /// It is carried out; the answer never comes.
    CutAfter,
    /// It is carried out so much later; the caller has long given up.
    Late(Duration),
}

/// A deployment that the fake made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub request: CreateRequest,
    /// Where it stands.
    pub status: ProviderStatus,
    /// When it was made.
    pub at: Timestamp,
    /// The one that restores the release before.
    pub successor: Option<String>,
    /// It restores the release before this one.
    pub restores: Option<String>,
    problem: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    made: Vec<Made>,
    late: Vec<(Timestamp, CreateRequest)>,
    faults: Vec<Fault>,
    calls: Vec<&'static str>,
    down: bool,
    traffic_down: bool,
    /// New deployments fail instead of becoming ready.
    fails: Option<String>,
    /// Groups that have a release.
    serving: BTreeMap<GroupName, String>,
    traffic: BTreeMap<GroupName, Traffic>,
    rate: u64,
    canary_errors: f64,
    /// Why nothing that serves answers.
    dead: Option<String>,
    outages: Vec<Outage>,
}

#[derive(Debug, Default, Clone)]
struct Traffic {
    weight: u8,
    epoch: u64,
    since: Option<Timestamp>,
    read: Option<Timestamp>,
    stable: (u64, u64),
    canary: (u64, u64),
    owed: f64,
}

/// The fake; cheap to clone, all clones are one provider.
#[derive(Debug, Clone)]
pub struct FakeProvider {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<dyn Clock>,
}

impl FakeProvider {
    /// A provider without groups, whose services get 100 requests a second.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let inner = Inner { rate: 100, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), clock }
    }

    /// The next calls fail so, in this order.
    pub fn fail_next(&self, faults: &[Fault]) {
        self.lock().faults.extend_from_slice(faults);
    }

    /// Nothing answers until it is called with `false`.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// Weights can't be read or set until it is called with `false`; the rest answers.
    pub fn set_traffic_down(&self, down: bool) {
        self.lock().traffic_down = down;
    }

    /// It forgets every deployment, as one does whose database is lost.
    pub fn forget_everything(&self) {
        self.lock().made.clear();
    }

    /// Deployments fail with this problem from now on, or succeed again.
    pub fn set_failing(&self, problem: Option<&str>) {
        self.lock().fails = problem.map(ToOwned::to_owned);
    }

    /// Share of errors of every new release, and requests per second in all.
    pub fn set_traffic(&self, canary_errors: f64, rate: u64) {
        let mut inner = self.lock();
        inner.canary_errors = canary_errors;
        inner.rate = rate;
    }

    /// What serves is dead for this reason, which is an outage, or is alive again.
    pub fn set_dead(&self, reason: Option<&str>) {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.dead = reason.map(ToOwned::to_owned);
        if let Some(reason) = reason {
            let id = i64::try_from(inner.outages.len()).unwrap_or(i64::MAX);
            inner.outages.insert(0, Outage { id, began: now, ended: None, reason: reason.into() });
        } else if let Some(last) = inner.outages.first_mut() {
            last.ended = Some(now);
        }
    }

    /// Everything that was made, in order.
    #[must_use]
    pub fn made(&self) -> Vec<Made> {
        let mut inner = self.lock();
        inner.arrive(self.clock.now());
        inner.made.clone()
    }

    /// Deployments that began with this token; restoring ones aside.
    #[must_use]
    pub fn with_token(&self, token: IntentId) -> usize {
        let made = self.made();
        made.iter().filter(|m| m.request.token == token && m.restores.is_none()).count()
    }

    /// The weight that the proxy has.
    #[must_use]
    pub fn weight(&self, group: &GroupName) -> u8 {
        self.lock().traffic.get(group).map_or(0, |t| t.weight)
    }

    /// Names of the calls that changed something, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<&'static str> {
        self.lock().calls.clone()
    }

    fn create_now(&self, request: &CreateRequest) -> CreateAnswer {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.arrive(now);
        let lost = || CreateAnswer::Lost("connection reset".into());
        if inner.down {
            return lost();
        }
        match inner.next_fault() {
            Some(Fault::CutBefore) => lost(),
            Some(Fault::CutAfter) => {
                inner.calls.push("create");
                let _ = inner.make(request.clone(), now);
                lost()
            }
            Some(Fault::Late(by)) => {
                inner.late.push((now + by, request.clone()));
                lost()
            }
            None => {
                inner.calls.push("create");
                inner.make(request.clone(), now)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries `work` out as the next fault lets it. The caller may be dropped between the effect
    /// and its answer.
    async fn call<T>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Inner, Timestamp) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let answer = self.carry_out(name, work);
        tokio::task::yield_now().await;
        answer
    }

    fn carry_out<T>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Inner, Timestamp) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.arrive(now);
        let cut = || ProviderError::Unreachable("connection reset".into());
        if inner.down {
            return Err(cut());
        }
        match inner.next_fault() {
            Some(Fault::CutBefore | Fault::Late(_)) => Err(cut()),
            Some(Fault::CutAfter) => {
                inner.calls.push(name);
                work(&mut inner, now)?;
                Err(cut())
            }
            None => {
                inner.calls.push(name);
                work(&mut inner, now)
            }
        }
    }
}

impl Inner {
    fn reach_proxy(&self) -> Result<(), ProviderError> {
        let down = || ProviderError::Unreachable("the proxy doesn't answer".into());
        if self.traffic_down { Err(down()) } else { Ok(()) }
    }

    fn next_fault(&mut self) -> Option<Fault> {
        (!self.faults.is_empty()).then(|| self.faults.remove(0))
    }

    fn arrive(&mut self, now: Timestamp) {
        let late = std::mem::take(&mut self.late);
        for (at, request) in late {
            if at <= now {
                let _ = self.make(request, now);
            } else {
                self.late.push((at, request));
            }
        }
    }

    fn active(&self, group: &GroupName) -> Option<&Made> {
        use ProviderStatus::{Ready, Working};
        self.made.iter().find(|m| m.request.group == *group && matches!(m.status, Working | Ready))
    }

    fn make(&mut self, request: CreateRequest, at: Timestamp) -> CreateAnswer {
        if self.active(&request.group).is_some() {
            return CreateAnswer::Busy;
        }
        let id = format!("d-FAKE{:05}", self.made.len() + 1);
        self.made.push(Made {
            id: id.clone(),
            request,
            status: ProviderStatus::Working,
            at,
            successor: None,
            restores: None,
            problem: None,
        });
        CreateAnswer::Created(id)
    }

    fn find(&mut self, id: &str) -> Result<usize, ProviderError> {
        self.made.iter().position(|m| m.id == id).ok_or_else(|| ProviderError::Refused {
            code: "DeploymentDoesNotExistException".into(),
            message: format!("there is no deployment {id}"),
        })
    }

    /// Ends it; a failed or stopped one that should be restored gets a successor.
    fn end(&mut self, i: usize, status: ProviderStatus, restore: bool, now: Timestamp) {
        let group = self.made[i].request.group.clone();
        self.made[i].status = status;
        if let Some(traffic) = self.traffic.get_mut(&group) {
            traffic.weight = 0;
        }
        let in_place = matches!(self.made[i].request.style, Style::InPlace { .. });
        if status == ProviderStatus::Succeeded {
            self.serving.insert(group, self.made[i].request.bundle.sha256.clone());
        } else if restore && in_place && self.serving.contains_key(&group) {
            let id = format!("d-FAKE{:05}", self.made.len() + 1);
            self.made[i].successor = Some(id.clone());
            let restores = Some(self.made[i].id.clone());
            let mut made = self.made[i].clone();
            made.status = ProviderStatus::Working;
            (made.id, made.restores, made.successor, made.at) = (id, restores, None, now);
            self.made.push(made);
        }
    }

    fn report(&mut self, group: &GroupName, now: Timestamp) -> TrafficReport {
        let active = self.active(group).map(|m| m.id.clone());
        let (rate, errors) = (self.rate, self.canary_errors);
        let traffic = self.traffic.entry(group.clone()).or_default();
        let passed = now.since(traffic.read.unwrap_or(now)).as_secs_f64();
        traffic.read = Some(now);
        let all = (passed * rate as f64).round() as u64;
        let canary = all * u64::from(traffic.weight) / 100;
        traffic.canary.0 += canary;
        traffic.stable.0 += all - canary;
        traffic.owed += canary as f64 * errors;
        let bad = traffic.owed.floor();
        traffic.owed -= bad;
        traffic.canary.1 += bad as u64;
        let arm = |(requests, errors): (u64, u64), weight: u8| {
            let mut counts = vec![0; LatencyHistogram::BUCKETS];
            counts[LatencyHistogram::index(20_000)] = requests;
            ArmReport {
                id: "fake".into(),
                weight,
                addresses: vec![],
                requests,
                errors,
                in_flight: 0,
                latency: LatencyHistogram::from_counts(&counts, requests * 20_000),
            }
        };
        TrafficReport {
            canary: active.as_ref().map(|_| arm(traffic.canary, traffic.weight)),
            deployment: active,
            intended: traffic.weight,
            measured: (all > 0).then_some(f64::from(traffic.weight)),
            measured_requests: all,
            since: traffic.since.unwrap_or(now),
            at: now,
            boot: "fake".into(),
            stable: Some(arm(traffic.stable, 100 - traffic.weight)),
        }
    }
}

#[async_trait]
impl Provider for FakeProvider {
    async fn prepare(&self, _: &Group, _: Style) -> Result<(), ProviderError> {
        self.call("prepare", |_, _| Ok(())).await
    }

    async fn upload(&self, _: &Bundle, _: &Path) -> Result<(), ProviderError> {
        self.call("upload", |_, _| Ok(())).await
    }

    async fn create(&self, request: &CreateRequest) -> CreateAnswer {
        let answer = self.create_now(request);
        tokio::task::yield_now().await;
        answer
    }

    async fn find(
        &self,
        group: &GroupName,
        token: IntentId,
        _: Timestamp,
    ) -> Result<Finding, ProviderError> {
        self.call("find", |inner, _| {
            let ours = inner.made.iter().find(|m| {
                m.restores.is_none() && m.request.description().starts_with(&marker(token))
            });
            let active = inner.active(group).map(|m| m.id.clone());
            Ok(Finding { ours: ours.map(|m| m.id.clone()), active })
        })
        .await
    }

    async fn observe(&self, id: &str) -> Result<Snapshot, ProviderError> {
        self.call("observe", |inner, now| {
            let i = inner.find(id)?;
            let fails = inner.fails.clone();
            let made = inner.made[i].clone();
            // It takes a second.
            if made.status == ProviderStatus::Working && now.since(made.at).as_secs() >= 1 {
                let waits = matches!(made.request.style, Style::Canary { .. })
                    && inner.serving.contains_key(&made.request.group);
                if let (Some(problem), None) = (fails, &made.restores) {
                    inner.made[i].problem = Some(problem);
                    inner.end(i, ProviderStatus::Failed, made.request.roll_back, now);
                } else if waits {
                    inner.made[i].status = ProviderStatus::Ready;
                    let group = made.request.group.clone();
                    inner.traffic.insert(group, Traffic::default());
                } else {
                    inner.end(i, ProviderStatus::Succeeded, false, now);
                }
            }
            let made = &inner.made[i];
            Ok(Snapshot {
                status: made.status,
                word: format!("{:?}", made.status),
                problem: made.problem.clone(),
                successor: made.successor.clone(),
            })
        })
        .await
    }

    async fn targets(&self, id: &str) -> Result<Vec<Target>, ProviderError> {
        self.call("targets", |inner, _| {
            let i = inner.find(id)?;
            let done = inner.made[i].status == ProviderStatus::Succeeded;
            let state = if done { "succeeded" } else { "in_progress" };
            Ok(vec![Target { id: "fake-1".into(), state: state.into(), events: vec![] }])
        })
        .await
    }

    async fn proceed(&self, id: &str) -> Result<(), ProviderError> {
        self.call("proceed", |inner, now| {
            let i = inner.find(id)?;
            if inner.made[i].status == ProviderStatus::Ready {
                inner.end(i, ProviderStatus::Succeeded, false, now);
            }
            Ok(())
        })
        .await
    }

    async fn stop(&self, id: &str, roll_back: bool) -> Result<(), ProviderError> {
        self.call("stop", |inner, now| {
            let i = inner.find(id)?;
            if matches!(inner.made[i].status, ProviderStatus::Ready | ProviderStatus::Working) {
                inner.end(i, ProviderStatus::Stopped, roll_back, now);
            }
            Ok(())
        })
        .await
    }

    fn settles_within(&self) -> Duration {
        Duration::from_secs(5)
    }
}

#[async_trait]
impl TrafficControl for FakeProvider {
    async fn set_weight(
        &self,
        group: &GroupName,
        deployment: &str,
        weight: u8,
        epoch: u64,
    ) -> Result<TrafficReport, ProviderError> {
        self.call("set_weight", |inner, now| {
            inner.reach_proxy()?;
            let i = inner.find(deployment)?;
            if inner.made[i].status != ProviderStatus::Ready {
                return Err(ProviderError::Refused {
                    code: "deployment_not_ready".into(),
                    message: format!("deployment {deployment} isn't ready"),
                });
            }
            inner.report(group, now);
            let traffic = inner.traffic.entry(group.clone()).or_default();
            if epoch < traffic.epoch {
                return Err(ProviderError::Refused {
                    code: "stale_epoch".into(),
                    message: "a newer orchestrator set the weight".into(),
                });
            }
            if traffic.weight != weight || traffic.since.is_none() {
                traffic.since = Some(now);
            }
            (traffic.weight, traffic.epoch) = (weight, epoch);
            Ok(inner.report(group, now))
        })
        .await
    }

    async fn traffic(&self, group: &GroupName) -> Result<TrafficReport, ProviderError> {
        self.call("traffic", |inner, now| {
            inner.reach_proxy()?;
            Ok(inner.report(group, now))
        })
        .await
    }

    /// Outside of what is counted and of the faults: it is asked beside everything else.
    async fn health(&self, _group: &GroupName) -> Result<ServiceHealth, ProviderError> {
        let inner = self.lock();
        if inner.down {
            return Err(ProviderError::Unreachable("it is down".into()));
        }
        let now = self.clock.now();
        let (state, reason) = match &inner.dead {
            Some(reason) => (ServingState::Down, Some(reason.clone())),
            None => (ServingState::Serving, None),
        };
        Ok(ServiceHealth {
            fleet: "fake".into(),
            state,
            since: now,
            healthy: u32::from(state == ServingState::Serving),
            wanted: 1,
            reason,
            at: now,
            outages: inner.outages.clone(),
        })
    }
}
