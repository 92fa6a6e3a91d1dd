//! Which arm takes the next request.
//!
//! Every run of 100 requests gives each arm exactly its weight, and shorter runs come close: the
//! requests walk over 100 slots in strides of 61, near the golden ratio, so that an arm's requests
//! are spread evenly and don't beat with clients that alternate between two kinds of requests.
//! There is no randomness, so a share can be checked without a confidence interval.

use std::sync::atomic::{AtomicU64, Ordering};

/// Coprime to 100 and near `100 / golden ratio`.
const STRIDE: u64 = 61;

/// Slots by weight: `slots[k]` is the index of the arm that takes a request on slot `k`.
pub(super) fn slots(weights: &[u8]) -> Vec<u8> {
    let each = weights.iter().zip(0u8..);
    each.flat_map(|(weight, arm)| std::iter::repeat_n(arm, usize::from(*weight))).collect()
}

/// Counts requests and turns the count into an arm.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU64);

impl Turn {
    /// The arm of the next request; none if there are no slots.
    pub(super) fn next(&self, slots: &[u8]) -> Option<usize> {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        let slot = (n % 100) * STRIDE % 100;
        slots.get(usize::try_from(slot).ok()?).map(|arm| usize::from(*arm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(turn: &Turn, slots: &[u8], requests: u32) -> f64 {
        let canary = (0..requests).filter(|_| turn.next(slots) == Some(1)).count();
        canary as f64 * 100.0 / f64::from(requests)
    }

    #[test]
    fn every_hundred_requests_have_exactly_the_weight() {
        for weight in 0..=100u8 {
            let (turn, slots) = (Turn::default(), slots(&[100 - weight, weight]));
            for _ in 0..3 {
                assert!((share(&turn, &slots, 100) - f64::from(weight)).abs() < 1e-9, "{weight}");
            }
        }
    }

    #[test]
    fn a_short_run_is_off_by_at_most_three_requests() {
        for weight in 0..=100u8 {
            let (turn, slots) = (Turn::default(), slots(&[100 - weight, weight]));
            let mut canary = 0.0;
            for n in 1..=100 {
                canary += f64::from(turn.next(&slots) == Some(1));
                let due = f64::from(n) * f64::from(weight) / 100.0;
                assert!((canary - due).abs() <= 3.0, "weight {weight}: {canary} of {n}");
            }
        }
    }

    #[test]
    fn a_client_that_alternates_meets_both_arms() {
        let (turn, slots) = (Turn::default(), slots(&[50, 50]));
        let mut even = 0;
        for n in 0..1_000 {
            let canary = turn.next(&slots) == Some(1);
            even += u32::from(canary && n % 2 == 0);
        }
        assert_eq!(even, 250);
    }

    #[test]
    fn without_arms_nobody_takes_it() {
        assert_eq!(Turn::default().next(&slots(&[])), None);
    }
}
