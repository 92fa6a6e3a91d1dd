//! (to be written)

use pipeyard_store::outbox::Outbox;

use crate::SqliteStore;

#[async_trait::async_trait]
impl Outbox for SqliteStore {}

/// Called in the transaction in which a run was created or got another status or conclusion.
pub(crate) async fn run_changed(
    _connection: &mut sqlx::SqliteConnection,
    _run: pipeyard_model::RunId,
    _now: pipeyard_model::Timestamp,
) -> pipeyard_store::StoreResult<()> {
    Ok(())
}
