//! Bytes by their SHA-256: artifacts and releases.
//!
//! A blob is durable, whole and checked before its name exists, so a reader never sees half of
//! one, and the same bytes are kept once. Nothing here says who may read a blob, or who needs it. One
//! is removed only by [`Locked`], while nobody keeps the same bytes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
};

/// The content-addressed store, `<root>/sha256/ab/abcd...`.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
    /// By the first byte of the SHA-256: read by those who keep bytes, until something in the
    /// database needs them; written by those who remove.
    locks: Arc<[Arc<RwLock<()>>]>,
    /// What was read and found right.
    sound: Arc<Mutex<HashMap<String, Mark>>>,
}

/// Inode, size and time of the last change of a file.
type Mark = (u64, u64, i64, i64);
/// Blobs that are remembered as right.
const REMEMBERED: usize = 4_096;

/// Why a blob can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Unsound {
    /// It was there, and is not.
    #[error("it is gone from the server's disk")]
    Missing,
    /// Somebody or something wrote to it.
    #[error("{} doesn't have the SHA-256 of its name any more", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("{} can't be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// A stored blob. It can't be removed while this lives: store a row that needs it before the end.
#[derive(Debug)]
#[must_use = "without a row that needs it the blob is nobody's"]
pub struct Blob {
    /// Of its bytes, 64 hex digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    _kept: OwnedRwLockReadGuard<()>,
}

/// A blob that nobody keeps meanwhile.
#[derive(Debug)]
pub struct Locked {
    path: PathBuf,
    _alone: OwnedRwLockWriteGuard<()>,
}

impl Locked {
    /// Removes it from the disk, if it is there.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn remove(self) -> std::io::Result<()> {
        match tokio::fs::remove_file(&self.path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Why nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It has more bytes than are allowed.
    #[error("it is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: u64,
    },
    /// Its bytes aren't those that were announced.
    #[error("its SHA-256 is {actual}, announced was {expected}")]
    WrongDigest {
        /// As announced.
        expected: String,
        /// As received.
        actual: String,
    },
    /// The sender stopped before the end.
    #[error("the transfer broke: {0}")]
    Broken(String),
    /// The disk failed, or is full.
    #[error("failed to store it: {0}")]
    Disk(#[from] std::io::Error),
}

impl Blobs {
    /// Opens the store under `root`.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn open(root: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let root = root.into();
        for folder in [root.join("partial"), root.join("sha256")] {
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let locks = (0..=u8::MAX).map(|_| Arc::default()).collect();
        Ok(Self { root, locks, sound: Arc::default() })
    }

    /// Removes what transfers left that a crash ended. Only for the one process that serves, before
    /// it does: another one's transfers would be removed too.
    ///
    /// # Errors
    /// When the folder can't be read or a file can't be removed.
    pub fn remove_unfinished(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(self.root.join("partial"))? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Stores the bytes of `stream`, at most `max` of them. They are durable when this returns.
    /// With `expected` (64 hex digits, any case) other bytes are refused.
    ///
    /// # Errors
    /// When they are too many, not the announced ones, break off, or the disk fails.
    pub async fn put_stream<S, E>(
        &self,
        stream: S,
        max: u64,
        expected: Option<&str>,
    ) -> Result<Blob, BlobError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        // Removed when dropped, and by the next start after a crash.
        let (file, partial) =
            tempfile::NamedTempFile::new_in(self.root.join("partial"))?.into_parts();
        let mut file =
            tokio::io::BufWriter::with_capacity(256 << 10, tokio::fs::File::from_std(file));
        let mut hash = Sha256::new();
        let mut size = 0_u64;
        let mut stream = std::pin::pin!(stream);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| BlobError::Broken(error.to_string()))?;
            size += chunk.len() as u64;
            if size > max {
                return Err(BlobError::TooLarge { max });
            }
            hash.update(&chunk);
            file.write_all(&chunk).await?;
        }
        let sha256 = hex::encode(hash.finalize());
        if let Some(expected) = expected
            && !expected.eq_ignore_ascii_case(&sha256)
        {
            return Err(BlobError::WrongDigest { expected: expected.to_owned(), actual: sha256 });
        }
        file.flush().await?;
        file.get_ref().sync_all().await?;
        let target = self.place(&sha256);
        let kept = Arc::clone(self.lock_of(&sha256)).read_owned().await;
        tokio::task::spawn_blocking(move || keep(partial, &target))
            .await
            .map_err(std::io::Error::other)??;
        Ok(Blob { sha256, size, _kept: kept })
    }

    /// Where the blob lies, if it is there. `None` also for text that isn't a SHA-256.
    #[must_use]
    pub fn path(&self, sha256: &str) -> Option<PathBuf> {
        let path = is_digest(sha256).then(|| self.place(sha256))?;
        path.is_file().then_some(path)
    }

    /// Where the blob lies, once its bytes were read and are those of its name.
    ///
    /// # Errors
    /// When it isn't there, has other bytes, or can't be read.
    pub async fn verified(&self, sha256: &str) -> Result<PathBuf, Unsound> {
        let Some(path) = self.path(sha256) else { return Err(Unsound::Missing) };
        let (file, wanted) = (path.clone(), sha256.to_owned());
        let found = tokio::task::spawn_blocking(move || digest(&file));
        match found.await.map_err(std::io::Error::other).flatten() {
            Ok(found) if found.eq_ignore_ascii_case(&wanted) => Ok(path),
            Ok(_) => Err(Unsound::Damaged { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Unsound::Missing),
            Err(error) => Err(Unsound::Unreadable { path, error }),
        }
    }

    /// The same, but bytes that were right once aren't read again while the system says that nobody
    /// wrote to them: for readers that come often.
    ///
    /// # Errors
    /// As [`Self::verified`].
    pub async fn checked(&self, sha256: &str) -> Result<PathBuf, Unsound> {
        use std::os::unix::fs::MetadataExt as _;
        let now = self.path(sha256).and_then(|path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
        });
        let known = |sound: &HashMap<String, Mark>| sound.get(sha256).copied();
        if let Some(now) = now
            && known(&self.sound.lock().unwrap_or_else(PoisonError::into_inner)) == Some(now)
        {
            return self.path(sha256).ok_or(Unsound::Missing);
        }
        let path = self.verified(sha256).await?;
        if let Some(now) = now {
            let mut sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
            if sound.len() >= REMEMBERED {
                sound.clear();
            }
            sound.insert(sha256.to_owned(), now);
        }
        Ok(path)
    }

    /// Opens a blob for reading. `None` if it isn't there.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn open_blob(&self, sha256: &str) -> std::io::Result<Option<tokio::fs::File>> {
        match self.path(sha256) {
            Some(path) => tokio::fs::File::open(path).await.map(Some),
            None => Ok(None),
        }
    }

    /// Locks a blob for its removal. `None` while somebody keeps the same bytes, or for text that
    /// isn't a SHA-256.
    #[must_use]
    pub fn lock(&self, sha256: &str) -> Option<Locked> {
        let path = is_digest(sha256).then(|| self.place(sha256))?;
        let alone = Arc::clone(self.lock_of(sha256)).try_write_owned().ok()?;
        Some(Locked { path, _alone: alone })
    }

    fn lock_of(&self, sha256: &str) -> &Arc<RwLock<()>> {
        let first = u8::from_str_radix(&sha256[..2], 16).unwrap_or_default();
        &self.locks[usize::from(first)]
    }

    fn place(&self, sha256: &str) -> PathBuf {
        self.root.join("sha256").join(&sha256[..2]).join(sha256)
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The SHA-256 of a file in hex.
fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match std::io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Gives the synced bytes their name, durably.
fn keep(partial: tempfile::TempPath, target: &Path) -> std::io::Result<()> {
    // The same bytes are there already; a file that was damaged meanwhile is put right.
    if target.is_file() && digest(target).ok() == digest(&partial).ok() {
        return Ok(());
    }
    let folder = target.parent().unwrap_or(Path::new("."));
    if !folder.is_dir() {
        std::fs::create_dir_all(folder)?;
        if let Some(above) = folder.parent() {
            std::fs::File::open(above)?.sync_all()?;
        }
    }
    partial.persist(target).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn bytes(parts: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, String>> + Send {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part))).collect();
        stream::iter(parts)
    }

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn leftovers(blobs: &Blobs) -> usize {
        std::fs::read_dir(blobs.root.join("partial")).unwrap().count()
    }

    #[tokio::test]
    async fn a_blob_is_found_by_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let upper = ABC.to_uppercase();
        let blob = blobs.put_stream(bytes(&[b"a", b"bc"]), 3, Some(&upper)).await.unwrap();
        assert_eq!((blob.sha256.as_str(), blob.size), (ABC, 3));
        // While somebody is about to need it, it stays.
        assert!(blobs.lock(ABC).is_none());
        assert_eq!(std::fs::read(blobs.path(ABC).unwrap()).unwrap(), b"abc");
        // The same bytes again are the same blob.
        let again = blobs.put_stream(bytes(&[b"abc"]), 3, None).await.unwrap();
        assert_eq!(again.sha256, blob.sha256);
        assert_eq!(leftovers(&blobs), 0);
    }

    #[tokio::test]
    async fn what_is_too_large_or_wrong_or_broken_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let too_large = blobs.put_stream(bytes(&[b"ab", b"cd"]), 3, None).await;
        assert!(matches!(too_large, Err(BlobError::TooLarge { max: 3 })));
        let wrong = blobs.put_stream(bytes(&[b"abd"]), 3, Some(ABC)).await;
        assert!(matches!(wrong, Err(BlobError::WrongDigest { .. })));
        let broken = stream::iter([Ok(Bytes::from_static(b"ab")), Err("gone".to_owned())]);
        assert!(matches!(blobs.put_stream(broken, 3, None).await, Err(BlobError::Broken(_))));
        assert_eq!(leftovers(&blobs), 0);
        assert!(blobs.path(ABC).is_none());
    }

    #[test]
    fn a_name_that_is_no_digest_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        let long = format!("../../../{}", "a".repeat(55));
        for name in ["", "..", "/etc/passwd", &long, &ABC.to_uppercase()] {
            assert!(blobs.path(name).is_none(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_start_removes_what_a_crash_left() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).unwrap();
        std::fs::write(blobs.root.join("partial/.tmpX"), b"half").unwrap();
        // Opening alone leaves the transfers of a server that runs beside.
        let again = Blobs::open(folder.path()).unwrap();
        assert_eq!(leftovers(&again), 1);
        again.remove_unfinished().unwrap();
        assert_eq!(leftovers(&again), 0);
    }
}
