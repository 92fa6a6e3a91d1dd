//! Finds pushes that no hook told of: at the start and every minute the branches of each remote are
//! compared with the last seen. What differs is taken as a push and asks for a run, as the hook
//! would have.
//!
//! A hook may be on its way while the comparison runs, so a difference is taken for a push only a
//! moment later, and the store knows a push that a hook has told of in the meantime. A difference
//! that a newer push has overtaken by then is left alone: made up now, an old commit would run after
//! a newer one. At the start nothing is waited for, because no hook could have been heard before.
//! The first sight of a repository asks for nothing.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use pipeyard_api::views::Event;
use pipeyard_git::{Mirror, RemoteRefs, Sha};
use pipeyard_model::RepoId;
use pipeyard_store::{
    StoreResult,
    intake::{Accepted, COMPARISON, Disposition, NewDelivery, NewRunRequest},
    repos::{Forge, Repo},
    runs::RunFilter,
};
use tokio_util::sync::CancellationToken;

use crate::{AppState, mirror};

/// `pipectl hook` gives up after 2 s; what it has told is stored by then.
const HOOK_GRACE: Duration = Duration::from_millis(2500);
/// Remotes that are asked at the same time.
const AT_ONCE: usize = 4;
/// Mirrors are looked after so often.
const MAINTENANCE: Duration = Duration::from_secs(60 * 60);
/// Says that the repository was seen, also when it has no branch.
pub const SEEN: &str = "HEAD";

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = keep_comparing(&state) => {}
        () = keep_maintaining(&state) => {}
    }
}

async fn keep_comparing(state: &AppState) {
    let period = Duration::from_secs(state.config.refs_seconds.max(1));
    let mut memory = Memory::default();
    loop {
        round(state, &mut memory).await;
        tokio::select! {
            () = state.wake.refs.notified() => {}
            () = tokio::time::sleep(period) => {}
        }
    }
}

/// What one round tells the next. Losing it costs nothing but time.
#[derive(Debug, Default)]
struct Memory {
    /// Differences at GitHub's: its hook gets a whole round to arrive.
    waiting: HashMap<(RepoId, String), Sha>,
    /// Compared once already since the start.
    compared: HashSet<RepoId>,
}

async fn round(state: &AppState, memory: &mut Memory) {
    let found: Vec<_> = stream::iter(repos(state).await)
        .map(|repo| async move {
            let differences = look(state, &repo).await;
            (repo, differences)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut waiting = HashMap::new();
    let (mut missed, mut recent) = (Vec::new(), Vec::new());
    for (repo, differences) in found {
        let Some(differences) = differences else { continue };
        let first = memory.compared.insert(repo.id);
        for difference in differences {
            if first {
                missed.push((repo.clone(), difference));
                continue;
            }
            let key = (repo.id, difference.reference.clone());
            if repo.forge == Forge::Github && memory.waiting.get(&key) != Some(&difference.after) {
                waiting.insert(key, difference.after);
            } else {
                recent.push((repo.clone(), difference));
            }
        }
    }
    memory.waiting = waiting;
    let stored = async {
        make_up(state, &missed).await?;
        if !recent.is_empty() {
            tokio::time::sleep(HOOK_GRACE).await;
            make_up(state, &not_overtaken(state, recent).await?).await?;
        }
        StoreResult::Ok(())
    };
    if let Err(error) = stored.await {
        tracing::error!(%error, "missed pushes couldn't be stored");
    }
}

/// Leaves out branches that a hook has moved on in the meantime.
async fn not_overtaken(
    state: &AppState,
    differences: Vec<(Repo, Difference)>,
) -> StoreResult<Vec<(Repo, Difference)>> {
    let mut left = Vec::new();
    for (repo, difference) in differences {
        let seen = state.store.seen_refs(repo.id).await?;
        let seen = seen.into_iter().find(|(name, _)| *name == difference.reference);
        if seen.map(|(_, sha)| sha) == difference.before {
            left.push((repo, difference));
        }
    }
    Ok(left)
}

async fn repos(state: &AppState) -> Vec<Repo> {
    state.store.repos().await.unwrap_or_else(|error| {
        tracing::error!(%error, "the repositories couldn't be read");
        Vec::new()
    })
}

/// Repacks mirrors, one after another, and removes those of removed repositories.
async fn keep_maintaining(state: &AppState) {
    loop {
        tokio::time::sleep(MAINTENANCE).await;
        if let Err(error) = maintain(state).await {
            tracing::error!(%error, "the mirrors couldn't be looked after");
        }
    }
}

/// Looks after every mirror once.
///
/// # Errors
/// When the store fails.
pub async fn maintain(state: &AppState) -> StoreResult<()> {
    for id in state.mirrors.ids() {
        let path = state.mirrors.path(id);
        if state.store.repo(id).await?.is_none() {
            let _only_writer = state.mirrors.write_lock(id).await;
            match tokio::fs::remove_dir_all(&path).await {
                Ok(()) => tracing::info!(repo = %id, "removed the mirror of a removed repository"),
                Err(error) => tracing::warn!(repo = %id, %error, "a mirror couldn't be removed"),
            }
            continue;
        }
        let kept = match mirror::open(state, id).await {
            Ok(mirror) => {
                forget_strangers(state, id, &mirror).await?;
                mirror.maintain().await.map_err(Into::into)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(repo = %id, %error, "a mirror couldn't be repacked");
        }
    }
    Ok(())
}

/// Strangers' commits are kept so long after the last run of them has ended.
const STRANGERS: Duration = Duration::from_secs(14 * 24 * 3600);

/// Keeps strangers' commits no longer whose runs ended long ago. A rerun fetches them again.
async fn forget_strangers(state: &AppState, repo: RepoId, mirror: &Mirror) -> StoreResult<()> {
    let pinned = match mirror.strangers().await {
        Ok(pinned) => pinned,
        Err(error) => {
            tracing::warn!(repo = %repo, %error, "a mirror's refs can't be read");
            return Ok(());
        }
    };
    let long_ago = state.clock.now() - STRANGERS;
    for sha in pinned {
        let commit = Some(sha.to_string());
        let filter = RunFilter { repo: Some(repo), commit, limit: 200, ..RunFilter::default() };
        let runs = state.store.runs(filter).await?;
        if runs.iter().any(|run| run.finished_at.is_none_or(|end| end > long_ago)) {
            continue;
        }
        let _only_writer = state.mirrors.write_lock(repo).await;
        if let Err(error) = mirror.unpin_stranger(&sha).await {
            tracing::warn!(repo = %repo, %error, "a commit can't be unpinned");
        }
    }
    Ok(())
}

/// Compares every repository once and makes up what was missed, without waiting for hooks; answers
/// how many pushes were missed.
///
/// # Errors
/// When the store fails.
pub async fn run_once(state: &AppState) -> StoreResult<usize> {
    let mut made_up = 0;
    for repo in state.store.repos().await? {
        let differences = look(state, &repo).await.unwrap_or_default();
        let ripe: Vec<_> =
            differences.into_iter().map(|difference| (repo.clone(), difference)).collect();
        made_up += make_up(state, &ripe).await?;
    }
    Ok(made_up)
}

/// A branch that isn't where it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    reference: String,
    before: Option<String>,
    after: Sha,
}

/// Compares one repository. `None` if it couldn't be; its problem is recorded then.
async fn look(state: &AppState, repo: &Repo) -> Option<Vec<Difference>> {
    compare(state, repo).await.unwrap_or_else(|error| {
        tracing::error!(repo = %repo.name, %error, "a repository's refs couldn't be compared");
        None
    })
}

async fn compare(state: &AppState, repo: &Repo) -> StoreResult<Option<Vec<Difference>>> {
    // Read before the remote is asked: a push that a hook tells of in between is then found twice,
    // which the store knows, and not taken for a step back.
    let seen: HashMap<String, String> = state.store.seen_refs(repo.id).await?.into_iter().collect();
    let refs = match mirror::remote_refs(state, repo).await {
        Ok(refs) => refs,
        Err(error) => {
            let problem = Some((error.code().to_owned(), error.to_string()));
            if repo.problem != problem {
                tracing::warn!(repo = %repo.name, %error, "a repository's refs can't be read");
                state.store.set_repo_problem(repo.id, problem).await?;
            }
            return Ok(None);
        }
    };
    // Commits that the remote doesn't have are no problem with reaching it: a push that is handled ends
    // that one.
    if repo.problem.as_ref().is_some_and(|(code, _)| code != "commit_not_found") {
        state.store.set_repo_problem(repo.id, None).await?;
    }
    if seen.is_empty() {
        state.store.record_seen_refs(repo.id, &first_sight(&repo.default_branch, &refs)).await?;
        return Ok(Some(Vec::new()));
    }
    let moved = refs.branches.into_iter().filter_map(|(reference, after)| {
        let before = seen.get(&reference).cloned();
        (before.as_deref() != Some(after.as_str())).then_some(Difference {
            reference,
            before,
            after,
        })
    });
    Ok(Some(moved.collect()))
}

/// What is recorded when a repository is seen for the first time.
#[must_use]
pub fn first_sight(default_branch: &str, refs: &RemoteRefs) -> Vec<(String, String)> {
    let branches = refs.branches.iter().map(|(name, sha)| (name.clone(), sha.to_string()));
    std::iter::once((SEEN.to_owned(), default_branch.to_owned())).chain(branches).collect()
}

/// Stores each difference as a push; answers how many were new.
async fn make_up(state: &AppState, ripe: &[(Repo, Difference)]) -> StoreResult<usize> {
    let mut made_up = 0;
    for (repo, Difference { reference, before, after }) in ripe {
        let request = NewRunRequest {
            event: Event::Push,
            reference: reference.clone(),
            before: before.clone(),
            after: after.to_string(),
            pull_request: None,
            forge_user: None,
        };
        let accepted = state
            .store
            .accept_delivery(NewDelivery {
                repo: repo.id,
                delivery: uuid::Uuid::now_v7().to_string(),
                event: COMPARISON.into(),
                body: Vec::new(),
                body_hash: None,
                received_at: state.clock.now(),
                disposition: Disposition::Requests(vec![request]),
            })
            .await?;
        if accepted == Accepted::New {
            tracing::info!(repo = %repo.name, reference, %after, "made up a push that no hook told of");
            made_up += 1;
        }
    }
    if made_up > 0 {
        state.wake.compile.notify_one();
    }
    Ok(made_up)
}
