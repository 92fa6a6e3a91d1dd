//! A backup as one file: a plain tar of its folder.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::{MANIFEST, Manifest, is_plain};

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// A name beside `path`, on the same disk, that nobody has. Nothing is made.
    ///
    /// # Errors
    /// When the path has no name.
    pub fn beside(path: &Path, unique: &str) -> anyhow::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut name = path.file_name().context("the path needs a name")?.to_owned();
        name.push(format!(".{unique}"));
        Ok(Self(path.with_file_name(name)))
    }

    /// Where.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes a finished backup into a new file that only its owner can read.
///
/// # Errors
/// When the file is there, or can't be written; nothing is left then.
pub fn pack(folder: &Path, manifest: &Manifest, to: &Path) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .with_context(|| format!("failed to make {}", to.display()))?;
    let written = fill(folder, manifest, file);
    if written.is_err() {
        let _ = fs::remove_file(to);
    }
    written.with_context(|| format!("failed to write {}", to.display()))
}

fn fill(folder: &Path, manifest: &Manifest, file: File) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::new(file));
    for name in std::iter::once(MANIFEST).chain(manifest.files.keys().map(String::as_str)) {
        let mut source = File::open(folder.join(name))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(source.metadata()?.len());
        header.set_mode(0o600);
        tar.append_data(&mut header, name, &mut source)?;
    }
    let mut file = tar.into_inner()?;
    file.flush()?;
    file.get_ref().sync_all()
}

/// Unpacks a backup into a folder that is made. Only plain files with plain names are taken; what
/// they hold is compared with the manifest by whoever reads the folder.
///
/// # Errors
/// When the file isn't a backup's.
pub fn unpack(file: &Path, folder: &Path) -> anyhow::Result<()> {
    let isnt = || format!("{} isn't a backup of `pipectl admin backup`", file.display());
    let source = File::open(file).with_context(|| format!("failed to read {}", file.display()))?;
    pipeyard_private::folder(folder, &[])?;
    let mut tar = tar::Archive::new(io::BufReader::new(source));
    for entry in tar.entries().with_context(isnt)? {
        let mut entry = entry.with_context(isnt)?;
        let name = String::from_utf8(entry.path_bytes().into_owned()).with_context(isnt)?;
        ensure!(
            entry.header().entry_type().is_file() && is_plain(&name),
            "{}: it holds {name:?}, which isn't a plain file below it",
            isnt()
        );
        let to = folder.join(&name);
        if let Some(parent) = to.parent() {
            pipeyard_private::folder(parent, &[])?;
        }
        let mut options = OpenOptions::new();
        let mut out = options.write(true).create_new(true).mode(0o600).open(&to)?;
        io::copy(&mut entry, &mut out).with_context(isnt)?;
    }
    Ok(())
}
