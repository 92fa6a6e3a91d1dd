use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::*;

fn make(dir: &Path) -> std::path::PathBuf {
    let (data, to) = (dir.join("data"), dir.join("backup"));
    fs::create_dir_all(data.join("logs/job")).unwrap();
    fs::write(data.join("logs/job/1.log"), "one\n").unwrap();
    fs::write(data.join("logs/job/2.log.new"), "half").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", data.join("logs/link")).unwrap();
    let mut out = Writer::create(&to).unwrap();
    let wanted = |name: &str| !name.ends_with(".new");
    out.part("server");
    out.tree(&data.join("logs"), "server/logs", &wanted).unwrap();
    // It grew while the rest was copied.
    fs::write(data.join("logs/job/1.log"), "one\ntwo\n").unwrap();
    out.tree(&data.join("logs"), "server/logs", &wanted).unwrap();
    assert!(!out.add(&data.join("gone"), "server/gone").unwrap());
    fs::write(out.place("server/db").unwrap(), "rows").unwrap();
    out.added("server/db").unwrap();
    let (manifest, digest) = out.finish("1.2.3", "today".into()).unwrap();
    assert_eq!(manifest.files.keys().collect::<Vec<_>>(), ["server/db", "server/logs/job/1.log"]);
    assert_eq!(digest.len(), 64);
    to
}

#[test]
fn what_went_in_comes_out_and_only_its_owner_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let backup = make(dir.path());
    let reader = Reader::open(&backup).unwrap();
    reader.verify().unwrap();
    let to = dir.path().join("restored");
    reader.copy_to(&to).unwrap();
    assert_eq!(fs::read_to_string(to.join("server/logs/job/1.log")).unwrap(), "one\ntwo\n");
    for root in [&backup, &to] {
        for path in ["", "server", "server/db", "server/logs/job/1.log"] {
            let mode = fs::metadata(root.join(path)).unwrap().mode();
            assert_eq!(mode & 0o077, 0, "{path}");
        }
    }
}

#[test]
fn a_backup_that_is_not_what_was_written_is_refused_and_the_file_is_named() {
    for (name, spoil) in [
        ("server/db", Some("row5")),
        ("server/db", Some("rowsrows")),
        ("server/logs/job/1.log", None),
        ("manifest.json", None),
        ("manifest.json", Some("{}")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let backup = make(dir.path());
        match spoil {
            Some(text) => fs::write(backup.join(name), text).unwrap(),
            None => fs::remove_file(backup.join(name)).unwrap(),
        }
        let refused = Reader::open(&backup).and_then(|reader| reader.verify()).unwrap_err();
        assert!(format!("{refused:#}").contains(name), "{name}: {refused:#}");
    }
}

#[test]
fn a_manifest_leads_nowhere_else_and_a_newer_one_is_not_guessed_at() {
    let dir = tempfile::tempdir().unwrap();
    let backup = make(dir.path());
    let path = backup.join(MANIFEST);
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, says) in [
        ("server/db", "../escaped", "leads out"),
        ("server/db", "/etc/escaped", "leads out"),
        ("\"format\": 1", "\"format\": 2", "format 2"),
    ] {
        fs::write(&path, good.replace(from, to)).unwrap();
        let refused = Reader::open(&backup).unwrap_err();
        assert!(format!("{refused:#}").contains(says), "{refused:#}");
    }
    fs::write(&path, &good).unwrap();
    fs::remove_file(backup.join("server/db")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", backup.join("server/db")).unwrap();
    assert!(Reader::open(&backup).unwrap().verify().is_err());
}

#[test]
fn a_folder_in_use_is_refused_and_an_unfinished_backup_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "x").unwrap();
    assert!(Writer::create(dir.path()).is_err());
    let to = dir.path().join("new");
    let mut out = Writer::create(&to).unwrap();
    out.add(&dir.path().join("mine"), "server/mine").unwrap();
    drop(out);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
}

#[test]
fn one_file_holds_the_same_and_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let backup = make(dir.path());
    let manifest = Reader::open(&backup).unwrap().manifest().clone();
    let (file, out) = (dir.path().join("b.tar"), dir.path().join("out"));
    archive::pack(&backup, &manifest, &file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o077, 0);
    assert!(archive::pack(&backup, &manifest, &file).is_err(), "nothing is overwritten");
    archive::unpack(&file, &out).unwrap();
    let reader = Reader::open(&out).unwrap();
    reader.verify().unwrap();
    assert_eq!(reader.manifest(), &manifest);
    // Cut off, and one that somebody else made.
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (half, evil) = (dir.path().join("half"), dir.path().join("evil"));
    let whole = archive::unpack(&file, &half).and_then(|()| Reader::open(&half)?.verify());
    assert!(whole.is_err());
    let mut tar = tar::Builder::new(fs::File::create(&file).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "server", "/tmp").unwrap();
    tar.into_inner().unwrap();
    assert!(archive::unpack(&file, &evil).is_err());
}
