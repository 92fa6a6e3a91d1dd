//! A log that is being written: one append at a time, durable before it is acknowledged.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{Mutex, watch};

use super::{
    blocking,
    layout::{BadLine, Scanner},
    read::LogReader,
    seal::sync_folder,
};

/// A piece that begins behind the end of the log waits this long for the one before it, which it has
/// overtaken: runners send the next piece while the server makes the former one durable.
const OVERTAKEN: Duration = Duration::from_secs(1);
/// How often the store is told the length of a log that only grows.
const TELL: Duration = Duration::from_secs(1);

/// Why bytes were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// They don't begin where the log ends.
    #[error("the log has {length} bytes")]
    WrongOffset {
        /// Where it ends.
        length: u64,
    },
    /// They aren't lines of a log.
    #[error(transparent)]
    BadLine(#[from] BadLine),
    /// The log would become longer than any may be.
    #[error("a log may have {limit} bytes")]
    TooLong {
        /// Its most bytes.
        limit: u64,
    },
    /// The attempt is over and its log sealed.
    #[error("the log is sealed")]
    Sealed,
    /// The disk refused.
    #[error("the log can't be written: {0}")]
    Disk(#[from] io::Error),
}

/// What an append changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The log's length now, all of it durable.
    pub length: u64,
    /// First lines of steps that had none before.
    pub first_lines: Vec<(u16, u64)>,
    /// The store should be told the length: it wasn't for a while.
    pub tell: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    scanner: Scanner,
    told: Option<Instant>,
}

/// One live log. Opened, and read once, at the first use.
#[derive(Debug)]
pub(crate) struct Live {
    path: PathBuf,
    /// Bytes that it may have.
    limit: u64,
    open: Arc<Mutex<Option<Open>>>,
    /// Set under the lock of `open`: nothing is appended any more.
    sealed: Arc<AtomicBool>,
    size: watch::Sender<Size>,
}

/// How much of a log is durable, as far as appends have told.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    lines: u64,
    bytes: u64,
}

impl Live {
    pub(crate) fn new(path: PathBuf, limit: u64) -> Self {
        let (open, sealed, size) = Default::default();
        Self { path, limit, open, sealed, size: watch::Sender::new(size) }
    }

    pub(crate) async fn append(&self, offset: u64, bytes: Bytes) -> Result<Appended, AppendError> {
        match self.append_now(offset, bytes.clone()).await {
            Err(AppendError::WrongOffset { length }) if length < offset => {
                let mut size = self.size.subscribe();
                let before = size.wait_for(|now| now.bytes >= offset);
                let _ = tokio::time::timeout(OVERTAKEN, before).await;
                self.append_now(offset, bytes).await
            }
            other => other,
        }
    }

    async fn append_now(&self, offset: u64, bytes: Bytes) -> Result<Appended, AppendError> {
        let mut open = Arc::clone(&self.open).lock_owned().await;
        if self.sealed.load(Ordering::SeqCst) {
            return Err(AppendError::Sealed);
        }
        let (path, limit) = (self.path.clone(), self.limit);
        let work = move || -> io::Result<Result<(Appended, u64), AppendError>> {
            let state = match &mut *open {
                Some(state) => state,
                none => none.insert(open_file(&path, true)?),
            };
            let length = state.scanner.length();
            let result = append(state, offset, &bytes, limit);
            if matches!(result, Err(AppendError::Disk(_) | AppendError::BadLine(_))) {
                // The file is as it was before; what the scanner has seen isn't: the next use reads
                // the file again.
                let _ = state.file.set_len(length);
                *open = None;
            }
            Ok(result)
        };
        let (appended, lines) = blocking(work).await??;
        self.size.send_replace(Size { lines, bytes: appended.length });
        Ok(appended)
    }

    /// The log as it is now; not found if there is none.
    pub(crate) async fn reader(&self) -> io::Result<LogReader> {
        let mut open = Arc::clone(&self.open).lock_owned().await;
        let path = self.path.clone();
        blocking(move || {
            let state = match &mut *open {
                Some(state) => state,
                none => none.insert(open_file(&path, false)?),
            };
            reader_of(state)
        })
        .await
    }

    /// Gives the log to `work`, which puts it into its sealed form. Appends wait, and are refused
    /// once it has; readers that have the file open go on with it.
    pub(crate) async fn seal(
        &self,
        work: impl FnOnce(&LogReader) -> io::Result<String> + Send + 'static,
    ) -> io::Result<String> {
        let mut open = Arc::clone(&self.open).lock_owned().await;
        let (path, sealed) = (self.path.clone(), Arc::clone(&self.sealed));
        blocking(move || {
            let state = match &mut *open {
                Some(state) => state,
                none => none.insert(open_file(&path, false)?),
            };
            let digest = work(&reader_of(state)?)?;
            sealed.store(true, Ordering::SeqCst);
            *open = None;
            Ok(digest)
        })
        .await
    }

    pub(crate) async fn grown(&self, lines: u64) {
        let _ = self.size.subscribe().wait_for(|now| now.lines > lines).await;
    }
}

fn reader_of(state: &Open) -> io::Result<LogReader> {
    let mut scanner = state.scanner.clone();
    let length = scanner.length();
    // A reader of a log that is over sees an unfinished last line; `LogReader` hides it from others.
    let whole = scanner.layout.clone();
    scanner.close();
    Ok(LogReader::plain(state.file.try_clone()?, whole, scanner.layout, length))
}

fn append(
    state: &mut Open,
    offset: u64,
    bytes: &[u8],
    limit: u64,
) -> Result<(Appended, u64), AppendError> {
    let length = state.scanner.length();
    let end = offset.saturating_add(bytes.len() as u64);
    if end <= length {
        let appended = Appended { length, first_lines: vec![], tell: false };
        return Ok((appended, state.scanner.layout.lines));
    }
    if offset != length {
        return Err(AppendError::WrongOffset { length });
    }
    if end > limit {
        return Err(AppendError::TooLong { limit });
    }
    let known: Vec<u16> = state.scanner.first_lines.keys().copied().collect();
    state.scanner.push(bytes)?;
    write(&mut state.file, length, bytes)?;
    let first_lines = state.scanner.first_lines.iter().filter(|(step, _)| !known.contains(step));
    let first_lines = first_lines.map(|(step, line)| (*step, *line)).collect();
    let tell = state.told.is_none_or(|told| told.elapsed() >= TELL);
    if tell {
        state.told = Some(Instant::now());
    }
    Ok((Appended { length: end, first_lines, tell }, state.scanner.layout.lines))
}

fn write(file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)?;
    file.sync_data()
}

/// Opens a log and reads it once. Bytes that were never acknowledged and make no line are cut off.
fn open_file(path: &PathBuf, create: bool) -> io::Result<Open> {
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    let fresh = !path.exists();
    if create {
        std::fs::create_dir_all(&folder)?;
    }
    let mut file =
        OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
    if create && fresh {
        sync_folder(&folder)?;
        if let Some(root) = folder.parent() {
            sync_folder(root)?;
        }
    }
    let mut scanner = Scanner::default();
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        if let Err(error) = scanner.push(&piece[..read]) {
            tracing::warn!(path = %path.display(), error = %error, "the end of a log is damaged and is cut off");
            // It may hold lines that were acknowledged: they stay for a person to look at.
            let aside = path.with_extension("log.damaged");
            if !aside.exists() {
                std::fs::copy(path, aside)?;
            }
            scanner.partial.clear();
            file.set_len(scanner.length())?;
            break;
        }
    }
    Ok(Open { file, scanner, told: None })
}
