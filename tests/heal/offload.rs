//! Who finishes checksums: found out by a trial, kept as found out, and never at the cost of a packet.

use std::time::Duration;

use serde_json::Value;
use twill::lab::probe::tcp_gbps;
use twill::lab::{Cancel, LabError, Netns, Spoiler};

use crate::datapath::VXLAN;
use crate::dump::sh;
use crate::fabric::{Fabric, Families, lab, need_namespaces, wait_for};

/// What the device does, by what ethtool(8) says.
fn offload(net: &Netns) -> bool {
    sh(net, "ethtool -k flannel.1").contains("tx-checksum-ip-generic: on")
}

/// What the agent says of the IPv4 device.
fn said(fabric: &Fabric, index: usize) -> Value {
    fabric.status(index)["network"]["datapath"]["checksums"][0].clone()
}

/// Waits until a trial had something to say, and the device is as said.
fn wait_tried(fabric: &Fabric, index: usize) -> Value {
    wait_for("the end of a trial", || {
        let said = said(fabric, index);
        let found = if said["spoilt"].is_null() { "at 2 hosts" } else { "do not arrive at" };
        let whole = said["because"]
            .as_str()
            .is_some_and(|because| because.contains(found) || because.starts_with("--"));
        let done =
            said["tested"] == true && whole && said["offload"] == offload(&fabric.lab.hosts[index].net);
        done.then(|| said.clone()).ok_or(said)
    })
}

/// How much TCP carries from one pod to another, in Gbit/s.
fn transfer(fabric: &Fabric, from: usize, to: usize) -> Result<f64, LabError> {
    let (from, to) = (&fabric.pods[from], &fabric.pods[to]);
    tcp_gbps(&from.net, &to.net, to.addresses[0], Duration::from_secs(1), &Cancel::default())
}

#[test]
fn what_arrives_whole_is_left_to_the_device_whatever_somebody_changes() {
    need_namespaces!();
    let off = ["--checksum-offload", "off"];
    let fabric = Fabric::mixed(Families::Dual, VXLAN, [&[], &[], &off]);
    for index in [0, 1] {
        let said = wait_tried(&fabric, index);
        println!("{said:#}");
        assert_eq!((&said["offload"], &said["udp"]), (&true.into(), &true.into()), "{said}");
        assert!(said["because"].as_str().unwrap().contains("arrives whole"), "{said}");
    }
    let told = wait_tried(&fabric, 2);
    assert_eq!((&told["offload"], &told["because"]), (&false.into(), &"--checksum-offload off".into()));
    let net = &fabric.lab.hosts[0].net;
    assert!(!sh(net, "ip -o link").contains("twill-try"), "a stand-in is left over");
    let streams = fabric.streams(500);
    streams.wait_running();
    for (index, word) in [(0, "off"), (2, "on")] {
        let net = &fabric.lab.hosts[index].net;
        let before = fabric.status(index)["reconcile"]["repairs"].clone();
        sh(net, &format!("ethtool -K flannel.1 tx {word}"));
        wait_for("the offload to be put back", || {
            (offload(net) == (word == "off")).then_some(()).ok_or(word)
        });
        wait_for("a repair to be counted", || {
            let repairs = fabric.status(index)["reconcile"]["repairs"].clone();
            (repairs.as_u64() > before.as_u64()).then_some(()).ok_or(repairs)
        });
    }
    streams.assert_lossless("offloads that somebody changes");
}

#[test]
fn checksums_that_are_spoilt_on_the_way_are_finished_before() {
    need_namespaces!();
    let lab = lab(3, Families::V4);
    let spoiler = Spoiler::start(&lab, 0).unwrap();
    let on = ["--checksum-offload", "on"];
    let mut fabric = Fabric::on(lab, Families::V4, VXLAN, [&[], &[], &on]);
    for index in [0, 1] {
        let said = wait_tried(&fabric, index);
        println!("{said:#}");
        assert_eq!((&said["offload"], &said["spoilt"]), (&false.into(), &said["because"]), "{said}");
        assert!(said["because"].as_str().unwrap().contains("do not arrive at"), "{said}");
        let doctor = fabric.twill(index, &["doctor"]);
        assert!(String::from_utf8_lossy(&doctor.stdout).contains("offload-spoilt"), "{doctor:?}");
    }
    assert!(transfer(&fabric, 0, 1).unwrap() > 0.0 && transfer(&fabric, 1, 0).unwrap() > 0.0);
    // The third host insists, so that what it answers the first one is spoilt.
    wait_for("the second host to have nothing to complain of", || {
        let status = fabric.status(1);
        (status["state"] == "ok").then_some(()).ok_or(status)
    });
    // Who insists gets what was asked for, and is told.
    let insists = wait_tried(&fabric, 2);
    assert_eq!(insists["offload"], true);
    wait_for("a complaint", || {
        let faults = fabric.status(2)["faults"].clone();
        faults.to_string().contains("offload-forced").then_some(()).ok_or(faults)
    });
    assert!(transfer(&fabric, 2, 0).is_err(), "the card spoils nothing");
    assert!(transfer(&fabric, 2, 1).unwrap() > 0.0);
    // What was found out outlives the agent, so that not a packet is sent the wrong way until it is found out again.
    fabric.agents[0].restart().unwrap();
    fabric.wait_ready();
    assert!(!offload(&fabric.lab.hosts[0].net));
    assert_eq!(said(&fabric, 0)["tested"], true);
    drop(spoiler);
}
