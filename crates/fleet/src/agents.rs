//! The fleet's side of the agents' protocol: JSON over long polls, signed by the host's key.
//!
//! Which host it is the signature says, and what the host is its row: an agent says only that it is
//! there and what it can do. A hello opens a session; every message in it has a higher number than
//! the one before, so that a message that somebody sends again is refused.
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

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    control::Refused,
    db::{Abilities, CommandDoc},
    deployment::Diagnostics,
    fleet::Fleet,
    hosts::HostAuth,
    sigv4,
};

/// A silence after which an agent is lost.
pub(crate) const LOST: Duration = Duration::from_secs(8);
/// How long a poll waits.
const WAIT: Duration = Duration::from_secs(4);

/// `POST /agent/hello`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// New at every start of the agent; an older one of the same host is told to end.
    pub(crate) boot: String,
    pub(crate) abilities: Abilities,
}

/// The answer to a hello: who the agent is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) name: String,
    /// Where the host's service answers.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) session: String,
}

/// Which message of which session one is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) boot: String,
    pub(crate) session: String,
    /// Higher than that of every message before.
    pub(crate) number: u64,
}

/// `POST /agent/poll`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Poll {
    pub(crate) stamp: Stamp,
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
    pub(crate) stamp: Stamp,
    pub(crate) command: i64,
    pub(crate) diagnostics: Diagnostics,
}

#[derive(Debug)]
struct Seen {
    boot: String,
    session: String,
    number: u64,
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

    /// Ends the session of a host whose key was revoked or replaced.
    pub(crate) fn forget(&self, name: &str) {
        let gone = self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(gone) = gone {
            gone.waiting.notify_waiters();
        }
    }

    fn hello(&self, name: &str, boot: &str) -> String {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = Arc::new(Notify::new());
        let session = uuid::Uuid::new_v4().simple().to_string();
        let new = Seen {
            boot: boot.to_owned(),
            session: session.clone(),
            number: 0,
            last: Instant::now(),
            waiting,
        };
        if let Some(old) = seen.insert(name.to_owned(), new) {
            old.waiting.notify_waiters();
        }
        session
    }

    /// Notes a sign of life.
    fn touch(&self, name: &str, stamp: &Stamp) -> Result<Arc<Notify>, Refused> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.get_mut(name).ok_or_else(unknown)?;
        check(seen, stamp)?;
        seen.number = stamp.number;
        seen.last = Instant::now();
        Ok(Arc::clone(&seen.waiting))
    }

    /// Whether this is still the session of this host: a long poll finds out that it was ended.
    fn still(&self, name: &str, stamp: &Stamp) -> Result<(), Refused> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.get_mut(name).ok_or_else(unknown)?;
        if seen.boot != stamp.boot {
            return Err(replaced());
        }
        if seen.session != stamp.session {
            return Err(unknown());
        }
        seen.last = Instant::now();
        Ok(())
    }
}

/// Whether a message is the next one of its session.
fn check(seen: &Seen, stamp: &Stamp) -> Result<(), Refused> {
    if seen.boot != stamp.boot {
        return Err(replaced());
    }
    if seen.session != stamp.session {
        return Err(unknown());
    }
    if stamp.number <= seen.number {
        let text = "this message was taken already";
        return Err(Refused::new(StatusCode::CONFLICT, "sent_again", text));
    }
    Ok(())
}

/// Users or groups of a host that are kept.
const MAX_NAMES: usize = 2_000;

/// Opens a session. What the host is stays as its row says.
pub(crate) async fn hello(
    State(fleet): State<Arc<Fleet>>,
    Extension(HostAuth(name)): Extension<HostAuth>,
    headers: HeaderMap,
    Json(mut hello): Json<Hello>,
) -> Result<Json<Greeting>, Refused> {
    let now = fleet.clock.now();
    // A hello that is sent again would end the session of the agent that works.
    let taken = match sigv4::signature_and_end(&headers) {
        Some((signature, end)) => fleet.db.take_signature(signature, "", end, now).await?,
        None => false,
    };
    if !taken {
        let text = "this hello was taken already: sign another";
        return Err(Refused::new(StatusCode::CONFLICT, "sent_again", text));
    }
    if hello.abilities.users.len().max(hello.abilities.groups.len()) > MAX_NAMES {
        hello.abilities.all_listed = false;
        hello.abilities.users.truncate(MAX_NAMES);
        hello.abilities.groups.truncate(MAX_NAMES);
    }
    let changed = fleet.db.change_instance(&name, |doc| {
        doc.boot = Some(hello.boot.clone());
        doc.abilities = Some(hello.abilities);
    });
    changed.await?;
    let known = fleet.db.instance(&name).await?;
    let address = known.and_then(|known| known.doc.address);
    let session = fleet.agents.hello(&name, &hello.boot);
    tracing::info!(host = name, ?address, "an agent came");
    Ok(Json(Greeting { name, address, session }))
}

fn unknown() -> Refused {
    Refused::new(StatusCode::CONFLICT, "say_hello", "this fleet hasn't heard of the agent yet")
}

fn replaced() -> Refused {
    let text = "another agent with this host's key came later: every host needs a key of its own";
    Refused::new(StatusCode::CONFLICT, "replaced", text)
}

/// Hands out the next command.
pub(crate) async fn poll(
    State(fleet): State<Arc<Fleet>>,
    Extension(HostAuth(name)): Extension<HostAuth>,
    Json(poll): Json<Poll>,
) -> Result<Json<Polled>, Refused> {
    let deadline = tokio::time::Instant::now() + WAIT;
    let waiting = fleet.agents.touch(&name, &poll.stamp)?;
    loop {
        fleet.agents.still(&name, &poll.stamp)?;
        let woken = waiting.notified();
        let open = fleet.db.open_command(&name).await?;
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

/// Takes the end of one of the host's own commands; one that had ended already changes nothing.
pub(crate) async fn complete(
    State(fleet): State<Arc<Fleet>>,
    Extension(HostAuth(name)): Extension<HostAuth>,
    Json(done): Json<Complete>,
) -> Result<StatusCode, Refused> {
    fleet.agents.touch(&name, &done.stamp)?;
    let now = fleet.clock.now();
    let ended = fleet.db.end_command(done.command, &name, &done.diagnostics, now).await?;
    if ended {
        fleet.engine.wake_all();
    }
    Ok(StatusCode::NO_CONTENT)
}
