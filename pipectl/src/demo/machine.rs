//! Whether this machine can show the demo. Everything is looked at before anything is started, and
//! what is missing is told at once, each with its fix.

use std::{net::SocketAddr, path::Path, process::Stdio};

use tokio::process::Command;

use super::{
    ports::{Ports, USUAL},
    shop, tell,
};

/// Fails with everything that keeps the demo from starting.
pub(super) async fn check(
    ports: Ports,
    services: &[(String, u16)],
    dir: &Path,
) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for (program, fix) in [
        ("git", "install Git"),
        ("busybox", "install it (Debian: busybox-static): the shop's hosts serve with it"),
        ("setsid", "install util-linux"),
    ] {
        if !is_there(program) {
            wrong.push(format!("there is no {program}; fix: {fix}"));
        }
    }
    match ask("docker", &["version", "--format", "{{.Server.Version}}"]).await {
        Ok(_) => wrong.extend(images(dir).await.err()),
        Err(why) => wrong.push(format!(
            "Docker doesn't answer ({why}); fix: install Docker Engine and start its daemon"
        )),
    }
    let services = services
        .iter()
        .map(|(name, port)| (SocketAddr::from(([127, 0, 0, 1], *port)), format!("service {name}")));
    let taken: Vec<String> = ports
        .parts()
        .into_iter()
        .chain(services)
        .filter_map(|(address, what)| {
            let problem = std::net::TcpListener::bind(address).err()?;
            Some(format!("{} for the {what} ({problem})", address.port()))
        })
        .collect();
    if !taken.is_empty() {
        let other = if ports == Ports::from(USUAL) { 9470 } else { USUAL };
        wrong.push(format!(
            "ports of 127.0.0.1 can't be had: {}; fix: --port {other} (with make: PORT={other}) \
             takes others, or end what listens there (an earlier demo: pipectl demo --down)",
            taken.join(", ")
        ));
    }
    anyhow::ensure!(
        wrong.is_empty(),
        "the demo can't start, and nothing was started:\n  {}",
        wrong.join("\n  ")
    );
    Ok(())
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Makes the shop's image where there is none.
async fn images(dir: &Path) -> Result<(), String> {
    if ask("docker", &["image", "inspect", "--format", "{{.Id}}", shop::IMAGE]).await.is_ok() {
        return Ok(());
    }
    tell(&format!("making the image {} from this machine's busybox", shop::IMAGE));
    let script = dir.join("make-images.sh");
    std::fs::write(&script, shop::MAKE_IMAGES).map_err(|e| e.to_string())?;
    ask("bash", &[&script.display().to_string()]).await.map(drop).map_err(|why| {
        format!("the image {} can't be made ({why}); fix: make images, in a checkout", shop::IMAGE)
    })
}

/// What a program prints, or in one line why it doesn't.
async fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    Err(said.lines().next_back().unwrap_or("it failed without a word").to_owned())
}
