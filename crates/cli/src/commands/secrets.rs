//! `secrets`: values that jobs ask for by name. A value is read from standard input or a prompt,
//! never from an argument, which other users of the machine could see.

use std::io::Read as _;

use pipeyard_api::{
    client::escape,
    views::{SecretView, SetSecret},
};
use pipeyard_model::{RepoName, SecretName};

use super::age;
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Secrets of jobs.
#[derive(Debug, clap::Subcommand)]
pub enum Secrets {
    /// List names; values are never shown.
    List,
    /// Set a value, from standard input or a prompt.
    Set {
        /// Its name, also the variable in the step.
        name: SecretName,
        /// Only for this repository.
        #[arg(long)]
        repo: Option<RepoName>,
        /// Read the value from standard input; a final line break is dropped.
        #[arg(long)]
        stdin: bool,
    },
    /// Remove one.
    Rm {
        /// Its name.
        name: SecretName,
        /// The repository's own.
        #[arg(long)]
        repo: Option<RepoName>,
    },
}

fn path(name: &SecretName, repo: Option<&RepoName>) -> String {
    let repo = repo.map(|r| format!("?repo={}", escape(r.as_str()))).unwrap_or_default();
    format!("/api/secrets/{name}{repo}")
}

impl Secrets {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::List => {
                let secrets: Vec<SecretView> = client.get("/api/secrets").await?;
                context.print(
                    &secrets,
                    &[
                        Column("NAME", |r| cell(&r["name"])),
                        Column("REPO", |r| r["repo"].as_str().unwrap_or("(all)").to_owned()),
                        Column("UPDATED", |r| age(&r["updated_at"])),
                        Column("USED", |r| age(&r["used_at"])),
                    ],
                )?;
            }
            Self::Set { name, repo, stdin } => {
                let value = value(stdin, name.as_str())?;
                let _: serde_json::Value =
                    client.put(&path(&name, repo.as_ref()), &SetSecret { value }).await?;
                term::say(&format!("{name} is set"));
            }
            Self::Rm { name, repo } => client.delete(&path(&name, repo.as_ref())).await?,
        }
        Ok(Exit::Ok)
    }
}

/// From standard input if that is asked for or nobody can be asked, otherwise from a prompt.
pub(super) fn value(stdin: bool, name: &str) -> Result<String, Failure> {
    if stdin || !term::stdin_is_terminal() { from_stdin() } else { prompt(name) }
}

fn from_stdin() -> Result<String, Failure> {
    let mut value = String::new();
    std::io::stdin()
        .take(70_000)
        .read_to_string(&mut value)
        .map_err(|e| Failure::usage(format!("failed to read the value: {e}")))?;
    if value.ends_with('\n') {
        value.pop();
    }
    Ok(value)
}

/// Asks on the terminal without showing what is typed.
fn prompt(name: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    term::say(&format!("Value of {name} (not shown):"));
    let before = tcgetattr(&stdin).map_err(|e| Failure::usage(e.to_string()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &silent).map_err(|e| Failure::usage(e.to_string()))?;
    let mut value = String::new();
    let read = stdin.read_line(&mut value);
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before);
    read?;
    restored.map_err(|e| Failure::usage(e.to_string()))?;
    Ok(value.trim_end_matches('\n').to_owned())
}
