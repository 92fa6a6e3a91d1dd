//! Every `$` command of the documents is run, in order, in a folder of its own.
//!
//! A command must end with 0, or with the code that its comment names: `# exits with 2`. Addresses
//! and images that only a user's machine has are replaced by this test's own.

use std::{path::Path, process::Command, time::Duration};

use pipeyard_tests::{Installation, Options, TestRepo, docker, installation::pipectl, until};

/// Lines `$ command` of the document's `console` blocks, with the exit code that each should have.
fn commands(text: &str) -> Vec<(String, i32)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            let (command, code) = match command.split_once("  # exits with ") {
                Some((command, code)) => (command, code.trim().parse().expect("an exit code")),
                None => (command, 0),
            };
            found.push((command.to_owned(), code));
        }
    }
    found
}

/// `ready` makes what a reader has before the first command.
async fn run_document(name: &str, ready: impl FnOnce(&Installation, &Path)) {
    let pipeyard = Installation::start(Options::default()).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tree");
    let text = std::fs::read_to_string(root.join("docs").join(name)).expect("the document");
    let commands = commands(&text);
    assert!(!commands.is_empty(), "{name} has no commands");
    let folder = pipeyard.path("reader");
    std::fs::create_dir_all(&folder).expect("make a folder");
    ready(&pipeyard, &folder);
    let mut script = String::from("set -u\n");
    for (command, code) in &commands {
        let command = command
            .replace("127.0.0.1:8470", &pipeyard.listen.to_string())
            .replace("pipeyard-data/server", &pipeyard.path("server").display().to_string())
            .replace("busybox:1.36", "pipeyard/busybox:test");
        // After a push the reader sees its run before going on.
        let settle = if command.starts_with("git push") { SETTLE } else { "" };
        script.push_str(&format!(
            "echo '$ '{q} >&2\n{command}\nc=$?; [ $c = {code} ] || {{ echo \"ended with $c, not {code}\" >&2; exit 99; }}\n{settle}",
            q = shell_quote(&command)
        ));
    }
    let programs = pipectl();
    let programs = programs.parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(&folder)
        .env("PATH", format!("{programs}:{path}"))
        .env("HOME", pipeyard.dir.path())
        .env("XDG_CONFIG_HOME", pipeyard.path("config"))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.com")
        .output()
        .expect("start bash");
    assert!(
        output.status.success(),
        "{name} doesn't hold:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A reader of the how-tos has a repository `shop`, and two keys in files.
fn has_shop(pipeyard: &Installation, folder: &Path) {
    let shop = TestRepo::new(folder, "shop");
    shop.write("README.md", "The shop.\n");
    let _ = shop.commit("Open the shop");
    let _ = shop.push("main");
    pipeyard.add_repo(&shop.bare);
    for key in ["deploy-key", "signing-key"] {
        std::fs::write(folder.join(key), "a-long-enough-key").expect("write a key");
    }
}

const SETTLE: &str = "sha=$(git rev-parse HEAD); for i in $(seq 100); do \
pipectl runs list -o json --query \"[?commit=='$sha'].id\" | grep -q '[0-9]' && break; sleep 0.1; done\n";

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_holds() {
    if docker("the_tutorial_holds") {
        run_document("tutorial.md", |_, _| {}).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_how_tos_hold() {
    if docker("the_how_tos_hold") {
        run_document("how-to/add-a-runner.md", has_shop).await;
        run_document("how-to/use-a-secret.md", has_shop).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn up_brings_everything_and_leaves_with_its_parent() {
    if !docker("up_brings_everything_and_leaves_with_its_parent") {
        return;
    }
    pipeyard_api::client::install_crypto();
    let dir = tempfile::tempdir().expect("a folder");
    let addresses: Vec<_> =
        (0..3).map(|_| pipeyard_tests::installation::free_address().to_string()).collect();
    let mut up = Command::new(pipectl())
        .args(["up", "--stop-proxy", "--data"])
        .arg(dir.path().join("data"))
        .args([
            "--listen",
            &addresses[0],
            "--fleet-listen",
            &addresses[1],
            "--proxy-admin",
            &addresses[2],
        ])
        .stderr(std::fs::File::create(dir.path().join("log")).expect("a log"))
        .spawn()
        .expect("start up");
    let ready = format!("http://{}/readyz", addresses[0]);
    let answers =
        async || reqwest::get(&ready).await.ok().filter(|r| r.status().is_success()).map(|_| ());
    until("up's server is ready", Duration::from_secs(30), answers).await;
    until("the fleet made its credentials", Duration::from_secs(30), async || {
        dir.path().join("data/fleet/credentials.json").is_file().then_some(())
    })
    .await;
    let log = std::fs::read_to_string(dir.path().join("log")).expect("the log");
    assert!(log.contains("/login#code="), "the first login isn't shown: {log}");
    // Killed without a chance to say anything: its parts notice and end.
    up.kill().expect("kill up");
    up.wait().expect("wait for up");
    until("the server ends with its parent", Duration::from_secs(30), async || {
        reqwest::get(&ready).await.is_err().then_some(())
    })
    .await;
    let pid = std::fs::read_to_string(dir.path().join("data/proxy.pid"));
    if let Some(pid) = pid.ok().and_then(|p| p.trim().parse::<u32>().ok()) {
        let _ = Command::new("kill").arg(pid.to_string()).status();
    }
}
