//! Whichever role is started, by whatever mask: nobody else on the machine can look into its data, and
//! a secret that was open is closed.

#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Ends with the test.
struct Role(Child);

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(arguments: &str) -> Role {
    let script = format!("umask 022; exec {} {arguments}", env!("CARGO_BIN_EXE_pipectl"));
    let child = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Role(child.unwrap())
}

fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o777)
}

fn until(what: &str, good: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !good() {
        assert!(Instant::now() < end, "{what} didn't happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder as an earlier version left it: open, with a file by which it is known.
fn old_folder(path: &Path, mark: &str) {
    fs::create_dir(path).unwrap();
    if !mark.is_empty() {
        fs::create_dir(path.join(mark)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_role_closes_its_data_and_what_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, mark) in [("server", ""), ("fleet", ""), ("runner", "attempts"), ("up", "runner")] {
        old_folder(&at(name), mark);
    }
    let token = at("runner-token");
    fs::write(&token, "t".repeat(40)).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let shown = |name: &str| at(name).display().to_string();
    let nowhere = "127.0.0.1:1";
    let _roles = [
        start(&format!(
            "server --data {} --listen 127.0.0.1:0 --runner-token-file {}",
            shown("server"),
            shown("runner-token")
        )),
        start(&format!(
            "fleet --data {} --listen 127.0.0.1:0 --proxy-admin {nowhere} --proxy-token-file {} --region local",
            shown("fleet"),
            shown("proxy/token")
        )),
        start(&format!(
            "proxy --admin 127.0.0.1:0 --token-file {} --state-file {}",
            shown("proxy/token"),
            shown("proxy/routes.json")
        )),
        start(&format!(
            "runner --server http://{nowhere} --data {} --token-file {} --executor local",
            shown("runner"),
            shown("runner-token")
        )),
    ];
    for (folder, file) in [
        ("server", "key"),
        ("fleet", "credentials.json"),
        ("proxy", "token"),
        ("runner", "runner.running"),
    ] {
        let file = at(folder).join(file);
        until(&format!("{}", file.display()), || file.exists());
        until(&format!("{folder} is closed"), || mode(&at(folder)) == Some(0o700));
        assert_eq!(mode(&file), Some(0o600), "{}", file.display());
    }
    let database = at("server/pipeyard.sqlite");
    until("the server's database", || database.exists());
    assert_eq!(mode(&database), Some(0o600));
    until("the token is closed", || mode(&token) == Some(0o600));
}

#[test]
fn a_folder_that_holds_others_files_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("etc");
    old_folder(&folder, "passwd");
    for arguments in [
        "server --listen 127.0.0.1:0 --data",
        "runner --server http://127.0.0.1:1 --executor local --data",
        "fleet --listen 127.0.0.1:0 --proxy-token-file /dev/null/none --data",
        "up --listen 127.0.0.1:1 --data",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_pipectl"))
            .args(arguments.split(' '))
            .arg(&folder)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("chmod 700"), "{arguments}: {said}");
        assert_eq!(mode(&folder), Some(0o755), "{arguments}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{arguments}");
    }
}
