//! (to be written)

use pipeyard_store::artifacts::Artifacts;

use crate::SqliteStore;

#[async_trait::async_trait]
impl Artifacts for SqliteStore {}
