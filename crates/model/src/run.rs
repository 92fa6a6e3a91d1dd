//! Where a run stands, from where its nodes stand. A run has no state of its own besides.

use crate::{Conclusion, Status};

/// How many nodes of a run stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Not started.
    pub queued: u64,
    /// Started.
    pub running: u64,
    /// Ended so.
    pub success: u64,
    /// Ended so.
    pub failure: u64,
    /// Ended so.
    pub error: u64,
    /// Ended so.
    pub timed_out: u64,
    /// Ended so.
    pub cancelled: u64,
    /// Ended so.
    pub skipped: u64,
}

impl Tally {
    /// Counts `nodes` nodes of one kind.
    pub fn add(&mut self, status: Status, conclusion: Option<Conclusion>, nodes: u64) {
        let field = match (status, conclusion) {
            (Status::Queued, _) => &mut self.queued,
            (Status::Running, _) => &mut self.running,
            (Status::Finished, Some(Conclusion::Success)) => &mut self.success,
            (Status::Finished, Some(Conclusion::Failure)) => &mut self.failure,
            (Status::Finished, Some(Conclusion::TimedOut)) => &mut self.timed_out,
            (Status::Finished, Some(Conclusion::Cancelled)) => &mut self.cancelled,
            (Status::Finished, Some(Conclusion::Skipped)) => &mut self.skipped,
            (Status::Finished, Some(Conclusion::Error) | None) => &mut self.error,
        };
        *field += nodes;
    }

    /// Where the run stands. It runs from the first start of a node to the end of the last; it
    /// concludes by the worst that happened, and what was skipped for a reason doesn't count.
    #[must_use]
    pub fn summary(&self) -> (Status, Option<Conclusion>) {
        let ended = self.success
            + self.failure
            + self.error
            + self.timed_out
            + self.cancelled
            + self.skipped;
        if self.queued + self.running > 0 {
            let started = self.running + ended > 0;
            return (if started { Status::Running } else { Status::Queued }, None);
        }
        let worst = [
            (self.failure, Conclusion::Failure),
            (self.error, Conclusion::Error),
            (self.timed_out, Conclusion::TimedOut),
            (self.cancelled, Conclusion::Cancelled),
            (self.success, Conclusion::Success),
        ];
        let conclusion =
            worst.into_iter().find(|(nodes, _)| *nodes > 0).map_or(Conclusion::Skipped, |(_, c)| c);
        (Status::Finished, Some(conclusion))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(nodes: &[(Status, Option<Conclusion>)]) -> (Status, Option<Conclusion>) {
        let mut tally = Tally::default();
        for (status, conclusion) in nodes {
            tally.add(*status, *conclusion, 1);
        }
        tally.summary()
    }

    const QUEUED: (Status, Option<Conclusion>) = (Status::Queued, None);

    fn ended(conclusion: Conclusion) -> (Status, Option<Conclusion>) {
        (Status::Finished, Some(conclusion))
    }

    #[test]
    fn a_run_between_two_jobs_is_still_running() {
        assert_eq!(summary(&[QUEUED, QUEUED]), QUEUED);
        assert_eq!(summary(&[ended(Conclusion::Success), QUEUED]).0, Status::Running);
    }

    #[test]
    fn a_failure_outweighs_what_was_skipped_or_cancelled_for_it() {
        let nodes = [
            ended(Conclusion::Success),
            ended(Conclusion::Cancelled),
            ended(Conclusion::Failure),
            ended(Conclusion::Skipped),
        ];
        assert_eq!(summary(&nodes), ended(Conclusion::Failure));
        assert_eq!(summary(&nodes[..2]), ended(Conclusion::Cancelled));
        assert_eq!(summary(&nodes[3..]), ended(Conclusion::Skipped));
    }
}
