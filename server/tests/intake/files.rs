//! Pipeline files as bad as they come: each ends where a person looks.

use pipeyard_api::views::RunDetail;
use pipeyard_model::Conclusion;

use crate::{
    repository::{PIPELINE, Repository},
    world::{World, ZERO},
};

/// The runs of one push that commits this file.
async fn runs_of(file: &str, bytes: impl AsRef<[u8]>) -> Vec<RunDetail> {
    let (world, git) = (World::new().await, Repository::empty());
    let repo = world.add(&git.bare()).await;
    let sha = git.push(file, bytes);
    world.pushed(&repo, "refs/heads/main", ZERO, &sha).await;
    world.compile().await;
    assert_eq!(world.due().await, 0);
    world.runs().await
}

async fn broken(file: &str, bytes: impl AsRef<[u8]>) -> RunDetail {
    let mut runs = runs_of(file, bytes).await;
    assert_eq!(runs.len(), 1);
    let run = runs.remove(0);
    assert_eq!(run.run.conclusion, Some(Conclusion::Error));
    assert!(run.jobs.is_empty());
    assert!(!run.diagnostics.is_empty());
    run
}

#[tokio::test]
async fn a_misspelt_key_is_a_failed_run_with_the_place() {
    let run = broken(".pipeyard.yml", PIPELINE.replace("image", "imaeg")).await;
    let reason = run.run.reason.as_ref().unwrap();
    assert_eq!(reason.code, "pipeline_invalid");
    assert!(reason.message.starts_with(".pipeyard.yml:3: "), "{}", reason.message);
    assert_eq!(run.diagnostics[0].line, 3);
    assert!(run.diagnostics[0].rendered.contains("image"));
}

#[tokio::test]
async fn a_missing_file_shows_at_the_first_push_and_is_quiet_afterwards() {
    let (world, git) = (World::new().await, Repository::empty());
    let repo = world.add(&git.bare()).await;
    let first = git.push("README.md", "hello");
    world.pushed(&repo, "refs/heads/main", ZERO, &first).await;
    world.compile().await;
    let runs = world.runs().await;
    assert_eq!(runs[0].run.reason.as_ref().unwrap().code, "pipeline_missing");
    let second = git.push("README.md", "more");
    world.pushed(&repo, "refs/heads/main", &first, &second).await;
    world.compile().await;
    assert_eq!((world.runs().await.len(), world.due().await), (1, 0));
}

#[tokio::test]
async fn what_is_enormous_or_not_text_is_named() {
    let large = broken(".pipeyard.yml", "# padding\n".repeat(200_000)).await;
    assert!(large.run.reason.as_ref().unwrap().message.contains("larger than"));
    let binary = broken(".pipeyard.yml", b"jobs:\n  a: \xff\xfe\n").await;
    assert!(binary.run.reason.as_ref().unwrap().message.contains("UTF-8"));
}

#[tokio::test]
async fn an_alias_bomb_is_refused_in_moments() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let before = format!("*a{}", i - 1);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![before; 10].join(", ")));
    }
    bomb.push_str("jobs: *a11\n");
    let before = std::time::Instant::now();
    broken(".pipeyard.yml", bomb).await;
    assert!(before.elapsed() < std::time::Duration::from_secs(20));
}

#[tokio::test]
async fn cycles_and_other_languages_are_refused() {
    let cycle = "jobs:\n  a:\n    needs: b\n    image: x\n    run: x\n  b:\n    needs: a\n    image: x\n    run: x\n";
    assert!(broken(".pipeyard.yml", cycle).await.diagnostics[0].rendered.contains("need"));
    broken(".pipeyard.yml", "{\"jobs\": [").await;
    broken(".pipeyard.yml", "").await;
}

#[tokio::test]
async fn each_file_of_the_folder_is_a_pipeline_and_a_link_is_none() {
    let (world, git) = (World::new().await, Repository::empty());
    let repo = world.add(&git.bare()).await;
    git.commit(".pipeyard/build.yml", PIPELINE);
    git.commit(".pipeyard/nightly.yml", format!("when:\n  push: nightly\n{PIPELINE}"));
    git.commit(".pipeyard/bad.yml", "jobs: 1\n");
    std::os::unix::fs::symlink("/etc/passwd", format!("{}/../work/.pipeyard/link.yml", git.bare()))
        .unwrap();
    let sha = git.push("README.md", "hello");
    world.pushed(&repo, "refs/heads/main", ZERO, &sha).await;
    world.compile().await;
    let runs = world.runs().await;
    let outcome: Vec<_> =
        runs.iter().map(|r| (r.run.pipeline.as_str(), r.run.conclusion.is_some())).collect();
    assert_eq!(outcome, [("bad", true), ("build", false)]);
}
