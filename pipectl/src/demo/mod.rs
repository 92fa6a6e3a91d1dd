//! `pipectl demo`: the whole story on this machine, told and checked.
//!
//! It starts every part as a process of its own, pushes three versions of the sample shop through a
//! real bare repository, and looks at what came of it from outside: through the API, through Git,
//! and through the eyes of simulated users at the proxy. What it should find is written by hand in
//! [`expect`], not computed by the code under test.

mod expect;
mod load;
mod parts;
mod repo;
mod story;

use std::{io::Write as _, path::PathBuf, time::Instant};

use anyhow::Context as _;
use serde_json::json;

use crate::{supervise::shutdown_signal, up::Up};

/// Show the main job: push, build, canary, rolling, a bad version rolled back, DORA metrics.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// The sample shop.
    #[arg(long, default_value = "pipelines/examples/shop")]
    shop: PathBuf,
    /// Where the demo keeps everything; removed at its start.
    #[arg(long, default_value = ".demo")]
    data: PathBuf,
    /// Check every fact of the story and end; the last line is one JSON object.
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

impl Demo {
    pub(crate) async fn main(self) -> anyhow::Result<()> {
        use std::io::IsTerminal as _;
        parts::take_down(&self.data).await?;
        if self.down {
            tell("the demo is down; nothing is left of it");
            return Ok(());
        }
        let shutdown = shutdown_signal()?;
        let stay = !self.check && std::io::stdout().is_terminal();
        let began = Instant::now();
        let mut demo = parts::Running::start(&self.data, shutdown.clone()).await?;
        let told = tokio::select! {
            told = story::tell_story(&demo, &self.shop, self.seed) => told,
            () = shutdown.cancelled() => Err(anyhow::anyhow!("interrupted")),
        };
        let outcome = match told {
            Err(error) => {
                tell(&format!("the story broke off: {error:#}"));
                tell(&format!("what the parts said is in {}", demo.log_file().display()));
                Err(error)
            }
            Ok(mut facts) => {
                let problems = expect::problems(&facts);
                facts["seconds"] = json!(began.elapsed().as_secs());
                facts["ok"] = json!(problems.is_empty());
                facts["problems"] = json!(problems);
                if stay {
                    let code = demo.login_code().await?;
                    tell("");
                    tell(&format!("Look around: {}/login#code={code}", demo.url()));
                    tell("Ctrl-C ends the demo and removes everything.");
                    shutdown.cancelled().await;
                }
                writeln!(std::io::stdout().lock(), "{facts}")
                    .context("failed to print the facts")?;
                if problems.is_empty() {
                    Ok(())
                } else {
                    for problem in &problems {
                        tell(&format!("NOT AS IT SHOULD BE: {problem}"));
                    }
                    Err(anyhow::anyhow!("{} facts aren't as they should be", problems.len()))
                }
            }
        };
        demo.stop().await;
        if outcome.is_ok() {
            parts::take_down(&self.data).await?;
        }
        outcome
    }
}

/// The settings of `up` for a demo.
fn up(data: &std::path::Path) -> Up {
    Up {
        data: data.to_path_buf(),
        listen: ([127, 0, 0, 1], 8470).into(),
        fleet_listen: ([127, 0, 0, 1], 8471).into(),
        proxy_admin: ([127, 0, 0, 1], 8472).into(),
        slots: 2,
        executor: "docker".into(),
        stop_proxy: true,
    }
}
