//! The units as systemd's own tools judge them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::shipped;

/// flanneld's unit as flannel's documentation has it, with its flags in variables.
pub(crate) const FLANNELD: &str = "[Unit]\nDescription=flanneld\n\n[Service]\nType=notify\nEnvironmentFile=-/etc/default/flanneld\n\
                        ExecStart=/usr/bin/flanneld --ip-masq\nRestart=always\n\n[Install]\nWantedBy=multi-user.target\n";

/// A tree with the programs that the units name and the units of the distribution.
fn tree() -> Option<TempDir> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("SKIP: systemd-analyze is not installed");
        return None;
    }
    let root = TempDir::new().unwrap();
    let at = |place: &str| root.path().join(place);
    for folder in ["etc/systemd/system/flanneld.service.d", "usr/bin", "usr/lib/systemd"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    symlink("usr/bin", at("bin")).unwrap();
    symlink("usr/lib", at("lib")).unwrap();
    // Links are followed inside the tree only.
    let units = Command::new("cp").arg("-a").arg("/lib/systemd/system").arg(at("usr/lib/systemd")).status();
    assert!(units.unwrap().success());
    for program in ["bin/touch", "bin/kill", "bin/etcd", "local/bin/twill", "local/libexec/twill/flanneld"] {
        let place = at("usr").join(program);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy("/bin/true", place).unwrap();
    }
    for unit in ["systemd/twill.service", "etcd/twill-etcd.service", "flanneld.service.d/twill.conf"] {
        let place = unit.strip_prefix("systemd/").or(unit.strip_prefix("etcd/")).unwrap_or(unit);
        fs::copy(shipped::path(unit), at("etc/systemd/system").join(place)).unwrap();
    }
    fs::write(at("etc/systemd/system/flanneld.service"), FLANNELD).unwrap();
    Some(root)
}

fn analyze(root: &Path, args: &[&str]) -> Output {
    let root = format!("--root={}", root.display());
    Command::new("systemd-analyze").arg("--no-pager").arg(root).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn systemd_finds_nothing_to_object_to() {
    let Some(root) = tree() else { return };
    for unit in ["twill.service", "twill-etcd.service", "flanneld.service"] {
        let verified = analyze(root.path(), &["--man=no", "--recursive-errors=no", "verify", unit]);
        assert!(
            verified.status.success() && text(&verified).trim().is_empty(),
            "{unit}: {}",
            text(&verified)
        );
    }
    // It does see a mistake.
    let place = root.path().join("etc/systemd/system/twill.service");
    let wrong = shipped::text("systemd/twill.service").replace("ProtectClock=", "ProtectClocks=");
    fs::write(place, wrong).unwrap();
    assert!(text(&analyze(root.path(), &["--man=no", "verify", "twill.service"])).contains("ProtectClocks"));
}

#[test]
fn the_units_expose_no_more_than_they_must() {
    let Some(root) = tree() else { return };
    // Tenths of systemd's measure, of which 100 is a service without any restriction. One of them is packet sockets, by
    // which checksums are tried.
    for (unit, most) in [("twill.service", "30"), ("twill-etcd.service", "15"), ("flanneld.service", "30")] {
        let threshold = format!("--threshold={most}");
        let judged = analyze(root.path(), &["--offline=yes", &threshold, "security", unit]);
        let said = text(&judged);
        assert!(judged.status.success() && said.contains("Overall exposure level"), "{unit}: {said}");
    }
}

#[test]
fn the_drop_in_makes_flanneld_s_unit_the_agent_s() {
    let unit = service("systemd/twill.service");
    let drop_in = service("flanneld.service.d/twill.conf");
    // What the two do not share: where flags come from and under which name the program runs.
    let own = |line: &&String| line.starts_with("ExecStart=") || line.starts_with("EnvironmentFile=");
    let missing: Vec<_> = unit.difference(&drop_in).filter(|line| !own(line)).collect();
    let surplus: Vec<_> =
        drop_in.difference(&unit).filter(|line| !own(line) && !line.ends_with('=')).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");
    assert!(drop_in.contains("ExecStart=/usr/local/libexec/twill/flanneld $FLANNEL_OPTIONS"));
}

/// The lines of a unit's section `Service`.
fn service(file: &str) -> BTreeSet<String> {
    let settings = shipped::settings(&shipped::text(file)).into_iter();
    settings
        .filter(|(section, ..)| section == "Service")
        .map(|(_, key, value)| format!("{key}={value}"))
        .collect()
}
