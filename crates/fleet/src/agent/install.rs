//! Unpacking a bundle and installing its files: into new folders, so that nothing that runs is
//! touched, and with one step that makes the new release current.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::user;
use crate::{
    appspec::{AppSpec, FileSpec, Permission},
    archive::{self, ArchiveError, Kind, LIMITS, Links, relative},
    beneath::{Folder, What},
};

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
    let root = new_folder(into).map_err(text)?;
    let mut put = |entry: &archive::Entry, content: &mut dyn io::Read| {
        let at = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", entry.path.display()))
        };
        place(&root, entry, content).map_err(at)?;
        Ok(())
    };
    let file = fs::File::open(archive).map_err(text)?;
    archive::read(file, Links::Inside, LIMITS, &mut put).map_err(|error| match error {
        ArchiveError::Visitor(error) => format!("the bundle can't be unpacked: {error}"),
        error => format!("the bundle isn't one that can be unpacked: {error}"),
    })
}

/// Makes an empty folder; what is there goes.
fn new_folder(path: &Path) -> io::Result<Folder> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir_all(path)?;
    let folder = Folder::open(path)?;
    // Whoever a hook or a program runs as gets to its files, and no further.
    folder.set_own_mode(0o755)?;
    Ok(folder)
}

/// Unpacks one entry beneath `root`.
fn place(root: &Folder, entry: &archive::Entry, content: &mut dyn io::Read) -> io::Result<()> {
    if entry.kind == Kind::Folder {
        // The owner always gets in, or nothing could be put there.
        return root.make(&entry.path)?.set_own_mode(entry.mode | 0o700);
    }
    let (parent, name) = root.parent(&entry.path, true)?;
    match &entry.kind {
        Kind::Folder => Ok(()),
        Kind::File { .. } => {
            // Its owner can always read it, to put it into a release.
            let mut file = parent.create(name, entry.mode | 0o400)?;
            io::copy(content, &mut file).map(drop)
        }
        Kind::Symlink(to) => parent.symlink(to, name),
        Kind::Hardlink(to) => {
            let (of, old) = root.parent(to, false)?;
            parent.hardlink(name, &of, old)
        }
    }
}

/// Copies the AppSpec's files into a new release and makes it current. May be repeated.
pub(super) fn install(root: &Path, sha256: &str, spec: &AppSpec) -> Result<String, String> {
    let bundle = root.join("bundles").join(sha256);
    let release = root.join("releases").join(sha256);
    let building = root.join("releases").join(format!("{sha256}.incoming"));
    let text = |error: io::Error| error.to_string();
    let from = Folder::open(&bundle).map_err(text)?;
    let to = new_folder(&building).map_err(text)?;
    let mut links = Vec::new();
    let mut count = 0;
    for file in &spec.files {
        count += one(&from, &to, file, &mut links)?;
    }
    // A link that led to something in the bundle may lead out from where it is now.
    for link in links {
        stays_inside(&building, &link)?;
    }
    for permission in &spec.permissions {
        permit(&to, permission)?;
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

/// Copies what one entry of `files` names. Nothing on the way is a link, in the bundle or in the
/// release.
fn one(
    from: &Folder,
    to: &Folder,
    file: &FileSpec,
    links: &mut Vec<PathBuf>,
) -> Result<u64, String> {
    let (source, destination) = (below(&file.source)?, below(&file.destination)?);
    let missing = |error: io::Error| format!("the source {} of files: {error}", file.source);
    let into = to
        .make(&destination)
        .map_err(|error| format!("the destination {} of files: {error}", file.destination))?;
    if source.as_os_str().is_empty() {
        return copy_all(from, &into, &destination, links);
    }
    let (parent, name) = from.parent(&source, false).map_err(missing)?;
    let found = parent.what(name).map_err(missing)?;
    match found.ok_or_else(|| missing(io::ErrorKind::NotFound.into()))?.0 {
        What::Folder => {
            let folder = parent.folder(Path::new(name)).map_err(missing)?;
            copy_all(&folder, &into, &destination, links)
        }
        // A file goes into the destination, which is a folder.
        _ => copy(&parent, name, &into, &destination, links),
    }
}

/// Copies everything in a folder; `at` is where `to` is in the release.
fn copy_all(
    from: &Folder,
    to: &Folder,
    at: &Path,
    links: &mut Vec<PathBuf>,
) -> Result<u64, String> {
    let text = |error: io::Error| format!("{}: {error}", at.display());
    let mut count = 0;
    for name in from.names().map_err(text)? {
        count += copy(from, &name, to, at, links)?;
    }
    Ok(count)
}

fn copy(
    from: &Folder,
    name: &OsStr,
    to: &Folder,
    at: &Path,
    links: &mut Vec<PathBuf>,
) -> Result<u64, String> {
    let path = at.join(name);
    let text = |error: io::Error| format!("{}: {error}", path.display());
    let (what, mode) = from.what(name).map_err(text)?.ok_or("it is gone")?;
    let there = to.what(name).map_err(text)?.map(|(what, _)| what);
    match (what, there) {
        // Two sources may fill one folder; the later one wins file by file.
        (What::File | What::Link, Some(What::File | What::Link)) => {
            to.remove(name).map_err(text)?;
        }
        (What::Folder, None | Some(What::Folder)) | (What::File | What::Link, None) => {}
        (What::Other, _) => return Err(format!("{} is neither file nor folder", path.display())),
        (_, Some(_)) => {
            return Err(format!("{} is once a folder and once a file", path.display()));
        }
    }
    match what {
        What::Folder => {
            let folder = from.folder(Path::new(name)).map_err(text)?;
            let made = to.make(Path::new(name)).map_err(text)?;
            made.set_own_mode(mode).map_err(text)?;
            copy_all(&folder, &made, &path, links)
        }
        What::Link => {
            let target = from.link_target(name).map_err(text)?;
            to.symlink(&target, name).map_err(text)?;
            links.push(path);
            Ok(1)
        }
        What::File | What::Other => {
            let mut content = from.read(name).map_err(text)?;
            let mut file = to.create(name, mode & 0o777).map_err(text)?;
            io::copy(&mut content, &mut file).map_err(text)?;
            Ok(1)
        }
    }
}

/// Asks the kernel whether a link of the release leads out of it. One that leads to nothing is fine.
fn stays_inside(release: &Path, link: &Path) -> Result<(), String> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
    let text = |error: rustix::io::Errno| format!("{}: {error}", link.display());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(release, flags | OFlags::DIRECTORY, Mode::empty()).map_err(text)?;
    match openat2(root, link, flags, Mode::empty(), ResolveFlags::BENEATH) {
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::XDEV) => Err(format!(
            "the link {} leads out of the release from where files put it",
            link.display()
        )),
        Err(error) => Err(text(error)),
    }
}

/// Sets owner, group and mode. A pattern matches names of one folder; `**` stands for everything
/// below.
fn permit(release: &Folder, permission: &Permission) -> Result<(), String> {
    let text = |error: io::Error| format!("permissions of {}: {error}", permission.object);
    let mode = permission.mode_bits().transpose()?;
    let owner = permission.owner.as_deref().map(user::uid).transpose()?;
    let group = permission.group.as_deref().map(user::gid).transpose()?;
    let wanted = |what: What| {
        permission.kinds.is_empty()
            || permission.kinds.iter().any(|kind| {
                (kind == "file" && what == What::File)
                    || (kind == "directory" && what == What::Folder)
            })
    };
    let set = |folder: &Folder, name: &OsStr, what: What| -> Result<(), String> {
        if wanted(what) && what != What::Link {
            folder.permit(name, owner, group, mode).map_err(text)?;
        }
        Ok(())
    };
    let deep = permission.pattern == "**";
    let object = below(&permission.object)?;
    let top = if object.as_os_str().is_empty() {
        release.folder(Path::new("")).map_err(text)?
    } else {
        let (parent, name) = release.parent(&object, false).map_err(text)?;
        let found = parent.what(name).map_err(text)?;
        let (what, _) = found.ok_or_else(|| text(io::ErrorKind::NotFound.into()))?;
        if what != What::Folder {
            return set(&parent, name, what);
        }
        let top = parent.folder(Path::new(name)).map_err(text)?;
        if deep {
            set(&parent, name, what)?;
        }
        top
    };
    let mut folders = vec![top];
    while let Some(folder) = folders.pop() {
        for name in folder.names().map_err(text)? {
            let shown = name.to_string_lossy();
            if permission.except.iter().any(|pattern| glob(pattern, &shown)) {
                continue;
            }
            let Some((what, _)) = folder.what(&name).map_err(text)? else { continue };
            if !deep && !glob(&permission.pattern, &shown) {
                continue;
            }
            // Opened before its own mode might shut us out.
            if deep && what == What::Folder {
                folders.push(folder.folder(Path::new(&name)).map_err(text)?);
            }
            set(&folder, &name, what)?;
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::archive::tests::Raw;

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
            let spec = AppSpec::parse(yaml).unwrap();
            install(root, sha, &spec).unwrap();
            let read = fs::read_to_string(root.join("current/www/index.html")).unwrap();
            assert_eq!(read, version);
            let mode = fs::metadata(root.join("current/bin/run.sh")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
        }
        let yaml = "version: 0.0\nos: linux\nfiles:\n  - {source: ../../x, destination: /}\n";
        let spec = AppSpec::parse(yaml).unwrap();
        assert!(install(root, "two", &spec).unwrap_err().contains("leaves"));
        assert_eq!(fs::read_to_string(root.join("current/www/index.html")).unwrap(), "v2");
    }

    fn unpacked(raw: Raw, root: &Path) -> Result<(), String> {
        let file = raw.done();
        fs::create_dir_all(root.join("bundles")).unwrap();
        unpack(file.path(), &root.join("bundles/one"))
    }

    fn spec(files: &str) -> AppSpec {
        AppSpec::parse(&format!("version: 0.0\nos: linux\n{files}")).unwrap()
    }

    #[test]
    fn a_bundle_of_links_gets_nothing_of_the_host() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("secret"), "of the host").unwrap();
        let root = host.path().join("root");
        let up = "../../../secret";
        for raw in [
            Raw::new().folder("a/b/").link("a/b/c", "../..").link("a/b/c/x", up),
            Raw::new().link("d", ".").link("x", "d/d/d/../../../secret"),
            Raw::new().link("x", up),
            Raw::new().link("l", "../../..").file("l/secret", "changed"),
            Raw::new().hard("x", up),
        ] {
            assert!(unpacked(raw, &root).is_err());
            assert!(
                !root.join("bundles/one").exists() && !root.join("bundles/one.incoming").exists()
            );
        }
        assert_eq!(fs::read_to_string(host.path().join("secret")).unwrap(), "of the host");
    }

    #[test]
    fn copying_out_follows_no_link_either() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("secret"), "of the host").unwrap();
        let root = host.path().join("root");
        unpacked(
            Raw::new()
                .file("a/real", "r")
                .link("a/b/up", "../..")
                .link("in", "a")
                .link("a/b/far", "../../a/real"),
            &root,
        )
        .unwrap();
        let tried = |files: &str| install(&root, "one", &spec(files)).unwrap_err();
        // A source through a link, a destination through one, and one that leads out from its new place.
        tried("files: [{source: in/real, destination: /}]\n");
        tried("files: [{source: a/b/up/a, destination: /}]\n");
        tried("files: [{source: in, destination: /}, {source: a/real, destination: /in}]\n");
        assert!(tried("files: [{source: a/b, destination: /}]\n").contains("leads out"));
        assert!(!root.join("current").exists());
        install(&root, "one", &spec("files: [{source: /, destination: /app}]\n")).unwrap();
        assert_eq!(fs::read_to_string(root.join("current/app/a/b/far")).unwrap(), "r");
        let mode =
            |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        // The archive's setuid bit is gone.
        assert_eq!(mode("current/app/a/real"), 0o755);
    }

    #[test]
    fn a_permission_reaches_only_what_it_names() {
        let host = tempfile::tempdir().unwrap();
        let outside = host.path().join("outside");
        fs::write(&outside, "").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        let root = host.path().join("root");
        unpacked(Raw::new().file("d/f", "").folder("d/e/").link("d/l", "f"), &root).unwrap();
        let text = "files: [{source: /, destination: /}]\npermissions:\n  \
                    - {object: /d, mode: 750}\n  - {object: /d/f, mode: 4711}\n";
        install(&root, "one", &spec(text)).unwrap();
        let mode = |path: &str| {
            fs::symlink_metadata(root.join(path)).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!((mode("current/d"), mode("current/d/e")), (0o750, 0o750));
        assert_eq!(mode("current/d/f"), 0o4711);
        for object in ["/d/l/x", "/../../outside", "/nothing"] {
            let text = format!(
                "files: [{{source: /, destination: /}}]\npermissions: [{{object: {object}, mode: 777}}]\n"
            );
            assert!(install(&root, "one", &spec(&text)).is_err(), "{object}");
        }
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
