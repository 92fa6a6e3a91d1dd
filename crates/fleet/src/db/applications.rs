//! Applications, groups, configurations, revisions, service definitions.

use pipeyard_model::{Timestamp, fleet::ServiceDefinition};
use serde_json::Value;

use super::{Db, Result, from_doc, to_doc};
use crate::deployment::Platform;

#[derive(Debug, Clone)]
pub(crate) struct Application {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) platform: Platform,
    pub(crate) created: Timestamp,
}

/// A deployment group: what the caller said, as it said it.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) application: String,
    pub(crate) name: String,
    /// The name of its deployment configuration.
    pub(crate) config: String,
    pub(crate) doc: Value,
}

#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) doc: Value,
}

fn platform(text: &str) -> Platform {
    // The column has a CHECK for these two.
    if text == "ECS" { Platform::Ecs } else { Platform::Server }
}

impl Db {
    /// False if there is one of this name.
    pub(crate) async fn create_application(&self, new: &Application) -> Result<bool> {
        let platform = new.platform.as_str();
        let done = sqlx::query!(
            "INSERT INTO application (name, id, platform, created) VALUES (?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
            new.name,
            new.id,
            platform,
            new.created.0
        )
        .execute(&self.write)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn application(&self, name: &str) -> Result<Option<Application>> {
        let row = sqlx::query!(
            "SELECT name, id, platform, created FROM application WHERE name = ?",
            name
        )
        .fetch_optional(&self.read)
        .await?;
        Ok(row.map(|row| Application {
            name: row.name,
            id: row.id,
            platform: platform(&row.platform),
            created: Timestamp(row.created),
        }))
    }

    /// Names after `after`, in order.
    pub(crate) async fn application_names(&self, after: &str, limit: i64) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar!(
            "SELECT name FROM application WHERE name > ? ORDER BY name LIMIT ?",
            after,
            limit
        )
        .fetch_all(&self.read)
        .await?)
    }

    /// Removes it with its groups, revisions and service definitions. False if a deployment of it
    /// is active; an application that isn't there is fine.
    pub(crate) async fn delete_application(&self, name: &str) -> Result<bool> {
        let mut tx = self.begin().await?;
        let active = sqlx::query_scalar!(
            "SELECT COUNT(*) FROM deployment WHERE application = ? AND active = 1",
            name
        )
        .fetch_one(&mut *tx)
        .await?;
        if active > 0 {
            return Ok(false);
        }
        sqlx::query!("DELETE FROM service WHERE application = ?", name).execute(&mut *tx).await?;
        sqlx::query!("DELETE FROM application WHERE name = ?", name).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// False if there is one of this name.
    pub(crate) async fn create_group(&self, new: &Group) -> Result<bool> {
        let doc = to_doc(&new.doc)?;
        let done = sqlx::query!(
            "INSERT INTO deployment_group (id, application, name, config, doc)
             VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            new.id,
            new.application,
            new.name,
            new.config,
            doc
        )
        .execute(&self.write)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Writes configuration and document of a group that is there.
    pub(crate) async fn update_group(&self, new: &Group) -> Result<()> {
        let doc = to_doc(&new.doc)?;
        sqlx::query!(
            "UPDATE deployment_group SET config = ?, doc = ? WHERE id = ?",
            new.config,
            doc,
            new.id
        )
        .execute(&self.write)
        .await?;
        Ok(())
    }

    pub(crate) async fn group(&self, application: &str, name: &str) -> Result<Option<Group>> {
        let row = sqlx::query!(
            "SELECT id, application, name, config, doc FROM deployment_group
             WHERE application = ? AND name = ?",
            application,
            name
        )
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| {
            Ok(Group {
                id: row.id,
                application: row.application,
                name: row.name,
                config: row.config,
                doc: from_doc(&row.doc)?,
            })
        })
        .transpose()
    }

    pub(crate) async fn group_names(
        &self,
        application: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar!(
            "SELECT name FROM deployment_group WHERE application = ? AND name > ?
             ORDER BY name LIMIT ?",
            application,
            after,
            limit
        )
        .fetch_all(&self.read)
        .await?)
    }

    /// False if a deployment of it is active; a group that isn't there is fine.
    pub(crate) async fn delete_group(&self, application: &str, name: &str) -> Result<bool> {
        let mut tx = self.begin().await?;
        let active = sqlx::query_scalar!(
            "SELECT COUNT(*) FROM deployment WHERE application = ? AND grp = ? AND active = 1",
            application,
            name
        )
        .fetch_one(&mut *tx)
        .await?;
        if active > 0 {
            return Ok(false);
        }
        sqlx::query!("DELETE FROM service WHERE application = ? AND grp = ?", application, name)
            .execute(&mut *tx)
            .await?;
        sqlx::query!(
            "DELETE FROM deployment_group WHERE application = ? AND name = ?",
            application,
            name
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// False if there is one of this name.
    pub(crate) async fn create_config(&self, new: &Config) -> Result<bool> {
        let doc = to_doc(&new.doc)?;
        let done = sqlx::query!(
            "INSERT INTO deployment_config (name, created, doc) VALUES (?, ?, ?)
             ON CONFLICT DO NOTHING",
            new.name,
            new.created.0,
            doc
        )
        .execute(&self.write)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// All that were made here; there are at most [`crate::aws::MAX_CONFIGS`].
    pub(crate) async fn configs(&self) -> Result<Vec<Config>> {
        let rows = sqlx::query!("SELECT name, created, doc FROM deployment_config ORDER BY name")
            .fetch_all(&self.read)
            .await?;
        let each = rows.into_iter().map(|row| {
            Ok(Config { name: row.name, created: Timestamp(row.created), doc: from_doc(&row.doc)? })
        });
        each.collect()
    }

    /// False if a group uses it; one that isn't there is fine.
    pub(crate) async fn delete_config(&self, name: &str) -> Result<bool> {
        let mut tx = self.begin().await?;
        let used =
            sqlx::query_scalar!("SELECT COUNT(*) FROM deployment_group WHERE config = ?", name)
                .fetch_one(&mut *tx)
                .await?;
        if used > 0 {
            return Ok(false);
        }
        sqlx::query!("DELETE FROM deployment_config WHERE name = ?", name)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    pub(crate) async fn register_revision(
        &self,
        application: &str,
        location: &Value,
        description: Option<&str>,
        now: Timestamp,
    ) -> Result<()> {
        let location = to_doc(location)?;
        sqlx::query!(
            "INSERT INTO revision (application, location, description, registered)
             VALUES (?, ?, ?, ?)
             ON CONFLICT (application, location) DO UPDATE SET description = excluded.description",
            application,
            location,
            description,
            now.0
        )
        .execute(&self.write)
        .await?;
        Ok(())
    }

    pub(crate) async fn put_service(
        &self,
        application: &str,
        group: &str,
        definition: &ServiceDefinition,
    ) -> Result<()> {
        let doc = to_doc(definition)?;
        sqlx::query!(
            "INSERT INTO service (application, grp, doc) VALUES (?, ?, ?)
             ON CONFLICT (application, grp) DO UPDATE SET doc = excluded.doc",
            application,
            group,
            doc
        )
        .execute(&self.write)
        .await?;
        Ok(())
    }

    pub(crate) async fn service(
        &self,
        application: &str,
        group: &str,
    ) -> Result<Option<ServiceDefinition>> {
        let doc = sqlx::query_scalar!(
            "SELECT doc FROM service WHERE application = ? AND grp = ?",
            application,
            group
        )
        .fetch_optional(&self.read)
        .await?;
        doc.map(|doc| from_doc(&doc)).transpose()
    }

    /// Every service: application, group, definition.
    pub(crate) async fn services(&self) -> Result<Vec<(String, String, ServiceDefinition)>> {
        let rows =
            sqlx::query!("SELECT application, grp, doc FROM service ORDER BY application, grp")
                .fetch_all(&self.read)
                .await?;
        rows.into_iter().map(|row| Ok((row.application, row.grp, from_doc(&row.doc)?))).collect()
    }
}
