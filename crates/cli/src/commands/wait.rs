//! `wait`: silent until something has ended; for scripts.

use std::time::Duration;

use pipeyard_api::{client::Client, deploys::DeploymentDetail, views::RunDetail};
use pipeyard_model::Status;

use super::{deploy, duration, runs};
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
};

/// Wait, silently, until something has ended.
#[derive(Debug, clap::Subcommand)]
pub enum Wait {
    /// Until the server is ready.
    Server(Limit),
    /// Until a run has ended; the exit code tells how.
    Run {
        /// Its number, or `latest`.
        run: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// Until a deployment has ended; the exit code tells how.
    Deploy {
        /// Its number, or `latest`.
        deployment: String,
        #[command(flatten)]
        limit: Limit,
    },
}

/// How long to wait.
#[derive(Debug, clap::Args)]
pub struct Limit {
    /// Give up after so long, 90s, 10m, 2h.
    #[arg(long, value_parser = duration, default_value = "1h")]
    timeout: Duration,
}

/// How often to look.
const PAUSE: Duration = Duration::from_millis(500);

impl Wait {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let (limit, what) = match &self {
            Self::Server(limit) | Self::Run { limit, .. } | Self::Deploy { limit, .. } => {
                (limit.timeout, &self)
            }
        };
        match tokio::time::timeout(limit, until(&client, what)).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(Exit::GaveUp),
        }
    }
}

async fn until(client: &Client, what: &Wait) -> Outcome {
    loop {
        let asked = match what {
            Wait::Server(_) => {
                client.open("/readyz", &[]).await.map(|_| Some(Exit::Ok)).map_err(Failure::from)
            }
            Wait::Run { run, .. } => {
                let path = format!("/api/runs/{}", pipeyard_api::client::escape(run));
                client.get::<RunDetail>(&path).await.map_err(Failure::from).map(|detail| {
                    (detail.run.status == Status::Finished)
                        .then(|| runs::exit_of(detail.run.conclusion))
                })
            }
            Wait::Deploy { deployment, .. } => {
                let path = format!("/api/deployments/{}", pipeyard_api::client::escape(deployment));
                client.get::<DeploymentDetail>(&path).await.map_err(Failure::from).map(|detail| {
                    (detail.deployment.status == Status::Finished)
                        .then(|| deploy::exit_of(&detail.deployment))
                })
            }
        };
        match asked {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => {}
            // A server that is away may come back; the caller's limit ends the wait.
            Err(failure) if failure.exit == Exit::Unreachable => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
