//! The result as a page for people who were not there: ratios, bars, every number, the machine, and how to read it.

use super::picture::{figures, panel};
use super::report::{Report, Row};
use super::view::digits;
use crate::config::{Ends, Measure, Subject};
use crate::lab::report::{Cell, Markup, Page, Table};

/// What stands for all the others at the top, where it was measured.
const HEADLINES: [(Measure, Subject); 6] = [
    (Measure::Tcp1, Subject::Vxlan),
    (Measure::Ping5, Subject::Vxlan),
    (Measure::Tcp1, Subject::HostGw),
    (Measure::Tcp1, Subject::Userspace),
    (Measure::Udp1400, Subject::Userspace),
    (Measure::Ping5, Subject::Userspace),
];
/// 5 % worse is as good, as doublings.
const AS_GOOD: f64 = -0.074;
const ABOUT: &str = "What each way of carrying packets between two hosts of one machine costs: beside the underlay itself, \
    and beside kernel VXLAN that a careful operator set up by hand, which everything is divided by.";
const READING: &[&str] = &[
    "A ratio is the median of the ratios within each run, of a figure to that of by-hand. ×1.00 is as good; whether more or \
     less is better depends on the figure, and the colours of the table go by that: blue is better than by-hand, orange is worse.",
    "All subjects stand at the same time and take turns; while one has its turn the agents of the others are stopped. Each run \
     measures every subject once and begins with another one, so that drift of the machine hits all alike.",
    "A bar is the median of all runs, the line across it goes from the smallest to the largest, and each circle is one run.",
    "Both hosts share the processors of one machine. So figures say what packets cost, and not what two machines with a \
     network card between them would reach; ratios carry over better than absolute figures.",
];

/// The file's text.
pub(super) fn html(report: &Report) -> String {
    let mut page = Page::new("twill bench", ABOUT);
    if let Some(error) = &report.error {
        page.card("broken off", error, "bad");
    }
    if cfg!(debug_assertions) {
        page.card(
            "debug build",
            "what the agent carries itself is many times slower than in a release",
            "warn",
        );
    }
    cards(report, &mut page);
    page.section("ratios", "Ratios to kernel VXLAN by hand", of_ends(report, ratios));
    let panels = figures(report).map(panel);
    page.section("figures", "Figures", [Markup::tag("div", &[("class", "panels")], panels)]);
    page.section("numbers", "All numbers", of_ends(report, numbers));
    page.section("reading", "How to read this", reading());
    page.section("machine", "Machine", [machine(report)]);
    page.html()
}

/// The headlines: green is as good as by hand, or better.
fn cards(report: &Report, page: &mut Page) {
    for (measure, subject) in HEADLINES {
        let is = |row: &&Row| row.figure == measure.as_str() && row.subject == subject.as_str();
        if let Some((row, ratio)) = report.rows.iter().find(is).and_then(|row| Some((row, row.ratio?))) {
            let Row { subject, figure, endpoints, .. } = row;
            let what = format!("{subject}, {figure}, {endpoints}: {} {}", digits(row.median), row.unit);
            let tone = if better(row, ratio) > AS_GOOD { "good" } else { "" };
            page.card(&format!("×{ratio:.2}"), &what, tone);
        }
    }
}

/// A part for each pair of ends, under its name.
fn of_ends(report: &Report, part: impl Fn(&[Row]) -> Markup) -> Vec<Markup> {
    let ends = report.rows.chunk_by(|a, b| a.endpoints == b.endpoints);
    ends.flat_map(|rows| {
        let name = rows.first().map_or("", |row| row.endpoints);
        [Markup::words("h3", &[], &format!("Between {name}")), part(rows)]
    })
    .collect()
}

/// A line for each figure, a column for each subject.
fn ratios(rows: &[Row]) -> Markup {
    let measured = |subject: &&Subject| rows.iter().any(|row| row.subject == subject.as_str());
    let subjects: Vec<&str> = Subject::ALL.iter().filter(measured).map(|subject| subject.as_str()).collect();
    let mut table = Table::new(&[&["figure", "unit"], &subjects[..]].concat());
    for rows in rows.chunk_by(|a, b| a.figure == b.figure) {
        let name = rows.first().map_or(["", ""], |row| [row.figure, row.unit]);
        let cell = |subject: &&str| {
            let row = rows.iter().find(|row| row.subject == *subject);
            let Some((row, ratio)) = row.and_then(|row| Some((row, row.ratio?))) else {
                return Cell::Number("–".to_owned());
            };
            Cell::Heat { text: format!("×{ratio:.2}"), better: better(row, ratio) }
        };
        let name = name.map(|word| Cell::Words(word.to_owned()));
        table.row(name.into_iter().chain(subjects.iter().map(cell)));
    }
    table.markup()
}

/// How often it doubles what counts.
fn better(row: &Row, ratio: f64) -> f64 {
    let more = ratio.max(f64::MIN_POSITIVE).log2();
    if row.less_is_better() { -more } else { more }
}

/// A line for each row, every run in it.
fn numbers(rows: &[Row]) -> Markup {
    let mut table =
        Table::new(&["figure", "subject", ">median", ">min", ">max", ">÷ by-hand", "unit", "each run"]);
    for row in rows {
        let numbers = [digits(row.median), digits(row.min), digits(row.max)].map(Cell::Number);
        let ratio = row.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        let runs = row.values.iter().map(|value| digits(*value)).collect::<Vec<_>>().join("  ");
        let names = [row.figure, row.subject].map(|word| Cell::Words(word.to_owned()));
        let rest = [Cell::Number(ratio), Cell::Words(row.unit.to_owned()), Cell::Words(runs)];
        table.row(names.into_iter().chain(numbers).chain(rest));
    }
    table.markup()
}

fn reading() -> Vec<Markup> {
    let mut names = Table::new(&["name", "what it is"]);
    let ends = Ends::ALL.iter().map(|ends| (ends.as_str(), about_ends(*ends)));
    let subjects = Subject::ALL.iter().map(|subject| (subject.as_str(), about_subject(*subject)));
    let measures = Measure::ALL.iter().map(|measure| (measure.as_str(), about_measure(*measure)));
    for (name, about) in ends.chain(subjects).chain(measures) {
        names.row([name, about].map(|word| Cell::Words(word.to_owned())));
    }
    let points = READING.iter().map(|point| Markup::words("li", &[], point));
    vec![Markup::tag("ul", &[], points), names.markup()]
}

fn machine(report: &Report) -> Markup {
    let Report { twill, family, congestion, seconds, batch, runs, elapsed_s, .. } = report;
    let mut more = vec![
        ("twill", (*twill).to_owned()),
        ("runs", format!("{runs}, {seconds} s each measure, {:.1} minutes in all", elapsed_s / 60.0)),
        ("addresses", (*family).to_owned()),
        ("datagrams of a system call", batch.to_string()),
    ];
    if !congestion.is_empty() {
        more.push(("TCP's congestion control", congestion.clone()));
    }
    report.machine.markup(&more)
}

const fn about_ends(ends: Ends) -> &'static str {
    match ends {
        Ends::Hosts => "traffic begins and ends in the hosts' own network namespaces",
        Ends::Pods => "traffic begins and ends in pods behind the hosts' bridges",
    }
}

const fn about_subject(subject: Subject) -> &'static str {
    match subject {
        Subject::Bare => "the underlay itself, no overlay",
        Subject::ByHand => "kernel VXLAN set up by hand, no agent: what all others are divided by",
        Subject::Vxlan => "the agent's vxlan, carried by the kernel",
        Subject::HostGw => "the agent's host-gw: routes, no tunnel",
        Subject::Userspace => "the agent's vxlan, carried by the agent with the kernel's offloads",
        Subject::Plain => "the same without offloads",
        Subject::Ceiling => {
            "a loop that takes frames through user space and looks at nothing: what the agent could carry at best"
        }
    }
}

const fn about_measure(measure: Measure) -> &'static str {
    match measure {
        Measure::Tcp1 => {
            "one TCP stream; -cpu is the whole machine's time for each GB, -agent-cpu the agents' alone"
        }
        Measure::Tcp8 => "eight TCP streams, the same",
        Measure::Udp64 => {
            "datagrams of 64 bytes that arrive, sent as fast as they can be; -loss is the share that does not"
        }
        Measure::Udp1400 => "datagrams of 1400 bytes, the same",
        Measure::Ping100 => "round trips without other traffic, one each 100 ms: the median, and -p99",
        Measure::Ping5 => "round trips without other traffic, one each 5 ms",
        Measure::PingLoaded => "round trips beside a TCP stream, one each 5 ms",
        Measure::Idle => "what each agent costs without traffic",
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::samples;
    use super::*;

    #[test]
    fn everything_that_was_measured_is_on_one_page_that_needs_nothing_else() {
        let report = Report {
            rows: samples().rows(),
            runs: 3,
            error: Some("interrupted <by> \"somebody\"".to_owned()),
            ..Report::default()
        };
        let html = html(&report);
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
        let document = roxmltree::Document::parse_with_options(&html, options).unwrap();
        assert!(!html.contains("://") && !html.contains("<script"), "{html}");
        let sections: Vec<_> = document.descendants().filter(|node| node.has_tag_name("section")).collect();
        let ids: Vec<_> = sections.iter().filter_map(|section| section.attribute("id")).collect();
        assert_eq!(ids, ["ratios", "figures", "numbers", "reading", "machine"]);
        let rows =
            |section: usize| sections[section].descendants().filter(|node| node.has_tag_name("tr")).count();
        assert_eq!((rows(0), rows(2)), (1 + 1, 1 + report.rows.len()));
        let words: String = document.descendants().filter_map(|node| node.text()).collect();
        for word in
            ["interrupted <by> \"somebody\"", "×0.75", "Between hosts", "5.00  6.00  18.0", "load before"]
        {
            assert!(words.contains(word), "{word}: {words}");
        }
        // Half as fast is a quarter of the way to as bad as it gets; 0.75 is less.
        assert!(html.contains("background:color-mix(in srgb,var(--worse) 12%,transparent)"), "{html}");
    }

    #[test]
    fn nothing_measured_is_still_a_page() {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
        let html = html(&Report::default());
        assert!(roxmltree::Document::parse_with_options(&html, options).is_ok(), "{html}");
    }
}
