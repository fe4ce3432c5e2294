//! The page around a report's parts.

use super::Markup;

/// The colours by name, light and dark: for pages, and for pictures that stand alone.
pub const COLOURS: &str = include_str!("colours.css");
/// How pictures look.
pub const CHART: &str = include_str!("chart.css");
const PAGE: &str = include_str!("page.css");

/// A report.
#[derive(Debug, Clone, Default)]
pub struct Page {
    title: String,
    about: String,
    cards: Vec<Markup>,
    links: Vec<Markup>,
    sections: Markup,
}

impl Page {
    /// One of this title, with what it is in a sentence.
    #[must_use]
    pub fn new(title: &str, about: &str) -> Self {
        Self { title: title.to_owned(), about: about.to_owned(), ..Self::default() }
    }

    /// Puts a figure that stands for all above everything: the figure, and what it is.
    pub fn card(&mut self, figure: &str, what: &str, tone: &str) {
        let class = format!("card {tone}");
        let inside = [Markup::words("b", &[], figure), Markup::words("span", &[], what)];
        self.cards.push(Markup::tag("div", &[("class", &class)], inside));
    }

    /// Adds a part under a heading, with a link to it at the top.
    pub fn section(&mut self, id: &str, heading: &str, parts: impl IntoIterator<Item = Markup>) {
        self.links.push(Markup::words("a", &[("href", &format!("#{id}"))], heading));
        let inside = std::iter::once(Markup::words("h2", &[], heading)).chain(parts);
        self.sections.push(Markup::tag("section", &[("id", id)], inside));
    }

    /// The whole file.
    #[must_use]
    pub fn html(self) -> String {
        let head = [
            Markup::tag("meta", &[("charset", "utf-8")], []),
            Markup::tag(
                "meta",
                &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")],
                [],
            ),
            Markup::words("title", &[], &self.title),
            Markup::style(&[COLOURS, CHART, PAGE]),
        ];
        let header = [
            Markup::words("h1", &[], &self.title),
            Markup::words("p", &[("class", "about")], &self.about),
            Markup::tag("div", &[("class", "cards")], self.cards),
            Markup::tag("nav", &[("aria-label", "Parts")], self.links),
        ];
        let body = [Markup::tag("header", &[], header), Markup::tag("main", &[], [self.sections])];
        let html = Markup::tag(
            "html",
            &[("lang", "en")],
            [Markup::tag("head", &[], head), Markup::tag("body", &[], body)],
        );
        format!("<!DOCTYPE html>\n{html}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_stands_alone_and_links_to_its_parts() {
        let mut page = Page::new("a <b> & c", "about");
        page.card("3 of 4", "held", "good");
        page.section("one", "One", [Markup::words("p", &[], "text")]);
        let html = page.html();
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
        let document = roxmltree::Document::parse_with_options(&html, options).unwrap();
        let tag = |name: &str| document.descendants().find(|node| node.has_tag_name(name)).unwrap();
        assert_eq!((tag("title").text(), tag("h1").text()), (Some("a <b> & c"), Some("a <b> & c")));
        assert_eq!((tag("a").attribute("href"), tag("section").attribute("id")), (Some("#one"), Some("one")));
        assert!(!html.contains("://") && !html.contains("@import") && !html.contains("url("), "{html}");
        assert!(html.contains("prefers-color-scheme:dark"));
    }
}
