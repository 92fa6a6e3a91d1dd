//! `tests:` of a job, from the file that a step writes to what a person reads.

use std::time::Duration;

use pipeyard_tests::{Installation, Options, TestRepo, docker};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(90);

/// Written by a step, as a test runner would, with the secret where one may slip in.
const REPORT: &str = r#"<testsuites>
<testsuite name="cart">
<testcase name="is empty at first" time="0.5"/>
<testcase name="takes a discount once" classname="cart" file="src/cart.sh" line="7" time="1.25">
<failure message="80 is not 90">expected 90
got 80 with TOKEN</failure><system-out>asked with TOKEN</system-out>
</testcase>
<testcase name="is kept"><skipped/></testcase>
</testsuite>
</testsuites>
"#;

fn pipeline(image: &str) -> String {
    format!(
        r#"
jobs:
  test:
    image: {image}
    secrets: [SHOP_TOKEN]
    run: |
      mkdir -p out
      sed "s/TOKEN/$SHOP_TOKEN/g" report.xml > out/cart.xml
      echo '<testsuite><testcase name="x">' > out/broken.xml
      ln -s /etc/passwd out/link.xml
      exit 3
    tests: [out/*.xml, none.xml]
  green:
    image: {image}
    run: echo well
    tests: [report.xml, none.xml]
"#
    )
}

async fn told(executor: &'static str, image: &str) {
    let pipeyard = Installation::start(Options { executor, ..Options::default() }).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let secret = "hunter2-of-the-shop";
    let client = pipeyard.client();
    let body = json!({ "value": secret });
    client
        .put::<_, Value>("/api/secrets/SHOP_TOKEN?all_repos=true", &body)
        .await
        .expect("the secret is kept");
    repo.write("report.xml", REPORT);
    let sha = repo.push_pipeline(&pipeline(image));
    let run = pipeyard.finished_run(&sha, SOON).await;
    let id = run["id"].to_string();

    // The steps decide how a job ends; reports only tell.
    assert_eq!(run["jobs"][0]["conclusion"], "failure", "{run:#}");
    assert_eq!(run["jobs"][0]["reason"]["code"], "step_failed", "{run:#}");
    assert_eq!(run["jobs"][1]["conclusion"], "success", "{run:#}");
    let tests = &run["jobs"][0]["tests"];
    let counts: Vec<_> =
        ["passed", "failed", "skipped", "problems"].map(|k| tests[k].as_u64()).into();
    assert_eq!(counts, [Some(1), Some(1), Some(1), Some(3)], "{tests:#}");

    let log = pipeyard.pipectl_ok(&["logs", &id, "test"]);
    assert!(log.contains("tests: 1 passed, 1 failed, 1 skipped in 2 reports\n"), "{log}");
    for told in [
        "report_invalid: out/broken.xml:2: ",
        "report_unreadable: out/link.xml: ",
        "report_missing: none.xml: ",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
    let green = pipeyard.pipectl_ok(&["logs", &id, "green"]);
    assert!(green.contains("report_missing: none.xml: "), "{green}");

    let view = pipeyard.pipectl(&["runs", "view", &id]);
    assert_eq!(view.status.code(), Some(0), "viewing succeeds, whatever is seen");
    let view = String::from_utf8_lossy(&view.stdout).into_owned();
    for line in [
        "test: tests 1 passed, 1 failed, 1 skipped\n",
        "  failed  cart > takes a discount once (src/cart.sh:7)\n          80 is not 90\n",
        "green: tests 1 passed, 1 failed, 1 skipped\n",
    ] {
        assert!(view.contains(line), "{line}: {view}");
    }
    let report: Value =
        client.get(&format!("/api/runs/{id}/jobs/test/tests")).await.expect("the report");
    assert_eq!(report["failures"][0]["details"], "expected 90\ngot 80 with ***", "{report:#}");
    assert_eq!(report["failures"][0]["output"], "asked with ***", "{report:#}");
    assert!(!report.to_string().contains("hunter2"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tests_of_a_job_are_told_with_their_failures() {
    told("local", "none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tests_of_a_job_in_a_container_are_told_with_their_failures() {
    if docker("the_tests_of_a_job_in_a_container_are_told_with_their_failures") {
        told("docker", "pipeyard/busybox:test").await;
    }
}
