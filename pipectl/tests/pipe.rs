//! What `pipectl` does where nobody watches: through pipes, against a real server of its own.
//! Data is on standard output and nothing else is, there is no colour, and the exit code tells the
//! outcome.

#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The shortest pipeline. No runner will take it.
const PIPELINE: &str = "jobs:\n  test:\n    image: busybox\n    run: make test\n";

/// A server of its own, and a profile that is signed in.
struct Yard {
    folder: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

/// What a command did.
struct Done {
    exit: i32,
    out: String,
    err: String,
}

fn pipectl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipectl"));
    for name in
        ["PIPEYARD_TOKEN", "PIPEYARD_SERVER", "PIPEYARD_PROFILE", "PIPEYARD_OUTPUT", "NO_COLOR"]
    {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color").stdin(Stdio::null());
    command
}

/// Runs to the end, with `input` on standard input.
fn run(mut command: Command, input: &str) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that doesn't read is not a failure.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Done {
        exit: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} didn't happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Yard {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut yard = Self { folder, port: free_port(), server: None };
        yard.serve();
        let code = until("the first login", || {
            let text = std::fs::read_to_string(yard.path("server.out")).ok()?;
            Some(text.split_once("code=")?.1.lines().next()?.to_owned())
        });
        let login = yard.run(&["login", &yard.url(), "--code", &code]);
        assert_eq!((login.exit, login.out.as_str()), (0, ""), "{}", login.err);
        yard
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the server and waits until it answers.
    fn serve(&mut self) {
        let server = pipectl()
            .args(["server", "--listen", &format!("127.0.0.1:{}", self.port), "--data"])
            .arg(self.path("data"))
            .env("PIPEYARD_LOG", "warn")
            .stdout(File::create(self.path("server.out")).unwrap())
            .stderr(File::create(self.path("server.err")).unwrap())
            .spawn()
            .unwrap();
        self.server = Some(server);
        let path = self.path("server.out");
        until("the server's start", || {
            std::fs::read_to_string(&path).ok()?.contains("listens on").then_some(())
        });
    }

    fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = pipectl();
        command
            .args(args)
            .env("PIPEYARD_PROFILES", self.path("profiles.toml"))
            .current_dir(self.folder.path());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        run(self.command(args), "")
    }

    /// A repository with one commit, known to the server, and one run.
    fn push(&self) {
        let git = |args: &[&str], folder: &Path| {
            let done = Command::new("git")
                .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
                .args(args)
                .current_dir(folder)
                .output()
                .unwrap();
            assert!(
                done.status.success(),
                "git {args:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        };
        let (work, root) = (self.path("work"), self.folder.path());
        git(&["init", "-q", "-b", "main", "work"], root);
        std::fs::write(work.join(".pipeyard.yml"), PIPELINE).unwrap();
        git(&["add", "."], &work);
        // A stranger's title that would paint and take over the terminal.
        git(&["commit", "-q", "-m", "First \u{1b}[31mred\u{1b}]52;c;eA==\u{7}"], &work);
        git(&["clone", "-q", "--bare", "work", "shop.git"], root);
        let added = self.run(&["repos", "add", "shop.git"]);
        assert_eq!(added.exit, 0, "{}", added.err);
        let started = self.run(&["runs", "start", "shop", "-o", "json", "--query", "id"]);
        assert_eq!((started.exit, started.out.trim()), (0, "1"), "{}", started.err);
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

#[test]
fn results_are_data_on_standard_output_in_every_format() {
    let yard = Yard::start();
    let empty = yard.run(&["runs", "list"]);
    assert_eq!(empty.out, "RUN  STATE  REPO  BRANCH  COMMIT  AGE  TOOK  TITLE\n");
    assert!(empty.err.contains("pipectl runs start REPO"), "{}", empty.err);
    assert_eq!(yard.run(&["runs", "list", "-o", "json"]).out, "[]\n");
    assert_eq!(yard.run(&["runs", "list", "-o", "jsonl"]).out, "");

    yard.push();
    let table = yard.run(&["runs", "list"]);
    assert_eq!((table.out.lines().count(), table.err.as_str()), (2, ""));
    assert!(
        table.out.lines().nth(1).unwrap().starts_with("1    queued  shop  main    "),
        "{}",
        table.out
    );
    for format in ["table", "text"] {
        let text = yard.run(&["runs", "list", "-o", format]).out;
        assert!(text.contains("First "), "{text:?}");
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&yard.run(&["runs", "list", "-o", "json"]).out).unwrap();
    assert_eq!((&json[0]["kind"], &json[0]["id"]), (&"run".into(), &1.into()));
    // One query, one answer, whatever the format.
    for (format, expected) in
        [("json", "[\n  1\n]\n"), ("text", "1\n"), ("jsonl", "1\n"), ("yaml", "- 1\n")]
    {
        let done = yard.run(&["runs", "list", "--query", "[?repo=='shop'].id", "-o", format]);
        assert_eq!((done.out.as_str(), done.exit), (expected, 0), "{format}");
    }
    let bad = yard.run(&["runs", "list", "--query", "[?"]);
    assert_eq!((bad.exit, bad.out.as_str()), (2, ""));
    assert!(bad.err.contains("--query"), "{}", bad.err);
    until("a waiting job names its cause", || {
        let view = yard.run(&["runs", "view", "latest"]);
        view.out.contains("no runner is registered").then_some(())
    });
}

#[test]
fn the_exit_code_tells_what_happened() {
    let yard = Yard::start();
    yard.push();
    for (args, exit, says) in [
        (&["runs", "view", "99"][..], 5, "error[not_found]: there is no run 99"),
        (&["runs", "view", "newest"], 2, "\"newest\" is no run"),
        (&["runs", "lst"], 2, "a similar subcommand exists: 'list'"),
        (&["runs", "approve", "1"], 1, "run_not_held"),
        (
            &["--server", "http://127.0.0.1:1", "runs", "list"],
            6,
            "failed to reach http://127.0.0.1:1",
        ),
        (&["--server", "http://ci.example.com", "runs", "list"], 2, "clear text"),
        (&["--profile", "nowhere", "runs", "list"], 4, "there is no profile \"nowhere\""),
        (&["runs", "watch", "1", "--timeout", "1s"], 7, "pipectl runs watch 1"),
        (&["explain", "P999"], 5, "P999"),
    ] {
        let done = yard.run(args);
        assert_eq!(done.exit, exit, "{args:?}: {}{}", done.out, done.err);
        assert!(done.err.contains(says), "{args:?}: {}", done.err);
        assert!(!done.err.contains('\u{1b}'), "{args:?}: {:?}", done.err);
    }
    assert_eq!(yard.run(&["runs", "cancel", "1"]).exit, 0);
    assert_eq!(yard.run(&["runs", "cancel", "1"]).exit, 1);
    let watch = yard.run(&["runs", "watch", "1"]);
    assert_eq!(watch.exit, 3, "cancelled: {}{}", watch.out, watch.err);
    assert!(watch.out.lines().last().unwrap().starts_with("run 1 cancelled"), "{}", watch.out);
    // A token of one server goes to no other, and a revoked one is worth nothing.
    assert_eq!(yard.run(&["logout"]).exit, 0);
    let after = yard.run(&["runs", "list"]);
    assert_eq!((after.exit, after.out.as_str()), (4, ""));
    assert!(after.err.contains("hint: pipectl login"), "{}", after.err);
}

#[test]
fn secrets_go_in_by_standard_input_and_never_come_out() {
    let yard = Yard::start();
    let set = run(
        yard.command(&["secrets", "set", "TOKEN", "--all-repos", "--stdin"]),
        "correct horse\n",
    );
    assert_eq!(
        (set.exit, set.out.as_str(), set.err.as_str()),
        (0, "", "TOKEN is set for all repositories: every branch\n")
    );
    let unsaid = run(yard.command(&["secrets", "set", "OPEN", "--stdin"]), "correct horse\n");
    assert!(unsaid.exit == 2 && unsaid.err.contains("--all-repos"), "{}", unsaid.err);
    let short = run(yard.command(&["secrets", "set", "SHORT", "--all-repos"]), "1234567\n");
    assert_eq!(short.exit, 2);
    assert!(short.err.starts_with("error[secret_too_short]"), "{}", short.err);
    let list = yard.run(&["secrets", "list", "-o", "text"]);
    assert!(list.out.starts_with("TOKEN\t(all)\t"), "{}", list.out);
    for args in [&["secrets", "list", "-o", "json"][..], &["audit", "-o", "json"]] {
        let done = yard.run(args);
        assert!(done.exit == 0 && !done.out.contains("correct horse"), "{args:?}");
    }
    let audit = yard.run(&["audit", "--query", "[0].[actor,action,target]", "-o", "text"]);
    assert_eq!(audit.out, "admin\nsecret.set\nTOKEN\n");
    assert_eq!(yard.run(&["secrets", "rm", "TOKEN", "--all-repos"]).exit, 0);
    assert_eq!(yard.run(&["secrets", "rm", "TOKEN", "--all-repos"]).exit, 5);
    // The profile holds a token: nobody else may read it.
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(yard.path("profiles.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn lint_points_at_the_mistake_and_needs_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".pipeyard.yml");
    std::fs::write(&file, PIPELINE.replace("image", "imgae")).unwrap();
    let lint = |args: &[&str]| {
        let mut command = pipectl();
        command.arg("lint").args(args).current_dir(folder.path()).env("HOME", folder.path());
        run(command, "")
    };
    let bad = lint(&[]);
    assert_eq!(bad.exit, 2, "{}{}", bad.out, bad.err);
    assert!(bad.out.contains(".pipeyard.yml:3:5"), "{}", bad.out);
    assert!(bad.out.contains("image"), "the key that was meant: {}", bad.out);
    assert!(!bad.out.contains('\u{1b}'), "{:?}", bad.out);
    std::fs::write(&file, PIPELINE).unwrap();
    assert_eq!(lint(&[]).exit, 0);
}

#[test]
fn a_watch_survives_a_killed_server() {
    let mut yard = Yard::start();
    yard.push();
    let mut watch = yard.command(&["runs", "watch", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("test") && first.contains("queued"), "{first}");
    yard.kill();
    // Longer than the client's own quick tries.
    std::thread::sleep(Duration::from_secs(4));
    assert!(watch.try_wait().unwrap().is_none(), "it goes on while the server is away");
    yard.serve();
    assert_eq!(yard.run(&["runs", "cancel", "1"]).exit, 0);
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(rest.last().unwrap().starts_with("run 1 cancelled"), "{rest:?}");
    assert_eq!(watch.wait().unwrap().code(), Some(3));
}

#[test]
fn doctor_says_what_is_missing_and_how_to_mend_it() {
    let yard = Yard::start();
    std::fs::write(yard.path(".pipeyard.yml"), "jobs:\n  test:\n    image: busybox\n").unwrap();
    let done = yard.run(&["doctor", "--output", "json"]);
    assert_eq!(done.exit, 1, "no runner is there, and the pipeline doesn't compile: {}", done.out);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&done.out).unwrap();
    let check = |name: &str| checks.iter().find(|check| check["check"] == name).unwrap();
    for good in ["git", "profile", "server", "clock", "login", "version", "queue"] {
        assert_eq!(check(good)["result"], "ok", "{:#}", check(good));
    }
    for (bad, result, fix) in [
        ("runners", "failed", "pipectl runners token"),
        ("repos", "warning", "pipectl repos add"),
        ("pipeline", "failed", "pipectl lint"),
    ] {
        assert_eq!(check(bad)["result"], result, "{:#}", check(bad));
        assert!(check(bad)["fix"].as_str().unwrap().contains(fix), "{:#}", check(bad));
    }
    // Without a server the rest is still checked.
    let alone = yard.run(&["--server", "http://127.0.0.1:1", "doctor", "-o", "text"]);
    assert_eq!(alone.exit, 1);
    assert!(alone.out.contains("server\tfailed\tfailed to reach"), "{}", alone.out);
    assert!(alone.out.contains("pipeline\tfailed"), "{}", alone.out);
}

#[test]
fn a_watch_by_a_program_is_a_stream_of_documents() {
    let yard = Yard::start();
    yard.push();
    let done = yard.run(&["runs", "watch", "1", "--timeout", "1s", "-o", "jsonl"]);
    assert_eq!(done.exit, 7, "{}", done.err);
    let first = done.out.lines().next().unwrap();
    let job: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!(job["name"], "test");
}

#[test]
fn up_says_once_where_it_is_and_what_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let port = || format!("127.0.0.1:{}", free_port());
    let listen = port();
    let log = folder.path().join("up.err");
    let mut up = pipectl()
        .args(["up", "--executor", "local", "--stop-proxy", "--listen", &listen])
        .args(["--fleet-listen", &port(), "--proxy-admin", &port(), "--data"])
        .arg(folder.path().join("data"))
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let told = || std::fs::read_to_string(&log).unwrap();
    let ready = format!("Pipeyard is ready: http://{listen}\n");
    until("everything is ready", || told().contains(&ready).then_some(()));
    until("the runner takes jobs", || told().contains("the runner takes jobs").then_some(()));
    let all = told();
    Command::new("kill").arg(up.id().to_string()).status().unwrap();
    assert!(up.wait().unwrap().success());
    assert_eq!(all.matches("Pipeyard is ready").count(), 1, "{all}");
    assert!(all.contains("pipectl repos add"), "{all}");
    assert!(!all.contains("WARN"), "nothing is wrong, so nothing complains: {all}");
}

#[test]
fn every_code_is_explained_without_a_server() {
    let list = run(
        {
            let mut command = pipectl();
            command.args(["explain", "-o", "text"]);
            command
        },
        "",
    );
    assert_eq!(list.exit, 0, "{}", list.err);
    for code in ["P204", "image_not_found", "report_missing"] {
        assert!(list.out.lines().any(|line| line.starts_with(code)), "{code}: {}", list.out);
    }
}

/// A proxy in the environment is for the network: what listens on this machine is asked directly.
#[test]
fn a_server_on_this_machine_is_never_asked_through_a_proxy() {
    let yard = Yard::start();
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let mut command = yard.command(&["runs", "list", "--output", "json"]);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"] {
        command.env(name, &address);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    let done = run(command, "");
    assert_eq!((done.exit, done.out.trim()), (0, "[]"), "{}", done.err);
    let asked = proxy.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(asked, Err(std::io::ErrorKind::WouldBlock), "the proxy was asked");
}
