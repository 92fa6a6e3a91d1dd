//! Takes secrets out of a stream of bytes.
//!
//! A [`Masker`] replaces every run of bytes that belongs to a secret by `***`, whether the secret
//! stands there as it is or in one of the encodings of [`encodings`], wherever the stream is cut into
//! pieces, and for base64 and hex also where a tool has broken them into lines. It holds back only
//! the bytes that may still become part of a secret.
//!
//! Masking is hygiene against accidents. It is no boundary: whoever has a secret can write it in a
//! way that no list covers. The boundary is which job gets it.
//!
//! Pure: no I/O, no time. The cost of a byte doesn't depend on the number of secrets.

mod automaton;
mod bridge;
pub mod encodings;

use std::{fmt, ops::Range, sync::Arc};

use automaton::{Automaton, ROOT};
use bridge::Bridge;
use encodings::Patterns;

/// A shorter value can't be a secret: it would be found by chance all over a log.
pub const MIN_LEN: usize = 8;
/// What stands in the place of a secret.
pub const MASK: &[u8] = b"***";

/// Why a value can't be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has fewer than [`MIN_LEN`] bytes: so many.
    TooShort(usize),
    /// It is all one character, such as a row of stars.
    Monotone(char),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(len) => write!(
                f,
                "a secret must have at least {MIN_LEN} bytes and this has {len}: it could not be \
                 masked without masking innocent text"
            ),
            Self::Monotone(letter) => {
                write!(f, "a secret may not consist of {letter:?} only: it can't be told from text")
            }
        }
    }
}

/// Why `value` can't be a secret; `None` if it can.
#[must_use]
pub fn refuse_reason(value: &str) -> Option<Refusal> {
    if value.len() < MIN_LEN {
        return Some(Refusal::TooShort(value.len()));
    }
    let first = value.chars().next()?;
    value.chars().all(|letter| letter == first).then_some(Refusal::Monotone(first))
}

/// Masks one stream.
#[derive(Clone)]
pub struct Masker {
    automaton: Arc<Automaton>,
    state: u32,
    /// Looks over line breaks.
    bridge: Bridge,
    /// Bytes that are not written yet because they may be part of a secret.
    held: Vec<u8>,
    /// Parts of `held`, and of the piece that is being taken, that are: sorted, apart from each
    /// other.
    covered: Vec<Range<usize>>,
    /// The last byte that left was part of a secret, so its mask is written.
    in_mask: bool,
}

impl Masker {
    /// A masker for these secrets. Values that [`refuse_reason`] refuses are passed over.
    pub fn new<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut patterns = Patterns::new();
        for secret in secrets.filter(|secret| refuse_reason(secret).is_none()) {
            encodings::of(secret, &mut patterns);
        }
        Self::with(Arc::new(Automaton::new(&patterns)))
    }

    /// A masker for another stream with the same secrets. Costs nothing.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self::with(Arc::clone(&self.automaton))
    }

    fn with(automaton: Arc<Automaton>) -> Self {
        Self {
            automaton,
            state: ROOT,
            bridge: Bridge::default(),
            held: Vec::new(),
            covered: Vec::new(),
            in_mask: false,
        }
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the next piece of the stream and appends to `out` all that is certain by now.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        // Places count from the first byte that is held.
        let mut place = self.held.len();
        let mut rest = input;
        while !rest.is_empty() {
            let line = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            self.scan(&rest[..line], place);
            place += line;
            rest = &rest[line..];
            if let Some((byte, behind)) = rest.split_first() {
                place += 1;
                rest = behind;
                self.bridge.line_break(&self.automaton, *byte, self.state, place);
                self.step(*byte, place);
            }
        }
        // Every match to come begins within the part that the states remember.
        let certain = place
            .saturating_sub(self.automaton.depth(self.state))
            .min(self.bridge.held_from(&self.automaton, place));
        self.release(input, certain, out);
    }

    /// Ends the stream: appends what is held back, and begins anew.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        self.release(&[], self.held.len(), out);
        self.state = ROOT;
        self.bridge.end();
        self.in_mask = false;
    }

    /// Takes bytes without a line break; the first one is at `place`.
    fn scan(&mut self, bytes: &[u8], place: usize) {
        let mut at = 0;
        while self.bridge.is_alive() && at < bytes.len() {
            let end = place + at + 1;
            self.step(bytes[at], end);
            if let Some(begin) = self.bridge.step(&self.automaton, bytes[at], end) {
                self.cover(begin, end);
            }
            at += 1;
        }
        while at < bytes.len() {
            if self.state == ROOT {
                at += self.automaton.skip(&bytes[at..]);
            }
            self.step(bytes[at], place + at + 1);
            at += 1;
        }
    }

    /// Takes one byte; `end` is the place after it.
    #[inline]
    fn step(&mut self, byte: u8, end: usize) {
        self.state = self.automaton.next(self.state, byte);
        if let Some(length) = self.automaton.match_length(self.state) {
            // A match may begin in what has left already: that part was masked before, as the end
            // of another match, or it would still be held.
            self.cover(end.saturating_sub(length), end);
        }
    }

    /// Adds a match. Matches come in the order of their ends.
    fn cover(&mut self, mut begin: usize, end: usize) {
        while let Some(earlier) = self.covered.last() {
            if earlier.end < begin {
                break;
            }
            begin = begin.min(earlier.start);
            self.covered.pop();
        }
        self.covered.push(begin..end);
    }

    /// Writes what is held and `input` behind it up to `certain`, and further while it is part of a
    /// match. Holds the rest.
    fn release(&mut self, input: &[u8], certain: usize, out: &mut Vec<u8>) {
        let begin = self.held.len();
        let copy = |range: Range<usize>, out: &mut Vec<u8>| {
            if range.start < begin {
                out.extend_from_slice(&self.held[range.start..range.end.min(begin)]);
            }
            if range.end > begin {
                out.extend_from_slice(&input[range.start.max(begin) - begin..range.end - begin]);
            }
        };
        let mut done = 0;
        let mut used = 0;
        for covered in self.covered.iter().take_while(|covered| covered.start <= certain) {
            if covered.start > done {
                copy(done..covered.start, out);
                self.in_mask = false;
            }
            if !self.in_mask {
                out.extend_from_slice(MASK);
                self.in_mask = true;
            }
            done = covered.end;
            used += 1;
        }
        if certain > done {
            copy(done..certain, out);
            self.in_mask = false;
            done = certain;
        }
        self.covered.drain(..used);
        for covered in &mut self.covered {
            *covered = covered.start - done..covered.end - done;
        }
        self.bridge.released(done);
        if done < begin {
            self.held.drain(..done);
            self.held.extend_from_slice(input);
        } else {
            self.held.clear();
            self.held.extend_from_slice(&input[done - begin..]);
        }
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(secrets: &[&str], text: &str) -> String {
        let mut masker = Masker::new(secrets.iter().copied());
        let mut out = Vec::new();
        masker.push(text.as_bytes(), &mut out);
        masker.flush(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn overlapping_secrets_leave_nothing_of_either() {
        let secrets = ["abcdefghij", "ghijklmnop", "cdefghij"];
        assert_eq!(mask(&secrets, "<abcdefghijklmnop>"), "<***>");
        assert_eq!(mask(&secrets, "<cdefghijklmnop>"), "<***>");
        assert_eq!(mask(&secrets, "<bcdefghij>"), "<b***>");
    }

    #[test]
    fn a_secret_that_begins_like_a_longer_one_is_masked_at_once() {
        let mut masker = Masker::new(["password1", "password1-and-more"].into_iter());
        let mut out = Vec::new();
        masker.push(b"x password1", &mut out);
        assert_eq!(out, b"x ***");
        masker.push(b"-and-more y", &mut out);
        assert_eq!(out, b"x *** y");
    }

    #[test]
    fn only_what_may_become_a_secret_is_held_back() {
        let mut masker = Masker::new(["password1"].into_iter());
        let mut out = Vec::new();
        masker.push(b"my pass", &mut out);
        assert_eq!((out.as_slice(), masker.held()), (&b"my "[..], 4));
        masker.push(b"age", &mut out);
        assert_eq!((out.as_slice(), masker.held()), (&b"my passage"[..], 0));
        masker.push(b" pass", &mut out);
        masker.flush(&mut out);
        assert_eq!(out, b"my passage pass");
    }

    #[test]
    fn a_line_of_a_secret_is_a_secret() {
        let key = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\r\nend\n";
        assert_eq!(mask(&[key], "key: MIIEpAIBAAKCAQEA, end"), "key: ***, end");
    }

    #[test]
    fn every_listed_encoding_is_masked() {
        let secret = "p\"a<ss> wörd/&'+\\1";
        for text in [
            "p\"a<ss> wörd/&'+\\1",
            "cCJhPHNzPiB3w7ZyZC8mJytcMQ==",
            "cCJhPHNzPiB3w7ZyZC8mJytcMQo=",
            "OnAiYTxzcz4gd8O2cmQvJicrXDE=",
            "dTpwImE8c3M-IHfDtnJkLyYnK1wx",
            "7022613c73733e2077c3b672642f26272b5c31",
            "7022613C73733E2077C3B672642F26272B5C31",
            r#"p\"a<ss> wörd/&'+\\1"#,
            r#"p\"a<ss> w\u00f6rd/&'+\\1"#,
            r#"p\"a\u003css\u003e wörd/\u0026'+\\1"#,
            "p%22a%3Css%3E%20w%C3%B6rd%2F%26%27%2B%5C1",
            "p%22a%3css%3e%20w%c3%b6rd%2f%26%27%2b%5c1",
            "p%22a%3Css%3E%20w%C3%B6rd%2F%26'%2B%5C1",
            "p%22a%3Css%3E+w%C3%B6rd%2F%26%27%2B%5C1",
            "p&quot;a&lt;ss&gt; wörd/&amp;&apos;+\\1",
            "p&quot;a&lt;ss&gt; wörd/&amp;&#39;+\\1",
            "p\"a&lt;ss&gt; wörd/&amp;'+\\1",
        ] {
            let masked = mask(&[secret], &format!("<{text}>"));
            // Of base64 the first and last letter may also depend on what stands beside the secret.
            assert!(masked.contains("***") && masked.len() <= 12, "{text} gave {masked}");
        }
    }

    #[test]
    fn base64_that_is_broken_into_lines_is_masked() {
        let key =
            "an-important-key-with-many-letters-and-a-long-tail-that-fills-two-lines-of-base64";
        let text = "$ base64 config\n\
                    Ly8gY29uZmlnCmtleSA9IGFuLWltcG9ydGFudC1rZXktd2l0aC1tYW55LWxldHRlcnMtYW5kLWEt\n\
                    bG9uZy10YWlsLXRoYXQtZmlsbHMtdHdvLWxpbmVzLW9mLWJhc2U2NAo=\n\
                    $ next\n";
        assert_eq!(
            mask(&[key], text),
            "$ base64 config\nLy8gY29uZmlnCmtleSA9IG***Ao=\n$ next\n",
            "what is left belongs to the text around it"
        );
    }

    #[test]
    fn a_line_is_held_back_only_when_it_ends_in_much_of_a_secret() {
        let mut masker = Masker::new(["password1"].into_iter());
        let mut out = Vec::new();
        // `cGFzc3dvcmQx` is the secret in base64.
        masker.push(b"cGF\n", &mut out);
        assert_eq!((out.as_slice(), masker.held()), (&b"cGF\n"[..], 0));
        masker.push(b"zc3dvcmQx", &mut out);
        assert_eq!(out, b"cGF\n***");
        masker.push(b"\ncGFzc\n", &mut out);
        assert_eq!((out.as_slice(), masker.held()), (&b"cGF\n***\n"[..], 6));
        masker.push(b"\n", &mut out);
        assert_eq!((out.as_slice(), masker.held()), (&b"cGF\n***\ncGFzc\n\n"[..], 0));
    }

    #[test]
    fn what_is_held_back_is_bounded_however_often_a_line_breaks() {
        let secret = "a".repeat(300) + "zz";
        let mut masker = Masker::new([secret.as_str()].into_iter());
        let mut out = Vec::new();
        let lines = |width: usize| ("YWFh".repeat(width / 4) + "\n").repeat(3000);
        for width in [4, 16, 20, 76] {
            masker.push(lines(width).as_bytes(), &mut out);
            assert!(masker.held() <= 450, "{} bytes at {width}", masker.held());
            masker.flush(&mut out);
        }
        assert_eq!(out.len(), [4, 16, 20, 76].iter().map(|w| (w + 1) * 3000).sum::<usize>());
    }

    #[test]
    fn short_values_are_refused_and_not_masked() {
        assert_eq!(refuse_reason("1234567"), Some(Refusal::TooShort(7)));
        assert_eq!(refuse_reason("********"), Some(Refusal::Monotone('*')));
        assert_eq!(refuse_reason("12345678"), None);
        assert_eq!(mask(&["1234567", ""], "1234567"), "1234567");
    }

    #[test]
    fn bytes_that_are_no_text_pass_unchanged() {
        let mut masker = Masker::new(["password1"].into_iter());
        let mut out = Vec::new();
        let input = [0xff, 0, b'p', 0xc3, b'\n'];
        masker.push(&input, &mut out);
        masker.flush(&mut out);
        assert_eq!(out, input);
    }
}
