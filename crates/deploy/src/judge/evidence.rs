//! Evidence that may be looked at after every slice: bets against "no worse".
//!
//! Each test starts with a capital of 1 and bets on every slice before it sees it. If the
//! hypothesis is true, no way of betting gains on average, so the capital ever reaches `1/alpha`
//! with a probability of at most `alpha` (Ville's inequality), however often one looks. The capital
//! is spread over several sizes of bets, and over all times at which things may have become worse:
//! a bet that begins with slice `t` gets `1/(t(t+1))` of it.

use serde::{Deserialize, Serialize};

/// Keeps products finite.
const RICHEST: f64 = 1e300;
/// Parts of the largest bet that is allowed.
const BETS: [f64; 5] = [0.05, 0.1, 0.2, 0.4, 0.8];
/// Half the logarithm of the ratio that a bet is best at: 1.4, 2, 5 and 20 times as many.
const RATIOS: [f64; 4] = [0.17, 0.35, 0.8, 1.5];
/// A bet on a sign never risks more than this part of the capital.
const MOST: f64 = 0.9;
/// Shares at which the lower bound can lie.
const BOUNDS: usize = 64;

/// The capital of one kind of bet, over all times at which it may begin.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Capital(f64);

impl Capital {
    /// Slice `t`, from 1, multiplies a bet by `gain`.
    fn add(&mut self, t: f64, gain: f64) {
        self.0 = ((self.0 + 1.0 / (t * (t + 1.0))) * gain).min(RICHEST);
    }

    /// With what begins only after slice `t`.
    fn total(&self, t: f64) -> f64 {
        self.0 + 1.0 / (t + 1.0)
    }
}

/// Is the mean of a share above a limit? Also gives a lower bound for the mean.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MeanTest {
    enough: f64,
    t: f64,
    limit: Bets,
    /// The same against a grid of other limits, ascending.
    bounds: Vec<Bets>,
    /// The best so far.
    lower_bound: Option<f64>,
    highest: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bets {
    mean: f64,
    capital: [Capital; BETS.len()],
}

impl Bets {
    fn new(mean: f64) -> Self {
        Self { mean, capital: Default::default() }
    }

    fn add(&mut self, t: f64, value: f64) {
        for (capital, part) in self.capital.iter_mut().zip(BETS) {
            capital.add(t, 1.0 + part * (value / self.mean - 1.0));
        }
    }

    fn total(&self, t: f64) -> f64 {
        self.capital.iter().map(|c| c.total(t)).sum::<f64>() / BETS.len() as f64
    }
}

impl MeanTest {
    pub(super) fn new(limit: f64, enough: f64) -> Self {
        let step = |i: usize| 1e-4_f64.powf(1.0 - i as f64 / (BOUNDS - 1) as f64);
        Self {
            enough,
            t: 0.0,
            limit: Bets::new(limit.max(1e-9)),
            bounds: (0..BOUNDS).map(|i| Bets::new(step(i))).collect(),
            lower_bound: None,
            highest: 1.0,
        }
    }

    /// The share in the next slice, 0 to 1.
    pub(super) fn add(&mut self, share: f64) {
        let share = share.clamp(0.0, 1.0);
        self.t += 1.0;
        self.limit.add(self.t, share);
        for bets in &mut self.bounds {
            bets.add(self.t, share);
        }
        let refuted = self.bounds.iter().filter(|bets| bets.total(self.t) >= self.enough);
        let bound = refuted
            .map(|bets| bets.mean)
            .fold(None, |a: Option<f64>, b| Some(a.map_or(b, |a| a.max(b))));
        if bound > self.lower_bound {
            self.lower_bound = bound;
        }
        self.highest = self.highest.max(self.evidence());
        // The limit itself lies between two points of the grid.
        if self.broken() && self.lower_bound.is_none_or(|bound| bound < self.limit.mean) {
            self.lower_bound = Some(self.limit.mean);
        }
    }

    pub(super) fn broken(&self) -> bool {
        self.highest >= self.enough
    }

    pub(super) fn evidence(&self) -> f64 {
        self.limit.total(self.t)
    }

    pub(super) fn enough(&self) -> f64 {
        self.enough
    }

    pub(super) fn lower_bound(&self) -> Option<f64> {
        self.lower_bound
    }
}

/// Does the new release have more marked requests than the old one in samples of the same size?
/// If they are equal, a difference is as likely to be on either side, whatever its size: also when
/// errors come in bursts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SignTest {
    enough: f64,
    t: f64,
    capital: [Capital; RATIOS.len()],
    highest: f64,
}

impl SignTest {
    pub(super) fn new(enough: f64) -> Self {
        Self { enough, t: 0.0, capital: Default::default(), highest: 1.0 }
    }

    /// How many more the new release has in the next slice.
    pub(super) fn add(&mut self, difference: f64) {
        self.t += 1.0;
        for (capital, ratio) in self.capital.iter_mut().zip(RATIOS) {
            let bet = (ratio * difference.abs()).tanh().min(MOST);
            capital.add(self.t, 1.0 + bet * sign(difference));
        }
        self.highest = self.highest.max(self.evidence());
    }

    pub(super) fn broken(&self) -> bool {
        self.highest >= self.enough
    }

    pub(super) fn evidence(&self) -> f64 {
        self.capital.iter().map(|c| c.total(self.t)).sum::<f64>() / RATIOS.len() as f64
    }

    pub(super) fn enough(&self) -> f64 {
        self.enough
    }
}

fn sign(value: f64) -> f64 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// How many of the `marked` among `all` are in a sample of `size`, drawn without putting back.
pub(super) fn sample_marked(marked: u64, all: u64, size: u64, seed: u64) -> u64 {
    if size >= all {
        return marked;
    }
    let mut state = seed;
    let (mut left, mut left_marked, mut drawn) = (all, marked.min(all), 0);
    for _ in 0..size {
        // SplitMix64; the bias of the remainder is below 2^-40 for these sizes.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        if z % left < left_marked {
            drawn += 1;
            left_marked -= 1;
        }
        left -= 1;
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_as_many_marked_as_its_size_lets_expect() {
        let total: u64 = (0..2_000).map(|seed| sample_marked(100, 1_000, 50, seed)).sum();
        let mean = total as f64 / 2_000.0;
        assert!((4.8..5.2).contains(&mean), "{mean}");
        assert_eq!(sample_marked(3, 10, 10, 1), 3);
        assert_eq!(sample_marked(10, 10, 4, 1), 4);
        assert_eq!(sample_marked(0, 10, 4, 1), 0);
    }

    #[test]
    fn a_lower_bound_never_falls_and_stays_below_the_mean() {
        let mut test = MeanTest::new(0.01, 300.0);
        let mut last = None;
        for i in 0..200 {
            test.add(if i % 2 == 0 { 0.06 } else { 0.10 });
            assert!(test.lower_bound() >= last);
            last = test.lower_bound();
        }
        let bound = last.unwrap();
        assert!((0.05..0.08).contains(&bound), "{bound}");
        assert!(test.broken());
    }

    #[test]
    fn what_was_good_for_long_and_becomes_bad_is_still_caught() {
        let mut test = MeanTest::new(0.01, 300.0);
        for _ in 0..500 {
            test.add(0.0);
        }
        let slices = (1..100).find(|_| {
            test.add(0.1);
            test.broken()
        });
        assert!(slices.is_some_and(|n| n < 30), "{slices:?}");
    }
}
