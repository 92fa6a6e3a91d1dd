//! Commands to agents: one try of one lifecycle event on one host.

use pipeyard_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Db, Result, from_doc, to_doc};
use crate::deployment::Diagnostics;

/// What the agent needs to carry out an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandDoc {
    pub(crate) application: String,
    pub(crate) group: String,
    pub(crate) group_id: String,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) sha256: String,
    /// The bundle that was good on this host before, whose stop script runs.
    pub(crate) previous: Option<String>,
}

/// One command.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) id: i64,
    pub(crate) deployment: String,
    pub(crate) event: String,
    pub(crate) doc: CommandDoc,
}

impl Db {
    pub(crate) async fn create_command(
        &self,
        deployment: &str,
        instance: &str,
        event: &str,
        doc: &CommandDoc,
        now: Timestamp,
    ) -> Result<i64> {
        let doc = to_doc(doc)?;
        let done = sqlx::query!(
            "INSERT INTO command (deployment, instance, event, doc, created)
             VALUES (?, ?, ?, ?, ?)",
            deployment,
            instance,
            event,
            doc,
            now.0
        )
        .execute(&self.write)
        .await?;
        Ok(done.last_insert_rowid())
    }

    /// The last command for this event of this host, and how it ended if it did: what a restarted
    /// engine finds of its own doing.
    pub(crate) async fn last_command(
        &self,
        deployment: &str,
        instance: &str,
        event: &str,
    ) -> Result<Option<(i64, Option<Diagnostics>)>> {
        let row = sqlx::query!(
            "SELECT id, outcome FROM command
             WHERE deployment = ? AND instance = ? AND event = ? ORDER BY id DESC LIMIT 1",
            deployment,
            instance,
            event
        )
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| Ok((row.id, row.outcome.as_deref().map(from_doc).transpose()?))).transpose()
    }

    /// The oldest command that this host hasn't ended.
    pub(crate) async fn open_command(&self, instance: &str) -> Result<Option<Command>> {
        let row = sqlx::query!(
            "SELECT id, deployment, event, doc FROM command
             WHERE instance = ? AND ended IS NULL ORDER BY id LIMIT 1",
            instance
        )
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| {
            let doc = from_doc(&row.doc)?;
            Ok(Command { id: row.id, deployment: row.deployment, event: row.event, doc })
        })
        .transpose()
    }

    /// Whether this host's agent was given any command of this deployment.
    pub(crate) async fn took_commands(&self, deployment: &str, instance: &str) -> Result<bool> {
        let sent = sqlx::query_scalar!(
            "SELECT COUNT(*) FROM command
             WHERE deployment = ? AND instance = ? AND sent IS NOT NULL",
            deployment,
            instance
        )
        .fetch_one(&self.read)
        .await?;
        Ok(sent > 0)
    }

    pub(crate) async fn command_sent(&self, id: i64, now: Timestamp) -> Result<()> {
        sqlx::query!("UPDATE command SET sent = coalesce(sent, ?) WHERE id = ?", now.0, id)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// Ends a command once; false if it isn't this host's or had ended.
    pub(crate) async fn end_command(
        &self,
        id: i64,
        instance: &str,
        outcome: &Diagnostics,
        now: Timestamp,
    ) -> Result<bool> {
        let outcome = to_doc(outcome)?;
        let done = sqlx::query!(
            "UPDATE command SET ended = ?, outcome = ?
             WHERE id = ? AND instance = ? AND ended IS NULL",
            now.0,
            outcome,
            id,
            instance
        )
        .execute(&self.write)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
