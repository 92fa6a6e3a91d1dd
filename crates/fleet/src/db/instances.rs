//! Hosts: registration, tags, and what is on them.

use pipeyard_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Db, Result, from_doc, to_doc};

/// A host as the fleet knows it.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) registered: Timestamp,
    pub(crate) deregistered: Option<Timestamp>,
    /// The IAM ARN that it was registered with.
    pub(crate) identity: String,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) doc: InstanceDoc,
}

/// What was said of the host and what was deployed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstanceDoc {
    /// Where its service answers, as its enrolment says.
    pub(crate) address: Option<std::net::SocketAddr>,
    /// New at every start of the agent.
    pub(crate) boot: Option<String>,
    /// What its agent can do; none before it came.
    #[serde(default)]
    pub(crate) abilities: Option<Abilities>,
    /// What was installed last, by group `application/group`.
    #[serde(default)]
    pub(crate) installed: std::collections::BTreeMap<String, Installed>,
}

/// As whom an agent can run scripts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Abilities {
    /// Whether it can become another user.
    pub(crate) root: bool,
    /// The user that it runs as.
    pub(crate) user: String,
    /// Users of the host.
    pub(crate) users: Vec<String>,
    /// Groups of the host.
    pub(crate) groups: Vec<String>,
    /// Whether both lists are all there are: false where a directory service has more.
    pub(crate) all_listed: bool,
}

/// What was tried last on a host for one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    /// The deployment that tried.
    pub(crate) deployment: String,
    /// The bundle's sha256.
    pub(crate) sha256: String,
    /// Whether all events succeeded.
    pub(crate) good: bool,
    /// The sha256 of the last good one before it.
    #[serde(default)]
    pub(crate) previous: Option<String>,
    /// Whether that one served when this one began.
    #[serde(default)]
    pub(crate) was_good: bool,
}

impl Db {
    /// Registers a host. False if one of this name is registered. A name that was deregistered may
    /// come back.
    pub(crate) async fn register_instance(
        &self,
        name: &str,
        identity: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let doc = to_doc(&InstanceDoc::default())?;
        let done = sqlx::query!(
            "INSERT INTO instance (name, registered, identity, doc) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE
             SET registered = ?2, deregistered = NULL, identity = ?3, doc = ?4
             WHERE deregistered IS NOT NULL",
            name,
            now.0,
            identity,
            doc
        )
        .execute(&self.write)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Its keys and enrolments are worth nothing from then on. False if there is none of this name.
    pub(crate) async fn deregister_instance(&self, name: &str, now: Timestamp) -> Result<bool> {
        let mut tx = self.begin().await?;
        sqlx::query!("DELETE FROM instance_tag WHERE instance = ?", name).execute(&mut *tx).await?;
        sqlx::query!("DELETE FROM enrolment WHERE instance = ?", name).execute(&mut *tx).await?;
        sqlx::query!(
            "UPDATE host_key SET revoked = ? WHERE instance = ? AND revoked IS NULL",
            now.0,
            name
        )
        .execute(&mut *tx)
        .await?;
        let done = sqlx::query!(
            "UPDATE instance SET deregistered = coalesce(deregistered, ?) WHERE name = ?",
            now.0,
            name
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn instance(&self, name: &str) -> Result<Option<Instance>> {
        Ok(self.instances().await?.into_iter().find(|instance| instance.name == name))
    }

    /// All hosts, deregistered ones too, by name.
    pub(crate) async fn instances(&self) -> Result<Vec<Instance>> {
        let rows = sqlx::query!(
            "SELECT name, registered, deregistered, identity, doc FROM instance ORDER BY name"
        )
        .fetch_all(&self.read)
        .await?;
        let tags =
            sqlx::query!("SELECT instance, key, value FROM instance_tag ORDER BY key, value")
                .fetch_all(&self.read)
                .await?;
        let each = rows.into_iter().map(|row| {
            let own = tags.iter().filter(|tag| tag.instance == row.name);
            Ok(Instance {
                tags: own.map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
                registered: Timestamp(row.registered),
                deregistered: row.deregistered.map(Timestamp),
                identity: row.identity,
                doc: from_doc(&row.doc)?,
                name: row.name,
            })
        });
        each.collect()
    }

    /// Changes what is known of a host; false if it isn't registered.
    pub(crate) async fn change_instance(
        &self,
        name: &str,
        change: impl FnOnce(&mut InstanceDoc),
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        let doc = sqlx::query_scalar!(
            "SELECT doc FROM instance WHERE name = ? AND deregistered IS NULL",
            name
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(doc) = doc else { return Ok(false) };
        let mut value: InstanceDoc = from_doc(&doc)?;
        change(&mut value);
        let doc = to_doc(&value)?;
        sqlx::query!("UPDATE instance SET doc = ? WHERE name = ?", doc, name)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    pub(crate) async fn add_instance_tags(
        &self,
        names: &[String],
        tags: &[(String, String)],
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        for name in names {
            for (key, value) in tags {
                sqlx::query!(
                    "INSERT INTO instance_tag (instance, key, value) VALUES (?, ?, ?)
                     ON CONFLICT DO NOTHING",
                    name,
                    key,
                    value
                )
                .execute(&mut *tx)
                .await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    pub(crate) async fn remove_instance_tags(
        &self,
        names: &[String],
        tags: &[(String, String)],
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        for name in names {
            for (key, value) in tags {
                sqlx::query!(
                    "DELETE FROM instance_tag WHERE instance = ? AND key = ? AND value = ?",
                    name,
                    key,
                    value
                )
                .execute(&mut *tx)
                .await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }
}
