//! User namespaces: where the daemon maps a container's users to others of the machine, root in a
//! container is nobody on the machine, and the workspace must belong to whom root is mapped to.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, lchown},
    path::{Path, PathBuf},
};

use bollard::models::SystemInfo;

use super::fault::Fault;

/// The user and group of the machine that a container's root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remap {
    uid: u32,
    gid: u32,
}

impl Remap {
    /// As the daemon tells it: a security option, and a data folder named after the ids.
    pub(crate) fn of(info: &SystemInfo) -> Result<Option<Self>, Fault> {
        let options = info.security_options.as_deref().unwrap_or_default();
        if !options.iter().any(|option| option.split(',').any(|part| part == "name=userns")) {
            return Ok(None);
        }
        let root = info.docker_root_dir.as_deref().unwrap_or_default();
        let ids = root.trim_end_matches('/').rsplit('/').next().and_then(|name| {
            let (uid, gid) = name.split_once('.')?;
            Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        });
        let ids = ids.ok_or_else(|| {
            Fault::new(
                "userns_unknown",
                format!(
                    "Docker maps users (userns-remap), and its data folder {root:?} doesn't say to \
                     whom. Please report it."
                ),
            )
        })?;
        Ok(Some(ids))
    }

    /// Gives a folder and all in it to the container's root. Only root may.
    pub(crate) async fn give(self, folder: &Path) -> Result<(), Fault> {
        let folder = folder.to_owned();
        let given = tokio::task::spawn_blocking(move || self.give_all(folder)).await;
        given.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(|error| {
            Fault::new(
                "userns_needs_root",
                format!(
                    "Docker maps users (userns-remap), and the runner can't give the workspace to \
                     user {}: {error}. Run the runner as root, or use a Docker without userns-remap.",
                    self.uid
                ),
            )
        })
    }

    fn give_all(self, folder: PathBuf) -> std::io::Result<()> {
        let give = |path: &Path| {
            // Most are right already when nothing but a second step looks.
            let found = fs::symlink_metadata(path)?;
            if (found.uid(), found.gid()) == (self.uid, self.gid) {
                return Ok(());
            }
            lchown(path, Some(self.uid), Some(self.gid))
        };
        give(&folder)?;
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                give(&entry.path())?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_tells_to_whom_it_maps() {
        let info = |options: &[&str], root: &str| SystemInfo {
            security_options: Some(options.iter().map(|option| (*option).to_owned()).collect()),
            docker_root_dir: Some(root.to_owned()),
            ..SystemInfo::default()
        };
        assert_eq!(
            Remap::of(&info(&["name=seccomp,profile=default"], "/var/lib/docker")),
            Ok(None)
        );
        let mapped =
            Remap::of(&info(&["name=seccomp", "name=userns"], "/var/lib/docker/100000.100001"));
        assert_eq!(mapped, Ok(Some(Remap { uid: 100_000, gid: 100_001 })));
        let odd = Remap::of(&info(&["name=userns"], "/var/lib/docker"));
        assert_eq!(odd.unwrap_err().code, "userns_unknown");
    }
}
