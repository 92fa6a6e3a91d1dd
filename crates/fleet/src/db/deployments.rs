//! Deployments and their targets.

use pipeyard_model::Timestamp;

use super::{Db, Result, from_doc, to_doc};
use crate::deployment::{Deployment, DeploymentStatus, Target};

/// What became of a wish to create a deployment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Created {
    /// It is there.
    New,
    /// The same call created this one before.
    Again(String),
    /// This one holds the group.
    Busy(String),
}

/// What a change decides about its deployment.
#[derive(Debug)]
pub(crate) enum Changed<T> {
    /// Keep the change.
    Write(T),
    /// Leave the row as it was.
    Leave(T),
}

/// Which deployments to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) group: Option<(String, String)>,
    pub(crate) statuses: Vec<DeploymentStatus>,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
}

/// Ids, newest first, and where to go on.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) ids: Vec<String>,
    pub(crate) next: Option<i64>,
}

impl Db {
    /// Creates a deployment if its group is free. `ended` is the active deployment that ends in the
    /// same transaction, so that its rollback can take the group before anybody else.
    pub(crate) async fn create_deployment(
        &self,
        new: &Deployment,
        invocation: Option<&str>,
        ended: Option<&Deployment>,
    ) -> Result<Created> {
        let mut tx = self.begin().await?;
        if let Some(invocation) = invocation {
            let again = sqlx::query!(
                "SELECT id, application, grp FROM deployment WHERE invocation = ?",
                invocation
            )
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(row) = again
                && row.application == new.application
                && row.grp == new.group
            {
                return Ok(Created::Again(row.id));
            }
        }
        if let Some(ended) = ended {
            write(&mut tx, ended).await?;
        }
        let busy = sqlx::query_scalar!(
            "SELECT id FROM deployment WHERE application = ? AND grp = ? AND active = 1",
            new.application,
            new.group
        )
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(id) = busy {
            return Ok(Created::Busy(id));
        }
        let (doc, status) = (to_doc(new)?, new.status.as_str());
        sqlx::query!(
            "INSERT INTO deployment
                 (id, application, grp, status, active, created, invocation, doc)
             VALUES (?, ?, ?, ?, 1, ?, ?, ?)",
            new.id,
            new.application,
            new.group,
            status,
            new.created.0,
            invocation,
            doc
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Created::New)
    }

    pub(crate) async fn deployment(&self, id: &str) -> Result<Option<Deployment>> {
        let doc = sqlx::query_scalar!("SELECT doc FROM deployment WHERE id = ?", id)
            .fetch_optional(&self.read)
            .await?;
        doc.map(|doc| from_doc(&doc)).transpose()
    }

    /// Changes a deployment in one transaction; none if there is none of this id.
    pub(crate) async fn change<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Deployment) -> Changed<T>,
    ) -> Result<Option<(T, Deployment)>> {
        let mut tx = self.begin().await?;
        let doc = sqlx::query_scalar!("SELECT doc FROM deployment WHERE id = ?", id)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(doc) = doc else { return Ok(None) };
        let mut deployment: Deployment = from_doc(&doc)?;
        match change(&mut deployment) {
            Changed::Leave(value) => Ok(Some((value, from_doc(&doc)?))),
            Changed::Write(value) => {
                write(&mut tx, &deployment).await?;
                tx.commit().await?;
                Ok(Some((value, deployment)))
            }
        }
    }

    pub(crate) async fn active_ids(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar!("SELECT id FROM deployment WHERE active = 1 ORDER BY seq")
            .fetch_all(&self.read)
            .await?)
    }

    pub(crate) async fn active_in(
        &self,
        application: &str,
        group: &str,
    ) -> Result<Option<Deployment>> {
        let doc = sqlx::query_scalar!(
            "SELECT doc FROM deployment WHERE application = ? AND grp = ? AND active = 1",
            application,
            group
        )
        .fetch_optional(&self.read)
        .await?;
        doc.map(|doc| from_doc(&doc)).transpose()
    }

    /// The last of a group that succeeded, except this one.
    pub(crate) async fn last_good(
        &self,
        application: &str,
        group: &str,
        except: &str,
    ) -> Result<Option<Deployment>> {
        let doc = sqlx::query_scalar!(
            "SELECT doc FROM deployment
             WHERE application = ? AND grp = ? AND status = 'Succeeded' AND id <> ?
             ORDER BY seq DESC LIMIT 1",
            application,
            group,
            except
        )
        .fetch_optional(&self.read)
        .await?;
        doc.map(|doc| from_doc(&doc)).transpose()
    }

    /// The last of a group, over or not.
    pub(crate) async fn last_attempted(
        &self,
        application: &str,
        group: &str,
    ) -> Result<Option<Deployment>> {
        let doc = sqlx::query_scalar!(
            "SELECT doc FROM deployment WHERE application = ? AND grp = ? ORDER BY seq DESC LIMIT 1",
            application,
            group
        )
        .fetch_optional(&self.read)
        .await?;
        doc.map(|doc| from_doc(&doc)).transpose()
    }

    /// Newest first, those before the place `before`.
    pub(crate) async fn list_deployments(
        &self,
        filter: &Filter,
        before: i64,
        limit: i64,
    ) -> Result<Page> {
        let (application, group) = filter.group.clone().unzip();
        let statuses: Vec<&str> = filter.statuses.iter().map(|status| status.as_str()).collect();
        let statuses = to_doc(&statuses)?;
        let any = filter.statuses.is_empty();
        let from = filter.from.map_or(i64::MIN, |time| time.0);
        let to = filter.to.map_or(i64::MAX, |time| time.0);
        let rows = sqlx::query!(
            "SELECT seq, id FROM deployment
             WHERE seq < ?1 AND (?2 IS NULL OR application = ?2) AND (?3 IS NULL OR grp = ?3)
               AND (?4 OR status IN (SELECT value FROM json_each(?5)))
               AND created >= ?6 AND created <= ?7
             ORDER BY seq DESC LIMIT ?8",
            before,
            application,
            group,
            any,
            statuses,
            from,
            to,
            limit
        )
        .fetch_all(&self.read)
        .await?;
        let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
        let next = rows.last().map(|row| row.seq).filter(|_| full);
        Ok(Page { ids: rows.into_iter().map(|row| row.id).collect(), next })
    }

    pub(crate) async fn put_target(&self, deployment: &str, target: &Target) -> Result<()> {
        let doc = to_doc(target)?;
        sqlx::query!(
            "INSERT INTO target (deployment, id, doc) VALUES (?, ?, ?)
             ON CONFLICT (deployment, id) DO UPDATE SET doc = excluded.doc",
            deployment,
            target.id,
            doc
        )
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// All targets of a deployment, by id.
    pub(crate) async fn targets(&self, deployment: &str) -> Result<Vec<Target>> {
        let docs = sqlx::query_scalar!(
            "SELECT doc FROM target WHERE deployment = ? ORDER BY id",
            deployment
        )
        .fetch_all(&self.read)
        .await?;
        docs.iter().map(|doc| from_doc(doc)).collect()
    }
}

async fn write(
    tx: &mut sqlx::Transaction<'static, sqlx::Sqlite>,
    deployment: &Deployment,
) -> Result<()> {
    let (doc, status) = (to_doc(deployment)?, deployment.status.as_str());
    let active = deployment.status.is_active();
    sqlx::query!(
        "UPDATE deployment SET status = ?, active = ?, doc = ? WHERE id = ?",
        status,
        active,
        doc,
        deployment.id
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
