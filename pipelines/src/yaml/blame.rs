//! Text that isn't YAML: where the mistake is and what to do, which is seldom where the parser stops.

use granit_parser::ErrorKind;

use crate::diagnostic::quote;

/// Where the mistake is, as far as it can be told from where the parser noticed it; what it is; and
/// what to do. A missing colon, bracket or quote is noticed a line or more too late.
pub(super) fn blame(
    text: &str,
    at: usize,
    kind: &ErrorKind,
) -> (usize, String, Option<&'static str>) {
    let said = (words(kind), help(kind));
    let line_start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    let Some(before) = line_before(text, line_start) else { return (at, said.0, said.1) };
    let above = text[before..].lines().next().unwrap_or("");
    let indent = |line: &str| line.len() - line.trim_start().len();
    match kind {
        // The first colon of its line: that line is fine, and the one above is not the parent it needs.
        ErrorKind::MappingValueNotAllowed
            if line.find(':') == Some(at - line_start) && indent(above) <= indent(line) =>
        {
            let start = before + indent(above);
            match above.find(": ") {
                None => (start, "a `:` is missing after this key".into(), None),
                Some(colon) => {
                    let value = before + colon + 2;
                    let message =
                        "this has a value already, and the next line gives it more".to_owned();
                    (value, message, Some("remove the value, or indent the next line less"))
                }
            }
        }
        ErrorKind::SimpleKeyExpected => {
            let noticed = if at > line_start + indent(line) { line_start } else { before };
            let shown = text[noticed..].lines().next().unwrap_or("");
            let start = noticed + indent(shown);
            let mut above = shown;
            if noticed == line_start {
                above = text[before..].lines().next().unwrap_or("");
            }
            if above.trim_end().ends_with(['|', '>']) {
                let message = "this text is not below the `|` or `>` that announces it".to_owned();
                let below = text[noticed..].find('\n').map_or(start, |end| noticed + end + 1);
                let next = text[below..].lines().next().unwrap_or("");
                let first = if noticed == line_start { start } else { below + indent(next) };
                return (first, message, Some("indent every line of it further than its key"));
            }
            (start, said.0, said.1)
        }
        ErrorKind::InvalidColonPlacement
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEof
        | ErrorKind::InvalidIndentation => {
            for pair in ["[]", "{}"] {
                let (open, close) = pair.split_at(1);
                if above.matches(open).count() > above.matches(close).count() {
                    let start = before + above.rfind(open).unwrap_or(0);
                    return (start, format!("this `{open}` is never closed"), None);
                }
            }
            (at, said.0, said.1)
        }
        ErrorKind::InvalidQuotedScalarIndent | ErrorKind::UnclosedQuotedScalar => {
            for quote in ['"', '\''] {
                if above.matches(quote).count() % 2 == 1 {
                    let start = before + above.rfind(quote).unwrap_or(0);
                    return (start, "this quote is never closed".into(), None);
                }
            }
            (at, said.0, said.1)
        }
        _ => (at, said.0, said.1),
    }
}

/// The start of the nearest line above that is neither empty nor a comment.
fn line_before(text: &str, line_start: usize) -> Option<usize> {
    let mut end = line_start;
    while end > 0 {
        let start = text[..end - 1].rfind('\n').map_or(0, |at| at + 1);
        let line = text[start..end].trim();
        if !line.is_empty() && !line.starts_with('#') {
            return Some(start);
        }
        end = start;
    }
    None
}

/// The parser's finding in plain words.
fn words(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::SimpleKeyExpected => "a line without `:` stands where a key is expected".into(),
        ErrorKind::MappingValueNotAllowed => "a `:` stands where no key can be".into(),
        ErrorKind::UnclosedFlowCollection { open } => format!("a `{open}` is never closed"),
        ErrorKind::UnclosedQuotedScalar => "a quote is never closed".into(),
        ErrorKind::InvalidIndentation | ErrorKind::ExpectedBlockMappingKey => {
            "the indentation fits no level above".into()
        }
        ErrorKind::UnexpectedCharacter { character } => {
            format!("{} can't start a value", quote(&character.to_string()))
        }
        other => other.to_string(),
    }
}

fn help(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::SimpleKeyExpected => "add a `:` after the key, or quote text of several lines",
        ErrorKind::MappingValueNotAllowed => {
            "quote text that holds `: `, and check the indentation"
        }
        ErrorKind::InvalidIndentation | ErrorKind::ExpectedBlockMappingKey => {
            "start the line below the key that it belongs beside"
        }
        ErrorKind::UnexpectedCharacter { .. } => "put the value in quotes",
        _ => return None,
    })
}
