//! `runners`: who executes jobs.

use pipeyard_api::views::{NewRegistrationToken, RegistrationToken, RunnerView};
use pipeyard_model::{RepoName, RunnerId};

use super::age;
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Runners.
#[derive(Debug, clap::Subcommand)]
pub enum Runners {
    /// List them.
    List,
    /// Make a token that registers one runner. Prints it, once.
    Token {
        /// A label that the runner gets; may be repeated.
        #[arg(long = "label", value_name = "LABEL")]
        labels: Vec<String>,
        /// Let the runner name labels beside these.
        #[arg(long)]
        any_label: bool,
        /// A repository whose jobs it takes, and of no other; may be repeated. All if absent.
        #[arg(long = "repo", value_name = "REPO")]
        repos: Vec<RepoName>,
        /// Let it take jobs of forks that a person has approved.
        #[arg(long)]
        forks: bool,
        /// The token is refused after so many minutes, 1 to 1440; 60 if absent.
        #[arg(long)]
        minutes: Option<u32>,
    },
    /// Remove one: its key is refused from now on, its jobs are offered again.
    Rm {
        /// Its name, or its id if several have that name.
        runner: String,
    },
}

impl Runners {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::List => {
                let runners: Vec<RunnerView> = client.get("/api/runners").await?;
                if runners.is_empty() && context.for_people() {
                    term::say(
                        "no runners yet: pipectl runners token, then pipectl runner --server URL --token-file FILE",
                    );
                }
                context.print(
                    &runners,
                    &[
                        Column("NAME", |r| cell(&r["name"])),
                        Column("STATE", |r| cell(&r["state"])),
                        Column("LABELS", |r| list(&r["labels"])),
                        Column("REPOS", |r| {
                            if r["repos"].is_null() { "all".into() } else { list(&r["repos"]) }
                        }),
                        Column("JOBS", |r| list(&r["jobs"])),
                        Column("SEEN", |r| age(&r["seen_at"])),
                        Column("TROUBLE", |r| cell(&r["trouble"])),
                        Column("ID", |r| cell(&r["id"])),
                    ],
                )?;
            }
            Self::Token { labels, any_label, repos, forks, minutes } => {
                let body = NewRegistrationToken { labels, any_label, repos, forks, minutes };
                let token: RegistrationToken = client.post("/api/runners/tokens", &body).await?;
                term::say("start a runner with it: pipectl runner --server URL --token-file FILE");
                context.print(
                    &token,
                    &[
                        Column("TOKEN", |r| cell(&r["token"])),
                        Column("EXPIRES", |r| cell(&r["expires_at"])),
                    ],
                )?;
            }
            Self::Rm { runner } => {
                let id = match runner.parse::<RunnerId>() {
                    Ok(id) => id,
                    Err(_) => {
                        let runners: Vec<RunnerView> = client.get("/api/runners").await?;
                        named(&runners, &runner)?
                    }
                };
                client.delete(&format!("/api/runners/{id}")).await?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// The one runner of this name.
fn named(runners: &[RunnerView], name: &str) -> Result<RunnerId, Failure> {
    let ids: Vec<_> = runners.iter().filter(|r| r.name == name).map(|r| r.id).collect();
    match ids[..] {
        [id] => Ok(id),
        [] => {
            Err(Failure::not_found(format!("there is no runner {name:?}"))
                .hint("pipectl runners list"))
        }
        _ => Err(Failure::usage(format!("{} runners are called {name:?}", ids.len()))
            .hint("give the id of one: pipectl runners list")),
    }
}

fn list(value: &serde_json::Value) -> String {
    let items: Vec<_> = value.as_array().into_iter().flatten().map(cell).collect();
    if items.is_empty() { "-".into() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_is_named_by_its_name_while_that_is_its_own() {
        let runner = |name: &str| RunnerView {
            id: RunnerId::new(),
            name: name.into(),
            labels: vec![],
            state: "online".into(),
            trouble: None,
            version: "0.1.0".into(),
            seen_at: None,
            jobs: vec![],
            repos: None,
            forks: false,
        };
        let runners = [runner("a"), runner("b"), runner("b")];
        assert_eq!(named(&runners, "a").unwrap(), runners[0].id);
        assert_eq!(named(&runners, "b").unwrap_err().exit, Exit::Usage);
        assert_eq!(named(&runners, "c").unwrap_err().exit, Exit::NotFound);
    }
}
