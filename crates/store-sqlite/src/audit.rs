//! The audit log's one writer. A row belongs to the transaction of the change that it tells of.

use pipeyard_model::{Timestamp, UserId};
use pipeyard_store::StoreResult;
use sqlx::SqliteConnection;

use crate::column::failed;

/// Records that `by` did `action` (`secret.set`, `run.cancel`, ...) to `target`; `None` is Pipeyard
/// itself.
pub(crate) async fn record(
    tx: &mut SqliteConnection,
    by: Option<UserId>,
    action: &str,
    target: &str,
    now: Timestamp,
) -> StoreResult<()> {
    let by = by.map(|id| id.to_string());
    sqlx::query!(
        "INSERT INTO audit (at, user_id, action, target) VALUES (?, ?, ?, ?)",
        now.0,
        by,
        action,
        target
    )
    .execute(tx)
    .await
    .map_err(failed)?;
    Ok(())
}
