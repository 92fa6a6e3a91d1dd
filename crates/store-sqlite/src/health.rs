//! Damage: SQLite's own look at the whole file, and the error codes that tell of it.

use std::path::Path;

use async_trait::async_trait;
use pipeyard_model::Timestamp;
use pipeyard_store::{StoreError, StoreResult, health::Health};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{SqliteStore, column::failed};

/// A file up to this size is looked at before it is used: half a second. A larger one is looked at
/// while it is.
pub(crate) const AT_ONCE: u64 = 64 << 20;
/// Problems that are named.
const NAMED: usize = 3;

/// Whether an error says that the file isn't what SQLite wrote: SQLITE_CORRUPT and SQLITE_NOTADB,
/// with their kinds.
pub(crate) fn says_damaged(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

/// Whether a new database would be made here: there is no file, or one without a byte.
pub fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |found| found.len() == 0)
}

/// Looks at every page, every index and every row.
pub(crate) async fn check(connection: &mut SqliteConnection) -> StoreResult<()> {
    let rows: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(20)")
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    if rows.iter().any(|row| row == "ok") {
        return Ok(());
    }
    let named = rows.iter().take(NAMED).map(|row| row.trim()).collect::<Vec<_>>().join("; ");
    Err(StoreError::Damaged(named))
}

/// The same for a database file that nobody has open.
///
/// # Errors
/// When it is damaged, or can't be opened.
pub async fn check_file(path: &Path) -> StoreResult<()> {
    let mut connection =
        SqliteConnectOptions::new().filename(path).connect().await.map_err(failed)?;
    let checked = check(&mut connection).await;
    let _ = connection.close().await;
    checked
}

/// Writes a copy of a database as it is at this moment, whoever uses it meanwhile, and looks at the
/// copy.
///
/// # Errors
/// When it can't be read or written, or is damaged.
pub async fn copy(path: &Path, to: &Path) -> StoreResult<()> {
    let io = |error: std::io::Error| StoreError::Unavailable(error.to_string());
    let name = to.to_str().ok_or_else(|| {
        StoreError::Unavailable(format!("{} isn't UTF-8, which SQLite needs", to.display()))
    })?;
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(crate::BUSY);
    let mut connection = options.connect().await.map_err(failed)?;
    let done = sqlx::query("VACUUM INTO ?").bind(name).execute(&mut connection).await;
    let _ = connection.close().await;
    done.map_err(failed)?;
    // SQLite leaves it to us that the copy is on the disk.
    std::fs::File::open(to).and_then(|file| file.sync_all()).map_err(io)?;
    check_file(to).await
}

#[async_trait]
impl Health for SqliteStore {
    async fn probe(&self) -> StoreResult<()> {
        self.write(|c| {
            Box::pin(async move {
                sqlx::query!("UPDATE installation SET id = id").execute(c).await.map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn check(&self) -> StoreResult<()> {
        check_file(&self.path).await
    }

    async fn shorten_waits(&self, latest: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query!(
                    "UPDATE run_requests SET due_at = min(due_at, ?) WHERE closed_at IS NULL;
                     UPDATE outbox SET next_at = min(next_at, ?) WHERE state = 'waiting'",
                    latest.0,
                    latest.0
                )
                .execute(c)
                .await
                .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }
}
