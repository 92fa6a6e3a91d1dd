//! What belongs to the user of a process alone: data folders, tokens and keys. Every role makes and
//! opens its folders and secrets through here, so the rule is one:
//!
//! - a folder is 0700, is a real folder, and belongs to the process's user; one of an earlier version
//!   that others could look into is mended, one that isn't ours is refused and left as it is;
//! - a secret's file is 0600 from its first byte; one that a person brings and that others can read
//!   is closed when it is the process's own, and refused when it isn't.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::Mode;

/// Others may neither read, write nor enter.
const OTHERS: u32 = 0o077;
/// Others may not write.
const OTHERS_WRITE: u32 = 0o022;
/// A token or a key is never longer.
const LONGEST: u64 = 64 << 10;

/// A folder or a file that can't be private.
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    /// The system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        #[source]
        error: io::Error,
    },
    /// Another user owns it and could change it at any time.
    #[error(
        "{} belongs to user {owner}, and this process runs as user {user}: give it to that user \
         (chown), or name another", path.display()
    )]
    Owner {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Others can use it, and it holds what isn't Pipeyard's, so its mode isn't ours to change.
    #[error(
        "{} has mode {mode:04o} and holds files that aren't Pipeyard's: name a folder of its own, or \
         close it yourself with `chmod 700`", path.display()
    )]
    Shared {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others can read or change a secret that isn't the process's own.
    #[error(
        "{} has mode {mode:04o}: other users of this machine can use the secret in it; `chmod 600` it",
        path.display()
    )]
    Open {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl NotPrivate {
    fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

impl From<NotPrivate> for io::Error {
    fn from(error: NotPrivate) -> Self {
        match error {
            NotPrivate::Io { error, path } => {
                Self::new(error.kind(), format!("{}: {error}", path.display()))
            }
            other => Self::new(io::ErrorKind::PermissionDenied, other.to_string()),
        }
    }
}

/// Whatever this process makes from now on is its user's alone unless it says otherwise. Called
/// before anything else is.
pub fn umask() {
    rustix::process::umask(Mode::from_raw_mode(OTHERS));
}

/// The usual mask, for a process that makes files for others: what an agent installs is read by the
/// users that serve it.
pub fn umask_for_others() {
    rustix::process::umask(Mode::from_raw_mode(OTHERS_WRITE));
}

/// A data folder that only this process's user can look into, made with what is missing above it.
/// `marks`: names by which an existing folder is known as Pipeyard's, whose mode may then be mended.
///
/// # Errors
/// When it can't be made, belongs to somebody else, or is open and not known as ours.
pub fn folder(path: &Path, marks: &[&str]) -> Result<PathBuf, NotPrivate> {
    make(path, marks, OTHERS)
}

/// The same for a folder whose content others use by its path: nobody else may write to it.
///
/// # Errors
/// As [`folder`].
pub fn served_folder(path: &Path, marks: &[&str]) -> Result<PathBuf, NotPrivate> {
    make(path, marks, OTHERS_WRITE)
}

fn make(path: &Path, marks: &[&str], forbidden: u32) -> Result<PathBuf, NotPrivate> {
    let io = |error| NotPrivate::io(path, error);
    DirBuilder::new().recursive(true).mode(0o777 & !forbidden).create(path).map_err(io)?;
    let real = fs::canonicalize(path).map_err(io)?;
    // Looked at and changed by its handle: the name may mean another folder a moment later.
    let handle = File::open(&real).map_err(io)?;
    let found = handle.metadata().map_err(io)?;
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(NotPrivate::Owner { path: real, owner, user });
    }
    let mode = found.mode() & 0o7777;
    if mode & forbidden != 0 {
        if !is_ours(&real, marks).map_err(io)? {
            return Err(NotPrivate::Shared { path: real, mode });
        }
        handle.set_permissions(Permissions::from_mode(mode & !forbidden)).map_err(io)?;
        tracing::warn!(
            folder = %real.display(),
            "other users of this machine could use a data folder (mode {mode:04o}); it is closed now"
        );
    }
    Ok(real)
}

/// Whether a folder is empty or holds one of the marks.
fn is_ours(path: &Path, marks: &[&str]) -> io::Result<bool> {
    let mut is_empty = true;
    for entry in fs::read_dir(path)? {
        is_empty = false;
        if entry?.file_name().to_str().is_some_and(|name| marks.contains(&name)) {
            return Ok(true);
        }
    }
    Ok(is_empty)
}

/// A secret out of a file. One of this process's user that others can read or change is closed, with
/// a warning; another's is refused. A group may read it: that is how an administrator gives a
/// secret to a service. Pipes are read as they are.
///
/// # Errors
/// When it can't be read, is open to others, or is longer than any secret.
pub fn secret(path: &Path) -> Result<String, NotPrivate> {
    let io = |error| NotPrivate::io(path, error);
    let file = File::open(path).map_err(io)?;
    let found = file.metadata().map_err(io)?;
    let mode = found.mode() & 0o7777;
    if found.is_file() && mode & 0o027 != 0 {
        let is_own = found.uid() == rustix::process::geteuid().as_raw();
        if !is_own || file.set_permissions(Permissions::from_mode(0o600)).is_err() {
            return Err(NotPrivate::Open { path: path.to_owned(), mode });
        }
        tracing::warn!(
            file = %path.display(),
            "other users of this machine could use the secret in a file (mode {mode:04o}); it is \
             closed now. Make a new secret if you don't trust them all"
        );
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > LONGEST {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it is too long for a secret");
        return Err(NotPrivate::io(path, error));
    }
    Ok(text)
}

/// Writes a secret's file: whole or not at all, mode 0600, in place of a regular file or of nothing.
///
/// # Errors
/// When it can't be written, or something else stands there.
pub fn write(path: &Path, content: &[u8]) -> Result<(), NotPrivate> {
    let io = |error| NotPrivate::io(path, error);
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            return Err(io(io::Error::other("it is there and isn't a regular file")));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        Ok(_) | Err(_) => {}
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    let new = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_new_folder_and_what_is_above_it_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let made = folder(&dir.path().join("a/b"), &[]).unwrap();
        assert_eq!(mode(&made), 0o700);
        assert_eq!(mode(&dir.path().join("a")), 0o700);
        let made = served_folder(&dir.path().join("root"), &[]).unwrap();
        assert_eq!(mode(&made), 0o755);
    }

    #[test]
    fn an_open_folder_is_mended_if_it_is_ours_and_refused_if_not() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content, is_ours) in [
            ("empty", None, true),
            ("ours", Some("identity.json"), true),
            ("etc", Some("passwd"), false),
        ] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            if let Some(content) = content {
                fs::write(path.join(content), "").unwrap();
            }
            set(&path, 0o755);
            let made = folder(&path, &["identity.json"]);
            assert_eq!(made.is_ok(), is_ours, "{name}: {made:?}");
            assert_eq!(mode(&path), if is_ours { 0o700 } else { 0o755 }, "{name}");
        }
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(folder(&file, &[]).is_err());
    }

    #[test]
    fn a_folder_behind_a_link_is_judged_itself() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        set(&dir.path().join("real"), 0o755);
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let made = folder(&dir.path().join("link"), &[]).unwrap();
        assert!(made.ends_with("real"));
        assert_eq!(mode(&made), 0o700);
    }

    #[test]
    fn another_users_folder_and_secret_are_refused() {
        // The system's own are another's to everybody but root, who is given one here.
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = (dir.path().join("a"), dir.path().join("token"));
        fs::create_dir(&path).unwrap();
        fs::write(&file, "secret").unwrap();
        set(&file, 0o644);
        if !rustix::process::geteuid().is_root() {
            assert!(matches!(folder(Path::new("/"), &[]), Err(NotPrivate::Owner { .. })));
            return;
        }
        for path in [&path, &file] {
            std::os::unix::fs::chown(path, Some(1234), Some(1234)).unwrap();
        }
        assert!(matches!(folder(&path, &[]), Err(NotPrivate::Owner { owner: 1234, .. })));
        assert!(matches!(secret(&file), Err(NotPrivate::Open { mode: 0o644, .. })));
        assert_eq!(mode(&file), 0o644, "what isn't ours stays as it is");
        set(&file, 0o600);
        assert_eq!(secret(&file).unwrap(), "secret");
    }

    #[test]
    fn a_secret_that_others_can_read_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for (before, after) in
            [(0o644, 0o600), (0o604, 0o600), (0o660, 0o600), (0o640, 0o640), (0o600, 0o600)]
        {
            fs::write(&path, "secret\n").unwrap();
            set(&path, before);
            assert_eq!(secret(&path).unwrap(), "secret\n");
            assert_eq!(mode(&path), after, "{before:o}");
        }
        fs::write(&path, "x".repeat(100_000)).unwrap();
        assert!(secret(&path).is_err(), "too long");
    }

    #[test]
    fn a_secret_is_written_private_and_over_a_file_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, b"one").unwrap();
        set(&path, 0o644);
        write(&path, b"two").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"two".to_vec(), 0o600));
        fs::create_dir(dir.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("key", dir.path().join("link")).unwrap();
        for other in ["folder", "link"] {
            assert!(write(&dir.path().join(other), b"x").is_err(), "{other}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left behind");
    }
}
