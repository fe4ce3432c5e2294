//! The real binary, under both of its names.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

const TWILL: &str = env!("CARGO_BIN_EXE_twill");

fn run(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(program).args(args).env_clear().envs(env.iter().copied()).output().unwrap()
}

fn twill(args: &[&str], env: &[(&str, &str)]) -> Output {
    run(Path::new(TWILL), args, env)
}

/// Runs the binary through a symbolic link named `flanneld`.
fn flanneld(args: &[&str], env: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("flanneld");
    std::os::unix::fs::symlink(TWILL, &program).unwrap();
    run(&program, args, env)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn version_is_printed_where_each_name_prints_it() {
    let version = env!("CARGO_PKG_VERSION");
    for args in [&["version"][..], &["--version"]] {
        let out = twill(args, &[]);
        assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), format!("twill {version}\n").as_str()));
        assert!(out.stderr.is_empty());
    }
    let out = flanneld(&["-version"], &[]);
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), format!("v{version}+twill\n").as_str()));
    assert!(out.stdout.is_empty());
}

#[test]
fn help_is_printed_where_each_name_prints_it() {
    let out = twill(&["agent", "--help"], &[]);
    assert_eq!(out.status.code(), Some(0));
    assert!(text(&out.stdout).contains("--etcd-endpoints"), "{out:?}");
    let out = flanneld(&["--help"], &[]);
    assert_eq!(out.status.code(), Some(0));
    assert!(out.stdout.is_empty());
    let usage = text(&out.stderr);
    assert!(usage.starts_with("Usage: /") && usage.contains("/flanneld [OPTION]...\n"), "{usage}");
}

#[test]
fn bad_usage_has_an_exit_code_of_its_own() {
    for args in [&[][..], &["nope"], &["agent", "--nope"], &["status", "--store=zk"]] {
        let out = twill(args, &[]);
        assert_eq!((out.status.code(), out.stdout.len()), (Some(64), 0), "{args:?}");
        assert!(!out.stderr.is_empty(), "{args:?}");
    }
    let out = flanneld(&["-nope"], &[]);
    assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0));
    assert!(text(&out.stderr).starts_with("flag provided but not defined: -nope\nUsage: "), "{out:?}");
    let out = flanneld(&["-subnet-lease-renew-margin=1440"], &[]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("give 1 to 1439 (minutes)"), "{out:?}");
}

#[test]
fn each_name_reads_its_own_variables() {
    let kube = [("FLANNELD_KUBE_SUBNET_MGR", "true")];
    let out = flanneld(&[], &kube);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("etcdctl put /coreos.com/network/config"), "{out:?}");
    let out = twill(&["status"], &[("TWILL_STORE", "zk")]);
    assert_eq!(out.status.code(), Some(64));
    assert!(text(&out.stderr).contains("--store is `zk`"), "{out:?}");
    assert_eq!(twill(&["version"], &kube).status.code(), Some(0));
}

#[test]
fn arguments_that_are_not_text_are_refused_without_a_panic() {
    let out = Command::new(TWILL).arg(std::ffi::OsStr::from_bytes(b"\xff")).env_clear().output().unwrap();
    assert_eq!(out.status.code(), Some(64));
    assert!(text(&out.stderr).contains("not UTF-8"), "{out:?}");
}
