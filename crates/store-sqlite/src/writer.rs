//! The one writer. It groups commits: every use case of a group has a SAVEPOINT of its own, the
//! group has one transaction and one fsync, and nobody is told of success before the commit.
//!
//! If the commit fails, every member of the group fails; none is acknowledged. Interactive work
//! goes before bulk work.

use std::{
    collections::VecDeque, fmt, future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use pipeyard_store::{StoreError, StoreResult};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot, watch};

/// Members of one group; a longer queue waits for the next commit.
const GROUP: usize = 128;
/// Use cases that may wait; beyond it callers wait for a place.
const QUEUE: usize = 4096;
/// Between two tries to open the database again after its connection broke.
const REOPEN: Duration = Duration::from_millis(500);

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
        tokio::spawn(run(
            options.clone(),
            connection,
            urgent_jobs,
            bulk_jobs,
            Arc::clone(&committed),
        ));
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
    options: SqliteConnectOptions,
    first: SqliteConnection,
    mut urgent: mpsc::Receiver<Job>,
    mut bulk: mpsc::Receiver<Job>,
    committed: Arc<watch::Sender<u64>>,
) {
    let mut connection = Some(first);
    let mut group = VecDeque::with_capacity(GROUP);
    loop {
        let first = tokio::select! {
            biased;
            Some(job) = urgent.recv() => job,
            Some(job) = bulk.recv() => job,
            else => return,
        };
        group.push_back(first);
        while group.len() < GROUP {
            match urgent.try_recv().or_else(|_| bulk.try_recv()) {
                Ok(job) => group.push_back(job),
                Err(_) => break,
            }
        }
        let mut open = match connection.take() {
            Some(open) => open,
            None => match options.connect().await {
                Ok(open) => open,
                Err(error) => {
                    tracing::error!(error = %error, "the writer can't open the database");
                    // Those who wait are told by their dropped channels.
                    group.clear();
                    tokio::time::sleep(REOPEN).await;
                    continue;
                }
            },
        };
        if commit_group(&mut open, &mut group, &committed).await {
            connection = Some(open);
        }
        // Otherwise nobody knows what state the connection is in: the next group gets a new one.
    }
}

/// Runs the group's members in one transaction and tells them its outcome. Answers whether the
/// connection may be used again.
async fn commit_group(
    connection: &mut SqliteConnection,
    group: &mut VecDeque<Job>,
    committed: &watch::Sender<u64>,
) -> bool {
    let mut ends: Vec<(bool, Tell)> = Vec::with_capacity(group.len());
    let outcome = run_group(connection, group, &mut ends).await;
    let problem = outcome.as_ref().err().map(|error: &sqlx::Error| error.to_string());
    if let Some(problem) = &problem {
        tracing::error!(error = %problem, members = ends.len(), "a group of writes was not committed");
    }
    // Members that were never reached are told by their dropped channel.
    group.clear();
    let wrote = ends.iter().any(|(good, _)| *good);
    // Readers first: whoever is told of a commit may ask at once whether it woke them.
    if problem.is_none() && wrote {
        committed.send_modify(|count| *count += 1);
    }
    for (_, tell) in ends {
        tell(problem.clone().map_or(Ok(()), Err));
    }
    problem.is_none()
}

/// The group's transaction. Every word to the database is a trip to its connection's thread and back,
/// which costs more than most statements: so the end of one member's SAVEPOINT and the beginning of
/// the next one's are one word, and so are the ends and beginnings of the transaction.
async fn run_group(
    connection: &mut SqliteConnection,
    group: &mut VecDeque<Job>,
    ends: &mut Vec<(bool, Tell)>,
) -> Result<(), sqlx::Error> {
    say(connection, "BEGIN IMMEDIATE; SAVEPOINT member").await?;
    while let Some(job) = group.pop_front() {
        // A panic inside a use case is its own failure: its writes go, its caller sees a dropped
        // channel, the others go on.
        let end = AssertUnwindSafe(job(connection)).catch_unwind().await;
        let kept = matches!(end, Ok((true, _)));
        match end {
            Ok(end) => ends.push(end),
            Err(_) => tracing::error!("a use case panicked; its writes were rolled back"),
        }
        let words = match (kept, group.is_empty()) {
            (true, false) => "RELEASE member; SAVEPOINT member",
            (true, true) => "RELEASE member; COMMIT",
            (false, false) => "ROLLBACK TO member",
            (false, true) => "ROLLBACK TO member; RELEASE member; COMMIT",
        };
        say(connection, words).await?;
    }
    Ok(())
}

async fn say(connection: &mut SqliteConnection, words: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(words).execute(connection).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn writer(folder: &tempfile::TempDir) -> Writer {
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("w.sqlite"))
            .create_if_missing(true);
        let writer = Writer::open(&options).await.unwrap();
        execute(&writer, "CREATE TABLE t (n INTEGER PRIMARY KEY)").await.unwrap();
        writer
    }

    async fn execute(writer: &Writer, sql: &'static str) -> StoreResult<u64> {
        writer
            .write(move |c| {
                Box::pin(async move {
                    let done = sqlx::query(sql).execute(c).await;
                    done.map(|d| d.rows_affected())
                        .map_err(|e| StoreError::Unavailable(e.to_string()))
                })
            })
            .await
    }

    async fn count(writer: &Writer) -> i64 {
        let count = writer.write(|c| {
            Box::pin(async move {
                Ok(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM t")
                    .fetch_one(c)
                    .await
                    .unwrap())
            })
        });
        count.await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_inside_a_use_case_takes_nobody_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(&folder).await;
        let bad = writer.write::<(), _>(|c| {
            Box::pin(async move {
                sqlx::query("INSERT INTO t VALUES (1)").execute(c).await.unwrap();
                panic!("a bug");
            })
        });
        let good = execute(&writer, "INSERT INTO t VALUES (2)");
        let (bad, good) = tokio::join!(bad, good);
        assert!(matches!(bad, Err(StoreError::Unknown(_))));
        assert_eq!(good.unwrap(), 1);
        assert_eq!(count(&writer).await, 1);
    }

    #[tokio::test]
    async fn a_refused_use_case_leaves_nothing_and_the_rest_of_its_group_stays() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(&folder).await;
        let refused = writer.write::<(), _>(|c| {
            Box::pin(async move {
                sqlx::query("INSERT INTO t VALUES (1)").execute(c).await.unwrap();
                Err(StoreError::conflict("no", "no"))
            })
        });
        let (refused, stays) = tokio::join!(refused, execute(&writer, "INSERT INTO t VALUES (2)"));
        assert!(matches!(refused, Err(StoreError::Conflict { .. })));
        assert_eq!(stays.unwrap(), 1);
        assert_eq!(count(&writer).await, 1);
    }

    #[tokio::test]
    async fn a_transaction_that_broke_fails_its_group_and_not_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(&folder).await;
        // Ending the transaction under the writer is what SQLite itself does when the disk is full.
        let broken = execute(&writer, "ROLLBACK").await;
        assert!(broken.is_err(), "{broken:?}");
        let next = tokio::time::timeout(
            Duration::from_secs(10),
            execute(&writer, "INSERT INTO t VALUES (1)"),
        );
        assert_eq!(next.await.unwrap().unwrap(), 1);
    }
}
