//! People, sessions, tokens and the audit log.

use std::time::Duration;

use async_trait::async_trait;
use pipeyard_model::{Timestamp, TokenId, UserId};
use pipeyard_store::{
    StoreError, StoreResult,
    accounts::{
        Accounts, AuditEntry, Credential, CredentialKind, NewCredential, Role, SecretHash,
        SignedIn, User,
    },
};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore, audit,
    column::{corrupt, failed, parse},
};

/// The use of a credential is noted at most this often.
const NOTE_EVERY: Duration = Duration::from_secs(60);

fn role(word: &str, row: &str) -> StoreResult<Role> {
    match word {
        "admin" => Ok(Role::Admin),
        other => Err(corrupt("users", "role", row, format!("unknown role {other:?}"))),
    }
}

fn kind(word: &str, row: &str) -> StoreResult<CredentialKind> {
    match word {
        "login" => Ok(CredentialKind::OneTimeLogin),
        "session" => Ok(CredentialKind::Session),
        "token" => Ok(CredentialKind::Token),
        other => Err(corrupt("credentials", "kind", row, format!("unknown kind {other:?}"))),
    }
}

async fn insert(
    tx: &mut SqliteConnection,
    user: UserId,
    new: &NewCredential,
    now: Timestamp,
) -> StoreResult<()> {
    let (id, user, word) = (new.id.to_string(), user.to_string(), new.kind.as_str());
    let hash = new.hash.as_slice();
    let expires = new.expires_at.map(|at| at.0);
    sqlx::query!(
        "INSERT INTO credentials (id, user_id, kind, label, hash, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        id,
        user,
        word,
        new.label,
        hash,
        now.0,
        expires
    )
    .execute(tx)
    .await
    .map_err(failed)?;
    Ok(())
}

#[async_trait]
impl Accounts for SqliteStore {
    async fn ensure_admin(&self, now: Timestamp) -> StoreResult<User> {
        self.write(move |tx| {
            Box::pin(async move {
                let new = UserId::new().to_string();
                sqlx::query!(
                    "INSERT INTO users (id, name, role, created_at) VALUES (?, 'admin', 'admin', ?)
                         ON CONFLICT (name) DO NOTHING",
                    new,
                    now.0
                )
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
                let row = sqlx::query!("SELECT id, name, role FROM users WHERE name = 'admin'")
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

    async fn add_one_time_login(
        &self,
        user: UserId,
        credential: NewCredential,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let owner = user.to_string();
                sqlx::query!("DELETE FROM credentials WHERE kind = 'login' AND user_id = ?", owner)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
                insert(tx, user, &credential, now).await?;
                audit::record(tx, None, "login.mint", &credential.label, now).await
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
        now: Timestamp,
    ) -> StoreResult<Option<User>> {
        self.write(move |tx| {
            Box::pin(async move {
                let hash = old.as_slice();
                let Some(row) = sqlx::query!(
                    "SELECT c.id, c.kind, u.id AS user_id, u.name, u.role
                         FROM credentials c JOIN users u ON u.id = c.user_id
                         WHERE c.hash = ? AND c.kind IN ('login', 'token')
                           AND (c.expires_at IS NULL OR c.expires_at > ?)",
                    hash,
                    now.0
                )
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed)?
                else {
                    return Ok(None);
                };
                match kind(&row.kind, &row.id)? {
                    CredentialKind::OneTimeLogin => {
                        sqlx::query!("DELETE FROM credentials WHERE id = ?", row.id)
                            .execute(&mut *tx)
                            .await
                            .map_err(failed)?;
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
                    }
                }
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
                insert(tx, user.id, &new, now).await?;
                let target = format!("{} {}", new.kind.as_str(), new.label);
                audit::record(tx, Some(user.id), "login", &target, now).await?;
                Ok(Some(user))
            })
        })
        .await
    }

    async fn signed_in(&self, hash: SecretHash, now: Timestamp) -> StoreResult<Option<SignedIn>> {
        let bytes = hash.as_slice();
        let Some(row) = sqlx::query!(
            "SELECT c.id, c.kind, c.used_at, u.id AS user_id, u.name, u.role
             FROM credentials c JOIN users u ON u.id = c.user_id
             WHERE c.hash = ? AND c.kind IN ('session', 'token')
               AND (c.expires_at IS NULL OR c.expires_at > ?)",
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
        }))
    }

    async fn add_credential(
        &self,
        user: UserId,
        credential: NewCredential,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |tx| {
            Box::pin(async move {
                insert(tx, user, &credential, now).await?;
                let action = format!("{}.create", credential.kind.as_str());
                audit::record(tx, Some(user), &action, &credential.label, now).await
            })
        })
        .await
    }

    async fn credentials(&self, now: Timestamp) -> StoreResult<Vec<Credential>> {
        let rows = sqlx::query!(
            "SELECT c.id, c.kind, c.label, c.created_at, c.used_at, c.expires_at, u.name
             FROM credentials c JOIN users u ON u.id = c.user_id
             WHERE c.kind <> 'login' AND (c.expires_at IS NULL OR c.expires_at > ?)
             ORDER BY c.created_at DESC, c.id DESC LIMIT 1000",
            now.0
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter()
            .map(|row| {
                Ok(Credential {
                    id: parse("credentials", "id", &row.id, &row.id)?,
                    user: row.name,
                    kind: kind(&row.kind, &row.id)?,
                    label: row.label,
                    created_at: Timestamp(row.created_at),
                    used_at: row.used_at.map(Timestamp),
                    expires_at: row.expires_at.map(Timestamp),
                })
            })
            .collect()
    }

    async fn revoke_credential(&self, id: TokenId, by: UserId, now: Timestamp) -> StoreResult<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let key = id.to_string();
                let row = sqlx::query!(
                    "DELETE FROM credentials WHERE id = ? AND kind <> 'login'
                         RETURNING kind, label",
                    key
                )
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed)?
                .ok_or_else(|| StoreError::not_found(format_args!("token {id}")))?;
                let action = format!("{}.revoke", row.kind);
                audit::record(tx, Some(by), &action, &row.label, now).await
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

    async fn audit(&self, before: Option<i64>, limit: u32) -> StoreResult<Vec<AuditEntry>> {
        let before = before.unwrap_or(i64::MAX);
        let limit = limit.clamp(1, 200);
        let rows = sqlx::query!(
            r#"SELECT a.seq, a.at, a.action, a.target, u.name AS "name?"
               FROM audit a LEFT JOIN users u ON u.id = a.user_id
               WHERE a.seq < ? ORDER BY a.seq DESC LIMIT ?"#,
            before,
            limit
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        Ok(rows
            .into_iter()
            .map(|row| AuditEntry {
                seq: row.seq,
                at: Timestamp(row.at),
                actor: row.name.unwrap_or_else(|| "pipeyard".to_owned()),
                action: row.action,
                target: row.target,
            })
            .collect())
    }
}
