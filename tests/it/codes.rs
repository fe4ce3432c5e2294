//! Every code of the program is in the catalogue, and the program uses every code of it.

use std::collections::BTreeSet;

use twill::catalogue;

use crate::layering::{Source, code, sources};

/// What follows an enum's path up to the end of the variant's name.
fn variants<'a>(line: &'a str, table: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(table).filter_map(move |(at, _)| {
        let whole = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let rest = line[at + table.len()..].strip_prefix("::").filter(|_| whole)?;
        Some(&rest[..rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len())])
    })
}

/// The names of the enums that `codes!` makes.
fn tables(sources: &[Source]) -> BTreeSet<String> {
    let enums = |source: &Source| {
        let text: String = code(source).map(|line| format!("{line}\n")).collect();
        let made = |table: &str| table.split_once(" enum ").map(|(_, rest)| first_word(rest).to_owned());
        text.split("\ncodes! {").skip(1).filter_map(made).collect::<Vec<_>>()
    };
    sources.iter().flat_map(enums).collect()
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

#[test]
fn every_code_of_the_program_is_in_the_catalogue() {
    let listed: BTreeSet<String> = catalogue::all()
        .iter()
        .map(|entry| entry.variant.split("::").next().unwrap_or_default().to_owned())
        .collect();
    let tables = tables(&sources(&["src", "backends"]));
    assert!(tables.contains("Code"), "the search finds no table");
    assert_eq!(tables, listed, "src/catalogue.rs does not list the tables that codes! makes");
}

#[test]
fn no_code_is_dead() {
    let sources = sources(&["src", "backends"]);
    let tables = tables(&sources);
    let lines = || sources.iter().flat_map(code);
    let used: BTreeSet<String> = tables
        .iter()
        .flat_map(|table| {
            lines().flat_map(move |line| variants(line, table).map(move |name| format!("{table}::{name}")))
        })
        .collect();
    let dead: Vec<&str> = catalogue::all()
        .iter()
        .filter(|entry| !used.contains(entry.variant))
        .map(|entry| entry.code)
        .collect();
    assert!(dead.is_empty(), "nothing in the program uses {dead:?}");
}

/// A code that is text where it is made would be in no catalogue.
#[test]
fn no_code_is_spelt_out_by_the_program() {
    for source in sources(&["src", "backends"]) {
        // A code of one word is also a word.
        for entry in catalogue::all().iter().filter(|entry| entry.code.contains('-')) {
            let spelt = format!("\"{}\"", entry.code);
            let line = code(&source).find(|line| {
                line.contains(&spelt) && !line.contains(": Warning") && !line.contains(": Broken")
            });
            assert_eq!(line, None, "{} spells a code", source.path);
        }
    }
}
