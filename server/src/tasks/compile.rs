//! Turns run requests into runs. What is due of one repository is handled in its order (see
//! [`round`]); repositories at the same time, so that a slow remote holds up nobody else.
//!
//! Each request ends in one of three ways: runs were created, it was closed with a reason, or it is
//! due again later because its commit can't be had. Killing the server anywhere loses nothing: the
//! request stays until the transaction that answers it.

mod round;

use std::{collections::HashMap, time::Duration};

use pipeyard_api::views::{Event, RunView};
use pipeyard_model::{Actor, RepoId};
use pipeyard_store::{StoreError, StoreResult, intake::RunRequest, repos::Repo, runs::RunFilter};
use tokio::{
    task::{Id, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    AppState,
    intake::{
        plan::{Asked, Planned, plan},
        prove::{Proof, prove},
    },
    mirror::MirrorError,
};

/// Looks for due requests at least so often; a signal comes earlier.
const TICK: Duration = Duration::from_secs(5);
/// Repositories that are worked on at the same time.
const AT_ONCE: usize = 8;
/// How many due requests are read at a time.
const BATCH: u32 = 64;
/// A commit that the remote doesn't show is asked for so often: a forge may be slow to show it.
const MISSING_TRIES: u32 = 4;
/// A remote that can't be reached is asked so often, which is about half a day.
const REMOTE_TRIES: u32 = 80;

/// So many runs in a row that say the same are enough.
const ENOUGH: u32 = 20;

/// Who is worked on, and whose turn was when.
#[derive(Default)]
struct Turns {
    busy: HashMap<Id, RepoId>,
    last: HashMap<RepoId, Instant>,
}

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    let mut work = JoinSet::new();
    let mut turns = Turns::default();
    loop {
        start_due(&state, &mut work, &mut turns).await;
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = state.wake.compile.notified() => {}
            () = tokio::time::sleep(TICK) => {}
            Some(done) = work.join_next_with_id() => {
                let id = match done {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(%error, "handling a run request failed");
                        error.id()
                    }
                };
                turns.busy.remove(&id);
            }
        }
    }
    // Half-done work is begun anew by the next start.
    work.shutdown().await;
}

/// Starts on repositories with due requests that aren't worked on yet; first on those whose turn is
/// the longest ago, so that none waits behind others that are always due.
async fn start_due(state: &AppState, work: &mut JoinSet<()>, turns: &mut Turns) {
    if turns.busy.len() >= AT_ONCE {
        return;
    }
    let due =
        state.store.due_run_requests(state.clock.now(), BATCH).await.unwrap_or_else(|error| {
            tracing::error!(%error, "due run requests couldn't be read");
            Vec::new()
        });
    let mut repos: Vec<RepoId> = due.iter().map(|request| request.repo).collect();
    turns.last.retain(|repo, _| repos.contains(repo) || turns.busy.values().any(|b| b == repo));
    repos.sort_by_key(|repo| turns.last.get(repo).copied());
    for repo in repos {
        if turns.busy.len() >= AT_ONCE {
            return;
        }
        if turns.busy.values().any(|busy| *busy == repo) {
            continue;
        }
        let state = state.clone();
        let started = work.spawn(async move {
            if let Err(error) = round::run(&state, repo).await {
                tracing::error!(repo.id = %repo, %error, "run requests couldn't be handled");
                // They stay due; not at once, for the database may need a moment.
                tokio::time::sleep(TICK).await;
            }
        });
        turns.last.insert(repo, Instant::now());
        turns.busy.insert(started.id(), repo);
    }
}

/// Handles everything that is due now, one repository after another; answers how many requests.
///
/// # Errors
/// When the store fails.
pub async fn run_once(state: &AppState) -> StoreResult<usize> {
    let mut handled = 0;
    loop {
        let due = state.store.due_run_requests(state.clock.now(), BATCH).await?;
        if due.is_empty() {
            return Ok(handled);
        }
        for request in &due {
            handled += round::run(state, request.repo).await?;
        }
    }
}

/// A stored request with what it is about.
fn asked<'a>(repo: &'a Repo, request: &'a RunRequest) -> Asked<'a> {
    Asked {
        repo,
        id: Some(request.id),
        request: &request.request,
        received_at: request.received_at,
        started_by: None,
        seen: request.seen.as_deref(),
        by_commit: false,
    }
}

/// Looks at what is proven of the commits, and compiles what they ask for. `fresh` says that the mirror
/// was brought to the remote's state since the request came in.
///
/// # Errors
/// When the remote can't be reached or doesn't have the commit.
async fn prepare(
    state: &AppState,
    asked: Asked<'_>,
    fresh: bool,
) -> Result<(Proof, Planned), MirrorError> {
    let proof = prove(state, asked, fresh).await?;
    let planned = plan(asked, &proof).await?;
    Ok((proof, planned))
}

/// A push that was overtaken when it was told of, or that never was, moved what was last seen of its
/// branch: that goes back to where the branch is, or the next comparison would find a push.
async fn unsee(state: &AppState, asked: Asked<'_>, proof: &Proof) -> StoreResult<()> {
    let Some(tip) = proof.tip.as_ref().filter(|_| proof.overtaken || proof.origin.is_fork()) else {
        return Ok(());
    };
    let seen = [(asked.request.reference.clone(), tip.to_string())];
    state.store.record_seen_refs(asked.repo.id, &seen).await
}

async fn conclude(
    state: &AppState,
    asked: Asked<'_>,
    id: i64,
    planned: Planned,
) -> StoreResult<()> {
    let now = state.clock.now();
    let runs = match planned {
        Planned::Runs(runs) => runs,
        Planned::NotTriggered(reason) => {
            return state.store.close_run_request(id, &reason, now).await;
        }
        Planned::NoFile(run) => {
            // The first push of a new repository shows what is missing; after that, a branch without
            // a pipeline is nothing to complain about.
            let filter = RunFilter { repo: Some(asked.repo.id), limit: 1, ..RunFilter::default() };
            let known = !state.store.runs(filter).await?.is_empty();
            if known || asked.request.event != Event::Push {
                let reason = "the commit has no pipeline file";
                return state.store.close_run_request(id, reason, now).await;
            }
            vec![*run]
        }
    };
    create(state, asked, id, runs).await
}

async fn create(
    state: &AppState,
    asked: Asked<'_>,
    id: i64,
    runs: Vec<pipeyard_store::runs::NewRun>,
) -> StoreResult<()> {
    let created =
        state.store.create_runs(runs, Actor::forge(asked.repo.id), state.clock.now()).await?;
    tracing::info!(repo = %asked.repo.name, request = id, runs = ?created, "created runs");
    state.wake.outbox.notify_one();
    Ok(())
}

/// How often a request is tried again.
fn tries(missing: bool) -> u32 {
    if missing { MISSING_TRIES } else { REMOTE_TRIES }
}

/// The commit couldn't be had: a failed run that says why. Where such runs are all that a repository
/// had of late, one more would tell nobody anything: then it is said of the repository.
async fn last_try(
    state: &AppState,
    repo: &Repo,
    request: &RunRequest,
    error: &MirrorError,
) -> StoreResult<()> {
    let message = error.to_string();
    let filter = RunFilter { repo: Some(repo.id), limit: ENOUGH, ..RunFilter::default() };
    let same = |run: &RunView| run.reason.as_ref().is_some_and(|r| r.code == error.code());
    let runs = state.store.runs(filter).await?;
    if runs.len() == ENOUGH as usize && runs.iter().all(same) {
        let told =
            format!("{message}; so it was with the last {ENOUGH} runs, so no run says it again");
        set_problem(state, repo, error.code(), &told).await?;
        return state.store.close_run_request(request.id, &told, state.clock.now()).await;
    }
    let asked = asked(repo, request);
    let run = asked.failed_run(error.code(), message);
    create(state, asked, request.id, vec![run]).await
}

async fn set_problem(state: &AppState, repo: &Repo, code: &str, message: &str) -> StoreResult<()> {
    let problem = Some((code.to_owned(), message.to_owned()));
    if repo.problem == problem {
        return Ok(());
    }
    match state.store.set_repo_problem(repo.id, problem).await {
        // Removed in the meantime.
        Err(StoreError::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// From 2 s, doubled each time, up to 10 minutes.
fn delay(tries: u32) -> Duration {
    Duration::from_secs((2_u64 << tries.min(9)).min(600))
}

async fn clear_problem(state: &AppState, repo: &Repo) -> StoreResult<()> {
    if repo.problem.is_none() {
        return Ok(());
    }
    match state.store.set_repo_problem(repo.id, None).await {
        // Removed in the meantime: its problem went with it.
        Err(StoreError::NotFound { .. }) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_that_is_away_is_asked_less_and_less_often() {
        assert_eq!(delay(0), Duration::from_secs(2));
        assert_eq!(delay(3), Duration::from_secs(16));
        assert_eq!(delay(9), Duration::from_secs(600));
        assert_eq!(delay(u32::MAX), Duration::from_secs(600));
    }
}
