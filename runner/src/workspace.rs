//! Reads what a job left in its workspace. The job wrote it, so nothing in it is trusted: links are
//! never followed, only regular files are opened, and no path can leave the workspace.

use std::{fs::File, io, path::Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// Opens a regular file of the workspace. The kernel refuses a path that leaves it or that has a
/// link anywhere in it, whatever happened to the path since it was looked at.
pub(crate) fn open(workspace: &Path, path: &str) -> io::Result<File> {
    let root = File::open(workspace)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file: File = openat2(&root, path, flags, Mode::empty(), resolve)?.into();
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it isn't a regular file"));
    }
    Ok(file)
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Link,
    Other,
}

/// What lies at `path`, without following a link at its end; a link before its end is an error.
pub(crate) fn kind(workspace: &Path, path: &str) -> io::Result<Kind> {
    let root = File::open(workspace)?;
    // Without NOFOLLOW, or a link at the end of the folder would be opened itself.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let folder = openat2(&root, parent, flags, Mode::empty(), resolve)?;
    let found = rustix::fs::statat(&folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match rustix::fs::FileType::from_raw_mode(found.st_mode) {
        rustix::fs::FileType::RegularFile => Kind::File,
        rustix::fs::FileType::Directory => Kind::Folder,
        rustix::fs::FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    })
}

/// Whether a path was refused because there is a link in it.
pub(crate) fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Looks at everything below `from` (the workspace itself if empty) but `.git`, at most `most`
/// entries; gives each its path in the workspace. Names that aren't UTF-8 are passed over: a
/// pipeline can't name them. `false` if there are more.
pub(crate) fn walk(
    workspace: &Path,
    from: &str,
    most: usize,
    mut each: impl FnMut(&str, Kind),
) -> io::Result<bool> {
    let mut stack = vec![from.to_owned()];
    let mut seen = 0;
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(workspace.join(&dir))? {
            let entry = entry?;
            seen += 1;
            if seen > most {
                return Ok(false);
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                if path != ".git" {
                    each(&path, Kind::Folder);
                    stack.push(path);
                }
            } else if kind.is_file() {
                each(&path, Kind::File);
            } else if kind.is_symlink() {
                each(&path, Kind::Link);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn workspace() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("dist/deep")).unwrap();
        fs::create_dir_all(dir.path().join(".git")).unwrap();
        for name in ["a.txt", "dist/b.bin", "dist/deep/c.bin", ".git/d.txt"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link.txt")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("a.txt", dir.path().join("inside.txt")).unwrap();
        dir
    }

    #[test]
    fn a_link_is_never_followed() {
        let dir = workspace();
        assert!(open(dir.path(), "a.txt").is_ok());
        for bad in ["link.txt", "inside.txt", "etc/passwd", "../x", "/etc/passwd", "dist", "none"] {
            assert!(open(dir.path(), bad).is_err(), "{bad}");
        }
        assert_eq!(kind(dir.path(), "dist/b.bin").unwrap(), Kind::File);
        assert_eq!(kind(dir.path(), "dist").unwrap(), Kind::Folder);
        assert_eq!(kind(dir.path(), "link.txt").unwrap(), Kind::Link);
        for bad in ["etc/passwd", "../x", "none"] {
            assert!(kind(dir.path(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_walk_stays_inside_and_ends() {
        let dir = workspace();
        let mut seen = Vec::new();
        assert!(
            walk(dir.path(), "", 100, |path, kind| seen.push((path.to_owned(), kind))).unwrap()
        );
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        let paths: Vec<_> = seen.iter().map(|(path, _)| path.as_str()).collect();
        let expected = [
            "a.txt",
            "dist",
            "dist/b.bin",
            "dist/deep",
            "dist/deep/c.bin",
            "etc",
            "inside.txt",
            "link.txt",
        ];
        assert_eq!(paths, expected);
        assert_eq!(seen[5].1, Kind::Link);
        assert!(!walk(dir.path(), "", 3, |_, _| ()).unwrap());
    }
}
