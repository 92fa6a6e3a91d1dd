//! Data that an earlier version left, cut off in the middle of everything, is opened and finished by
//! this one. The dumps and how they are made are in `tests/dumps`; they stay for ever.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use pipeyard_tests::{docker, installation::pipectl, until};
use serde_json::Value;

/// The first version whose data are kept readable.
const FIRST: &str = "6eb8cb1.tar.gz";
const SERVER: &str = "http://127.0.0.1:18470";

/// An earlier version's data under this version's `pipectl up`.
struct Opened {
    root: PathBuf,
    up: Child,
    /// A dump lies at one path and has one set of ports: one at a time on a machine.
    _only: fs::File,
}

impl Opened {
    async fn dump(name: &str) -> Self {
        let lock =
            fs::File::create(std::env::temp_dir().join("pipeyard-dump.lock")).expect("a lock");
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
        let only = lock.await.expect("a lock").expect("a lock");
        let dumps = Path::new(env!("CARGO_MANIFEST_DIR")).join("dumps");
        let laid_out = Command::new("python3")
            .arg(dumps.join("open.py"))
            .arg(dumps.join(name))
            .arg(pipectl())
            .output()
            .expect("python3 lays the dump out");
        assert!(laid_out.status.success(), "{}", String::from_utf8_lossy(&laid_out.stderr));
        let root = PathBuf::from(String::from_utf8(laid_out.stdout).expect("a path").trim());
        let log = fs::File::create(root.join("up.log")).expect("a log");
        let up = Command::new(pipectl())
            .args(["up", "--stop-proxy", "--listen", "127.0.0.1:18470", "--data"])
            .arg(root.join("data"))
            .args(["--fleet-listen", "127.0.0.1:18471", "--proxy-admin", "127.0.0.1:18472"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("start up");
        let it = Self { root, up, _only: only };
        until("the upgraded server is ready", Duration::from_secs(60), async || {
            let ready = reqwest::get(format!("{SERVER}/readyz")).await;
            ready.is_ok_and(|r| r.status().is_success()).then_some(())
        })
        .await;
        it
    }

    fn pipectl(&self, args: &[&str]) -> Output {
        Command::new(pipectl())
            .args(args)
            .env("XDG_CONFIG_HOME", self.root.join("home/config"))
            .env("HOME", self.root.join("home"))
            .stdin(Stdio::null())
            .output()
            .expect("start pipectl")
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.pipectl(args);
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pipectl {args:?}: {}: {problem}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        serde_json::from_str(&self.ok(&all)).expect("JSON")
    }

    async fn conclusion(&self, run: u32) -> String {
        until(&format!("run {run} ends"), Duration::from_secs(120), async || {
            let run = self.json(&["runs", "view", &run.to_string()]);
            run["conclusion"].as_str().map(str::to_owned)
        })
        .await
    }

    async fn deployment(&self, id: u32, state: &str) {
        until(&format!("deployment {id} is {state}"), Duration::from_secs(90), async || {
            (self.json(&["deploy", "status", &id.to_string()])["state"] == state).then_some(())
        })
        .await;
    }

    /// What a user of the service at this port reads.
    async fn users_read(&self, port: u16, text: &str) {
        until(
            &format!("users of port {port} read {text:?}"),
            Duration::from_secs(60),
            async || {
                let answer = reqwest::get(format!("http://127.0.0.1:{port}/")).await.ok()?;
                (answer.status() == 200 && answer.text().await.ok()?.contains(text)).then_some(())
            },
        )
        .await;
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.root.join("up.log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
        let _ = Command::new("kill").arg(self.up.id().to_string()).status();
        let _ = self.up.wait();
        let _ = Command::new(pipectl())
            .args(["demo", "--down", "--data"])
            .arg(self.root.join("data"))
            .output();
    }
}

/// What was kept is the same; what was open goes on: a job whose runner died, an approval that
/// waits, a canary between two weights, an incident.
#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_the_first_version_is_opened_and_finished() {
    if !docker("the_data_of_the_first_version_is_opened_and_finished") {
        return;
    }
    pipeyard_api::client::install_crypto();
    let it = Opened::dump(FIRST).await;

    // A token that was made before is still good, and a finished run is whole.
    let log = it.ok(&["logs", "1", "test"]);
    let checked = log.lines().filter(|l| l.contains("checked ")).count();
    assert_eq!(checked, 10, "{log}");
    let artifact = &it.json(&["artifacts", "list", "1"])[0];
    let bundle = it.root.join("bundle.tar.gz");
    let to = bundle.display().to_string();
    let _ = it.ok(&["artifacts", "get", "1", "shop.tar.gz", "--to", &to]);
    assert_eq!(artifact["sha256"], sha256(&fs::read(&bundle).unwrap()));

    // The serving release is brought back to users, and the canary goes on beside it.
    it.users_read(18480, "shop one").await;
    it.deployment(2, "shifting").await;

    // The job whose runner died is tried again; what needs it follows.
    assert_eq!(it.conclusion(4).await, "success");
    let tries = it.json(&["runs", "view", "4"]);
    assert_eq!(
        tries["jobs"][0]["epoch"].as_u64().or(tries["jobs"][0]["attempt"].as_u64()),
        Some(2)
    );

    // The approval that waits is given.
    it.deployment(3, "awaiting_approval").await;
    let _ = it.ok(&["deploy", "approve", "3"]);
    assert_eq!(it.conclusion(3).await, "success");
    it.users_read(18482, "shop three").await;

    // The canary is promoted by a person, to its end.
    let _ = it.ok(&["deploy", "promote", "2"]);
    assert_eq!(it.conclusion(2).await, "success");
    it.users_read(18480, "shop two").await;

    let _ = it.ok(&["incidents", "close", "1"]);

    // And a new push goes the whole way, by the hook that was installed then.
    let work = it.root.join("clone");
    let git = |args: &[&str]| {
        let done = Command::new("git")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let clone = work.display().to_string();
    git(&["clone", "-q", "-b", "main", &it.root.join("shop.git").display().to_string(), &clone]);
    fs::write(work.join("web/index.html"), "shop four\n").unwrap();
    let pipeline = fs::read_to_string(work.join(".pipeyard.yml")).unwrap();
    let plain = pipeline.split(", canary:").next().unwrap().to_owned() + "}\n";
    fs::write(work.join(".pipeyard.yml"), plain).unwrap();
    git(&["-C", &clone, "commit", "-qam", "Ship after the upgrade"]);
    git(&["-C", &clone, "push", "-q", "origin", "main"]);
    until("the push becomes run 5", Duration::from_secs(30), async || {
        it.json(&["runs", "list"]).as_array()?.iter().any(|r| r["id"] == 5).then_some(())
    })
    .await;
    assert_eq!(it.conclusion(5).await, "success");
    it.users_read(18480, "shop four").await;
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}
