//! The embedded shim: process 1 of a job's container.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::fault::Fault;

/// The program itself, static.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pipeyard-shim"));
/// Its SHA-256 in hex, computed by the build: the program itself is only read to be written.
const DIGEST: &str = include_str!(concat!(env!("OUT_DIR"), "/pipeyard-shim.sha256"));

/// Writes the program below `data_dir` under a name made of its content, unless it is there, and
/// answers its path. A file that was cut or changed is replaced.
pub(crate) fn install(data_dir: &Path) -> Result<PathBuf, Fault> {
    write(data_dir).map_err(|error| {
        let folder = data_dir.display();
        let message = format!("Can't write to the runner's data folder {folder}: {error}.");
        Fault::new("data_dir", message)
    })
}

fn write(data_dir: &Path) -> io::Result<PathBuf> {
    let folder = data_dir.join("shim");
    fs::create_dir_all(&folder)?;
    let path = folder.canonicalize()?.join(&DIGEST[..32]);
    if is_right(&path).unwrap_or(false) {
        return Ok(path);
    }
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    file.write_all(PROGRAM)?;
    file.as_file().set_permissions(Permissions::from_mode(0o555))?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    File::open(&folder)?.sync_all()?;
    Ok(path)
}

fn is_right(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != 0o555 {
        return Ok(false);
    }
    let mut digest = Sha256::new();
    let mut block = [0; 16 * 1024];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex::encode(digest.finalize()) == DIGEST),
            read => digest.update(&block[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_shim_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = install(folder.path()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        fs::write(&path, "cut").unwrap();
        assert_eq!(install(folder.path()).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), PROGRAM);
    }

    #[test]
    fn the_shim_needs_no_library() {
        let name = b"/lib64/ld-linux-x86-64.so.2";
        assert!(!PROGRAM.windows(name.len()).any(|part| part == name), "not static");
    }
}
