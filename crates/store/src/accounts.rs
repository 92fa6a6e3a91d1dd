//! People, sessions, tokens and the audit log.
//!
//! A credential is stored as the SHA-256 of its secret: the secrets are long and random, so a slow
//! hash would add nothing. A row of the audit log is written in the transaction of the change that
//! it tells of, never afterwards.

use std::net::IpAddr;

use async_trait::async_trait;
use pipeyard_model::{Actor, Role, Timestamp, TokenId, UserId, UserName};

pub use crate::audit::AuditEntry;
use crate::{
    StoreResult,
    audit::{Checked, Note},
};

/// SHA-256 of a credential's secret.
pub type SecretHash = [u8; 32];

/// A person or machine that signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Unique; shown in timelines and the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// What a credential is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// Exchanged once for one of the others.
    OneTimeLogin,
    /// A browser's cookie.
    Session,
    /// A program's bearer token.
    Token,
}

impl CredentialKind {
    /// The word for it in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OneTimeLogin => "login",
            Self::Session => "session",
            Self::Token => "token",
        }
    }
}

/// A credential to store.
#[derive(Debug, Clone)]
pub struct NewCredential {
    /// Its id.
    pub id: TokenId,
    /// What it is good for.
    pub kind: CredentialKind,
    /// Shown to people: `pipectl on build-7`.
    pub label: String,
    /// Hash of its secret.
    pub hash: SecretHash,
    /// It is refused after this.
    /// It ends then.
    pub expires_at: Timestamp,
    /// Somebody asked for exactly this end: where the credential that makes it ends sooner, it is
    /// refused (`outlives_parent`), not cut.
    pub exact: bool,
}

/// Who holds a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// Who.
    pub user: User,
    /// The credential.
    pub credential: TokenId,
    /// Its kind.
    pub kind: CredentialKind,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A credential in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its id.
    pub id: TokenId,
    /// Whose.
    pub user: String,
    /// Its kind.
    pub kind: CredentialKind,
    /// Shown to people.
    pub label: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used; exact to a minute.
    pub used_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The credential that it was made by, and ends with.
    pub parent: Option<TokenId>,
}

/// A person with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The person.
    pub user: User,
    /// Who forges say that it is: `github`, `ann-lee`.
    pub identities: Vec<Identity>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it first signed in.
    pub first_seen_at: Option<Timestamp>,
}

/// Who a forge says that somebody is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The forge's word: `github`.
    pub forge: String,
    /// The account's name there, in lower case.
    pub login: String,
}

/// How a credential came to be.
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// Whose it is.
    pub user: User,
    /// When the new one ends.
    pub expires_at: Timestamp,
}

/// People, sessions, tokens and the audit log.
#[async_trait]
pub trait Accounts {
    /// The administrator that commands on the server's machine sign in; created at the first call.
    async fn ensure_admin(&self, now: Timestamp) -> StoreResult<User>;
    /// Adds a person. Conflict `name_taken`, `identity_taken`.
    async fn add_user(
        &self,
        user: User,
        identities: Vec<Identity>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Everybody who isn't removed, by name.
    async fn users(&self) -> StoreResult<Vec<Account>>;
    /// One of them by name.
    async fn user_by_name(&self, name: &UserName) -> StoreResult<Option<Account>>;
    /// The person whom a forge knows by this login, in any case of its letters.
    async fn user_by_identity(&self, forge: &str, login: &str) -> StoreResult<Option<User>>;
    /// Gives a person another role, identities, or both; what is absent stays. Not found, conflict
    /// `built_in`, `identity_taken`.
    async fn change_user(
        &self,
        name: &UserName,
        role: Option<Role>,
        identities: Option<Vec<Identity>>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Removes a person; every credential that it has ends with it. Not found, conflict `built_in`.
    async fn remove_user(&self, name: &UserName, by: Actor, now: Timestamp) -> StoreResult<()>;
    /// Stores a one-time login of this user; the ones before are worth nothing from now on.
    async fn add_one_time_login(
        &self,
        user: UserId,
        credential: NewCredential,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Whether anybody ever signed in: a one-time login was used or a token made.
    async fn anybody_signed_in(&self) -> StoreResult<bool>;
    /// Gives a new credential to the holder of another. A one-time login is used up by it, in the
    /// same transaction; a token becomes the parent of the new one, which ends no later; a session
    /// can't be exchanged. `None` if the old one is unknown or over.
    async fn exchange_credential(
        &self,
        old: SecretHash,
        new: NewCredential,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> StoreResult<Option<Exchanged>>;
    /// Who holds this session or token, if it is neither unknown nor over. Notes its use, at most
    /// once a minute. One-time logins don't sign anybody in.
    async fn signed_in(&self, hash: SecretHash, now: Timestamp) -> StoreResult<Option<SignedIn>>;
    /// Stores a credential made by a person who is signed in by `parent`, and ends no later. Answers
    /// its end. Not found when the parent is over.
    async fn add_credential(
        &self,
        user: UserId,
        credential: NewCredential,
        parent: TokenId,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<Timestamp>;
    /// Sessions and tokens that aren't over, newest first: everybody's, or this person's.
    async fn credentials(&self, of: Option<UserId>, now: Timestamp)
    -> StoreResult<Vec<Credential>>;
    /// It and everything made by it are worth nothing from now on. Not found if it is gone already,
    /// or isn't of this person.
    async fn revoke_credential(
        &self,
        id: TokenId,
        of: Option<UserId>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Removes credentials that ended before `now`.
    async fn remove_expired_credentials(&self, now: Timestamp) -> StoreResult<u64>;
    /// Records something that changed no other row: a refusal.
    async fn note(&self, note: Note, now: Timestamp) -> StoreResult<()>;
    /// The audit log, newest first, before `before` if given; at most `limit`, 1 to 200.
    async fn audit(&self, before: Option<i64>, limit: u32) -> StoreResult<Vec<AuditEntry>>;
    /// Walks the whole audit log and tells the first row that isn't what was written.
    async fn check_audit(&self) -> StoreResult<Checked>;
}
