//! Accounts, secrets and the audit log on SQLite.

use std::sync::Arc;

use pipeyard_model::{ManualClock, Timestamp};
use pipeyard_store::conformance::people;
use pipeyard_store_sqlite::SqliteStore;

const NOW: Timestamp = Timestamp::from_seconds(1_772_366_400);

async fn fresh() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(ManualClock::at(NOW));
    let store =
        SqliteStore::open(&folder.path().join("pipeyard.db"), clock).await.expect("a store");
    (folder, store)
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            let (_folder, store) = fresh().await;
            people::$name(&store, NOW).await;
        }
    )*};
}

suite!(
    a_one_time_login_is_used_once,
    a_credential_ends,
    the_use_of_a_token_is_noted,
    a_job_takes_its_repositorys_secrets,
    a_change_is_in_the_audit_log,
);
