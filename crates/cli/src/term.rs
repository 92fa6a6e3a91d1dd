//! Standard output and standard error, the one place that writes to either.

use std::io::{IsTerminal as _, Write as _};

use crate::table::Screen;

/// Lines for a person, on standard error. They may quote strangers: commit titles, branches, files.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", safe_lines(text, colour_of_errors()));
}

/// Text of the result, on standard output. It may quote strangers.
pub(crate) fn print(text: &str) {
    put(safe_lines(text, colour()).as_bytes());
}

/// Bytes of the result, on standard output. A reader that has gone away (`| head`) ends the
/// process quietly.
pub(crate) fn put(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// What a table is drawn on. `COLUMNS` wins over what the terminal says; a width that can't be one
/// counts as unknown.
pub(crate) fn screen() -> Screen {
    if !stdout_is_terminal() {
        return Screen::default();
    }
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let width = said.or_else(|| {
        rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| usize::from(size.ws_col))
    });
    Screen { width: width.filter(|width| *width >= 20), colour: colour() }
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether to colour standard output.
pub(crate) fn colour() -> bool {
    stdout_is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

fn colour_of_errors() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// [`safe_for_terminal`] for text of several lines.
pub(crate) fn safe_lines(text: &str, colour: bool) -> String {
    let lines: Vec<_> = text.split('\n').map(|line| safe_for_terminal(line, colour)).collect();
    lines.join("\n")
}

/// Log text for a terminal: colours (SGR) stay, every other escape and control character goes, so
/// that a log can't move the cursor, set the title or write to the clipboard.
pub(crate) fn safe_for_terminal(text: &str, colour: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => {
                    let mut body = String::new();
                    let end = loop {
                        match chars.next() {
                            Some(c) if ('\u{40}'..='\u{7e}').contains(&c) => break Some(c),
                            Some(c) => body.push(c),
                            None => break None,
                        }
                    };
                    if colour
                        && end == Some('m')
                        && body.bytes().all(|b| b.is_ascii_digit() || matches!(b, b';' | b':'))
                    {
                        out.push_str("\u{1b}[");
                        out.push_str(&body);
                        out.push('m');
                    }
                }
                // OSC, DCS, APC, PM, SOS: up to BEL or ST.
                Some(']' | 'P' | '_' | '^' | 'X') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\t' => out.push('\t'),
            '\r' => {
                // What was before it is overwritten, as on a real terminal.
                if chars.peek().is_some() {
                    out.clear();
                }
            }
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_keeps_its_lines_and_nothing_else() {
        let text = "title \u{1b}]52;c;eA==\u{7}\u{1b}[2J\n  ^ here\u{9b}5m\n";
        assert_eq!(safe_lines(text, false), "title \n  ^ here5m\n");
    }

    #[test]
    fn only_colours_reach_the_terminal() {
        let text =
            "\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}\u{1b}]52;c;eA==\u{1b}\\\u{1b}[2Jx\u{7}";
        assert_eq!(safe_for_terminal(text, true), "\u{1b}[31mred\u{1b}[0m x");
        assert_eq!(safe_for_terminal(text, false), "red x");
        assert_eq!(safe_for_terminal("10 %\r100 %", true), "100 %");
        assert_eq!(safe_for_terminal("한글\tok\r", true), "한글\tok");
        assert_eq!(safe_for_terminal("\u{1b}", true), "");
        assert_eq!(safe_for_terminal("\u{1b}]never ends", true), "");
    }
}
