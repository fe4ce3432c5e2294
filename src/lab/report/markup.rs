//! HTML and SVG, made of tags and text: whatever a text contains stays text.

use std::fmt;

/// Tags that have no end in HTML.
const VOID: [&str; 2] = ["meta", "br"];

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Markup(String);

impl Markup {
    /// Words.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let mut escaped = String::with_capacity(text.len());
        for character in text.chars() {
            match character {
                '&' => escaped.push_str("&amp;"),
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                '"' => escaped.push_str("&quot;"),
                // What XML cannot have.
                '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                    escaped.push('\u{fffd}');
                }
                other => escaped.push(other),
            }
        }
        Self(escaped)
    }

    /// A tag with attributes and what is inside it.
    #[must_use]
    pub fn tag(name: &str, attributes: &[(&str, &str)], inside: impl IntoIterator<Item = Self>) -> Self {
        let mut made = format!("<{name}");
        for (attribute, value) in attributes {
            made += &format!(" {attribute}=\"{}\"", Self::text(value));
        }
        if VOID.contains(&name) {
            return Self(made + "/>");
        }
        made.push('>');
        inside.into_iter().for_each(|piece| made.push_str(&piece.0));
        made += &format!("</{name}>");
        Self(made)
    }

    /// A tag around words.
    #[must_use]
    pub fn words(name: &str, attributes: &[(&str, &str)], text: &str) -> Self {
        Self::tag(name, attributes, [Self::text(text)])
    }

    /// A style sheet of this program's own.
    #[must_use]
    pub fn style(sheets: &[&'static str]) -> Self {
        Self(format!("<style>{}</style>", sheets.concat()))
    }

    /// Adds what comes next.
    pub fn push(&mut self, next: Self) {
        self.0.push_str(&next.0);
        self.0.push('\n');
    }
}

impl FromIterator<Markup> for Markup {
    fn from_iter<T: IntoIterator<Item = Markup>>(pieces: T) -> Self {
        let mut all = Self::default();
        pieces.into_iter().for_each(|piece| all.push(piece));
        all
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_are_nested_and_have_an_end_where_html_wants_one() {
        let inside = [Markup::words("b", &[], "<x>"), Markup::tag("br", &[], [])];
        let made = Markup::tag("p", &[("title", "a \"b\" & c")], inside);
        assert_eq!(made.to_string(), "<p title=\"a &quot;b&quot; &amp; c\"><b>&lt;x&gt;</b><br/></p>");
        assert_eq!(Markup::tag("td", &[], []).to_string(), "<td></td>");
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_it_was(text in "\\PC{0,40}") {
            let made = Markup::words("p", &[("title", &text)], &text).to_string();
            let document = roxmltree::Document::parse(&made).unwrap();
            let root = document.root_element();
            prop_assert_eq!(root.text().unwrap_or_default(), text.as_str());
            prop_assert_eq!(root.attribute("title"), Some(text.as_str()));
        }

        #[test]
        fn any_bytes_are_a_document(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let text = String::from_utf8_lossy(&bytes);
            let made = Markup::words("p", &[("title", &text)], &text).to_string();
            prop_assert!(roxmltree::Document::parse(&made).is_ok(), "{}", made);
        }
    }
}
