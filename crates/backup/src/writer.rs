//! Making a backup.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::{Entry, FORMAT, Key, MANIFEST, Manifest, is_plain};

/// A backup in the making. Dropped before its end it leaves an empty folder.
#[derive(Debug)]
pub struct Writer {
    root: PathBuf,
    files: BTreeMap<String, Entry>,
    parts: Vec<String>,
    key: Option<Key>,
    finished: bool,
}

impl Writer {
    /// Begins in a folder that is empty or isn't there.
    ///
    /// # Errors
    /// When it holds something, or can't be made private.
    pub fn create(root: &Path) -> anyhow::Result<Self> {
        if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!(
                "{} isn't empty: a backup needs a folder of its own, nothing is overwritten",
                root.display()
            );
        }
        let root = pipeyard_private::folder(root, &[])?;
        Ok(Self { root, files: BTreeMap::new(), parts: vec![], key: None, finished: false })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Says that it holds a part's data.
    pub fn part(&mut self, name: &str) {
        self.parts.push(name.to_owned());
    }

    /// Says where the key is.
    pub fn key(&mut self, key: Key) {
        self.key = Some(key);
    }

    /// Copies a file. False if it is gone.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn add(&mut self, from: &Path, name: &str) -> anyhow::Result<bool> {
        let mut source = match File::open(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.with_context(|| format!("failed to read {}", from.display()))?,
        };
        let to = self.place(name)?;
        let entry = copy(&mut source, &to)
            .with_context(|| format!("failed to copy {} to {}", from.display(), to.display()))?;
        self.files.insert(name.to_owned(), entry);
        Ok(true)
    }

    /// Copies what is below a folder; what is there with the same length stays. Links are left out:
    /// Pipeyard makes none.
    ///
    /// # Errors
    /// When something can't be read or written.
    pub fn tree(
        &mut self,
        folder: &Path,
        prefix: &str,
        wanted: &dyn Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let entries = match fs::read_dir(folder) {
            // Folders of jobs go with their logs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.with_context(|| format!("failed to read {}", folder.display()))?,
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("failed to read {}", folder.display()))?;
            let Ok(kind) = entry.file_type() else { continue };
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let path = format!("{prefix}/{name}");
            if kind.is_dir() {
                self.tree(&entry.path(), &path, wanted)?;
            } else if kind.is_file() && wanted(&name) {
                let length = entry.metadata().map_or(u64::MAX, |found| found.len());
                if self.files.get(&path).is_none_or(|known| known.size != length) {
                    self.add(&entry.path(), &path)?;
                }
            }
        }
        Ok(())
    }

    /// Where somebody else writes a file of this name; [`Writer::added`] takes it in.
    ///
    /// # Errors
    /// When its folder can't be made.
    pub fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        anyhow::ensure!(is_plain(name), "{name:?} is no name of a file in a backup");
        let to = self.root.join(name);
        if let Some(folder) = to.parent() {
            pipeyard_private::folder(folder, &[])?;
        }
        Ok(to)
    }

    /// Takes in a file that somebody else wrote to its place.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn added(&mut self, name: &str) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.place(name)?;
        let mut file = File::open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        let entry = digest(&mut file, &mut io::sink())?;
        self.files.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Takes a file out again.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        if self.files.remove(name).is_some() {
            fs::remove_file(self.root.join(name))?;
        }
        Ok(())
    }

    /// Whether a file of this name is in it.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The names that are in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Writes the manifest: from now on it is a backup. Answers the manifest and its SHA-256.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self, version: &str, made_at: String) -> anyhow::Result<(Manifest, String)> {
        let manifest = Manifest {
            format: FORMAT,
            version: version.to_owned(),
            made_at,
            parts: std::mem::take(&mut self.parts),
            key: self.key.take(),
            files: std::mem::take(&mut self.files),
        };
        let text = serde_json::to_vec_pretty(&manifest)?;
        pipeyard_private::write(&self.root.join(MANIFEST), &text)?;
        File::open(&self.root)?.sync_all()?;
        self.finished = true;
        Ok((manifest, hex::encode(Sha256::digest(&text))))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // The folder was empty: all of it is ours.
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

/// Copies a file to a new one that only its owner can read, in place of one that was copied before.
pub(crate) fn copy(source: &mut File, to: &Path) -> io::Result<Entry> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(to)?;
    let entry = digest(source, &mut file)?;
    file.sync_all()?;
    Ok(entry)
}

/// Reads to the end, writing what is read.
pub(crate) fn digest(source: &mut File, to: &mut dyn io::Write) -> io::Result<Entry> {
    let mut sum = Sha256::new();
    let (mut piece, mut size) = (vec![0; 1 << 18], 0);
    loop {
        let read = source.read(&mut piece)?;
        if read == 0 {
            return Ok(Entry { size, sha256: hex::encode(sum.finalize()) });
        }
        sum.update(&piece[..read]);
        to.write_all(&piece[..read])?;
        size += read as u64;
    }
}
