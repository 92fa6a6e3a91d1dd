//! Rows of cells as text: columns as wide as what is in them, and on a terminal no wider than that.
//! A cell that has to give way is cut at its end; nothing is cut where nobody watches.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Between two columns.
const GAP: usize = 2;
/// A column gives way down to this width.
const NARROWEST: usize = 10;
/// Stands for what was cut.
const CUT: char = '…';

/// How a word of a state is shown on a terminal with colours. The word says it all; the colour
/// repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Bad,
    Busy,
    Held,
    Faint,
}

impl Tone {
    /// The tone of a state's word, if it has one.
    pub(crate) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "success" | "succeeded" | "ok" | "online" | "restored" | "holding" | "ready" => {
                Self::Good
            }
            "failure" | "failed" | "error" | "timed_out" | "rolled_back" | "rollback_failed"
            | "broken" | "open" => Self::Bad,
            "running" | "starting" | "preparing" | "working" | "shifting" | "completing"
            | "in_progress" => Self::Busy,
            "held" | "awaiting_approval" | "rolling_back" | "warning" | "too_little_data" => {
                Self::Held
            }
            "queued" | "skipped" | "cancelled" | "superseded" | "expired" | "rejected"
            | "offline" | "pending" | "unknown" => Self::Faint,
            _ => return None,
        })
    }

    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Busy => "36",
            Self::Held => "35",
            Self::Faint => "2",
        }
    }
}

/// A word of a state, padded to `width`.
pub(crate) fn in_tone(word: &str, width: usize, colour: bool) -> String {
    let pad = " ".repeat(width.saturating_sub(word.width()));
    match Tone::of(word).filter(|_| colour) {
        Some(tone) => format!("\u{1b}[{}m{word}\u{1b}[0m{pad}", tone.code()),
        None => format!("{word}{pad}"),
    }
}

/// What the table is drawn on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Screen {
    /// Columns of the terminal; `None` where nobody watches.
    pub(crate) width: Option<usize>,
    /// Whether words of states are coloured.
    pub(crate) colour: bool,
}

/// A table without a frame; its heads alone if there is no row.
pub(crate) fn render(heads: &[String], rows: &[Vec<String>], screen: Screen) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0).max(heads.len());
    let mut widths = vec![0; columns];
    for row in std::iter::once(heads).chain(rows.iter().map(Vec::as_slice)) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    if let Some(screen) = screen.width {
        fit(&mut widths, screen);
    }
    let mut text = String::new();
    if !heads.is_empty() {
        line(&mut text, heads, &widths, |_, _| None);
    }
    for row in rows {
        line(&mut text, row, &widths, |column, cell| {
            let states = heads.get(column).is_some_and(|head| head == "STATE" || head == "RESULT");
            Tone::of(cell).filter(|_| screen.colour && states)
        });
    }
    text
}

/// Takes from the widest columns until everything has room, or nothing more can be taken.
fn fit(widths: &mut [usize], screen: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    loop {
        let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(screen);
        let Some(widest) = widths.iter().copied().max().filter(|widest| *widest > NARROWEST) else {
            return;
        };
        if over == 0 {
            return;
        }
        // Down to the next widest, so that long columns share what is missing.
        let next = widths.iter().copied().filter(|width| *width < widest).max().unwrap_or(0);
        let same = widths.iter().filter(|width| **width == widest).count();
        let less = over.div_ceil(same).min(widest - next).min(widest - NARROWEST).max(1);
        for width in widths.iter_mut().filter(|width| **width == widest) {
            *width -= less;
        }
    }
}

fn line(
    text: &mut String,
    cells: &[String],
    widths: &[usize],
    tone: impl Fn(usize, &str) -> Option<Tone>,
) {
    let mut pending = 0;
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let shown = cut(cell, *width);
        text.extend(std::iter::repeat_n(' ', pending));
        let used = shown.width();
        match tone(column, cell) {
            Some(tone) => {
                text.push_str(&format!("\u{1b}[{}m{shown}\u{1b}[0m", tone.code()));
            }
            None => text.push_str(&shown),
        }
        pending = width.saturating_sub(used) + GAP;
    }
    // What pads the last cells is left out.
    let end = text.trim_end_matches(' ').len();
    text.truncate(end);
    text.push('\n');
}

fn cut(cell: &str, width: usize) -> String {
    if cell.width() <= width {
        return cell.to_owned();
    }
    let mut shown = String::new();
    let mut used = 0;
    for letter in cell.chars() {
        let wide = letter.width().unwrap_or(0);
        if used + wide + 1 > width {
            break;
        }
        used += wide;
        shown.push(letter);
    }
    shown.push(CUT);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(heads: &[&str], rows: &[&[&str]], screen: Screen) -> String {
        let own = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let rows: Vec<_> = rows.iter().map(|row| own(row)).collect();
        render(&own(heads), &rows, screen)
    }

    const ROWS: &[&[&str]] = &[
        &["81", "failure", "Round prices half to even in the cart total", ""],
        &["7", "success", "한글 제목입니다", "needs web"],
    ];

    #[test]
    fn nothing_is_cut_where_nobody_watches() {
        assert_eq!(
            table(&["RUN", "STATE", "TITLE", "WHY"], ROWS, Screen::default()),
            "RUN  STATE    TITLE                                        WHY\n\
             81   failure  Round prices half to even in the cart total\n\
             7    success  한글 제목입니다                              needs web\n"
        );
    }

    #[test]
    fn long_cells_give_way_on_a_terminal() {
        let screen = Screen { width: Some(42), colour: false };
        let text = table(&["RUN", "STATE", "TITLE", "WHY"], ROWS, screen);
        assert_eq!(
            text,
            "RUN  STATE    TITLE              WHY\n\
             81   failure  Round prices hal…\n\
             7    success  한글 제목입니다    needs web\n"
        );
        assert!(text.lines().all(|line| line.width() <= 42), "{text}");
        // There is a limit to that: a terminal of ten columns wraps by itself.
        assert!(!table(&["RUN"], ROWS, Screen { width: Some(10), colour: false }).is_empty());
    }

    #[test]
    fn a_wide_letter_is_never_cut_in_half() {
        assert_eq!(cut("한글이다", 8), "한글이다");
        assert_eq!(cut("한글이다", 7), "한글이…");
        assert_eq!(cut("한글이다", 6), "한글…");
    }

    #[test]
    fn states_have_colours_and_titles_do_not() {
        let screen = Screen { width: Some(80), colour: true };
        let text = table(&["STATE", "TITLE"], &[&["failure", "failure"]], screen);
        assert_eq!(text, "STATE    TITLE\n\u{1b}[31mfailure\u{1b}[0m  failure\n");
    }

    #[test]
    fn a_table_without_rows_says_what_there_would_be() {
        assert_eq!(table(&["RUN", "STATE"], &[], Screen::default()), "RUN  STATE\n");
        assert_eq!(table(&[], &[], Screen::default()), "");
    }
}
