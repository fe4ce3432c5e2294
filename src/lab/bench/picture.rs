//! The result as a picture: for each figure a bar per subject with its spread, and the ratio beside it. Plain SVG that
//! follows the reader's light or dark mode.

use super::report::{Report, Row};
use super::view::digits;

/// In pixels: the picture, where bars begin, how long the longest may be, and the height of a line.
const WIDTH: u32 = 760;
const LEFT: f64 = 110.0;
const LONGEST: f64 = 470.0;
const LINE: u32 = 22;
/// Above the first panel, and of a panel's title with the gap before it.
const TOP: u32 = 56;
const TITLE: u32 = 38;
const STYLE: &str = "\
text{font:13px sans-serif;fill:#1f2328}.small{fill:#59636e}.title{font-weight:bold}\
.bar{fill:#8c959f}.base{fill:#59636e}.ours{fill:#0969da}.spread{stroke:#1f2328;stroke-width:1.5}\
.ground{fill:#ffffff}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.bar{fill:#656c76}.base{fill:#9198a1}\
.ours{fill:#4493f8}.spread{stroke:#e6edf3}.ground{fill:#0d1117}}";

/// The picture's text.
pub(super) fn svg(report: &Report) -> String {
    let (mut panels, mut y) = (String::new(), TOP);
    let together = |a: &Row, b: &Row| a.endpoints == b.endpoints && a.figure == b.figure;
    for rows in report.rows.chunk_by(together) {
        panels.push_str(&panel(rows, y));
        y += TITLE + LINE * u32::try_from(rows.len()).unwrap_or(0);
    }
    let height = y + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n{}{}{panels}</svg>\n",
        text(
            16,
            24,
            "title",
            "twill bench: medians, their spread, and ratios to kernel VXLAN set up by hand"
        ),
        text(16, 44, "small", &circumstances(report)),
    )
}

fn circumstances(report: &Report) -> String {
    let Report { runs, cpus, kernel, family, congestion, .. } = report;
    let tcp = if congestion.is_empty() { String::new() } else { format!(", TCP {congestion}") };
    format!("{runs} alternating runs, {cpus} processors, kernel {kernel}, {family}{tcp}")
}

/// One figure of one pair of ends.
fn panel(rows: &[Row], y: u32) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let title = format!("{}, {} ({})", first.figure, first.endpoints, first.unit);
    let largest = rows.iter().map(|row| row.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = LONGEST / largest;
    let bars = rows.iter().zip(1..).map(|(row, line)| bar(row, scale, y + TITLE - 16 + LINE * line));
    text(16, y + TITLE - 16, "title", &title) + &bars.collect::<String>()
}

/// One subject; `y` is the baseline of its text.
fn bar(row: &Row, scale: f64, y: u32) -> String {
    let class = match row.subject {
        "by-hand" => "base",
        "bare" => "bar",
        _agents => "ours",
    };
    let (width, from, to) = (row.median * scale, LEFT + row.min * scale, LEFT + row.max * scale);
    let (top, middle) = (y - 12, y - 5);
    let ratio = row.ratio.map_or_else(String::new, |ratio| format!("  ×{ratio:.2}"));
    let value = format!("{}{ratio}", digits(row.median));
    let shapes = format!(
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"14\"/>\n\
         <line class=\"spread\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\n"
    );
    text(16, y, "small", row.subject) + &shapes + &text(WIDTH - 160, y, "", &value)
}

fn text(x: u32, y: u32, class: &str, content: &str) -> String {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{content}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::samples;
    use super::*;

    fn report() -> Report {
        Report { rows: samples().rows(), kernel: "6.1 <&>".into(), runs: 3, ..Report::default() }
    }

    #[test]
    fn it_is_xml_with_a_bar_and_a_spread_for_each_row() {
        let text = svg(&report());
        let document = roxmltree::Document::parse(&text).unwrap();
        let of = |class: &str| {
            document.descendants().filter(|node| node.attribute("class") == Some(class)).count()
        };
        assert_eq!((of("base"), of("ours"), of("spread")), (1, 1, 2));
        let words: String = document.descendants().filter_map(|node| node.text()).collect();
        for word in ["tcp-1, hosts (Gbit/s)", "×0.75", "6.1 <&>"] {
            assert!(words.contains(word), "{word}: {words}");
        }
    }

    #[test]
    fn nothing_measured_is_still_a_picture() {
        let text = svg(&Report::default());
        assert!(roxmltree::Document::parse(&text).is_ok(), "{text}");
    }

    #[test]
    fn bars_end_before_their_numbers() {
        let text = svg(&report());
        let document = roxmltree::Document::parse(&text).unwrap();
        for bar in document.descendants().filter(|node| node.has_tag_name("rect") && node.has_attribute("x"))
        {
            let number = |name| bar.attribute(name).unwrap().parse::<f64>().unwrap();
            assert!(number("x") + number("width") <= f64::from(WIDTH - 160), "{bar:?}");
        }
    }
}
