//! Webhooks and pushes as strangers, broken networks and hasty people send them. What isn't good
//! leaves nothing, and what comes after it still works.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use pipeyard_tests::{Installation, Options, TestRepo, until};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const SOON: Duration = Duration::from_secs(90);
const ZERO: &str = "0000000000000000000000000000000000000000";
const PIPELINE: &str =
    "when:\n  push: [main, release]\njobs:\n  a:\n    image: none\n    run: 'true'\n";
/// The largest body that a webhook may have, and one byte more.
const TOO_LARGE: usize = 25 * 1024 * 1024 + 1;

/// A repository's webhook as its sender sees it.
struct Hook {
    url: String,
    secret: String,
    github: bool,
}

impl Hook {
    fn add(pipeyard: &Installation, repo: &TestRepo, github: bool) -> Self {
        let bare = repo.bare.display().to_string();
        let forge = if github { "github" } else { "git" };
        let added = pipeyard.json(&["repos", "add", &bare, "--forge", forge]);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let path = text(&added["repo"]["hook_path"]);
        let secret = text(&added["hook_secret"]);
        Self { url: format!("{}{path}", pipeyard.url()), secret, github }
    }

    fn push(&self, old: &str, new: &str) -> Value {
        let name = "refs/heads/main";
        if self.github {
            json!({ "ref": name, "before": old, "after": new, "repository": { "id": 7 } })
        } else {
            json!({ "updates": [{ "ref": name, "old": old, "new": new }] })
        }
    }

    /// Sends a body with this signature; answers status and JSON.
    async fn send(&self, delivery: &str, signature: Option<String>, body: &str) -> (u16, Value) {
        let mut request = reqwest::Client::new()
            .post(&self.url)
            .header("content-type", "application/json")
            .header("x-github-event", "push")
            .header("x-github-delivery", delivery)
            .body(body.to_owned());
        if let Some(signature) = signature {
            let name = if self.github { "x-hub-signature-256" } else { "x-pipeyard-signature-256" };
            request = request.header(name, signature);
        }
        let answer = request.send().await.expect("the server answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("the answer is JSON"))
    }

    async fn signed(&self, delivery: &str, body: &str) -> (u16, Value) {
        self.send(delivery, Some(sign(&self.secret, body)), body).await
    }
}

fn sign(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(body.as_bytes());
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn commits(pipeyard: &Installation) -> Vec<(String, String)> {
    let runs = pipeyard.json(&["runs", "list", "--limit", "100"]);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut runs: Vec<_> = runs
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| (r["id"].as_u64(), text(&r["branch"]), text(&r["commit"])))
        .collect();
    runs.sort();
    runs.into_iter().map(|(_, branch, commit)| (branch, commit)).collect()
}

async fn run_of(pipeyard: &Installation, commit: &str) {
    until(&format!("{commit} has a run"), SOON, async || {
        commits(pipeyard).iter().any(|(_, c)| c == commit).then_some(())
    })
    .await;
}

/// Sends a head that promises too much, and then nothing.
async fn promise(pipeyard: &Installation, hook: &Hook) -> String {
    let path = hook.url.strip_prefix(&pipeyard.url()).expect("a path");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: pipeyard\r\ncontent-type: application/json\r\ncontent-length: {TOO_LARGE}\r\n\r\n{{"
    );
    let mut stream = TcpStream::connect(pipeyard.listen).await.expect("connect");
    stream.write_all(head.as_bytes()).await.expect("send the head");
    let mut answer = vec![0; 4096];
    let length = tokio::time::timeout(SOON, stream.read(&mut answer))
        .await
        .expect("an answer without the body")
        .expect("read the answer");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Sends pieces without saying how many, until the server has had enough; answers the bytes sent.
async fn endless(pipeyard: &Installation, hook: &Hook) -> usize {
    let path = hook.url.strip_prefix(&pipeyard.url()).expect("a path");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: pipeyard\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let mut stream = TcpStream::connect(pipeyard.listen).await.expect("connect");
    stream.write_all(head.as_bytes()).await.expect("send the head");
    let mut piece = b"100000\r\n".to_vec();
    piece.resize(piece.len() + (1 << 20), b' ');
    piece.extend_from_slice(b"\r\n");
    let mut sent = 0;
    while sent < 20 * TOO_LARGE {
        match tokio::time::timeout(SOON, stream.write_all(&piece)).await {
            Ok(Ok(())) => sent += 1 << 20,
            Ok(Err(_)) => break,
            Err(_) => panic!("the server neither reads nor refuses after {sent} bytes"),
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_not_good_leaves_nothing_and_the_next_good_one_runs() {
    let pipeyard = Installation::server_only(Options::default()).await;
    for github in [false, true] {
        let repo = TestRepo::new(pipeyard.dir.path(), if github { "hub" } else { "plain" });
        let known = repo.push_pipeline(PIPELINE);
        let hook = Hook::add(&pipeyard, &repo, github);
        let before = commits(&pipeyard);
        let body = hook.push(ZERO, &known).to_string();
        let good = sign(&hook.secret, &body);
        for (case, signature) in [
            ("unsigned", None),
            ("forged with another secret", Some(sign("guess", &body))),
            ("signed for another body", Some(sign(&hook.secret, &body.replace(':', ": ")))),
            ("cut short", Some(good[..50].to_owned())),
            ("no signature at all", Some("let me in".to_owned())),
        ] {
            let (status, answer) = hook.send("forged", signature, &body).await;
            let code = answer["error"]["code"].as_str();
            assert_eq!((status, code), (401, Some("signature_refused")), "{case}: {answer}");
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains("signature"), "{case}: {answer}");
        }
        for text in ["", "{", "[]", "null", "{\"updates\": {}, \"ref\": 1}", "\u{feff}{}"] {
            let (status, answer) = hook.signed("malformed", text).await;
            let code = answer["error"]["code"].as_str();
            assert_eq!((status, code), (400, Some("payload_invalid")), "{text:?}: {answer}");
        }
        let answer = promise(&pipeyard, &hook).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("body_too_large"), "{answer}");
        let sent = endless(&pipeyard, &hook).await;
        assert!(sent < 4 * TOO_LARGE, "the server read on after its limit: {sent} bytes");
        assert_eq!(commits(&pipeyard), before, "nothing of it made a run");

        let sha = repo.commit("A good one");
        repo.push("main");
        let body = hook.push(&known, &sha).to_string();
        let (status, answer) = hook.signed("good", &body).await;
        assert_eq!((status, answer["disposition"].as_str()), (202, Some("requested")), "{answer}");
        run_of(&pipeyard, &sha).await;
        // Replayed, and delivered again as GitHub does it.
        for _ in 0..5 {
            let (status, answer) = hook.signed("good", &body).await;
            assert_eq!((status, &answer["duplicate"]), (202, &json!(true)), "{answer}");
        }
        // Requests of a repository keep their order: once the next has a run, the replays are done.
        let next = repo.commit("The next one");
        repo.push("main");
        let (status, _) = hook.signed("next", &hook.push(&sha, &next).to_string()).await;
        assert_eq!(status, 202);
        run_of(&pipeyard, &next).await;
        let main = |sha: &String| ("main".to_owned(), sha.clone());
        let fresh: Vec<_> = commits(&pipeyard).split_off(before.len());
        assert_eq!(fresh, [main(&sha), main(&next)], "each push has one run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hasty_pushes_each_have_their_run_in_their_order() {
    let pipeyard = Installation::server_only(Options::default()).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let first = repo.push_pipeline(PIPELINE);
    let second = repo.commit("Right after it");
    repo.push("main");
    // The same commit again: to the same branch Git tells nothing, another branch is a push.
    repo.push("main");
    repo.push("release");
    // Back by force, and forward again.
    pipeyard_tests::repo::git(&repo.work, &["reset", "-q", "--hard", &first]);
    repo.push("main");
    pipeyard_tests::repo::git(&repo.work, &["reset", "-q", "--hard", &second]);
    repo.push("main");
    let last = repo.commit("The last");
    repo.push("main");
    run_of(&pipeyard, &last).await;
    let on = |branch: &str, sha: &String| (branch.to_owned(), sha.clone());
    assert_eq!(
        commits(&pipeyard),
        [
            on("main", &first),
            on("main", &second),
            on("release", &second),
            on("main", &first),
            on("main", &second),
            on("main", &last),
        ]
    );
}
