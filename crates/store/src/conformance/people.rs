//! Accounts, secrets and the audit log.

use std::time::Duration;

use pipeyard_model::{Clock as _, ManualClock, RepoId, SecretName, Timestamp, TokenId};

use super::make::{one_job, runner, setup};
use crate::{
    Store, StoreError,
    accounts::{CredentialKind, NewCredential},
    secrets::SealedSecret,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn credential(kind: CredentialKind, hash: u8, expires_at: Option<Timestamp>) -> NewCredential {
    let label = format!("{} {hash}", kind.as_str());
    NewCredential { id: TokenId::new(), kind, label, hash: [hash; 32], expires_at }
}

/// A one-time login signs in once, and only the newest one does.
pub async fn a_one_time_login_is_used_once<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    assert_eq!(store.ensure_admin(now).await.expect("the same one"), admin);
    assert!(!store.anybody_signed_in().await.expect("nobody yet"));
    let end = Some(now + DAY);
    for hash in [1, 2] {
        let login = credential(CredentialKind::OneTimeLogin, hash, end);
        store.add_one_time_login(admin.id, login, now).await.expect("a login");
    }
    let session = |hash| credential(CredentialKind::Session, hash, end);
    // The first was replaced, an unknown one was never there, and a login is no session.
    for wrong in [1, 99] {
        let user = store.exchange_credential([wrong; 32], session(50 + wrong), now).await;
        assert_eq!(user.expect("an answer"), None, "{wrong}");
    }
    assert_eq!(store.signed_in([2; 32], now).await.expect("an answer"), None);
    let user = store.exchange_credential([2; 32], session(10), now).await.expect("an answer");
    assert_eq!(user.map(|user| user.id), Some(admin.id));
    assert!(store.anybody_signed_in().await.expect("somebody"));
    let again = store.exchange_credential([2; 32], session(11), now).await.expect("an answer");
    assert_eq!(again, None);
    let who = store.signed_in([10; 32], now).await.expect("an answer").expect("signed in");
    assert_eq!((who.user.id, who.kind), (admin.id, CredentialKind::Session));
    assert_eq!(store.signed_in([11; 32], now).await.expect("an answer"), None);
    // A login that is over isn't accepted.
    let late = credential(CredentialKind::OneTimeLogin, 3, end);
    store.add_one_time_login(admin.id, late, now).await.expect("a login");
    let over = store.exchange_credential([3; 32], session(12), now + DAY).await;
    assert_eq!(over.expect("an answer"), None);
}

/// Tokens and sessions end by time, by revocation and by clean-up.
pub async fn a_credential_ends<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let token = credential(CredentialKind::Token, 1, None);
    let short = credential(CredentialKind::Token, 2, Some(now + DAY));
    for new in [&token, &short] {
        store.add_credential(admin.id, new.clone(), now).await.expect("a token");
    }
    let good = async |hash, at| store.signed_in([hash; 32], at).await.expect("an answer").is_some();
    assert!(good(1, now).await && good(2, now).await);
    assert!(good(1, now + DAY).await && !good(2, now + DAY).await);
    assert_eq!(store.credentials(now).await.expect("a list").len(), 2);
    assert_eq!(store.credentials(now + DAY).await.expect("a list").len(), 1);
    assert_eq!(store.remove_expired_credentials(now + DAY).await.expect("a count"), 1);
    store.revoke_credential(token.id, admin.id, now).await.expect("revoked");
    assert!(!good(1, now).await);
    let again = store.revoke_credential(token.id, admin.id, now).await;
    assert!(matches!(again, Err(StoreError::NotFound { .. })), "{again:?}");
    // A token makes a session and stays; a session makes nothing.
    let token = credential(CredentialKind::Token, 4, None);
    store.add_credential(admin.id, token, now).await.expect("a token");
    for (old, new, expected) in [(4, 5, true), (4, 6, true), (5, 7, false)] {
        let new = credential(CredentialKind::Session, new, None);
        let user = store.exchange_credential([old; 32], new, now).await.expect("an answer");
        assert_eq!(user.is_some(), expected, "from {old}");
    }
}

/// Use is noted, but not at every request.
pub async fn the_use_of_a_token_is_noted<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let token = credential(CredentialKind::Token, 1, None);
    store.add_credential(admin.id, token, now).await.expect("a token");
    let used = async || store.credentials(now).await.expect("a list")[0].used_at;
    assert_eq!(used().await, None);
    let second = Duration::from_secs(1);
    for (at, noted) in [(now, now), (now + 30 * second, now), (now + DAY, now + DAY)] {
        store.signed_in([1; 32], at).await.expect("an answer");
        assert_eq!(used().await, Some(noted));
    }
}

/// A repository's own secret goes before the general one; missing ones are missing.
pub async fn a_job_takes_its_repositorys_secrets<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let (shop, other) = (RepoId::new(), RepoId::new());
    let name = |text: &str| SecretName::new(text).expect("a name");
    let set = async |repo, text: &str, value: &[u8]| {
        let secret = SealedSecret { name: name(text), repo, sealed: value.to_vec() };
        store.set_secret(secret, admin.id, now).await.expect("set");
    };
    set(None, "A", b"general").await;
    set(Some(shop), "A", b"old").await;
    set(Some(shop), "A", b"own").await;
    set(None, "B", b"both").await;
    set(Some(other), "C", b"foreign").await;
    let names = [name("A"), name("B"), name("C")];
    let values = async |repo| {
        let taken = store.take_secrets(repo, &names, now).await.expect("taken");
        taken
            .into_iter()
            .map(|secret| (secret.name.to_string(), secret.repo, secret.sealed))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        values(shop).await,
        [("A".to_owned(), Some(shop), b"own".to_vec()), ("B".to_owned(), None, b"both".to_vec())]
    );
    assert_eq!(values(RepoId::new()).await[0].2, b"general");
    let general: Vec<_> = store.secrets().await.expect("a list");
    let b = general.iter().find(|view| view.name == name("B")).expect("B is listed");
    assert_eq!(b.used_at, Some(now));
    store.remove_secret(Some(shop), &name("A"), admin.id, now).await.expect("removed");
    assert_eq!(values(shop).await[0].2, b"general");
    let again = store.remove_secret(Some(shop), &name("A"), admin.id, now).await;
    assert!(matches!(again, Err(StoreError::NotFound { .. })), "{again:?}");
}

/// Privileged changes are in the audit log, newest first, and refused ones aren't.
pub async fn a_change_is_in_the_audit_log<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let name = SecretName::new("TOKEN").expect("a name");
    let secret = SealedSecret { name: name.clone(), repo: None, sealed: vec![1] };
    store.set_secret(secret, admin.id, now).await.expect("set");
    store.remove_secret(None, &name, admin.id, now).await.expect("removed");
    store.remove_secret(None, &name, admin.id, now).await.expect_err("gone");
    let rows = store.audit(None, 200).await.expect("a list");
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.actor.as_str(), row.action.as_str(), row.target.as_str()))
        .collect();
    assert_eq!(told, [("admin", "secret.remove", "TOKEN"), ("admin", "secret.set", "TOKEN")]);
    let rest = store.audit(Some(rows[0].seq), 200).await.expect("a list");
    assert_eq!(rest, rows[1..]);
}

/// Who cancelled, reran, added and removed is told as well.
pub async fn every_privileged_verb_is_in_the_audit_log<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let (now, by) = (clock.now(), store.ensure_admin(clock.now()).await.expect("somebody").id);
    let run = one_job(store, clock, made.repo).await;
    store.cancel_run(run, by, now).await.expect("cancelled");
    store.cancel_run(run, by, now).await.expect_err("over already");
    store.rerun(run, false, by, now).await.expect("run again");
    let end = now + DAY;
    store.add_registration_token([7; 32], end, Some(by), now).await.expect("a token");
    // A server that is started again with the same token file says so again, and tells nobody.
    store.add_registration_token([7; 32], end, None, now).await.expect("the same token");
    let two = runner(store, clock, "two", &[]).await;
    store.remove_runner(two, by, now).await.expect("removed");
    store.remove_repo(made.repo, by, now).await.expect("removed");
    store.set_forge_token(made.repo, None, by, now).await.expect("removed");
    let rows = store.audit(None, 200).await.expect("a list");
    let told: Vec<_> = rows
        .iter()
        .rev()
        .filter(|row| row.actor == "admin")
        .map(|row| row.action.as_str())
        .collect();
    let expected = [
        "run.cancel",
        "run.rerun",
        "runner.token",
        "runner.remove",
        "repo.remove",
        "forge_token.remove",
    ];
    assert_eq!(told, expected);
    assert_eq!(rows.last().map(|row| row.action.as_str()), Some("repo.add"));
}
