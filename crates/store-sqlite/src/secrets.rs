//! Secrets and forge tokens, both encrypted before they get here.

use async_trait::async_trait;
use pipeyard_api::views::SecretView;
use pipeyard_model::{Actor, RepoId, RepoName, SecretName, Timestamp};
use pipeyard_store::{
    StoreError, StoreResult,
    secrets::{SealedSecret, Secrets},
};

use crate::{
    SqliteStore, audit,
    column::{failed, parse},
};

/// How a secret of every repository is keyed.
const EVERY: &str = "";

fn scope(repo: Option<RepoId>) -> String {
    repo.map_or_else(|| EVERY.to_owned(), |id| id.to_string())
}

/// `NAME`, or `NAME of <repository's id>`.
fn target(repo: Option<RepoId>, name: &SecretName) -> String {
    repo.map_or_else(|| name.to_string(), |repo| format!("{name} of {repo}"))
}

#[async_trait]
impl Secrets for SqliteStore {
    async fn set_secret(&self, secret: SealedSecret, by: Actor, now: Timestamp) -> StoreResult<()> {
        self.write(move |tx| {
                Box::pin(async move {
                    let (repo, name) = (scope(secret.repo), secret.name.as_str());
                    sqlx::query!(
                        "INSERT INTO secrets (repo, name, sealed, updated_at) VALUES (?, ?, ?, ?)
                         ON CONFLICT (repo, name) DO UPDATE
                         SET sealed = excluded.sealed, updated_at = excluded.updated_at, used_at = NULL",
                        repo,
                        name,
                        secret.sealed,
                        now.0
                    )
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
                    let target = target(secret.repo, &secret.name);
                    audit::record(tx, by, "secret.set", &target, now).await
                })
            })
            .await
    }

    async fn secrets(&self) -> StoreResult<Vec<SecretView>> {
        let rows = sqlx::query!(
            r#"SELECT s.name, s.updated_at, s.used_at, r.name AS "repo_name?"
               FROM secrets s LEFT JOIN repos r ON r.id = s.repo
               WHERE s.repo = '' OR (r.id IS NOT NULL AND r.removed_at IS NULL)
               ORDER BY s.name, s.repo LIMIT 10000"#
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter()
            .map(|row| {
                Ok(SecretView {
                    name: parse("secrets", "name", &row.name, &row.name)?,
                    repo: row
                        .repo_name
                        .map(|name| parse::<RepoName>("repos", "name", &name, &name))
                        .transpose()?,
                    updated_at: Timestamp(row.updated_at),
                    used_at: row.used_at.map(Timestamp),
                })
            })
            .collect()
    }

    async fn remove_secret(
        &self,
        repo: Option<RepoId>,
        name: &SecretName,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()> {
        let name = name.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let (scope, word) = (scope(repo), name.as_str());
                let done =
                    sqlx::query!("DELETE FROM secrets WHERE repo = ? AND name = ?", scope, word)
                        .execute(&mut *tx)
                        .await
                        .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(StoreError::not_found(format_args!("secret {name}")));
                }
                let target = target(repo, &name);
                audit::record(tx, by, "secret.remove", &target, now).await
            })
        })
        .await
    }

    async fn take_secrets(
        &self,
        repo: RepoId,
        names: &[SecretName],
        to: Actor,
        now: Timestamp,
    ) -> StoreResult<Vec<SealedSecret>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names = names.to_vec();
        self.write(move |tx| {
            Box::pin(async move {
                let mut found = Vec::with_capacity(names.len());
                let own = repo.to_string();
                for name in names {
                    let word = name.as_str();
                    // The empty scope sorts before every id, so the repository's own is last.
                    let Some(row) = sqlx::query!(
                        "UPDATE secrets SET used_at = ?1
                             WHERE name = ?2 AND repo = (
                                 SELECT max(repo) FROM secrets
                                 WHERE name = ?2 AND repo IN ('', ?3))
                             RETURNING repo, sealed",
                        now.0,
                        word,
                        own
                    )
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(failed)?
                    else {
                        continue;
                    };
                    let scope = (row.repo != EVERY).then_some(repo);
                    let target = target(scope, &name);
                    audit::record(tx, to, "secret.grant", &target, now).await?;
                    found.push(SealedSecret { name, repo: scope, sealed: row.sealed });
                }
                Ok(found)
            })
        })
        .await
    }

    async fn set_forge_token(
        &self,
        repo: RepoId,
        sealed: Option<Vec<u8>>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let key = repo.to_string();
                let action = if let Some(sealed) = sealed {
                    sqlx::query!(
                        "INSERT INTO forge_tokens (repo, sealed, updated_at) VALUES (?, ?, ?)
                             ON CONFLICT (repo) DO UPDATE
                             SET sealed = excluded.sealed, updated_at = excluded.updated_at",
                        key,
                        sealed,
                        now.0
                    )
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
                    "forge_token.set"
                } else {
                    sqlx::query!("DELETE FROM forge_tokens WHERE repo = ?", key)
                        .execute(&mut *tx)
                        .await
                        .map_err(failed)?;
                    "forge_token.remove"
                };
                audit::record(tx, by, action, &key, now).await
            })
        })
        .await
    }

    async fn forge_token(&self, repo: RepoId) -> StoreResult<Option<Vec<u8>>> {
        let key = repo.to_string();
        let row = sqlx::query!("SELECT sealed FROM forge_tokens WHERE repo = ?", key)
            .fetch_optional(&self.read)
            .await
            .map_err(failed)?;
        Ok(row.map(|row| row.sealed))
    }
}
