//! Reads one JUnit report, in the shapes that test runners really write. There is no standard: counts
//! in attributes are wrong or missing in many, so every `<testcase>` is counted by itself.
//!
//! The report was written by the job and isn't trusted: a DOCTYPE is passed over and no entity of
//! one is ever expanded, nesting is bounded, and the caller bounds the size. What precedes a mistake
//! counts. Pure: bytes in, cases out.

use pipeyard_api::test_report::Failing;
use quick_xml::{
    Reader, XmlVersion,
    escape::resolve_xml_entity,
    events::{BytesRef, BytesStart, Event},
};

/// Elements inside of each other.
const MAX_DEPTH: usize = 64;

/// One `<testcase>`. Texts are as the report has them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Case {
    /// The innermost suite with a name; empty if none has one.
    pub(crate) suite: String,
    pub(crate) name: String,
    pub(crate) class: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) duration_ms: u64,
    pub(crate) end: End,
}

/// How a test ended.
#[derive(Debug, Default, PartialEq)]
pub(crate) enum End {
    #[default]
    Passed,
    /// It failed first, and passed when it was tried again.
    Flaky,
    Skipped,
    Bad(Bad),
}

/// Why a test failed.
#[derive(Debug, PartialEq)]
pub(crate) struct Bad {
    pub(crate) how: Failing,
    pub(crate) message: String,
    pub(crate) details: String,
    pub(crate) output: String,
}

/// Where and why reading ended early.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// From 1.
    pub(crate) line: u32,
    pub(crate) why: String,
}

/// Gives every case of the report to `each`, in order, up to its end or its first mistake.
pub(crate) fn read(bytes: &[u8], each: impl FnMut(Case)) -> Result<(), Invalid> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Invalid { line: 1, why: "it is UTF-16; write it as UTF-8".into() });
    }
    // A byte that isn't UTF-8, from a test's output, is no reason to refuse the report.
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut xml = Reader::from_str(text);
    xml.config_mut().expand_empty_elements = true;
    let mut report = Report { each, open: Vec::new(), suites: Vec::new(), case: None };
    let mut rooted = false;
    loop {
        let before = xml.buffer_position();
        let at = |position: u64| line_of(text, position);
        let event = match xml.read_event() {
            Ok(event) => event,
            Err(error) => {
                return Err(Invalid { line: at(xml.error_position()), why: error.to_string() });
            }
        };
        let read = match event {
            Event::Start(start) => {
                if !rooted {
                    check_root(&start).map_err(|why| Invalid { line: at(before), why })?;
                    rooted = true;
                }
                report.start(&start)
            }
            Event::End(_) => {
                report.end();
                Ok(())
            }
            Event::Text(text) => {
                report.text(&text.xml10_content());
                Ok(())
            }
            Event::CData(data) => {
                report.text(&data.xml10_content());
                Ok(())
            }
            Event::GeneralRef(reference) => report.reference(&reference),
            Event::Eof => break,
            // The report's head, comments and a DOCTYPE say nothing about tests.
            Event::Empty(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::Comment(_)
            | Event::DocType(_) => Ok(()),
        };
        read.map_err(|why| Invalid { line: at(before), why })?;
    }
    let last = || line_of(text, text.len() as u64);
    if !rooted {
        return Err(Invalid { line: last(), why: "it is empty".into() });
    }
    if let Some(name) = report.open.last() {
        let why = format!("it is cut off: <{}> is never closed", name.word());
        return Err(Invalid { line: last(), why });
    }
    Ok(())
}

fn line_of(text: &str, position: u64) -> u32 {
    let end = usize::try_from(position).unwrap_or(text.len()).min(text.len());
    let before = text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count();
    u32::try_from(before + 1).unwrap_or(u32::MAX)
}

fn check_root(start: &BytesStart<'_>) -> Result<(), String> {
    let name = start.local_name();
    match name.as_ref() {
        "testsuites" | "testsuite" => Ok(()),
        other => Err(format!(
            "it is no JUnit report: it begins with <{other}>, not with <testsuites> or <testsuite>"
        )),
    }
}

/// An element that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Suite,
    Case,
    /// `<failure>` or `<error>`: its text is the details.
    Failure,
    /// `<system-out>` or `<system-err>` of a test.
    Output,
    Other,
}

impl Element {
    fn word(self) -> &'static str {
        match self {
            Self::Suite => "testsuite",
            Self::Case => "testcase",
            Self::Failure => "failure",
            Self::Output => "system-out",
            Self::Other => "an element",
        }
    }
}

/// A case that is being read.
#[derive(Default)]
struct Draft {
    case: Case,
    bad: Option<(Failing, String)>,
    details: String,
    output: String,
    flaky: bool,
    skipped: bool,
}

struct Report<F> {
    each: F,
    open: Vec<Element>,
    suites: Vec<String>,
    case: Option<Draft>,
}

impl<F: FnMut(Case)> Report<F> {
    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} elements lie inside of each other"));
        }
        let name = start.local_name();
        let element = match (name.as_ref(), self.open.last(), &mut self.case) {
            ("testsuites" | "testsuite", None | Some(Element::Suite), _) => {
                self.suites.push(attribute(start, "name")?.unwrap_or_default());
                Element::Suite
            }
            ("testcase", Some(Element::Suite), _) => {
                let suite = self.suites.iter().rev().find(|name| !name.trim().is_empty());
                let case = case(start, suite.cloned().unwrap_or_default())?;
                self.case = Some(Draft { case, ..Draft::default() });
                Element::Case
            }
            (word @ ("failure" | "error"), Some(Element::Case), Some(draft)) => {
                let how = if word == "error" { Failing::Errored } else { Failing::Failed };
                let message = match attribute(start, "message")? {
                    Some(message) if !message.trim().is_empty() => message,
                    _ => attribute(start, "type")?.unwrap_or_default(),
                };
                // A second failure of one test adds its text; the first one names it.
                draft.bad.get_or_insert((how, message));
                if !draft.details.is_empty() {
                    draft.details.push('\n');
                }
                Element::Failure
            }
            ("skipped", Some(Element::Case), Some(draft)) => {
                draft.skipped = true;
                Element::Other
            }
            ("flakyFailure" | "flakyError", Some(Element::Case), Some(draft)) => {
                draft.flaky = true;
                Element::Other
            }
            ("system-out" | "system-err", Some(Element::Case), Some(draft)) => {
                if !draft.output.is_empty() {
                    draft.output.push('\n');
                }
                Element::Output
            }
            _ => Element::Other,
        };
        self.open.push(element);
        Ok(())
    }

    /// End names were checked by the reader.
    fn end(&mut self) {
        match self.open.pop() {
            Some(Element::Suite) => {
                self.suites.pop();
            }
            Some(Element::Case) => {
                if let Some(draft) = self.case.take() {
                    (self.each)(draft.finish());
                }
            }
            Some(Element::Failure | Element::Output | Element::Other) | None => {}
        }
    }

    fn text(&mut self, text: &str) {
        let Some(draft) = &mut self.case else { return };
        match self.open.last() {
            Some(Element::Failure) => draft.details.push_str(text),
            Some(Element::Output) => draft.output.push_str(text),
            Some(Element::Suite | Element::Case | Element::Other) | None => {}
        }
    }

    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), String> {
        match reference.resolve_char_ref().map_err(|error| error.to_string())? {
            Some(letter) => self.text(letter.encode_utf8(&mut [0; 4])),
            None => {
                let known = resolve_xml_entity(reference.as_ref());
                self.text(known.ok_or_else(|| {
                    format!("&{}; is no entity that is read", reference.as_ref() as &str)
                })?);
            }
        }
        Ok(())
    }
}

impl Draft {
    fn finish(self) -> Case {
        let end = match self.bad {
            Some((how, message)) => {
                Bad { how, message, details: self.details, output: self.output }.into()
            }
            None if self.skipped => End::Skipped,
            None if self.flaky => End::Flaky,
            None => End::Passed,
        };
        Case { end, ..self.case }
    }
}

impl From<Bad> for End {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

fn case(start: &BytesStart<'_>, suite: String) -> Result<Case, String> {
    Ok(Case {
        suite,
        name: attribute(start, "name")?.unwrap_or_default(),
        class: attribute(start, "classname")?.filter(|class| !class.is_empty()),
        file: attribute(start, "file")?.filter(|file| !file.is_empty()),
        line: attribute(start, "line")?.and_then(|line| line.trim().parse().ok()),
        duration_ms: attribute(start, "time")?.map_or(0, |time| milliseconds(&time)),
        end: End::Passed,
    })
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let found = start.try_get_attribute(name).map_err(|error| error.to_string())?;
    let value = found.map(|found| found.normalized_value(XmlVersion::Implicit1_0));
    value.transpose().map(|value| value.map(Into::into)).map_err(|error| error.to_string())
}

/// Seconds as reports write them: `0.123`, `1,234.5`, `0,5` in some languages. 0 if it is no number.
fn milliseconds(text: &str) -> u64 {
    let text = text.trim();
    let plain = if text.contains('.') { text.replace(',', "") } else { text.replace(',', ".") };
    let seconds: f64 = plain.parse().unwrap_or(0.0);
    // A cast stops at the ends of the range and takes what is no number for 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let milliseconds = (seconds * 1000.0).round() as u64;
    milliseconds.min(u64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
