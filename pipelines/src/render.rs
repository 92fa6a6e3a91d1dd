//! A diagnostic as people read it: the place, the line, a caret, what may stand there.

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

use crate::{Diagnostic, Severity};

/// The longest source line that is shown; a longer one is named by its place alone.
const MAX_SHOWN: usize = 4_000;

/// Renders `diagnostic` over the text of its file, on several lines, ending in a line break.
///
/// With `color`, it has ANSI colours. Control characters of the source are never written as such.
#[must_use]
pub fn render(diagnostic: &Diagnostic, source: &str, color: bool) -> String {
    let Diagnostic { code, path, line, column, message, .. } = diagnostic;
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group =
        level.primary_title(message.as_str()).id(code.as_str()).elements(Vec::<Element<'_>>::new());
    let shown =
        source.lines().nth((*line as usize).saturating_sub(1)).filter(|l| l.len() <= MAX_SHOWN);
    if let Some(text) = shown {
        let byte = |column: u32| {
            text.char_indices().nth(column as usize - 1).map_or(text.len(), |(at, _)| at)
        };
        let span = byte(*column)..byte(diagnostic.end_column.max(column + 1));
        let snippet = Snippet::source(text)
            .line_start(*line as usize)
            .path(path.as_str())
            .annotation(AnnotationKind::Primary.span(span));
        group = group.element(snippet);
    } else {
        group = group.element(
            Origin::path(path.as_str()).line(*line as usize).char_column(*column as usize),
        );
    }
    if let Some(word) = &diagnostic.suggestion {
        group = group.element(Level::HELP.message(format!("did you mean `{word}`?")));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    if !diagnostic.allowed.is_empty() {
        group = group.element(
            Level::NOTE.message(format!("allowed here: {}", diagnostic.allowed.join(", "))),
        );
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.render(&[group]);
    text.push('\n');
    text
}
