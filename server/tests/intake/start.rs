//! Runs that a person starts, and adding and removing repositories.

use serde_json::json;

use crate::{
    repository::{PIPELINE, Repository},
    world::World,
};

#[tokio::test]
async fn a_person_starts_a_run_of_a_branch_or_a_commit() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    world.add(&git.bare()).await;
    let first = git.head();
    let second = git.push("a", "1");
    for (reference, commit) in
        [(json!(null), &second), (json!("main"), &second), (json!(first), &first)]
    {
        let body = json!({ "repo": "shop", "reference": reference });
        let answer = world.call("POST", "/api/runs", body).await;
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
        let run = answer.json();
        assert_eq!(
            (run["commit"].as_str(), run["event"].as_str()),
            (Some(commit.as_str()), Some("manual"))
        );
    }
    assert_eq!(world.runs().await.len(), 3);
}

#[tokio::test]
async fn a_commit_runs_as_the_branch_that_has_it_or_as_a_strangers() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    world.add(&git.bare()).await;
    git.git(&["checkout", "--quiet", "-b", "feature"]);
    let feature = git.push("a", "1");
    git.git(&["checkout", "--quiet", "--detach", "main"]);
    let pull = git.commit(".pipeyard.yml", PIPELINE.replace("test:", "steal:"));
    git.git(&["push", "--quiet", "origin", "HEAD:refs/pull/1/head"]);
    let start = async |reference: &str| {
        let body = json!({ "repo": "shop", "reference": reference });
        let answer = world.call("POST", "/api/runs", body).await;
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
        answer.json()
    };
    let run = start(&feature).await;
    assert_eq!((run["branch"].clone(), run["fork"].clone()), (json!("feature"), json!(false)));
    let run = start(&pull).await;
    assert_eq!((run["fork"].clone(), run["held"].clone()), (json!(true), json!(true)));
    let why = run["reason"]["message"].as_str().unwrap();
    assert!(why.contains("no branch of the repository has this commit"), "{why}");
    let jobs = &world.runs().await[1].jobs;
    assert_eq!(jobs[0].name.as_str(), "test", "the default branch's pipeline counts");
    // Once it is merged it is main's.
    git.git(&["push", "--quiet", "origin", "HEAD:main"]);
    let run = start(&pull).await;
    assert_eq!((run["branch"].clone(), run["fork"].clone()), (json!("main"), json!(false)));
}

#[tokio::test]
async fn what_a_person_names_wrongly_is_told_at_once() {
    let (world, git) = (World::new().await, Repository::empty());
    world.add(&git.bare()).await;
    git.push("README.md", "no pipeline");
    let start = async |repo: &str, reference: &str| {
        world.call("POST", "/api/runs", json!({ "repo": repo, "reference": reference })).await
    };
    assert_eq!(start("none", "main").await.refusal(), (404, "not_found".into()));
    assert_eq!(start("shop", "--upload-pack=x").await.refusal(), (404, "branch_not_found".into()));
    assert_eq!(start("shop", &"d".repeat(40)).await.refusal(), (404, "commit_not_found".into()));
    let run = start("shop", "main").await.json();
    assert_eq!(
        (run["conclusion"].as_str(), run["reason"]["code"].as_str()),
        (Some("error"), Some("pipeline_missing"))
    );
}

#[tokio::test]
async fn a_repository_is_added_once_with_a_secret_that_is_shown_once() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let added = world.add(&git.bare()).await;
    assert_eq!((added.repo.name.as_str(), added.repo.default_branch.as_str()), ("shop", "main"));
    assert!(added.hook_secret.len() >= 40);
    let list = world.call("GET", "/api/repos", json!(null)).await.text();
    assert!(!list.contains(&added.hook_secret));
    let row = world.state.store.repo(added.repo.id).await.unwrap().unwrap();
    let secret = added.hook_secret.as_bytes();
    assert!(!row.hook_secret.windows(secret.len()).any(|window| window == secret));
    let again = world.call("POST", "/api/repos", json!({ "url": git.bare() })).await;
    assert_eq!(again.refusal(), (409, "name_taken".into()));
    for (url, refusal) in [
        ("ext::sh -c id", (400, "remote_invalid")),
        ("--upload-pack=x", (400, "remote_invalid")),
        ("shop.git", (400, "remote_invalid")),
        ("/nonexistent/x.git", (422, "remote_unreachable")),
        ("https://169.254.169.254/latest/meta-data", (422, "remote_refused")),
        ("git@169.254.169.254:x", (422, "remote_refused")),
    ] {
        let answer = world.call("POST", "/api/repos", json!({ "url": url })).await;
        assert_eq!(answer.refusal(), (refusal.0, refusal.1.to_owned()), "{url}");
    }
    let anonymous =
        world.send("POST", "/api/repos", &[], json!({ "url": git.bare() }).to_string()).await;
    assert_eq!(anonymous.status.as_u16(), 401);
}

#[tokio::test]
async fn a_name_with_a_slash_is_removed_by_either_spelling() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    for path in ["/api/repos/team%2Fshop", "/api/repos/team/shop"] {
        world.add_as(json!({ "url": git.bare(), "name": "team/shop" })).await;
        assert_eq!(world.call("DELETE", path, json!(null)).await.status.as_u16(), 204, "{path}");
        assert_eq!(
            world.call("DELETE", path, json!(null)).await.refusal(),
            (404, "not_found".into())
        );
    }
}

#[tokio::test]
async fn credentials_in_an_address_are_kept_sealed_and_out_of_sight() {
    let world = World::new().await;
    // Nobody listens there: the attempt's error must not repeat the password.
    let url = "http://bot:correct-horse@127.0.0.1:9/shop.git";
    let answer = world.call("POST", "/api/repos", json!({ "url": url })).await;
    assert_eq!(answer.refusal(), (422, "remote_unreachable".into()));
    assert!(!answer.text().contains("correct-horse"), "{}", answer.text());
    // Nor git's and curl's words, which tell what is behind the server.
    assert!(answer.text().contains("nothing answers there"), "{}", answer.text());
    for word in ["port 9", "Failed to connect", "fatal", "after"] {
        assert!(!answer.text().contains(word), "{}", answer.text());
    }
}
