//! Push, run, log: the daily work, through Git and `pipectl` only.

use std::time::Duration;

use pipeyard_tests::{Installation, Options, TestRepo, docker, until};

const SOON: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_push_runs_its_pipeline_and_keeps_log_and_artifact() {
    if !docker("a_push_runs_its_pipeline_and_keeps_log_and_artifact") {
        return;
    }
    let pipeyard = Installation::start(Options::default()).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    repo.write("hello.txt", "hello from the commit\n");
    let sha = repo.push_pipeline(
        r"
jobs:
  build:
    image: pipeyard/busybox:test
    run:
      - cat hello.txt
      - |
        echo to stderr >&2
        echo $PIPEYARD_COMMIT > out.txt
    artifacts: [out.txt]
  check:
    needs: build
    image: pipeyard/busybox:test
    run: test -n $CI
",
    );
    let run = pipeyard.finished_run(&sha, SOON).await;
    assert_eq!(run["conclusion"], "success", "{run:#}");
    let id = run["id"].to_string();

    let log = pipeyard.pipectl_ok(&["logs", &id, "build"]);
    assert!(log.contains("hello from the commit\n"), "{log}");
    assert!(log.contains("to stderr\n"), "{log}");

    let artifacts = pipeyard.json(&["artifacts", "list", &id]);
    assert_eq!(artifacts[0]["path"], "out.txt", "{artifacts:#}");
    let file = pipeyard.path("got.txt");
    let _ = pipeyard.pipectl_ok(&[
        "artifacts",
        "get",
        &id,
        "out.txt",
        "--to",
        &file.display().to_string(),
    ]);
    assert_eq!(std::fs::read_to_string(file).expect("the artifact"), format!("{sha}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_ends_the_run_and_skips_what_needs_it() {
    let pipeyard = Installation::start(Options { executor: "local", ..Options::default() }).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let sha = repo.push_pipeline(
        "jobs:\n  test:\n    image: none\n    run: [echo one, exit 7, echo never]\n  after:\n    needs: test\n    image: none\n    run: echo never\n",
    );
    let run = pipeyard.finished_run(&sha, SOON).await;
    assert_eq!(run["conclusion"], "failure", "{run:#}");
    let test = &run["jobs"][0];
    assert_eq!(test["steps"][1]["exit_code"], 7, "{run:#}");
    assert_eq!(run["jobs"][1]["conclusion"], "skipped", "{run:#}");

    let watch = pipeyard.pipectl(&["runs", "watch", &run["id"].to_string()]);
    assert_eq!(watch.status.code(), Some(1), "the exit code tells the outcome");
    let log = pipeyard.pipectl_ok(&["logs", &run["id"].to_string(), "test"]);
    assert!(log.contains("one\n") && !log.contains("never"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_does_not_compile_is_a_failed_run_that_shows_the_line() {
    let pipeyard = Installation::server_only(Options::default()).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let sha = repo.push_pipeline("jobs:\n  test:\n    imaeg: busybox\n    run: 'true'\n");
    let run = pipeyard.finished_run(&sha, SOON).await;
    assert_eq!(run["conclusion"], "error", "{run:#}");
    let finding = &run["diagnostics"][0];
    assert_eq!(finding["line"], 3, "{run:#}");
    assert!(finding["rendered"].as_str().is_some_and(|t| t.contains("image")), "{run:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_run_ends_its_container() {
    if !docker("cancelling_a_run_ends_its_container") {
        return;
    }
    let pipeyard = Installation::start(Options::default()).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let sha = repo.push_pipeline(
        "jobs:\n  long:\n    image: pipeyard/busybox:test\n    run: \"trap '' TERM; echo started; sleep 600\"\n",
    );
    let id = until("the step has started", SOON, async || {
        let runs = pipeyard.json(&["runs", "list"]);
        let run = runs.as_array()?.iter().find(|r| r["commit"] == sha)?["id"].to_string();
        let log = pipeyard.pipectl(&["logs", &run, "long"]);
        String::from_utf8_lossy(&log.stdout).contains("started\n").then_some(run)
    })
    .await;
    let _ = pipeyard.pipectl_ok(&["runs", "cancel", &id]);
    let run = pipeyard.finished_run(&sha, Duration::from_secs(30)).await;
    assert_eq!(run["conclusion"], "cancelled", "{run:#}");
    let job = run["jobs"][0]["id"].as_str().expect("the job's id").to_owned();
    let left = std::process::Command::new("docker")
        .args(["ps", "-aq", "--filter", &format!("label=pipeyard.job={job}")])
        .output()
        .expect("ask Docker");
    assert!(left.stdout.is_empty(), "a container is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_the_step_and_nothing_else() {
    if !docker("a_secret_reaches_the_step_and_nothing_else") {
        return;
    }
    let pipeyard = Installation::start(Options::default()).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let secret = "correct-horse-battery-staple-41";
    let file = pipeyard.path("secret.txt");
    std::fs::write(&file, secret).expect("write the secret");
    let set = std::process::Command::new(pipeyard_tests::installation::pipectl())
        .args(["secrets", "set", "PASSWORD", "--all-repos", "--stdin"])
        .env("XDG_CONFIG_HOME", pipeyard.path("config"))
        .stdin(std::fs::File::open(&file).expect("open the secret"))
        .output()
        .expect("start pipectl");
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    std::fs::remove_file(&file).expect("remove the secret");
    let sha = repo.push_pipeline(
        r#"
jobs:
  use:
    image: pipeyard/busybox:test
    secrets: [PASSWORD]
    run:
      - echo "it has ${#PASSWORD} bytes"
      - echo "plain $PASSWORD"
      - printf %s "$PASSWORD" | base64
      - sleep 2
"#,
    );
    let inspected = until("the job's container can be inspected", SOON, async || {
        let ids = std::process::Command::new("docker")
            .args(["ps", "-q", "--filter", "label=pipeyard.job"])
            .output()
            .ok()?;
        let ids = String::from_utf8(ids.stdout).ok()?;
        let mut all = String::new();
        for id in ids.lines() {
            let text = std::process::Command::new("docker").args(["inspect", id]).output().ok()?;
            all.push_str(&String::from_utf8_lossy(&text.stdout));
        }
        all.contains("pipeyard.job").then_some(all)
    })
    .await;
    let run = pipeyard.finished_run(&sha, SOON).await;
    assert_eq!(run["conclusion"], "success", "{run:#}");
    let log = pipeyard.pipectl_ok(&["logs", &run["id"].to_string(), "use"]);
    assert!(log.contains("it has 31 bytes\n"), "{log}");
    assert!(log.contains("plain ***\n"), "{log}");

    let encoded = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZS00MQ";
    for needle in [secret, encoded] {
        assert!(!log.contains(needle), "the log holds {needle}");
        assert!(!inspected.contains(needle), "docker inspect shows {needle}");
        let found = std::process::Command::new("grep")
            .args(["-rlF", needle])
            .arg(pipeyard.path("server"))
            .arg(pipeyard.path("runner"))
            .output()
            .expect("search the data folders");
        let found = String::from_utf8_lossy(&found.stdout);
        assert!(found.is_empty(), "the secret lies on disk: {found}");
    }
}
