//! The one writer. It groups commits: every use case of a group has a SAVEPOINT of its own, the
//! group has one transaction and one fsync, and nobody is told of success before the commit.
//!
//! If the commit fails, every member of the group fails; none is acknowledged. Interactive work
//! goes before bulk work.

use std::{collections::VecDeque, fmt, future::Future, pin::Pin, sync::Arc};

use pipeyard_store::{StoreError, StoreResult};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot, watch};

/// Members of one group; a longer queue waits for the next commit.
const GROUP: usize = 128;
/// Use cases that may wait; beyond it callers wait for a place.
const QUEUE: usize = 4096;

/// A future that borrows the writer's connection.
pub type Work<'c, T> = Pin<Box<dyn Future<Output = StoreResult<T>> + Send + 'c>>;

/// How the end of a use case is told to its caller, once the commit's outcome is known.
type Tell = Box<dyn FnOnce(Result<(), String>) + Send>;

/// One use case: runs inside the group's transaction and answers how to tell its caller.
type Job = Box<
    dyn for<'c> FnOnce(
            &'c mut SqliteConnection,
        ) -> Pin<Box<dyn Future<Output = (bool, Tell)> + Send + 'c>>
        + Send,
>;

/// Gives use cases to the one writer.
#[derive(Clone)]
pub struct Writer {
    urgent: mpsc::Sender<Job>,
    bulk: mpsc::Sender<Job>,
    committed: Arc<watch::Sender<u64>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    /// Opens the writing connection and starts the writer's task; it ends when every clone of the
    /// handle is gone.
    ///
    /// # Errors
    /// When the database can't be opened.
    pub async fn open(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let connection = SqliteConnection::connect_with(options).await?;
        let (urgent, urgent_jobs) = mpsc::channel(QUEUE);
        let (bulk, bulk_jobs) = mpsc::channel(QUEUE);
        let committed = Arc::new(watch::Sender::new(0));
        tokio::spawn(run(connection, urgent_jobs, bulk_jobs, Arc::clone(&committed)));
        Ok(Self { urgent, bulk, committed })
    }

    /// Runs a use case in a transaction. On `Err` its own writes are rolled back, the group's
    /// others are not.
    pub async fn write<T, F>(&self, work: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        send(&self.urgent, work).await
    }

    /// The same behind interactive work: clean-up, rebuilds. Keep each piece small.
    pub async fn write_bulk<T, F>(&self, work: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        send(&self.bulk, work).await
    }

    /// Counts commits; changes after each.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }
}

async fn send<T, F>(queue: &mpsc::Sender<Job>, work: F) -> StoreResult<T>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        Box::pin(async move {
            let result = work(connection).await;
            let good = result.is_ok();
            let tell: Tell = Box::new(move |commit| {
                // The caller may be gone; the work is done all the same.
                let _ = tell.send(match commit {
                    Ok(()) => result,
                    Err(problem) => Err(StoreError::Unknown(problem)),
                });
            });
            (good, tell)
        })
    });
    queue.send(job).await.map_err(|_| StoreError::Unavailable("the writer has ended".into()))?;
    told.await.map_err(|_| StoreError::Unknown("the writer ended".into()))?
}

async fn run(
    mut connection: SqliteConnection,
    mut urgent: mpsc::Receiver<Job>,
    mut bulk: mpsc::Receiver<Job>,
    committed: Arc<watch::Sender<u64>>,
) {
    let mut group = VecDeque::with_capacity(GROUP);
    loop {
        let first = tokio::select! {
            biased;
            job = urgent.recv() => job,
            job = bulk.recv() => job,
        };
        let Some(first) = first else { return };
        group.push_back(first);
        while group.len() < GROUP {
            match urgent.try_recv().or_else(|_| bulk.try_recv()) {
                Ok(job) => group.push_back(job),
                Err(_) => break,
            }
        }
        commit_group(&mut connection, &mut group, &committed).await;
    }
}

async fn commit_group(
    connection: &mut SqliteConnection,
    group: &mut VecDeque<Job>,
    committed: &watch::Sender<u64>,
) {
    let mut ends: Vec<(bool, Tell)> = Vec::with_capacity(group.len());
    let outcome = async {
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
        for job in group.drain(..) {
            // A nested `begin` is a SAVEPOINT.
            let mut savepoint = tx.begin().await?;
            let (good, tell) = job(&mut savepoint).await;
            ends.push((good, tell));
            if good {
                savepoint.commit().await?;
            } else {
                savepoint.rollback().await?;
            }
        }
        tx.commit().await
    }
    .await;
    let problem = outcome.as_ref().err().map(|error: &sqlx::Error| error.to_string());
    if let Some(problem) = &problem {
        tracing::error!(error = %problem, members = ends.len(), "a group of writes was not committed");
    }
    // Members that were never reached are told by their dropped channel.
    group.clear();
    for (_, tell) in ends {
        tell(problem.clone().map_or(Ok(()), Err));
    }
    if problem.is_none() {
        committed.send_modify(|count| *count += 1);
    }
}
