//! Repositories and what was last seen of their refs.

use async_trait::async_trait;
use pipeyard_model::{Actor, HookId, RepoId, RepoName, Timestamp};
use pipeyard_store::{
    StoreError, StoreResult,
    repos::{Forge, Repo, Repos},
};
use serde_json::json;

use crate::{
    SqliteStore,
    audit::{self, Detail},
    column::{self, failed},
};

struct Row {
    id: String,
    name: String,
    forge: String,
    url: String,
    credentials: Option<Vec<u8>>,
    default_branch: String,
    hook: String,
    hook_secret: Vec<u8>,
    forge_id: Option<i64>,
    created_at: i64,
    problem_code: Option<String>,
    problem_message: Option<String>,
}

macro_rules! select_repos {
    ($condition:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            Row,
            "SELECT id, name, forge, url, credentials, default_branch, hook, hook_secret, forge_id, created_at,
                    problem_code, problem_message
             FROM repos WHERE removed_at IS NULL AND " + $condition
            $(, $argument)*
        )
    };
}

impl TryFrom<Row> for Repo {
    type Error = StoreError;

    fn try_from(row: Row) -> StoreResult<Self> {
        let id = row.id.as_str();
        Ok(Self {
            id: column::parse("repos", "id", id, id)?,
            name: column::parse("repos", "name", id, &row.name)?,
            forge: match row.forge.as_str() {
                "git" => Forge::Git,
                "github" => Forge::Github,
                other => {
                    return Err(column::corrupt(
                        "repos",
                        "forge",
                        id,
                        format!("unknown word {other:?}"),
                    ));
                }
            },
            hook: column::parse("repos", "hook", id, &row.hook)?,
            url: row.url,
            credentials: row.credentials,
            default_branch: row.default_branch,
            hook_secret: row.hook_secret,
            forge_id: row.forge_id,
            created_at: Timestamp(row.created_at),
            problem: row.problem_code.zip(row.problem_message),
        })
    }
}

#[async_trait]
impl Repos for SqliteStore {
    async fn add_repo(&self, repo: Repo, by: Actor) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                let name = repo.name.as_str();
                let taken = sqlx::query_scalar!("SELECT id FROM repos WHERE name = ? AND removed_at IS NULL", name)
                    .fetch_optional(&mut *c)
                    .await
                    .map_err(failed)?;
                if taken.is_some() {
                    return Err(StoreError::conflict(
                        "name_taken",
                        format!("there is a repository {name} already; choose another name"),
                    ));
                }
                let (id, hook) = (repo.id.to_string(), repo.hook.to_string());
                let forge = match repo.forge {
                    Forge::Git => "git",
                    Forge::Github => "github",
                };
                let (code, message) = repo.problem.clone().unzip();
                sqlx::query!(
                    "INSERT INTO repos (id, name, forge, url, credentials, default_branch, hook, hook_secret,
                                        forge_id, created_at, problem_code, problem_message)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    id,
                    name,
                    forge,
                    repo.url,
                    repo.credentials,
                    repo.default_branch,
                    hook,
                    repo.hook_secret,
                    repo.forge_id,
                    repo.created_at.0,
                    code,
                    message
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                let after = json!({
                    "id": repo.id,
                    "forge": forge,
                    "url": repo.url,
                    "default_branch": repo.default_branch,
                    "credentials": repo.credentials.is_some(),
                });
                let at = repo.created_at;
                audit::record_change(c, by, "repo.add", name, Detail::new(after), at).await
            })
        })
        .await
    }

    async fn repos(&self) -> StoreResult<Vec<Repo>> {
        let rows =
            select_repos!("1 = 1 ORDER BY name").fetch_all(&self.read).await.map_err(failed)?;
        rows.into_iter().map(Repo::try_from).collect()
    }

    async fn repo(&self, id: RepoId) -> StoreResult<Option<Repo>> {
        let id = id.to_string();
        let row = select_repos!("id = ?", id).fetch_optional(&self.read).await.map_err(failed)?;
        row.map(Repo::try_from).transpose()
    }

    async fn repo_by_name(&self, name: &RepoName) -> StoreResult<Option<Repo>> {
        let name = name.as_str();
        let row =
            select_repos!("name = ?", name).fetch_optional(&self.read).await.map_err(failed)?;
        row.map(Repo::try_from).transpose()
    }

    async fn repo_by_hook(&self, hook: HookId) -> StoreResult<Option<Repo>> {
        let hook = hook.to_string();
        let row =
            select_repos!("hook = ?", hook).fetch_optional(&self.read).await.map_err(failed)?;
        row.map(Repo::try_from).transpose()
    }

    async fn remove_repo(&self, id: RepoId, by: Actor, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                let text = id.to_string();
                let gone = sqlx::query!(
                    "UPDATE repos SET removed_at = ? WHERE id = ? AND removed_at IS NULL
                     RETURNING name, url",
                    now.0,
                    text
                )
                .fetch_optional(&mut *c)
                .await
                .map_err(failed)?
                .ok_or_else(|| StoreError::not_found(format!("repository {id}")))?;
                sqlx::query!(
                    "UPDATE run_requests SET closed_at = ?, outcome = 'the repository was removed'
                     WHERE repo = ? AND closed_at IS NULL",
                    now.0,
                    text
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                let before = Detail::gone(json!({ "id": id, "url": gone.url }));
                audit::record_change(c, by, "repo.remove", &gone.name, before, now).await
            })
        })
        .await
    }

    async fn set_repo_problem(
        &self,
        id: RepoId,
        problem: Option<(String, String)>,
    ) -> StoreResult<()> {
        let (code, message) = problem.unzip();
        // Called after every fetch: nothing new costs no write.
        let text = id.to_string();
        let same = sqlx::query_scalar!(
            r#"SELECT 1 AS "same!: i64" FROM repos WHERE id = ? AND problem_code IS ? AND problem_message IS ?"#,
            text,
            code,
            message
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        if same.is_some() {
            return Ok(());
        }
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query!(
                    "UPDATE repos SET problem_code = ?, problem_message = ? WHERE id = ?",
                    code,
                    message,
                    text
                )
                .execute(c)
                .await
                .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn set_repo_forge_id(&self, id: RepoId, forge_id: i64) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                let text = id.to_string();
                sqlx::query!(
                    "UPDATE repos SET forge_id = ? WHERE id = ? AND forge_id IS NULL",
                    forge_id,
                    text
                )
                .execute(c)
                .await
                .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn seen_refs(&self, id: RepoId) -> StoreResult<Vec<(String, String)>> {
        let id = id.to_string();
        let rows = sqlx::query!("SELECT name, sha FROM seen_refs WHERE repo = ? ORDER BY name", id)
            .fetch_all(&self.read)
            .await
            .map_err(failed)?;
        Ok(rows.into_iter().map(|row| (row.name, row.sha)).collect())
    }
}
