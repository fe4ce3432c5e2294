//! The record as a page for people who were not there: what pods felt of each fault, against what they may feel.

use std::path::{Path, PathBuf};

use twill::lab::report::{Cell, LogScale, Machine, Markup, Page, Table};

use crate::record::{Outcome, Verdict};
use crate::scenario::Allowed;

const TITLE: &str = "What was broken, and what pods felt of it";
const ABOUT: &str = "Three hosts with real agents over a real etcd, as namespaces of one machine. Something is done to the first of \
    them while its pod sends 1,000 packets a second to the next host's pod and back, talks to it over TCP, and asks the outside \
    from a new port every 5 ms. Two other hosts send 1,000 packets a second to each other, and may not lose one, unless it \
    happens to all.";
const LEGEND: &str = "Dot: longest outage between pods (green held, amber late, red broken). Ring: towards the outside, where \
    longer. Line: what is allowed; grey: while it lasts.";
const READING: &[&str] = &[
    "A dot is the longest outage between the pods, from the last packet before it to the first after it. In the strip on the \
     left not a packet was lost. A ring is the longest time without an answer from the outside, where that was longer.",
    "The line is what is allowed: nothing where the kernel carries and the agent or the store is what fails, 200 ms for \
     firewall rules, a second for everything else. Where all is grey the fault is that packets cannot pass, and what counts is \
     what comes after.",
    "Held: all hosts are exactly as they were before, all agents content, the gap within what is allowed, and the fault was \
     called by its name within 5 s where it lasts. Late: it healed, and took longer. Broken: it did not heal, or what may not \
     be lost was.",
    "Named: what twill doctor called it while it lasted, and after how many milliseconds; for what is mended before anybody \
     can ask, what the agent then counted as repaired.",
    "The rows are those of the list of what breaks such fabrics in the field that the scenario stands for.",
];
/// In the order of columns.
const BACKENDS: [&str; 3] = ["vxlan", "host-gw", "userspace"];

/// In pixels: where the columns begin, how far they are from each other, and what is in one: the strip of what lost
/// nothing, and the axis.
const LEFT: f64 = 250.0;
const COLUMN: f64 = 250.0;
const STRIP: f64 = 28.0;
const AXIS: f64 = 200.0;
/// Above the first line, and of each.
const TOP: f64 = 52.0;
const LINE: f64 = 20.0;

/// Where it is written: beside what else tests leave.
pub(crate) fn path() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.html")
}

/// The file's text.
pub(crate) fn html(outcomes: &[Outcome]) -> String {
    let mut page = Page::new(TITLE, ABOUT);
    cards(outcomes, &mut page);
    let gaps =
        [Markup::words("p", &[], LEGEND), Markup::tag("div", &[("class", "whole")], [chart(outcomes)])];
    page.section("gaps", "Outages", gaps);
    page.section("backends", "By what carries the packets", [by_backend(outcomes)]);
    page.section("scenarios", "Every scenario", [table(outcomes)]);
    let points = READING.iter().map(|point| Markup::words("li", &[], point));
    page.section("reading", "How to read this", [Markup::tag("ul", &[], points)]);
    let more = [("twill", env!("CARGO_PKG_VERSION").to_owned()), ("build", build().to_owned())];
    page.section("machine", "Machine", [Machine::here().markup(&more)]);
    page.html()
}

fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

fn count(outcomes: &[Outcome], tone: &str) -> usize {
    outcomes.iter().filter(|outcome| self::tone(outcome) == tone).count()
}

/// The class of a verdict.
fn tone(outcome: &Outcome) -> &'static str {
    match outcome.verdict {
        Verdict::Held => "good",
        Verdict::Late(_) => "warn",
        Verdict::Broken(_) => "bad",
    }
}

fn cards(outcomes: &[Outcome], page: &mut Page) {
    let [held, late, broken] = ["good", "warn", "bad"].map(|tone| count(outcomes, tone));
    page.card(
        &format!("{held} of {}", outcomes.len()),
        "held",
        if held == outcomes.len() { "good" } else { "" },
    );
    page.card(&late.to_string(), "late", if late > 0 { "warn" } else { "good" });
    page.card(&broken.to_string(), "broken", if broken > 0 { "bad" } else { "good" });
    let limited = outcomes.iter().filter(|outcome| matches!(outcome.allowed, Some(Allowed::Gap(_))));
    if let Some(worst) = limited.max_by_key(|outcome| outcome.gap_ms) {
        let what = format!("longest outage where one is allowed: {}, {}", worst.scenario, worst.backend);
        page.card(&format!("{} ms", worst.gap_ms), &what, tone(worst));
    }
    let none = |outcome: &&Outcome| matches!(outcome.allowed, Some(Allowed::Nothing | Allowed::Inside));
    let (sent, lost) =
        outcomes.iter().filter(none).fold((0, 0), |sum, one| (sum.0 + one.sent, sum.1 + one.lost));
    page.card(
        &lost.to_string(),
        &format!("of {sent} packets lost where none may be"),
        if lost > 0 { "bad" } else { "good" },
    );
    let named = outcomes.iter().flat_map(|outcome| &outcome.named);
    if let Some((code, after)) = named.max_by_key(|(_, after)| *after) {
        page.card(&format!("{after} ms"), &format!("until the last was named: {code}"), "");
    }
}

/// The names of scenarios, as they first came.
fn scenarios(outcomes: &[Outcome]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !names.contains(&outcome.scenario.as_str()) {
            names.push(&outcome.scenario);
        }
    }
    names
}

fn scale(outcomes: &[Outcome]) -> LogScale {
    let longest = outcomes.iter().map(|outcome| outcome.gap_ms.max(outcome.outside_gap_ms)).max();
    let high = 10_f64.powf((longest.unwrap_or(0) as f64).max(2000.0).log10().ceil());
    LogScale { low: 1.0, high, width: AXIS }
}

/// A line for each scenario, a column for each backend.
fn chart(outcomes: &[Outcome]) -> Markup {
    let (names, scale) = (scenarios(outcomes), scale(outcomes));
    let width = LEFT + COLUMN * BACKENDS.len() as f64;
    let height = TOP + LINE * names.len() as f64 + 12.0;
    let mut marks = Markup::words("title", &[], "The longest outage of each scenario and backend");
    for (line, name) in names.iter().enumerate() {
        let y = TOP + LINE * line as f64;
        if line % 2 == 0 {
            marks.push(rect("stripe", [0.0, y, width, LINE]));
        }
        marks.push(text([16.0, y + 14.0], "", name));
    }
    for (column, backend) in BACKENDS.iter().enumerate() {
        let x = LEFT + COLUMN * column as f64;
        marks.push(axis(backend, x, height, &scale));
        for (line, name) in names.iter().enumerate() {
            let of = |outcome: &&Outcome| outcome.scenario == *name && outcome.backend == *backend;
            let y = TOP + LINE * line as f64;
            outcomes.iter().filter(of).for_each(|outcome| marks.push(mark(outcome, x, y, &scale)));
        }
    }
    Markup::tag("svg", &[("viewBox", &format!("0 0 {width} {height}")), ("role", "img")], [marks])
}

fn axis(backend: &str, x: f64, height: f64, scale: &LogScale) -> Markup {
    let mut marks = text([x, 20.0], "title", backend);
    marks.push(text([x + STRIP / 2.0, 42.0], "small middle", "none"));
    for tick in scale.ticks() {
        let at = x + STRIP + scale.at(tick);
        let label = if tick < 999.0 { format!("{tick:.0} ms") } else { format!("{:.0} s", tick / 1000.0) };
        // Every other one: they are as wide as that.
        if tick.log10().round() as i64 % 2 == 1 {
            let class = if tick > scale.high * 0.99 { "small end" } else { "small middle" };
            marks.push(text([at, 42.0], class, &label));
        }
        marks.push(line("grid", [at, TOP, at, height - 12.0]));
    }
    marks
}

/// One outcome, in its line of its column.
fn mark(outcome: &Outcome, x: f64, y: f64, scale: &LogScale) -> Markup {
    let at = |millis: u64| if millis == 0 { x + STRIP / 2.0 } else { x + STRIP + scale.at(millis as f64) };
    let mut marks = Markup::default();
    match outcome.allowed {
        Some(Allowed::WhileItLasts) => marks.push(rect("free", [x, y + 2.0, STRIP + AXIS, LINE - 4.0])),
        Some(Allowed::Gap(limit)) => {
            let at = at(u64::try_from(limit.as_millis()).unwrap());
            marks.push(line("limit", [at, y + 2.0, at, y + LINE - 2.0]));
        }
        Some(Allowed::Nothing | Allowed::Inside) => {
            marks.push(line("limit", [x + STRIP, y + 2.0, x + STRIP, y + LINE - 2.0]));
        }
        None => {}
    }
    let class = match outcome.verdict {
        Verdict::Held => "held",
        Verdict::Late(_) => "late",
        Verdict::Broken(_) => "broken",
    };
    if outcome.sent == 0 {
        marks.push(text([x + STRIP / 2.0, y + 14.0], &format!("{class} middle"), "✕"));
    } else {
        if outcome.outside_gap_ms > outcome.gap_ms {
            marks.push(circle("run", at(outcome.outside_gap_ms), y + LINE / 2.0, "3.5"));
        }
        marks.push(circle(class, at(outcome.gap_ms), y + LINE / 2.0, "4.5"));
    }
    Markup::tag("g", &[("class", "outcome")], [Markup::words("title", &[], &outcome.to_string()), marks])
}

fn numbers<const N: usize>(numbers: [f64; N]) -> [String; N] {
    numbers.map(|number| format!("{number:.1}"))
}

fn text(at: [f64; 2], class: &str, words: &str) -> Markup {
    let [x, y] = numbers(at);
    Markup::words("text", &[("class", class), ("x", &x), ("y", &y)], words)
}

fn rect(class: &str, sides: [f64; 4]) -> Markup {
    let [x, y, width, height] = numbers(sides);
    Markup::tag("rect", &[("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)], [])
}

fn line(class: &str, ends: [f64; 4]) -> Markup {
    let [x1, y1, x2, y2] = numbers(ends);
    Markup::tag("line", &[("class", class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)], [])
}

fn circle(class: &str, x: f64, y: f64, r: &str) -> Markup {
    let [x, y] = numbers([x, y]);
    Markup::tag("circle", &[("class", class), ("cx", &x), ("cy", &y), ("r", r)], [])
}

fn by_backend(outcomes: &[Outcome]) -> Markup {
    let mut table = Table::new(&[
        "backend",
        ">scenarios",
        ">held",
        ">late",
        ">broken",
        ">median gap, ms",
        ">longest gap, ms",
        ">packets sent",
        ">lost",
    ]);
    for backend in BACKENDS {
        let mut of: Vec<Outcome> = outcomes.iter().filter(|one| one.backend == backend).cloned().collect();
        of.sort_by_key(|outcome| outcome.gap_ms);
        let Some(longest) = of.last() else { continue };
        let sum = |what: fn(&Outcome) -> u64| of.iter().map(what).sum::<u64>().to_string();
        let [held, late, broken] = ["good", "warn", "bad"].map(|tone| count(&of, tone).to_string());
        let gaps = [of[of.len() / 2].gap_ms.to_string(), longest.gap_ms.to_string()];
        let figures = [of.len().to_string(), held, late, broken].into_iter().chain(gaps);
        let figures = figures.chain([sum(|one| one.sent), sum(|one| one.lost)]).map(Cell::Number);
        table.row(std::iter::once(Cell::Words(backend.to_owned())).chain(figures));
    }
    table.markup()
}

fn table(outcomes: &[Outcome]) -> Markup {
    let mut table = Table::new(&[
        "scenario",
        "rows",
        "backend",
        ">allowed",
        ">gap, ms",
        ">lost",
        ">TCP, ms",
        ">outside, ms",
        "named, ms",
        ">took, s",
        ">log lines",
        "verdict",
    ]);
    for name in scenarios(outcomes) {
        for outcome in outcomes.iter().filter(|outcome| outcome.scenario == name) {
            let [scenario, rows, backend, gap, lost, tcp, outside, named, verdict] = outcome.cells();
            let allowed = match outcome.allowed {
                Some(Allowed::Nothing) => "nothing".to_owned(),
                Some(Allowed::Inside) => "nothing inside".to_owned(),
                Some(Allowed::Gap(limit)) => format!("{} ms", limit.as_millis()),
                Some(Allowed::WhileItLasts) => "while it lasts".to_owned(),
                None => String::new(),
            };
            let words = [scenario, rows, backend].map(Cell::Words);
            let figures = [allowed, gap, lost, tcp, outside].map(Cell::Number);
            let rest = [
                Cell::Words(named),
                Cell::Number(format!("{:.1}", outcome.seconds)),
                Cell::Number(outcome.log_lines.to_string()),
            ];
            let verdict = Cell::Verdict { word: verdict, tone: tone(outcome) };
            table.row(words.into_iter().chain(figures).chain(rest).chain([verdict]));
        }
    }
    table.markup()
}

#[test]
fn every_outcome_is_on_one_page_that_needs_nothing_else() {
    let outcomes: Vec<Outcome> = serde_json::from_str(include_str!("sample.json")).unwrap();
    let html = html(&outcomes);
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let document = roxmltree::Document::parse_with_options(&html, options).unwrap();
    assert!(!html.contains("://") && !html.contains("<script"), "{html}");
    let marked = document.descendants().filter(|node| node.attribute("class") == Some("outcome"));
    assert_eq!(marked.count(), outcomes.len());
    let table = document.descendants().find(|node| node.attribute("id") == Some("scenarios")).unwrap();
    let rows: Vec<String> = table
        .descendants()
        .filter(|node| node.has_tag_name("tr"))
        .map(|row| row.descendants().filter_map(|node| node.text()).collect::<Vec<_>>().join("|"))
        .collect();
    assert_eq!(rows.len(), outcomes.len() + 1);
    for outcome in &outcomes {
        let found =
            rows.iter().find(|row| row.starts_with(&outcome.scenario) && row.contains(&outcome.backend));
        let [.., named, verdict] = outcome.cells();
        let row = found.unwrap_or_else(|| panic!("{outcome} is not among {rows:#?}"));
        assert!(row.contains(&verdict) && row.contains(&named), "{outcome}: {row}");
    }
    let words: String = document.descendants().filter_map(|node| node.text()).collect();
    for word in [
        "2 of 5",
        "0of 20000 packets lost where none may be",
        "1204 ms",
        "BROKEN: <b>it & more</b>",
        "load before",
    ] {
        assert!(words.contains(word), "{word}: {words}");
    }
}
