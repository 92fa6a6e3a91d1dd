//! How much a job has put on the disk. Docker has no quota on common file systems, so it is measured
//! from time to time: the workspace by its files, each container's layer by Docker, its volumes by
//! their files. A look at the free space, which costs nothing, tells when to measure early.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{Docker, query_parameters::InspectContainerOptions};
use pipeyard_model::ByteSize;
use tokio::time::{Instant, sleep};

use super::limits::DiskLimit;

/// How often the free space is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often everything is measured at most, without a reason to hurry.
const MEASURE: Duration = Duration::from_secs(10);
/// Measuring takes one part in so many of the time at most.
const SHARE: u32 = 20;

/// What a job uses, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    workspace: u64,
    containers: u64,
}

impl Used {
    fn all(self) -> u64 {
        self.workspace.saturating_add(self.containers)
    }
}

/// Why a job that uses so much is ended; `None` if it may go on.
fn excess(used: Used, free: Option<u64>, limit: &DiskLimit) -> Option<String> {
    let size = |bytes| ByteSize(bytes).to_string();
    let parts = format!(
        "{} ({} in its workspace, {} in its containers)",
        size(used.all()),
        size(used.workspace),
        size(used.containers)
    );
    if limit.bytes > 0 && used.all() > limit.bytes {
        return Some(format!(
            "The job put {parts} on the runner's disk, and {} is its limit. Write less, remove what \
             isn't needed any more, or raise `--disk` of the runner (`disk` in its settings).",
            size(limit.bytes)
        ));
    }
    let free = free.filter(|free| *free < limit.keep_free)?;
    (used.all() >= limit.keep_free).then(|| {
        format!(
            "The runner's disk has only {} left, and the job put {parts} on it. Write less, or free \
             space on the runner's machine.",
            size(free)
        )
    })
}

/// Waits until the job has put more on the disk than it may; answers the reason.
pub(crate) async fn watch(
    docker: &Docker,
    workspace: &Path,
    limit: &DiskLimit,
    containers: impl Fn() -> Vec<String>,
) -> String {
    let mut before = free(workspace);
    // An empty job has nothing to measure; what hurries makes the first look early.
    let mut next = Instant::now() + MEASURE;
    loop {
        sleep(LOOK).await;
        let now = free(workspace);
        let hurry = (limit.bytes / 8).max(64 << 20);
        let shrank =
            before.zip(now).is_some_and(|(before, now)| before.saturating_sub(now) > hurry);
        let is_scarce = now.is_some_and(|now| now < limit.keep_free);
        if !shrank && !is_scarce && Instant::now() < next {
            continue;
        }
        let begun = Instant::now();
        let used = measure(docker, workspace, containers()).await;
        before = now;
        next = Instant::now() + MEASURE.max(begun.elapsed() * SHARE);
        if let Some(why) = excess(used, now, limit) {
            return why;
        }
        if is_scarce {
            sleep(begun.elapsed() * SHARE).await;
        }
    }
}

/// Free bytes of the file system on which `path` is, for whoever isn't root.
pub(crate) fn free(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

async fn measure(docker: &Docker, workspace: &Path, containers: Vec<String>) -> Used {
    let mut used = Used::default();
    let mut folders = vec![];
    for name in containers {
        let options = InspectContainerOptions { size: true };
        let Ok(found) = docker.inspect_container(&name, Some(options)).await else { continue };
        let layer = found.size_rw.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        used.containers = used.containers.saturating_add(layer);
        for mount in found.mounts.unwrap_or_default() {
            if mount.typ.as_deref() == Some("volume") {
                folders.extend(mount.source.map(PathBuf::from));
            }
        }
    }
    let workspace = workspace.to_owned();
    let measured = tokio::task::spawn_blocking(move || {
        let volumes = folders.iter().map(|folder| usage(folder)).fold(0, u64::saturating_add);
        (usage(&workspace), volumes)
    });
    let (files, volumes) = measured.await.unwrap_or_default();
    used.workspace = files;
    used.containers = used.containers.saturating_add(volumes);
    used
}

/// Bytes on the disk below a folder. What can't be read isn't counted; files with several names are
/// counted once.
fn usage(folder: &Path) -> u64 {
    let mut several = HashSet::new();
    let mut folders = vec![folder.to_owned()];
    let mut bytes: u64 = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                folders.push(entry.path());
            } else if found.nlink() > 1 && !several.insert((found.dev(), found.ino())) {
                continue;
            }
            bytes = bytes.saturating_add(found.blocks().saturating_mul(512));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_told_with_figures_and_the_fix() {
        let limit = DiskLimit { bytes: 1 << 30, keep_free: 512 << 20 };
        let used = |workspace, containers| Used { workspace, containers };
        assert_eq!(excess(used(1 << 29, 1 << 29), Some(1 << 40), &limit), None);
        let why = excess(used(1 << 30, 1 << 20), Some(1 << 40), &limit).unwrap();
        for part in
            ["1 GiB in its workspace", "1 MiB in its containers", "1 GiB is its limit", "--disk"]
        {
            assert!(why.contains(part), "{part}: {why}");
        }
        // A full disk ends those that filled it, not those beside them.
        assert_eq!(excess(used(1 << 20, 0), Some(1 << 20), &limit), None);
        assert!(excess(used(600 << 20, 0), Some(1 << 20), &limit).unwrap().contains("only 1 MiB"));
        let unlimited = DiskLimit { bytes: 0, ..limit };
        assert_eq!(excess(used(1 << 50, 0), Some(1 << 40), &unlimited), None);
    }

    #[test]
    fn files_are_counted_by_what_they_take() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/a"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(dir.path().join("deep/a"), dir.path().join("b")).unwrap();
        let sparse = fs::File::create(dir.path().join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let bytes = usage(dir.path());
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
    }
}
