//! `artifacts`: kept outputs of jobs.

use std::path::PathBuf;

use futures_util::StreamExt as _;
use pipeyard_api::views::ArtifactView;
use tokio::io::AsyncWriteExt as _;

use super::runs::run_number;
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Kept outputs of jobs.
#[derive(Debug, clap::Subcommand)]
pub enum Artifacts {
    /// List those of a run.
    List {
        /// The run's number, or `latest`.
        run: String,
    },
    /// Download one; its digest is checked.
    Get {
        /// The run's number, or `latest`.
        run: String,
        /// Its path, as listed.
        path: String,
        /// Where to; the path's last part in this folder if absent, `-` for standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

impl Artifacts {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::List { run } => {
                let run = run_number(&client, &run).await?;
                let artifacts: Vec<ArtifactView> =
                    client.get(&format!("/api/runs/{run}/artifacts")).await?;
                context.print(
                    &artifacts,
                    &[
                        Column("JOB", |r| cell(&r["job"])),
                        Column("PATH", |r| cell(&r["path"])),
                        Column("SIZE", |r| cell(&r["size"])),
                        Column("SHA256", |r| cell(&r["sha256"])),
                        Column("REMOVED", |r| cell(&r["removed_at"])),
                    ],
                )?;
            }
            Self::Get { run, path, to } => {
                let run = run_number(&client, &run).await?;
                let artifacts: Vec<ArtifactView> =
                    client.get(&format!("/api/runs/{run}/artifacts")).await?;
                let known =
                    || artifacts.iter().map(|a| a.path.as_str()).collect::<Vec<_>>().join(", ");
                let artifact =
                    artifacts.iter().rev().find(|a| a.path == path).ok_or_else(|| {
                        Failure::not_found(format!("run {run} kept no {path:?}"))
                            .hint(format!("it kept: {}", known()))
                    })?;
                download(&client, artifact, to).await?;
            }
        }
        Ok(Exit::Ok)
    }
}

async fn download(
    client: &pipeyard_api::client::Client,
    artifact: &ArtifactView,
    to: Option<PathBuf>,
) -> Result<(), Failure> {
    use sha2::{Digest as _, Sha256};
    let response = client.open(&format!("/api/artifacts/{}", artifact.id), &[]).await?;
    let mut body = response.bytes_stream();
    let to =
        to.unwrap_or_else(|| PathBuf::from(artifact.path.rsplit('/').next().unwrap_or("artifact")));
    let stdout = to.as_os_str() == "-";
    let partial = to.with_extension("partial");
    let mut file = if stdout { None } else { Some(tokio::fs::File::create(&partial).await?) };
    let mut digest = Sha256::new();
    while let Some(piece) = body.next().await {
        let piece = piece
            .map_err(|e| Failure::new(Exit::Unreachable, format!("the download broke off: {e}")))?;
        digest.update(&piece);
        match &mut file {
            Some(file) => file.write_all(&piece).await?,
            None => term::put(&piece),
        }
    }
    let sha256 = hex::encode(digest.finalize());
    if sha256 != artifact.sha256 {
        return Err(Failure::new(
            Exit::Failed,
            format!("the bytes have the digest {sha256}, not {}", artifact.sha256),
        ));
    }
    if let Some(mut file) = file {
        file.flush().await?;
        tokio::fs::rename(&partial, &to).await?;
        term::say(&format!("{} ({} bytes, sha256 {sha256})", to.display(), artifact.size));
    }
    Ok(())
}
