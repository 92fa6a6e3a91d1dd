//! The commands of `pipectl`: what people and scripts ask of a server, and the local ones that need
//! none (`lint`, `explain`, `hook`).
//!
//! Habits: data on standard output, everything else on standard error; the same fields whether a
//! terminal or a pipe reads them; no colour, redraw, pager or prompt off a terminal; `--query` is
//! applied once over the whole result; the exit code tells the outcome ([`exit::Exit`]).

pub mod commands;
pub mod context;
pub mod exit;
pub mod output;
pub mod profile;
mod table;
mod term;

use std::{path::PathBuf, process::ExitCode};

pub use exit::{Exit, Failure, Outcome};

use crate::output::Format;

/// Options of every command.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The profile to use; see `pipectl login --help`.
    #[arg(long, global = true, env = "PIPEYARD_PROFILE")]
    pub profile: Option<String>,
    /// The server's address, instead of the profile's.
    #[arg(long, global = true, env = "PIPEYARD_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Believe the certificate authorities in this PEM file besides the system's.
    #[arg(long, global = true, env = "PIPEYARD_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How to print results.
    #[arg(long, short = 'o', global = true, env = "PIPEYARD_OUTPUT", value_enum, default_value_t)]
    pub output: Format,
    /// A JMESPath expression, applied once over the whole result.
    #[arg(long, global = true, value_name = "JMESPATH")]
    pub query: Option<String>,
    /// Where profiles are kept.
    #[arg(long, global = true, env = "PIPEYARD_PROFILES", value_name = "FILE", hide = true)]
    pub profiles: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Sign in and keep the token in a profile.
    Login(commands::login::Login),
    /// Forget a profile's token.
    Logout(commands::login::Logout),
    /// Check pipeline files.
    Lint(commands::lint::Lint),
    /// Explain a code: of a finding in a pipeline file, or of why a job ended.
    Explain(commands::explain::Explain),
    /// Repositories.
    #[command(subcommand)]
    Repos(commands::repos::Repos),
    /// Tell the server about a push; called by Git's post-receive.
    Hook(commands::hook::Hook),
    /// Secrets of jobs.
    #[command(subcommand)]
    Secrets(commands::secrets::Secrets),
    /// Runs of pipelines.
    #[command(subcommand)]
    Runs(commands::runs::Runs),
    /// Print or follow the log of a job.
    Logs(commands::logs::Logs),
    /// Kept outputs of jobs.
    #[command(subcommand)]
    Artifacts(commands::artifacts::Artifacts),
    /// Runners.
    #[command(subcommand)]
    Runners(commands::runners::Runners),
    /// Environments and their services.
    #[command(subcommand)]
    Envs(commands::envs::Envs),
    /// Deployments.
    #[command(subcommand)]
    Deploy(commands::deploy::Deploy),
    /// DORA metrics, with the rows behind every number.
    Dora(commands::dora::Dora),
    /// Production failures.
    #[command(subcommand)]
    Incidents(commands::incidents::Incidents),
    /// Sessions and API tokens.
    #[command(subcommand)]
    Tokens(commands::tokens::Tokens),
    /// Signed messages of failures.
    #[command(subcommand)]
    Notifications(commands::notifications::Notifications),
    /// Users and their roles.
    #[command(subcommand)]
    Users(commands::users::Users),
    /// Who changed what.
    Audit(commands::audit::Audit),
    /// Wait, silently, until something has ended.
    #[command(subcommand)]
    Wait(commands::wait::Wait),
    /// Check that everything is in place, and say how to fix what isn't.
    Doctor(commands::doctor::Doctor),
}

/// Carries a command out.
pub async fn run(global: Global, command: Command) -> ExitCode {
    let context = context::Context::new(global);
    let work = async {
        match command {
            Command::Login(it) => it.run(&context).await,
            Command::Logout(it) => it.run(&context).await,
            Command::Lint(it) => it.run(&context).await,
            Command::Explain(it) => it.run(&context),
            Command::Repos(it) => it.run(&context).await,
            Command::Hook(it) => it.run().await,
            Command::Secrets(it) => it.run(&context).await,
            Command::Runs(it) => it.run(&context).await,
            Command::Logs(it) => it.run(&context).await,
            Command::Artifacts(it) => it.run(&context).await,
            Command::Runners(it) => it.run(&context).await,
            Command::Envs(it) => it.run(&context).await,
            Command::Deploy(it) => it.run(&context).await,
            Command::Dora(it) => it.run(&context).await,
            Command::Incidents(it) => it.run(&context).await,
            Command::Tokens(it) => it.run(&context).await,
            Command::Notifications(it) => it.run(&context).await,
            Command::Users(it) => it.run(&context).await,
            Command::Audit(it) => it.run(&context).await,
            Command::Wait(it) => it.run(&context).await,
            Command::Doctor(it) => it.run(&context).await,
        }
    };
    end(work).await
}

/// Carries a command about a fleet out: it belongs to the role's own subcommand.
pub async fn run_fleet(global: Global, command: commands::fleet::Fleet) -> ExitCode {
    let context = context::Context::new(global);
    end(command.run(&context)).await
}

async fn end(work: impl Future<Output = Outcome>) -> ExitCode {
    let outcome = tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit.into()
        }
    }
}
