//! Turns run requests into runs. Requests of one repository are handled in their order; those of
//! different repositories at the same time, so that a slow remote holds up nobody else.
//!
//! Each request ends in one of three ways: runs were created, it was closed with a reason, or it is
//! due again later because the remote can't be reached. Killing the server anywhere loses nothing:
//! the request stays until the transaction that answers it.

use std::{collections::HashMap, time::Duration};

use pipeyard_api::views::Event;
use pipeyard_git::{GitError, Sha};
use pipeyard_model::RepoId;
use pipeyard_store::{StoreError, StoreResult, intake::RunRequest, repos::Repo, runs::RunFilter};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    AppState,
    intake::plan::{Asked, Planned, plan},
    mirror::{self, MirrorError},
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

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    let mut work = JoinSet::new();
    let mut busy: HashMap<Id, RepoId> = HashMap::new();
    loop {
        start_due(&state, &mut work, &mut busy).await;
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
                busy.remove(&id);
            }
        }
    }
    // Half-done work is begun anew by the next start.
    work.shutdown().await;
}

/// Starts on the oldest due request of each repository that isn't worked on yet.
async fn start_due(state: &AppState, work: &mut JoinSet<()>, busy: &mut HashMap<Id, RepoId>) {
    if busy.len() >= AT_ONCE {
        return;
    }
    let due =
        state.store.due_run_requests(state.clock.now(), BATCH).await.unwrap_or_else(|error| {
            tracing::error!(%error, "due run requests couldn't be read");
            Vec::new()
        });
    for request in due {
        if busy.len() >= AT_ONCE || busy.values().any(|repo| *repo == request.repo) {
            continue;
        }
        let (state, repo) = (state.clone(), request.repo);
        let started = work.spawn(async move {
            if let Err(error) = handle(&state, &request).await {
                tracing::error!(request = request.id, %error, "a run request couldn't be handled");
                // It stays due; not at once, for the database may need a moment.
                tokio::time::sleep(TICK).await;
            }
        });
        busy.insert(started.id(), repo);
    }
}

/// Handles everything that is due now, one after another; answers how many requests.
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
            handle(state, request).await?;
            handled += 1;
        }
    }
}

async fn handle(state: &AppState, request: &RunRequest) -> StoreResult<()> {
    let now = state.clock.now();
    let Some(repo) = state.store.repo(request.repo).await? else {
        return state.store.close_run_request(request.id, "the repository was removed", now).await;
    };
    let asked = Asked {
        repo: &repo,
        id: Some(request.id),
        request: &request.request,
        received_at: request.received_at,
    };
    match prepare(state, asked).await {
        Ok(planned) => {
            clear_problem(state, &repo).await?;
            conclude(state, asked, request.id, planned).await
        }
        Err(error) => put_off(state, asked, request, &error).await,
    }
}

/// Brings the commits into the mirror and compiles what they ask for.
///
/// # Errors
/// When the remote can't be reached or doesn't have the commit.
pub async fn prepare(state: &AppState, asked: Asked<'_>) -> Result<Planned, MirrorError> {
    let sha = |text: &str| {
        text.parse::<Sha>()
            .map_err(|e| GitError::Repository { what: "read the commit", message: e.to_string() })
    };
    let mirror = mirror::with_commit(state, asked.repo, &sha(&asked.request.after)?).await?;
    if asked.pipeline_commit() != asked.request.after {
        mirror::with_commit(state, asked.repo, &sha(asked.pipeline_commit())?).await?;
    }
    Ok(plan(&mirror, asked).await?)
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
    let created = state.store.create_runs(runs, state.clock.now()).await?;
    tracing::info!(repo = %asked.repo.name, request = id, runs = ?created, "created runs");
    state.wake.outbox.notify_one();
    Ok(())
}

/// The mirror couldn't be brought to the commit: later again, or a failed run that says why.
async fn put_off(
    state: &AppState,
    asked: Asked<'_>,
    request: &RunRequest,
    error: &MirrorError,
) -> StoreResult<()> {
    let missing = matches!(error, MirrorError::Git(GitError::NoCommit(_)));
    let message = error.to_string();
    tracing::warn!(repo = %asked.repo.name, request = request.id, error = %message, tries = request.tries, "a commit can't be fetched");
    if !missing {
        let problem = Some((error.code().to_owned(), message.clone()));
        if asked.repo.problem != problem {
            state.store.set_repo_problem(asked.repo.id, problem).await?;
        }
    }
    let tries = if missing { MISSING_TRIES } else { REMOTE_TRIES };
    if request.tries >= tries {
        let run = asked.failed_run(None, error.code(), message);
        return create(state, asked, request.id, vec![run]).await;
    }
    let next = state.clock.now() + delay(request.tries);
    state.store.postpone_run_request(request.id, next, &message).await
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
