//! What happened, in order. Readers resume from a sequence number.

use async_trait::async_trait;
use pipeyard_api::views::EventView;
use pipeyard_model::{RunId, Timestamp};
use tokio::sync::watch;

use crate::StoreResult;

/// Events.
#[async_trait]
pub trait Events {
    /// Events after `after`, oldest first, of one run or of all.
    async fn events(
        &self,
        after: i64,
        run: Option<RunId>,
        limit: u32,
    ) -> StoreResult<Vec<EventView>>;
    /// The newest sequence number.
    async fn last_event(&self) -> StoreResult<i64>;
    /// Wakes when something was committed. Only a wake-up: readers look at the rows, and look again
    /// after a while even when nothing woke them.
    fn wake(&self) -> watch::Receiver<u64>;
    /// Removes events from before `before`.
    async fn trim_events(&self, before: Timestamp) -> StoreResult<u64>;
}
