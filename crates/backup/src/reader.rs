//! Bringing a backup back.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    Entry, FORMAT, MANIFEST, Manifest, is_plain,
    writer::{copy, digest},
};

/// A manifest is never longer: some millions of files.
const LONGEST: u64 = 1 << 30;

/// A backup that was read.
#[derive(Debug)]
pub struct Reader {
    root: PathBuf,
    manifest: Manifest,
}

impl Reader {
    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// When there is none, a newer version wrote it, or it makes no sense.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let path = root.join(MANIFEST);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "{} is no whole backup: it has no {MANIFEST}, which is written last",
                root.display()
            ),
            other => other.with_context(|| format!("failed to read {}", path.display()))?,
        };
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text)?;
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
        let no_manifest = || format!("{} isn't a backup's manifest", path.display());
        let Format { format } = serde_json::from_slice(&text).with_context(no_manifest)?;
        ensure!(
            (1..=FORMAT).contains(&format),
            "{} is of format {format}, and this version of Pipeyard reads up to {FORMAT}: restore it \
             with the version that made it, or a later one",
            root.display()
        );
        let manifest: Manifest = serde_json::from_slice(&text).with_context(no_manifest)?;
        if let Some(name) = manifest.files.keys().find(|name| !is_plain(name)) {
            bail!("{} names a file {name:?}, which leads out of it", path.display());
        }
        Ok(Self { root: root.to_owned(), manifest })
    }

    /// What it holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads every file and compares it with the manifest.
    ///
    /// # Errors
    /// Names the first file that is gone or isn't what it was.
    pub fn verify(&self) -> anyhow::Result<()> {
        for (name, entry) in &self.manifest.files {
            let found = digest(&mut self.file(name)?, &mut io::sink())
                .with_context(|| format!("failed to read {name} of the backup"))?;
            self.compare(name, entry, &found)?;
        }
        Ok(())
    }

    /// Copies every file into a folder, comparing it on the way.
    ///
    /// # Errors
    /// As [`Reader::verify`], or when the folder can't be written.
    pub fn copy_to(&self, folder: &Path) -> anyhow::Result<()> {
        for (name, entry) in &self.manifest.files {
            let to = folder.join(name);
            if let Some(parent) = to.parent() {
                pipeyard_private::folder(parent, &[])?;
            }
            let found = copy(&mut self.file(name)?, &to)
                .with_context(|| format!("failed to copy {name} to {}", to.display()))?;
            self.compare(name, entry, &found)?;
        }
        Ok(())
    }

    fn file(&self, name: &str) -> anyhow::Result<File> {
        let path = self.root.join(name);
        let found = fs::symlink_metadata(&path)
            .with_context(|| format!("the backup is damaged: {} is gone", path.display()))?;
        ensure!(found.is_file(), "the backup is damaged: {} isn't a file", path.display());
        File::open(&path).with_context(|| format!("failed to read {}", path.display()))
    }

    fn compare(&self, name: &str, wanted: &Entry, found: &Entry) -> anyhow::Result<()> {
        ensure!(
            wanted == found,
            "the backup is damaged: {} has {} bytes with SHA-256 {}, and the manifest says {} with {}",
            self.root.join(name).display(),
            found.size,
            found.sha256,
            wanted.size,
            wanted.sha256
        );
        Ok(())
    }
}
