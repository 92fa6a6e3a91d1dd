//! Ships a journal by offset, in pieces of whole lines, until it is complete. A server that is away
//! is waited for; a wrong offset is corrected; a stale attempt ends it.
//!
//! While the server makes one piece durable the next one is on its way. A piece that overtakes the
//! one before it waits at the server for a moment.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use pipeyard_api::runner::LogAck;
use pipeyard_model::AttemptId;
use tokio::{sync::watch, time::Instant};

use crate::{
    journal::{self, Written},
    protocol::{CallError, Server},
};

/// Bytes of one piece: more than the longest line with its head, less than the server takes.
const PIECE: u64 = 2 << 20;
/// Pieces on their way at a time.
const AHEAD: usize = 2;
/// Pieces that aren't full follow each other no faster than this.
const GATHER: Duration = Duration::from_millis(100);
/// The pause after a failed call; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How shipping ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shipped {
    /// The server has all of it.
    All,
    /// The server has all of it, though the attempt isn't this runner's any more: there is nothing
    /// to finish.
    Late,
    /// The attempt isn't this runner's any more.
    Stale,
    /// The server refuses the log for a reason that a repetition won't change.
    Refused(String),
}

/// A piece that was sent: where it begins, where it ends, what the server answered.
type Sent = (u64, u64, Result<LogAck, CallError>);

struct Shipper<'a> {
    server: &'a Server,
    attempt: AttemptId,
    file: Arc<File>,
    /// Where the next piece begins.
    next: u64,
    on_the_way: FuturesOrdered<BoxFuture<'a, Sent>>,
    /// When the last piece was sent.
    sent_at: Option<Instant>,
}

/// Ships the journal in `dir`.
pub(crate) async fn ship(
    server: &Server,
    attempt: AttemptId,
    dir: &Path,
    mut written: watch::Receiver<Written>,
) -> io::Result<Shipped> {
    let file = Arc::new(File::open(journal::path(dir))?);
    let on_the_way = FuturesOrdered::new();
    let mut it = Shipper { server, attempt, file, next: 0, on_the_way, sent_at: None };
    let mut pause = PAUSE.0;
    let mut late = false;
    loop {
        let now = *written.borrow_and_update();
        let due = it.send(now).await?;
        if it.on_the_way.is_empty() && it.next >= now.bytes && now.complete {
            return Ok(if late { Shipped::Late } else { Shipped::All });
        }
        let (begin, end, answer) = tokio::select! {
            Some(answer) = it.on_the_way.next() => answer,
            changed = written.changed(), if !now.complete => {
                if changed.is_err() {
                    return Ok(Shipped::All);
                }
                continue;
            }
            () = sleep_until(due) => continue,
        };
        match answer {
            Ok(ack) => {
                pause = PAUSE.0;
                late |= ack.over;
                // It may have more already, from an earlier process.
                it.next = it.next.max(end).max(ack.offset.min(now.bytes));
            }
            Err(error) if error.is_stale() => return Ok(Shipped::Stale),
            Err(CallError::Refused { offset: Some(right), .. })
                if right <= now.bytes && right != begin =>
            {
                it.go_on_from(right);
            }
            Err(CallError::Refused { code, message, .. }) => {
                return Ok(Shipped::Refused(format!("{code}: {message}")));
            }
            Err(CallError::Away(cause)) => {
                tracing::warn!(attempt = %attempt, %cause, "the log waits for the server");
                it.go_on_from(begin);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Shipper<'_> {
    /// Sends what may be sent now. Answers when a piece that isn't full may be.
    async fn send(&mut self, now: Written) -> io::Result<Option<Instant>> {
        while self.next < now.bytes && self.on_the_way.len() < AHEAD {
            let is_full = now.complete || now.bytes - self.next >= PIECE;
            if !is_full {
                // A steady trickle is shown within this time, whether or not more comes.
                let due = self.sent_at.map(|at| at + GATHER);
                if !self.on_the_way.is_empty() {
                    return Ok(None);
                }
                if due.is_some_and(|due| due > Instant::now()) {
                    return Ok(due);
                }
            }
            let begin = self.next;
            let bytes = read(Arc::clone(&self.file), begin, now.bytes).await?;
            let end = begin + bytes.len() as u64;
            let (server, attempt) = (self.server, self.attempt);
            self.next = end;
            self.sent_at = Some(Instant::now());
            self.on_the_way.push_back(Box::pin(async move {
                (begin, end, server.append_log(attempt, begin, bytes).await)
            }));
        }
        Ok(None)
    }

    /// What is on its way is given up; the next piece begins at `offset`.
    fn go_on_from(&mut self, offset: u64) {
        self.on_the_way = FuturesOrdered::new();
        self.next = offset;
    }
}

/// At most a piece of whole lines from `begin` to `end`.
async fn read(file: Arc<File>, begin: u64, end: u64) -> io::Result<Bytes> {
    let read = move || {
        let length = (end - begin).min(PIECE);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, begin)?;
        // The journal grows by whole lines, so a piece that isn't cut off ends with one.
        if begin + length < end {
            let whole = memchr::memrchr(b'\n', &bytes).map_or(bytes.len(), |at| at + 1);
            bytes.truncate(whole);
        }
        Ok(bytes.into())
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
