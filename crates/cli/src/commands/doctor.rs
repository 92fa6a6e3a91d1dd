//! `doctor`: what is in place, what isn't, and how to fix it.

use pipeyard_api::views::{Me, RunnerView};
use serde::Serialize;

use crate::{
    context::Context,
    exit::{Exit, Outcome},
    output::{Column, cell},
};

/// Check that everything is in place, and say how to fix what isn't.
#[derive(Debug, clap::Args)]
pub struct Doctor {}

#[derive(Serialize)]
struct Check {
    check: &'static str,
    good: bool,
    found: String,
    fix: String,
}

impl Check {
    fn new(check: &'static str, result: Result<String, String>, fix: &str) -> Self {
        let good = result.is_ok();
        let found = result.unwrap_or_else(|e| e);
        Self { check, good, found, fix: if good { String::new() } else { fix.to_owned() } }
    }
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let mut checks = vec![
            Check::new("git", version("git", &["--version"]), "install Git"),
            Check::new(
                "docker",
                version("docker", &["version", "--format", "{{.Server.Version}}"]),
                "install Docker Engine and start its daemon; your user must be allowed to use its socket",
            ),
            Check::new(
                "pipectl",
                only_one(),
                "another program is called pipectl too: put ours first in PATH",
            ),
        ];
        match context.client() {
            Err(failure) => {
                checks.push(Check::new("server", Err(failure.message), "pipectl login URL"));
            }
            Ok(client) => {
                let ready = client
                    .open("/readyz", &[])
                    .await
                    .map(|_| client.base().to_owned())
                    .map_err(|e| e.to_string());
                let up = ready.is_ok();
                checks.push(Check::new("server", ready, "start it: pipectl up"));
                if up {
                    let me = client
                        .get::<Me>("/api/me")
                        .await
                        .map(|m| m.name)
                        .map_err(|e| e.to_string());
                    checks.push(Check::new("login", me, "pipectl login URL"));
                    let runners = client.get::<Vec<RunnerView>>("/api/runners").await;
                    let online = runners.map_err(|e| e.to_string()).and_then(|runners| {
                        let online = runners.iter().filter(|r| r.state == "online").count();
                        if online > 0 {
                            Ok(format!("{online} online"))
                        } else {
                            Err("no runner is online".into())
                        }
                    });
                    checks.push(Check::new(
                        "runner",
                        online,
                        "pipectl runners token, then pipectl runner",
                    ));
                }
            }
        }
        let bad = checks.iter().any(|c| !c.good);
        context.print(
            &checks,
            &[
                Column("CHECK", |r| cell(&r["check"])),
                Column("RESULT", |r| if r["good"] == true { "ok".into() } else { "NOT OK".into() }),
                Column("FOUND", |r| cell(&r["found"])),
                Column("FIX", |r| cell(&r["fix"])),
            ],
        )?;
        Ok(if bad { Exit::Failed } else { Exit::Ok })
    }
}

fn version(program: &str, args: &[&str]) -> Result<String, String> {
    let output = std::process::Command::new(program)
        .args(args)
        .output()
        .map_err(|e| format!("failed to start {program}: {e}"))?;
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    let line = String::from_utf8_lossy(text).lines().next().unwrap_or("").trim().to_owned();
    if output.status.success() { Ok(line) } else { Err(line) }
}

/// Another program of this name may stand before ours in PATH.
fn only_one() -> Result<String, String> {
    let own = std::env::current_exe().and_then(std::fs::canonicalize).map_err(|e| e.to_string())?;
    let first = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .map(|dir| dir.join("pipectl"))
        .find(|candidate| candidate.is_file());
    match first.and_then(|f| std::fs::canonicalize(f).ok()) {
        Some(other) if other != own => Err(format!("{} comes first", other.display())),
        _ => Ok(own.display().to_string()),
    }
}
