//! Checkouts over a real socket with git itself.

use std::{net::SocketAddr, process::Command, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pipeyard_git::{BasicAuth, GitError, Sha, checkout};
use pipeyard_model::{Actor, Clock as _, RequestId, RunnerId, runner::Grant};
use pipeyard_server::{
    checkout::{USER, mint_checkout_token},
    mirror, tokens,
};
use pipeyard_store::{
    queue::Claimed,
    runners::{NewEnrolment, NewRunner},
};

use crate::{
    repository::Repository,
    world::{World, ZERO},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Serves the world's router on loopback.
async fn listen(world: &World) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = world.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Claims the one job that waits.
async fn claim(world: &World) -> Claimed {
    let (store, now) = (&world.state.store, world.clock.now());
    store
        .add_enrolment(
            NewEnrolment {
                hash: [9; 32],
                expires_at: now + Duration::from_secs(60),
                grant: Grant::everything(),
            },
            Actor::pipeyard(),
            now,
        )
        .await
        .unwrap();
    let runner = NewRunner {
        id: RunnerId::new(),
        name: "one".into(),
        labels: Vec::new(),
        version: "1".into(),
        key_hash: tokens::hash("ppk_test"),
    };
    let id = runner.id;
    store.register_runner([9; 32], runner, None, now).await.unwrap();
    store.claim_jobs(id, RequestId::new(), 1, now).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_checks_out_its_commit_and_nothing_else() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let other = world.add_as(serde_json::json!({ "url": git.bare(), "name": "other" })).await;
    let start = git.head();
    let sha = git.push("src/hello.txt", "hello");
    world.pushed(&repo, "refs/heads/main", &start, &sha).await;
    world.compile().await;
    let job = claim(&world).await;
    assert_eq!(job.commit, sha);
    let token = mint_checkout_token(&world.state, job.job, job.epoch, job.repo);

    // Meanwhile the branch loses the commit, and the mirror follows and is cleaned up.
    git.git(&["reset", "--quiet", "--hard", &start]);
    git.push("other", "x");
    let row = world.state.store.repo(job.repo).await.unwrap().unwrap();
    let mirror = mirror::fetch(&world.state, &row).await.unwrap();
    let gc = Command::new("git")
        .arg("-C")
        .arg(mirror.path())
        .args(["gc", "--quiet", "--prune=now"])
        .status();
    assert!(gc.unwrap().success());

    let address = listen(&world).await;
    let url = format!("http://{address}/git/{}", job.repo);
    let sha: Sha = sha.parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let auth = |password: &str| BasicAuth { user: USER.into(), password: password.into() };
    let dest = folder.path().join("workspace");
    checkout(&url, &auth(&token), &sha, &dest, None, DEADLINE).await.unwrap();
    assert_eq!(std::fs::read_to_string(dest.join("src/hello.txt")).unwrap(), "hello");
    let head =
        Command::new("git").arg("-C").arg(&dest).args(["rev-parse", "HEAD"]).output().unwrap();
    assert_eq!(String::from_utf8(head.stdout).unwrap().trim(), sha.as_str());
    let kept = Command::new("grep").arg("-rlF").arg(&token).arg(&dest).output().unwrap();
    assert!(kept.stdout.is_empty(), "the password lies in the workspace");

    let refused = async |url: &str, password: &str, name: &str| {
        let error = checkout(url, &auth(password), &sha, &folder.path().join(name), None, DEADLINE)
            .await
            .unwrap_err();
        assert!(matches!(error, GitError::Remote { .. }), "{error}");
        assert!(!error.to_string().contains(password), "{error}");
    };
    refused(&url, "wrong-password", "1").await;
    refused(&format!("http://{address}/git/{}", other.repo.id), &token, "2").await;

    let push = Command::new("git")
        .arg("-C")
        .arg(&dest)
        .args([
            "push",
            &format!("http://{USER}:{token}@{address}/git/{}", job.repo),
            "HEAD:refs/heads/evil",
        ])
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .unwrap();
    assert!(!push.status.success());
    assert_eq!(mirror.branch("evil").await.unwrap(), None);

    // The lease runs out: the password dies with the attempt.
    world.clock.advance(Duration::from_secs(3600));
    let lost = world.state.store.expire_leases(world.clock.now()).await.unwrap();
    assert_eq!(lost.len(), 1);
    refused(&url, &token, "3").await;
}

#[tokio::test]
async fn what_is_no_request_of_git_is_refused() {
    let (world, git) = (World::new().await, Repository::empty());
    let repo = world.add(&git.bare()).await;
    let sha = git.push(".pipeyard.yml", crate::repository::PIPELINE);
    world.pushed(&repo, "refs/heads/main", ZERO, &sha).await;
    world.compile().await;
    let job = claim(&world).await;
    let token = mint_checkout_token(&world.state, job.job, job.epoch, job.repo);
    let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{token}")));
    let auth = ("authorization", basic.as_str());
    let refs = format!("/git/{}/info/refs", job.repo);
    let answer = world.send("GET", &format!("{refs}?service=git-receive-pack"), &[auth], "").await;
    assert_eq!(answer.refusal(), (403, "read_only".into()));
    assert_eq!(world.send("GET", &refs, &[], "").await.refusal(), (401, "checkout_refused".into()));
    let old = world.send("GET", &format!("{refs}?service=git-upload-pack"), &[auth], "").await;
    assert!(old.text().starts_with("001e# service=git-upload-pack\n0000"), "{}", old.text());
    assert!(old.text().contains(&sha) && !old.text().contains("refs/pipeyard"), "{}", old.text());

    let fetch = format!("/git/{}/git-upload-pack", job.repo);
    let kind = ("content-type", "application/x-git-upload-pack-request");
    let packed = ("content-encoding", "gzip");
    let answer = world.send("POST", &fetch, &[auth, kind, packed], "not gzip").await;
    assert_eq!(answer.refusal(), (400, "not_gzip".into()));
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, b"0014command=ls-refs\n0000").unwrap();
    let version = ("git-protocol", "version=2");
    let headers = [auth, kind, packed, version];
    let answer = world.send("POST", &fetch, &headers, packer.finish().unwrap()).await;
    assert!(answer.text().contains(&format!("{sha} refs/heads/main")), "{}", answer.text());
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut std::io::Read::take(std::io::repeat(b'0'), 64 << 20), &mut bomb).unwrap();
    let answer = world.send("POST", &fetch, &[auth, kind, packed], bomb.finish().unwrap()).await;
    assert_eq!(answer.refusal(), (413, "body_too_large".into()));
    let answer = world.send("POST", &fetch, &[auth], "0000").await;
    assert_eq!(answer.refusal(), (415, "not_a_fetch".into()));
}
