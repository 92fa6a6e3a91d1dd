//! Logs on disk: one file by attempt, appended by offset, durable before it is acknowledged, and
//! sealed into frames of zstd when the attempt is over.
//!
//! `<data>/logs/<job>/<epoch>.log` is the live form, `<epoch>.zst` with `<epoch>.idx` the sealed
//! one; readers take either and can't tell. A line has one number for ever: lines are only appended,
//! and whole lines in the format of `pipeyard_model::log` are the only thing that is accepted.
//!
//! A log is cut into blocks at line borders (see [`layout`]); whoever wants a line, a range of bytes
//! or a search reads blocks, so memory is bounded by a block, not by a log.
//!
//! Absent: which attempts exist and when they end. The store knows.

mod layout;
mod live;
mod read;
mod seal;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use pipeyard_model::{AttemptId, Epoch, JobId};
use tokio::sync::{Notify, Semaphore};

use live::Live;
pub use live::{AppendError, Appended};
pub use read::{Found, LogReader, is_damaged};

/// Searches that may run at once; each takes a core.
const SEARCHES: usize = 2;
/// What a log may have beyond its limit: the runner's words about the end of the job.
const LAST_WORDS: u64 = 1 << 20;

/// The logs of all attempts.
#[derive(Debug)]
pub struct Logs {
    root: PathBuf,
    /// Bytes that a log may have.
    limit: u64,
    live: Mutex<HashMap<AttemptId, Arc<Live>>>,
    /// An attempt ended: its log may be sealed.
    pub(crate) ended: Notify,
    searches: Semaphore,
}

impl Logs {
    /// Logs below this folder, which is made. None becomes much longer than `max_bytes`.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn open(root: PathBuf, max_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(&root)?;
        Ok(Self {
            root,
            limit: max_bytes.saturating_add(LAST_WORDS),
            live: Mutex::default(),
            ended: Notify::new(),
            searches: Semaphore::new(SEARCHES),
        })
    }

    /// Appends bytes to an attempt's log; durable when it returns. A repeat is acknowledged.
    ///
    /// # Errors
    /// When the offset isn't the log's length, the bytes aren't lines of a log, or the disk refuses.
    pub async fn append(
        &self,
        attempt: AttemptId,
        offset: u64,
        bytes: bytes::Bytes,
    ) -> Result<Appended, AppendError> {
        if self.is_sealed(attempt) {
            return Err(AppendError::Sealed);
        }
        self.live(attempt).append(offset, bytes).await
    }

    /// Bytes of an attempt's log that are durable; 0 if it has none.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn length(&self, attempt: AttemptId) -> io::Result<u64> {
        Ok(self.reader(attempt).await?.bytes())
    }

    /// The log as it is now. An attempt without a log has an empty one.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn reader(&self, attempt: AttemptId) -> io::Result<LogReader> {
        if let Some(sealed) = self.sealed_reader(attempt).await? {
            return Ok(sealed);
        }
        if !tokio::fs::try_exists(self.live_path(attempt)).await? {
            // It may just have been sealed; otherwise nothing was written yet.
            return Ok(self.sealed_reader(attempt).await?.unwrap_or_else(LogReader::empty));
        }
        match self.live(attempt).reader().await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(self.sealed_reader(attempt).await?.unwrap_or_else(LogReader::empty))
            }
            other => other,
        }
    }

    /// Waits until the log has more than `lines` whole lines. May return early.
    pub async fn grown(&self, attempt: AttemptId, lines: u64) {
        self.live(attempt).grown(lines).await;
    }

    /// Finds a text in a log: see [`LogReader::search`].
    ///
    /// # Errors
    /// When the log can't be read, or the time ran out (`TimedOut`).
    pub async fn search(&self, attempt: AttemptId, text: &str) -> io::Result<Found> {
        let _turn = self.searches.acquire().await.map_err(io::Error::other)?;
        let reader = self.reader(attempt).await?;
        reader.search(text.to_owned()).await
    }

    /// Attempts whose log isn't sealed, as far as the folder tells.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub async fn unsealed(&self) -> io::Result<Vec<AttemptId>> {
        let root = self.root.clone();
        blocking(move || {
            let mut attempts = Vec::new();
            for job in std::fs::read_dir(root)? {
                let job = job?;
                let Some(id) = job.file_name().to_str().and_then(|name| name.parse::<JobId>().ok())
                else {
                    continue;
                };
                for file in std::fs::read_dir(job.path())? {
                    let name = file?.file_name();
                    let epoch = name.to_str().and_then(|n| n.strip_suffix(".log")?.parse().ok());
                    attempts.extend(epoch.map(|epoch| AttemptId { job: id, epoch: Epoch(epoch) }));
                }
            }
            Ok(attempts)
        })
        .await
    }

    /// Turns the log of an attempt that is over into its sealed form, and answers its digest; `None`
    /// if there is no log to seal. Idempotent, and safe to kill anywhere: the live form stays until
    /// [`Logs::sealed`] says that the digest is recorded.
    ///
    /// # Errors
    /// When the disk refuses; the live form is then still there.
    pub async fn seal(&self, attempt: AttemptId) -> io::Result<Option<String>> {
        let live = self.live(attempt);
        let (folder, name) = (self.folder(attempt.job), attempt.epoch.to_string());
        match live.seal(move |reader| seal::write(reader, &folder, &name)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.table().remove(&attempt);
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// The digest of a sealed log is recorded: its live form goes.
    ///
    /// # Errors
    /// When the disk refuses; the next look seals it again.
    pub async fn sealed(&self, attempt: AttemptId) -> io::Result<()> {
        let (plain, folder) = (self.live_path(attempt), self.folder(attempt.job));
        blocking(move || {
            std::fs::remove_file(plain)?;
            seal::sync_folder(&folder)
        })
        .await?;
        self.table().remove(&attempt);
        Ok(())
    }

    /// Removes an attempt's log in every form, if there is one. Only for an attempt that is over.
    ///
    /// # Errors
    /// When the disk refuses; what is left goes the next time.
    pub async fn remove(&self, attempt: AttemptId) -> io::Result<()> {
        self.table().remove(&attempt);
        let folder = self.folder(attempt.job);
        blocking(move || {
            // The sealed log before its index, so that no reader finds one without the other.
            for form in ["log", "zst", "idx", "log.damaged"] {
                match std::fs::remove_file(folder.join(format!("{}.{form}", attempt.epoch))) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
            // Other attempts of the job may have theirs.
            let _ = std::fs::remove_dir(folder);
            Ok(())
        })
        .await
    }

    /// Attempts whose log this process has used and not sealed.
    #[must_use]
    pub fn in_use(&self) -> Vec<AttemptId> {
        self.table().keys().copied().collect()
    }

    /// Forgets what is remembered of a live log; the next use reads the file again.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        self.table().clear();
    }

    async fn sealed_reader(&self, attempt: AttemptId) -> io::Result<Option<LogReader>> {
        let (folder, name) = (self.folder(attempt.job), attempt.epoch.to_string());
        blocking(move || seal::open(&folder, &name)).await
    }

    fn is_sealed(&self, attempt: AttemptId) -> bool {
        self.folder(attempt.job).join(format!("{}.zst", attempt.epoch)).exists()
    }

    fn live(&self, attempt: AttemptId) -> Arc<Live> {
        let path = self.live_path(attempt);
        Arc::clone(
            self.table().entry(attempt).or_insert_with(|| Arc::new(Live::new(path, self.limit))),
        )
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<AttemptId, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, job: JobId) -> PathBuf {
        self.root.join(job.to_string())
    }

    fn live_path(&self, attempt: AttemptId) -> PathBuf {
        self.folder(attempt.job).join(format!("{}.log", attempt.epoch))
    }

    /// Where the logs lie.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
