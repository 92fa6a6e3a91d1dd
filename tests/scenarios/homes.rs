//! A data folder has one home and each role works in it once: second starts, copies, strangers' ids
//! and ports are refused at once, with the reason, and nothing of the first is touched.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use pipeyard_tests::{
    installation::{free_address, pipectl},
    until,
};

struct Up {
    child: Child,
    listen: SocketAddr,
    log: PathBuf,
}

fn up_command(data: &Path, listen: SocketAddr) -> Command {
    let mut command = Command::new(pipectl());
    command.args(["up", "--stop-proxy", "--executor", "local", "--data"]).arg(data).args([
        "--listen",
        &listen.to_string(),
        "--fleet-listen",
        &free_address().to_string(),
        "--proxy-admin",
        &free_address().to_string(),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl Up {
    async fn start(data: &Path) -> Self {
        let listen = free_address();
        let log = data.with_extension("log");
        let child = up_command(data, listen)
            .stderr(std::fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("start up");
        let up = Self { child, listen, log };
        until("up says that it is ready", Duration::from_secs(40), async || {
            up.said().contains("Pipeyard is ready").then_some(())
        })
        .await;
        up
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn serves(&self) -> bool {
        let url = format!("http://{}/readyz", self.listen);
        reqwest::get(url).await.is_ok_and(|answer| answer.status().is_success())
    }

    fn end(mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.child.wait();
    }
}

/// Ends with 2 and these words, without a "ready".
fn refused(mut command: Command, words: &[&str]) {
    let Output { status, stderr, .. } = command.output().expect("start it");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} isn't in: {said}");
    }
    assert!(!said.contains("Pipeyard is ready"), "{said}");
}

/// Paths, sizes and times of everything in a folder.
fn listing(folder: &Path) -> String {
    let listed = Command::new("find").arg(folder).args(["-printf", "%p %s %T@ %C@\n"]).output();
    String::from_utf8_lossy(&listed.expect("find").stdout).into_owned()
}

#[tokio::test]
async fn a_second_start_and_a_copy_are_refused_and_the_first_goes_on() {
    pipeyard_api::client::install_crypto();
    let dir = tempfile::tempdir().expect("a folder");
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let first = Up::start(&data).await;
    refused(up_command(&data, free_address()), &["in use", "process"]);
    for role in ["server", "fleet", "runner"] {
        let mut command = Command::new(pipectl());
        command.arg(role).arg("--data").arg(data.join(role)).stdin(Stdio::null());
        if role == "runner" {
            command.args(["--server", "http://127.0.0.1:1"]);
        } else {
            command.args(["--listen", &free_address().to_string()]);
        }
        if role == "fleet" {
            command.arg("--proxy-token-file").arg(dir.path().join("other-token"));
        }
        refused(command, &["in use", role]);
    }
    let copied = Command::new("cp").arg("-a").args([&data, &copy]).status();
    assert!(copied.expect("cp").success());
    let before = listing(&copy);
    refused(up_command(&copy, free_address()), &["belongs at", "pipectl admin moved"]);
    let part = |role: &str| {
        let mut command = Command::new(pipectl());
        command.arg(role).stdin(Stdio::null());
        command
    };
    let mut server = part("server");
    server.arg("--data").arg(copy.join("server"));
    let mut fleet = part("fleet");
    fleet.arg("--data").arg(copy.join("fleet"));
    fleet.arg("--proxy-token-file").arg(copy.join("proxy/token"));
    let mut proxy = part("proxy");
    proxy.arg("--token-file").arg(copy.join("proxy/token"));
    proxy.arg("--state-file").arg(copy.join("proxy/routes.json"));
    let mut runner = part("runner");
    runner.args(["--server", "http://127.0.0.1:1", "--data"]).arg(copy.join("runner"));
    let mut code = part("login-code");
    code.arg("--data").arg(copy.join("server"));
    for command in [server, fleet, proxy, runner, code] {
        refused(command, &["belongs at"]);
    }
    assert_eq!(listing(&copy), before, "a refused copy isn't touched");
    assert!(first.serves().await);
    first.end();
}

#[tokio::test]
async fn strangers_with_an_old_id_live_and_taken_ports_are_told_at_once() {
    pipeyard_api::client::install_crypto();
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    Up::start(&data).await.end();
    // Named as a proxy would be, with the id of one.
    let mut stranger = Command::new("sh")
        .args(["-c", "sleep 300 & wait", "proxy"])
        .stdin(Stdio::null())
        .spawn()
        .expect("a stranger");
    for part in ["proxy", "server", "fleet", "runner"] {
        std::fs::write(data.join(format!("{part}.pid")), stranger.id().to_string()).expect("a pid");
    }
    Up::start(&data).await.end();
    assert!(stranger.try_wait().expect("look").is_none(), "the stranger was ended");
    let _ = stranger.kill();
    let _ = stranger.wait();

    // Another's server on our port, which even says that it is ready.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in taken.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 2048]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n");
        }
    });
    refused(up_command(&data, address), &["server can't work", &address.to_string()]);
    // Where nothing can be written.
    refused(up_command(Path::new("/proc/pipeyard"), free_address()), &["/proc/pipeyard"]);
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("a file");
    refused(up_command(&file, free_address()), &["file"]);
}
