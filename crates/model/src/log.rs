//! The line format of a log: what a runner journals, ships and a server keeps.
//!
//! A log is a sequence of lines, each with a head of fixed width, so that a line can be found,
//! shown and linked without reading what is before it:
//!
//! ```text
//! 1772366400123456 001o cargo test --locked
//! |time, micros    |  |||the step's own bytes, masked, any encoding, no newline inside
//!                  |  ||space
//!                  |  |stream: o stdout, e stderr, s Pipeyard itself; upper case: goes on in the next line
//!                  |step from 001; 000 is the job as a whole
//! ```
//!
//! Offsets count bytes of this format. The number of a line, from 1, never changes.

use crate::Timestamp;

/// Bytes before a line's own text.
pub const HEAD: usize = 22;
/// A longer line is split; each part but the last says that it goes on.
pub const MAX_LINE: usize = 64 * 1024;

/// Why a log isn't what it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Nothing of it is there.
    #[error("none of its {recorded} bytes is there any more")]
    Missing {
        /// Bytes that it had.
        recorded: u64,
    },
    /// A part of it is gone.
    #[error("only {found} of its {recorded} bytes are there")]
    Short {
        /// Bytes that are there.
        found: u64,
        /// Bytes that it had.
        recorded: u64,
    },
    /// It was sealed as something else.
    #[error("it isn't what was sealed")]
    Changed,
}

/// Compares a log with what was recorded of it: the bytes that were acknowledged, and the digest
/// that it was sealed with, where there is one. A log may be longer than what is recorded: that is
/// told a moment later.
///
/// # Errors
/// What is wrong with it.
pub fn compare(recorded: (u64, Option<&str>), found: (u64, Option<&str>)) -> Result<(), Damage> {
    let (bytes, there) = (recorded.0, found.0);
    if there < bytes {
        return Err(match there {
            0 => Damage::Missing { recorded: bytes },
            _ => Damage::Short { found: there, recorded: bytes },
        });
    }
    match (recorded.1, found.1) {
        (Some(sealed), Some(now)) if sealed != now => Err(Damage::Changed),
        _ => Ok(()),
    }
}

/// Who wrote a line.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The step's standard output.
    Stdout,
    /// The step's standard error.
    Stderr,
    /// Pipeyard: image pulls, service waits, the reason of an end.
    System,
}

/// The head of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// When the line began.
    pub at: Timestamp,
    /// The step from 1, or 0 for the job as a whole.
    pub step: u16,
    /// Who wrote it.
    pub stream: Stream,
    /// The line was longer than [`MAX_LINE`] and goes on in the next one.
    pub goes_on: bool,
}

impl Head {
    /// Appends this head to `out`. Times before 1970 and steps over 999 are clamped.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut digits = [b'0'; HEAD];
        let mut rest = self.at.0.max(0).unsigned_abs();
        for digit in digits[..16].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        let step = self.step.min(999);
        digits[16] = b' ';
        for (i, part) in [step / 100, step / 10 % 10, step % 10].into_iter().enumerate() {
            digits[17 + i] = b'0' + u8::try_from(part).unwrap_or(0);
        }
        let letter = match self.stream {
            Stream::Stdout => b'o',
            Stream::Stderr => b'e',
            Stream::System => b's',
        };
        digits[20] = if self.goes_on { letter.to_ascii_uppercase() } else { letter };
        digits[21] = b' ';
        out.extend_from_slice(&digits);
    }

    /// Splits a line (without its newline) into head and text; `None` if it has no such head.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<(Self, &[u8])> {
        let (head, text) = line.split_at_checked(HEAD)?;
        let number = |bytes: &[u8]| {
            bytes.iter().try_fold(0_i64, |sum, b| {
                b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0'))
            })
        };
        let stream = match head[20].to_ascii_lowercase() {
            b'o' => Stream::Stdout,
            b'e' => Stream::Stderr,
            b's' => Stream::System,
            _ => return None,
        };
        if head[16] != b' ' || head[21] != b' ' {
            return None;
        }
        let head = Self {
            at: Timestamp(number(&head[..16])?),
            step: u16::try_from(number(&head[17..20])?).ok()?,
            stream,
            goes_on: head[20].is_ascii_uppercase(),
        };
        Some((head, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_what_was_recorded_or_is_named_as_damaged() {
        let good = (100, Some("a"));
        assert_eq!(compare(good, (100, Some("a"))), Ok(()));
        assert_eq!(compare((100, None), (100, Some("a"))), Ok(()), "sealed by an earlier version");
        assert_eq!(compare((100, None), (120, None)), Ok(()), "it grows");
        assert_eq!(compare((0, None), (0, None)), Ok(()));
        assert_eq!(compare(good, (0, None)), Err(Damage::Missing { recorded: 100 }));
        assert_eq!(compare(good, (99, Some("a"))), Err(Damage::Short { found: 99, recorded: 100 }));
        assert_eq!(compare(good, (100, Some("b"))), Err(Damage::Changed));
    }

    #[test]
    fn a_head_reads_back_as_written() {
        let head = Head {
            at: Timestamp(1_772_366_400_123_456),
            step: 12,
            stream: Stream::Stderr,
            goes_on: true,
        };
        let mut line = Vec::new();
        head.write(&mut line);
        assert_eq!(line, b"1772366400123456 012E ");
        line.extend_from_slice(b"\xffbytes");
        assert_eq!(Head::parse(&line), Some((head, &b"\xffbytes"[..])));
    }

    #[test]
    fn a_line_without_a_head_is_refused() {
        for bad in ["", "short", "1772366400123456 012x text", "17723664001234x6 012o text"] {
            assert_eq!(Head::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
