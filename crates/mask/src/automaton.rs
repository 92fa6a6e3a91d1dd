//! Finds many patterns in one pass (Aho-Corasick).
//!
//! The `aho-corasick` crate finds the same matches, but it doesn't tell how much of the input the
//! present state remembers, and that is just what must be held back.
//!
//! States are numbered by depth. Those of depth 0 and 1 have full tables, so ordinary text costs one
//! look-up a byte; where no pattern has begun, [`Automaton::skip`] passes over text in which no two
//! bytes begin one. Deeper states keep their few edges and fall back along failure links; over a
//! whole input there are never more falls than bytes.

use std::collections::BTreeMap;

use crate::encodings::{Breaks, Patterns};

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
    /// One bit for each two bytes: whether a pattern begins with them.
    pairs: Vec<u64>,
}

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
    /// Patterns must be longer than one byte.
    pub(crate) fn new(patterns: &Patterns) -> Self {
        let mut seeds = vec![Seed::default()];
        let mut pairs = vec![0; (1 << 16) / 64];
        for (pattern, breaks) in patterns {
            if let [first, second, ..] = pattern.as_slice() {
                let (word, bit) = pair(*first, *second);
                pairs[word] |= bit;
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
        Self::grow(&seeds, pairs)
    }

    /// Numbers the states breadth first and links them: all that a state falls back to is finished
    /// before it.
    fn grow(seeds: &[Seed], pairs: Vec<u64>) -> Self {
        let mut made = Self {
            tables: Vec::new(),
            nodes: vec![Node::default()],
            shallow: 0,
            edges: Vec::new(),
            pairs,
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
        let begins = |two: &[u8]| {
            let (word, bit) = pair(two[0], two[1]);
            self.pairs[word] & bit != 0
        };
        bytes.windows(2).position(begins).unwrap_or_else(|| bytes.len().saturating_sub(1))
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

/// The place of two bytes among the pairs: word and bit.
#[inline]
fn pair(first: u8, second: u8) -> (usize, u64) {
    let number = usize::from(first) << 8 | usize::from(second);
    (number / 64, 1 << (number % 64))
}

/// States are numbered by 32 bits: patterns of more than four billion bytes don't fit in memory.
fn index(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
