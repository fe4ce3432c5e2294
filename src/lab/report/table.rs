//! Tables of a report.

use super::Markup;

/// What stands in a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Words, from the left.
    Words(String),
    /// A number, from the right.
    Number(String),
    /// A word that stands out: as it should be, or not.
    Verdict {
        /// The word.
        word: String,
        /// `good`, `warn` or `bad`.
        tone: &'static str,
    },
    /// A number coloured by how much better than something it is: twice as good is 1, half as good -1.
    Heat {
        /// The number.
        text: String,
        /// How much better.
        better: f64,
    },
}

/// A table with a line of headings.
#[derive(Debug, Clone, Default)]
pub struct Table {
    head: Vec<Markup>,
    rows: Vec<Markup>,
}

impl Table {
    /// One with these headings. Above numbers, one begins with `>` to stand where they do.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        let heading = |name: &&str| match name.strip_prefix('>') {
            Some(name) => Markup::words("th", &[("scope", "col"), ("class", "number")], name),
            None => Markup::words("th", &[("scope", "col")], name),
        };
        Self { head: head.iter().map(heading).collect(), rows: Vec::new() }
    }

    /// Adds a line. The first of its cells is its name.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells = cells.into_iter().enumerate().map(|(column, cell)| cell.markup(column == 0));
        self.rows.push(Markup::tag("tr", &[], cells.collect::<Vec<_>>()));
    }

    /// The table, which scrolls by itself where it is too wide.
    #[must_use]
    pub fn markup(self) -> Markup {
        let head = Markup::tag("thead", &[], [Markup::tag("tr", &[], self.head)]);
        let body = Markup::tag("tbody", &[], [self.rows.into_iter().collect()]);
        Markup::tag("div", &[("class", "wide")], [Markup::tag("table", &[], [head, body])])
    }
}

impl Cell {
    fn markup(self, is_name: bool) -> Markup {
        match self {
            Self::Words(text) if is_name => Markup::words("th", &[("scope", "row")], &text),
            Self::Words(text) => Markup::words("td", &[], &text),
            Self::Number(text) => Markup::words("td", &[("class", "number")], &text),
            Self::Verdict { word, tone } => Markup::tag(
                "td",
                &[],
                [Markup::words("span", &[("class", &format!("verdict {tone}"))], &word)],
            ),
            Self::Heat { text, better } => {
                let colour = if better < 0.0 { "var(--worse)" } else { "var(--better)" };
                // A quarter or four times is as strong as it gets.
                let share = (better.abs() / 2.0).min(1.0) * 60.0;
                let style = format!("background:color-mix(in srgb,{colour} {share:.0}%,transparent)");
                Markup::words("td", &[("class", "number"), ("style", &style)], &text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_with_its_name() {
        let mut table = Table::new(&["what", ">how much", "well"]);
        let verdict = Cell::Verdict { word: "held".to_owned(), tone: "good" };
        table.row([Cell::Words("a<b".to_owned()), Cell::Number("3".to_owned()), verdict]);
        table.row([Cell::Words("c".to_owned()), Cell::Heat { text: "×0.5".to_owned(), better: -1.0 }]);
        let text = table.markup().to_string();
        let document = roxmltree::Document::parse(&text).unwrap();
        let names: Vec<_> =
            document.descendants().filter(|node| node.attribute("scope") == Some("row")).collect();
        assert_eq!(names.iter().map(|node| node.text()).collect::<Vec<_>>(), [Some("a<b"), Some("c")]);
        assert!(text.contains("class=\"number\">how much<"), "{text}");
        assert!(text.contains("verdict good") && text.contains("var(--worse) 30%"), "{text}");
    }
}
