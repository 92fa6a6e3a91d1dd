//! `runners`: who executes jobs.

use pipeyard_api::views::{RegistrationToken, RunnerView};
use pipeyard_model::RunnerId;

use super::age;
use crate::{
    context::Context,
    exit::{Exit, Outcome},
    output::{Column, cell},
    term,
};

/// Runners.
#[derive(Debug, clap::Subcommand)]
pub enum Runners {
    /// List them.
    List,
    /// Make a token that registers a runner.
    Token,
    /// Remove one: its key is refused from now on, its jobs are offered again.
    Rm {
        /// Its id.
        id: RunnerId,
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
                        Column("JOBS", |r| list(&r["jobs"])),
                        Column("SEEN", |r| age(&r["seen_at"])),
                        Column("ID", |r| cell(&r["id"])),
                    ],
                )?;
            }
            Self::Token => {
                let token: RegistrationToken = client.post("/api/runners/tokens", &()).await?;
                term::say("start a runner with it: pipectl runner --server URL --token-file FILE");
                context.print(
                    &token,
                    &[
                        Column("TOKEN", |r| cell(&r["token"])),
                        Column("EXPIRES", |r| cell(&r["expires_at"])),
                    ],
                )?;
            }
            Self::Rm { id } => client.delete(&format!("/api/runners/{id}")).await?,
        }
        Ok(Exit::Ok)
    }
}

fn list(value: &serde_json::Value) -> String {
    let items: Vec<_> = value.as_array().into_iter().flatten().map(cell).collect();
    if items.is_empty() { "-".into() } else { items.join(", ") }
}
