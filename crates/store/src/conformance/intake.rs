//! Deliveries and run requests.

use std::time::Duration;

use pipeyard_api::views::Event;
use pipeyard_model::{Actor, Clock as _, ManualClock, RepoId};

use super::make::{job, plan, setup};
use crate::{
    Store,
    intake::{Accepted, COMPARISON, Disposition, NewDelivery, NewRunRequest, PutOff},
};

fn push(
    repo: RepoId,
    id: &str,
    before: Option<&str>,
    after: &str,
    clock: &ManualClock,
) -> NewDelivery {
    NewDelivery {
        repo,
        delivery: id.into(),
        event: "push".into(),
        body: b"{}".to_vec(),
        body_hash: None,
        received_at: clock.now(),
        disposition: Disposition::Requests(vec![NewRunRequest {
            event: Event::Push,
            reference: "refs/heads/main".into(),
            before: before.map(Into::into),
            after: after.into(),
            pull_request: None,
            forge_user: None,
        }]),
    }
}

/// 50 deliveries with one id, at once: one is new, one run request comes of them.
pub async fn a_delivery_that_comes_50_times_counts_once<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let all = (0..50).map(|_| store.accept_delivery(push(made.repo, "d1", Some("a"), "b", clock)));
    let all = futures_util::future::join_all(all).await;
    let new = all.into_iter().filter(|a| *a.as_ref().unwrap() == Accepted::New).count();
    assert_eq!(new, 1);
    assert_eq!(store.due_run_requests(clock.now(), 10).await.unwrap().len(), 1);
    assert_eq!(
        store.seen_refs(made.repo).await.unwrap(),
        [("refs/heads/main".to_owned(), "b".to_owned())]
    );
}

/// The same push under another delivery id is the same push, for 10 minutes.
pub async fn a_push_that_is_told_twice_counts_once<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let repo = made.repo;
    assert_eq!(
        store.accept_delivery(push(repo, "d1", None, "b", clock)).await.unwrap(),
        Accepted::New
    );
    assert_eq!(
        store.accept_delivery(push(repo, "d2", None, "b", clock)).await.unwrap(),
        Accepted::Duplicate
    );
    assert_eq!(
        store.accept_delivery(push(repo, "d3", Some("x"), "b", clock)).await.unwrap(),
        Accepted::New
    );
    clock.advance(Duration::from_secs(601));
    assert_eq!(
        store.accept_delivery(push(repo, "d4", None, "b", clock)).await.unwrap(),
        Accepted::New
    );
    assert_eq!(
        store.accept_delivery(push(repo, "d2", None, "b", clock)).await.unwrap(),
        Accepted::Duplicate
    );
}

/// A comparison of refs sees only where a branch is, not the steps to there: what a hook told of is
/// known whatever its step, in either order, and the ref counts as seen where it was told last.
pub async fn a_comparison_and_a_hook_tell_of_one_push<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let compared = |id: &str, before, after| {
        let delivery = push(made.repo, id, before, after, clock);
        NewDelivery { event: COMPARISON.into(), ..delivery }
    };
    let told = |id: &str, before, after| push(made.repo, id, before, after, clock);
    for (delivery, expected) in [
        (told("d1", Some("a"), "b"), Accepted::New),
        (told("d2", Some("b"), "c"), Accepted::New),
        (compared("r1", Some("a"), "c"), Accepted::Duplicate),
        (compared("r2", Some("c"), "e"), Accepted::New),
        (told("d3", Some("c"), "d"), Accepted::New),
        (told("d4", Some("d"), "e"), Accepted::Duplicate),
    ] {
        let named = format!("{delivery:?}");
        assert_eq!(store.accept_delivery(delivery).await.unwrap(), expected, "{named}");
    }
    let seen = store.seen_refs(made.repo).await.unwrap();
    assert_eq!(seen, [("refs/heads/main".to_owned(), "e".to_owned())]);
}

/// A branch that goes back by force and forward again was pushed three times; each told twice is
/// still one.
pub async fn back_and_forward_again_is_no_repetition<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    for (id, before, after, expected) in [
        ("d1", "a", "b", Accepted::New),
        ("d2", "b", "a", Accepted::New),
        ("d3", "b", "a", Accepted::Duplicate),
        ("d4", "a", "b", Accepted::New),
        ("d5", "a", "b", Accepted::Duplicate),
        ("d6", "b", "c", Accepted::New),
        ("d7", "a", "b", Accepted::Duplicate),
        ("d8", "c", "a", Accepted::New),
        ("d9", "a", "b", Accepted::New),
    ] {
        let delivery = push(made.repo, id, Some(before), after, clock);
        assert_eq!(store.accept_delivery(delivery).await.unwrap(), expected, "{id}");
    }
}

/// A person may ask for the same commit twice.
pub async fn a_person_may_ask_twice<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    for id in ["m1", "m2"] {
        let mut delivery = push(made.repo, id, None, "b", clock);
        if let Disposition::Requests(requests) = &mut delivery.disposition {
            requests[0].event = Event::Manual;
        }
        assert_eq!(store.accept_delivery(delivery).await.unwrap(), Accepted::New);
    }
    assert!(store.seen_refs(made.repo).await.unwrap().is_empty());
}

/// Due requests of one repository come in their order; one that waits for its retry holds back
/// nobody, neither of its own repository nor of others.
pub async fn due_requests_keep_their_order_and_the_rest_wait_alone<S: Store>(
    store: &S,
    clock: &ManualClock,
) {
    let made = setup(store, clock).await;
    for (id, after) in [("d1", "b"), ("d2", "c"), ("d3", "d")] {
        store.accept_delivery(push(made.repo, id, None, after, clock)).await.unwrap();
    }
    let afters = async |last| {
        let due = store.due_run_requests_of(made.repo, clock.now(), last, 10).await.unwrap();
        due.into_iter().map(|r| (r.request.after, r.tries)).collect::<Vec<_>>()
    };
    let oldest = async || store.due_run_requests(clock.now(), 10).await.unwrap();
    let due = oldest().await;
    assert_eq!(due.iter().map(|r| r.request.after.as_str()).collect::<Vec<_>>(), ["b"]);
    let of = |after: &str, tries| (after.to_owned(), tries);
    assert_eq!(afters(0).await, [of("b", 0), of("c", 0), of("d", 0)]);
    assert_eq!(afters(due[0].id).await, [of("c", 0), of("d", 0)]);
    let later = |id, tried| PutOff { id, next: clock.now() + Duration::from_secs(30), tried };
    let put_off = vec![later(due[0].id, true), later(due[0].id + 1, false)];
    store.postpone_run_requests(put_off, "can't fetch").await.unwrap();
    assert_eq!(afters(0).await, [of("d", 0)]);
    let next = oldest().await;
    assert_eq!(next.iter().map(|r| r.request.after.as_str()).collect::<Vec<_>>(), ["d"]);
    clock.advance(Duration::from_secs(30));
    assert_eq!(afters(0).await, [of("b", 1), of("c", 0), of("d", 0)]);
    store.close_run_request(due[0].id, "no pipeline", clock.now()).await.unwrap();
    store.postpone_run_requests(vec![later(due[0].id, true)], "too late").await.unwrap();
    clock.advance(Duration::from_secs(60));
    assert_eq!(afters(0).await, [of("c", 0), of("d", 0)], "what is answered stays answered");
}

/// A request gives its runs once, even if the one who creates them is told twice.
pub async fn a_request_gives_its_runs_once<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    store.accept_delivery(push(made.repo, "d1", None, "b", clock)).await.unwrap();
    let request = store.due_run_requests(clock.now(), 1).await.unwrap()[0].id;
    let runs = || {
        (0..2)
            .map(|_| {
                let mut run = plan(made.repo, vec![job("test", |_| {})], clock);
                run.request = Some(request);
                run
            })
            .collect::<Vec<_>>()
    };
    let first = store.create_runs(runs(), Actor::pipeyard(), clock.now()).await.unwrap();
    assert_eq!(first.len(), 2);
    assert!(store.create_runs(runs(), Actor::pipeyard(), clock.now()).await.unwrap().is_empty());
    assert!(store.due_run_requests(clock.now(), 10).await.unwrap().is_empty());
}

/// Bodies can be forgotten; that a delivery was seen can't.
pub async fn a_trimmed_delivery_is_still_known<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    store.accept_delivery(push(made.repo, "d1", None, "b", clock)).await.unwrap();
    clock.advance(Duration::from_secs(3600));
    assert_eq!(store.trim_deliveries(clock.now()).await.unwrap(), 1);
    assert_eq!(store.trim_deliveries(clock.now()).await.unwrap(), 0);
    let again = store.accept_delivery(push(made.repo, "d1", None, "b", clock)).await.unwrap();
    assert_eq!(again, Accepted::Duplicate);
}
