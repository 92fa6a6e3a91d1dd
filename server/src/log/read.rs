//! Reading a log: lines by number, the raw text by byte, a search. All by blocks.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pipeyard_api::views::LogLine;
use pipeyard_model::log::{HEAD, Head};

use super::{blocking, layout::Layout};

/// A search is given up after this.
const SEARCH: Duration = Duration::from_secs(10);
/// A frame, packed or not, is never larger.
const FRAME: u64 = 64 << 20;
/// Lines that a search names; it counts all.
const NAMED: usize = 10_000;

/// Where a text occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The first lines that hold it.
    pub lines: Vec<u64>,
    /// How many lines hold it.
    pub total: u64,
}

#[derive(Debug)]
enum Form {
    Empty,
    Plain(File),
    /// With the sums of its blocks, if it has them.
    Sealed(File, Vec<u32>),
}

/// A log as it was when the reader was made; cheap to clone.
#[derive(Debug, Clone)]
pub struct LogReader {
    form: Arc<Form>,
    /// Whole lines only.
    layout: Arc<Layout>,
    /// With an unfinished last line, for a log that is over.
    closed: Arc<Layout>,
    length: u64,
    /// What it was sealed as.
    digest: Option<Arc<str>>,
}

impl LogReader {
    pub(crate) fn empty() -> Self {
        let layout = Arc::<Layout>::default();
        Self {
            form: Arc::new(Form::Empty),
            closed: Arc::clone(&layout),
            layout,
            length: 0,
            digest: None,
        }
    }

    pub(crate) fn plain(file: File, layout: Layout, closed: Layout, length: u64) -> Self {
        Self {
            form: Arc::new(Form::Plain(file)),
            layout: Arc::new(layout),
            closed: Arc::new(closed),
            length,
            digest: None,
        }
    }

    pub(crate) fn sealed(file: File, layout: Layout, sums: Vec<u32>, digest: &str) -> Self {
        let length = layout.bytes;
        let layout = Arc::new(layout);
        Self {
            form: Arc::new(Form::Sealed(file, sums)),
            closed: Arc::clone(&layout),
            layout,
            length,
            digest: Some(digest.into()),
        }
    }

    /// What it was sealed as; `None` for one that isn't.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The same log, known to be over: an unfinished last line counts.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.layout = Arc::clone(&self.closed);
        self
    }

    /// Bytes of the log.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.length
    }

    /// Lines of the log.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.layout.lines
    }

    /// Bytes of the raw text: what the steps wrote, without heads, with split lines joined.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.layout.raw
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn with_unfinished_line(&self) -> &Arc<Layout> {
        &self.closed
    }

    /// Lines from number `from`, at most `count`; the one with which they reach `bytes` is the last.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn page(&self, from: u64, count: u64, bytes: usize) -> io::Result<Vec<LogLine>> {
        let reader = self.clone();
        blocking(move || reader.page_now(from.max(1), count, bytes)).await
    }

    fn page_now(&self, from: u64, count: u64, most: usize) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        let end = from.saturating_add(count).min(self.layout.lines + 1);
        let Some(first) = self.layout.block_of_line(from) else { return Ok(lines) };
        for index in first..self.layout.blocks.len() {
            let start = self.layout.blocks[index].line;
            if start >= end {
                break;
            }
            let block = self.block(index)?;
            for (number, (line, _)) in (start..self.layout.end_line(index)).zip(split(&block)) {
                if number < from {
                    continue;
                }
                if number >= end || bytes >= most {
                    return Ok(lines);
                }
                bytes += line.len();
                lines.push(view(number, line)?);
            }
        }
        Ok(lines)
    }

    /// One piece of the raw text that begins at `range.start` and ends in `range`; empty at its end.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn raw(&self, range: Range<u64>) -> io::Result<Bytes> {
        let reader = self.clone();
        blocking(move || {
            let Some(index) = reader.layout.block_of_raw(range.start) else {
                return Ok(Bytes::new());
            };
            if range.is_empty() {
                return Ok(Bytes::new());
            }
            let text = raw_of(&reader.block(index)?);
            let start = reader.layout.blocks[index].raw;
            let from = usize::try_from(range.start - start).map_err(io::Error::other)?;
            let to = text.len().min(usize::try_from(range.end - start).unwrap_or(usize::MAX));
            Ok(Bytes::from(text).slice(from.min(to)..to))
        })
        .await
    }

    /// The lines that hold `text`: every line is looked at, colour codes aside. Upper and lower case
    /// are told apart only if `text` has an upper-case letter.
    ///
    /// # Errors
    /// When the log can't be read, or `TimedOut`.
    pub async fn search(self, text: String) -> io::Result<Found> {
        blocking(move || self.search_now(&text)).await
    }

    fn search_now(&self, text: &str) -> io::Result<Found> {
        let mut found = Found::default();
        if text.is_empty() {
            return Ok(found);
        }
        let end = Instant::now() + SEARCH;
        let exact = text.chars().any(|c| c.is_ascii_uppercase());
        for index in 0..self.layout.blocks.len() {
            if Instant::now() > end {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            let block = String::from_utf8_lossy(&self.block(index)?).into_owned();
            let block = if exact { block } else { block.to_ascii_lowercase() };
            // Most blocks hold nothing; codes inside of a word are the exception that costs.
            if !block.contains('\u{1b}') && !block.contains(text) {
                continue;
            }
            for (number, line) in (self.layout.blocks[index].line..).zip(block.lines_like_log()) {
                let line = line.get(HEAD..).unwrap_or_default();
                let hit = if line.contains('\u{1b}') {
                    without_codes(line).contains(text)
                } else {
                    line.contains(text)
                };
                if hit {
                    found.total += 1;
                    if found.lines.len() < NAMED {
                        found.lines.push(number);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The bytes of a block, heads and all.
    pub(crate) fn block(&self, index: usize) -> io::Result<Vec<u8>> {
        let block = self.layout.blocks[index];
        let size = usize::try_from(self.layout.end_offset(index) - block.offset)
            .map_err(io::Error::other)?;
        match &*self.form {
            Form::Empty => Ok(vec![]),
            Form::Plain(file) => {
                let mut bytes = vec![0; size];
                file.read_exact_at(&mut bytes, block.at)?;
                Ok(bytes)
            }
            Form::Sealed(file, sums) => {
                let end = self.layout.blocks.get(index + 1).map(|next| next.at);
                let end = match end {
                    Some(end) => end,
                    None => file.metadata()?.len(),
                };
                let length = end.checked_sub(block.at).filter(|length| *length <= FRAME);
                let length = length.filter(|_| size as u64 <= FRAME);
                let length = length.ok_or_else(|| damaged("a frame has no place in its file"))?;
                let mut frame = vec![0; usize::try_from(length).map_err(io::Error::other)?];
                file.read_exact_at(&mut frame, block.at).map_err(damaged)?;
                // The last frame is followed by the seek table, which decompresses to nothing.
                let bytes = zstd::bulk::decompress(&frame, size).map_err(damaged)?;
                if bytes.len() != size {
                    return Err(damaged("a frame is shorter than it was"));
                }
                if sums.get(index).is_some_and(|sum| *sum != crc32fast::hash(&bytes)) {
                    return Err(damaged("a frame isn't what was sealed"));
                }
                Ok(bytes)
            }
        }
    }
}

/// A sealed log that can't be read as it was written: see [`is_damaged`].
pub(super) fn damaged(problem: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}

/// Whether a log couldn't be read because its file isn't what was written.
#[must_use]
pub fn is_damaged(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

trait LogLines {
    /// Lines by `\n` alone: a carriage return belongs to the text.
    fn lines_like_log(&self) -> std::str::Split<'_, char>;
}

impl LogLines for String {
    fn lines_like_log(&self) -> std::str::Split<'_, char> {
        self.strip_suffix('\n').unwrap_or(self).split('\n')
    }
}

/// Lines without their ends, and whether they have one: the last line of a log may have none.
fn split(mut block: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    std::iter::from_fn(move || {
        let (line, rest, whole) = match memchr::memchr(b'\n', block) {
            Some(end) => (&block[..end], &block[end + 1..], true),
            None if block.is_empty() => return None,
            None => (block, &[][..], false),
        };
        block = rest;
        Some((line, whole))
    })
}

fn raw_of(block: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(block.len());
    for (line, whole) in split(block) {
        if let Some((head, text)) = Head::parse(line) {
            raw.extend_from_slice(text);
            if whole && !head.goes_on {
                raw.push(b'\n');
            }
        }
    }
    raw
}

fn view(number: u64, line: &[u8]) -> io::Result<LogLine> {
    let (head, text) =
        Head::parse(line).ok_or_else(|| damaged(format_args!("line {number} has no head")))?;
    Ok(LogLine {
        n: number,
        at: head.at,
        step: head.step,
        stream: head.stream,
        text: String::from_utf8_lossy(text).into_owned(),
        goes_on: head.goes_on,
    })
}

/// A line without its terminal codes, `ESC [ ... letter`.
fn without_codes(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        if rest.as_str().starts_with('[') {
            rest.next();
            // Parameters and intermediates, up to the final letter.
            for c in rest.by_ref() {
                if ('\u{40}'..='\u{7e}').contains(&c) {
                    break;
                }
            }
        }
    }
    plain
}
