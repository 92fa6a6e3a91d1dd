//! What is old goes: the bytes of logs and artifacts, never the rows that tell of them.
//!
//! Rows give bytes up in one transaction, which also notes what is to be removed from the disk; so a
//! crash between the two leaves a note and never an orphan. What an environment runs, may go back to,
//! or is about to get is kept however old it is.

use async_trait::async_trait;
use pipeyard_model::{AttemptId, Timestamp};

use crate::StoreResult;

/// The releases of so many of a service's last successful deployments are kept, so that it can go
/// back to them; also those of every deployment that isn't over.
pub const KEPT_RELEASES: u32 = 10;

/// Bytes that no row needs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// An attempt's log.
    Log(AttemptId),
    /// A blob, by its SHA-256.
    Blob(String),
}

/// What is old goes. Every change is bulk work.
#[async_trait]
pub trait Retention {
    /// Gives up the logs and artifacts of at most `limit` runs that ended before `before`, but for
    /// artifacts that a release needs; those are given up when it doesn't any more. Answers how many
    /// runs there were: fewer than `limit` means that there are no more.
    async fn give_up(&self, before: Timestamp, now: Timestamp, limit: u32) -> StoreResult<u32>;
    /// What may be removed from the disk, at most `limit` of it.
    async fn removals(&self, limit: u32) -> StoreResult<Vec<Removal>>;
    /// Whether an artifact has these bytes: they may have been kept again since they were given up.
    async fn blob_is_needed(&self, sha256: &str) -> StoreResult<bool>;
    /// It isn't on the disk any more, or is needed again. Idempotent.
    async fn removed(&self, removal: Removal) -> StoreResult<()>;
}
