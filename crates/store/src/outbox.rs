//! Messages that must leave the server: commit statuses, notifications.

use async_trait::async_trait;

/// Messages that must leave the server: commit statuses, notifications.
#[async_trait]
pub trait Outbox {}
