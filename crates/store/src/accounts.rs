//! People, sessions, tokens and the audit log.

use async_trait::async_trait;

/// People, sessions, tokens and the audit log.
#[async_trait]
pub trait Accounts {}
