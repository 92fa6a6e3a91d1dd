//! Secrets, encrypted before they get here.

use async_trait::async_trait;

/// Secrets, encrypted before they get here.
#[async_trait]
pub trait Secrets {}
