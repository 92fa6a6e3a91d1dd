//! Where the lines of a log are: blocks that begin at a line's start.
//!
//! The layout is made while the bytes arrive, or by reading the file once; both give the same. It
//! also checks what arrives: every line has a head, no line is longer than the format allows.

use std::collections::BTreeMap;

use pipeyard_model::log::{HEAD, Head, MAX_LINE};

/// A block ends at the first line border after so many lines or bytes.
const LINES: u64 = 256;
const BYTES: u64 = 256 * 1024;

/// The start of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Block {
    /// Number of its first line, from 1.
    pub(crate) line: u64,
    /// Offset of its first byte in the log.
    pub(crate) offset: u64,
    /// Offset of its first byte in the raw text, which has no heads.
    pub(crate) raw: u64,
    /// Where it begins in the file: the offset again, or that of its compressed frame.
    pub(crate) at: u64,
}

/// The blocks of a log, and its sums. Only whole lines count.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Layout {
    /// In order; the first begins at 0. Empty for an empty log.
    pub(crate) blocks: Vec<Block>,
    /// Whole lines.
    pub(crate) lines: u64,
    /// Bytes of them.
    pub(crate) bytes: u64,
    /// Bytes of their raw text.
    pub(crate) raw: u64,
}

impl Layout {
    /// Whether a layout that comes from a file can be one: blocks in order, within its sums.
    pub(crate) fn is_sound(&self) -> bool {
        let Some(first) = self.blocks.first() else { return self.lines == 0 && self.bytes == 0 };
        let last = self.blocks.last().unwrap_or(first);
        let in_order = |pair: &[Block]| {
            let (a, b) = (pair[0], pair[1]);
            a.line < b.line && a.offset < b.offset && a.raw <= b.raw && a.at < b.at
        };
        (first.line, first.offset, first.raw, first.at) == (1, 0, 0, 0)
            && self.blocks.windows(2).all(in_order)
            && last.line <= self.lines
            && last.offset < self.bytes
            && last.raw <= self.raw
            && self.raw <= self.bytes
    }

    /// The block that holds this line; `None` if there is no such line.
    pub(crate) fn block_of_line(&self, line: u64) -> Option<usize> {
        if line == 0 || line > self.lines {
            return None;
        }
        Some(self.blocks.partition_point(|block| block.line <= line) - 1)
    }

    /// The block that holds this byte of the raw text.
    pub(crate) fn block_of_raw(&self, raw: u64) -> Option<usize> {
        if raw >= self.raw {
            return None;
        }
        // Lines without text of their own (parts that go on) may share an offset: take the last.
        Some(self.blocks.partition_point(|block| block.raw <= raw) - 1)
    }

    /// The number of the last line of this block, plus one.
    pub(crate) fn end_line(&self, block: usize) -> u64 {
        self.blocks.get(block + 1).map_or(self.lines + 1, |next| next.line)
    }

    /// Offset of the byte after this block.
    pub(crate) fn end_offset(&self, block: usize) -> u64 {
        self.blocks.get(block + 1).map_or(self.bytes, |next| next.offset)
    }
}

/// The bytes aren't lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BadLine {
    /// Its number.
    pub line: u64,
    /// What is wrong.
    pub problem: &'static str,
}

/// Makes a layout from bytes in any pieces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scanner {
    pub(crate) layout: Layout,
    /// Bytes after the last whole line.
    pub(crate) partial: Vec<u8>,
    /// The first line of each step.
    pub(crate) first_lines: BTreeMap<u16, u64>,
}

impl Scanner {
    /// Takes the next bytes. After an error the scanner is as it was before the bad line.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), BadLine> {
        if !self.partial.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let (rest, next) = end.map_or((bytes, &[][..]), |end| bytes.split_at(end + 1));
            let mut line = std::mem::take(&mut self.partial);
            let known = line.len();
            line.extend_from_slice(rest);
            let result = if end.is_some() { self.line(&line) } else { self.check_partial(&line) };
            if let Err(error) = result {
                line.truncate(known);
                self.partial = line;
                return Err(error);
            }
            if end.is_none() {
                self.partial = line;
                return Ok(());
            }
            bytes = next;
        }
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end + 1);
            self.line(line)?;
            bytes = rest;
        }
        self.check_partial(bytes)?;
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes taken, with those of an unfinished line.
    pub(crate) fn length(&self) -> u64 {
        self.layout.bytes + self.partial.len() as u64
    }

    /// Nothing will follow: an unfinished line counts as a line. Its newline is missing in the file,
    /// which readers bear.
    pub(crate) fn close(&mut self) {
        if let Some((head, text)) = Head::parse(&self.partial) {
            let (bytes, raw) = (self.partial.len(), text.len());
            self.partial.clear();
            self.count(head, bytes, raw);
        }
    }

    /// One whole line with its newline.
    fn line(&mut self, line: &[u8]) -> Result<(), BadLine> {
        let text = line.len().saturating_sub(HEAD + 1);
        if text > MAX_LINE {
            return Err(self.bad("it is longer than a line may be"));
        }
        let Some((head, _)) = Head::parse(&line[..line.len() - 1]) else {
            return Err(self.bad("it has no head"));
        };
        self.count(head, line.len(), text + usize::from(!head.goes_on));
        Ok(())
    }

    /// Counts a line of so many bytes, `raw` of them text of a step.
    fn count(&mut self, head: Head, bytes: usize, raw: usize) {
        let layout = &mut self.layout;
        let full = layout.blocks.last().is_none_or(|block| {
            layout.lines + 1 - block.line >= LINES || layout.bytes - block.offset >= BYTES
        });
        if full {
            let (line, offset) = (layout.lines + 1, layout.bytes);
            layout.blocks.push(Block { line, offset, raw: layout.raw, at: offset });
        }
        layout.lines += 1;
        layout.bytes += bytes as u64;
        layout.raw += raw as u64;
        self.first_lines.entry(head.step).or_insert(layout.lines);
    }

    /// The beginning of a line may be anything that a line can begin with.
    fn check_partial(&self, partial: &[u8]) -> Result<(), BadLine> {
        if partial.len() > HEAD + MAX_LINE {
            return Err(self.bad("it is longer than a line may be"));
        }
        let digits = &partial[..partial.len().min(16)];
        if !digits.iter().all(u8::is_ascii_digit)
            || (partial.len() >= HEAD && Head::parse(partial).is_none())
        {
            return Err(self.bad("it has no head"));
        }
        Ok(())
    }

    fn bad(&self, problem: &'static str) -> BadLine {
        BadLine { line: self.layout.lines + 1, problem }
    }
}
