//! Kept outputs of jobs.

use async_trait::async_trait;

/// Kept outputs of jobs.
#[async_trait]
pub trait Artifacts {}
