//! Secrets and forge tokens, both encrypted before they get here.

use async_trait::async_trait;
use pipeyard_api::views::SecretView;
use pipeyard_model::{
    Actor, BranchGlob, RepoId, RepoName, SecretName, Timestamp,
    origin::{Event, Origin},
    secret::{Asking, BranchLimit, Refusal, Scope, may_have},
};
use pipeyard_store::{
    StoreError, StoreResult,
    secrets::{AskingAttempt, NewSecret, SealedSecret, Secrets, Taken},
};
use serde_json::json;
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    audit::{self, Detail},
    column::{self, failed, parse},
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

async fn set(
    tx: &mut SqliteConnection,
    new: NewSecret,
    by: Actor,
    now: Timestamp,
) -> StoreResult<Scope> {
    let NewSecret { secret, branches, events } = new;
    let (repo, name) = (scope(secret.repo), secret.name.as_str());
    let before =
        sqlx::query_scalar!("SELECT scope FROM secrets WHERE repo = ? AND name = ?", repo, name)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed)?;
    let known: Option<Scope> =
        before.map(|text| column::json("secrets", "scope", name, &text)).transpose()?;
    let mut limits = known.clone().unwrap_or(Scope::OPEN);
    if let Some(branches) = branches {
        limits.branches = branches;
    }
    if let Some(events) = events {
        limits.events = events;
    }
    let text = column::to_json(&limits)?;
    sqlx::query!(
        "INSERT INTO secrets (repo, name, sealed, scope, updated_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (repo, name) DO UPDATE
         SET sealed = excluded.sealed, scope = excluded.scope, updated_at = excluded.updated_at,
             used_at = NULL, limited_by_upgrade = 0",
        repo,
        name,
        secret.sealed,
        text,
        now.0
    )
    .execute(&mut *tx)
    .await
    .map_err(failed)?;
    let limited = |scope: String| json!({ "limited_to": scope });
    let known = known.map(|scope| limited(scope.words()));
    let detail = Detail { before: known, after: Some(limited(limits.words())) };
    let target = target(secret.repo, &secret.name);
    audit::record_change(tx, by, "secret.set", &target, detail, now).await?;
    Ok(limits)
}

async fn default_branch(tx: &mut SqliteConnection, repo: RepoId) -> StoreResult<String> {
    let id = repo.to_string();
    let branch = sqlx::query_scalar!("SELECT default_branch FROM repos WHERE id = ?", id)
        .fetch_optional(tx)
        .await
        .map_err(failed)?;
    Ok(branch.unwrap_or_default())
}

/// The one secret of this name that counts for the repository, if the rule gives it.
async fn look(
    tx: &mut SqliteConnection,
    asking: &Asking<'_>,
    name: &SecretName,
) -> StoreResult<Result<SealedSecret, Refusal>> {
    if asking.origin.is_fork() {
        return Ok(Err(Refusal::Fork));
    }
    let (word, own) = (name.as_str(), asking.repo.to_string());
    // The empty scope sorts before every id, so the repository's own comes first.
    let Some(row) = sqlx::query!(
        "SELECT repo, sealed, scope FROM secrets WHERE name = ? AND repo IN ('', ?)
         ORDER BY repo DESC LIMIT 1",
        word,
        own
    )
    .fetch_optional(tx)
    .await
    .map_err(failed)?
    else {
        return Ok(Err(Refusal::Missing));
    };
    let repo = (row.repo != EVERY).then_some(asking.repo);
    let limits: Scope = column::json("secrets", "scope", word, &row.scope)?;
    Ok(may_have(repo, &limits, asking).map(|()| SealedSecret {
        name: name.clone(),
        repo,
        sealed: row.sealed,
    }))
}

async fn take(
    tx: &mut SqliteConnection,
    attempt: &AskingAttempt,
    names: Vec<SecretName>,
    to: Actor,
    now: Timestamp,
) -> StoreResult<Taken> {
    let default_branch = default_branch(tx, attempt.repo).await?;
    let asking = Asking {
        repo: attempt.repo,
        default_branch: &default_branch,
        event: attempt.event,
        origin: &attempt.origin,
    };
    let (mut given, mut refused) = (Vec::with_capacity(names.len()), Vec::new());
    for name in names {
        match look(tx, &asking, &name).await? {
            Ok(secret) => given.push(secret),
            Err(why) => refused.push((name, why)),
        }
    }
    if !refused.is_empty() {
        return Ok(Taken::Refused(refused));
    }
    for secret in &given {
        let (repo, name) = (scope(secret.repo), secret.name.as_str());
        sqlx::query!(
            "UPDATE secrets SET used_at = ? WHERE repo = ? AND name = ?",
            now.0,
            repo,
            name
        )
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        let target = target(secret.repo, &secret.name);
        audit::record(tx, to, "secret.grant", &target, now).await?;
    }
    Ok(Taken::Given(given))
}

#[async_trait]
impl Secrets for SqliteStore {
    async fn set_secret(&self, new: NewSecret, by: Actor, now: Timestamp) -> StoreResult<Scope> {
        self.write(move |tx| Box::pin(async move { set(tx, new, by, now).await })).await
    }

    async fn secrets(&self) -> StoreResult<Vec<SecretView>> {
        let rows = sqlx::query!(
            r#"SELECT s.name, s.scope, s.limited_by_upgrade, s.updated_at, s.used_at, r.name AS "repo_name?"
               FROM secrets s LEFT JOIN repos r ON r.id = s.repo
               WHERE s.repo = '' OR (r.id IS NOT NULL AND r.removed_at IS NULL)
               ORDER BY s.name, s.repo LIMIT 10000"#
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter()
            .map(|row| {
                let scope: Scope = column::json("secrets", "scope", &row.name, &row.scope)?;
                let words = scope.words();
                let (branches, default_branch_only) = match scope.branches {
                    BranchLimit::Any => (vec![], false),
                    BranchLimit::Default => (vec![], true),
                    BranchLimit::Matching(globs) => {
                        (globs.into_iter().map(BranchGlob::into).collect(), false)
                    }
                };
                Ok(SecretView {
                    branches,
                    default_branch_only,
                    events: scope.events,
                    scope: words,
                    limited_by_upgrade: row.limited_by_upgrade != 0,
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
        asking: AskingAttempt,
        names: &[SecretName],
        to: Actor,
        now: Timestamp,
    ) -> StoreResult<Taken> {
        if names.is_empty() {
            return Ok(Taken::Given(Vec::new()));
        }
        let names = names.to_vec();
        self.write(move |tx| Box::pin(async move { take(tx, &asking, names, to, now).await })).await
    }

    async fn refused_secrets(
        &self,
        repo: RepoId,
        event: Event,
        origin: &Origin,
        names: &[SecretName],
    ) -> StoreResult<Vec<(SecretName, Refusal)>> {
        let mut tx = self.snapshot().await?;
        let default_branch = default_branch(&mut tx, repo).await?;
        let asking = Asking { repo, default_branch: &default_branch, event, origin };
        let mut refused = Vec::new();
        for name in names {
            if let Err(why) = look(&mut tx, &asking, name).await? {
                refused.push((name.clone(), why));
            }
        }
        Ok(refused)
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
