//! Finds many patterns in one pass (Aho-Corasick).
//!
//! The `aho-corasick` crate finds the same matches, but it doesn't tell how much of the input the
//! present state remembers, and that is just what must be held back.
//!
//! States of depth 0 and 1 have full tables, so ordinary text costs one look-up a byte. Deeper states
//! keep their few edges sorted and fall back along failure links; over a whole input there are never
//! more falls than bytes.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Automaton {
    nodes: Vec<Node>,
    /// Edges of the nodes without a table: byte and target, sorted by byte.
    edges: Vec<(u8, u32)>,
    tables: Vec<[u32; 256]>,
}

#[derive(Clone, Copy)]
struct Node {
    /// Where to go on when no edge fits: the longest proper suffix that is a state.
    fail: u32,
    depth: u32,
    /// The longest pattern that ends here; 0 for none.
    longest: u32,
    /// The first edge, or the table.
    first: u32,
    /// How many edges; `TABLE` when there is a table.
    count: u32,
}

const TABLE: u32 = u32::MAX;
/// The deepest states with a table.
const TABLE_DEPTH: u32 = 1;

impl Automaton {
    pub(crate) fn new(patterns: &BTreeSet<Vec<u8>>) -> Self {
        let mut children: Vec<BTreeMap<u8, u32>> = vec![BTreeMap::new()];
        let mut nodes = vec![Node { fail: 0, depth: 0, longest: 0, first: 0, count: 0 }];
        for pattern in patterns {
            let mut at = 0;
            for byte in pattern {
                let new = index(nodes.len());
                let next = *children[place(at)].entry(*byte).or_insert(new);
                if next == new {
                    let depth = nodes[place(at)].depth + 1;
                    nodes.push(Node { fail: 0, depth, longest: 0, first: 0, count: 0 });
                    children.push(BTreeMap::new());
                }
                at = next;
            }
            nodes[place(at)].longest = nodes[place(at)].depth;
        }
        let mut made = Self { nodes, edges: Vec::new(), tables: Vec::new() };
        made.link(&children);
        made
    }

    /// Sets failure links, edges and tables, breadth first: all of a node's betters come before it.
    fn link(&mut self, children: &[BTreeMap<u8, u32>]) {
        let mut queue = vec![0_u32];
        let mut next = 0;
        while let Some(at) = queue.get(next).copied() {
            next += 1;
            let edges = &children[place(at)];
            let node = self.nodes[place(at)];
            if at != 0 {
                let inherited = self.nodes[place(node.fail)].longest;
                let longest = &mut self.nodes[place(at)].longest;
                *longest = (*longest).max(inherited);
            }
            for (byte, child) in edges {
                let fail = if at == 0 { 0 } else { self.next(node.fail, *byte) };
                self.nodes[place(*child)].fail = fail;
                queue.push(*child);
            }
            if node.depth <= TABLE_DEPTH {
                let mut table = [0; 256];
                for byte in 0..=u8::MAX {
                    table[usize::from(byte)] = match edges.get(&byte) {
                        Some(child) => *child,
                        None if at == 0 => 0,
                        None => self.next(node.fail, byte),
                    };
                }
                self.nodes[place(at)].first = index(self.tables.len());
                self.nodes[place(at)].count = TABLE;
                self.tables.push(table);
            } else {
                self.nodes[place(at)].first = index(self.edges.len());
                self.nodes[place(at)].count = index(edges.len());
                self.edges.extend(edges.iter().map(|(byte, child)| (*byte, *child)));
            }
        }
    }

    /// The state after `byte`.
    pub(crate) fn next(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            let node = &self.nodes[place(state)];
            if node.count == TABLE {
                return self.tables[place(node.first)][usize::from(byte)];
            }
            let first = place(node.first);
            let edges = &self.edges[first..first + place(node.count)];
            if let Some((_, child)) = edges.iter().find(|(edge, _)| *edge == byte) {
                return *child;
            }
            state = node.fail;
        }
    }

    /// The length of the longest pattern that ends at this state.
    pub(crate) fn match_length(&self, state: u32) -> Option<usize> {
        let longest = self.nodes[place(state)].longest;
        (longest > 0).then(|| place(longest))
    }

    /// How many of the last bytes are the beginning of some pattern.
    pub(crate) fn depth(&self, state: u32) -> usize {
        place(self.nodes[place(state)].depth)
    }
}

/// States are numbered by 32 bits: patterns of more than four billion bytes don't fit in memory.
fn index(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
