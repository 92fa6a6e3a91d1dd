//! Files that are whole or not there, and the rule about public addresses.

use std::{
    fs,
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt},
    path::Path,
};

/// Replaces a file so that a reader, or a start after a crash, sees the old or the new one.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path, bytes, mode)?;
    let renamed = fs::rename(&temporary, path);
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed?;
    sync_folder(path)
}

/// Moves what can't be used out of the way, under a name that says so; it is never thrown away.
pub(crate) fn set_aside(path: &Path, problem: &str) {
    let seconds = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{seconds}"));
    let aside = path.with_file_name(name);
    match fs::rename(path, &aside) {
        Ok(()) => tracing::error!(
            file = %path.display(), aside = %aside.display(),
            "a file can't be used and was set aside: {problem}"
        ),
        Err(error) => tracing::error!(
            file = %path.display(), %error,
            "a file can't be used, and can't be set aside: {problem}"
        ),
    }
}

/// Reads a file, or makes it (mode 0600) if it isn't there. Of two processes that do it at once,
/// one makes it and both read the same.
pub(crate) fn create_once(
    path: &Path,
    make: impl FnOnce() -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    match pipeyard_private::secret(path).map_err(io::Error::from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read.map(String::into_bytes),
    }
    let temporary = temporary(path, &make()?, 0o600)?;
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(named(path, &error)),
        _ => {
            sync_folder(path)?;
            fs::read(path)
        }
    }
}

fn temporary(path: &Path, bytes: &[u8], mode: u32) -> io::Result<std::path::PathBuf> {
    // Private where it is missing; one that is there may be the system's, and stays as it is.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder(path))
        .map_err(|error| named(folder(path), &error))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    let temporary = path.with_file_name(name);
    let options = &mut fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(|error| named(&temporary, &error))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(folder(path))?.sync_all()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Without TLS, an address beyond loopback needs a word of the operator.
pub(crate) fn refuse_public(ip: IpAddr, allowed: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        ip.is_loopback() || allowed,
        "{ip} is reachable from other machines and there is no TLS here: bind to 127.0.0.1, or \
         put a proxy with TLS in front and set allow_public"
    );
    Ok(())
}
