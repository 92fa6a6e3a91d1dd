//! A backup under load, restored beside the original.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use pipeyard_tests::{
    Installation, Options, TestRepo,
    installation::{free_address, pipectl},
    until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn push(repo: &TestRepo, n: usize) -> String {
    let sha = repo.commit(&format!("Change {n}"));
    repo.push("main");
    sha
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_comes_back_whole_beside_the_original() {
    let pipeyard =
        Installation::start(Options { executor: "local", slots: 3, ..Options::default() }).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    repo.write(
        ".pipeyard.yml",
        "jobs:\n  work:\n    image: none\n    artifacts: out.txt\n    run: |\n      for i in $(seq 1 300); do echo line $i of $PIPEYARD_COMMIT; done\n      echo $PIPEYARD_COMMIT > out.txt\n",
    );
    let first: Vec<_> = (0..3).map(|n| push(&repo, n)).collect();
    for sha in &first {
        pipeyard.finished_run(sha, SOON).await;
    }
    let log = |run: &Value| pipeyard.pipectl_ok(&["logs", &run.to_string(), "work"]);
    // Three more are on their way while the backup is made.
    let later: Vec<_> = (3..6).map(|n| push(&repo, n)).collect();
    let (data, backup) = (pipeyard.path("server"), pipeyard.path("backup.tar"));
    let [data_text, backup_text] = [&data, &backup].map(|path| path.display().to_string());
    let made = pipeyard.pipectl_ok(&["admin", "backup", &backup_text, "--data", &data_text]);
    assert!(made.contains("keep it like a password"), "{made}");
    for sha in &later {
        assert_eq!(pipeyard.finished_run(sha, SOON).await["conclusion"], "success");
    }

    let restored = pipeyard.path("restored");
    let to = restored.display().to_string();
    let told = pipeyard.pipectl_ok(&["admin", "restore", &backup_text, "--to", &to]);
    assert!(told.contains("Not in a backup"), "{told}");
    let again = pipeyard.pipectl(&["admin", "restore", &backup_text, "--to", &to]);
    assert_eq!(again.status.code(), Some(2), "a folder that is in use is left alone");

    let listen = free_address();
    let server = Command::new(pipectl())
        .args(["server", "--listen", &listen.to_string(), "--data"])
        .arg(restored.join("server"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(pipeyard.path("restored.log")).expect("a log"))
        .spawn()
        .expect("start the restored server");
    let _server = Ended(server);
    let url = format!("http://{listen}");
    until("the restored server is ready", SOON, async || {
        let ready = reqwest::get(format!("{url}/readyz")).await;
        ready.is_ok_and(|r| r.status().is_success()).then_some(())
    })
    .await;
    let data = restored.join("server").display().to_string();
    let code = pipeyard.pipectl_ok(&["login-code", "--data", &data]);
    let _ = pipeyard.pipectl_ok(&["login", &url, "--code", code.trim(), "--profile", "restored"]);
    let there = |args: &[&str]| pipeyard.pipectl_ok(&[args, &["--profile", "restored"]].concat());
    let runs: Value =
        serde_json::from_str(&there(&["runs", "list", "--output", "json"])).expect("JSON");
    let runs = runs.as_array().expect("a list");
    for sha in &first {
        let run = runs.iter().find(|run| run["commit"] == *sha).expect("the run was kept");
        assert_eq!(run["conclusion"], "success");
        assert_eq!(there(&["logs", &run["id"].to_string(), "work"]), log(&run["id"]));
        let to = pipeyard.path(&format!("out-{sha}"));
        let to = to.display().to_string();
        let _ = there(&["artifacts", "get", &run["id"].to_string(), "out.txt", "--to", &to]);
        assert_eq!(fs::read_to_string(&to).expect("the artifact").trim(), sha);
    }
    // The original goes on untouched.
    let sha = push(&repo, 7);
    assert_eq!(pipeyard.finished_run(&sha, SOON).await["conclusion"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_changed_is_refused_before_anything_is_made() {
    let pipeyard = Installation::server_only(Options::default()).await;
    let (data, backup) = (pipeyard.path("server"), pipeyard.path("backup"));
    let key = pipeyard.path("kept-key").display().to_string();
    let [data, backup_text] = [&data, &backup].map(|path| path.display().to_string());
    let args = ["admin", "backup", &backup_text, "--data", &data];
    let made = pipeyard.pipectl_ok(&[&args[..], &["--key-to", &key]].concat());
    assert!(made.contains(&key), "{made}");
    let to = pipeyard.path("restored").display().to_string();
    let restore = |more: &[&str]| {
        let output = pipeyard
            .pipectl(&[&["admin", "restore", &backup_text, "--to", &to][..], more].concat());
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = restore(&[]);
    assert!(!done && said.contains("--key"), "{said}");
    let wrong = pipeyard.path("runner-token").display().to_string();
    let (done, said) = restore(&["--key", &wrong]);
    assert!(!done && said.contains("isn't the key"), "{said}");
    let database = backup.join("server/pipeyard.sqlite");
    let whole = fs::read(&database).expect("the copy");
    let mut bad = whole.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&database, bad).expect("spoil it");
    let (done, said) = restore(&["--key", &key]);
    assert!(!done && said.contains("pipeyard.sqlite"), "{said}");
    let beside: Vec<_> = fs::read_dir(pipeyard.dir.path())
        .expect("the folder")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.starts_with("restored"))
        .collect();
    assert!(beside.is_empty(), "{beside:?}");
    fs::write(&database, whole).expect("mend it");
    assert!(restore(&["--key", &key]).0);
}
