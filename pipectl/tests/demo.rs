//! `pipectl demo` from any folder: what keeps it from starting is told before anything starts, and
//! Ctrl-C leaves nothing.

#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

/// The first of thirty ports of loopback that nobody has.
fn free_ports() -> u16 {
    let start = 20_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    (start..60_000)
        .step_by(30)
        .find(|first| (*first..first + 30).all(|p| TcpListener::bind(("127.0.0.1", p)).is_ok()))
        .unwrap()
}

fn demo(folder: &Path, port: u16) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pipectl"))
        .args(["demo", "--port", &port.to_string()])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_port_that_is_taken_is_told_with_its_fix_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_ports();
    // The fleet's, and a service's: both are told at once.
    let held = [1, 10].map(|n| TcpListener::bind(("127.0.0.1", port + n)).unwrap());
    let ended = demo(folder.path(), port).wait_with_output().unwrap();
    drop(held);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("nothing was started"), "{said}");
    for wanted in [format!("{} for the fleet", port + 1), format!("{} for the service", port + 10)]
    {
        assert!(said.contains(&wanted), "{wanted}: {said}");
    }
    assert!(said.contains("--port 8470") && said.contains("demo --down"), "{said}");
    assert!(!said.contains("everything runs"), "{said}");
    assert!(ended.stdout.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_folder_of_somebody_elses_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".demo")).unwrap();
    let theirs = folder.path().join(".demo/thesis.txt");
    std::fs::write(&theirs, "years of work").unwrap();
    let ended = demo(folder.path(), free_ports()).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("holds something else than a demo"), "{said}");
    assert!(theirs.is_file());
}

#[test]
fn ctrl_c_ends_the_story_with_130_and_leaves_nothing() {
    if !pipeyard_needs::docker("ctrl_c_ends_the_story_with_130_and_leaves_nothing") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(folder.path(), free_ports());
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.by_ref().find(|line| line.starts_with("everything runs")).unwrap();
    assert!(first.contains("/login#code="), "the login comes first: {first}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:#?}");
    assert!(rest.last().is_some_and(|line| line.starts_with("interrupted: ")), "{rest:#?}");
    assert!(!rest.iter().any(|line| line.contains("error")), "{rest:#?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}
