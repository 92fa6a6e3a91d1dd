//! Which commits a deployment brings to its place first: reachable from its own, and from nothing
//! that was ever deployed there with success.

use std::str::FromStr as _;

use pipeyard_git::{CommitRange, Mirror, Sha};
use pipeyard_store::deployments::DeployedCommit;

use super::carry::{Carry, Trouble};

/// More commits than this are cut off.
const LIMIT: usize = 5_000;

/// Finds and stores them. What can't be found is stored as unknown: metrics leave it out and say so.
pub(super) async fn record(carry: &mut Carry<'_>) -> Result<(), Trouble> {
    let store = &carry.state.store;
    let d = &carry.stored.deployment;
    let deployed = store.deployed_shas(&d.environment, &d.service).await?;
    let (state, commits) = if deployed.is_empty() {
        ("first_deployment", Vec::new())
    } else {
        // When the push came in: nothing of it was seen later.
        let seen = store.run(d.release.run).await?.map(|run| run.run.created_at);
        match range(carry, &deployed).await {
            Ok(Some(commits)) => {
                let commits = commits.into_iter().map(|commit| DeployedCommit {
                    is_merge: commit.is_merge(),
                    sha: commit.sha.to_string(),
                    title: commit.title,
                    author: commit.author_name,
                    authored_at: commit.authored_at,
                    committed_at: commit.committed_at,
                    first_seen: seen,
                    is_cherry_pick: false,
                });
                ("known", commits.collect())
            }
            Ok(None) => ("unknown", Vec::new()),
            Err(error) => {
                tracing::warn!(deployment.id = %d.id, error = %error, "its commits can't be read");
                ("unknown", Vec::new())
            }
        }
    };
    store.set_commits(d.id, state, commits).await?;
    carry.stored.commits_state = state.to_owned();
    Ok(())
}

async fn range(
    carry: &Carry<'_>,
    deployed: &[String],
) -> anyhow::Result<Option<Vec<pipeyard_git::CommitInfo>>> {
    let release = &carry.stored.deployment.release;
    let path = carry.state.mirrors.path(release.repo);
    anyhow::ensure!(path.is_dir(), "there is no mirror of {}", release.repo_name);
    let mirror = Mirror::open_or_init(path).await?;
    let new = Sha::from_str(&release.commit)?;
    let deployed: Vec<Sha> = deployed.iter().filter_map(|sha| Sha::from_str(sha).ok()).collect();
    match mirror.commit_range(&new, &deployed, LIMIT, None).await? {
        CommitRange::Known { commits, truncated: false } => Ok(Some(commits)),
        CommitRange::Known { truncated: true, .. } | CommitRange::Unknown { .. } => Ok(None),
    }
}
