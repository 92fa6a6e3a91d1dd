//! Killing parts at random moments with work in flight. Nothing may be lost, doubled, stuck or
//! leaked; the comparison is with what is known from outside: commits in Git, a ledger that the
//! steps write, containers by label.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use pipeyard_tests::{Installation, Options, TestRepo, docker, until};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

const ROUNDS: usize = 5;

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("SEED={seed}");
    seed
}

/// What steps did: `start <commit>` and `end <commit>` lines, counted.
fn ledger(path: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_server_loses_and_doubles_nothing() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut pipeyard =
        Installation::start(Options { executor: "local", slots: 3, ..Options::default() }).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let book = pipeyard.path("ledger");
    fs::write(&book, "").expect("make the ledger");
    repo.write(
        ".pipeyard.yml",
        &format!(
            "jobs:\n  work:\n    image: none\n    run: |\n      echo start $PIPEYARD_COMMIT >> {0}\n      for i in $(seq 1 200); do echo line $i; done\n      sleep 0.7\n      for i in $(seq 201 400); do echo line $i; done\n      echo end $PIPEYARD_COMMIT >> {0}\n",
            book.display()
        ),
    );
    let mut commits = Vec::new();
    for round in 0..ROUNDS {
        for push in 0..3 {
            let sha = repo.commit(&format!("Round {round}, push {push}"));
            // The hook never fails a push, even when the server is away.
            repo.push("main");
            commits.push(sha);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        let runs = pipeyard.json(&["runs", "list", "--limit", "100"]);
        let known = runs.as_array().map_or(0, Vec::len);
        let open = runs.as_array().is_some_and(|r| r.iter().any(|r| r["status"] != "finished"));
        assert!(
            open || known < commits.len(),
            "round {round} killed the server with nothing in flight"
        );
        pipeyard.kill_server();
        // One push while nobody listens: the comparison of refs finds it.
        let sha = repo.commit(&format!("Round {round}, while the server is away"));
        repo.push("main");
        commits.push(sha);
        pipeyard.start_server().await;
    }
    let last = commits.last().expect("a commit").clone();
    let _ = pipeyard.finished_run(&last, Duration::from_secs(120)).await;
    let runs = until("every run ends", Duration::from_secs(120), async || {
        let runs = pipeyard.json(&["runs", "list", "--limit", "100"]);
        let runs = runs.as_array()?.clone();
        runs.iter().all(|r| r["status"] == "finished").then_some(runs)
    })
    .await;

    let book = ledger(&book);
    let mut by_commit: BTreeMap<&str, usize> = BTreeMap::new();
    for run in &runs {
        assert_eq!(run["conclusion"], "success", "{run:#}");
        *by_commit.entry(run["commit"].as_str().expect("a commit")).or_default() += 1;
        let log = pipeyard.pipectl_ok(&["logs", &run["id"].to_string(), "work"]);
        let lines: Vec<_> = log.lines().filter(|l| l.starts_with("line ")).collect();
        let expected: Vec<_> = (1..=400).map(|i| format!("line {i}")).collect();
        assert_eq!(lines, expected, "the log of run {} is not whole", run["id"]);
    }
    for (round, group) in commits.chunks(4).enumerate() {
        // Pushes that came while the server listened each have a run of their own. One that came
        // in the moment of the kill may have been overtaken by the next before anybody saw it;
        // the branch's last commit of every round always runs.
        let last = &group[3];
        assert_eq!(by_commit.get(last.as_str()), Some(&1), "round {round}: {last} has no run");
    }
    for (commit, count) in by_commit {
        assert_eq!(count, 1, "{commit} has {count} runs");
        for word in ["start", "end"] {
            let written = book.get(&format!("{word} {commit}")).copied().unwrap_or(0);
            assert_eq!(written, 1, "{word} of {commit} was written {written} times");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_runner_offers_its_job_again_and_leaks_nothing() {
    if !docker("killing_the_runner_offers_its_job_again_and_leaks_nothing") {
        return;
    }
    let mut random = StdRng::seed_from_u64(seed());
    let delays: Vec<_> =
        (0..ROUNDS).map(|_| Duration::from_millis(random.random_range(0..1500))).collect();
    let rounds = delays.into_iter().map(|delay| tokio::spawn(one_runner_kill(delay)));
    for round in rounds.collect::<Vec<_>>() {
        round.await.expect("the round held");
    }
}

async fn one_runner_kill(delay: Duration) {
    let mut pipeyard = Installation::start(Options { slots: 2, ..Options::default() }).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let sha = repo.push_pipeline(
        "jobs:\n  a:\n    image: pipeyard/busybox:test\n    run: &run |\n      echo begun\n      for i in $(seq 1 5000); do echo line $i; done\n      [ $PIPEYARD_ATTEMPT != 1 ] || sleep 100\n      echo done\n  b:\n    image: pipeyard/busybox:test\n    run: *run\n",
    );
    let id = until("a step has begun", Duration::from_secs(60), async || {
        let runs = pipeyard.json(&["runs", "list"]);
        let id = runs.as_array()?.iter().find(|r| r["commit"] == sha)?["id"].to_string();
        let log = pipeyard.pipectl(&["logs", &id, "a"]);
        String::from_utf8_lossy(&log.stdout).contains("begun\n").then_some(id)
    })
    .await;
    tokio::time::sleep(delay).await;
    let view = pipeyard.json(&["runs", "view", &id]);
    assert_eq!(view["status"], "running", "the kill hit nothing: {view:#}");
    pipeyard.kill_runner();
    pipeyard.start_runner();

    let run = pipeyard.finished_run(&sha, Duration::from_secs(120)).await;
    assert_eq!(run["conclusion"], "success", "{run:#}");
    for job in run["jobs"].as_array().expect("jobs") {
        let attempts = job["attempts"].as_array().expect("attempts");
        let last = attempts.last().expect("an attempt");
        assert_eq!(last["conclusion"], "success", "{job:#}");
        for lost in &attempts[..attempts.len() - 1] {
            assert_eq!(lost["reason"]["code"], "runner_lost", "{job:#}");
        }
        let log = pipeyard.pipectl_ok(&["logs", &id, job["name"].as_str().expect("a name")]);
        assert_eq!(log.lines().filter(|l| l.starts_with("line ")).count(), 5000);
        let label = format!("label=pipeyard.job={}", job["id"].as_str().expect("an id"));
        until("no container is left", Duration::from_secs(60), async || {
            let left = std::process::Command::new("docker")
                .args(["ps", "-aq", "--filter", &label])
                .output()
                .ok()?;
            left.stdout.is_empty().then_some(())
        })
        .await;
    }
}
