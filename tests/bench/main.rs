//! `twill bench`, the real binary with real agents: every subject measured, files written, and nothing left behind
//! however it ends. How fast anything was is not judged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use twill::lab::Lab;

const TWILL: &str = env!("CARGO_BIN_EXE_twill");
const SOON: Duration = Duration::from_secs(20);
/// The whole bench, as short as it goes.
const SHORT: &[&str] = &["bench", "--runs", "1", "--seconds", "0.2", "--json"];

/// Says why, and gives up, where network namespaces cannot be made.
macro_rules! need_namespaces {
    () => {
        if let Err(reason) = Lab::available() {
            println!("SKIP: {reason}");
            return;
        }
    };
}

/// Runs the bench to its end.
fn bench(args: &[&str]) -> Output {
    Command::new(TWILL).args(SHORT).args(args).output().unwrap()
}

fn shown(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{stdout}\n{stderr}", output.status)
}

/// The last line of stdout.
fn json(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", shown(output)))
}

fn rows(report: &Value) -> &[Value] {
    report["rows"].as_array().unwrap()
}

/// The different texts under a key.
fn named<'a>(report: &'a Value, key: &str) -> BTreeSet<&'a str> {
    rows(report).iter().map(|row| row[key].as_str().unwrap()).collect()
}

/// Figures that may be nothing: no datagram lost, no time spent in so short a time.
fn may_be_zero(figure: &str) -> bool {
    figure.ends_with("-loss") || figure.ends_with("-cpu") || figure == "idle"
}

fn assert_sound(report: &Value, runs: usize) {
    for row in rows(report) {
        let values: Vec<f64> =
            row["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        assert_eq!(values.len(), runs, "{row}");
        let figure = row["figure"].as_str().unwrap();
        assert!(values.iter().all(|value| *value > 0.0 || may_be_zero(figure)), "{row}");
        let [min, median, max] = ["min", "median", "max"].map(|key| row[key].as_f64().unwrap());
        assert!(min <= median && median <= max, "{row}");
    }
}

#[test]
fn every_subject_is_measured_between_hosts_and_between_pods() {
    need_namespaces!();
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("made/by/it");
    let output = bench(&["--endpoints", "both", "--out", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", shown(&output));
    let report = json(&output);
    assert_sound(&report, 1);
    let all = ["bare", "by-hand", "ceiling", "host-gw", "plain", "userspace", "vxlan"];
    assert_eq!(named(&report, "subject"), BTreeSet::from(all));
    assert_eq!(named(&report, "endpoints"), BTreeSet::from(["hosts", "pods"]));
    let figures = |ends: &str, subject: &str| {
        rows(&report).iter().filter(|row| row["endpoints"] == ends && row["subject"] == subject).count()
    };
    // Two for TCP, UDP and ping each; an agent's own share of TCP, twice, and when idle.
    assert_eq!(figures("hosts", "bare"), 14);
    assert_eq!(figures("pods", "bare"), 0);
    for subject in ["vxlan", "host-gw", "userspace", "plain"] {
        assert_eq!((figures("hosts", subject), figures("pods", subject)), (17, 17), "{subject}");
    }
    let base = rows(&report)
        .iter()
        .filter(|row| row["subject"] == "by-hand" && !may_be_zero(row["figure"].as_str().unwrap()));
    base.for_each(|row| assert_eq!(row["ratio"], 1.0, "{row}"));
    let kept: Value = serde_json::from_str(&fs::read_to_string(folder.join("bench.json")).unwrap()).unwrap();
    assert_eq!(kept, report);
    let picture = fs::read_to_string(folder.join("bench.svg")).unwrap();
    let picture = roxmltree::Document::parse(&picture).unwrap();
    let spreads = picture.descendants().filter(|node| node.attribute("class") == Some("spread")).count();
    assert_eq!(spreads, rows(&report).len());
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(!page.contains("://"), "it refers to something else");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let page = roxmltree::Document::parse_with_options(&page, options).unwrap();
    let numbers = page.descendants().find(|node| node.attribute("id") == Some("numbers")).unwrap();
    let lines = numbers.descendants().filter(|node| node.has_tag_name("tbody"));
    let lines: usize = lines.map(|body| body.children().filter(|row| row.has_tag_name("tr")).count()).sum();
    assert_eq!(lines, rows(&report).len());
    let spreads = page.descendants().filter(|node| node.attribute("class") == Some("spread")).count();
    assert_eq!(spreads, rows(&report).len());
    let words: String = page.descendants().filter_map(|node| node.text()).collect();
    for word in [report["machine"]["kernel"].as_str().unwrap(), "twill bench --runs 1", "made/by/it"] {
        assert!(words.contains(word), "{word}: {words}");
    }
}

#[test]
fn runs_measures_and_subjects_can_be_chosen() {
    need_namespaces!();
    let output = bench(&[
        "--runs",
        "2",
        "--only",
        "userspace,by-hand",
        "--measure",
        "udp-1400,tcp-1",
        "--ipv6",
        "--batch",
        "1",
    ]);
    assert!(output.status.success(), "{}", shown(&output));
    let report = json(&output);
    assert_sound(&report, 2);
    assert_eq!(
        (&report["family"], &report["runs"], &report["batch"]),
        (&"ipv6".into(), &2.into(), &1.into())
    );
    assert_eq!(named(&report, "subject"), BTreeSet::from(["by-hand", "userspace"]));
    let text = shown(&output);
    for shown in ["Endpoints: hosts", "÷ by-hand", "tcp-1, Gbit/s", "udp-1400-loss, %", "2 runs on"] {
        assert!(text.contains(shown), "no {shown:?}: {text}");
    }
    assert!(!text.contains('\x1b'), "escape codes in a pipe: {text}");
}

#[test]
fn the_congestion_control_is_the_one_asked_for_or_an_error_names_it() {
    need_namespaces!();
    let only = ["--only", "bare", "--measure", "tcp-1"];
    let output = bench(&[&only[..], &["--congestion", "reno"]].concat());
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(json(&output)["congestion"], "reno");
    let output = bench(&[&only[..], &["--congestion", "nonesuch"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(json(&output)["error"].as_str().unwrap().contains("congestion control nonesuch"));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_before_anything_is_measured() {
    need_namespaces!();
    let output = bench(&["--out", "/proc/nowhere"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(json(&output)["error"].as_str().unwrap().contains("create /proc/nowhere"));
}

#[test]
fn wrong_values_are_bad_usage() {
    for args in [
        ["--seconds", "0"],
        ["--only", "kernel"],
        ["--measure", "tcp"],
        ["--endpoints", "all"],
        ["--runs", "0"],
    ] {
        let output = bench(&args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", shown(&output));
    }
}

/// The lab folders of a process.
fn traces(pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().contains(&format!("twill-lab-{pid}-"))).collect()
}

/// The agents of a bench: processes whose parent it is.
fn children(child: &Child) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().flatten();
    let all: Vec<String> =
        tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default()).collect();
    all.iter().flat_map(|pids| pids.split_whitespace()).map(|pid| pid.parse().unwrap()).collect()
}

/// Stopped agents have to be ended, too.
#[test]
fn ctrl_c_in_the_middle_leaves_nothing_but_what_was_measured() {
    need_namespaces!();
    let mut child = Command::new(TWILL)
        .args(["bench", "--runs", "100", "--seconds", "0.1", "--json"])
        .args(["--only", "by-hand,userspace,plain", "--measure", "tcp-1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("1 of 100") {
        assert!(stdout.read_line(&mut text).unwrap() > 0, "{text}");
    }
    let agents = children(&child);
    assert_eq!(agents.len(), 4, "{text}");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{text}");
    let report: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(report["error"].as_str().unwrap().contains("interrupted"), "{report}");
    assert!(!rows(&report).is_empty(), "{report}");
    let begin = Instant::now();
    while agents.iter().any(|pid| PathBuf::from(format!("/proc/{pid}/exe")).exists()) {
        assert!(begin.elapsed() < SOON, "{agents:?} still run");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(traces(child.id()), Vec::<PathBuf>::new());
}
