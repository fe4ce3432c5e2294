//! The Dockerfile, as far as that can be told without a daemon: its instructions, where it copies from, and that what
//! the DaemonSet starts is in it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{kubernetes, shipped};

/// An instruction and its words.
type Line = (String, Vec<String>);

fn lines() -> Vec<Line> {
    let text = shipped::text("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        (name.to_owned(), rest.split_whitespace().map(str::to_owned).collect())
    };
    lines.map(split).collect()
}

/// Each `COPY`: the stage it is in, that which it takes from, its sources, and its destination.
fn copies(lines: &[Line]) -> Vec<(String, Option<String>, Vec<String>, String)> {
    let mut stage = String::new();
    let mut copies = Vec::new();
    for (name, words) in lines {
        match name.as_str() {
            "FROM" => words.last().unwrap().clone_into(&mut stage),
            "COPY" => {
                let (mut words, to) = (words[..words.len() - 1].to_vec(), words.last().unwrap().clone());
                let from = words[0].strip_prefix("--from=").map(str::to_owned);
                words.retain(|word| !word.starts_with("--"));
                copies.push((stage.clone(), from, words, to));
            }
            _ => {}
        }
    }
    copies
}

#[test]
fn every_instruction_and_stage_is_known() {
    let known = ["ARG", "FROM", "COPY", "RUN", "ENV", "ENTRYPOINT"];
    let lines = lines();
    let mut stages = Vec::new();
    for (name, words) in &lines {
        assert!(known.contains(&name.as_str()), "{name}");
        if name == "FROM" {
            if let Some(prefix) = words[0].strip_suffix("${TARGETARCH}") {
                for arch in ["amd64", "arm64"] {
                    assert!(stages.contains(&format!("{prefix}{arch}")), "no stage {prefix}{arch}");
                }
            }
            stages.extend(words.get(2).cloned());
        }
    }
    for (_, from, ..) in copies(&lines) {
        assert!(from.is_none_or(|stage| stages.contains(&stage)));
    }
}

#[test]
fn what_is_copied_is_there_or_is_built() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = |source: &str| {
        let machines =
            ["x86_64", "aarch64"].map(|machine| format!("target/{machine}-unknown-linux-${{LIBC}}/"));
        let program = machines.iter().find_map(|folder| source.strip_prefix(folder));
        matches!(program, Some("release/twill" | "cni/twill-cni"))
    };
    let mut built = 0;
    for (_, from, sources, _) in copies(&lines()) {
        for source in sources.iter().filter(|_| from.is_none()) {
            built += usize::from(made(source));
            assert!(made(source) || root.join(source).is_file(), "{source} is not in the repository");
        }
    }
    assert_eq!(built, 4, "two programs for each of two machines");
}

#[test]
fn what_the_pods_start_is_in_the_image() {
    let lines = lines();
    let mut there = BTreeMap::new();
    for (_, _, sources, to) in copies(&lines).into_iter().filter(|(stage, ..)| stage.starts_with("alpine")) {
        for source in sources {
            let name = source.rsplit('/').next().unwrap();
            let place = if to.ends_with('/') { format!("{to}{name}") } else { to.clone() };
            there.insert(place, source.clone());
        }
    }
    let entry = &lines.iter().find(|(name, _)| name == "ENTRYPOINT").unwrap().1[0];
    let entry: Vec<String> = serde_json::from_str(entry).unwrap();
    assert!(there.contains_key(&entry[0]), "{entry:?} {there:?}");
    for command in kubernetes::commands() {
        assert!(there.contains_key(&command), "{command} {there:?}");
    }
    // Where the script that installs the plugin looks for it.
    assert!(
        shipped::text("install-cni").contains("/opt/bin/twill-cni")
            && there.contains_key("/opt/bin/twill-cni")
    );
}
