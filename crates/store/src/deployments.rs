//! Environments, services, releases, deployments, incidents and DORA contributions.

use async_trait::async_trait;

/// Environments, services, releases, deployments, incidents and DORA contributions.
#[async_trait]
pub trait Deployments {}
