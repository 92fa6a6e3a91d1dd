//! Unpacking a bundle and installing its files: into new folders, so that nothing that runs is
//! touched, and with one step that makes the new release current.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;

use super::appspec::{AppSpec, Permission};
use crate::bundles::{MAX_ENTRIES, MAX_UNPACKED, relative};

/// Releases that are kept besides the current one.
const KEEP: usize = 5;

/// Unpacks an archive into a folder that isn't there yet. Links that leave it are refused.
pub(super) fn unpack(archive: &Path, into: &Path) -> Result<(), String> {
    let temporary = into.with_extension("incoming");
    let done = try_unpack(archive, &temporary)
        .and_then(|()| fs::rename(&temporary, into).map_err(|error| error.to_string()));
    if done.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    done
}

fn try_unpack(archive: &Path, into: &Path) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    if into.exists() {
        fs::remove_dir_all(into).map_err(text)?;
    }
    fs::create_dir_all(into).map_err(text)?;
    let file = GzDecoder::new(fs::File::open(archive).map_err(text)?);
    let mut tar = tar::Archive::new(io::Read::take(file, MAX_UNPACKED));
    tar.set_preserve_permissions(true);
    let mut size = 0;
    for (count, entry) in tar.entries().map_err(text)?.enumerate() {
        let mut entry = entry.map_err(text)?;
        size += entry.size();
        if count >= MAX_ENTRIES || size > MAX_UNPACKED {
            return Err(format!("more than {MAX_ENTRIES} files or {MAX_UNPACKED} bytes"));
        }
        let path = entry.path().map_err(text)?.into_owned();
        let inside =
            relative(&path).ok_or_else(|| format!("{} leaves the bundle", path.display()))?;
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let link = entry.link_name().map_err(text)?.unwrap_or_default().into_owned();
            let from = if kind.is_symlink() {
                inside.parent().unwrap_or(Path::new(""))
            } else {
                Path::new("")
            };
            if !stays_inside(from, &link) {
                return Err(format!("the link {} leaves the bundle", path.display()));
            }
        } else if !kind.is_file() && !kind.is_dir() && !kind.is_pax_global_extensions() {
            return Err(format!("{} is a {kind:?}", path.display()));
        }
        if !entry.unpack_in(into).map_err(text)? {
            return Err(format!("{} leaves the bundle", path.display()));
        }
    }
    Ok(())
}

/// Whether a link in the folder `from` points below the top.
fn stays_inside(from: &Path, link: &Path) -> bool {
    let mut depth = from.components().count();
    for part in link.components() {
        match part {
            std::path::Component::Normal(_) => depth += 1,
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// Copies the AppSpec's files into a new release and makes it current. May be repeated.
pub(super) fn install(root: &Path, sha256: &str, spec: &AppSpec) -> Result<String, String> {
    let bundle = root.join("bundles").join(sha256);
    let release = root.join("releases").join(sha256);
    let building = root.join("releases").join(format!("{sha256}.incoming"));
    let text = |error: io::Error| error.to_string();
    if building.exists() {
        fs::remove_dir_all(&building).map_err(text)?;
    }
    fs::create_dir_all(&building).map_err(text)?;
    let mut count = 0;
    for file in &spec.files {
        let source = below(&file.source)?;
        let destination = building.join(below(&file.destination)?);
        let from = bundle.join(&source);
        let found = fs::symlink_metadata(&from)
            .map_err(|error| format!("the source {} of files: {error}", file.source))?;
        fs::create_dir_all(&destination).map_err(text)?;
        if found.is_dir() {
            count += copy(&from, &destination)?;
        } else {
            // A file goes into the destination, which is a folder.
            let name = from.file_name().ok_or("a source without a name")?;
            count += copy(&from, &destination.join(name))?;
        }
    }
    for permission in &spec.permissions {
        permit(&building, permission)?;
    }
    if release.exists() {
        fs::remove_dir_all(&release).map_err(text)?;
    }
    fs::rename(&building, &release).map_err(text)?;
    make_current(root, sha256).map_err(text)?;
    prune(root, sha256);
    Ok(format!("{count} files are in place"))
}

fn make_current(root: &Path, sha256: &str) -> io::Result<()> {
    let new = root.join("current.incoming");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(Path::new("releases").join(sha256), &new)?;
    fs::rename(&new, root.join("current"))?;
    fs::File::open(root)?.sync_all()
}

/// A path of the AppSpec below its folder: `/` and `/app` are meant from there.
fn below(path: &str) -> Result<PathBuf, String> {
    relative(Path::new(path.trim_start_matches('/')))
        .ok_or_else(|| format!("the path {path} leaves its folder"))
}

fn copy(from: &Path, to: &Path) -> Result<u64, String> {
    let text = |error: io::Error| format!("{}: {error}", to.display());
    let kind = fs::symlink_metadata(from).map_err(text)?;
    if kind.is_symlink() {
        let link = fs::read_link(from).map_err(text)?;
        let _ = fs::remove_file(to);
        symlink(link, to).map_err(text)?;
        return Ok(1);
    }
    if !kind.is_dir() {
        fs::copy(from, to).map_err(text)?;
        return Ok(1);
    }
    fs::create_dir_all(to).map_err(text)?;
    let mut count = 0;
    for entry in fs::read_dir(from).map_err(text)? {
        let entry = entry.map_err(text)?;
        count += copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(count)
}

/// Sets modes. A pattern matches names of one folder; `**` stands for everything below.
fn permit(release: &Path, permission: &Permission) -> Result<(), String> {
    let Some(mode) = permission.mode_bits().transpose()? else { return Ok(()) };
    let object = release.join(below(&permission.object)?);
    let text = |error: io::Error| format!("permissions of {}: {error}", permission.object);
    let set = |path: &Path| -> Result<(), String> {
        let found = fs::symlink_metadata(path).map_err(text)?;
        let wanted = permission.kinds.is_empty()
            || permission.kinds.iter().any(|kind| {
                (kind == "file" && found.is_file()) || (kind == "directory" && found.is_dir())
            });
        if wanted && !found.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(text)?;
        }
        Ok(())
    };
    if !fs::symlink_metadata(&object).map_err(text)?.is_dir() {
        return set(&object);
    }
    let deep = permission.pattern == "**";
    let mut folders = vec![object];
    while let Some(folder) = folders.pop() {
        if deep {
            set(&folder)?;
        }
        for entry in fs::read_dir(&folder).map_err(text)? {
            let path = entry.map_err(text)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if permission.except.iter().any(|pattern| glob(pattern, &name)) {
                continue;
            }
            if deep && fs::symlink_metadata(&path).map_err(text)?.is_dir() {
                folders.push(path);
            } else if deep || glob(&permission.pattern, &name) {
                set(&path)?;
            }
        }
    }
    Ok(())
}

/// `*` stands for any run of characters.
fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|tail| {
            tail.char_indices().map(|(i, _)| i).chain([tail.len()]).any(|i| glob(rest, &tail[i..]))
        }),
    }
}

/// Removes the oldest releases and bundles. A failure costs room, not the deployment.
fn prune(root: &Path, current: &str) {
    for folder in ["releases", "bundles"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        let mut old: Vec<_> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy() != current)
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        old.sort();
        let excess = old.len().saturating_sub(KEEP);
        for (_, path) in old.into_iter().take(excess) {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "an old release stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_may_not_leave_the_bundle() {
        for (from, link, inside) in [
            ("", "a", true),
            ("bin", "../lib/x", true),
            ("bin", "../../etc/passwd", false),
            ("", "/etc/passwd", false),
            ("a/b", "../../..", false),
        ] {
            assert_eq!(stays_inside(Path::new(from), Path::new(link)), inside, "{from} {link}");
        }
    }

    #[test]
    fn a_glob_matches_names() {
        assert!(glob("*.sh", "start.sh") && glob("*", "x") && glob("a*b*c", "aXbYc"));
        assert!(!glob("*.sh", "start.py") && !glob("a", "ab"));
    }

    #[test]
    fn an_install_replaces_the_release_in_one_step() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (sha, version) in [("one", "v1"), ("two", "v2"), ("two", "v2")] {
            let bundle = root.join("bundles").join(sha);
            fs::create_dir_all(bundle.join("www")).unwrap();
            fs::write(bundle.join("www/index.html"), version).unwrap();
            fs::write(bundle.join("run.sh"), "#!/bin/sh").unwrap();
            let yaml = "version: 0.0\nos: linux\nfiles:\n  - {source: www, destination: /www}\n  \
                        - {source: run.sh, destination: /bin}\npermissions:\n  \
                        - {object: /bin, pattern: '*.sh', mode: 0755}\n";
            let spec = AppSpec::parse(yaml, false).unwrap();
            install(root, sha, &spec).unwrap();
            let read = fs::read_to_string(root.join("current/www/index.html")).unwrap();
            assert_eq!(read, version);
            let mode = fs::metadata(root.join("current/bin/run.sh")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
        }
        let yaml = "version: 0.0\nos: linux\nfiles:\n  - {source: ../../x, destination: /}\n";
        let spec = AppSpec::parse(yaml, false).unwrap();
        assert!(install(root, "two", &spec).unwrap_err().contains("leaves"));
        assert_eq!(fs::read_to_string(root.join("current/www/index.html")).unwrap(), "v2");
    }
}
