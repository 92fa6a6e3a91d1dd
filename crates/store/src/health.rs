//! Whether the database can do its work.

use async_trait::async_trait;
use pipeyard_model::Timestamp;

use crate::StoreResult;

/// Whether the database can do its work.
#[async_trait]
pub trait Health {
    /// Makes a durable write that changes nothing.
    async fn probe(&self) -> StoreResult<()>;
    /// Looks at all of the database: [`StoreError::Damaged`](crate::StoreError::Damaged) when a part
    /// of it isn't what was written. Takes as long as it takes, beside all other work.
    async fn check(&self) -> StoreResult<()>;
    /// The wall clock was set back: whatever waits for a time waits for at most `most` from now, as
    /// it would have without that.
    async fn shorten_waits(&self, latest: Timestamp) -> StoreResult<()>;
}
