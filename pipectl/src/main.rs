//! `pipectl`: the one executable. It joins the roles and the commands; it holds no rule of its own.

mod admin;
mod config;

mod demo;
mod reference;
mod roles;
mod rotate;
mod supervise;
mod up;

use std::{io::Write as _, process::ExitCode};

use clap::{CommandFactory as _, Parser};

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 cancelled,
4 not signed in or not allowed, 5 not found, 6 server unreachable,
7 gave up waiting, 8 waits for approval, 9 failed but rolled back,
130 interrupted.";

/// Git push to a judged canary to DORA metrics, on machines that you own.
#[derive(Debug, Parser)]
#[command(name = "pipectl", version, about, max_term_width = 100, propagate_version = true)]
#[command(after_help = EXIT_CODES)]
struct Args {
    #[command(flatten)]
    global: pipeyard_cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run everything on this machine: server, runner, fleet and proxy.
    Up(up::Up),
    /// Run the server: webhooks, API and web UI.
    Server(roles::Server),
    /// Run a runner: it claims jobs and executes them.
    Runner(roles::Runner),
    /// Run the embedded CodeDeploy, or manage its hosts.
    Fleet(roles::Fleet),
    /// Run the weighted proxy in front of deployed services.
    Proxy(roles::Proxy),
    /// Run the deploy agent of a host.
    Agent(roles::Agent),
    /// Show the main job: push, build, canary, rolling, a bad version rolled back, DORA metrics.
    Demo(demo::Demo),
    /// Print a new one-time login of a server on this machine.
    LoginCode(roles::LoginCode),
    /// Look after the data of an installation on this machine.
    Admin(admin::Admin),
    /// Print a script that completes commands in your shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the reference of every command as Markdown.
    #[command(hide = true)]
    Reference,
    #[command(flatten)]
    Remote(pipeyard_cli::Command),
}

impl Command {
    /// What a role writes is its user's alone; what an agent installs is meant for others. Before any
    /// thread is started and any file made.
    fn set_mask(&self) {
        match self {
            Self::Up(_)
            | Self::Server(_)
            | Self::Runner(_)
            | Self::Fleet(_)
            | Self::Proxy(_)
            | Self::Demo(_)
            | Self::LoginCode(_)
            | Self::Admin(_) => pipeyard_private::umask(),
            Self::Agent(_) => pipeyard_private::umask_for_others(),
            Self::Completion { .. } | Self::Reference | Self::Remote(_) => {}
        }
    }
}

fn main() -> ExitCode {
    pipeyard_api::client::install_crypto();
    let args = Args::parse();
    args.command.set_mask();
    if let Some(file) = &args.global.ca_file
        && let Err(error) = pipeyard_trust::trust(file)
    {
        return roles::fail(&error.into());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return roles::fail(&anyhow::Error::from(error).context("failed to start")),
    };
    let exit = runtime.block_on(async {
        let ended = match args.command {
            Command::Up(it) => it.main().await,
            Command::Server(it) => it.main().await,
            Command::Runner(it) => it.main(args.global.server).await,
            Command::Fleet(roles::Fleet { command: Some(command), .. }) => {
                return pipeyard_cli::run_fleet(args.global, command).await;
            }
            Command::Fleet(it) => it.main().await,
            Command::Proxy(it) => it.main().await,
            Command::Agent(it) => it.main().await,
            Command::Demo(it) => match it.main().await {
                Ok(exit) => return exit,
                Err(error) => Err(error),
            },
            Command::LoginCode(it) => it.main().await,
            Command::Admin(it) => it.main().await,
            Command::Completion { shell } => {
                clap_complete::generate(
                    shell,
                    &mut Args::command(),
                    "pipectl",
                    &mut std::io::stdout(),
                );
                Ok(())
            }
            Command::Reference => {
                let page = reference::markdown(Args::command());
                std::io::stdout().write_all(page.as_bytes()).map_err(Into::into)
            }
            Command::Remote(command) => return pipeyard_cli::run(args.global, command).await,
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => roles::fail(&error),
        }
    });
    // A read of standard input may never come back; nothing is left to wait for.
    runtime.shutdown_background();
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
