//! Containers come and go.

use std::fs;
use std::thread;

use serde_json::Value;

use crate::rig::{Pod, Rig, TWILL_CNI, V4};

const V6: &str = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00:0:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

fn ips(result: &Value) -> Vec<String> {
    let list = result["ips"].as_array().unwrap();
    list.iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_container_has_an_address_of_each_family_until_it_goes() {
    let two = V4.replace("10.1.0.0/16", "10.1.0.0/16,192.168.0.0/16");
    for (env, addresses) in [(V4, 1), (&two, 1), (V6, 1), (&format!("{V4}{V6}"), 2)] {
        let Some(mut rig) = Rig::new(env) else { return };
        let pod = rig.pod("c1");
        let result = rig.add(&pod);
        assert_eq!(ips(&result).len(), addresses, "{result}");
        let carried = pod.net.addresses("eth0").unwrap();
        let missing: Vec<_> =
            ips(&result).into_iter().filter(|ip| !carried.contains(&ip.parse().unwrap())).collect();
        assert!(missing.is_empty(), "{missing:?} are not among {carried:?}");
        assert_eq!((rig.kept(), rig.reserved().len()), (vec!["c1".to_owned()], addresses));

        rig.conf["prevResult"] = result;
        let check = rig.ask("CHECK", &pod, "eth0");
        assert!(check.ok, "{check:?}");
        pod.net.flush_addresses("eth0").unwrap();
        assert!(!rig.ask("CHECK", &pod, "eth0").ok, "the delegate was not asked");

        fs::remove_file(rig.file("subnet.env")).unwrap();
        for _again in 0..2 {
            let del = rig.ask("DEL", &pod, "eth0");
            assert!(del.ok, "{del:?}");
            assert_eq!((rig.kept(), rig.reserved()), (vec![], vec![]));
        }
        rig.ask("CHECK", &pod, "eth0").error(3);
    }
}

#[test]
fn every_version_of_flannels_plugin_is_spoken() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        rig.conf["cniVersion"] = version.into();
        assert_eq!(rig.add(&pod)["cniVersion"], version);
        assert!(rig.ask("DEL", &pod, "eth0").ok);
    }
}

#[test]
fn the_first_containers_may_come_all_at_once() {
    let Some(rig) = Rig::new(&format!("{V4}{V6}")) else { return };
    let pods: Vec<Pod> = (1..=10).map(|n| rig.pod(&format!("c{n}"))).collect();
    let all = |verb: &str| -> Vec<Value> {
        thread::scope(|scope| {
            let asked: Vec<_> = pods.iter().map(|pod| scope.spawn(|| rig.ask(verb, pod, "eth0"))).collect();
            let replies = asked.into_iter().map(|asked| asked.join().unwrap());
            replies.inspect(|reply| assert!(reply.ok, "{reply:?}")).map(|reply| reply.said).collect()
        })
    };
    let mut addresses: Vec<String> = all("ADD").iter().flat_map(ips).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!((addresses.len(), rig.reserved().len(), rig.kept().len()), (20, 20, 10));
    all("DEL");
    assert_eq!((rig.reserved(), rig.kept()), (vec![], vec![]));
}

#[test]
fn two_networks_of_one_container_go_one_by_one() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    rig.add(&pod);
    let first = rig.conf.clone();
    rig.conf["name"] = "other".into();
    rig.conf["delegate"]["bridge"] = "cni1".into();
    assert!(rig.ask("ADD", &pod, "net1").ok);
    assert_eq!(rig.kept(), ["c1", "c1@net1"]);
    for _again in 0..2 {
        assert!(rig.ask("DEL", &pod, "net1").ok);
        assert_eq!((rig.kept().len(), rig.reserved().len()), (1, 1));
    }
    rig.conf = first;
    assert!(rig.ask("DEL", &pod, "eth0").ok);
    assert_eq!((rig.kept(), rig.reserved()), (vec![], vec![]));
}

#[test]
fn one_network_twice_goes_one_by_one_and_as_often_as_the_runtime_asks() {
    let Some(rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    rig.add(&pod);
    assert!(rig.ask("ADD", &pod, "net1").ok);
    assert_eq!((rig.kept(), rig.reserved().len()), (vec!["c1".to_owned(), "c1@net1".to_owned()], 2));
    for _again in 0..3 {
        assert!(rig.ask("DEL", &pod, "net1").ok);
        assert_eq!((rig.kept(), rig.reserved().len()), (vec!["c1".to_owned()], 1));
    }
    assert!(rig.ask("DEL", &pod, "eth0").ok);
    assert_eq!((rig.kept(), rig.reserved()), (vec![], vec![]));
}

/// Whoever has lost its daemon detaches so.
#[test]
fn a_container_detached_without_its_namespace_has_no_wire_where_its_address_is_free() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let (pod, other) = (rig.pod("c1"), rig.pod("c2"));
    let result = rig.add(&pod);
    rig.add(&other);
    rig.conf["prevResult"] = result;
    let ports = || rig.host().links().unwrap().iter().filter(|link| link.starts_with("veth")).count();
    assert_eq!(ports(), 2);
    let ask = |named: &str| {
        let mut command = rig.command(TWILL_CNI, "DEL", Some((&pod, "eth0")));
        command.env("CNI_NETNS", named);
        rig.send(command, &rig.conf)
    };
    for named in ["", "/run/netns/nobody"] {
        let reply = ask(named);
        assert!(reply.ok, "{reply:?}");
        assert_eq!((ports(), rig.reserved().len(), rig.kept()), (1, 1, vec!["c2".to_owned()]));
    }
    assert!(!pod.net.links().unwrap().contains(&"eth0".to_owned()));
    assert!(other.net.links().unwrap().contains(&"eth0".to_owned()));
}

#[test]
fn a_repeated_add_fails_and_leaves_the_container_attached() {
    let Some(rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    rig.add(&pod);
    let before = pod.net.addresses("eth0").unwrap();
    assert!(!rig.ask("ADD", &pod, "eth0").ok);
    assert_eq!(pod.net.addresses("eth0").unwrap(), before);
    assert_eq!((rig.kept(), rig.reserved().len()), (vec!["c1".to_owned()], 1));
    assert!(rig.ask("DEL", &pod, "eth0").ok);
    assert_eq!((rig.kept(), rig.reserved()), (vec![], vec![]));
}

/// Also where it is the second by which the container is attached to the network.
#[test]
fn a_repeated_add_of_a_further_interface_leaves_both_attached() {
    let Some(rig) = Rig::new(V4) else { return };
    let pod = rig.pod("c1");
    for ifname in ["eth0", "net1"] {
        assert!(rig.ask("ADD", &pod, ifname).ok);
    }
    let before = pod.net.addresses("net1").unwrap();
    assert!(!rig.ask("ADD", &pod, "net1").ok);
    assert_eq!(pod.net.addresses("net1").unwrap(), before);
    assert_eq!((rig.kept().len(), rig.reserved().len()), (2, 2));
    for (ifname, left) in [("net1", 1), ("eth0", 0)] {
        assert!(rig.ask("DEL", &pod, ifname).ok);
        assert_eq!((rig.kept().len(), rig.reserved().len()), (left, left));
    }
}

#[test]
fn while_there_is_no_bridge_one_delegate_runs_at_a_time() {
    let Some(mut rig) = Rig::new(V4) else { return };
    let busy = rig.file("busy").display().to_string();
    // A folder can be made once: a second delegate beside the first one fails.
    rig.fake("bridge", &format!("mkdir {busy} || exit 1; sleep 0.1; rmdir {busy}; echo '{{\"ips\":[]}}'"));
    let pods: Vec<Pod> = (1..=4).map(|n| rig.pod(&format!("c{n}"))).collect();
    thread::scope(|scope| pods.iter().for_each(|pod| drop(scope.spawn(|| rig.add(pod)))));
    assert_eq!(rig.kept().len(), 4);
}
