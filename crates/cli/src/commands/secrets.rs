//! `secrets`: values that jobs ask for by name. A value is read from standard input or a prompt,
//! never from an argument, which other users of the machine could see.

use std::io::Read as _;

use pipeyard_api::{
    client::escape,
    views::{SecretLimits, SecretView, SetSecret},
};
use pipeyard_model::{BranchGlob, RepoName, SecretName, origin::Event};

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
    /// Set a value, from standard input or a prompt. Limits that aren't named stay as they were; pull
    /// requests from forks never get a secret.
    Set {
        /// Its name, also the variable in the step.
        name: SecretName,
        #[command(flatten)]
        whose: Whose,
        /// Only for commits of branches that match; `*` stops at a slash, `**` is every branch. May be
        /// repeated.
        #[arg(long, value_name = "GLOB", conflicts_with = "default_branch")]
        branch: Vec<BranchGlob>,
        /// Only for commits of the default branch of whichever repository asks.
        #[arg(long)]
        default_branch: bool,
        /// Only for runs that were started so: push, pull_request or manual. May be repeated.
        #[arg(long, value_name = "EVENT")]
        event: Vec<Event>,
        /// Refused: no job can name an environment yet.
        #[arg(long, value_name = "NAME")]
        environment: Vec<String>,
        /// Read the value from standard input; a final line break is dropped.
        #[arg(long)]
        stdin: bool,
    },
    /// Remove one.
    Rm {
        /// Its name.
        name: SecretName,
        #[command(flatten)]
        whose: Whose,
    },
}

/// Whose a secret is.
#[derive(Debug, clap::Args)]
pub struct Whose {
    /// The repository whose it is.
    #[arg(long, conflicts_with = "all_repos")]
    repo: Option<RepoName>,
    /// It is for all repositories, also for those that are added later.
    #[arg(long)]
    all_repos: bool,
}

impl Whose {
    /// The path of a secret with this name.
    fn path(&self, name: &SecretName) -> Result<String, Failure> {
        match &self.repo {
            Some(repo) => Ok(format!("/api/secrets/{name}?repo={}", escape(repo.as_str()))),
            None if self.all_repos => Ok(format!("/api/secrets/{name}?all_repos=true")),
            None => Err(Failure::usage(format!("say whose the secret {name} is"))
                .hint("--repo REPO, or --all-repos for every repository")),
        }
    }
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
                        Column("FOR", |r| cell(&r["scope"])),
                        Column("UPDATED", |r| age(&r["updated_at"])),
                        Column("USED", |r| age(&r["used_at"])),
                    ],
                )?;
            }
            Self::Set { name, whose, branch, default_branch, event, environment, stdin } => {
                if !environment.is_empty() {
                    return Err(Failure::usage(
                        "a secret can't be limited to an environment: no job can name one yet",
                    )
                    .hint("limit it to the branches that are deployed from: --branch main"));
                }
                let path = whose.path(&name)?;
                let branches = branch.into_iter().map(String::from).collect::<Vec<_>>();
                let set = SetSecret {
                    value: value(stdin, name.as_str())?,
                    branches: Some(branches).filter(|branches| !branches.is_empty()),
                    default_branch_only: default_branch.then_some(true),
                    events: Some(event).filter(|events| !events.is_empty()),
                    environments: None,
                };
                let limits: SecretLimits = client.put(&path, &set).await?;
                let of = whose.repo.map_or("all repositories".to_owned(), |repo| repo.to_string());
                term::say(&format!("{name} is set for {of}: {}", limits.scope));
            }
            Self::Rm { name, whose } => client.delete(&whose.path(&name)?).await?,
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
