//! The compiled pipeline: what the server stores for a run and what a runner executes.
//!
//! A [`Plan`] is what is left when the YAML has been checked: every name resolves, the graph has no
//! cycle, every duration and limit is inside its bounds. A runner never sees YAML.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{EnvironmentName, NodeName, SecretName, ServiceName};

/// A compiled pipeline: a graph of jobs and deploys without cycles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The pipeline's name: the file's name without its ending, `pipeyard` for `.pipeyard.yml`.
    pub pipeline: String,
    /// Jobs and deploys in the order of the file.
    pub nodes: Vec<Node>,
}

/// One node of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Unique in the plan.
    pub name: NodeName,
    /// What must have succeeded before.
    pub needs: Vec<NodeName>,
    /// What it does.
    pub kind: NodeKind,
}

/// A job or a deploy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// Claimed by a runner.
    Job(JobSpec),
    /// Driven by the server.
    Deploy(DeploySpec),
}

/// What one runner executes: an image, a workspace, steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobSpec {
    /// The container image, as written.
    pub image: String,
    /// Commands, one after another, on one workspace. Never empty.
    pub steps: Vec<StepSpec>,
    /// Environment of every step; values may not hold secrets.
    pub env: BTreeMap<String, String>,
    /// Secrets that the job asks for by name.
    pub secrets: Vec<SecretName>,
    /// Containers beside the job, reachable by their alias.
    pub services: Vec<ServiceSpec>,
    /// How long an attempt may take from its claim to its end, in seconds.
    #[serde(with = "seconds")]
    #[schema(value_type = u64)]
    pub timeout: Duration,
    /// Files to keep when the job succeeds: glob patterns relative to the workspace.
    pub artifacts: Vec<String>,
    /// JUnit reports to read when the steps have ended: paths or glob patterns relative to the
    /// workspace.
    #[serde(default, deserialize_with = "none_one_or_many")]
    pub tests: Vec<String>,
    /// How often a failed job is tried again by itself; a lost runner is counted apart.
    pub retry: u32,
    /// Never offered again after a lost runner.
    pub once: bool,
    /// Labels that a runner must have to claim it.
    pub labels: Vec<String>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepSpec {
    /// Shown in the log; the command's first line if the file gives none.
    pub name: String,
    /// Given to `/bin/sh -e`.
    pub run: String,
    /// An image of its own, on the same workspace.
    pub image: Option<String>,
    /// Environment besides the job's.
    pub env: BTreeMap<String, String>,
    /// How long the step may take, in seconds; the job's timeout holds besides.
    #[serde(with = "seconds::option")]
    #[schema(value_type = Option<u64>)]
    pub timeout: Option<Duration>,
}

/// A container beside the job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSpec {
    /// The host name under which steps reach it.
    pub alias: String,
    /// The image; its entrypoint is kept.
    pub image: String,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Arguments in place of the image's own.
    pub command: Vec<String>,
    /// When it counts as ready.
    pub ready: Readiness,
}

/// When a service counts as ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// The image's HEALTHCHECK if it has one, otherwise its first exposed port accepts, otherwise
    /// it is running.
    Automatic,
    /// This TCP port accepts.
    Port(u16),
}

/// Ships a release to a service in an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeploySpec {
    /// What is shipped.
    pub release: ReleaseSource,
    /// Where to.
    pub environment: EnvironmentName,
    /// Which service there.
    pub service: ServiceName,
    /// How.
    pub strategy: Strategy,
    /// Limits that hold while traffic shifts; empty unless it is a canary.
    pub healthy_when: Vec<HealthLimit>,
    /// What follows a broken limit.
    pub otherwise: Otherwise,
    /// A person must approve before it starts.
    pub approve: bool,
}

/// Where a release comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseSource {
    /// A file that this job keeps as an artifact.
    Artifact {
        /// The job.
        job: NodeName,
        /// The artifact's path, as the job names it.
        path: String,
    },
}

/// How a release takes the place of the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All of the traffic at once, to new copies.
    AllAtOnce,
    /// A growing share of the traffic, judged at each weight; 100 % follows the last step.
    Canary {
        /// In order of weight, never empty.
        steps: Vec<CanaryStep>,
    },
    /// So many hosts at a time.
    Rolling {
        /// How many at a time.
        batch: Batch,
    },
}

/// One weight of a canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CanaryStep {
    /// Share of the traffic in percent, 1 to 99.
    pub weight: u8,
    /// How long to stay and judge, in seconds.
    #[serde(rename = "for", with = "seconds")]
    #[schema(value_type = u64)]
    pub hold: Duration,
}

/// How many targets of a rolling deployment change at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// Percent of the targets, 1 to 100.
    Percent(u8),
    /// That many targets, at least 1.
    Count(u32),
}

/// A limit on what the new version may do, `error_rate < 1%`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthLimit {
    /// Share of answers with status 5xx or none at all, 0 to 1, must stay below this.
    ErrorRate(f64),
    /// This percentile of the latency must stay below so many milliseconds.
    LatencyMs {
        /// 50, 90, 95 or 99.
        percentile: u8,
        /// The limit in milliseconds.
        below: f64,
    },
}

/// What follows when a limit is broken, a target fails or a step runs out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// Back to the last good release.
    Rollback,
    /// Stay at the present weight until a person decides.
    Hold,
}

/// A list; jobs that were stored by an earlier version have null or one text instead.
fn none_one_or_many<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        None,
        One(String),
        Many(Vec<String>),
    }
    Ok(match Stored::deserialize(deserializer)? {
        Stored::None => vec![],
        Stored::One(path) => vec![path],
        Stored::Many(paths) => paths,
    })
}

impl Plan {
    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }
}

/// Durations as whole seconds.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// As whole seconds, rounded down.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        duration.as_secs().serialize(serializer)
    }

    /// From whole seconds.
    ///
    /// # Errors
    /// When it isn't a whole number of seconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }

    /// The same for an optional duration.
    pub mod option {
        use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

        /// As whole seconds or null.
        ///
        /// # Errors
        /// Only the serializer's own.
        pub fn serialize<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
            d.map(|d| d.as_secs()).serialize(s)
        }

        /// From whole seconds or null.
        ///
        /// # Errors
        /// When it is neither null nor a whole number of seconds.
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(d)?.map(Duration::from_secs))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_an_earlier_version_stored_is_still_read() {
        let job = |tests: &str| {
            let json = format!(
                r#"{{"image": "x", "steps": [], "env": {{}}, "secrets": [], "services": [], "timeout": 1,
                    "artifacts": [], {tests} "retry": 0, "once": false, "labels": []}}"#
            );
            serde_json::from_str::<JobSpec>(&json).unwrap().tests
        };
        assert_eq!(job(r#""tests": null,"#), [""; 0]);
        assert_eq!(job(""), [""; 0]);
        assert_eq!(job(r#""tests": "a.xml","#), ["a.xml"]);
        assert_eq!(job(r#""tests": ["a.xml", "b/*.xml"],"#), ["a.xml", "b/*.xml"]);
    }
}
