//! Test reports, from the runner's words to the API's.

use axum::body::Body;
use serde_json::{Value, json};

use crate::support::{ONE_JOB, RUNNER_KEY, Server};

fn report(failed: usize) -> Value {
    let failure = json!({
        "suite": "cart", "name": "takes a discount once", "class": null, "file": "cart.rs", "line": 7,
        "how": "failed", "message": "80 is not 90", "details": "at cart.rs:7", "output": "", "cut": false,
        "duration_ms": 3,
    });
    json!({
        "passed": 120, "failed": failed, "errored": 0, "skipped": 1, "flaky": 0, "duration_ms": 1500,
        "files": 1, "suites": [], "suites_left_out": 0, "failures": vec![failure; failed],
        "failures_left_out": 0, "problems": [],
    })
}

#[tokio::test]
async fn what_a_runner_tells_of_its_tests_is_shown() {
    let server = Server::start().await;
    let repo = server.add_repo("shop", pipeyard_store::repos::Forge::Git, "/srv/shop.git").await;
    let run = server.add_run(repo, ONE_JOB).await;
    let runner = server.add_runner().await;
    let path = format!("/api/runs/{run}/jobs/test/tests");
    let none = server.get(&path).await;
    assert_eq!((none.status.as_u16(), none.code().as_str()), (404, "not_found"));

    let attempt = server.claim(runner).await;
    let key = format!("Bearer {RUNNER_KEY}");
    let tell = async |epoch: u32, body: Value| {
        let path = format!("/api/runner/jobs/{}/{epoch}/tests", attempt.job);
        let headers = [("authorization", key.as_str())];
        server.send("POST", &path, &headers, Body::from(body.to_string())).await
    };
    assert_eq!(tell(attempt.epoch.0, report(2)).await.status, 204);
    let shown = server.get(&path).await.json();
    assert_eq!((&shown["kind"], &shown["attempt"]), (&json!("test_report"), &json!(1)));
    assert_eq!((&shown["passed"], &shown["failures"][1]["line"]), (&json!(120), &json!(7)));
    let detail = server.get(&format!("/api/runs/{run}")).await.json();
    assert_eq!(detail["jobs"][0]["tests"]["failed"], 2, "{detail:#}");
    assert_eq!(detail["jobs"][0]["attempts"][0]["tests"]["problems"], 0);

    assert_eq!(tell(attempt.epoch.0 + 1, report(0)).await.code(), "stale_epoch");
    assert_eq!(tell(attempt.epoch.0, report(201)).await.code(), "bad_test_report");
    assert_eq!(server.get(&format!("{path}?attempt=2")).await.status, 404);
    assert_eq!(server.get(&format!("{path}?attempt=1")).await.json()["failed"], 2);
    // A person's token is no runner's key.
    let own = format!("/api/runner/jobs/{}/1/tests", attempt.job);
    assert_eq!(server.call("POST", &own, report(0)).await.status, 401);
}
