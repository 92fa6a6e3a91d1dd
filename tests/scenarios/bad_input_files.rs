//! Pipeline files as bad as they come, pushed one after another to one installation. Each is a run
//! that shows its error, and the server goes on answering meanwhile.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pipeyard_tests::{Installation, Options, TestRepo};

const SOON: Duration = Duration::from_secs(90);

/// What is pushed, and what its run must say.
struct Case {
    name: &'static str,
    text: String,
    code: &'static str,
    line: u64,
    /// Words that the person must find in `runs view`.
    says: &'static str,
}

fn cases() -> Vec<Case> {
    let case =
        |name, text: &str, code, line, says| Case { name, text: text.into(), code, line, says };
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let ten = vec![format!("*a{}", i - 1); 10].join(", ");
        let _ = writeln!(bomb, "a{i}: &a{i} [{ten}]");
    }
    bomb.push_str("jobs: *a11\n");
    vec![
        case("no YAML", "jobs:\n  a: [unclosed\n", "P", 2, ".pipeyard.yml:"),
        case("a text", "hello, is anybody there?\n", "P", 1, ".pipeyard.yml:1"),
        case(
            "a cycle",
            "jobs:\n  a:\n    needs: b\n    image: x\n    run: x\n  b:\n    needs: a\n    image: x\n    run: x\n",
            "P",
            7,
            "need",
        ),
        case("a misspelt key", "jobs:\n  a:\n    imgae: x\n    run: x\n", "P", 3, "image"),
        case("enormous", &"# padding\n".repeat(200_000), "P004", 1, "larger than"),
        case("an alias bomb", &bomb, "P", 0, ".pipeyard.yml:"),
        case("too deep", &format!("jobs: {}", "[".repeat(100_000)), "P", 1, ".pipeyard.yml:1"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_pipeline_shows_where_it_is_wrong_and_the_next_good_one_runs() {
    let pipeyard = Installation::start(Options { executor: "local", ..Options::default() }).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let stop = Arc::new(AtomicBool::new(false));
    let prober = tokio::spawn(probe(format!("{}/readyz", pipeyard.url()), stop.clone()));

    let missing = repo.commit("Nothing to run yet");
    repo.push("main");
    let run = pipeyard.finished_run(&missing, SOON).await;
    assert_eq!(run["conclusion"], "error", "{run:#}");
    assert_eq!(run["reason"]["code"], "pipeline_missing", "{run:#}");
    let said = pipeyard.pipectl_ok(&["runs", "view", &run["id"].to_string()]);
    assert!(said.contains(".pipeyard.yml"), "{said}");

    let cases = cases();
    let pushed: Vec<_> = cases.iter().map(|case| repo.push_pipeline(&case.text)).collect();
    let good = repo.push_pipeline("jobs:\n  a:\n    image: none\n    run: echo it works\n");
    for (case, sha) in cases.iter().zip(&pushed) {
        let name = case.name;
        let run = pipeyard.finished_run(sha, SOON).await;
        assert_eq!(run["conclusion"], "error", "{name}: {run:#}");
        assert_eq!(run["reason"]["code"], "pipeline_invalid", "{name}: {run:#}");
        assert_eq!(run["jobs"].as_array().map(Vec::len), Some(0), "{name}: {run:#}");
        let found = &run["diagnostics"][0];
        let code = found["code"].as_str().unwrap_or_default();
        assert!(code.starts_with(case.code), "{name}: {run:#}");
        assert!(case.line == 0 || found["line"] == case.line, "{name}: {run:#}");
        let said = pipeyard.pipectl_ok(&["runs", "view", &run["id"].to_string()]);
        assert!(said.contains(case.says) && said.contains(code), "{name}: {said}");
        assert!(said.len() < 10_000, "{name}: a message of {} bytes", said.len());
        let page = pipeyard.pipectl_ok(&["explain", code]);
        assert!(page.contains(code), "{name}: {page}");
    }
    let run = pipeyard.finished_run(&good, SOON).await;
    assert_eq!(run["conclusion"], "success", "{run:#}");
    stop.store(true, Ordering::Relaxed);
    let slowest = prober.await.expect("the server always answered");
    assert!(slowest < Duration::from_secs(5), "an answer took {slowest:?}");
}

/// Asks until `stop`; answers the longest time that an answer took.
async fn probe(url: String, stop: Arc<AtomicBool>) -> Duration {
    let client = reqwest::Client::new();
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = client.get(&url).send().await.expect("the server answers");
        assert!(answer.status().is_success(), "{}", answer.status());
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slowest
}
