//! How long an attempt is its runner's. The server offers a job again when its lease has run out; by
//! then nothing of the former attempt may run any more, whatever has happened to its runner, its
//! Docker or the network in between. So everything on the runner's side stops earlier.

use std::time::Duration;

/// A claim or a heartbeat holds for so long, by the server's clock.
pub const LEASE: Duration = Duration::from_secs(30);

/// What killing every process of a job may take, and what clocks may drift in a lease.
const MARGIN: Duration = Duration::from_secs(5);

/// How long after it asked for a lease a runner may let the job's processes run without hearing that
/// the lease was renewed. Counted from before the request was sent, so from before the server began
/// to count. What is left of the lease is for ending them.
#[must_use]
pub fn may_run(lease: Duration) -> Duration {
    lease.saturating_sub(MARGIN).max(lease / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_ends_before_it_is_offered_again() {
        for seconds in [1, 4, 10, 30, 60, 600] {
            let lease = Duration::from_secs(seconds);
            assert!(may_run(lease) < lease && may_run(lease) > Duration::ZERO, "{seconds}");
        }
        assert_eq!(may_run(LEASE), Duration::from_secs(25));
        assert_eq!(may_run(Duration::ZERO), Duration::ZERO);
    }
}
