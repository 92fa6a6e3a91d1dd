//! The small program of Git's hook does what `pipectl hook` does, in every case: the same message to
//! the server, the same words for who pushes, and never a push that fails.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use pipeyard_tests::{
    Installation, Options, TestRepo,
    installation::{free_address, pipectl},
};
use serde_json::Value;
use sha2::Sha256;

const LINES: &str = "0000 1111 refs/heads/main\n2222 3333 refs/heads/an \"odd\" \\ name 한\n";

/// The program as `repos add --install-hook` puts it beside a hook.
struct Installed {
    _dir: tempfile::TempDir,
    program: PathBuf,
    file: PathBuf,
}

impl Installed {
    async fn new() -> (Installation, TestRepo, Self) {
        let options = Options { executor: "local", ..Options::default() };
        let pipeyard = Installation::server_only(options).await;
        let repo = TestRepo::new(pipeyard.dir.path(), "shop");
        pipeyard.add_repo(&repo.bare);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("pipeyard-hook.toml");
        let program = repo.bare.join("hooks/pipeyard-hook");
        (pipeyard, repo, Self { _dir: dir, program, file })
    }

    /// What both say to who pushes, and whether both end well.
    fn both(&self, content: Option<&str>, lines: &str) -> [String; 2] {
        match content {
            Some(content) => fs::write(&self.file, content).expect("write the hook's file"),
            None => drop(fs::remove_file(&self.file)),
        }
        let mut slim = Command::new(&self.program);
        slim.arg("--file").arg(&self.file).arg("--pipectl").arg(pipectl());
        let mut full = Command::new(pipectl());
        full.arg("hook").arg("--file").arg(&self.file);
        // At the same time: some of them wait for two seconds.
        thread::scope(|scope| {
            [slim, full]
                .map(|c| scope.spawn(move || run(c, lines)))
                .map(|t| t.join().expect("ends"))
        })
    }
}

fn run(mut command: Command, lines: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a hook");
    let _ = child.stdin.take().expect("its input").write_all(lines.as_bytes());
    let output = child.wait_with_output().expect("wait for a hook");
    assert!(output.status.success(), "a hook never fails a push: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that gives every request the same answer; `None` holds the connection without a word.
fn server(answer: Option<&'static str>) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.expect("a connection"), seen.clone());
            thread::spawn(move || {
                let request = whole_request(&mut stream);
                let _ = seen.send(request);
                match answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes())),
                    None => thread::sleep(Duration::from_secs(10)),
                }
            });
        }
    });
    (address, requests)
}

fn whole_request(stream: &mut std::net::TcpStream) -> String {
    let mut text = Vec::new();
    let mut block = [0; 1024];
    loop {
        let read = stream.read(&mut block).expect("a request");
        text.extend_from_slice(&block[..read]);
        let so_far = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = so_far.split_once("\r\n\r\n") else { continue };
        if read == 0 || body.len() >= header(head, "content-length").parse().expect("a length") {
            return so_far;
        }
    }
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let found = head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name);
    found.map_or("", |(_, value)| value)
}

/// The path, whether the signature is good, and the updates.
fn read(request: &str) -> (String, bool, Value) {
    let (head, body) = request.split_once("\r\n\r\n").expect("a body");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"sesame").expect("a key");
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let body: Value = serde_json::from_str(body).expect("JSON");
    let delivery: uuid::Uuid =
        body["delivery"].as_str().expect("a delivery").parse().expect("a UUID");
    assert_eq!(delivery.get_version_num(), 7);
    assert_eq!(header(head, "content-type"), "application/json");
    (
        head.lines().next().expect("a line").to_owned(),
        header(head, "x-pipeyard-signature-256") == signature,
        body["updates"].clone(),
    )
}

fn to(address: &str) -> String {
    format!("url = \"http://{address}/hooks/git/a\"\nsecret = \"sesame\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_small_hook_says_and_sends_what_pipectl_hook_does() {
    let (_pipeyard, _repo, hook) = Installed::new().await;
    let (good, requests) = server(Some("HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}"));
    let [slim, full] = hook.both(Some(&to(&good.to_string())), LINES);
    assert_eq!([slim.as_str(), full.as_str()], ["", ""]);
    let sent: Vec<_> = requests.iter().take(2).map(|request| read(&request)).collect();
    assert_eq!(sent[0], sent[1]);
    assert_eq!(sent[0].0, "POST /hooks/git/a HTTP/1.1");
    assert!(sent[0].1, "the signature is good");
    assert_eq!(sent[0].2[1]["ref"], "refs/heads/an \"odd\" \\ name 한");

    let refusal = "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n\r\n\
        {\"error\":{\"code\":\"no_hook\",\"message\":\"there is no hook \\\"a\\\"\",\"hint\":\"add it\"}}  ";
    let cases = [
        ("a refusal in words", to(&server(Some(refusal)).0.to_string())),
        (
            "a refusal without",
            to(&server(Some(
                "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops",
            ))
            .0
            .to_string()),
        ),
        (
            "a redirect",
            to(&server(Some(
                "HTTP/1.1 302 Found\r\nlocation: https://a:b@elsewhere/\r\ncontent-length: 0\r\n\r\n",
            ))
            .0
            .to_string()),
        ),
        (
            "not signed in",
            to(&server(Some("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"))
                .0
                .to_string()),
        ),
        ("nobody there", to(&free_address().to_string())),
        ("no answer", to(&server(None).0.to_string())),
        ("closed at once", to(&server(Some("")).0.to_string())),
        ("a name for loopback", to(&format!("localhost:{}", free_address().port()))),
        ("clear text beyond loopback", to("ci.example.com")),
        ("another scheme", "url = \"ftp://x/hooks/git/a\"\nsecret = \"s\"\n".to_owned()),
        ("an unknown key", format!("{}more = \"m\"\n", to("127.0.0.1:1"))),
        ("half a file", "url = \"http://127.0.0.1:1/hooks/git/a\"\n".to_owned()),
        ("no TOML", "what\n".to_owned()),
        (
            "an escaped secret",
            format!("url = \"http://{}/hooks/git/a\"\nsecret = \"a\\\"b\"\n", free_address()),
        ),
    ];
    for (case, content) in &cases {
        let [slim, full] = hook.both(Some(content), LINES);
        assert_eq!(slim, full, "{case}");
        assert!(slim.starts_with("pipeyard: "), "{case}: {slim:?}");
        assert!(slim.ends_with("it will find this push by itself\n"), "{case}: {slim:?}");
    }
    let [slim, full] = hook.both(None, LINES);
    assert_eq!(slim, full);
    assert!(slim.contains("failed to read"), "{slim}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_works_with_its_program_without_it_and_as_older_versions_wrote_it() {
    let (pipeyard, repo, hook) = Installed::new().await;
    let script = repo.bare.join("hooks/post-receive");
    let text = fs::read_to_string(&script).expect("the hook");
    assert!(text.contains("/pipeyard-hook' --file "), "{text}");
    let size = fs::metadata(&hook.program).expect("its program").len();
    assert!(size < 2 * 1024 * 1024, "the program has {size} bytes");
    assert!(!is_open(&repo.bare.join("pipeyard-hook.toml")), "the secret is its owner's alone");

    let seen = async |what: &str| {
        repo.write("what", what);
        repo.write(".pipeyard.yml", "jobs:\n  a:\n    image: none\n    run: 'true'\n");
        let sha = repo.commit(what);
        assert_eq!(repo.push("main"), "", "a hook that is heard says nothing");
        pipeyard_tests::until(what, Duration::from_secs(10), async || {
            let runs = pipeyard.json(&["runs", "list"]);
            runs.as_array()?.iter().any(|run| run["commit"] == *sha).then_some(())
        })
        .await;
    };
    seen("with its program").await;
    // A program that can't be run: pipectl does its work, and hears the same lines.
    fs::set_permissions(&hook.program, fs::Permissions::from_mode(0o644)).expect("take it away");
    seen("without its program").await;
    let (file, pipectl) = (repo.bare.join("pipeyard-hook.toml"), pipectl());
    let old = format!(
        "#!/bin/sh\n# pipeyard: tells the server about pushes\nexec '{}' hook --file '{}'\n",
        pipectl.display(),
        file.display()
    );
    fs::write(&script, old).expect("write the older hook");
    seen("as older versions wrote it").await;
}

fn is_open(path: &Path) -> bool {
    fs::metadata(path).expect("a file").permissions().mode() & 0o077 != 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_whose_hook_cant_be_installed_isnt_added() {
    let options = Options { executor: "local", ..Options::default() };
    let pipeyard = Installation::server_only(options).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    fs::write(repo.bare.join("hooks/post-receive"), "#!/bin/sh\necho mine\n").expect("a hook");
    let bare = repo.bare.display().to_string();
    let refused = pipeyard.pipectl(&["repos", "add", &bare, "--install-hook"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("exists already") && said.contains("add this line"), "{said}");
    assert_eq!(pipeyard.json(&["repos", "list"]), serde_json::json!([]));
}
