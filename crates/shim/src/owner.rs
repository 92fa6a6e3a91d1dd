//! Gives the workspace to the user of the steps, and back.
//!
//! The workspace belongs to whoever runs the runner. An image with a `USER` could not write to it,
//! and a runner that isn't root could not remove what root in a container made there. So it changes
//! hands: to the steps' user before the first step, back to its first owner after the last.
//! Failures are ignored: a step that really needs the right fails with a clear message of its own.

use std::{
    fs,
    os::unix::fs::{MetadataExt, lchown},
    path::{Path, PathBuf},
};

/// Who owns the folder itself.
pub(crate) fn of(folder: &Path) -> Option<(u32, u32)> {
    fs::symlink_metadata(folder).ok().map(|meta| (meta.uid(), meta.gid()))
}

/// Gives `folder` and all in it to `uid` and `gid`; links are changed, not followed.
pub(crate) fn give(folder: &Path, (uid, gid): (u32, u32)) {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let _ = lchown(folder, Some(uid), Some(gid));
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let _ = lchown(entry.path(), Some(uid), Some(gid));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
}
