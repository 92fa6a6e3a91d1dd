//! Secrets: whose they are, what they are limited to, who got them.

use pipeyard_model::{
    Actor, Clock as _, ManualClock, RepoId, SecretName,
    origin::{Event, Origin, Stranger},
    secret::{BranchLimit, Refusal},
};

use super::make::setup;
use crate::{
    Store, StoreError,
    secrets::{AskingAttempt, NewSecret, SealedSecret, Taken},
};

fn name(text: &str) -> SecretName {
    SecretName::new(text).expect("a name")
}

fn asking(repo: RepoId, branch: &str) -> AskingAttempt {
    AskingAttempt { repo, event: Event::Push, origin: Origin::Branch(branch.into()) }
}

fn new(repo: Option<RepoId>, text: &str, value: &[u8]) -> NewSecret {
    let secret = SealedSecret { name: name(text), repo, sealed: value.to_vec() };
    NewSecret { secret, branches: None, events: None }
}

/// A repository's own secret goes before the general one; missing ones are missing, and then none is
/// given.
pub async fn a_job_takes_its_repositorys_secrets<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let (shop, other) = (setup(store, clock).await.repo, RepoId::new());
    let set = async |new| store.set_secret(new, Actor::user(admin.id), now).await.expect("set");
    set(new(None, "A", b"general")).await;
    set(new(Some(shop), "A", b"old")).await;
    set(new(Some(shop), "A", b"own")).await;
    set(new(None, "B", b"both")).await;
    set(new(Some(other), "C", b"foreign")).await;
    let values = async |repo, names: &[&str]| {
        let names: Vec<_> = names.iter().map(|text| name(text)).collect();
        store
            .take_secrets(asking(repo, "main"), &names, Actor::pipeyard(), now)
            .await
            .expect("an answer")
    };
    let given = |repo: Option<RepoId>, text: &str, value: &[u8]| SealedSecret {
        name: name(text),
        repo,
        sealed: value.to_vec(),
    };
    assert_eq!(
        values(shop, &["A", "B"]).await,
        Taken::Given(vec![given(Some(shop), "A", b"own"), given(None, "B", b"both")])
    );
    assert_eq!(
        values(shop, &["A", "C"]).await,
        Taken::Refused(vec![(name("C"), Refusal::Missing)]),
        "all or none"
    );
    assert_eq!(
        values(RepoId::new(), &["A"]).await,
        Taken::Given(vec![given(None, "A", b"general")])
    );
    let general: Vec<_> = store.secrets().await.expect("a list");
    let b = general.iter().find(|view| view.name == name("B")).expect("B is listed");
    assert_eq!((b.used_at, b.scope.as_str()), (Some(now), "every branch"));
    store.remove_secret(Some(shop), &name("A"), Actor::user(admin.id), now).await.expect("removed");
    assert_eq!(values(shop, &["A"]).await, Taken::Given(vec![given(None, "A", b"general")]));
    let again = store.remove_secret(Some(shop), &name("A"), Actor::user(admin.id), now).await;
    assert!(matches!(again, Err(StoreError::NotFound { .. })), "{again:?}");
}

/// Limits are kept when a value is set again without any; each gift is in the audit log, and a refusal
/// gives and notes nothing.
pub async fn a_secret_is_given_within_its_limits<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let shop = setup(store, clock).await.repo;
    let limited = NewSecret {
        branches: Some(BranchLimit::Default),
        events: Some(vec![Event::Push]),
        ..new(None, "KEY", b"one")
    };
    store.set_secret(limited, Actor::user(admin.id), now).await.expect("set");
    let scope =
        store.set_secret(new(None, "KEY", b"two"), Actor::user(admin.id), now).await.expect("set");
    assert_eq!(scope.words(), "the default branch; push");
    let take = async |asking: AskingAttempt| {
        store.take_secrets(asking, &[name("KEY")], Actor::pipeyard(), now).await.expect("an answer")
    };
    let refused = |taken: Taken| match taken {
        Taken::Refused(refused) => refused[0].1.code(),
        Taken::Given(_) => "given",
    };
    assert_eq!(refused(take(asking(shop, "topic")).await), "secret_not_for_branch");
    let manual = AskingAttempt { event: Event::Manual, ..asking(shop, "main") };
    assert_eq!(refused(take(manual).await), "secret_not_for_event");
    let fork = AskingAttempt { origin: Origin::Fork(Stranger::OnNoBranch), ..asking(shop, "main") };
    assert_eq!(refused(take(fork).await), "secret_refused_to_fork");
    let used = async || store.secrets().await.expect("a list")[0].used_at;
    assert_eq!(used().await, None);
    let good = asking(shop, "main");
    assert_eq!(refused(take(good).await), "given");
    assert_eq!(used().await, Some(now));
    let told = store.audit(None, 200).await.expect("a list");
    let gifts: Vec<_> = told.iter().filter(|row| row.action == "secret.grant").collect();
    assert_eq!(gifts.len(), 1);
    assert_eq!(gifts[0].target, "KEY");
    // What lint asks: the same answers, and nothing of it is a gift.
    let topic = Origin::Branch("topic".into());
    let names = [name("KEY"), name("NONE")];
    let why = store.refused_secrets(shop, Event::Push, &topic, &names).await.expect("an answer");
    let why: Vec<_> = why.iter().map(|(name, why)| (name.as_str(), why.code())).collect();
    assert_eq!(why, [("KEY", "secret_not_for_branch"), ("NONE", "secret_missing")]);
}
