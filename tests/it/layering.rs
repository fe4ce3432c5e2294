//! The architecture, held by a test: who may use what, where `unsafe` may stand, how long a file may be.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file, told apart into the program and its tests.
pub(crate) struct Source {
    /// Relative to the repository.
    pub(crate) path: String,
    program: String,
    tests: String,
}

/// Crates that do something to the world, or that belong to one layer, and the folders that may use them. What a folder
/// contains may too.
const LAYERS: &[(&str, &[&str])] = &[
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("rtnetlink", &["src/kernel/netlink/", "src/lab/"]),
    ("netlink_packet_route", &["src/kernel/netlink/", "src/lab/"]),
    (
        "netlink_packet_core",
        &["src/kernel/netlink/", "src/lab/", "src/filter/monitor.rs", "src/cni/netlink.rs"],
    ),
    (
        "netlink_sys",
        &[
            "src/kernel/netlink/",
            "src/lab/",
            "src/filter/generation.rs",
            "src/filter/monitor.rs",
            "src/cni/netlink.rs",
        ],
    ),
    ("etcd_client", &["src/store/etcd/"]),
    ("tonic", &["src/store/etcd/"]),
    ("inotify", &["src/store/file/"]),
    ("axum", &["src/telemetry/"]),
    ("hyper", &["src/commands/"]),
    ("hyper_util", &["src/commands/"]),
    ("ratatui", &["src/commands/", "src/views/"]),
    ("tracing_subscriber", &["src/telemetry/"]),
    ("sd_notify", &["src/commands/"]),
    ("seccompiler", &["src/agent/confine/"]),
    ("socket2", &["src/datapath/", "src/lab/", "src/probe/"]),
    ("ring", &["src/probe/"]),
    ("tar", &["src/bundle/"]),
    ("flate2", &["src/bundle/"]),
    ("aho_corasick", &["src/bundle/"]),
    ("base64", &["src/bundle/"]),
    ("anyhow", &["src/main.rs"]),
    ("crate::cli", &["src/cli/", "src/commands/", "src/agent/report.rs", "src/main.rs"]),
    ("crate::lab", &["src/lab/", "src/commands/"]),
    (
        "crate::agent",
        &[
            "src/agent/",
            "src/commands/",
            "src/doctor/",
            "src/lab/",
            "src/migrate/",
            "src/telemetry/",
            "src/views/",
        ],
    ),
    ("crate::probe", &["src/probe/", "src/agent/", "src/commands/"]),
    ("crate::reconcile", &["src/reconcile/", "src/agent/"]),
    ("crate::telemetry", &["src/telemetry/", "src/commands/"]),
    (
        "crate::kernel",
        &[
            "src/kernel/",
            "src/reconcile/",
            "src/agent/",
            "src/commands/",
            "src/doctor/",
            "src/lab/",
            "src/trace/",
        ],
    ),
];

/// The only files with `unsafe` in them.
const UNSAFE: &[&str] = &[
    "benches/frame.rs",
    "src/datapath/arrays.rs",
    "src/datapath/bind.rs",
    "src/datapath/ethtool.rs",
    "src/datapath/packet.rs",
    "src/datapath/socket.rs",
    "src/datapath/socket/tests.rs",
    "src/datapath/tap.rs",
    "src/lab/process.rs",
];

/// All that `backends` is built of.
const PURE: &[&str] = &["ipnet", "serde", "serde_json", "etherparse"];

const LONGEST: usize = 300;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn sources(folders: &[&str]) -> Vec<Source> {
    let mut files = Vec::new();
    folders.iter().for_each(|folder| walk(&root().join(folder), &mut files));
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|file| read(file)).collect()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(file: &Path) -> Source {
    let text = fs::read_to_string(file).unwrap();
    let path = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let all_tests = path.contains("tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs");
    let cut = if all_tests { 0 } else { tests_start(&text) };
    let (program, tests) = text.split_at(cut);
    Source { path, program: program.to_owned(), tests: tests.to_owned() }
}

/// Where the module of tests begins, which is the last thing in a file. One that is a file of its own may be named anywhere.
fn tests_start(text: &str) -> usize {
    let is_here = |at: &usize| {
        let mut lines = text[at + 1..].lines().skip(1);
        lines.next().is_some_and(|line| line.ends_with('{')) || lines.next().is_none()
    };
    ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub(super) mod ", "\n#[cfg(test)]\npub(crate) mod "]
        .iter()
        .filter_map(|mark| text.rfind(mark))
        .filter(is_here)
        .max()
        .map_or(text.len(), |at| at + 1)
}

/// The text of a program without its comments.
pub(crate) fn code(source: &Source) -> impl Iterator<Item = &str> {
    source.program.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn uses(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        let whole = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
        whole
            && (after.starts_with("::")
                || (line.trim_start().starts_with("use ") && after.starts_with([';', ',', '}'])))
    })
}

#[test]
fn each_crate_and_module_is_used_only_where_it_belongs() {
    let mut strays = Vec::new();
    for source in sources(&["src", "backends"]) {
        for (name, places) in LAYERS {
            let allowed = places.iter().any(|place| source.path.starts_with(place));
            if !allowed && code(&source).any(|line| uses(line, name)) {
                strays.push(format!("{} uses {name}, which belongs to {}", source.path, places.join(", ")));
            }
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

#[test]
fn every_rule_finds_something_to_allow() {
    let sources = sources(&["src"]);
    let unused = |name: &str| !sources.iter().any(|source| code(source).any(|line| uses(line, name)));
    let obsolete: Vec<&str> =
        LAYERS.iter().map(|(name, _)| *name).filter(|name| *name != "anyhow" && unused(name)).collect();
    assert!(obsolete.is_empty(), "nothing uses {obsolete:?}");
}

#[test]
fn a_use_is_told_from_a_word() {
    for (line, name, found) in [
        ("use clap::Parser;", "clap", true),
        ("    clap::Command::new()", "clap", true),
        ("let clapper = 1;", "clap", false),
        ("use crate::cli;", "crate::cli", true),
        ("use crate::client::X;", "crate::cli", false),
        ("use crate::{cli, now};", "crate::cli", false),
        ("netlink_sys::x()", "netlink_sys", true),
    ] {
        assert_eq!(uses(line, name), found, "{line}");
    }
    let braced = |line: &&str| line.trim_start().starts_with("use crate::{");
    for source in sources(&["src"]) {
        assert_eq!(code(&source).find(braced), None, "{}: one `use` per module can be checked", source.path);
    }
}

#[test]
fn backends_is_pure() {
    let manifest = fs::read_to_string(root().join("backends/Cargo.toml")).unwrap();
    let tail = manifest.split("\n[dependencies]\n").nth(1).unwrap();
    let dependencies =
        tail.split("\n[").next().unwrap().lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    for name in dependencies.filter(|name| !name.is_empty() && !name.starts_with('#')) {
        assert!(PURE.contains(&name), "backends depends on {name}");
    }
    let impure = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::process",
        "std::thread",
        "std::env",
        "Instant::now",
        "SystemTime::now",
        "tokio",
        "tracing",
        "fastrand",
        "println!",
        "static mut",
    ];
    for source in sources(&["backends"]) {
        for word in impure {
            let found = code(&source).find(|line| line.contains(word));
            assert_eq!(found, None, "{} is not pure", source.path);
        }
        assert!(!code(&source).any(|line| uses(line, "rand")), "{} is not pure", source.path);
    }
    assert!(fs::read_to_string(root().join("backends/lib.rs")).unwrap().contains("#![forbid(unsafe_code)]"));
}

/// The plugin is started for every container: whatever it links, each start pays for.
#[test]
fn the_cni_plugin_has_no_runtime() {
    let modules = ["cni", "files", "subnet_env"];
    for source in sources(&["src/cni", "src/bin"]) {
        for word in ["tokio", "async ", ".await", "tracing", "clap", "etcd", "regex"] {
            let found =
                code(&source).find(|line| uses(line, word.trim()) || line.contains(&format!(" {word}")));
            assert_eq!(found, None, "{} is to start fast", source.path);
        }
        for line in code(&source).filter(|line| line.trim_start().starts_with("use crate::")) {
            let used = |module: &&str| line.contains(&format!("crate::{module}"));
            assert!(modules.iter().any(used), "{}: {line}", source.path);
        }
    }
}

#[test]
fn unsafe_stands_in_named_files_with_its_reason() {
    for source in sources(&["src", "tests", "benches"]) {
        let lines: Vec<&str> = source.program.lines().chain(source.tests.lines()).collect();
        let word = |line: &&str| {
            line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl")
        };
        let real = |line: &&str| word(line) && !line.contains('"') && !line.trim_start().starts_with("//");
        if lines.iter().any(real) {
            assert!(UNSAFE.contains(&source.path.as_str()), "{} has unsafe code", source.path);
            assert!(lines.iter().any(|line| line.contains("// SAFETY:")), "{} gives no reason", source.path);
        }
    }
}

#[test]
fn no_file_is_longer_than_can_be_read_at_once() {
    let length = |source: &Source| source.program.lines().count();
    let long: Vec<String> = sources(&["src", "backends", "benches"])
        .iter()
        .filter(|source| length(source) > LONGEST)
        .map(|source| format!("{}: {} lines", source.path, length(source)))
        .collect();
    assert!(long.is_empty(), "longer than {LONGEST} lines without tests:\n{}", long.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    for source in sources(&["src", "backends", "benches"]) {
        let first = source.program.lines().next().unwrap_or("//!");
        assert!(
            first.starts_with("//!") || source.path.ends_with("bin.rs"),
            "{} begins with `{first}`",
            source.path
        );
    }
}

#[test]
fn much_of_the_code_is_tests() {
    let (mut program, mut tests) = (0, 0);
    for source in sources(&["src", "backends", "benches", "tests"]) {
        program += source.program.lines().count();
        tests += source.tests.lines().count();
    }
    let share = 100 * tests / (program + tests);
    println!("{program} lines of program, {tests} of tests: {share} %");
    assert!(share >= 40, "{share} % of the lines are tests");
}
