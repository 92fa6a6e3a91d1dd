//! What the embedded fleet and its callers say to each other beside the CodeDeploy API: service
//! definitions, traffic weights, and what the proxy counted.
//!
//! CodeDeploy has no word for a port, a health path or a traffic weight of one's own, so the fleet
//! adds small resources next to it, all under `Authorization: Bearer <token>`:
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /services/{application}/{group}` | [`ServiceDefinition`] | the same, stored |
//! | `GET /services/{application}/{group}` | | [`ServiceDefinition`] |
//! | `POST /traffic/{application}/{group}` | [`SetWeight`] | [`TrafficReport`] |
//! | `GET /traffic/{application}/{group}` | | [`TrafficReport`] |
//! | `GET /health/{application}/{group}` | | [`ServiceHealth`] |
//! | `POST /hosts` | [`EnrolHost`] | [`Enrolment`] |
//! | `GET /hosts` | | a list of [`HostView`] |
//! | `DELETE /hosts/{name}` | | 204 |
//!
//! An error is `{"code": "...", "message": "..."}` with a 4xx or 5xx status ([`ControlError`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Lets a host enrol: says what it is, and asks for a code that its agent exchanges for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolHost {
    /// The host's name: 1 to 100 letters, digits or `._+=,@-`.
    pub name: String,
    /// Tags by which groups choose hosts. Absent: those that it has stay.
    #[serde(default)]
    pub tags: Option<BTreeMap<String, String>>,
    /// Where the service on the host answers. Absent: what is known stays.
    #[serde(default)]
    pub address: Option<std::net::SocketAddr>,
    /// How long the code is good; a day if absent.
    #[serde(default)]
    pub valid_seconds: Option<u64>,
}

/// A code, shown once. Whoever has it becomes the host.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The host.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// What the agent exchanges for its key, once.
    pub code: String,
    /// From when on it is worth nothing.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Enrolment({})", self.name)
    }
}

/// A host, as the fleet knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Where its service answers.
    pub address: Option<std::net::SocketAddr>,
    /// Tags by which groups choose it.
    pub tags: BTreeMap<String, String>,
    /// The public half of its key; none until it has enrolled.
    pub access_key_id: Option<String>,
    /// Since when it has this key.
    pub enrolled_at: Option<Timestamp>,
    /// Until when its open enrolment is good.
    pub enrolment_until: Option<Timestamp>,
    /// `online`, `silent`, or `never` if its agent hasn't come.
    pub agent: String,
    /// The user that its agent runs as.
    pub agent_user: Option<String>,
}

/// What a deployment group runs, and the port at which people reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceDefinition {
    /// The loopback port at which the proxy takes requests for this service.
    pub listen: u16,
    /// What stands behind the proxy.
    pub platform: ServicePlatform,
}

/// What stands behind the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServicePlatform {
    /// Sets of equal containers; a deployment is blue/green (computePlatform `ECS`).
    Container(ContainerService),
    /// Hosts that run the agent; a deployment is rolling and in place (computePlatform `Server`).
    Hosts(HostService),
}

/// A service of equal containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerService {
    /// The base image. The bundle is unpacked into `/app`, which is the working directory.
    pub image: String,
    /// The command, `[program, argument, ...]`. Empty: the image's own.
    #[serde(default)]
    pub command: Vec<String>,
    /// The port on which the program listens; also given to it as `PORT`.
    pub port: u16,
    /// A path that answers 2xx when the program can take requests.
    #[serde(default = "slash")]
    pub health_path: String,
    /// How many containers.
    pub replicas: u32,
    /// Environment of the program.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How long a new container may take until it is healthy, in seconds.
    #[serde(default = "sixty")]
    pub healthy_within: u32,
    /// How long requests in flight may take when a set leaves the traffic, in seconds.
    #[serde(default = "thirty")]
    pub drain_within: u32,
}

/// A service on hosts that run the agent. Which hosts is said by the group's tag filters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostService {
    /// A path that answers 2xx when the program on a host can take requests.
    #[serde(default = "slash")]
    pub health_path: String,
    /// How long a host may take to become healthy after its `ValidateService`, in seconds.
    #[serde(default = "thirty")]
    pub healthy_within: u32,
    /// How long requests in flight may take when a host leaves the traffic, in seconds.
    #[serde(default = "thirty")]
    pub drain_within: u32,
}

fn slash() -> String {
    "/".to_owned()
}

fn sixty() -> u32 {
    60
}

fn thirty() -> u32 {
    30
}

/// Whether a service serves its users, as the fleet sees it by health checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHealth {
    /// Which fleet says so; outages are numbered by it.
    pub fleet: String,
    /// How it stands.
    pub state: ServingState,
    /// Since when it stands so.
    pub since: Timestamp,
    /// Containers or hosts in the traffic that answer their health check.
    pub healthy: u32,
    /// Those that should.
    pub wanted: u32,
    /// What is wrong and what is done about it.
    pub reason: Option<String>,
    /// When it was looked at.
    pub at: Timestamp,
    /// Times in which nobody was served, newest first.
    pub outages: Vec<Outage>,
}

/// How it stands with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServingState {
    /// Nothing was released to it yet.
    Nothing,
    /// All that should serve does.
    Serving,
    /// Users are served, by fewer than should be.
    Impaired,
    /// Nobody is served.
    Down,
}

impl ServingState {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Serving => "serving",
            Self::Impaired => "impaired",
            Self::Down => "down",
        }
    }
}

/// A time in which a service answered nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Its number in its fleet.
    pub id: i64,
    /// When it began.
    pub began: Timestamp,
    /// When users were served again; none while it lasts.
    pub ended: Option<Timestamp>,
    /// Why, as far as it was seen.
    pub reason: String,
}

/// Moves traffic to the new version of a deployment that is `Ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeight {
    /// The deployment that the caller believes is active (`d-...`); any other is refused.
    pub deployment: String,
    /// The new version's share in percent, 0 to 100.
    pub weight: u8,
    /// Fences writers: one that is lower than the last accepted of this deployment is refused.
    #[serde(default)]
    pub epoch: u64,
}

/// Where the traffic of a service goes, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// The deployment that is active in the group, if any.
    pub deployment: Option<String>,
    /// The new version's share as it was asked for, in percent; 0 without a deployment.
    pub intended: u8,
    /// The new version's share as the proxy counted it since `since`, in percent; none before the
    /// first request.
    pub measured: Option<f64>,
    /// Requests that `measured` rests on.
    pub measured_requests: u64,
    /// When the intended weight was set.
    pub since: Timestamp,
    /// When the proxy was asked.
    pub at: Timestamp,
    /// Changes when the proxy starts anew: then all counters begin again at zero.
    pub boot: String,
    /// The version that takes the rest of the traffic; none before the first deployment.
    pub stable: Option<ArmReport>,
    /// The new version; none when no deployment has one in the proxy.
    pub canary: Option<ArmReport>,
}

/// What one arm of the proxy counted since it was made. Counters only grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmReport {
    /// The deployment that made it, `d-...`; for hosts `hosts`.
    pub id: String,
    /// Its share in percent as the proxy has it now.
    pub weight: u8,
    /// Where it sends requests, `address:port`.
    pub addresses: Vec<String>,
    /// Requests that were given to this arm.
    pub requests: u64,
    /// Of these: answered 5xx, or not at all.
    pub errors: u64,
    /// Of these: still without an answer, or whose answer is still being sent.
    pub in_flight: u64,
    /// Time from the request's arrival to the head of its answer.
    pub latency: LatencyHistogram,
}

/// Why a request to the fleet's own resources was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ControlError {
    /// Stable: `unauthorized`, `not_found`, `invalid`, `stale_epoch`, `deployment_not_ready`,
    /// `proxy_unreachable`, `internal`.
    pub code: String,
    /// What, why, and what to do.
    pub message: String,
}

/// Counts of durations in log-linear buckets: 16 to each power of two, so that a quantile is at
/// most 6.25 % too high and never too low. Histograms add and subtract.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyHistogram {
    /// Buckets that hold anything, in ascending order.
    pub buckets: Vec<LatencyBucket>,
    /// Sum of all durations in microseconds.
    pub sum_us: u64,
}

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// The largest duration that it holds, in microseconds.
    pub le_us: u64,
    /// How many it holds; not cumulative.
    pub count: u64,
}

impl LatencyHistogram {
    /// How many buckets there can be; durations above some 19 hours share the last.
    pub const BUCKETS: usize = 528;

    /// The bucket of a duration, below [`Self::BUCKETS`].
    #[must_use]
    pub fn index(us: u64) -> usize {
        if us < 16 {
            return usize::try_from(us).unwrap_or(0);
        }
        let octave = us.ilog2();
        let sub = (us >> (octave - 4)) & 15;
        let index = u64::from(octave - 3) * 16 + sub;
        usize::try_from(index).unwrap_or(usize::MAX).min(Self::BUCKETS - 1)
    }

    /// The largest duration in a bucket, in microseconds.
    #[must_use]
    pub fn upper_us(index: usize) -> u64 {
        let index = index.min(Self::BUCKETS - 1) as u64;
        if index < 16 {
            return index;
        }
        let (octave, sub) = (index / 16 + 3, index % 16);
        ((17 + sub) << (octave - 4)) - 1
    }

    /// A histogram from counts by bucket index.
    #[must_use]
    pub fn from_counts(counts: &[u64], sum_us: u64) -> Self {
        let full = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let buckets =
            full.map(|(i, count)| LatencyBucket { le_us: Self::upper_us(i), count: *count });
        Self { buckets: buckets.collect(), sum_us }
    }

    /// How many durations it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    /// What was added since `earlier`, an older reading of the same arm.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut old: BTreeMap<u64, u64> =
            earlier.buckets.iter().map(|b| (b.le_us, b.count)).collect();
        let newer = self.buckets.iter().filter_map(|b| {
            let count = b.count.saturating_sub(old.remove(&b.le_us).unwrap_or(0));
            (count > 0).then_some(LatencyBucket { le_us: b.le_us, count })
        });
        let buckets = newer.collect();
        Self { buckets, sum_us: self.sum_us.saturating_sub(earlier.sum_us) }
    }

    /// The smallest bucket limit, in microseconds, that at least `share` (0 to 1) of the durations
    /// don't exceed; none when it is empty.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        let total = self.count();
        let rank = ((total as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().find_map(|bucket| {
            seen += bucket.count;
            (seen >= rank).then_some(bucket.le_us)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_durations_and_is_at_most_a_sixteenth_wide() {
        let mut last = None;
        for us in (0..100_000u64).chain([1 << 30, (1 << 35) + 12345]) {
            let index = LatencyHistogram::index(us);
            let upper = LatencyHistogram::upper_us(index);
            assert!(upper >= us && upper - us <= us / 16, "{us} in {index} up to {upper}");
            assert!(last.is_none_or(|last| index >= last));
            last = Some(index);
        }
        assert_eq!(LatencyHistogram::index(u64::MAX), LatencyHistogram::BUCKETS - 1);
    }

    #[test]
    fn quantiles_come_from_what_was_added_since() {
        let mut counts = vec![0; LatencyHistogram::BUCKETS];
        counts[LatencyHistogram::index(1_000)] = 100;
        let earlier = LatencyHistogram::from_counts(&counts, 100_000);
        counts[LatencyHistogram::index(9_000)] += 10;
        let now = LatencyHistogram::from_counts(&counts, 190_000);
        assert_eq!(now.quantile_us(0.5), Some(1_023));
        let added = now.since(&earlier);
        assert_eq!((added.count(), added.sum_us), (10, 90_000));
        assert_eq!(added.quantile_us(0.5), Some(9_215));
        assert_eq!(LatencyHistogram::default().quantile_us(0.5), None);
    }

    #[test]
    fn a_definition_is_short_and_refuses_what_it_does_not_know() {
        let json = r#"{"listen": 8480, "platform": {"container":
            {"image": "busybox", "port": 80, "replicas": 2}}}"#;
        let definition: ServiceDefinition = serde_json::from_str(json).unwrap();
        let ServicePlatform::Container(container) = definition.platform else { panic!() };
        assert_eq!((container.health_path.as_str(), container.healthy_within), ("/", 60));
        let hosts = r#"{"listen": 1, "platform": {"hosts": {}}}"#;
        assert!(serde_json::from_str::<ServiceDefinition>(hosts).is_ok());
        let wrong = r#"{"listen": 1, "platform": {"hosts": {"ports": 1}}}"#;
        assert!(serde_json::from_str::<ServiceDefinition>(wrong).is_err());
    }
}
