//! The fleet's database: SQLite, WAL, every commit on disk, one writer.
//!
//! Writes go through one connection and begin with `BEGIN IMMEDIATE`, so they never meet a busy
//! database of their own. Reads have connections of their own and see the last commit.

mod applications;
mod bundles;
mod commands;
mod deployments;
mod hosts;
mod instances;
mod outages;
mod steps;
mod tags;
mod traffic;

use std::{path::Path, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    ConnectOptions as _, Connection as _, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub(crate) use applications::{Application, Config, Group};
pub(crate) use bundles::Bundle;
pub(crate) use commands::CommandDoc;
pub(crate) use deployments::{Changed, Created, Filter};
pub(crate) use hosts::{Access, Enrolling, NewEnrolment};
pub(crate) use instances::{Abilities, Installed, Instance, InstanceDoc};
pub(crate) use traffic::TrafficDoc;

/// Why the database couldn't do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DbError {
    /// SQLite said no.
    #[error("the fleet's database: {0}")]
    Sqlx(#[from] sqlx::Error),
    /// A row holds what this program can't read; it was written by another version.
    #[error("the fleet's database holds a row that can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The file isn't what SQLite wrote.
    #[error("the fleet's database is damaged, restore the last backup: {0}")]
    Damaged(String),
    /// The schema couldn't be brought up to date.
    #[error("the fleet's database can't be migrated: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

pub(crate) type Result<T> = std::result::Result<T, DbError>;

/// A file up to this size is looked at as a whole before it is used: half a second.
const AT_ONCE: u64 = 64 << 20;

/// Open database.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    write: SqlitePool,
    read: SqlitePool,
}

impl Db {
    /// Opens or makes `fleet.db`, brings it up to date, and returns it with the fleet's id.
    pub(crate) async fn open(path: &Path) -> Result<(Self, String)> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        if (1..=AT_ONCE).contains(&std::fs::metadata(path).map_or(0, |found| found.len())) {
            let mut connection = options.connect().await?;
            let checked = check(&mut connection).await;
            let _ = connection.close().await;
            checked?;
        }
        let write =
            SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("../../migrations/fleet").run(&write).await?;
        let read = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        let id = uuid::Uuid::now_v7().to_string();
        sqlx::query!("INSERT INTO fleet (one, id) VALUES (1, ?) ON CONFLICT DO NOTHING", id)
            .execute(&write)
            .await?;
        let id = sqlx::query_scalar!("SELECT id FROM fleet").fetch_one(&write).await?;
        Ok((Self { write, read }, id))
    }

    /// Another id: nothing that was made before belongs to this fleet any more.
    pub(crate) async fn renew_identity(&self) -> Result<()> {
        let id = uuid::Uuid::now_v7().to_string();
        sqlx::query!("UPDATE fleet SET id = ?", id).execute(&self.write).await?;
        Ok(())
    }

    /// Ends every connection.
    pub(crate) async fn close(self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// Makes a durable write that changes nothing.
    pub(crate) async fn probe(&self) -> Result<()> {
        sqlx::query!("UPDATE fleet SET id = id").execute(&self.write).await?;
        Ok(())
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Whether a new database would be made here: there is no file, or one without a byte.
pub(crate) fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |found| found.len() == 0)
}

/// Looks at every page, every index and every row.
async fn check(connection: &mut SqliteConnection) -> Result<()> {
    let rows: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check(3)").fetch_all(connection).await?;
    if rows.iter().any(|row| row == "ok") { Ok(()) } else { Err(DbError::Damaged(rows.join("; "))) }
}

/// Writes a copy of a database as it is at this moment, whoever uses it meanwhile, and looks at the
/// copy.
pub(crate) async fn copy(path: &Path, to: &Path) -> Result<()> {
    let name = to.to_str().ok_or_else(|| DbError::Damaged(format!("{to:?} isn't UTF-8")))?;
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10));
    let mut from = options.connect().await?;
    let done = sqlx::query("VACUUM INTO ?").bind(name).execute(&mut from).await;
    let _ = from.close().await;
    done?;
    // SQLite leaves it to us that the copy is on the disk.
    std::fs::File::open(to).and_then(|file| file.sync_all()).map_err(sqlx::Error::Io)?;
    let mut copy = SqliteConnectOptions::new().filename(to).connect().await?;
    let checked = check(&mut copy).await;
    let _ = copy.close().await;
    checked
}

fn to_doc(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

fn from_doc<T: DeserializeOwned>(doc: &str) -> Result<T> {
    Ok(serde_json::from_str(doc)?)
}
