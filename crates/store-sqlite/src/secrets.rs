//! (to be written)

use pipeyard_store::secrets::Secrets;

use crate::SqliteStore;

#[async_trait::async_trait]
impl Secrets for SqliteStore {}
