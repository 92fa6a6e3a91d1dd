//! Runs AWS's own Python client against the endpoint; see `boto.py`.

mod common;

use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn boto_signs_reads_pages_and_meets_typed_errors() {
    let world = common::World::start().await;
    let environment = common::target().join(".venv");
    let script = common::manifest().join("tests/venv.sh");
    let made = Command::new(script).arg(&environment).status().await.unwrap();
    assert!(made.success(), "a Python environment with boto3 can't be made");
    let key = world.credentials().key;
    let run = Command::new(environment.join("bin/python"))
        .arg(common::manifest().join("tests/boto.py"))
        .env("FLEET_ENDPOINT", world.endpoint())
        .env("FLEET_KEY", &key.access_key_id)
        .env("FLEET_SECRET", key.secret_access_key.reveal())
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}\n{err}");
    world.end().await;
}
