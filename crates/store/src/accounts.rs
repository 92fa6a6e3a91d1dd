//! People, sessions, tokens and the audit log.
//!
//! A credential is stored as the SHA-256 of its secret: the secrets are long and random, so a slow
//! hash would add nothing. A row of the audit log is written in the transaction of the change that
//! it tells of, never afterwards.

use async_trait::async_trait;
use pipeyard_model::{Timestamp, TokenId, UserId};

use crate::StoreResult;

/// SHA-256 of a credential's secret.
pub type SecretHash = [u8; 32];

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
}

impl Role {
    /// The word for it in rows and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
        }
    }
}

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
    pub expires_at: Option<Timestamp>,
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
    pub expires_at: Option<Timestamp>,
}

/// One privileged change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Always increasing.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// Who; `pipeyard` for the server itself.
    pub actor: String,
    /// `secret.set`, `run.cancel`, ...
    pub action: String,
    /// What it was done to.
    pub target: String,
}

/// People, sessions, tokens and the audit log.
#[async_trait]
pub trait Accounts {
    /// The administrator; created at the first call.
    async fn ensure_admin(&self, now: Timestamp) -> StoreResult<User>;
    /// Stores a one-time login of this user; the ones before are worth nothing from now on.
    async fn add_one_time_login(
        &self,
        user: UserId,
        credential: NewCredential,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Whether anybody ever signed in: a one-time login was used or a token made.
    async fn anybody_signed_in(&self) -> StoreResult<bool>;
    /// Gives a new credential to the holder of another. A one-time login is used up by it, in the
    /// same transaction; a session can't be exchanged. `None` if the old one is unknown or over.
    async fn exchange_credential(
        &self,
        old: SecretHash,
        new: NewCredential,
        now: Timestamp,
    ) -> StoreResult<Option<User>>;
    /// Who holds this session or token, if it is neither unknown nor over. Notes its use, at most
    /// once a minute. One-time logins don't sign anybody in.
    async fn signed_in(&self, hash: SecretHash, now: Timestamp) -> StoreResult<Option<SignedIn>>;
    /// Stores a credential made by a person who is signed in.
    async fn add_credential(
        &self,
        user: UserId,
        credential: NewCredential,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Sessions and tokens that aren't over, newest first.
    async fn credentials(&self, now: Timestamp) -> StoreResult<Vec<Credential>>;
    /// It is worth nothing from now on. Not found if it is gone already.
    async fn revoke_credential(&self, id: TokenId, by: UserId, now: Timestamp) -> StoreResult<()>;
    /// Removes credentials that ended before `now`.
    async fn remove_expired_credentials(&self, now: Timestamp) -> StoreResult<u64>;
    /// The audit log, newest first, before `before` if given; at most `limit`, 1 to 200.
    async fn audit(&self, before: Option<i64>, limit: u32) -> StoreResult<Vec<AuditEntry>>;
}
