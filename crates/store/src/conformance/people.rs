//! Accounts and the audit log.

use std::time::Duration;

use pipeyard_model::{
    Actor, Clock as _, ManualClock, Role, SecretName, Timestamp, TokenId, UserId, UserName,
    runner::Grant,
};

use super::{
    claims::is_conflict,
    make::{one_job, runner, setup},
};
use crate::{
    Store, StoreError,
    accounts::{CredentialKind, Identity, NewCredential, User},
    runners::NewEnrolment,
    secrets::{NewSecret, SealedSecret},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn credential(kind: CredentialKind, hash: u8, expires_at: Timestamp) -> NewCredential {
    let label = format!("{} {hash}", kind.as_str());
    NewCredential { id: TokenId::new(), kind, label, hash: [hash; 32], expires_at, exact: false }
}

/// A one-time login signs in once, and only the newest one does.
pub async fn a_one_time_login_is_used_once<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    assert_eq!(store.ensure_admin(now).await.expect("the same one"), admin);
    assert!(!store.anybody_signed_in().await.expect("nobody yet"));
    let end = now + DAY;
    for hash in [1, 2] {
        let login = credential(CredentialKind::OneTimeLogin, hash, end);
        store.add_one_time_login(admin.id, login, Actor::pipeyard(), now).await.expect("a login");
    }
    let session = |hash| credential(CredentialKind::Session, hash, end);
    // The first was replaced, an unknown one was never there, and a login is no session.
    for wrong in [1, 99] {
        let user = store.exchange_credential([wrong; 32], session(50 + wrong), None, now).await;
        assert!(user.expect("an answer").is_none(), "{wrong}");
    }
    assert_eq!(store.signed_in([2; 32], now).await.expect("an answer"), None);
    let user = store.exchange_credential([2; 32], session(10), None, now).await.expect("an answer");
    assert_eq!(user.map(|new| new.user.id), Some(admin.id));
    assert!(store.anybody_signed_in().await.expect("somebody"));
    let again =
        store.exchange_credential([2; 32], session(11), None, now).await.expect("an answer");
    assert!(again.is_none());
    let who = store.signed_in([10; 32], now).await.expect("an answer").expect("signed in");
    assert_eq!((who.user.id, who.kind), (admin.id, CredentialKind::Session));
    assert_eq!(store.signed_in([11; 32], now).await.expect("an answer"), None);
    // A login that is over isn't accepted.
    let late = credential(CredentialKind::OneTimeLogin, 3, end);
    store.add_one_time_login(admin.id, late, Actor::pipeyard(), now).await.expect("a login");
    let over = store.exchange_credential([3; 32], session(12), None, now + DAY).await;
    assert!(over.expect("an answer").is_none());
}

/// Signs a person in: a session or token that nothing made.
async fn root<S: Store>(store: &S, user: UserId, new: NewCredential, now: Timestamp) {
    let code = credential(CredentialKind::OneTimeLogin, 200, now + DAY);
    store.add_one_time_login(user, code, Actor::pipeyard(), now).await.expect("a login");
    let made = store.exchange_credential([200; 32], new, None, now).await.expect("an answer");
    assert!(made.is_some());
}

/// Tokens and sessions end by time, by revocation and by clean-up.
pub async fn a_credential_ends<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let by = Actor::user(admin.id);
    let token = credential(CredentialKind::Token, 1, now + 9 * DAY);
    root(store, admin.id, token.clone(), now).await;
    let short = credential(CredentialKind::Token, 2, now + DAY);
    let end = store.add_credential(admin.id, short, token.id, by, now).await.expect("a token");
    assert_eq!(end, now + DAY);
    let good = async |hash, at| store.signed_in([hash; 32], at).await.expect("an answer").is_some();
    assert!(good(1, now).await && good(2, now).await);
    assert!(good(1, now + DAY).await && !good(2, now + DAY).await);
    let listed = async |at| store.credentials(None, at).await.expect("a list").len();
    assert_eq!((listed(now).await, listed(now + DAY).await), (2, 1));
    assert_eq!(store.remove_expired_credentials(now + DAY).await.expect("a count"), 1);
    store.revoke_credential(token.id, None, by, now).await.expect("revoked");
    assert!(!good(1, now).await);
    let again = store.revoke_credential(token.id, None, by, now).await;
    assert!(matches!(again, Err(StoreError::NotFound { .. })), "{again:?}");
    // A token makes a session and stays; a session makes nothing.
    root(store, admin.id, credential(CredentialKind::Token, 4, now + DAY), now).await;
    for (old, new, expected) in [(4, 5, true), (4, 6, true), (5, 7, false)] {
        let new = credential(CredentialKind::Session, new, now + DAY);
        let user = store.exchange_credential([old; 32], new, None, now).await.expect("an answer");
        assert_eq!(user.is_some(), expected, "from {old}");
    }
}

/// What a credential makes, in whatever way, ends with it: by time and by revocation.
pub async fn a_credential_never_outlives_its_parent<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let by = Actor::user(admin.id);
    let parent = credential(CredentialKind::Token, 1, now + DAY);
    root(store, admin.id, parent.clone(), now).await;
    // Made, exchanged, and made by the exchanged one: all asked to last for a year.
    let year = now + 365 * DAY;
    let child = credential(CredentialKind::Token, 2, year);
    let end = store.add_credential(admin.id, child, parent.id, by, now).await.expect("a token");
    assert_eq!(end, now + DAY);
    let session = credential(CredentialKind::Session, 3, year);
    let made = store.exchange_credential([1; 32], session.clone(), None, now).await;
    assert_eq!(made.expect("an answer").map(|new| new.expires_at), Some(now + DAY));
    let grandchild = credential(CredentialKind::Token, 4, year);
    let end = store.add_credential(admin.id, grandchild, session.id, by, now).await;
    assert_eq!(end.expect("a token"), now + DAY);
    let good = async |hash, at| store.signed_in([hash; 32], at).await.expect("an answer").is_some();
    for hash in 1..=4 {
        assert!(good(hash, now).await && !good(hash, now + DAY).await, "{hash}");
    }
    let rows = store.credentials(None, now).await.expect("a list");
    assert_eq!(rows.iter().filter(|row| row.parent == Some(parent.id)).count(), 2);
    store.revoke_credential(parent.id, None, by, now).await.expect("revoked");
    for hash in 1..=4 {
        assert!(!good(hash, now).await, "{hash}");
    }
    let told = store.audit(None, 4).await.expect("a list");
    assert!(told.iter().all(|row| row.action.ends_with(".revoke")), "{told:?}");
    // Nothing is made by what is over.
    let late = credential(CredentialKind::Token, 5, year);
    let late = store.add_credential(admin.id, late, parent.id, by, now).await;
    assert!(matches!(late, Err(StoreError::NotFound { .. })), "{late:?}");
}

/// Users are added, changed and removed; a removed one's credentials are worth nothing at once.
pub async fn a_user_comes_and_goes<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let by = Actor::user(store.ensure_admin(now).await.expect("an administrator").id);
    let name = |text: &str| UserName::new(text).expect("a name");
    let github = |login: &str| Identity { forge: "github".into(), login: login.into() };
    let user = |text: &str| User { id: UserId::new(), name: text.into(), role: Role::Developer };
    let ann = user("ann");
    store.add_user(ann.clone(), vec![github("ann-lee")], by, now).await.expect("added");
    for (user, login, code) in
        [(user("ann"), "other", "name_taken"), (user("bob"), "ann-lee", "identity_taken")]
    {
        let added = store.add_user(user, vec![github(login)], by, now).await;
        is_conflict(added, code);
    }
    let known = store.user_by_identity("github", "Ann-Lee").await.expect("an answer");
    assert_eq!(known, Some(ann.clone()));
    assert_eq!(store.user_by_identity("gitlab", "ann-lee").await.expect("an answer"), None);
    root(store, ann.id, credential(CredentialKind::Token, 1, now + DAY), now).await;
    let role = async || {
        let who = store.signed_in([1; 32], now).await.expect("an answer");
        who.map(|who| who.user.role)
    };
    assert_eq!(role().await, Some(Role::Developer));
    // Both hold from the next request on.
    store.change_user(&name("ann"), Some(Role::Admin), None, by, now).await.expect("changed");
    assert_eq!(role().await, Some(Role::Admin));
    let account = store.user_by_name(&name("ann")).await.expect("an answer").expect("ann");
    assert_eq!(account.identities, [github("ann-lee")]);
    store.remove_user(&name("ann"), by, now).await.expect("removed");
    assert_eq!(role().await, None);
    assert_eq!(store.user_by_identity("github", "ann-lee").await.expect("an answer"), None);
    let again = store.remove_user(&name("ann"), by, now).await;
    assert!(matches!(again, Err(StoreError::NotFound { .. })), "{again:?}");
    let login = credential(CredentialKind::OneTimeLogin, 2, now + DAY);
    let gone = store.add_one_time_login(ann.id, login, by, now).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
    // The name is free again, for somebody else.
    store.add_user(user("ann"), vec![github("ann-lee")], by, now).await.expect("another ann");
    // The one who commands on the server's machine sign in stays.
    for refused in [
        store.remove_user(&name("admin"), by, now).await,
        store.change_user(&name("admin"), Some(Role::Developer), None, by, now).await,
    ] {
        is_conflict(refused, "built_in");
    }
    let told: Vec<_> = store.audit(None, 200).await.expect("a list");
    let told: Vec<_> = told.iter().rev().filter(|row| row.action.starts_with("user.")).collect();
    let actions: Vec<_> = told.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["user.add", "user.change", "user.remove", "user.add"]);
    assert!(told[1].before.as_deref().is_some_and(|text| text.contains("developer")));
    assert!(told[1].after.as_deref().is_some_and(|text| text.contains("\"admin\"")));
}

/// Use is noted, but not at every request.
pub async fn the_use_of_a_token_is_noted<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let token = credential(CredentialKind::Token, 1, now + 9 * DAY);
    root(store, admin.id, token, now).await;
    let used = async || store.credentials(None, now).await.expect("a list")[0].used_at;
    assert_eq!(used().await, None);
    let second = Duration::from_secs(1);
    for (at, noted) in [(now, now), (now + 30 * second, now), (now + DAY, now + DAY)] {
        store.signed_in([1; 32], at).await.expect("an answer");
        assert_eq!(used().await, Some(noted));
    }
}

/// Privileged changes are in the audit log, newest first, and refused ones aren't.
pub async fn a_change_is_in_the_audit_log<S: Store>(store: &S, clock: &ManualClock) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let name = SecretName::new("TOKEN").expect("a name");
    let secret = SealedSecret { name: name.clone(), repo: None, sealed: vec![1] };
    let secret = NewSecret { secret, branches: None, events: None };
    store.set_secret(secret, Actor::user(admin.id), now).await.expect("set");
    store.remove_secret(None, &name, Actor::user(admin.id), now).await.expect("removed");
    store.remove_secret(None, &name, Actor::user(admin.id), now).await.expect_err("gone");
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
    let now = clock.now();
    let by = Actor::user(store.ensure_admin(now).await.expect("somebody").id);
    let run = one_job(store, clock, made.repo).await;
    store.cancel_run(run, by, now).await.expect("cancelled");
    store.cancel_run(run, by, now).await.expect_err("over already");
    store.rerun(run, false, by, now).await.expect("run again");
    let end = now + DAY;
    store
        .add_enrolment(
            NewEnrolment { hash: [7; 32], expires_at: end, grant: Grant::everything() },
            by,
            now,
        )
        .await
        .expect("a token");
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

/// Every row says by which credential and from where, and the log is whole.
pub async fn the_audit_log_says_who_from_where_and_is_chained<S: Store>(
    store: &S,
    clock: &ManualClock,
) {
    let now = clock.now();
    let admin = store.ensure_admin(now).await.expect("an administrator");
    let (credential, address) = (TokenId::new(), [10, 0, 0, 7].into());
    let by = Actor { credential: Some(credential), ..Actor::user(admin.id).from(Some(address)) };
    let name = SecretName::new("TOKEN").expect("a name");
    for value in 1..4 {
        let secret = SealedSecret { name: name.clone(), repo: None, sealed: vec![value] };
        let secret = NewSecret { secret, branches: None, events: None };
        store.set_secret(secret, by, now).await.expect("set");
    }
    let rows = store.audit(None, 3).await.expect("a list");
    for row in &rows {
        assert_eq!((row.who.as_str(), row.actor.as_str()), ("user", "admin"));
        assert_eq!(row.credential, Some(credential.to_string()));
        assert_eq!(row.address.as_deref(), Some("10.0.0.7"));
    }
    assert_eq!(Some(rows[0].link(&rows[1].hash.expect("a link"))), rows[0].hash);
    let checked = store.check_audit().await.expect("a check");
    assert_eq!((checked.broken, checked.rows), (None, 3));
    assert_eq!(Some(checked.head.1), rows[0].hash);
}
