//! Runs AWS's own Python client against the endpoint; see `boto.py`.

mod common;

use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn boto_signs_reads_pages_and_meets_typed_errors() {
    let environment = common::target().join(".venv");
    let script = common::manifest().join("tests/venv.sh");
    let made = pipeyard_needs::ask(std::process::Command::new(script).arg(&environment));
    let test = "boto_signs_reads_pages_and_meets_typed_errors";
    if !pipeyard_needs::met(test, pipeyard_needs::Need::Python, made) {
        return;
    }
    let world = common::World::start().await;
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
