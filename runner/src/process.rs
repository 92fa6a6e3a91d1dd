//! One process speaks for a runner. A data folder that was copied gives a second one: that is refused
//! before it touches anything, because it would take the first one's jobs for leftovers and remove
//! its containers.
//!
//! A process makes up a nonce at its start and sends it with every call. When the one before it is
//! proven to be dead (same boot of the same machine, same folder, whose lock is free), it is named and
//! nobody waits; otherwise the server takes another process once the first was silent for a while.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::Context as _;
use pipeyard_api::runner::{HelloReply, HelloRequest};
use pipeyard_model::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::protocol::{CallError, Server};

/// Who was accepted last, in the runner's folder.
const FILE: &str = "process.json";
/// The code of a call that another process's being alive refuses.
pub(crate) const TAKEN: &str = "runner_is_live";
/// Between two looks at whether the other process is alive.
const LOOK: Duration = Duration::from_secs(2);
/// Between two tries to reach the server; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A goodbye may take so long.
const GOODBYE: Duration = Duration::from_secs(3);

/// A process, and where it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its nonce.
    pub(crate) nonce: String,
    /// The kernel's word for this boot of this machine.
    boot: String,
    /// The folder itself: a copy of it is another one.
    device: u64,
    inode: u64,
}

impl Process {
    /// This one.
    ///
    /// # Errors
    /// When the folder can't be looked at.
    pub(crate) fn new(data: &Path) -> anyhow::Result<Self> {
        let folder =
            fs::metadata(data).with_context(|| format!("failed to look at {}", data.display()))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self {
            nonce: uuid::Uuid::new_v4().simple().to_string(),
            boot: boot.trim().to_owned(),
            device: folder.dev(),
            inode: folder.ino(),
        })
    }

    /// The nonce of `before`, if it ran in this folder since this machine's boot: we hold the folder's
    /// lock, so it is dead.
    fn dead(&self, before: Option<&Self>) -> Option<String> {
        let here = |it: &&Self| {
            !it.boot.is_empty()
                && (&it.boot, it.device, it.inode) == (&self.boot, self.device, self.inode)
        };
        before.filter(here).map(|it| it.nonce.clone())
    }
}

fn stored(data: &Path) -> Option<Process> {
    serde_json::from_str(&fs::read_to_string(data.join(FILE)).ok()?).ok()
}

fn store(data: &Path, process: &Process) -> std::io::Result<()> {
    let next = data.join(FILE).with_extension("tmp");
    fs::write(&next, serde_json::to_vec(process)?)?;
    fs::rename(next, data.join(FILE))
}

/// What the server's answers say of the other process, one after another.
#[derive(Debug, Default)]
struct Other(Option<Timestamp>);

impl Other {
    /// Whether it is alive: it spoke since the look before.
    fn is_alive(&mut self, seen_at: Timestamp) -> bool {
        self.0.replace(seen_at).is_some_and(|before| seen_at > before)
    }
}

/// Waits until this process may speak for the runner. Nothing of the runner's is touched before.
///
/// # Errors
/// When another process is alive.
pub(crate) async fn speak(
    server: &Server,
    data: &Path,
    process: &Process,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let previous = process.dead(stored(data).as_ref());
    let request = HelloRequest { previous };
    let mut other = Other::default();
    let mut pause = PAUSE.0;
    loop {
        let answer = server.post("/api/runner/hello", &request, Duration::from_secs(20)).await;
        let wait = match answer {
            Ok(HelloReply { accepted: true, .. }) => {
                if let Err(error) = store(data, process) {
                    // Then the next process waits a little longer, no more.
                    tracing::warn!(%error, "who speaks for this runner can't be written down");
                }
                return Ok(());
            }
            Ok(HelloReply { other_seen_at, .. }) => {
                let seen_at = other_seen_at.unwrap_or(Timestamp(0));
                anyhow::ensure!(
                    !other.is_alive(seen_at),
                    "runner_is_live: another process speaks as this runner, last at {seen_at}: {} was copied, or is used twice. Remove identity.json and process.json there and register it with a token of its own: pipectl runners token",
                    data.display()
                );
                tracing::warn!(%seen_at, "another process spoke as this runner; waiting until it is silent");
                LOOK
            }
            // What is wrong with the key is said where jobs are asked for.
            Err(CallError::Refused { .. }) => return Ok(()),
            Err(CallError::Away(cause)) => {
                tracing::warn!(%cause, "the server can't be reached; trying again");
                let wait = pause;
                pause = (pause * 2).min(PAUSE.1);
                wait
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Lets the next process speak at once.
pub(crate) async fn leave(server: &Server) {
    let told: Result<serde_json::Value, _> = server.post("/api/runner/goodbye", &(), GOODBYE).await;
    if let Err(error) = told {
        tracing::debug!(%error, "the server wasn't told that this runner ends");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_of_this_folder_and_boot_is_known_to_be_dead() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = Process::new(one.path()).unwrap();
        store(one.path(), &before).unwrap();
        let after = Process::new(one.path()).unwrap();
        assert_ne!(before.nonce, after.nonce);
        assert_eq!(after.dead(stored(one.path()).as_ref()), Some(before.nonce.clone()));
        // The same file in a copy of the folder proves nothing.
        fs::copy(one.path().join(FILE), two.path().join(FILE)).unwrap();
        let copy = Process::new(two.path()).unwrap();
        assert_eq!(copy.dead(stored(two.path()).as_ref()), None);
        let rebooted = Process { boot: "another".into(), ..after.clone() };
        assert_eq!(after.dead(Some(&rebooted)), None);
        assert_eq!(after.dead(None), None);
    }

    #[test]
    fn who_speaks_again_is_alive() {
        let mut other = Other::default();
        assert!(!other.is_alive(Timestamp(5)));
        assert!(!other.is_alive(Timestamp(5)));
        assert!(other.is_alive(Timestamp(6)));
    }
}
