//! The log of an attempt on its way to the journal: events become lines, lines are journaled, until
//! its limit or the disk ends it.

use std::io;

use pipeyard_api::runner::{StepEnd, StepReport};
use pipeyard_executor::{JobEvent, StepExit};
use pipeyard_mask::Masker;
use pipeyard_model::{Conclusion, Timestamp};

use crate::{framer::Framer, journal::Journal};

/// Lines are journaled when there are so many bytes of them, and at the end of every batch.
const BLOCK: usize = 256 * 1024;

/// Why nothing more that the job writes is kept.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It would have had more than so many bytes.
    Limit(u64),
    /// The disk refused.
    Disk(io::Error),
}

/// The log of one attempt.
#[derive(Debug)]
pub(crate) struct Log {
    framer: Framer,
    journal: Journal,
    limit: u64,
    lines: Vec<u8>,
    stopped: Option<Stopped>,
    /// A step has begun at some time.
    begun: bool,
    /// The step in work and when it began; its end is reported with both times.
    step: Option<(u16, Timestamp)>,
}

impl Log {
    /// A log of at most `limit` bytes. What Pipeyard itself has to say comes on top.
    pub(crate) fn new(masker: Masker, journal: Journal, limit: u64) -> Self {
        let framer = Framer::new(masker);
        Self { framer, journal, limit, lines: Vec::new(), stopped: None, begun: false, step: None }
    }

    /// Why it doesn't go on, if it doesn't.
    pub(crate) fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// Whether a step has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// A line of Pipeyard's own; journaled at once.
    pub(crate) fn note(&mut self, at: Timestamp, text: &str) {
        self.write();
        self.framer.note(at, text, &mut self.lines);
        // A disk that refused may have room for a few words; without them the run still has the
        // reason.
        let written = self.journal.append(&self.lines);
        self.lines.clear();
        if let Err(error) = written {
            self.stopped.get_or_insert(Stopped::Disk(error));
        }
    }

    /// Takes an event; its lines are journaled with the next [`Log::write`]. Answers the progress
    /// of steps that it brings.
    pub(crate) fn event(&mut self, event: JobEvent) -> Option<StepReport> {
        match event {
            JobEvent::Note { at, text } => {
                self.note(at, &text);
                None
            }
            JobEvent::Output { step, stream, at, bytes } => {
                if self.stopped.is_none() {
                    self.framer.push(step, stream, at, &bytes, &mut self.lines);
                }
                if self.lines.len() >= BLOCK {
                    self.write();
                }
                None
            }
            JobEvent::StepStarted { step, at } => {
                self.begun = true;
                self.step = Some((step, at));
                Some(StepReport { step, started_at: at, finished: None })
            }
            JobEvent::StepFinished { step, at, exit } => {
                self.framer.finish_step(step, &mut self.lines);
                let (conclusion, exit_code) = match exit {
                    StepExit::Code(0) => (Conclusion::Success, Some(0)),
                    StepExit::Code(code) => (Conclusion::Failure, Some(code)),
                    StepExit::Signal(_) => (Conclusion::Failure, None),
                    StepExit::TimedOut => (Conclusion::TimedOut, None),
                    StepExit::Cancelled => (Conclusion::Cancelled, None),
                };
                let end = StepEnd { at, conclusion, exit_code };
                // A later report replaces the earlier one, so it repeats the start.
                let started_at = match self.step.take() {
                    Some((known, start)) if known == step => start,
                    _ => at,
                };
                Some(StepReport { step, started_at, finished: Some(end) })
            }
        }
    }

    /// Journals the lines that there are, as far as the log may have them.
    pub(crate) fn write(&mut self) {
        let room = usize::try_from(self.limit.saturating_sub(self.journal.bytes()));
        let fits = match room {
            _ if self.stopped.is_some() => 0,
            Ok(room) if room < self.lines.len() => {
                self.stopped = Some(Stopped::Limit(self.limit));
                memchr::memrchr(b'\n', &self.lines[..room]).map_or(0, |at| at + 1)
            }
            _ => self.lines.len(),
        };
        if let Err(error) = self.journal.append(&self.lines[..fits]) {
            self.stopped = Some(Stopped::Disk(error));
        }
        self.lines.clear();
    }

    /// Journals what is unfinished; nothing more will come. Answers the log's length.
    pub(crate) fn end(&mut self) -> u64 {
        self.framer.finish(&mut self.lines);
        self.write();
        self.journal.complete()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pipeyard_model::log::Stream;

    use super::*;
    use crate::journal;

    fn output(text: &str) -> JobEvent {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        JobEvent::Output { step: 1, stream: Stream::Stdout, at: Timestamp(7), bytes }
    }

    fn log(folder: &std::path::Path, limit: u64) -> Log {
        let journal = Journal::create(folder).unwrap();
        Log::new(Masker::new(std::iter::empty()), journal, limit)
    }

    fn texts(folder: &std::path::Path) -> Vec<String> {
        let journal = std::fs::read_to_string(journal::path(folder)).unwrap();
        journal.lines().map(|line| line[pipeyard_model::log::HEAD..].to_owned()).collect()
    }

    #[test]
    fn a_log_ends_at_its_limit_with_a_whole_line_and_the_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 100);
        // Each of these lines takes 27 bytes.
        for n in 0..6 {
            log.event(output(&format!("row {n}\n")));
            log.write();
            let is_over = n >= 3;
            assert_eq!(matches!(log.stopped(), Some(Stopped::Limit(100))), is_over, "{n}");
        }
        log.event(output("unfinished"));
        log.note(Timestamp(8), "the limit is reached");
        let bytes = log.end();
        assert_eq!(texts(folder.path()), ["row 0", "row 1", "row 2", "the limit is reached"]);
        assert_eq!(bytes, std::fs::metadata(journal::path(folder.path())).unwrap().len());
    }

    #[test]
    fn one_piece_that_is_longer_than_the_limit_is_cut_at_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 1000);
        log.event(output(&"a row of text\n".repeat(100_000)));
        assert!(matches!(log.stopped(), Some(Stopped::Limit(1000))));
        let bytes = log.end();
        assert!((900..=1000).contains(&bytes), "{bytes}");
        assert!(texts(folder.path()).iter().all(|text| text == "a row of text"));
    }
}
