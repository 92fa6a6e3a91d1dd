//! The store on SQLite: the embedded default. Checked SQL and nothing else.
//!
//! One writer (see [`writer`]) makes every change; reads go to a small pool that can't write and
//! whose queries are ended after a while. WAL with `synchronous = FULL`: what was acknowledged
//! survives a power cut. There is one file by aggregate; each has one `impl` block for its trait
//! and the statements behind it.

mod accounts;
mod adopt;
mod artifacts;
mod audit;
mod batch;
mod column;
mod deployments;
mod deployments_dora;
mod deployments_env;
mod deployments_incidents;
mod deployments_policy;
mod enrolments;
mod events;
pub mod health;
mod intake;
mod jobs;
mod keys;
mod outbox;
mod people;
mod queue;
mod repos;
mod retention;
mod run_view;
mod runners;
mod runs;
mod runs_new;
mod secrets;
mod test_reports;
mod waits;
pub mod writer;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

pub use adopt::Adopted;
use batch::Batch;
use pipeyard_model::{Clock, InstallationId};
use pipeyard_store::{StoreError, StoreResult};
use queue::Finish;
use sqlx::{
    ConnectOptions as _, SqliteConnection, SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use writer::{Work, Writer};

/// Connections that read.
const READERS: u32 = 4;
/// A read that takes longer is ended.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Steps of SQLite's machine between two looks at the time.
const READ_STEPS: i32 = 10_000;
/// How long a connection waits for another process's lock.
const BUSY: Duration = Duration::from_secs(10);

/// The schema that this program writes.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/sqlite");

/// A store in one SQLite file; cheap to clone.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    read: SqlitePool,
    writer: Writer,
    finishes: Batch<Finish, ()>,
    installation: InstallationId,
    path: std::path::PathBuf,
}

impl SqliteStore {
    /// Opens the file, creates it if it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// When the file can't be opened, or a newer program has written it.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> StoreResult<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .statement_cache_capacity(256)
            .disable_statement_logging();
        let size = std::fs::metadata(path).map_or(0, |found| found.len());
        let mut first = options.connect().await.map_err(|e| cannot_open(path, &e))?;
        if (1..=health::AT_ONCE).contains(&size) {
            health::check(&mut first).await?;
        }
        MIGRATIONS.run(&mut first).await.map_err(|e| cannot_migrate(path, &e))?;
        let installation = installation(&mut first, clock.now().0).await?;
        audit::begin_chain(&mut first).await?;
        deployments_policy::upgrade(&mut first, clock.now()).await?;
        runs_new::remove_half_made(&mut first).await?;
        sqlx::Connection::close(first).await.map_err(|e| cannot_open(path, &e))?;
        let writer = Writer::open(&options).await.map_err(|e| cannot_open(path, &e))?;
        let read = SqlitePoolOptions::new()
            .max_connections(READERS)
            .after_connect(|connection, _| Box::pin(limit_read(connection)))
            .before_acquire(|connection, _| {
                Box::pin(async move { limit_read(connection).await.map(|()| true) })
            })
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(|e| cannot_open(path, &e))?;
        Ok(Self {
            read,
            writer,
            finishes: Batch::new(queue::finish_all),
            installation,
            path: path.to_owned(),
        })
    }

    /// Who this installation is; made when the file was.
    #[must_use]
    pub fn installation(&self) -> InstallationId {
        self.installation
    }

    /// Runs a use case in a transaction of the one writer; see [`Writer::write`].
    async fn write<T, F>(&self, work: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        self.writer.write(work).await
    }

    /// Several reads that see one state of the database. Dropping it ends it.
    async fn snapshot(&self) -> StoreResult<sqlx::Transaction<'static, sqlx::Sqlite>> {
        self.read.begin().await.map_err(column::failed)
    }
}

/// Gives the connection's next user [`READ_LIMIT`] from now.
async fn limit_read(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let end = Instant::now() + READ_LIMIT;
    connection.lock_handle().await?.set_progress_handler(READ_STEPS, move || Instant::now() < end);
    Ok(())
}

async fn installation(connection: &mut SqliteConnection, now: i64) -> StoreResult<InstallationId> {
    let new = InstallationId::new().to_string();
    sqlx::query!(
        "INSERT INTO installation (only_row, id, created_at) VALUES (1, ?, ?) ON CONFLICT DO NOTHING",
        new,
        now
    )
    .execute(&mut *connection)
    .await
    .map_err(column::failed)?;
    let id = sqlx::query_scalar!("SELECT id FROM installation")
        .fetch_one(connection)
        .await
        .map_err(column::failed)?;
    column::parse("installation", "id", "1", &id)
}

fn cannot_open(path: &Path, error: &sqlx::Error) -> StoreError {
    if health::says_damaged(error) {
        return StoreError::Damaged(format!("{}: {error}", path.display()));
    }
    StoreError::Unavailable(format!("failed to open {}: {error}", path.display()))
}

fn cannot_migrate(path: &Path, error: &MigrateError) -> StoreError {
    let problem = match error {
        MigrateError::VersionMissing(version) => {
            format!(
                "a newer version of Pipeyard has written it (schema {version}); start that version or restore a backup"
            )
        }
        MigrateError::VersionMismatch(version) => {
            format!("its schema {version} isn't the one that this version of Pipeyard knows")
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)
            if health::says_damaged(error) =>
        {
            return cannot_open(path, error);
        }
        other => other.to_string(),
    };
    StoreError::Unavailable(format!("can't use {}: {problem}", path.display()))
}
