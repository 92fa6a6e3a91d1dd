//! What is wrong with a file, where, and what to do; and the list that collects it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Code, yaml::Span};

/// More findings than this are counted, not listed.
const MAX_DIAGNOSTICS: usize = 200;

/// Whether a finding stops the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// There is no plan.
    Error,
    /// The plan stands, but it may not do what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One finding, with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable, and explained by [`crate::explain`].
    pub code: Code,
    /// Whether it stops the pipeline.
    pub severity: Severity,
    /// The file, as [`crate::Source::path`] names it.
    pub path: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// First column after the place, on the same line.
    pub end_column: u32,
    /// First byte of the place.
    pub start: usize,
    /// First byte after the place.
    pub end: usize,
    /// What is wrong.
    pub message: String,
    /// How to put it right.
    pub help: Option<String>,
    /// What could stand here instead, when it is one word.
    pub suggestion: Option<String>,
    /// Everything that may stand here, when that is a short list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
}

impl Diagnostic {
    pub(crate) fn help(&mut self, text: impl Into<String>) -> &mut Self {
        self.help = Some(text.into());
        self
    }

    pub(crate) fn allowed<T: Into<String>>(
        &mut self,
        words: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        self.allowed = words.into_iter().map(Into::into).collect();
        self
    }

    /// Looks for the word that was probably meant among `words`.
    pub(crate) fn nearest<'w>(
        &mut self,
        to: &str,
        words: impl IntoIterator<Item = &'w str>,
    ) -> &mut Self {
        self.suggestion = nearest(to, words).map(str::to_owned);
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, column, severity, code, message, .. } = self;
        write!(f, "{path}:{line}:{column}: {severity}[{code}]: {message}")
    }
}

/// The word that is spelt most like `to`, if one is near enough to be meant.
pub(crate) fn nearest<'w>(to: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if to.len() > 64 {
        return None;
    }
    let folded = to.to_lowercase().replace('-', "_");
    words
        .into_iter()
        .map(|word| {
            let other = word.to_lowercase().replace('-', "_");
            (strsim::normalized_damerau_levenshtein(&folded, &other), word)
        })
        .filter(|(score, _)| *score >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// User text inside a message: between backticks, on one line, cut, without control characters.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == 60 {
            out.push('…');
            break;
        }
        if c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

/// Collects findings for one file.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    path: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
    list: Vec<Diagnostic>,
    /// Takes what comes after the list is full.
    spare: Option<Diagnostic>,
    beyond: usize,
}

impl<'a> Report<'a> {
    pub(crate) fn new(path: &'a str, text: &'a str) -> Self {
        Self { path, text, line_starts: Vec::new(), list: Vec::new(), spare: None, beyond: 0 }
    }

    pub(crate) fn error(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Error, code, span, message.into())
    }

    pub(crate) fn warning(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Warning, code, span, message.into())
    }

    fn add(
        &mut self,
        severity: Severity,
        code: Code,
        span: Span,
        message: String,
    ) -> &mut Diagnostic {
        let (line, column, end_column) = self.place(span);
        let diagnostic = Diagnostic {
            code,
            severity,
            path: self.path.to_owned(),
            line,
            column,
            end_column,
            start: span.start,
            end: span.end,
            message,
            help: None,
            suggestion: None,
            allowed: Vec::new(),
        };
        if self.list.len() == MAX_DIAGNOSTICS {
            self.beyond += 1;
            return self.spare.insert(diagnostic);
        }
        let at = self.list.len();
        self.list.push(diagnostic);
        &mut self.list[at]
    }

    /// The source text of a span.
    pub(crate) fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start..span.end).unwrap_or("")
    }

    /// The line of a byte, from 1.
    pub(crate) fn line_of(&mut self, byte: usize) -> u32 {
        if self.line_starts.is_empty() {
            self.line_starts.push(0);
            self.line_starts.extend(self.text.match_indices('\n').map(|(at, _)| at + 1));
        }
        let line = self.line_starts.partition_point(|start| *start <= byte).max(1);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    fn place(&mut self, span: Span) -> (u32, u32, u32) {
        let start = floor(self.text, span.start);
        let line = self.line_of(start);
        let line_start = self.line_starts[line as usize - 1];
        let rest = self.text[line_start..].lines().next().unwrap_or("");
        let column_of = |byte: usize| {
            let within = floor(rest, byte.saturating_sub(line_start));
            u32::try_from(rest[..within].chars().count() + 1).unwrap_or(u32::MAX)
        };
        let column = column_of(start);
        (line, column, column_of(span.end).max(column + 1))
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// Everything, in the order of the file.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|d| (d.start, d.code));
        if self.beyond > 0 {
            let mut list = std::mem::take(&mut self.list);
            let end = self.text.trim_end().len();
            let message = format!("{} further problems are not shown", self.beyond);
            self.error(Code::P015, Span { start: end, end }, message)
                .help("put the ones above right first");
            list.append(&mut self.list);
            return list;
        }
        self.list
    }
}

/// The nearest character boundary at or before `byte`.
fn floor(text: &str, byte: usize) -> usize {
    let mut at = byte.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
