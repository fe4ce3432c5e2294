//! The result as a picture: for each figure a bar per subject with its spread and every run, and the ratio beside it. It
//! follows the reader's light or dark mode.

use super::report::{Report, Row};
use super::view::digits;
use crate::lab::report::{CHART, COLOURS, Markup};

/// In pixels: the picture, where bars begin, how long the longest may be, and the height of a line.
const WIDTH: u32 = 760;
const LEFT: f64 = 110.0;
const LONGEST: f64 = 470.0;
const LINE: u32 = 22;
/// Where the value and the ratio end.
const VALUE: u32 = WIDTH - 92;
const RATIO: u32 = WIDTH - 24;
/// Above the first panel, of a panel's title, and below its last bar.
const TOP: u32 = 56;
const TITLE: u32 = 32;
const FOOT: u32 = 12;

/// The picture's text: a file of its own.
pub(super) fn svg(report: &Report) -> String {
    let title = "twill bench: medians, their spread, and ratios to kernel VXLAN set up by hand";
    let (mut panels, mut y) = (Markup::default(), TOP);
    for rows in figures(report) {
        let moved = format!("translate(0 {y})");
        panels.push(Markup::tag("g", &[("transform", &moved)], bars(rows)));
        y += height(rows);
    }
    let (width, height) = (WIDTH.to_string(), y.to_string());
    let (xmlns, view) = ("http://www.w3.org/2000/svg", format!("0 0 {width} {height}"));
    let ground = [("class", "ground"), ("width", &*width), ("height", &*height)];
    let parts = [
        Markup::style(&[COLOURS, CHART]),
        Markup::tag("rect", &ground, []),
        text(16, 24, "title", title),
        text(16, 44, "small", &circumstances(report)),
        panels,
    ];
    let svg = [("xmlns", xmlns), ("width", &width), ("height", &height), ("viewBox", &view), ("role", "img")];
    Markup::tag("svg", &svg, parts).to_string() + "\n"
}

/// The rows of each figure of each pair of ends.
pub(super) fn figures(report: &Report) -> impl Iterator<Item = &[Row]> {
    report.rows.chunk_by(|a, b| a.endpoints == b.endpoints && a.figure == b.figure)
}

/// One figure of one pair of ends, as a part of a page.
pub(super) fn panel(rows: &[Row]) -> Markup {
    let view = format!("0 0 {WIDTH} {}", height(rows));
    let title = Markup::words("title", &[], &title(rows));
    let inside = std::iter::once(title).chain(bars(rows));
    Markup::tag("svg", &[("viewBox", &view), ("role", "img")], inside)
}

fn circumstances(report: &Report) -> String {
    let Report { runs, cpus, kernel, family, congestion, .. } = report;
    let tcp = if congestion.is_empty() { String::new() } else { format!(", TCP {congestion}") };
    format!("{runs} alternating runs, {cpus} processors, kernel {kernel}, {family}{tcp}")
}

fn height(rows: &[Row]) -> u32 {
    TITLE + LINE * u32::try_from(rows.len()).unwrap_or(0) + FOOT
}

fn title(rows: &[Row]) -> String {
    rows.first().map_or_else(String::new, |row| format!("{}, {} ({})", row.figure, row.endpoints, row.unit))
}

fn bars(rows: &[Row]) -> Vec<Markup> {
    let Some(first) = rows.first() else { return Vec::new() };
    let better = if first.less_is_better() { "less is better" } else { "more is better" };
    let largest = rows.iter().map(|row| row.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = LONGEST / largest;
    let head = [text(16, 22, "title", &title(rows)), text(RATIO, 22, "small end", better)];
    let bars = rows.iter().zip(1..).flat_map(|(row, line)| bar(row, scale, TITLE - 4 + LINE * line));
    head.into_iter().chain(bars).collect()
}

/// One subject; `y` is the baseline of its text.
fn bar(row: &Row, scale: f64, y: u32) -> Vec<Markup> {
    let pixels = |number: f64| format!("{number:.1}");
    let at = |value: f64| pixels(LEFT + value * scale);
    let (top, middle) = ((y - 12).to_string(), (y - 5).to_string());
    let (left, width) = (pixels(LEFT), pixels(row.median * scale));
    let rect = [("class", row.subject), ("x", &left), ("y", &top), ("width", &width), ("height", "14")];
    let (from, to) = (at(row.min), at(row.max));
    let spread = [("class", "spread"), ("x1", &*from), ("x2", &to), ("y1", &middle), ("y2", &middle)];
    let run = |value: &f64| {
        Markup::tag("circle", &[("class", "run"), ("cx", &at(*value)), ("cy", &middle), ("r", "2.2")], [])
    };
    let ratio = row.ratio.map_or_else(String::new, |ratio| format!("×{ratio:.2}"));
    let mut bar = vec![
        text(16, y, "small", row.subject),
        Markup::tag("rect", &rect, []),
        Markup::tag("line", &spread, []),
        text(VALUE, y, "end", &digits(row.median)),
        text(RATIO, y, "small end", &ratio),
    ];
    bar.extend(row.values.iter().map(run));
    bar
}

fn text(x: u32, y: u32, class: &str, content: &str) -> Markup {
    let (x, y) = (x.to_string(), y.to_string());
    Markup::words("text", &[("class", class), ("x", &x), ("y", &y)], content)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::samples;
    use super::*;

    fn report() -> Report {
        Report { rows: samples().rows(), kernel: "6.1 <&>".into(), runs: 3, ..Report::default() }
    }

    #[test]
    fn it_is_xml_with_a_bar_a_spread_and_every_run_for_each_row() {
        let text = svg(&report());
        let document = roxmltree::Document::parse(&text).unwrap();
        let of = |class: &str| {
            document.descendants().filter(|node| node.attribute("class") == Some(class)).count()
        };
        assert_eq!((of("by-hand"), of("userspace"), of("spread"), of("run")), (1, 1, 2, 6));
        let words: String = document.descendants().filter_map(|node| node.text()).collect();
        for word in ["tcp-1, hosts (Gbit/s)", "more is better", "×0.75", "6.1 <&>"] {
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
            assert!(number("x") + number("width") <= f64::from(VALUE - 60), "{bar:?}");
        }
    }
}
