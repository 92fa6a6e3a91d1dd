//! Seconds, counted in log-linear buckets: mergeable in any order, and what was added can be taken
//! away again.
//!
//! Below 2,048 seconds every value has a bucket of its own. Above, each octave has 1,024 buckets, and
//! a value is told by the middle of its bucket: wrong by 1/2048 at most. Integer arithmetic only.

use std::collections::BTreeMap;

/// The most by which a percentile can be wrong, as a share of it.
pub const MAX_RELATIVE_ERROR: f64 = 1.0 / 2048.0;

const SUB_BITS: u32 = 10;
const EXACT_BELOW: u64 = 1 << (SUB_BITS + 1);

/// Counts of seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: BTreeMap<u32, u64>,
}

fn index(seconds: u64) -> u32 {
    if seconds < EXACT_BELOW {
        return u32::try_from(seconds).unwrap_or(0);
    }
    let shift = seconds.ilog2() - SUB_BITS;
    let sub = u32::try_from(seconds >> shift).unwrap_or(0);
    (shift << SUB_BITS) + sub
}

fn middle(index: u32) -> u64 {
    if u64::from(index) < EXACT_BELOW {
        return u64::from(index);
    }
    let shift = (index >> SUB_BITS) - 1;
    let sub = u64::from(index - (shift << SUB_BITS));
    let low = sub << shift;
    low + ((1_u64 << shift) - 1) / 2
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, seconds: u64) {
        *self.counts.entry(index(seconds)).or_insert(0) += 1;
    }

    /// Takes one value away. False, and nothing changed, if it isn't there.
    #[must_use]
    pub fn remove(&mut self, seconds: u64) -> bool {
        let index = index(seconds);
        match self.counts.get_mut(&index) {
            Some(1) => {
                self.counts.remove(&index);
                true
            }
            Some(count) => {
                *count -= 1;
                true
            }
            None => false,
        }
    }

    /// Adds everything that `other` counts.
    pub fn merge(&mut self, other: &Self) {
        for (index, count) in &other.counts {
            *self.counts.entry(*index).or_insert(0) += count;
        }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The value at this percentile, 1 to 100, by lower rank; `None` without values.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<u64> {
        let rank = rank(self.len(), percent)?;
        let mut passed = 0;
        for (index, count) in &self.counts {
            passed += count;
            if passed >= rank {
                return Some(middle(*index));
            }
        }
        None
    }

    /// Appends the counts as pairs of variable-length numbers: the distance to the index before, the
    /// count. Equal histograms give equal bytes.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_number(out, self.counts.len() as u64);
        let mut before = 0;
        for (index, count) in &self.counts {
            write_number(out, u64::from(index - before));
            write_number(out, *count);
            before = *index;
        }
    }

    /// Reads what [`Self::write`] wrote, and moves `bytes` behind it.
    pub(crate) fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut counts = BTreeMap::new();
        let mut at = 0_u32;
        for n in 0..read_number(bytes)? {
            let step = u32::try_from(read_number(bytes)?).ok()?;
            if n > 0 && step == 0 {
                return None;
            }
            at = at.checked_add(step)?;
            let count = read_number(bytes)?;
            if count == 0 {
                return None;
            }
            counts.insert(at, count);
        }
        Some(Self { counts })
    }
}

/// The rank of a percentile among `n` sorted values, from 1: the lowest that has `percent` of all at
/// or below it.
fn rank(n: u64, percent: u8) -> Option<u64> {
    let rank = (u128::from(n) * u128::from(percent)).div_ceil(100).max(1);
    if n == 0 { None } else { u64::try_from(rank).ok() }
}

/// The value at a percentile of sorted values, by the same rule as [`Histogram::percentile`].
pub(crate) fn exact_percentile(sorted: &[u64], percent: u8) -> Option<u64> {
    let rank = rank(sorted.len() as u64, percent)?;
    sorted.get(usize::try_from(rank - 1).ok()?).copied()
}

pub(crate) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        let mut last = 0;
        for value in 0..100_000_u64 {
            let this = index(value);
            assert!(this == last || this == last + 1, "{value}: {last} then {this}");
            last = this;
        }
        assert_eq!(index(2047), 2047);
        assert_eq!(index(2048), 2048);
    }

    #[test]
    fn a_value_is_told_within_the_promised_error() {
        for value in (0..64).map(|bit| (1_u64 << bit) + (1 << bit) / 3).chain([u64::MAX, 97_080]) {
            let told = middle(index(value));
            let error = told.abs_diff(value) as f64 / value as f64;
            assert!(error <= MAX_RELATIVE_ERROR, "{value} told as {told}");
        }
    }

    #[test]
    fn percentiles_take_the_lower_of_two_middle_values() {
        let mut all = Histogram::default();
        for value in [1, 2, 3, 4] {
            all.add(value);
        }
        assert_eq!(all.percentile(50), Some(2));
        assert_eq!(all.percentile(75), Some(3));
        assert_eq!(all.percentile(95), Some(4));
        assert_eq!(Histogram::default().percentile(50), None);
        assert_eq!(exact_percentile(&[1, 2, 3, 4], 50), Some(2));
    }

    #[test]
    fn what_is_not_there_cannot_be_taken_away() {
        let mut all = Histogram::default();
        all.add(5);
        assert!(!all.remove(6));
        assert!(all.remove(5) && all.is_empty());
    }
}
