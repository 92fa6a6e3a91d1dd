//! The embedded fleet: an endpoint that speaks AWS CodeDeploy's protocol and really deploys.
//!
//! Three processes, each can be killed alone:
//!
//! - the **fleet** (`fleet::run`): the awsJson1.1 endpoint, its database, the engine, the store of
//!   bundles, and two resources of its own, services and traffic;
//! - the **proxy** (`fleet::proxy::run`): a weighted HTTP/1.1 reverse proxy that goes on serving
//!   its last routes when everything else is dead;
//! - the **agent** (`fleet::agent::run`): one on each host, carries out lifecycle events.
//!
//! # How a client deploys
//!
//! At its first start the fleet writes `<data>/credentials.json` (mode 0600):
//! `{"access_key_id", "secret_access_key", "token"}`. The key pair signs CodeDeploy requests (SigV4,
//! service `codedeploy`, the configured region); `token` is the bearer token of `/services`,
//! `/traffic`, `/hosts` and `/bundles`. Every host has a key of its own, for which its agent
//! exchanges a code that is good once.
//!
//! 1. Set up once for each service and environment: `CreateApplication` (computePlatform `ECS` for
//!    containers, `Server` for hosts), `CreateDeploymentGroup`, and
//!    `PUT /services/{application}/{group}` with a [`pipeyard_model::fleet::ServiceDefinition`].
//!    All three may be repeated; a group is updated with `UpdateDeploymentGroup`.
//! 2. Upload the bundle, a tar.gz: `PUT /bundles/{bucket}/{key}`, with the bearer token. The
//!    answer's `ETag` is the body's sha256 in hex.
//! 3. `CreateDeployment` with `revision: {revisionType: "S3", s3Location: {bucket, key,
//!    bundleType: "tgz", eTag: <sha256>}}`. The fleet checks the digest before it uses a byte.
//!
//! **Canary** (`ECS`): the group has `deploymentStyle {BLUE_GREEN, WITH_TRAFFIC_CONTROL}` and
//! `blueGreenDeploymentConfiguration.deploymentReadyOption {actionOnTimeout: "STOP_DEPLOYMENT",
//! waitTimeInMinutes: n}`. The deployment starts the new set beside the old one, waits until it is
//! healthy, and is `Ready`. Now `POST /traffic/{application}/{group}` moves the weight as often as
//! wanted. `ContinueDeployment` (`READY_WAIT`) gives it 100 %, drains and removes the old set and
//! ends `Succeeded`; `StopDeployment` gives the old set 100 %, removes the new one and ends
//! `Stopped`, and so does the end of the waiting time. With `CONTINUE_DEPLOYMENT`, or without the
//! option, traffic shifts by itself, by the deployment configuration: at once, in two steps
//! (canary) or linearly. The first deployment of a group has no old set and never waits.
//!
//! **What serves is kept alive.** Each service is looked at every second: what is stopped, paused,
//! removed or cut off of a set that should run is brought back, in pauses that grow while it keeps
//! dying. `GET /health/{application}/{group}` says how it stands and which outages there were. A
//! program on a host is only looked at: starting it is its host's business.
//!
//! **Rolling** (`Server`): hosts are chosen by the group's `onPremisesTagSet`, where each group of
//! tags must match and one tag of a group is enough, or by `onPremisesInstanceTagFilters`, which is
//! one such group. The deployment configuration's minimum of healthy hosts sizes the batches.
//!
//! # Absent
//!
//! Lambda, EC2 instances, alarms, triggers, load
//! balancers, GitHub revisions. What the fleet can't do it refuses by name.

pub mod agent;
mod agents;
mod appspec;
mod archive;
mod aws;
pub mod backup;
mod beneath;
mod bundles;
mod control;
mod credentials;
mod db;
mod deployment;
mod engine;
mod files;
mod fleet;
mod hosts;
pub mod proxy;
pub mod sigv4;
mod token;

pub use credentials::{AccessKey, Credentials};
pub use deployment::{DeploymentStatus, Diagnostics, LifecycleErrorCode};
pub use fleet::{
    FleetConfig, default_listen, default_region, remove_everything, renew_identity, run, run_by,
};
pub use token::Token;

/// A client for what credentials are sent to, and for what answers on this machine: it believes the
/// authorities of `--ca-file`, asks no proxy and follows no redirect.
///
/// # Errors
/// When it can't be built.
pub fn http_client() -> anyhow::Result<reqwest::Client> {
    Ok(pipeyard_trust::client().no_proxy().build()?)
}

/// A client for health checks: no credential goes along, so redirects are followed as they always
/// were.
pub(crate) fn probing_client() -> anyhow::Result<reqwest::Client> {
    let redirects = reqwest::redirect::Policy::default();
    Ok(pipeyard_trust::client().redirect(redirects).no_proxy().build()?)
}

/// An error with its causes, which HTTP clients hide from their own text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
