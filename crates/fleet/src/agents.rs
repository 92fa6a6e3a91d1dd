//! The fleet's side of the agents' protocol: JSON over long polls, under the agents' token.
//!
//! An agent says hello once, then polls. A poll without a running command waits up to four
//! seconds; an agent that runs one polls every two seconds to show that it lives and to hear that
//! it should stop. An agent that is silent for [`LOST`] is lost, and so is what it was doing.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{control::Refused, db::CommandDoc, deployment::Diagnostics, fleet::Fleet};

/// A silence after which an agent is lost.
pub(crate) const LOST: Duration = Duration::from_secs(8);
/// How long a poll waits.
const WAIT: Duration = Duration::from_secs(4);

/// `POST /agent/hello`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) name: String,
    /// New at every start of the agent; an older one of the same name is told to end.
    pub(crate) boot: String,
    /// Where the host's service answers.
    pub(crate) address: SocketAddr,
    pub(crate) tags: Vec<(String, String)>,
}

/// `POST /agent/poll`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Poll {
    pub(crate) name: String,
    pub(crate) boot: String,
    /// The command that the agent is at.
    pub(crate) running: Option<i64>,
}

/// The answer to a poll.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Polled {
    pub(crate) command: Option<Order>,
    /// The running command isn't wanted any more.
    #[serde(default)]
    pub(crate) cancel: bool,
}

/// A command on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) deployment: String,
    pub(crate) event: String,
    pub(crate) doc: CommandDoc,
}

/// `POST /agent/complete`. May be repeated.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Complete {
    pub(crate) name: String,
    pub(crate) command: i64,
    pub(crate) diagnostics: Diagnostics,
}

#[derive(Debug)]
struct Seen {
    boot: String,
    last: Instant,
    waiting: Arc<Notify>,
}

/// Who was heard of, and when. In memory: after a restart every agent gets [`LOST`] to come back.
#[derive(Debug)]
pub(crate) struct Agents {
    started: Instant,
    seen: Mutex<HashMap<String, Seen>>,
}

impl Default for Agents {
    fn default() -> Self {
        Self { started: Instant::now(), seen: Mutex::default() }
    }
}

impl Agents {
    /// How long nothing was heard of an agent.
    pub(crate) fn silence(&self, name: &str) -> Duration {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(name).map_or(self.started, |seen| seen.last).elapsed()
    }

    pub(crate) fn is_lost(&self, name: &str) -> bool {
        self.silence(name) > LOST
    }

    /// Tells a waiting agent that there is a command.
    pub(crate) fn notify(&self, name: &str) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.get(name) {
            seen.waiting.notify_one();
        }
    }

    fn hello(&self, name: &str, boot: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = Arc::new(Notify::new());
        let new = Seen { boot: boot.to_owned(), last: Instant::now(), waiting };
        if let Some(old) = seen.insert(name.to_owned(), new) {
            old.waiting.notify_waiters();
        }
    }

    /// Notes a sign of life. None if this agent must say hello first; an error if another start of
    /// it did since.
    fn touch(&self, name: &str, boot: &str) -> Result<Option<Arc<Notify>>, ()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(name) {
            None => Ok(None),
            Some(seen) if seen.boot == boot => {
                seen.last = Instant::now();
                Ok(Some(Arc::clone(&seen.waiting)))
            }
            Some(_) => Err(()),
        }
    }
}

fn name_is_legal(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._+=,@-".contains(&b);
    (1..=100).contains(&name.len()) && name.bytes().all(legal)
}

/// Registers the host if it isn't, and replaces its tags.
pub(crate) async fn hello(
    State(fleet): State<Arc<Fleet>>,
    Json(hello): Json<Hello>,
) -> Result<StatusCode, Refused> {
    if !name_is_legal(&hello.name) {
        return Err(Refused::invalid("an agent's name has 1 to 100 letters, digits or ._+=,@-"));
    }
    if hello.tags.len() > 50 {
        return Err(Refused::invalid("a host has at most 50 tags"));
    }
    let names = std::slice::from_ref(&hello.name);
    let identity = format!("arn:aws:iam::000000000000:user/{}", hello.name);
    fleet.db.register_instance(&hello.name, &identity, fleet.clock.now()).await?;
    if let Some(known) = fleet.db.instance(&hello.name).await? {
        let gone: Vec<_> =
            known.tags.iter().filter(|tag| !hello.tags.contains(tag)).cloned().collect();
        fleet.db.remove_instance_tags(names, &gone).await?;
    }
    fleet.db.add_instance_tags(names, &hello.tags).await?;
    fleet
        .db
        .change_instance(&hello.name, |doc| {
            doc.address = Some(hello.address);
            doc.boot = Some(hello.boot.clone());
        })
        .await?;
    fleet.agents.hello(&hello.name, &hello.boot);
    tracing::info!(host = hello.name, address = %hello.address, "an agent came");
    Ok(StatusCode::NO_CONTENT)
}

fn unknown() -> Refused {
    Refused::new(StatusCode::CONFLICT, "say_hello", "this fleet hasn't heard of the agent yet")
}

fn replaced() -> Refused {
    let text = "another agent with this name came later: every host needs a name of its own";
    Refused::new(StatusCode::CONFLICT, "replaced", text)
}

/// Hands out the next command.
pub(crate) async fn poll(
    State(fleet): State<Arc<Fleet>>,
    Json(poll): Json<Poll>,
) -> Result<Json<Polled>, Refused> {
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        let waiting = fleet.agents.touch(&poll.name, &poll.boot).map_err(|()| replaced())?;
        let waiting = waiting.ok_or_else(unknown)?;
        let woken = waiting.notified();
        let open = fleet.db.open_command(&poll.name).await?;
        if let Some(running) = poll.running {
            let cancel = open.is_none_or(|open| open.id != running);
            return Ok(Json(Polled { command: None, cancel }));
        }
        if let Some(command) = open {
            fleet.db.command_sent(command.id, fleet.clock.now()).await?;
            let order = Order {
                id: command.id,
                deployment: command.deployment,
                event: command.event,
                doc: command.doc,
            };
            return Ok(Json(Polled { command: Some(order), cancel: false }));
        }
        if tokio::time::timeout_at(deadline, woken).await.is_err() {
            return Ok(Json(Polled::default()));
        }
    }
}

/// Takes the end of a command; one that had ended already changes nothing.
pub(crate) async fn complete(
    State(fleet): State<Arc<Fleet>>,
    Json(done): Json<Complete>,
) -> Result<StatusCode, Refused> {
    let now = fleet.clock.now();
    let ended = fleet.db.end_command(done.command, &done.name, &done.diagnostics, now).await?;
    if ended {
        fleet.engine.wake_all();
    }
    Ok(StatusCode::NO_CONTENT)
}
