//! People, sessions and tokens.

use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use pipeyard_model::{Actor, Role, Timestamp, TokenId, UserId, UserName, credential::BadLifetime};
use pipeyard_store::{
    StoreError, StoreResult,
    accounts::{
        Account, Accounts, AuditEntry, Credential, CredentialKind, Exchanged, Identity,
        NewCredential, SecretHash, SignedIn, User,
    },
    audit::{Checked, Note},
};
use serde_json::json;
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    audit::{self, Detail},
    column::{corrupt, failed, parse, parse_opt},
    people,
};

/// The use of a credential is noted at most this often.
const NOTE_EVERY: Duration = Duration::from_secs(60);

pub(crate) fn role(word: &str, row: &str) -> StoreResult<Role> {
    parse("users", "role", row, word)
}

fn kind(word: &str, row: &str) -> StoreResult<CredentialKind> {
    match word {
        "login" => Ok(CredentialKind::OneTimeLogin),
        "session" => Ok(CredentialKind::Session),
        "token" => Ok(CredentialKind::Token),
        other => Err(corrupt("credentials", "kind", row, format!("unknown kind {other:?}"))),
    }
}

/// Stores it; it ends with its parent at the latest. Answers its end.
async fn insert(
    tx: &mut SqliteConnection,
    user: UserId,
    new: &NewCredential,
    parent: Option<(TokenId, Timestamp)>,
    now: Timestamp,
) -> StoreResult<Timestamp> {
    let (id, user, word) = (new.id.to_string(), user.to_string(), new.kind.as_str());
    let hash = new.hash.as_slice();
    let expires_at = parent.map_or(new.expires_at, |(_, end)| end.min(new.expires_at));
    if new.exact && expires_at < new.expires_at {
        let (asked, parent) = (new.expires_at, expires_at);
        let message = BadLifetime::OutlivesParent { asked, parent }.to_string();
        return Err(StoreError::conflict("outlives_parent", message));
    }
    let parent = parent.map(|(id, _)| id.to_string());
    sqlx::query!(
        "INSERT INTO credentials (id, user_id, kind, label, hash, parent, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        id,
        user,
        word,
        new.label,
        hash,
        parent,
        now.0,
        expires_at.0
    )
    .execute(tx)
    .await
    .map_err(failed)?;
    Ok(expires_at)
}

/// What is recorded of a new credential.
fn made(new: &NewCredential, expires_at: Timestamp, parent: Option<TokenId>) -> Detail {
    Detail::new(json!({
        "id": new.id,
        "kind": new.kind.as_str(),
        "label": new.label,
        "expires_at": expires_at,
        "parent": parent,
    }))
}

#[async_trait]
impl Accounts for SqliteStore {
    async fn ensure_admin(&self, now: Timestamp) -> StoreResult<User> {
        self.write(move |tx| {
            Box::pin(async move {
                let new = UserId::new().to_string();
                sqlx::query!(
                    "INSERT INTO users (id, name, role, created_at) VALUES (?, 'admin', 'admin', ?)
                         ON CONFLICT (name) WHERE removed_at IS NULL DO NOTHING",
                    new,
                    now.0
                )
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
                let row = sqlx::query!(
                    "SELECT id, name, role FROM users WHERE name = 'admin' AND removed_at IS NULL"
                )
                .fetch_one(&mut *tx)
                .await
                .map_err(failed)?;
                Ok(User {
                    id: parse("users", "id", &row.id, &row.id)?,
                    role: role(&row.role, &row.id)?,
                    name: row.name,
                })
            })
        })
        .await
    }

    async fn add_user(
        &self,
        user: User,
        identities: Vec<Identity>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |c| Box::pin(people::add(c, user, identities, by, now))).await
    }

    async fn users(&self) -> StoreResult<Vec<Account>> {
        let mut tx = self.snapshot().await?;
        people::list(&mut tx, None).await
    }

    async fn user_by_name(&self, name: &UserName) -> StoreResult<Option<Account>> {
        let mut tx = self.snapshot().await?;
        Ok(people::list(&mut tx, Some(name.as_str())).await?.pop())
    }

    async fn user_by_identity(&self, forge: &str, login: &str) -> StoreResult<Option<User>> {
        let mut tx = self.snapshot().await?;
        people::by_identity(&mut tx, forge, login).await
    }

    async fn change_user(
        &self,
        name: &UserName,
        role: Option<Role>,
        identities: Option<Vec<Identity>>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()> {
        let name = name.clone();
        self.write(move |c| {
            Box::pin(async move { people::change(c, &name, role, identities, by, now).await })
        })
        .await
    }

    async fn remove_user(&self, name: &UserName, by: Actor, now: Timestamp) -> StoreResult<()> {
        let name = name.clone();
        self.write(move |c| Box::pin(async move { people::remove(c, &name, by, now).await })).await
    }

    async fn add_one_time_login(
        &self,
        user: UserId,
        credential: NewCredential,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let owner = user.to_string();
                sqlx::query!("DELETE FROM credentials WHERE kind = 'login' AND user_id = ?", owner)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
                let name = sqlx::query_scalar!(
                    "SELECT name FROM users WHERE id = ? AND removed_at IS NULL",
                    owner
                )
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed)?
                .ok_or_else(|| StoreError::not_found(format_args!("user {user}")))?;
                let end = insert(tx, user, &credential, None, now).await?;
                let target = format!("one-time login of {name}");
                let detail = made(&credential, end, None);
                audit::record_change(tx, by, "login.mint", &target, detail, now).await
            })
        })
        .await
    }

    async fn anybody_signed_in(&self) -> StoreResult<bool> {
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT 1 FROM users WHERE first_seen_at IS NOT NULL) AS "seen!: bool""#
        )
        .fetch_one(&self.read)
        .await
        .map_err(failed)?;
        Ok(row.seen)
    }

    async fn exchange_credential(
        &self,
        old: SecretHash,
        new: NewCredential,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> StoreResult<Option<Exchanged>> {
        self.write(move |tx| {
            Box::pin(async move {
                let hash = old.as_slice();
                let Some(row) = sqlx::query!(
                    "SELECT c.id, c.kind, c.expires_at, u.id AS user_id, u.name, u.role
                         FROM credentials c JOIN users u ON u.id = c.user_id
                         WHERE c.hash = ? AND c.kind IN ('login', 'token')
                           AND c.expires_at > ? AND u.removed_at IS NULL",
                    hash,
                    now.0
                )
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed)?
                else {
                    return Ok(None);
                };
                let old: TokenId = parse("credentials", "id", &row.id, &row.id)?;
                let parent = match kind(&row.kind, &row.id)? {
                    CredentialKind::OneTimeLogin => {
                        sqlx::query!("DELETE FROM credentials WHERE id = ?", row.id)
                            .execute(&mut *tx)
                            .await
                            .map_err(failed)?;
                        None
                    }
                    CredentialKind::Token | CredentialKind::Session => {
                        sqlx::query!(
                            "UPDATE credentials SET used_at = ? WHERE id = ?",
                            now.0,
                            row.id
                        )
                        .execute(&mut *tx)
                        .await
                        .map_err(failed)?;
                        Some((old, Timestamp(row.expires_at)))
                    }
                };
                sqlx::query!(
                    "UPDATE users SET first_seen_at = ? WHERE id = ? AND first_seen_at IS NULL",
                    now.0,
                    row.user_id
                )
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
                let user = User {
                    id: parse("users", "id", &row.user_id, &row.user_id)?,
                    role: role(&row.role, &row.user_id)?,
                    name: row.name,
                };
                let expires_at = insert(tx, user.id, &new, parent, now).await?;
                let target = format!("{} {}", new.kind.as_str(), new.label);
                let by = Actor { credential: Some(old), ..Actor::user(user.id).from(from) };
                let detail = made(&new, expires_at, parent.map(|(id, _)| id));
                audit::record_change(tx, by, "login", &target, detail, now).await?;
                Ok(Some(Exchanged { user, expires_at }))
            })
        })
        .await
    }

    async fn signed_in(&self, hash: SecretHash, now: Timestamp) -> StoreResult<Option<SignedIn>> {
        let bytes = hash.as_slice();
        let Some(row) = sqlx::query!(
            "SELECT c.id, c.kind, c.used_at, c.expires_at, u.id AS user_id, u.name, u.role
             FROM credentials c JOIN users u ON u.id = c.user_id
             WHERE c.hash = ? AND c.kind IN ('session', 'token')
               AND c.expires_at > ? AND u.removed_at IS NULL",
            bytes,
            now.0
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?
        else {
            return Ok(None);
        };
        let stale = row.used_at.is_none_or(|at| now.since(Timestamp(at)) >= NOTE_EVERY);
        if stale {
            let id = row.id.clone();
            self.write(move |tx| {
                Box::pin(async move {
                    sqlx::query!("UPDATE credentials SET used_at = ? WHERE id = ?", now.0, id)
                        .execute(&mut *tx)
                        .await
                        .map_err(failed)?;
                    Ok(())
                })
            })
            .await?;
        }
        Ok(Some(SignedIn {
            user: User {
                id: parse("users", "id", &row.user_id, &row.user_id)?,
                role: role(&row.role, &row.user_id)?,
                name: row.name,
            },
            credential: parse("credentials", "id", &row.id, &row.id)?,
            kind: kind(&row.kind, &row.id)?,
            expires_at: Timestamp(row.expires_at),
        }))
    }

    async fn add_credential(
        &self,
        user: UserId,
        credential: NewCredential,
        parent: TokenId,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<Timestamp> {
        self.write(move |tx| {
            Box::pin(async move {
                let (id, owner) = (parent.to_string(), user.to_string());
                // It may have ended since the request came in.
                let end = sqlx::query_scalar!(
                    "SELECT expires_at FROM credentials
                     WHERE id = ? AND user_id = ? AND expires_at > ?",
                    id,
                    owner,
                    now.0
                )
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed)?
                .ok_or_else(|| StoreError::not_found(format_args!("token {parent}")))?;
                let end = Timestamp(end);
                let end = insert(tx, user, &credential, Some((parent, end)), now).await?;
                let action = format!("{}.create", credential.kind.as_str());
                let detail = made(&credential, end, Some(parent));
                audit::record_change(tx, by, &action, &credential.label, detail, now).await?;
                Ok(end)
            })
        })
        .await
    }

    async fn credentials(
        &self,
        of: Option<UserId>,
        now: Timestamp,
    ) -> StoreResult<Vec<Credential>> {
        let of = of.map(|id| id.to_string());
        let rows = sqlx::query!(
            "SELECT c.id, c.kind, c.label, c.created_at, c.used_at, c.expires_at, c.parent, u.name
             FROM credentials c JOIN users u ON u.id = c.user_id
             WHERE c.kind <> 'login' AND c.expires_at > ?1 AND (?2 IS NULL OR c.user_id = ?2)
             ORDER BY c.created_at DESC, c.id DESC LIMIT 1000",
            now.0,
            of
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter()
            .map(|row| {
                Ok(Credential {
                    parent: parse_opt("credentials", "parent", &row.id, row.parent.as_deref())?,
                    id: parse("credentials", "id", &row.id, &row.id)?,
                    user: row.name,
                    kind: kind(&row.kind, &row.id)?,
                    label: row.label,
                    created_at: Timestamp(row.created_at),
                    used_at: row.used_at.map(Timestamp),
                    expires_at: Timestamp(row.expires_at),
                })
            })
            .collect()
    }

    async fn revoke_credential(
        &self,
        id: TokenId,
        of: Option<UserId>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let (key, of) = (id.to_string(), of.map(|id| id.to_string()));
                let known = sqlx::query_scalar!(
                    "SELECT id FROM credentials
                     WHERE id = ?1 AND kind <> 'login' AND (?2 IS NULL OR user_id = ?2)",
                    key,
                    of
                )
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed)?;
                if known.is_none() {
                    return Err(StoreError::not_found(format_args!("token {id}")));
                }
                // It first, then what was made by it, and by those.
                let ended = sqlx::query!(
                    r#"WITH RECURSIVE ended (id) AS (
                           SELECT ?1
                           UNION
                           SELECT c.id FROM credentials c JOIN ended e ON c.parent = e.id
                       )
                       SELECT c.id, c.kind, c.label, u.name
                       FROM ended e JOIN credentials c ON c.id = e.id
                       JOIN users u ON u.id = c.user_id"#,
                    key
                )
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?;
                for row in ended {
                    let action = format!("{}.revoke", row.kind);
                    let before = Detail::gone(json!({ "id": row.id, "user": row.name }));
                    audit::record_change(tx, by, &action, &row.label, before, now).await?;
                }
                sqlx::query!("DELETE FROM credentials WHERE id = ?", key)
                    .execute(tx)
                    .await
                    .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn remove_expired_credentials(&self, now: Timestamp) -> StoreResult<u64> {
        self.writer
            .write_bulk(move |tx| {
                Box::pin(async move {
                    let done = sqlx::query!("DELETE FROM credentials WHERE expires_at <= ?", now.0)
                        .execute(&mut *tx)
                        .await
                        .map_err(failed)?;
                    Ok(done.rows_affected())
                })
            })
            .await
    }

    async fn note(&self, note: Note, now: Timestamp) -> StoreResult<()> {
        self.write(move |tx| {
            Box::pin(
                async move { audit::record(tx, note.by, note.action, &note.target, now).await },
            )
        })
        .await
    }

    async fn audit(&self, before: Option<i64>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        audit::list(&self.read, before.unwrap_or(i64::MAX), limit.clamp(1, 200)).await
    }

    async fn check_audit(&self) -> StoreResult<Checked> {
        audit::check(&self.read).await
    }
}
