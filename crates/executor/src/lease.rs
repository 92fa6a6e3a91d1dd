//! Until when a job is ours. Whoever claimed it says so, again and again; the shim hears of it and
//! ends everything by itself when the time is over, also while this process is stopped or Docker
//! doesn't answer.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use crate::{protocol::Life, session::millis};

/// Without further word a job lives so long, even where its lease has no end: its executor may be
/// gone.
const SILENCE: Duration = Duration::from_secs(25);

/// Until when a job may run.
#[derive(Debug, Clone)]
pub struct Lease(watch::Receiver<Instant>);

/// Held by whoever renews a lease.
#[derive(Debug)]
pub struct Renewing(watch::Sender<Instant>);

impl Renewing {
    /// A lease until then.
    #[must_use]
    pub fn begin(until: Instant) -> (Self, Lease) {
        let (sender, receiver) = watch::channel(until);
        (Self(sender), Lease(receiver))
    }

    /// It holds until then, if that is later than what was known.
    pub fn until(&self, until: Instant) {
        self.0.send_if_modified(|known| {
            let is_later = until > *known;
            *known = until.max(*known);
            is_later
        });
    }

    /// When it ends.
    #[must_use]
    pub fn end(&self) -> Instant {
        *self.0.borrow()
    }
}

impl Lease {
    /// A lease that doesn't end while this process lives: nobody else may begin the job.
    #[must_use]
    pub fn endless() -> Self {
        Renewing::begin(Instant::now() + Duration::from_secs(1 << 32)).1
    }

    /// When everything is dead that was told of this lease, if nobody tells it more.
    pub(crate) fn end(&self) -> Instant {
        (*self.0.borrow()).min(Instant::now() + SILENCE)
    }

    /// The same in the shim's words.
    pub(crate) fn life(&self) -> Life {
        let left = self.end().saturating_duration_since(Instant::now());
        Life { written_ms: since_boot_ms(), left_ms: millis(left) }
    }
}

/// Milliseconds since this machine was started, as the shim's `CLOCK_BOOTTIME` counts them.
fn since_boot_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let Some((seconds, parts)) = text.split(' ').next().unwrap_or_default().split_once('.') else {
        return 0;
    };
    match (seconds.parse::<u64>(), parts.parse::<u64>()) {
        (Ok(seconds), Ok(hundredths)) => seconds * 1000 + hundredths * 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_that_was_held_up_gives_no_more_time() {
        let life = Life { written_ms: 1_000_000, left_ms: 25_000 };
        assert_eq!(life.left(1_000_000), 25_000);
        assert_eq!(life.left(1_020_000), 5_000);
        assert_eq!(life.left(1_060_000), 0, "it lay somewhere for a minute");
        // Another machine's clock says nothing.
        assert_eq!(life.left(5_000), 25_000);
        assert_eq!(life.left(900_000_000), 25_000);
    }

    #[tokio::test]
    async fn a_lease_is_never_shortened_and_silence_bounds_it() {
        let now = Instant::now();
        let (renewing, lease) = Renewing::begin(now + Duration::from_secs(10));
        renewing.until(now + Duration::from_secs(5));
        assert_eq!(lease.end(), now + Duration::from_secs(10));
        renewing.until(now + Duration::from_secs(3600));
        assert!(lease.end() <= Instant::now() + SILENCE);
        assert!(Lease::endless().life().left_ms <= 25_000);
        assert!(since_boot_ms() > 0);
    }
}
