//! (to be written)

use pipeyard_store::deployments::Deployments;

use crate::SqliteStore;

#[async_trait::async_trait]
impl Deployments for SqliteStore {}
