//! Runs, their numbers, their lists, events and repositories.

use pipeyard_api::views::DiagnosticView;
use pipeyard_model::{
    Actor, Clock as _, Conclusion, ManualClock, RequestId, RunId, Status, UserId,
    admission::{HELD_OF_REPO, OF_PUSH},
    origin::{Origin, Stranger},
};

use super::{
    claims::is_conflict,
    make::{claim, job, one_job, plan, run, setup},
};
use crate::{
    Store, StoreError,
    runs::{RunContent, RunFilter},
};

/// Numbers only rise, also when creation fails in between.
pub async fn run_numbers_rise_and_are_never_used_again<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let mut numbers = Vec::new();
    for _ in 0..3 {
        numbers.push(one_job(store, clock, made.repo).await);
        let broken = plan(made.repo, vec![super::need(job("x", |_| {}), &["nowhere"])], clock);
        is_conflict(
            store.create_runs(vec![broken], Actor::pipeyard(), clock.now()).await,
            "unknown_need",
        );
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(store.latest_run().await.unwrap(), numbers.last().copied());
    let pair = vec![
        plan(made.repo, vec![job("x", |_| {})], clock),
        plan(made.repo, vec![job("x", |_| {})], clock),
    ];
    let pair = store.create_runs(pair, Actor::pipeyard(), clock.now()).await.unwrap();
    assert_eq!(pair[1], RunId(pair[0].0 + 1), "the runs of one request are consecutive");
}

/// A held run offers nothing before a person approves it, and its jobs stay those of a fork.
pub async fn a_held_run_waits_for_approval<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let by = Actor::user(UserId::new());
    let mut held = plan(made.repo, vec![job("test", |_| {})], clock);
    held.origin = Origin::Fork(Stranger::PullRequest);
    let id = store.create_runs(vec![held], Actor::pipeyard(), clock.now()).await.unwrap()[0];
    assert!(
        store.claim_jobs(made.runner, RequestId::new(), 1, clock.now()).await.unwrap().is_empty()
    );
    let view = store.run(id).await.unwrap().unwrap();
    assert!(view.run.held);
    assert_eq!(view.jobs[0].reason.as_ref().unwrap().code, "held");
    store.approve_run(id, by, clock.now()).await.unwrap();
    is_conflict(store.approve_run(id, by, clock.now()).await, "run_not_held");
    assert!(claim(store, clock, made.runner).await.origin.is_fork());
}

/// A run that was cancelled before anybody approved it can't be started by a rerun.
pub async fn a_rerun_is_no_way_around_an_approval<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let by = Actor::user(UserId::new());
    let mut held = plan(made.repo, vec![job("test", |_| {})], clock);
    held.origin = Origin::Fork(Stranger::PullRequest);
    let id = store.create_runs(vec![held], Actor::pipeyard(), clock.now()).await.unwrap()[0];
    store.cancel_run(id, by, clock.now()).await.unwrap();
    is_conflict(store.rerun(id, false, by, clock.now()).await, "run_held");
    assert!(
        store.claim_jobs(made.runner, RequestId::new(), 1, clock.now()).await.unwrap().is_empty()
    );
}

/// A pipeline that doesn't compile is a failed run that shows its errors.
pub async fn a_pipeline_that_does_not_compile_is_a_failed_run<S: Store>(
    store: &S,
    clock: &ManualClock,
) {
    let made = setup(store, clock).await;
    let finding = DiagnosticView {
        code: "P204".into(),
        severity: "error".into(),
        path: ".pipeyard.yml".into(),
        line: 3,
        column: 5,
        message: "unknown key".into(),
        rendered: "...".into(),
    };
    let mut bad = plan(made.repo, vec![], clock);
    bad.content = RunContent::DoesNotCompile {
        code: "pipeline_invalid".into(),
        message: "1 error".into(),
        diagnostics: vec![finding.clone()],
    };
    let id = store.create_runs(vec![bad], Actor::pipeyard(), clock.now()).await.unwrap()[0];
    let view = store.run(id).await.unwrap().unwrap();
    assert_eq!((view.run.status, view.run.conclusion), (Status::Finished, Some(Conclusion::Error)));
    assert_eq!(view.run.reason.as_ref().unwrap().code, "pipeline_invalid");
    assert_eq!(view.diagnostics, [finding]);
    is_conflict(
        store.rerun(id, false, Actor::user(UserId::new()), clock.now()).await,
        "nothing_to_run",
    );
}

/// Lists are newest first, filtered, and go on where they stopped.
pub async fn lists_are_filtered_and_paged<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let mut new = plan(made.repo, vec![job("test", |_| {})], clock);
        if n % 2 == 1 {
            new.reference = "refs/heads/topic".into();
            new.commit = format!("fedcba98765432100000000000000000000000{n:02}");
        }
        ids.push(store.create_runs(vec![new], Actor::pipeyard(), clock.now()).await.unwrap()[0]);
    }
    let list = |filter: RunFilter| async move {
        store
            .runs(RunFilter { limit: 2, ..filter })
            .await
            .unwrap()
            .iter()
            .map(|r| r.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(list(RunFilter::default()).await, [ids[4], ids[3]]);
    let before = RunFilter { before: Some(ids[3]), ..RunFilter::default() };
    assert_eq!(list(before).await, [ids[2], ids[1]]);
    let topic = RunFilter { branch: Some("topic".into()), ..RunFilter::default() };
    assert_eq!(list(topic).await, [ids[3], ids[1]]);
    let commit = RunFilter { commit: Some("FEDCBA9".into()), ..RunFilter::default() };
    assert_eq!(list(commit).await, [ids[3], ids[1]]);
    let done = RunFilter { status: Some(Status::Finished), ..RunFilter::default() };
    assert!(list(done).await.is_empty());
    assert!(store.run(RunId(99_999)).await.unwrap().is_none());
}

/// Whatever changes leaves an event; a reader that comes back misses none.
pub async fn events_go_on_where_a_reader_stopped<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let mut wake = store.wake();
    wake.mark_unchanged();
    let start = store.last_event().await.unwrap();
    let id = one_job(store, clock, made.repo).await;
    assert!(wake.has_changed().unwrap(), "a commit wakes readers");
    claim(store, clock, made.runner).await;
    let all = store.events(start, None, 100).await.unwrap();
    let kinds: Vec<_> = all.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["run.created", "job.changed", "run.changed"]);
    assert!(all.iter().all(|e| e.run == Some(id)));
    let rest = store.events(all[0].seq, Some(id), 1).await.unwrap();
    assert_eq!(rest.iter().map(|e| e.seq).collect::<Vec<_>>(), [all[1].seq]);
    assert_eq!(store.last_event().await.unwrap(), all[2].seq);
    clock.advance(std::time::Duration::from_secs(1));
    store.trim_events(clock.now()).await.unwrap();
    one_job(store, clock, made.repo).await;
    assert!(
        store.last_event().await.unwrap() > all[2].seq,
        "numbers of removed events don't come back"
    );
}

/// A removed repository gives its name free; its runs stay readable.
pub async fn a_removed_repository_leaves_its_runs<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let id = run(store, clock, made.repo, vec![job("test", |_| {})]).await;
    let repo = store.repo(made.repo).await.unwrap().unwrap();
    is_conflict(store.add_repo(repo.clone(), Actor::user(UserId::new())).await, "name_taken");
    let problem = Some(("cannot_fetch".to_owned(), "no route".to_owned()));
    store.set_repo_problem(made.repo, problem.clone()).await.unwrap();
    assert_eq!(store.repo_by_name(&repo.name).await.unwrap().unwrap().problem, problem);
    store.set_repo_forge_id(made.repo, 42).await.unwrap();
    assert_eq!(store.repo_by_hook(repo.hook).await.unwrap().unwrap().forge_id, Some(42));
    store.remove_repo(made.repo, Actor::user(UserId::new()), clock.now()).await.unwrap();
    assert!(matches!(
        store.remove_repo(made.repo, Actor::user(UserId::new()), clock.now()).await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(store.repo_by_hook(repo.hook).await.unwrap().is_none());
    assert!(store.repos().await.unwrap().is_empty());
    assert_eq!(store.run(id).await.unwrap().unwrap().run.repo, repo.name);
    let again = crate::repos::Repo {
        id: pipeyard_model::RepoId::new(),
        hook: pipeyard_model::HookId::new(),
        ..repo
    };
    store.add_repo(again, Actor::user(UserId::new())).await.unwrap();
}

/// A large run is made in pieces. Nobody sees half of it, whoever looks meanwhile, and all of it is there
/// in the end.
pub async fn a_large_run_appears_whole<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let nodes = (0..1_200)
        .map(|n| {
            let node = job(&format!("j{n}"), |_| {});
            if n == 0 { node } else { super::need(node, &[&format!("j{}", n - 1)]) }
        })
        .collect();
    let large =
        store.create_runs(vec![plan(made.repo, nodes, clock)], Actor::pipeyard(), clock.now());
    let look = async {
        let mut seen = Vec::new();
        for _ in 0..50 {
            let listed = store.runs(RunFilter { limit: 10, ..RunFilter::default() }).await.unwrap();
            let claimed = store.claim_jobs(made.runner, RequestId::new(), 1, clock.now()).await;
            if !listed.is_empty() {
                seen.push(store.run(listed[0].id).await.unwrap().unwrap().jobs.len());
            }
            if !claimed.unwrap().is_empty() {
                break;
            }
        }
        seen
    };
    let (id, seen) = tokio::join!(large, look);
    let id = id.unwrap()[0];
    assert!(seen.iter().all(|jobs| *jobs == 1_200), "{seen:?}");
    let detail = store.run(id).await.unwrap().unwrap();
    assert_eq!(detail.jobs.len(), 1_200);
    let last = detail.jobs.iter().find(|job| job.name.as_str() == "j1199").unwrap();
    assert_eq!(last.needs.len(), 1);
    assert_eq!(store.latest_run().await.unwrap(), Some(id));
}

/// More than one push may ask for gives one run that says so, and so does a repository whose queue is
/// full. A stranger's jobs fill nobody else's.
pub async fn a_push_and_a_repository_have_an_end<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let of = |jobs: usize| {
        let nodes = (0..jobs).map(|n| job(&format!("j{n}"), |_| {})).collect();
        plan(made.repo, nodes, clock)
    };
    let code = async |runs: Vec<crate::runs::NewRun>| {
        let ids = store.create_runs(runs, Actor::pipeyard(), clock.now()).await.unwrap();
        assert_eq!(ids.len(), 1);
        let run = store.run(ids[0]).await.unwrap().unwrap().run;
        run.reason.map(|reason| reason.code)
    };
    let halves = || vec![of(OF_PUSH / 2), of(OF_PUSH / 2 + 1)];
    assert_eq!(code(halves()).await.as_deref(), Some("push_too_large"));
    let held = || {
        let mut run = of(usize::try_from(HELD_OF_REPO).unwrap());
        run.origin = Origin::Fork(Stranger::PullRequest);
        vec![run]
    };
    assert_eq!(code(held()).await.as_deref(), Some("held"));
    assert_eq!(code(held()).await.as_deref(), Some("repository_queue_full"));
    assert_eq!(code(vec![of(1)]).await, None, "its own pushes go on");
}
