//! What an agent, each thread of it, its successor and the programs they run may still do.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::datapath::{PLAIN, USERSPACE, VXLAN};
use crate::dump::sh;
use crate::fabric::{Fabric, Families, PATIENCE, files, need_namespaces, options, wait_for};
use crate::handover::Stray;

const FIELDS: [&str; 7] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];
/// NET_ADMIN, NET_RAW and NET_BIND_SERVICE in five sets; nothing more by running a program; filtered.
const CONFINED: [&str; 7] = [
    "0000000000003400",
    "0000000000003400",
    "0000000000003400",
    "0000000000003400",
    "0000000000003400",
    "1",
    "2",
];

fn fields(status: &str) -> [String; 7] {
    FIELDS.map(|field| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":"));
        line.unwrap_or_else(|| panic!("no {field} in {status}")).trim().to_owned()
    })
}

/// What is said of all threads of a process.
fn threads(pid: u32) -> (usize, BTreeSet<[String; 7]>) {
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().collect();
    let statuses =
        tasks.iter().flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let seen = statuses.map(|status| fields(&status)).collect();
    (tasks.len(), seen)
}

fn assert_confined(pid: u32, least: usize) {
    let (count, seen) = threads(pid);
    assert!(count >= least, "{count} threads");
    assert_eq!(seen, BTreeSet::from([CONFINED.map(str::to_owned)]));
}

fn filters(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp_filters:"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[test]
fn every_thread_and_every_successor_is_confined() {
    need_namespaces!();
    let nft: &[&str] = &["--ip-masq", "--firewall=nftables", "--datapath=kernel"];
    let iptables: &[&str] = &["--ip-masq", "--firewall=iptables", "--datapath=kernel"];
    let mut fabric = Fabric::mixed(Families::Dual, VXLAN, [nft, iptables, USERSPACE]);
    for (index, least) in [(0, 1), (1, 1), (2, 2)] {
        assert_confined(fabric.agents[index].pid(), least);
        assert!(fabric.agents[index].log().contains("confined"), "it says so");
    }
    // What it runs and what it makes still works: rules of both kinds, devices of both kinds, settings.
    let rules = "nft flush ruleset; echo 0 > /proc/sys/net/ipv4/ip_forward";
    for (index, device) in [(0, "ip link del flannel.1"), (1, "ip link del flannel.1"), (2, "true")] {
        let before = fabric.state(index);
        sh(&fabric.lab.hosts[index].net, &format!("{rules}; {device}"));
        wait_for("a host that is whole again", || {
            let differs = crate::dump::difference(&before, &fabric.state(index));
            if differs.is_empty() { Ok(()) } else { Err(differs) }
        });
    }
    fabric.wait_settled();
    fabric.wait_reachable();
    // One after the other, each started by the one before, with no more filters than the first.
    for index in 0..3 {
        let (mut last, had) = (fabric.agents[index].pid(), filters(fabric.agents[index].pid()));
        let _strays: Vec<Stray> = (0..2)
            .map(|_| {
                nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(i32::try_from(last).unwrap()),
                    Signal::SIGUSR2,
                )
                .unwrap();
                let pid = wait_for("a successor", || {
                    let pid = u32::try_from(fabric.status(index)["pid"].as_u64().unwrap_or(0)).unwrap();
                    (pid != last && pid != 0).then_some(pid).ok_or(pid)
                });
                last = pid;
                Stray(pid)
            })
            .collect();
        fabric.agents[index].wait(PATIENCE).unwrap();
        assert_confined(last, 1);
        assert_eq!(filters(last), had);
        wait_for("a settled successor", || {
            let status = fabric.status(index);
            (status["state"] == "ok").then_some(()).ok_or(status)
        });
        fabric.wait_reachable();
    }
}

#[test]
fn another_datapath_and_what_it_needs_are_had_all_the_same() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, &["--datapath=kernel"]);
    for flags in [USERSPACE, PLAIN, &["--datapath=kernel"]] {
        fabric.agents[0].restart_with(options(files(&fabric.lab), flags)).unwrap();
        fabric.wait_ready();
        fabric.wait_settled();
        fabric.wait_reachable();
        assert_confined(fabric.agents[0].pid(), 1);
    }
}

#[test]
fn who_asks_for_it_keeps_everything() {
    need_namespaces!();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let fabric = Fabric::new(Families::V4, VXLAN, &["--confine", "off"]);
    let (_, seen) = threads(fabric.agents[0].pid());
    assert_eq!(seen, BTreeSet::from([fields(&own)]));
}

/// A program that an agent runs: what it can do to the host.
#[test]
fn a_program_that_is_run_gains_nothing() {
    need_namespaces!();
    let fabric = Fabric::new(Families::V4, VXLAN, &[]);
    let bin = fabric.lab.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    let told = fabric.lab.dir().join("told");
    let mut script = String::from("#!/bin/sh\n");
    for (name, line) in [
        ("unshare", "unshare -m true"),
        ("user", "unshare -U true"),
        ("chroot", "chroot / true"),
        ("clock", "date -s @$(date +%s)"),
        ("name", "hostname $(hostname)"),
        ("node", "mknod $0.node c 1 3"),
        ("owner", "chown 12345 $0"),
        ("network", "ip link add probe0 type veth peer name probe1 && ip link del probe0"),
    ] {
        script += &format!(
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin; ({line}) >/dev/null 2>&1 && echo {name} >> {}\n",
            told.display()
        );
    }
    script += &format!("echo end >> {}\nexec /usr/sbin/nft \"$@\"\n", told.display());
    let nft = bin.join("nft");
    fs::write(&nft, script).unwrap();
    fs::set_permissions(&nft, fs::Permissions::from_mode(0o755)).unwrap();
    let mut with = options(files(&fabric.lab), &["--firewall=nftables"]);
    with.env.push(("PATH".into(), format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()).into()));
    let mut fabric = fabric;
    fabric.agents[0].restart_with(with).unwrap();
    fabric.wait_ready();
    let told = wait_for("the program", || {
        let told = fs::read_to_string(&told).unwrap_or_default();
        if told.contains("end") { Ok(told) } else { Err(told) }
    });
    let could: BTreeSet<&str> = told.lines().collect();
    assert_eq!(could, BTreeSet::from(["network", "end"]));
}
