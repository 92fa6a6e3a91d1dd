//! Requests of one kind that are handled together. What arrives while the writer is busy shares its
//! statements: every statement is a trip to the connection's thread and back, and many runners that
//! finish at once would each pay for all of them.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pipeyard_store::{StoreError, StoreResult};
use sqlx::SqliteConnection;
use tokio::sync::oneshot;

use crate::writer::{Work, Writer};

/// Requests of one batch; the rest makes the next.
const MOST: usize = 128;

/// Handles requests in their order inside one use case; answers one result for each, in the same
/// order. An error rolls back and fails all of them.
type Handle<Q, A> = for<'c> fn(&'c mut SqliteConnection, Vec<Q>) -> Work<'c, Vec<StoreResult<A>>>;

type Tell<A> = oneshot::Sender<StoreResult<A>>;

/// Who waits, and whether somebody is on the way to the writer for them.
struct Waiting<Q, A> {
    requests: Vec<(Q, Tell<A>)>,
    carried: bool,
}

impl<Q, A> Default for Waiting<Q, A> {
    fn default() -> Self {
        Self { requests: Vec::new(), carried: false }
    }
}

/// Gathers requests for the writer; cheap to clone.
pub(crate) struct Batch<Q, A> {
    handle: Handle<Q, A>,
    waiting: Arc<Mutex<Waiting<Q, A>>>,
}

impl<Q, A> Clone for Batch<Q, A> {
    fn clone(&self) -> Self {
        Self { handle: self.handle, waiting: Arc::clone(&self.waiting) }
    }
}

impl<Q, A> fmt::Debug for Batch<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batch")
    }
}

impl<Q: Send + 'static, A: Send + 'static> Batch<Q, A> {
    pub(crate) fn new(handle: Handle<Q, A>) -> Self {
        Self { handle, waiting: Arc::default() }
    }

    /// Waits for the request's own answer. It is handled even if the caller goes away.
    pub(crate) async fn ask(&self, writer: &Writer, request: Q) -> StoreResult<A> {
        let (tell, told) = oneshot::channel();
        let carried = {
            let mut waiting = lock(&self.waiting);
            waiting.requests.push((request, tell));
            mem::replace(&mut waiting.carried, true)
        };
        if !carried {
            tokio::spawn(self.clone().carry(writer.clone()));
        }
        told.await.map_err(|_| StoreError::Unknown("the writer ended".into()))?
    }

    /// Takes everybody who waits to the writer, batch after batch, until nobody does.
    async fn carry(self, writer: Writer) {
        loop {
            let tells = Arc::new(Mutex::new(Vec::new()));
            let (waiting, taken, handle) =
                (Arc::clone(&self.waiting), Arc::clone(&tells), self.handle);
            // Taken when the writer has come to it, not before: until then the batch grows.
            let answers = writer
                .write(move |connection| {
                    let mut waiting = lock(&waiting);
                    let many = waiting.requests.len().min(MOST);
                    let (requests, tells) = waiting.requests.drain(..many).unzip();
                    *lock(&taken) = tells;
                    drop(waiting);
                    handle(connection, requests)
                })
                .await;
            let tells: Vec<Tell<A>> = mem::take(&mut *lock(&tells));
            // A caller may be gone; the work is done all the same.
            match answers {
                Ok(answers) => {
                    for (tell, answer) in tells.into_iter().zip(answers) {
                        let _ = tell.send(answer);
                    }
                }
                Err(problem) => {
                    for tell in tells {
                        let _ = tell.send(Err(problem.clone()));
                    }
                    // The writer may never have come to those who wait; they may ask again.
                    lock(&self.waiting).requests.clear();
                }
            }
            let mut waiting = lock(&self.waiting);
            if waiting.requests.is_empty() {
                waiting.carried = false;
                return;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    /// Answers each request with the size of its batch; 13 fails alone, 99 fails its whole batch.
    fn sizes(_: &mut SqliteConnection, asked: Vec<u32>) -> Work<'_, Vec<StoreResult<usize>>> {
        Box::pin(async move {
            if asked.contains(&99) {
                return Err(StoreError::Unavailable("the disk is full".into()));
            }
            let size = asked.len();
            let answer = |n| if n == 13 { Err(StoreError::not_found("13")) } else { Ok(size) };
            Ok(asked.into_iter().map(answer).collect())
        })
    }

    async fn writer(folder: &tempfile::TempDir) -> Writer {
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("b.sqlite"))
            .create_if_missing(true);
        Writer::open(&options).await.unwrap()
    }

    async fn ask_all(asked: &[u32]) -> Vec<StoreResult<usize>> {
        let folder = tempfile::tempdir().unwrap();
        let (writer, batch) = (writer(&folder).await, Batch::new(sizes));
        let asking = asked.iter().map(|n| batch.ask(&writer, *n));
        futures_util::future::join_all(asking).await
    }

    #[tokio::test]
    async fn those_who_wait_together_are_handled_together_and_each_gets_his_own_answer() {
        let answers = ask_all(&[1, 13, 2]).await;
        assert!(matches!(answers[0], Ok(3)), "{answers:?}");
        assert!(matches!(answers[1], Err(StoreError::NotFound { .. })), "{answers:?}");
        assert!(matches!(answers[2], Ok(3)), "{answers:?}");
    }

    #[tokio::test]
    async fn a_batch_that_fails_tells_everybody_why() {
        for answer in ask_all(&[1, 99]).await {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_batch_has_a_size_and_the_rest_makes_the_next() {
        let answers = ask_all(&vec![1; MOST + 2]).await;
        let sizes: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!((sizes[0], sizes[MOST]), (MOST, 2));
    }
}
