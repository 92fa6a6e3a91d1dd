//! Ships a journal by offset, in pieces of whole lines, until it is complete. A server that is away
//! is waited for; a wrong offset is corrected; a stale attempt ends it.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use pipeyard_model::AttemptId;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom},
    sync::watch,
};

use crate::{
    journal::{self, Written},
    protocol::{CallError, Server},
};

/// Bytes of one piece: more than the longest line with its head.
const PIECE: usize = 512 * 1024;
/// A piece waits for more for so long, unless it is full.
const GATHER: Duration = Duration::from_millis(100);
/// The pause after a failed call; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How shipping ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shipped {
    /// The server has all of it.
    All,
    /// The attempt isn't this runner's any more.
    Stale,
    /// The server refuses the log for a reason that a repetition won't change.
    Refused(String),
}

/// Ships the journal in `dir` from `offset` on.
pub(crate) async fn ship(
    server: &Server,
    attempt: AttemptId,
    dir: &Path,
    mut written: watch::Receiver<Written>,
) -> io::Result<Shipped> {
    let mut file = File::open(journal::path(dir)).await?;
    let mut offset = 0;
    let mut pause = PAUSE.0;
    loop {
        let now = *written.borrow_and_update();
        if offset >= now.bytes {
            if now.complete {
                return Ok(Shipped::All);
            }
            if written.changed().await.is_err() {
                return Ok(Shipped::All);
            }
            // A steady trickle is shown within this time, whether or not more comes.
            if !written.borrow().complete {
                tokio::time::sleep(GATHER).await;
            }
            continue;
        }
        let piece = read_lines(&mut file, offset, now.bytes).await?;
        let length = piece.len() as u64;
        match server.append_log(attempt, offset, piece).await {
            Ok(ack) => {
                pause = PAUSE.0;
                offset = if ack >= offset { ack.min(now.bytes) } else { offset + length };
            }
            Err(error) if error.is_stale() => return Ok(Shipped::Stale),
            Err(CallError::Refused { offset: Some(right), .. })
                if right <= now.bytes && right != offset =>
            {
                offset = right;
            }
            Err(CallError::Refused { code, message, .. }) => {
                return Ok(Shipped::Refused(format!("{code}: {message}")));
            }
            Err(CallError::Away(cause)) => {
                tracing::warn!(attempt = %attempt, %cause, "the log waits for the server");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

/// At most a piece of whole lines between `from` and `to`.
async fn read_lines(file: &mut File, from: u64, to: u64) -> io::Result<Bytes> {
    let length = usize::try_from(to - from).unwrap_or(PIECE).min(PIECE);
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(from)).await?;
    file.read_exact(&mut bytes).await?;
    // The journal grows by whole lines, so a shorter piece ends with one.
    if length == PIECE {
        let end = bytes.iter().rposition(|b| *b == b'\n').map_or(length, |at| at + 1);
        bytes.truncate(end);
    }
    Ok(bytes.into())
}
