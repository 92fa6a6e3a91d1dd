use std::process::Command;

use super::*;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Names, content and times of everything in a folder.
fn listing(folder: &Path) -> String {
    let run =
        Command::new("find").arg(folder).args(["-printf", "%p %m %s %T@ %C@\n"]).output().unwrap();
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn a_copy_is_refused_untouched_and_settles_only_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let (home, other) = (dir.path().join("home"), dir.path().join("copy"));
    drop(claim(&home, Role::Fleet).unwrap());
    copy(&home, &other);
    let before = listing(&other);
    for role in [Role::Up, Role::Fleet, Role::Server, Role::Runner, Role::Agent, Role::Proxy] {
        let error = claim(&other, role).unwrap_err();
        assert_eq!(error.code(), "data_folder_elsewhere");
        let text = error.to_string();
        assert!(text.contains(&home.display().to_string()), "{text}");
        assert!(text.contains("pipectl admin moved"), "{text}");
    }
    assert_eq!(listing(&other), before);
    settle_here(&other).unwrap();
    drop(claim(&other, Role::Fleet).unwrap());
    drop(claim(&home, Role::Fleet).unwrap());
    // The copy in the original's place.
    fs::remove_dir_all(&home).unwrap();
    copy(&other, &home);
    assert_eq!(check(&home).unwrap_err().code(), "data_folder_elsewhere");
}

#[test]
fn a_renamed_or_linked_folder_is_still_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (home, moved, link) =
        (dir.path().join("home"), dir.path().join("moved"), dir.path().join("link"));
    drop(claim(&home, Role::Server).unwrap());
    std::os::unix::fs::symlink(&home, &link).unwrap();
    drop(claim(&link, Role::Server).unwrap());
    fs::rename(&home, &moved).unwrap();
    drop(claim(&moved, Role::Server).unwrap());
    // Its new name counts from now on.
    assert!(fs::read_to_string(moved.join(HOME)).unwrap().contains("/moved\""));
}

#[test]
fn a_folder_of_an_earlier_version_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("fleet.db"), "data").unwrap();
    check(dir.path()).unwrap();
    assert!(!dir.path().join(HOME).exists());
    drop(claim(dir.path(), Role::Fleet).unwrap());
    assert!(dir.path().join(HOME).exists());
}

#[test]
fn a_role_is_there_once_and_other_roles_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = claim(dir.path(), Role::Server).unwrap();
    let error = claim(dir.path(), Role::Server).unwrap_err();
    assert_eq!(error.code(), "data_folder_in_use");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    let _other = claim(dir.path(), Role::Fleet).unwrap();
    assert_eq!(settle_here(dir.path()).unwrap_err().code(), "data_folder_in_use");
    assert_eq!(holder(dir.path(), Role::Server), Process::own().ok());
    drop(first);
    // What it wrote is still there, and is of the past.
    assert_eq!(holder(dir.path(), Role::Server), None);
    let _again = claim(dir.path(), Role::Server).unwrap();
}

#[test]
fn garbage_in_its_place_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for garbage in ["", "{", "[]", "{\"path\": 3}"] {
        fs::write(dir.path().join(HOME), garbage).unwrap();
        let error = claim(dir.path(), Role::Server).unwrap_err();
        assert_eq!(error.code(), "data_folder_damaged", "{garbage:?}");
        assert!(error.to_string().contains("home.json"), "{error}");
    }
    settle_here(dir.path()).unwrap();
    drop(claim(dir.path(), Role::Server).unwrap());
}
