//! What Git's hook costs a push, beside `curl` with the same request.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use pipeyard_tests::TestRepo;
use sha2::Sha256;

use crate::figure::{Figure, median};

/// Pushes that are measured.
const PUSHES: usize = 40;

/// Milliseconds of the hook, from its start to its end. `new`: a commit that no pipeline is for.
pub(crate) fn hook_ms(
    repo: &TestRepo,
    url: &str,
    secret: &str,
    new: &str,
) -> anyhow::Result<Figure> {
    let zero = "0".repeat(40);
    let (mut hook, mut curl) = (Vec::new(), Vec::new());
    let body_file = repo.bare.join("bench-body");
    // The first of each warms the caches and doesn't count.
    for n in 0..=PUSHES {
        let line = format!("{zero} {new} refs/heads/hook{n}\n");
        let took = run(Command::new(repo.bare.join("hooks/post-receive")), &repo.bare, &line)?;
        if n > 0 {
            hook.push(took);
        }
        let body = format!(
            r#"{{"updates":[{{"ref":"refs/heads/curl{n}","old":"{zero}","new":"{new}"}}]}}"#
        );
        fs::write(&body_file, &body)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
        mac.update(body.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--fail", "--noproxy", "*", "--output", "/dev/null"])
            .args(["--header", "content-type: application/json"])
            .args(["--header", &format!("x-pipeyard-signature-256: sha256={signature}")])
            .arg("--data-binary")
            .arg(format!("@{}", body_file.display()))
            .arg(url);
        // A machine without curl has no floor.
        if let Ok(took) = run(command, &repo.bare, "")
            && n > 0
        {
            curl.push(took);
        }
    }
    let floor = (curl.len() == PUSHES).then(|| median(&mut curl));
    Ok(Figure::new("hook_ms", median(&mut hook), "ms").floor(floor))
}

fn run(mut command: Command, dir: &Path, lines: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut child = command
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    child.stdin.take().context("no input")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success() && said.is_empty(), "it failed: {said}");
    Ok(took)
}
