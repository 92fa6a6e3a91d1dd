//! Finds forms that a tool has broken into lines: `base64` breaks after 76 letters, PEM after 64,
//! `xxd -p` after 60.
//!
//! Where the break falls inside of a form depends on what stands before the secret, so the forms
//! can't be listed. Instead a second state of the automaton goes on from a line's end as though the
//! break weren't there. It lives only while it remembers letters from before a break, so ordinary
//! text pays for it at the ends of lines only.
//!
//! A break is `\n`, `\r\n` or `\r`. After it a broken form has at least [`LINE`] letters before the
//! next one; that bounds how many breaks a form can have, and with them what must be held back.

use std::collections::VecDeque;

use crate::automaton::{Automaton, ROOT};

/// No tool breaks lines shorter than this.
const LINE: usize = 16;
/// With fewer letters before the break nothing is held back at the end of the line, or half of all
/// lines would be shown late. Those letters, at most 18 bits of the secret, are then seen.
const ENOUGH: usize = 4;

/// The state that doesn't see line breaks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bridge {
    /// `ROOT`: it remembers nothing from before a break.
    state: u32,
    /// Letters since the last break.
    letters: usize,
    /// The breaks in what the state remembers, oldest first.
    breaks: VecDeque<Break>,
    /// The sum of the letters before these breaks.
    before: usize,
    /// Matches begin here at the earliest: what is before it isn't held.
    barrier: usize,
}

#[derive(Clone, Copy, Debug)]
struct Break {
    /// Letters between it and the one before it.
    letters: usize,
    /// Its own bytes.
    bytes: usize,
    /// Its last byte is `\r`: `\n` may belong to it.
    open: bool,
    /// What is before it isn't held.
    barred: bool,
}

impl Bridge {
    pub(crate) fn is_alive(&self) -> bool {
        self.state != ROOT
    }

    /// Takes a byte that is no break. Answers where the longest match begins that reaches back over
    /// a break and ends with it; `end` is the place after the byte.
    pub(crate) fn step(&mut self, automaton: &Automaton, byte: u8, end: usize) -> Option<usize> {
        self.state = automaton.next(self.state, byte);
        self.letters += 1;
        if automaton.depth(self.state) <= self.letters {
            self.end();
            return None;
        }
        let length = automaton.match_length(self.state).filter(|length| *length > self.letters)?;
        Some(self.begin_of(length, end))
    }

    /// Takes a break, `\n` or `\r`. `line` is the automaton's own state before it; `end` is the place
    /// after it.
    pub(crate) fn line_break(&mut self, automaton: &Automaton, byte: u8, line: u32, end: usize) {
        if self.is_alive() && self.letters == 0 {
            match self.breaks.back_mut() {
                Some(last) if last.open && byte == b'\n' => {
                    last.bytes += 1;
                    last.open = false;
                    if last.barred {
                        self.barrier = end;
                    }
                }
                // An empty line is no part of a form.
                _ => self.end(),
            }
            return;
        }
        let goes_on = self.is_alive() && self.letters >= LINE;
        let state = automaton.breakable(if goes_on { self.state } else { line });
        let depth = automaton.depth(state);
        let letters = if goes_on { self.letters } else { depth };
        if !goes_on {
            self.end();
        }
        self.state = state;
        if state == ROOT {
            return self.end();
        }
        let barred = depth < ENOUGH;
        if barred {
            self.barrier = end;
        }
        self.letters = 0;
        self.before += letters;
        self.breaks.push_back(Break { letters, bytes: 1, open: byte == b'\r', barred });
        while let Some(oldest) = self.breaks.front() {
            if self.before - oldest.letters < depth {
                break;
            }
            self.before -= oldest.letters;
            self.breaks.pop_front();
        }
    }

    /// Where what must be held back begins; `end` if nothing.
    pub(crate) fn held_from(&self, automaton: &Automaton, end: usize) -> usize {
        if !self.is_alive() {
            return end;
        }
        self.begin_of(automaton.depth(self.state), end)
    }

    /// The first `done` bytes of what is held are gone.
    pub(crate) fn released(&mut self, done: usize) {
        self.barrier = self.barrier.saturating_sub(done);
    }

    /// Forgets everything.
    pub(crate) fn end(&mut self) {
        self.state = ROOT;
        self.letters = 0;
        self.before = 0;
        self.breaks.clear();
        // The barrier is set again with the next break that needs one.
        self.barrier = 0;
    }

    /// Where the last `letters` letters before `end` begin, breaks counted, but not before the
    /// barrier.
    fn begin_of(&self, letters: usize, end: usize) -> usize {
        let mut bytes = letters;
        let mut left = letters.saturating_sub(self.letters);
        for before in self.breaks.iter().rev() {
            if left == 0 {
                break;
            }
            bytes += before.bytes;
            left = left.saturating_sub(before.letters);
        }
        end.saturating_sub(bytes).max(self.barrier)
    }
}
