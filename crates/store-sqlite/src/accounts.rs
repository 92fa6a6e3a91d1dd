//! (to be written)

use pipeyard_store::accounts::Accounts;

use crate::SqliteStore;

#[async_trait::async_trait]
impl Accounts for SqliteStore {}
