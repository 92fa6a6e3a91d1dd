//! One answer of Git's smart HTTP, made by `git upload-pack`. Reading only: nothing here can write
//! to a mirror.

use std::{path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use crate::{
    GitResult,
    child::{Git, Running},
};

/// The most that one call of [`UploadPack::chunk`] gives.
const CHUNK: usize = 64 * 1024;

/// An answer in the making. Dropping it ends git.
#[derive(Debug)]
pub struct UploadPack {
    running: Running,
    output: Option<tokio::process::ChildStdout>,
    // Feeds the request; ends with git, which it is given to.
    feeder: Option<tokio::task::JoinHandle<()>>,
    deadline: Instant,
}

/// Starts `git upload-pack` on a mirror. Without `request` it announces the refs, otherwise it
/// answers the request. `protocol` is the client's Git-Protocol header; only version 2 is passed on.
///
/// Any commit of the mirror may be asked for by its SHA, also those that no branch has any more.
///
/// # Errors
/// When git can't be started.
pub fn upload_pack(
    mirror: &Path,
    request: Option<Vec<u8>>,
    protocol: Option<&str>,
    deadline: Duration,
) -> GitResult<UploadPack> {
    let mut git = Git::new("upload-pack", deadline)
        .args(["--strict", "--stateless-rpc"])
        .config("uploadpack.allowAnySHA1InWant", "true")
        .config("uploadpack.hideRefs", "refs/pipeyard")
        .trust(mirror);
    if request.is_none() {
        git = git.arg("--advertise-refs");
    } else {
        git = git.piped_input();
    }
    if protocol.is_some_and(|header| header.split(':').any(|part| part == "version=2")) {
        git = git.env("GIT_PROTOCOL", "version=2");
    }
    let mut running = git.arg("--end-of-options").arg(mirror).spawn()?;
    // What git says on stderr is for nobody: the client gets its errors in the answer.
    drop(running.child.stderr.take());
    let output = running.child.stdout.take();
    let feeder = match (running.child.stdin.take(), request) {
        (Some(mut input), Some(request)) => Some(tokio::spawn(async move {
            // A broken pipe is git's end; the reader finds it out.
            let _ = input.write_all(&request).await;
        })),
        _ => None,
    };
    Ok(UploadPack { running, output, feeder, deadline: Instant::now() + deadline })
}

impl UploadPack {
    /// The next piece of the answer; `None` at its end.
    ///
    /// # Errors
    /// When git failed or the deadline passed: the answer must then be broken off, not ended.
    pub async fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let Some(output) = &mut self.output else { return Ok(None) };
        let mut chunk = Vec::with_capacity(CHUNK);
        let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let n = tokio::time::timeout_at(self.deadline, output.read_buf(&mut chunk))
            .await
            .map_err(|_| late())??;
        if n > 0 {
            return Ok(Some(chunk));
        }
        self.output = None;
        let status = tokio::time::timeout_at(self.deadline, self.running.wait())
            .await
            .map_err(|_| late())??;
        if status.success() {
            Ok(None)
        } else {
            Err(std::io::Error::other(format!("git upload-pack ended with {status}")))
        }
    }
}

impl Drop for UploadPack {
    fn drop(&mut self) {
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
    }
}
