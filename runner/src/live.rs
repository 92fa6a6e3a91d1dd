//! The attempts that this process works on, and why one of them should end.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pipeyard_executor::{Lease, Renewing};
use pipeyard_model::{AttemptId, lease};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why an attempt is ended from outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndBecause {
    /// A person cancelled it.
    Cancelled,
    /// It isn't this runner's any more, or might not be: nothing of it may be reported.
    Stale,
    /// This runner was told to stop at once.
    Stopping,
    /// The server can't be reached: its lease may run out.
    Unheard,
}

#[derive(Debug)]
struct Entry {
    stop: CancellationToken,
    because: Option<EndBecause>,
    renewing: Renewing,
    /// How long it may run after its lease was asked for.
    may_run: Duration,
}

/// An attempt that begins here.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Cancelled when it should end.
    pub(crate) stop: CancellationToken,
    /// Until when it is this runner's.
    pub(crate) lease: Lease,
}

/// The attempts in work.
#[derive(Debug, Default)]
pub(crate) struct Live {
    attempts: Mutex<HashMap<AttemptId, Entry>>,
    /// A job ended because the executor can't work: it must be checked before the next claim.
    suspect: AtomicBool,
}

impl Live {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<AttemptId, Entry>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an attempt whose lease of this length was just given; `None` when it is in work already
    /// (a replayed claim).
    pub(crate) fn begin(&self, attempt: AttemptId, lease: Duration) -> Option<Begun> {
        let mut map = self.map();
        if map.contains_key(&attempt) {
            return None;
        }
        let may_run = lease::may_run(lease);
        let (renewing, lease) = Renewing::begin(Instant::now() + may_run);
        let stop = CancellationToken::new();
        let entry = Entry { stop: stop.clone(), because: None, renewing, may_run };
        map.insert(attempt, entry);
        Some(Begun { stop, lease })
    }

    /// The server has renewed a lease that was asked for then.
    pub(crate) fn renewed(&self, attempt: AttemptId, asked: Instant) {
        if let Some(entry) = self.map().get(&attempt) {
            entry.renewing.until(asked + entry.may_run);
        }
    }

    /// When the first of the attempts that still go on loses its lease.
    pub(crate) fn first_end(&self) -> Option<Instant> {
        let map = self.map();
        let goes_on = map.values().filter(|entry| entry.because.is_none());
        goes_on.map(|entry| entry.renewing.end()).min()
    }

    /// Ends every attempt whose lease wasn't renewed in time; answers how many.
    pub(crate) fn end_lapsed(&self, now: Instant) -> usize {
        let mut ended = 0;
        for entry in self.map().values_mut() {
            if entry.because.is_none() && entry.renewing.end() <= now {
                entry.because = Some(EndBecause::Unheard);
                entry.stop.cancel();
                ended += 1;
            }
        }
        ended
    }

    /// Ends an attempt; the first reason stays, but that staleness outranks the others.
    pub(crate) fn end(&self, attempt: AttemptId, because: EndBecause) {
        if let Some(entry) = self.map().get_mut(&attempt) {
            if entry.because.is_none() || because == EndBecause::Stale {
                entry.because = Some(because);
            }
            entry.stop.cancel();
        }
    }

    /// Ends every attempt.
    pub(crate) fn end_all(&self, because: EndBecause) {
        for attempt in self.attempts() {
            self.end(attempt, because);
        }
    }

    /// Why it was ended, if it was.
    pub(crate) fn because(&self, attempt: AttemptId) -> Option<EndBecause> {
        self.map().get(&attempt).and_then(|entry| entry.because)
    }

    /// Removes an attempt that is over.
    pub(crate) fn over(&self, attempt: AttemptId) {
        self.map().remove(&attempt);
    }

    /// The executor may not work any more.
    pub(crate) fn suspect_executor(&self) {
        self.suspect.store(true, Ordering::SeqCst);
    }

    /// Whether the executor didn't work lately; asks once.
    pub(crate) fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::SeqCst)
    }

    /// All of them.
    pub(crate) fn attempts(&self) -> Vec<AttemptId> {
        self.map().keys().copied().collect()
    }
}
