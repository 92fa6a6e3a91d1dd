//! What proves the master key, and secrets of the installation itself.

use async_trait::async_trait;
use pipeyard_model::{Actor, Timestamp};
use pipeyard_store::{
    StoreResult,
    keys::{Keys, OwnSecret, Sample},
};

use crate::{
    SqliteStore, audit,
    column::{failed, parse, parse_opt},
};

/// Samples of each kind.
const SAMPLES: i64 = 5;

#[async_trait]
impl Keys for SqliteStore {
    async fn key_check(&self) -> StoreResult<Option<Vec<u8>>> {
        sqlx::query_scalar!("SELECT key_check FROM installation")
            .fetch_one(&self.read)
            .await
            .map_err(failed)
    }

    async fn set_key_check(&self, sealed: Vec<u8>) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query!("UPDATE installation SET key_check = ?", sealed)
                    .execute(c)
                    .await
                    .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn sealed_samples(&self) -> StoreResult<Vec<(Sample, Vec<u8>)>> {
        let mut tx = self.snapshot().await?;
        let mut samples = Vec::new();
        let hooks = sqlx::query!("SELECT id, hook_secret FROM repos LIMIT ?", SAMPLES)
            .fetch_all(&mut *tx)
            .await
            .map_err(failed)?;
        for row in hooks {
            let sample = Sample::HookSecret(parse("repos", "id", &row.id, &row.id)?);
            samples.push((sample, row.hook_secret));
        }
        let tokens = sqlx::query!("SELECT repo, sealed FROM forge_tokens LIMIT ?", SAMPLES)
            .fetch_all(&mut *tx)
            .await
            .map_err(failed)?;
        for row in tokens {
            let sample = Sample::ForgeToken(parse("forge_tokens", "repo", &row.repo, &row.repo)?);
            samples.push((sample, row.sealed));
        }
        let secrets = sqlx::query!("SELECT repo, name, sealed FROM secrets LIMIT ?", SAMPLES)
            .fetch_all(&mut *tx)
            .await
            .map_err(failed)?;
        for row in secrets {
            // Empty for a secret of every repository.
            let repo = Some(row.repo.as_str()).filter(|repo| !repo.is_empty());
            let sample = Sample::Secret {
                repo: parse_opt("secrets", "repo", &row.name, repo)?,
                name: parse("secrets", "name", &row.name, &row.name)?,
            };
            samples.push((sample, row.sealed));
        }
        Ok(samples)
    }

    async fn own_secret(&self, name: &str) -> StoreResult<Option<OwnSecret>> {
        let row =
            sqlx::query!("SELECT sealed, set_at FROM installation_secrets WHERE name = ?", name)
                .fetch_optional(&self.read)
                .await
                .map_err(failed)?;
        Ok(row.map(|row| OwnSecret { sealed: row.sealed, set_at: Timestamp(row.set_at) }))
    }

    async fn set_own_secret(
        &self,
        name: &'static str,
        sealed: Vec<u8>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query!(
                    "INSERT INTO installation_secrets (name, sealed, set_at) VALUES (?, ?, ?)
                     ON CONFLICT (name) DO UPDATE
                     SET sealed = excluded.sealed, set_at = excluded.set_at",
                    name,
                    sealed,
                    now.0
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                audit::record(c, by, "installation.secret", name, now).await
            })
        })
        .await
    }
}
