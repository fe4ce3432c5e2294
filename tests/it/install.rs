//! `make install` with the programs of this build, into a folder: each file is in its place, with its mode, and is of use.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folders of `manifests/` whose files go onto a host.
const FOLDERS: [&str; 7] =
    ["systemd", "cni", "networkmanager", "networkd", "udev", "etcd", "flanneld.service.d"];
/// Files that are made when installing, and the two programs.
const MADE: [&str; 12] = [
    "opt/cni/bin/flannel",
    "opt/cni/bin/twill",
    "usr/bin/twill",
    "usr/share/bash-completion/completions/twill",
    "usr/share/fish/vendor_completions.d/twill.fish",
    "usr/share/man/man8/twill-agent.8",
    "usr/share/man/man8/twill-bench.8",
    "usr/share/man/man8/twill-demo.8",
    "usr/share/man/man8/twill-migrate-check.8",
    "usr/share/man/man8/twill-status.8",
    "usr/share/man/man8/twill.8",
    "usr/share/zsh/site-functions/_twill",
];

/// A folder in place of `/`.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn make(&self, target: &str) -> Output {
        let programs = Path::new(env!("CARGO_BIN_EXE_twill")).parent().unwrap();
        assert_eq!(Path::new(env!("CARGO_BIN_EXE_twill-cni")).parent(), Some(programs));
        let mut make = Command::new("make");
        // Without what the `make` that runs the tests was told.
        for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
            make.env_remove(name);
        }
        make.args(["--no-print-directory", "-C", env!("CARGO_MANIFEST_DIR"), target, "PREFIX=/usr"]);
        make.arg(format!("DESTDIR={}", self.0.path().display()));
        make.arg(format!("BINDIR_FROM={}", programs.display()));
        let output = make.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// All files with their modes.
    fn files(&self) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        walk(self.0.path(), &mut |path| {
            let name = path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
            found.insert(name, fs::metadata(path).unwrap().permissions().mode() & 0o7777);
        });
        found
    }
}

fn walk(dir: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, each) } else { each(&path) }
    }
}

/// What a program prints; it has to succeed and to complain of nothing.
fn clean(program: &str, words: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(words).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `make needs-test` installs it"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{program} {}: {stderr}", file.display());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_file_is_in_its_place_and_goes_again() {
    let root = Root::new();
    root.make("install");
    let files = root.files();
    for (name, mode) in &files {
        let script = name.starts_with("usr/share/twill/") && !name.contains('.');
        let program = script || MADE[..3].contains(&name.as_str());
        assert_eq!(*mode, if program { 0o755 } else { 0o644 }, "{name} has the mode {mode:o}");
    }
    let missing: Vec<_> = MADE.iter().filter(|name| !files.contains_key(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {files:#?}");
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    for folder in FOLDERS {
        walk(&manifests.join(folder), &mut |path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let there = files.keys().any(|file| Path::new(file).file_name().is_some_and(|file| file == name));
            assert!(there, "{} is not installed: give its kind a place in manifests/install", path.display());
        });
    }
    let again = root.make("install");
    assert!(!String::from_utf8(again.stdout).unwrap().contains("kept"), "our own files are replaced");
    assert_eq!(root.files(), files);
    root.make("uninstall");
    assert_eq!(root.files(), BTreeMap::new());
}

#[test]
fn what_an_operator_had_before_is_kept_and_comes_back() {
    let root = Root::new();
    let plugin = root.path("opt/cni/bin/flannel");
    fs::create_dir_all(plugin.parent().unwrap()).unwrap();
    fs::write(&plugin, "flannel's").unwrap();
    for _again in 0..2 {
        root.make("install");
        assert_ne!(fs::read(&plugin).unwrap(), b"flannel's");
    }
    let mut lists = Vec::new();
    walk(&root.path("etc/cni/net.d"), &mut |path| lists.push(path.to_owned()));
    for list in &lists {
        fs::write(list, "{}").unwrap();
    }
    root.make("install");
    root.make("uninstall");
    assert_eq!(fs::read(&plugin).unwrap(), b"flannel's");
    assert!(
        lists.iter().all(|list| fs::read(list).unwrap() == b"{}"),
        "an edited configuration is the operator's"
    );
    assert_eq!(root.files().len(), 1 + lists.len());
    fs::write(root.path("opt/cni/bin/twill"), "somebody's").unwrap();
    root.make("uninstall");
    assert_eq!(fs::read(root.path("opt/cni/bin/twill")).unwrap(), b"somebody's");
}

#[test]
fn a_network_of_the_plugin_under_another_name_stays_the_only_one() {
    let root = Root::new();
    let folder = root.path("etc/cni/net.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("05-other.conflist"), r#"{"plugins":[{"type":"bridge"}]}"#).unwrap();
    let theirs = folder.join("20-podnet.conflist");
    fs::write(&theirs, "{\"name\":\"podnet\",\"plugins\":[{\"type\": \"flannel\"}]}").unwrap();
    let said = String::from_utf8(root.make("install").stdout).unwrap();
    assert!(said.contains(&format!("kept       {}", theirs.display())), "{said}");
    assert!(!folder.join("10-flannel.conflist").exists());
    fs::remove_file(&theirs).unwrap();
    root.make("install");
    assert!(folder.join("10-flannel.conflist").exists());
}

#[test]
fn what_is_installed_works() {
    let root = Root::new();
    root.make("install");
    let flannel = root.path("opt/cni/bin/flannel");
    let mut version = Command::new(flannel);
    let answer = version.env("CNI_COMMAND", "VERSION").stdin(std::process::Stdio::null()).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert!(answer["supportedVersions"].as_array().unwrap().contains(&"1.1.0".into()), "{answer}");

    let bash = root.path("usr/share/bash-completion/completions/twill");
    clean("bash", &["-n"], &bash);
    clean("zsh", &["-n"], &root.path("usr/share/zsh/site-functions/_twill"));
    clean("fish", &["--no-execute"], &root.path("usr/share/fish/vendor_completions.d/twill.fish"));
    let script = "source \"$0\"; COMP_WORDS=(twill agent --etcd-pre) COMP_CWORD=2
                  _twill twill --etcd-pre agent; echo \"${COMPREPLY[*]}\"";
    assert_eq!(clean("bash", &["-c", script], &bash), "--etcd-prefix\n");

    for (name, _mode) in root.files().iter().filter(|(name, _)| name.ends_with(".8")) {
        let page = clean("groff", &["-man", "-Tutf8", "-ww", "-P-cbou"], &root.path(name));
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION"] {
            assert!(page.contains(heading), "{name} has no {heading}:\n{page}");
        }
    }
}

#[test]
fn units_start_the_program_where_it_was_put() {
    let root = Root::new();
    root.make("install");
    let mut starts = 0;
    walk(&root.path("usr/lib/systemd/system"), &mut |unit| {
        let text = fs::read_to_string(unit).unwrap();
        for line in text.lines().filter(|line| line.starts_with("Exec")) {
            let (_, command) = line.split_once('=').unwrap();
            let program = command.trim_start_matches(['-', '@', ':', '+', '!']).split(' ').next().unwrap();
            if program.ends_with("/twill") {
                starts += 1;
                assert_eq!(program, "/usr/bin/twill", "{}: {line}", unit.display());
            }
        }
    });
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/systemd").is_dir();
    assert_eq!(starts > 0, units, "no unit starts twill");
}
