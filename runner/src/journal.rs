//! An attempt's log on this machine's disk: appended here first, shipped from here.
//!
//! Memory holds none of it. The length is told to the shipper through a watch.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use tokio::sync::watch;

/// The file's name in the attempt's folder.
pub(crate) const FILE: &str = "log";

/// What the shipper knows of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    /// Bytes in the file.
    pub(crate) bytes: u64,
    /// Nothing will be added.
    pub(crate) complete: bool,
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Journal {
    file: fs::File,
    written: watch::Sender<Written>,
}

impl Journal {
    /// Creates the file in `dir`.
    pub(crate) fn create(dir: &Path) -> io::Result<Self> {
        let file = fs::File::options().create_new(true).append(true).open(path(dir))?;
        Ok(Self { file, written: watch::Sender::new(Written::default()) })
    }

    /// The reading end.
    pub(crate) fn written(&self) -> watch::Receiver<Written> {
        self.written.subscribe()
    }

    /// Bytes that were appended.
    pub(crate) fn bytes(&self) -> u64 {
        self.written.borrow().bytes
    }

    /// Appends whole lines, all or none of them.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(lines) {
            // What was written of them gives its room back.
            let _ = self.file.set_len(self.bytes());
            return Err(error);
        }
        self.written.send_modify(|w| w.bytes += lines.len() as u64);
        Ok(())
    }

    /// Nothing more will come; answers the length.
    pub(crate) fn complete(&mut self) -> u64 {
        self.written.send_modify(|w| w.complete = true);
        self.bytes()
    }
}

/// Where the file is.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// The bytes of whole lines in a journal that another process wrote: its last line may be torn.
pub(crate) fn whole_lines(dir: &Path) -> io::Result<u64> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = fs::File::open(path(dir))?;
    let mut end = file.metadata()?.len();
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let length = usize::try_from(end - start).unwrap_or(block.len());
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block[..length])?;
        if let Some(at) = block[..length].iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_not_shipped() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path()).unwrap();
        assert_eq!(whole_lines(dir.path()).unwrap(), 0);
        journal.append(b"one\ntwo\ntor").unwrap();
        assert_eq!(whole_lines(dir.path()).unwrap(), 8);
        journal.append(&vec![b'x'; 200_000]).unwrap();
        assert_eq!(whole_lines(dir.path()).unwrap(), 8);
    }
}
