//! From a step's bytes to lines of the log: masked, cut at newlines, never longer than
//! [`MAX_LINE`], each with its head.
//!
//! Each step and stream has a masker and an unfinished line of its own, so that standard output and
//! standard error can't tear each other's lines.

use std::collections::HashMap;

use pipeyard_mask::Masker;
use pipeyard_model::{
    Timestamp,
    log::{HEAD, Head, MAX_LINE, Stream},
};

#[derive(Debug)]
struct Unfinished {
    masker: Masker,
    line: Vec<u8>,
    /// When its first byte came.
    began: Timestamp,
    /// When its last byte came.
    touched: Timestamp,
}

/// Makes log lines of pieces.
#[derive(Debug)]
pub(crate) struct Framer {
    masker: Masker,
    open: HashMap<(u16, Stream), Unfinished>,
    masked: Vec<u8>,
}

impl Framer {
    pub(crate) fn new(masker: Masker) -> Self {
        Self { masker, open: HashMap::new(), masked: Vec::new() }
    }

    /// Takes a piece of a stream; appends the lines that it finishes to `out`.
    pub(crate) fn push(
        &mut self,
        step: u16,
        stream: Stream,
        at: Timestamp,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) {
        let masker = &self.masker;
        let open = self.open.entry((step, stream)).or_insert_with(|| Unfinished {
            masker: masker.fresh(),
            line: Vec::new(),
            began: at,
            touched: at,
        });
        open.touched = at;
        self.masked.clear();
        open.masker.push(bytes, &mut self.masked);
        append(open, step, stream, at, &self.masked, out);
    }

    /// A line of Pipeyard's own; line breaks inside make several. Masked too: a message may quote
    /// what the user wrote.
    pub(crate) fn note(&mut self, at: Timestamp, text: &str, out: &mut Vec<u8>) {
        self.push(0, Stream::System, at, text.as_bytes(), out);
        self.push(0, Stream::System, at, b"\n", out);
        self.finish_stream(0, Stream::System, out);
    }

    /// Ends the unfinished lines of a step.
    pub(crate) fn finish_step(&mut self, step: u16, out: &mut Vec<u8>) {
        for stream in [Stream::Stdout, Stream::Stderr, Stream::System] {
            self.finish_stream(step, stream, out);
        }
    }

    /// Ends every unfinished line.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let mut keys: Vec<_> = self.open.keys().copied().collect();
        keys.sort_by_key(|(step, stream)| (*step, *stream as u8));
        for (step, stream) in keys {
            self.finish_stream(step, stream, out);
        }
    }

    fn finish_stream(&mut self, step: u16, stream: Stream, out: &mut Vec<u8>) {
        let Some(mut open) = self.open.remove(&(step, stream)) else { return };
        self.masked.clear();
        open.masker.flush(&mut self.masked);
        let at = open.touched;
        append(&mut open, step, stream, at, &self.masked, out);
        if !open.line.is_empty() {
            emit(&mut open, step, stream, false, out);
        }
    }
}

fn append(
    open: &mut Unfinished,
    step: u16,
    stream: Stream,
    at: Timestamp,
    mut bytes: &[u8],
    out: &mut Vec<u8>,
) {
    // Lines that begin and end here share their head.
    let mut head = Vec::with_capacity(HEAD);
    Head { at, step, stream, goes_on: false }.write(&mut head);
    while !bytes.is_empty() {
        if open.line.is_empty() {
            open.began = at;
        }
        let room = MAX_LINE - open.line.len();
        if let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(room + 1)]) {
            if open.line.is_empty() {
                out.extend_from_slice(&head);
                out.extend_from_slice(&bytes[..=end]);
            } else {
                open.line.extend_from_slice(&bytes[..end]);
                emit(open, step, stream, false, out);
            }
            bytes = &bytes[end + 1..];
        } else {
            let taken = bytes.len().min(room);
            open.line.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            // Full, and there is more: it goes on in the next line.
            if open.line.len() == MAX_LINE && !bytes.is_empty() {
                let rest = open.line.split_off(border(&open.line, bytes[0]));
                emit(open, step, stream, true, out);
                open.line.extend_from_slice(&rest);
            }
        }
    }
}

/// Where to split a full line so that no UTF-8 character is split: at its end, or up to 3 bytes
/// before.
fn border(line: &[u8], next: u8) -> usize {
    let continues = |byte: u8| byte & 0xC0 == 0x80;
    if !continues(next) {
        return line.len();
    }
    // Four continuations in a row are no UTF-8: then any place is as good.
    let back = line.iter().rev().take(4).position(|byte| !continues(*byte));
    back.map_or(line.len(), |back| line.len() - back - 1)
}

fn emit(open: &mut Unfinished, step: u16, stream: Stream, goes_on: bool, out: &mut Vec<u8>) {
    Head { at: open.began, step, stream, goes_on }.write(out);
    out.extend_from_slice(&open.line);
    out.push(b'\n');
    open.line.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8]) -> Vec<(u16, Stream, bool, Vec<u8>)> {
        bytes
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (head, text) = Head::parse(line).unwrap();
                (head.step, head.stream, head.goes_on, text.to_vec())
            })
            .collect()
    }

    fn framed(pieces: &[&[u8]], secrets: &[&str]) -> Vec<u8> {
        let mut framer = Framer::new(Masker::new(secrets.iter().copied()));
        let mut out = Vec::new();
        for piece in pieces {
            framer.push(1, Stream::Stdout, Timestamp(5), piece, &mut out);
        }
        framer.finish(&mut out);
        out
    }

    #[test]
    fn lines_are_the_same_wherever_the_pieces_are_cut() {
        let text = "하나 둘\nhunter2-hunter2 is masked\r\n\n\u{1b}[31mred\nlast".as_bytes();
        let whole = framed(&[text], &["hunter2-hunter2"]);
        let lines = texts(&whole);
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[1].3, b"*** is masked\r");
        assert_eq!(lines[2].3, b"");
        for cut in 0..text.len() {
            assert_eq!(
                framed(&[&text[..cut], &text[cut..]], &["hunter2-hunter2"]),
                whole,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_long_line_is_split_and_nothing_is_cut() {
        let long = vec![b'x'; MAX_LINE * 2 + 10];
        let lines = texts(&framed(&[&long[..100], &long[100..], b"\nnext\n"], &[]));
        assert_eq!(
            lines.iter().map(|l| (l.2, l.3.len())).collect::<Vec<_>>(),
            [(true, MAX_LINE), (true, MAX_LINE), (false, 10), (false, 4)]
        );
        let exact = vec![b'x'; MAX_LINE];
        let lines = texts(&framed(&[&exact, b"\n"], &[]));
        assert_eq!(lines.iter().map(|l| (l.2, l.3.len())).collect::<Vec<_>>(), [(false, MAX_LINE)]);
    }

    #[test]
    fn a_long_line_is_split_between_characters() {
        for shift in 0..3 {
            let text = format!("{}{}", "x".repeat(shift), "가".repeat(MAX_LINE));
            let lines = texts(&framed(&[text.as_bytes()], &[]));
            assert!(lines.iter().all(|line| std::str::from_utf8(&line.3).is_ok()), "{shift}");
            let joined: Vec<u8> = lines.into_iter().flat_map(|line| line.3).collect();
            assert_eq!(joined, text.as_bytes());
        }
        let noise = vec![0x80; 3 * MAX_LINE];
        let joined: usize = texts(&framed(&[&noise], &[])).iter().map(|line| line.3.len()).sum();
        assert_eq!(joined, noise.len());
    }

    #[test]
    fn the_streams_of_a_step_do_not_tear_each_other() {
        let mut framer = Framer::new(Masker::new(std::iter::empty()));
        let mut out = Vec::new();
        framer.push(1, Stream::Stdout, Timestamp(1), b"one ", &mut out);
        framer.push(1, Stream::Stderr, Timestamp(2), b"error\n", &mut out);
        framer.push(1, Stream::Stdout, Timestamp(3), b"line\n", &mut out);
        let lines = texts(&out);
        assert_eq!(lines[0], (1, Stream::Stderr, false, b"error".to_vec()));
        assert_eq!(lines[1], (1, Stream::Stdout, false, b"one line".to_vec()));
    }
}
