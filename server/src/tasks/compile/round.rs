//! One round of a repository: everything of it that is due, with one fetch for all.
//!
//! First what the mirror has, in the order of the pushes. What is still missing after the fetch is
//! asked for by its commit, a few in a round, and behind everything that can be had: a commit that
//! doesn't exist holds back nobody, and neither does one that waits for its retry. A commit that is
//! asked for in vain comes again later, a bounded number of times.

use std::collections::{HashSet, VecDeque};

use pipeyard_api::views::Event;
use pipeyard_git::{GitError, Sha};
use pipeyard_model::{RepoId, origin::Claim};
use pipeyard_store::{
    StoreResult,
    intake::{PutOff, RunRequest},
    repos::Repo,
};

use super::{asked, clear_problem, conclude, delay, last_try, prepare, set_problem, unsee};
use crate::{
    AppState,
    mirror::{self, MirrorError},
};

/// Requests that are read at a time.
const PAGE: u32 = 500;
/// Requests that one round takes in; what is more comes in the next.
const MOST: usize = 5_000;
/// Commits that one round asks for one by one.
const ASKS: usize = 8;
/// Of those, how many may be asked for before what comes after them is handled.
const ASKS_IN_ORDER: usize = 2;

/// Handles what is due of a repository; answers how many requests came to an end or were put off.
///
/// # Errors
/// When the store fails; what isn't answered stays due.
pub(super) async fn run(state: &AppState, id: RepoId) -> StoreResult<usize> {
    let Some(repo) = state.store.repo(id).await? else { return close_all(state, id).await };
    let mut round = Round { state, repo: &repo, missing: VecDeque::new(), handled: 0 };
    let (mut last, mut asks) = (0, 0);
    loop {
        // Also what came in while a commit was asked for.
        let fresh = due(state, id, &mut last).await?;
        if !fresh.is_empty() && !round.take(fresh, &mut asks).await? {
            break;
        }
        if asks >= ASKS {
            break;
        }
        let Some(request) = round.missing.pop_front() else { break };
        asks += 1;
        if !round.ask(request).await? {
            break;
        }
    }
    round.leave().await
}

/// What is due behind the request `last`, in the order of the pushes.
async fn due(state: &AppState, id: RepoId, last: &mut i64) -> StoreResult<Vec<RunRequest>> {
    let mut all = Vec::new();
    while all.len() < MOST {
        let page = state.store.due_run_requests_of(id, state.clock.now(), *last, PAGE).await?;
        let full = page.len() == PAGE as usize;
        if let Some(end) = page.last() {
            *last = end.id;
        }
        all.extend(page);
        if !full {
            break;
        }
    }
    Ok(all)
}

async fn close_all(state: &AppState, id: RepoId) -> StoreResult<usize> {
    let all = due(state, id, &mut 0).await?;
    for request in &all {
        let now = state.clock.now();
        state.store.close_run_request(request.id, "the repository was removed", now).await?;
    }
    Ok(all.len())
}

/// What has to be in the mirror before a request is handled: its commit, but for a fork's pull request,
/// whose commit isn't fetched before a person approves.
fn commits(repo: &Repo, request: &RunRequest) -> Vec<Sha> {
    match asked(repo, request).claim() {
        Claim::Fork => Vec::new(),
        Claim::Branch(_) | Claim::Commit | Claim::OwnPullRequest(_) => {
            request.request.after.parse().into_iter().collect()
        }
    }
}

/// Whether a request is judged by where its branch is now.
fn needs_tip(request: &RunRequest) -> bool {
    request.request.event == Event::Push
}

struct Round<'r> {
    state: &'r AppState,
    repo: &'r Repo,
    /// Not in the mirror after its fetch; the next to be asked for first.
    missing: VecDeque<RunRequest>,
    handled: usize,
}

impl Round<'_> {
    /// Handles what can be had of `fresh`, and keeps the rest to be asked for. False if the remote
    /// can't be reached: then there is nothing to ask.
    async fn take(&mut self, fresh: Vec<RunRequest>, asks: &mut usize) -> StoreResult<bool> {
        let mut present = match self.present(&fresh).await {
            Ok(present) => present,
            Err(error) => return self.away(fresh, &error).await,
        };
        let mut away = None;
        let wanted = present.len() < fresh.len() || fresh.iter().any(needs_tip);
        if wanted {
            let fetched = mirror::fetch(self.state, self.repo).await;
            match fetched {
                Ok(_) => match self.present(&fresh).await {
                    Ok(now) => present = now,
                    Err(error) => away = Some(error),
                },
                Err(error) => away = Some(error),
            }
        }
        // Who pushes on from a commit has seen it: it is asked for in its turn, so that the runs are
        // numbered like the pushes.
        let left: HashSet<String> = fresh
            .iter()
            .filter(|request| present.contains(&request.id))
            .filter_map(|request| request.request.before.clone())
            .collect();
        let mut in_order = 0;
        let mut missing = Vec::new();
        for request in fresh {
            if present.contains(&request.id) && !(away.is_some() && needs_tip(&request)) {
                self.handle(&request, wanted && away.is_none()).await?;
            } else if away.is_none()
                && request.tries == 0
                && in_order < ASKS_IN_ORDER
                && left.contains(&request.request.after)
            {
                in_order += 1;
                *asks += 1;
                if !self.ask(request).await? {
                    return Ok(false);
                }
            } else {
                missing.push(request);
            }
        }
        if let Some(error) = away {
            return self.away(missing, &error).await;
        }
        self.missing.extend(missing);
        // A pull request's commit is on no branch of the repository, so it goes first; then whose
        // turn came least often.
        let order = |r: &RunRequest| (r.request.event != Event::PullRequest, r.tries, r.id);
        self.missing.make_contiguous().sort_by_key(order);
        Ok(true)
    }

    /// Which of these the mirror has every commit of, by the request's number.
    async fn present(&self, requests: &[RunRequest]) -> Result<HashSet<i64>, MirrorError> {
        let mirror = mirror::open(self.state, self.repo.id).await?;
        let wanted = requests.iter().flat_map(|request| commits(self.repo, request)).collect();
        let there = mirror.which_commits(wanted).await?;
        // One whose commit isn't a name of one goes on, and is told so.
        let whole = |r: &&RunRequest| commits(self.repo, r).iter().all(|sha| there.contains(sha));
        Ok(requests.iter().filter(whole).map(|request| request.id).collect())
    }

    async fn handle(&mut self, request: &RunRequest, fresh: bool) -> StoreResult<()> {
        self.handled += 1;
        let asked = asked(self.repo, request);
        match prepare(self.state, asked, fresh).await {
            Ok((proof, planned)) => {
                clear_problem(self.state, self.repo).await?;
                unsee(self.state, asked, &proof).await?;
                conclude(self.state, asked, request.id, planned).await
            }
            Err(error) => self.put_off(vec![request.clone()], &error).await,
        }
    }

    /// Asks the remote for one commit. False if the remote can't be reached.
    async fn ask(&mut self, request: RunRequest) -> StoreResult<bool> {
        for sha in commits(self.repo, &request) {
            let found = mirror::ask_for(self.state, self.repo, &sha).await;
            match found {
                Ok(()) => {}
                Err(error @ MirrorError::Git(GitError::NoCommit(_))) => {
                    self.handled += 1;
                    self.put_off(vec![request], &error).await?;
                    return Ok(true);
                }
                Err(error) => return self.away(vec![request], &error).await,
            }
        }
        // It was missing after a fetch.
        self.handle(&request, true).await?;
        Ok(true)
    }

    /// The remote can't be reached: that is said once, and all that need it come again later.
    async fn away(&mut self, mut all: Vec<RunRequest>, error: &MirrorError) -> StoreResult<bool> {
        all.extend(self.missing.drain(..));
        self.handled += all.len();
        self.put_off(all, error).await?;
        Ok(false)
    }

    /// Later again, or a failed run that says why.
    async fn put_off(&self, requests: Vec<RunRequest>, error: &MirrorError) -> StoreResult<()> {
        let missing = matches!(error, MirrorError::Git(GitError::NoCommit(_)));
        let message = error.to_string();
        tracing::warn!(repo = %self.repo.name, requests = requests.len(), error = %message, "commits can't be fetched");
        if !missing {
            set_problem(self.state, self.repo, error.code(), &message).await?;
        }
        let now = self.state.clock.now();
        let mut later = Vec::new();
        for request in requests {
            if request.tries >= super::tries(missing) {
                last_try(self.state, self.repo, &request, error).await?;
            } else {
                let next = now + delay(request.tries);
                later.push(PutOff { id: request.id, next, tried: true });
            }
        }
        self.state.store.postpone_run_requests(later, &message).await
    }

    /// What this round didn't come to is due again soon, a few at a time.
    async fn leave(mut self) -> StoreResult<usize> {
        if self.missing.is_empty() {
            return Ok(self.handled);
        }
        let now = self.state.clock.now();
        self.handled += self.missing.len();
        let later = self.missing.iter().enumerate().map(|(place, request)| {
            let wait = std::time::Duration::from_secs(1 + (place / ASKS) as u64);
            PutOff { id: request.id, next: now + wait, tried: false }
        });
        let later = later.collect();
        let problem = "no branch of the remote has the commit; it is asked for by its own name";
        self.state.store.postpone_run_requests(later, problem).await?;
        Ok(self.handled)
    }
}
