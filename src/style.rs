//! How text for people looks on a terminal: colours and aligned columns.
//!
//! What is made here has escape codes in it. `main` writes through `anstream`, which takes them out where nobody would
//! see colours: in a pipe, with `NO_COLOR`, on a terminal that has none.

use std::fmt;

use anstyle::{AnsiColor, Color, Style};
use twill_backends::code::Severity;

/// As it should be.
pub const GOOD: Style = coloured(AnsiColor::Green);
/// Needs attention.
pub const WARNING: Style = coloured(AnsiColor::Yellow);
/// Does not work.
pub const BAD: Style = coloured(AnsiColor::Red).bold();
/// What stands out without being good or bad.
pub const STRONG: Style = Style::new().bold();
/// What one may read over.
pub const FAINT: Style = Style::new().dimmed();
/// As it is.
pub const PLAIN: Style = Style::new();

const fn coloured(color: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(color)))
}

/// A text in a style. Padding counts the text's characters alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// Its style.
    pub style: Style,
}

/// Lines whose cells stand below each other.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

/// How bad something is, in its colour.
#[must_use]
pub fn severity(severity: Severity) -> Cell {
    let style = match severity {
        Severity::Warning => WARNING,
        Severity::Broken => BAD,
    };
    paint(style, severity.to_string())
}

/// Seconds for people: the two largest units that count.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m{}s", seconds % 60),
        (0, h, m) => format!("{h}h{m}m"),
        (d, h, _) => format!("{d}d{h}h"),
    }
}

/// A text in a style.
pub fn paint(style: Style, text: impl Into<String>) -> Cell {
    Cell { text: text.into(), style }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        paint(PLAIN, text)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, style) = (&self.text, self.style);
        let padding = f.width().unwrap_or_default().saturating_sub(text.chars().count());
        write!(f, "{style}{text}{style:#}{:padding$}", "")
    }
}

impl Table {
    /// Adds a line.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or_default()
        };
        (0..columns).map(width).collect()
    }
}

impl fmt::Display for Table {
    /// Two spaces between columns, none at the end of a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let last = row.iter().rposition(|cell| !cell.text.is_empty());
            for (column, cell) in row.iter().take(last.map_or(0, |last| last + 1)).enumerate() {
                if Some(column) == last {
                    write!(f, "{cell}")?;
                } else {
                    write!(f, "{cell:<width$}  ", width = widths[column])?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_whatever_their_colour_and_lines_end_without_spaces() {
        let mut table = Table::default();
        table.row([paint(STRONG, "CODE"), "WHAT".into(), "".into()]);
        table.row([paint(BAD, "née-x"), "y".into(), "z".into()]);
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(text, "CODE   WHAT\nnée-x  y     z\n");
        assert!(table.to_string().contains("\u{1b}["), "it is coloured");
    }

    #[test]
    fn plain_text_has_no_escape_code() {
        let mut table = Table::default();
        table.row(["a".into(), "b".into()]);
        assert_eq!((table.to_string().as_str(), Table::default().to_string().as_str()), ("a  b\n", ""));
    }

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (3_660, "1h1m"), (90_000, "1d1h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
