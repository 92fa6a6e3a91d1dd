//! Whether the wall clock went its way. What was promised for a while, a lease for example, was
//! promised in seconds that pass, not in what a clock shows: a clock that was set, or a machine that
//! slept, takes nothing from it.

use std::time::Duration;

use crate::Timestamp;

/// A difference up to this is a clock that is being steered.
pub const STEERED: Duration = Duration::from_secs(5);

/// Compares the wall clock with time that can't be set. One for each loop that decides by the wall
/// clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {
    last: Option<(Timestamp, Duration)>,
}

/// What happened between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The first look: nobody knows.
    Unknown,
    /// So much time, by both.
    Time(Duration),
    /// The wall clock went forward by so much more than time did: it was set, or the machine slept.
    Ahead(Duration),
    /// The wall clock went back against time by so much.
    Back(Duration),
}

impl Guard {
    /// A look: `wall` is what the clock shows, `steady` how long this process has run.
    pub fn look(&mut self, wall: Timestamp, steady: Duration) -> Passed {
        let Some((last_wall, last_steady)) = self.last.replace((wall, steady)) else {
            return Passed::Unknown;
        };
        let passed = steady.saturating_sub(last_steady);
        let expected = last_wall + passed;
        if wall > expected + STEERED {
            Passed::Ahead(Duration::from_micros((wall.0 - expected.0).unsigned_abs()))
        } else if expected > wall + STEERED {
            Passed::Back(Duration::from_micros((expected.0 - wall.0).unsigned_abs()))
        } else {
            Passed::Time(passed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_told_from_time_that_passes() {
        let at = Timestamp::from_seconds;
        let s = Duration::from_secs;
        let mut guard = Guard::default();
        assert_eq!(guard.look(at(1_000), s(0)), Passed::Unknown);
        assert_eq!(guard.look(at(1_002), s(2)), Passed::Time(s(2)));
        assert_eq!(guard.look(at(1_063), s(62)), Passed::Time(s(60)), "a second off is steering");
        assert_eq!(guard.look(at(8_265), s(64)), Passed::Ahead(s(7_200)));
        assert_eq!(guard.look(at(8_267), s(66)), Passed::Time(s(2)), "told once");
        assert_eq!(guard.look(at(1_069), s(68)), Passed::Back(s(7_200)));
        assert_eq!(guard.look(at(1_071), s(70)), Passed::Time(s(2)));
    }
}
