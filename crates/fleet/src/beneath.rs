//! Files beneath a folder, reached by handles: no step of the way follows a link, so nothing outside
//! of the folder can be read, written or changed, whatever lies in it.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Folder,
    Link,
    /// A device, a socket, a pipe.
    Other,
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Folder {
    /// Opens the folder that everything else is beneath.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, FOLDER, Mode::empty())?))
    }

    /// A folder beneath this one.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<Self> {
        self.walk(path, false)
    }

    /// The same; made (mode 0755) where it isn't there.
    pub(crate) fn make(&self, path: &Path) -> io::Result<Self> {
        self.walk(path, true)
    }

    fn walk(&self, path: &Path, make: bool) -> io::Result<Self> {
        let mut here = Self(self.0.try_clone()?);
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::CurDir => continue,
                _ => return Err(leaves(path)),
            };
            if make {
                match rustix::fs::mkdirat(&here.0, name, Mode::from_raw_mode(0o755)) {
                    // The umask may have taken bits away.
                    Ok(()) => here.folder_at(name)?.set_own_mode(0o755)?,
                    Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            here = here.folder_at(name)?;
        }
        Ok(here)
    }

    fn folder_at(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(&self.0, name, FOLDER, Mode::empty())?))
    }

    /// The parent of a path beneath this folder, and the path's last name.
    pub(crate) fn parent<'a>(&self, path: &'a Path, make: bool) -> io::Result<(Self, &'a OsStr)> {
        let name = path.file_name().ok_or_else(|| leaves(path))?;
        Ok((self.walk(path.parent().unwrap_or(Path::new("")), make)?, name))
    }

    /// Sets the folder's own mode.
    pub(crate) fn set_own_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    /// Makes a file that isn't there.
    pub(crate) fn create(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o600))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(File::from(file))
    }

    /// Opens a regular file; a link, device or pipe is refused and not waited for.
    pub(crate) fn read(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(File::from(file))
    }

    pub(crate) fn symlink(&self, to: &Path, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(to, &self.0, name)?)
    }

    /// A second name for a file in `of`; a link there isn't followed.
    pub(crate) fn hardlink(&self, name: &OsStr, of: &Self, old: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::linkat(&of.0, old, &self.0, name, AtFlags::empty())?)
    }

    pub(crate) fn link_target(&self, name: &OsStr) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new())?;
        let bytes = target.into_bytes();
        Ok(PathBuf::from(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes)))
    }

    /// What is there, and its permission bits; none if nothing is.
    pub(crate) fn what(&self, name: &OsStr) -> io::Result<Option<(What, u32)>> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let what = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => What::File,
                    FileType::Directory => What::Folder,
                    FileType::Symlink => What::Link,
                    _ => What::Other,
                };
                Ok(Some((what, stat.st_mode & 0o7777)))
            }
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file or a link.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Names in the folder, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(name.to_vec()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Sets owner, group and mode of a file or folder, in this order: a change of the owner takes
    /// special bits away. A link is left alone.
    pub(crate) fn permit(
        &self,
        name: &OsStr,
        owner: Option<u32>,
        group: Option<u32>,
        mode: Option<u32>,
    ) -> io::Result<()> {
        let (uid, gid) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(self.0.as_fd(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if let Some(mode) = mode
            && matches!(self.what(name)?, Some((What::File | What::Folder, _)))
        {
            rustix::fs::chmodat(&self.0, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        Ok(())
    }
}

fn leaves(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} leaves its folder", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_step_follows_a_link() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let inside = tempfile::tempdir().unwrap();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink(outside.path().join("secret"), inside.path().join("file")).unwrap();
        std::fs::create_dir(inside.path().join("a")).unwrap();
        let folder = Folder::open(inside.path()).unwrap();
        for path in ["out", "out/x", "../x", "/etc", "a/../out"] {
            assert!(folder.folder(Path::new(path)).is_err(), "{path}");
            assert!(folder.make(Path::new(path)).is_err(), "{path}");
        }
        assert!(folder.read(OsStr::new("file")).is_err());
        assert!(folder.create(OsStr::new("file"), 0o644).is_err());
        folder.make(Path::new("a/b/c")).unwrap().create(OsStr::new("d"), 0o640).unwrap();
        assert!(inside.path().join("a/b/c/d").is_file());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
