//! Tests of the rule texts and their repair.

use super::rules::*;
use super::version;
use ipnet::IpNet;
use twill_backends::filter::{Filter, FilterNet, Masquerade};

const MASQ: &Hook = &HOOKS[0];
const FORWARD: &Hook = &HOOKS[1];

fn filter(network: &str, subnet: &str) -> Filter {
    Filter {
        nets: vec![FilterNet { network: network.parse().unwrap(), subnet: subnet.parse().unwrap() }],
        masquerade: Some(Masquerade { random_fully: true }),
        forward: true,
    }
}

fn want() -> Filter {
    filter("10.5.0.0/16", "10.5.1.0/24")
}

fn nets() -> Vec<IpNet> {
    vec!["10.5.0.0/16".parse().unwrap()]
}

/// What `iptables-save -t nat` prints when `want` is in force.
fn saved(hook: &Hook, want: &Filter, extra: &[&str]) -> String {
    let mut lines = vec![format!("*{}", hook.table), format!(":{} ACCEPT [0:0]", hook.parent)];
    lines.push(format!(":{} - [0:0]", hook.chain));
    lines.push(format!("-A {} -m comment --comment \"other -j {}\" -j OTHER", hook.parent, hook.chain));
    lines.push(format!("-A {} {}", hook.parent, hook.jump()));
    lines.extend(hook.rules(want, false, true).iter().map(|rule| format!("-A {} {rule}", hook.chain)));
    lines.extend(extra.iter().map(|&line| line.to_owned()));
    lines.push("COMMIT".to_owned());
    lines.join("\n")
}

fn repair(hook: &Hook, saved: &str) -> Option<Repair> {
    hook.repair(&hook.rules(&want(), false, true), &hook.parse(saved), &nets())
}

#[test]
fn rules_are_flannelds_to_the_letter() {
    let c = "-m comment --comment \"flanneld masq\"";
    assert_eq!(
        MASQ.rules(&want(), false, true),
        [
            format!("-m mark --mark 0x4000/0x4000 {c} -j RETURN"),
            format!("-s 10.5.1.0/24 -d 10.5.0.0/16 {c} -j RETURN"),
            format!("-s 10.5.0.0/16 -d 10.5.1.0/24 {c} -j RETURN"),
            format!("! -s 10.5.0.0/16 -d 10.5.1.0/24 {c} -j RETURN"),
            format!("-s 10.5.0.0/16 ! -d 224.0.0.0/4 {c} -j MASQUERADE --random-fully"),
            format!("! -s 10.5.0.0/16 -d 10.5.0.0/16 {c} -j MASQUERADE --random-fully"),
        ]
    );
    let c = "-m comment --comment \"flanneld forward\"";
    assert_eq!(
        FORWARD.rules(&want(), false, true),
        [format!("-s 10.5.0.0/16 {c} -j ACCEPT"), format!("-d 10.5.0.0/16 {c} -j ACCEPT")]
    );
    assert!(MASQ.rules(&want(), true, true).is_empty());
    let v6 = filter("fc00::/48", "fc00:0:0:1::/64");
    assert!(MASQ.rules(&v6, true, false)[4].starts_with("-s fc00::/48 ! -d ff00::/8"));
    assert!(MASQ.rules(&v6, true, false)[4].ends_with("-j MASQUERADE"));
}

#[test]
fn what_is_right_is_left_alone() {
    for hook in &HOOKS {
        assert_eq!(repair(hook, &saved(hook, &want(), &[])), None);
    }
    let reordered = saved(MASQ, &want(), &[]).replace(
        "-m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN",
        "-m comment --comment \"flanneld masq\" -m mark --mark 0x4000/0x4000 -j RETURN",
    );
    assert_eq!(repair(MASQ, &reordered), None);
}

#[test]
fn nothing_there_is_filled_in_one_block() {
    let repair = repair(FORWARD, "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n").unwrap();
    assert_eq!(
        repair.input,
        "*filter\n:FLANNEL-FWD - [0:0]\n\
         -A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT\n\
         -A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT\n\
         -A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\nCOMMIT\n"
    );
    assert_eq!(repair.why, "the chain is missing");
}

#[test]
fn damage_in_the_chain_is_refilled_without_touching_the_jump() {
    let good = saved(MASQ, &want(), &[]);
    let lines: Vec<&str> = good.lines().collect();
    let first = lines.iter().position(|line| line.starts_with("-A FLANNEL-POSTRTG")).unwrap();
    let damaged = |damage: &dyn Fn(&mut Vec<&str>)| {
        let mut lines = lines.clone();
        damage(&mut lines);
        repair(MASQ, &lines.join("\n")).unwrap()
    };
    for repair in [
        damaged(&|lines| {
            lines.remove(first + 2);
        }),
        damaged(&|lines| lines.swap(first, first + 4)),
        damaged(&|lines| lines.push(lines[first + 1])),
        damaged(&|lines| lines.push("-A FLANNEL-POSTRTG -j RETURN")),
        damaged(&|lines| lines[first + 4] = "-A FLANNEL-POSTRTG -s 10.5.0.0/16 -j MASQUERADE"),
    ] {
        assert_eq!(repair.why, "the rules of the chain differ");
        assert!(repair.input.starts_with("*nat\n:FLANNEL-POSTRTG - [0:0]\n-A FLANNEL-POSTRTG -m mark"));
        assert!(!repair.input.contains("POSTROUTING"), "{}", repair.input);
    }
}

#[test]
fn jumps_are_made_one_and_right() {
    let good = saved(MASQ, &want(), &[]);
    let jump = format!("-A POSTROUTING {}", MASQ.jump());
    let none = repair(MASQ, &good.replace(&jump, "")).unwrap();
    assert_eq!(none.input, format!("*nat\n{jump}\nCOMMIT\n"));
    let twice = repair(MASQ, &good.replace(&jump, &format!("{jump}\n{jump}"))).unwrap();
    assert_eq!(twice.input, format!("*nat\n{}\nCOMMIT\n", jump.replace("-A ", "-D ")));
    let odd = repair(MASQ, &saved(MASQ, &want(), &["-A POSTROUTING -o eth0 -j FLANNEL-POSTRTG"])).unwrap();
    assert_eq!(odd.input, "*nat\n-D POSTROUTING -o eth0 -j FLANNEL-POSTRTG\nCOMMIT\n");
}

#[test]
fn another_fabrics_rules_stay() {
    let other = filter("10.9.0.0/16", "10.9.3.0/24");
    let theirs: Vec<String> = MASQ.rules(&other, false, true)[1..]
        .iter()
        .map(|rule| format!("-A FLANNEL-POSTRTG {rule}"))
        .collect();
    let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
    assert_eq!(repair(MASQ, &saved(MASQ, &want(), &theirs)), None);

    // Ours are added in front of theirs, and taken away from among them.
    let beside = repair(MASQ, &saved(MASQ, &other, &[])).unwrap();
    assert!(theirs.iter().all(|line| beside.input.contains(line)) && beside.input.contains("-s 10.5.0.0/16"));
    let gone = MASQ.repair(&[], &MASQ.parse(&saved(MASQ, &want(), &theirs)), &nets()).unwrap();
    assert!(theirs.iter().all(|line| gone.input.contains(line)) && !gone.input.contains("10.5.0.0/16"));
    assert!(gone.input.contains("--mark 0x4000/0x4000") && !gone.input.contains("-X"));
    let left = saved(MASQ, &other, &[]);
    assert_eq!(MASQ.repair(&[], &MASQ.parse(&left), &nets()), None);
    // Nobody's network known: everything in the chain is ours.
    assert!(MASQ.repair(&[], &MASQ.parse(&left), &[]).unwrap().input.contains("-X FLANNEL-POSTRTG"));
}

#[test]
fn removal_takes_the_jumps_before_the_chain() {
    let removal = FORWARD.repair(&[], &FORWARD.parse(&saved(FORWARD, &want(), &[])), &nets()).unwrap();
    assert_eq!(
        removal.input,
        "*filter\n-D FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n\
         -F FLANNEL-FWD\n-X FLANNEL-FWD\nCOMMIT\n"
    );
    assert_eq!(FORWARD.repair(&[], &Found::default(), &nets()), None);
}

#[test]
fn policies_and_versions_are_read() {
    assert_eq!(policy("*filter\n:FORWARD DROP [1:2]\n", "FORWARD"), Some("DROP"));
    assert_eq!(policy("*filter\n:FORWARDED DROP [1:2]\n", "FORWARD"), None);
    assert_eq!(version("iptables v1.8.9 (nf_tables)"), Some((1, 8, 9)));
    assert_eq!(version("iptables v1.6.2"), Some((1, 6, 2)));
    assert_eq!(version("1.0"), Some((1, 0, 0)));
    assert_eq!(version("none"), None);
}
