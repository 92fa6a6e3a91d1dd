//! The place of a folder, and whether two readings of it are of the same folder. Pure, but for the
//! reading.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

/// What is written down of a folder's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Without links.
    pub(crate) path: PathBuf,
    /// The file system that it is on. May change with a restart of the machine.
    pub(crate) device: u64,
    /// Its number there. A copy gets another.
    pub(crate) inode: u64,
    /// When the folder itself was made, in nanoseconds since 1970; a copy is younger, and nobody can
    /// set it. Not all file systems say it.
    pub(crate) made: Option<u64>,
}

/// How a folder stands to what is written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// It is where it was.
    Here,
    /// It is the same folder by another path: renamed, or mounted elsewhere.
    Renamed,
    /// It is another folder: a copy, or moved to another file system.
    Elsewhere,
}

impl Record {
    /// The place of this folder as it is now.
    pub(crate) fn of(real: &Path) -> io::Result<Self> {
        let found = fs::metadata(real)?;
        let made = found.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            path: real.to_owned(),
            device: found.dev(),
            inode: found.ino(),
            made: made.and_then(|made| u64::try_from(made.as_nanos()).ok()),
        })
    }

    /// How `found`, a reading of now, stands to this, which was written down.
    pub(crate) fn judge(&self, found: &Self) -> Stands {
        let as_old = match (self.made, found.made) {
            (Some(then), Some(now)) => then == now,
            // The file system doesn't say: then only the number speaks.
            (None, _) | (_, None) => true,
        };
        if self.inode != found.inode || !as_old {
            return Stands::Elsewhere;
        }
        match (self.path == found.path, self.device == found.device) {
            (true, _) => Stands::Here,
            (false, true) => Stands::Renamed,
            // A snapshot of a file system keeps numbers and times; it is a copy all the same.
            (false, false) => Stands::Elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record { path: "/srv/pipeyard".into(), device: 8, inode: 42, made: Some(1_000) }
    }

    #[test]
    fn a_folder_is_itself_by_another_path_and_a_copy_never_is() {
        let home = record();
        let is = |found: Record| home.judge(&found);
        assert_eq!(is(record()), Stands::Here);
        // The machine was restarted and numbers its disks in another way.
        assert_eq!(is(Record { device: 9, ..record() }), Stands::Here);
        let path = || PathBuf::from("/mnt/pipeyard");
        assert_eq!(is(Record { path: path(), ..record() }), Stands::Renamed);
        assert_eq!(
            is(Record { path: path(), inode: 43, made: Some(2_000), ..record() }),
            Stands::Elsewhere
        );
        // At the old path, after the original was removed, or seen from another container.
        assert_eq!(is(Record { inode: 43, made: Some(2_000), ..record() }), Stands::Elsewhere);
        // By chance the same number on another disk, or on this one after the original is gone.
        assert_eq!(is(Record { made: Some(2_000), ..record() }), Stands::Elsewhere);
        // A snapshot.
        assert_eq!(is(Record { path: path(), device: 9, ..record() }), Stands::Elsewhere);
        // A file system without birth times.
        let old = Record { made: None, ..record() };
        assert_eq!(old.judge(&Record { made: None, ..record() }), Stands::Here);
        assert_eq!(old.judge(&Record { made: None, inode: 43, ..record() }), Stands::Elsewhere);
    }
}
