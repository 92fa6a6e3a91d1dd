//! `pipectl demo`: the whole story on this machine, told and checked.
//!
//! It starts every part as a process of its own, pushes three versions of the sample shop through a
//! real bare repository, and looks at what came of it from outside: through the API, through Git,
//! and through the eyes of simulated users at the proxy. What it should find is written by hand in
//! [`expect`], not computed by the code under test.

mod expect;
mod load;
mod machine;
mod parts;
mod ports;
mod repo;
mod shop;
mod story;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context as _;
use pipeyard_cli::exit::Exit;
use ports::{Ports, SPAN, USUAL};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{supervise::shutdown_signal, up::Up};

/// Show the main job: push, build, canary, rolling, a bad version rolled back, DORA metrics.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// A shop to show instead of the one that is built in.
    #[arg(long)]
    shop: Option<PathBuf>,
    /// The first of the ports; all others follow from it.
    #[arg(long, default_value_t = USUAL, value_parser = clap::value_parser!(u16).range(1024..=i64::from(u16::MAX - SPAN)))]
    port: u16,
    /// Where the demo keeps everything; removed at its start.
    #[arg(long, default_value = ".demo")]
    data: PathBuf,
    /// Check every fact of the story and end; the only line on standard output is one JSON object.
    #[arg(long)]
    check: bool,
    /// Stop what an earlier demo left running and remove it.
    #[arg(long)]
    down: bool,
    /// Seed of the simulated users.
    #[arg(long, default_value_t = 20)]
    seed: u64,
}

/// A line of the story, on standard error: standard output is for the facts.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// What the demo's folder has in it from its first moment: nothing else is ever removed.
const MARK: &str = ".pipeyard-demo";

impl Demo {
    pub(crate) async fn main(self) -> anyhow::Result<ExitCode> {
        let shutdown = shutdown_signal()?;
        is_ours(&self.data)?;
        parts::take_down(&self.data).await?;
        if self.down {
            tell("the demo is down; nothing is left of it");
            return Ok(ExitCode::SUCCESS);
        }
        let parts = Parts { shutdown: shutdown.child_token(), tasks: TaskTracker::new() };
        let shown = tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            shown = self.show(&parts) => Some(shown),
        };
        // What ran beside it may have been told first, and have failed for that.
        let shown = shown.filter(|shown| shown.is_ok() || !shutdown.is_cancelled());
        if let Some(Ok(true)) = shown
            && self.stays()
        {
            shutdown.cancelled().await;
        }
        if shown.is_none() {
            tell("interrupted: the demo ends and removes what it made");
        }
        parts.end().await;
        match shown {
            Some(Err(error)) => {
                let log = self.data.join(parts::LOG);
                if log.is_file() {
                    tell(&format!("what the parts said is in {}", log.display()));
                }
                Err(error)
            }
            Some(Ok(_)) => {
                parts::take_down(&self.data).await?;
                Ok(ExitCode::SUCCESS)
            }
            None => {
                parts::take_down(&self.data).await?;
                Ok(Exit::Interrupted.into())
            }
        }
    }

    /// Whether it goes on after the story, for somebody to look around.
    fn stays(&self) -> bool {
        use std::io::IsTerminal as _;
        !self.check && std::io::stdout().is_terminal()
    }

    /// Starts everything and tells the story. An error is what isn't as it should be.
    async fn show(&self, parts: &Parts) -> anyhow::Result<bool> {
        let began = Instant::now();
        pipeyard_private::folder(&self.data, &[MARK])?;
        let dir = std::fs::canonicalize(&self.data)?;
        std::fs::write(dir.join(MARK), "made by pipectl demo\n")?;
        let ports = Ports::from(self.port);
        let shop = shop::lay_out(self.shop.as_deref(), &dir)?;
        let envs = shop::environments(&shop, ports)?;
        let services: Vec<(String, u16)> = envs
            .environments
            .values()
            .flat_map(|e| e.services.iter().map(|(name, s)| (name.to_string(), s.listen)))
            .collect();
        if let Err(problem) = machine::check(ports, &services, &dir).await {
            // Nothing of the demo is worth looking at.
            let _ = std::fs::remove_dir_all(&dir);
            return Err(problem);
        }
        let demo = parts::Running::start(&dir, ports, parts).await?;
        let mut facts = story::tell_story(&demo, &shop, &envs, self.seed)
            .await
            .context("the story broke off")?;
        let problems = expect::problems(&facts);
        facts["seconds"] = json!(began.elapsed().as_secs());
        facts["ok"] = json!(problems.is_empty());
        facts["problems"] = json!(problems);
        if self.check {
            writeln!(std::io::stdout().lock(), "{facts}").context("failed to print the facts")?;
        }
        for problem in &problems {
            tell(&format!("NOT AS IT SHOULD BE: {problem}"));
        }
        anyhow::ensure!(problems.is_empty(), "{} facts aren't as they should be", problems.len());
        if self.stays() {
            let code = demo.login_code().await?;
            tell("");
            tell(&format!("Look around: {}/login#code={code}", demo.url()));
            tell("Ctrl-C ends the demo and removes everything.");
        }
        Ok(true)
    }
}

/// The demo's processes, which end however the story does.
#[derive(Debug)]
pub(crate) struct Parts {
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Parts {
    async fn end(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A folder that isn't there, is empty, or was made by a demo. Others aren't touched: it is removed
/// at the start.
fn is_ours(data: &Path) -> anyhow::Result<()> {
    let entries = match std::fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format!("failed to read {}", data.display())),
    };
    // Older demos left no mark.
    let ours = [MARK, parts::LOG].iter().any(|name| data.join(name).is_file());
    anyhow::ensure!(
        ours || entries.count() == 0,
        "{} holds something else than a demo, and a demo removes its folder; fix: name a folder \
         that isn't there with --data",
        data.display()
    );
    Ok(())
}

/// The settings of `up` for a demo.
fn up(data: &Path, ports: Ports) -> Up {
    Up {
        data: data.to_path_buf(),
        listen: ports.server(),
        fleet_listen: ports.fleet(),
        proxy_admin: ports.proxy_admin(),
        slots: 2,
        executor: "docker".into(),
        stop_proxy: true,
        tls: crate::roles::TlsFiles::default(),
        public_url: None,
        trusted_proxy: false,
        limits: crate::roles::RunnerLimits::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_elses_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        assert!(is_ours(&data).is_ok(), "not there");
        std::fs::create_dir(&data).unwrap();
        assert!(is_ours(&data).is_ok(), "empty");
        std::fs::write(data.join("thesis.txt"), "years of work").unwrap();
        let problem = is_ours(&data).unwrap_err().to_string();
        assert!(problem.contains("holds something else"), "{problem}");
        assert!(is_ours(&data.join("thesis.txt")).is_err(), "a file");
        std::fs::write(data.join(MARK), "").unwrap();
        assert!(is_ours(&data).is_ok(), "a demo's");
    }
}
