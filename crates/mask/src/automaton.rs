//! Finds many patterns in one pass (Aho-Corasick).
//!
//! The `aho-corasick` crate finds the same matches, but it doesn't tell how much of the input the
//! present state remembers, and that is just what must be held back.
//!
//! States are numbered by depth. Those of depth 0 and 1 have full tables, so ordinary text costs one
//! look-up a byte; where no pattern has begun, [`Automaton::skip`] leaps over most of it. Deeper states
//! keep their few edges and fall back along failure links; over a whole input there are never more
//! falls than bytes.

use std::collections::BTreeMap;

use crate::{
    MIN_LEN,
    encodings::{Breaks, Patterns},
};

/// The state in which no pattern has begun.
pub(crate) const ROOT: u32 = 0;

pub(crate) struct Automaton {
    /// The targets of every shallow state, 256 each.
    tables: Vec<u32>,
    /// Every state; the first `shallow` have tables.
    nodes: Vec<Node>,
    shallow: u32,
    /// The edges of the other states: byte and target.
    edges: Vec<(u8, u32)>,
    /// Whether a pattern begins with two bytes.
    pairs: Bits,
    /// Whether a pattern may have three bytes among its first [`WINDOW`].
    grams: Bits,
}

/// No pattern is shorter.
const WINDOW: usize = MIN_LEN;
/// Places in a window where three bytes may be.
const PLACES: usize = WINDOW - 2;

#[derive(Clone, Copy, Default)]
struct Node {
    /// Where to go on when no edge fits: the longest proper suffix that is a state.
    fail: u32,
    depth: u32,
    /// The longest pattern that ends here; 0 for none.
    longest: u32,
    /// The longest suffix, this state included, that begins a pattern which tools break into lines.
    breakable: u32,
    /// The first edge and their number.
    first: u32,
    count: u32,
}

/// The deepest states with a table. No pattern is so short that it ends there.
const TABLE_DEPTH: u32 = 1;

/// A state while the patterns are put in, in the order of their coming.
#[derive(Default)]
struct Seed {
    children: BTreeMap<u8, usize>,
    is_end: bool,
    is_breakable: bool,
}

impl Automaton {
    /// Patterns have at least [`MIN_LEN`] bytes.
    pub(crate) fn new(patterns: &Patterns) -> Self {
        let mut seeds = vec![Seed::default()];
        let (mut pairs, mut grams) = (Bits::new(), Bits::new());
        for (pattern, breaks) in patterns {
            debug_assert!(pattern.len() >= WINDOW, "{} bytes", pattern.len());
            pairs.add(pair(pattern));
            for three in pattern[..WINDOW].windows(3) {
                grams.add(gram(three));
            }
            let mut at = 0;
            for byte in pattern {
                let new = seeds.len();
                at = *seeds[at].children.entry(*byte).or_insert(new);
                if at == new {
                    seeds.push(Seed::default());
                }
                seeds[at].is_breakable |= *breaks == Breaks::Anywhere;
            }
            seeds[at].is_end = true;
        }
        Self::grow(&seeds, pairs, grams)
    }

    /// Numbers the states breadth first and links them: all that a state falls back to is finished
    /// before it.
    fn grow(seeds: &[Seed], pairs: Bits, grams: Bits) -> Self {
        let mut made = Self {
            tables: Vec::new(),
            nodes: vec![Node::default()],
            shallow: 0,
            edges: Vec::new(),
            pairs,
            grams,
        };
        let mut order = vec![0];
        let mut at = 0;
        while let Some(seed) = order.get(at).map(|seed| &seeds[*seed]) {
            let Node { fail, depth, .. } = made.nodes[at];
            if seed.is_end {
                made.nodes[at].longest = depth;
            } else if at != 0 {
                made.nodes[at].longest = made.nodes[place(fail)].longest;
            }
            made.nodes[at].breakable =
                if seed.is_breakable { index(at) } else { made.nodes[place(fail)].breakable };
            let mut edges = Vec::with_capacity(seed.children.len());
            for (byte, child) in &seed.children {
                let fail = if at == 0 { ROOT } else { made.next(fail, *byte) };
                edges.push((*byte, index(made.nodes.len())));
                made.nodes.push(Node { fail, depth: depth + 1, ..Node::default() });
                order.push(*child);
            }
            if depth <= TABLE_DEPTH {
                // Before the root's own table is there, everything leads back to it.
                let fallback = |byte| if at == 0 { ROOT } else { made.next(fail, byte) };
                let mut table: Vec<u32> = (0..=u8::MAX).map(fallback).collect();
                for (byte, child) in edges {
                    table[usize::from(byte)] = child;
                }
                made.tables.append(&mut table);
                made.shallow += 1;
            } else {
                made.nodes[at].first = index(made.edges.len());
                made.nodes[at].count = index(edges.len());
                made.edges.append(&mut edges);
            }
            at += 1;
        }
        made
    }

    /// The state after `byte`.
    #[inline]
    pub(crate) fn next(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            if state < self.shallow {
                return self.tables[place(state) * 256 + usize::from(byte)];
            }
            let node = &self.nodes[place(state)];
            let first = place(node.first);
            let edges = &self.edges[first..first + place(node.count)];
            if let Some((_, child)) = edges.iter().find(|(edge, _)| *edge == byte) {
                return *child;
            }
            state = node.fail;
        }
    }

    /// How many of these bytes lead back to the root when it is the state before them: no pattern
    /// begins in them. What is left has at least one byte, unless there is none.
    #[inline]
    pub(crate) fn skip(&self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(window) = bytes.get(at..at + WINDOW) {
            // A pattern that begins at any of these places has the last three bytes in its own window.
            if !self.grams.has(gram(&window[PLACES - 1..])) {
                at += PLACES;
            } else if self.pairs.has(pair(window)) {
                return at;
            } else {
                at += 1;
            }
        }
        let begins = |two: &[u8]| self.pairs.has(pair(two));
        let last = bytes.len().saturating_sub(1);
        bytes[at..].windows(2).position(begins).map_or(last, |more| at + more)
    }

    /// The length of the longest pattern that ends at this state.
    #[inline]
    pub(crate) fn match_length(&self, state: u32) -> Option<usize> {
        if state < self.shallow {
            return None;
        }
        let longest = self.nodes[place(state)].longest;
        (longest > 0).then(|| place(longest))
    }

    /// How many of the last bytes are the beginning of some pattern.
    pub(crate) fn depth(&self, state: u32) -> usize {
        place(self.nodes[place(state)].depth)
    }

    /// What the state remembers of a pattern that may go on after the end of a line.
    pub(crate) fn breakable(&self, state: u32) -> u32 {
        self.nodes[place(state)].breakable
    }
}

/// A set of numbers of 16 bits.
struct Bits(Box<[u64; 1 << 10]>);

impl Bits {
    fn new() -> Self {
        Self(Box::new([0; 1 << 10]))
    }

    fn add(&mut self, number: u16) {
        self.0[usize::from(number >> 6)] |= 1 << (number & 63);
    }

    #[inline]
    fn has(&self, number: u16) -> bool {
        self.0[usize::from(number >> 6)] & 1 << (number & 63) != 0
    }
}

/// The first two bytes as a number.
#[inline]
fn pair(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

/// The first three bytes as a number that others may share.
#[inline]
fn gram(bytes: &[u8]) -> u16 {
    pair(bytes).rotate_left(5) ^ u16::from(bytes[2]).wrapping_mul(0x9E5)
}

/// States are numbered by 32 bits: patterns of more than four billion bytes don't fit in memory.
fn index(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
