//! Leases that are lost, taken, deleted or reserved while pods run in them: a host writes only what is its own, and
//! forwards whatever it holds.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use twill::lab::Process;

use crate::ask::{faults, status, throughout, wait, wait_fault, wait_ok, wait_status};
use crate::fabric::{CONFIG, Fabric, SOON, VXLAN, fabric, key, nothing_lost, subnet};

fn node(fabric: &Fabric, agent: usize) -> String {
    status(&fabric.agents[agent])["node"].as_str().unwrap().to_owned()
}

/// Everything that is written under a key from here on, as etcdctl prints it.
fn history(fabric: &Fabric, subnet_key: &str) -> Process {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &fabric.etcd.endpoint(), "watch", &key(subnet_key)]);
    let log = fabric.lab.dir().join("history");
    Process::spawn(&fabric.lab.underlay.net, "etcdctl watch", command, &log).unwrap()
}

/// A stopped agent (a host that was suspended, a machine that swapped) wakes up when its lease is another's.
#[test]
fn an_agent_that_slept_past_its_lease_never_writes_the_key_again() {
    let mut fabric = fabric!(3, Some(VXLAN));
    for _host in 0..2 {
        let options = fabric.options();
        fabric.start(&options);
    }
    fabric.settle();
    fabric.add_pods();
    fabric.reach_all();
    let (sleeper, own) = (node(&fabric, 0), fabric.lease_key(0));
    fabric.agents[0].signal(Signal::SIGSTOP).unwrap();
    let history = history(&fabric, &own);
    let lease = fabric.kv(&own).unwrap().lease_id();
    fabric.ctl(&["lease", "revoke", &lease]);
    assert_eq!(fabric.kv(&own), None);
    fabric.agents[1].twill(&["lease", "reserve"], &[&subnet(&own), "--public-ip", "192.168.77.3"]).unwrap();
    let options = fabric.options();
    fabric.start(&options);
    fabric.agents[2].wait_ready(SOON).unwrap();
    assert_eq!(fabric.lease_key(2), own);
    let taker = node(&fabric, 2);
    let taken = wait("the taker's lease", || {
        let kv = fabric.kv(&own).ok_or("gone")?;
        if kv.value.contains(&taker) { Ok(kv) } else { Err(kv.value) }
    });
    let kernel = fabric.kernel(0);
    fabric.agents[0].signal(Signal::SIGCONT).unwrap();
    let fault = wait_fault(&fabric.agents[0], "lease-lost");
    println!("FENCING {fault}");
    assert!(fault.contains(&own) && fault.contains(&taker) && fault.contains("192.168.77.3"), "{fault}");
    throughout(Duration::from_secs(2), || {
        assert_eq!(fabric.kv(&own).as_ref(), Some(&taken));
    });
    let status = status(&fabric.agents[0]);
    assert_eq!(
        (&status["lease"]["standing"], &status["lease"]["key"]),
        (&"parked".into(), &own.clone().into())
    );
    assert_eq!(fabric.agents[0].get("/readyz").unwrap().0, 503, "no pods are started in another's subnet");
    let writes = history.log();
    assert!(writes.contains(&taker) && !writes.contains(&sleeper), "{writes}");
    assert_eq!(fabric.get("/coreos.com/network/subnets/").len(), 2, "nor any other key");
    let peer = subnet(&fabric.lease_key(1));
    let kept: Vec<&String> =
        kernel.iter().filter(|line| line.contains(peer.trim_end_matches("0/24"))).collect();
    assert!(!kept.is_empty());
    let after = fabric.kernel(0);
    assert!(kept.iter().all(|line| after.contains(line)), "forwarding went: {kernel:#?}\n{after:#?}");
}

/// Once the other lets go, the host takes its subnet back by itself.
#[test]
fn a_parked_host_takes_its_subnet_back_when_it_is_free() {
    let mut fabric = fabric!(2, Some(VXLAN)).up();
    let own = fabric.lease_key(0);
    let thief = r#"{"PublicIP":"192.168.77.99","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:00:99"},"NodeID":"7a3f4ab8-5d38-4b8f-9c55-0a1e0d7a2c11"}"#;
    fabric.put(&key(&own), thief);
    let fault = wait_fault(&fabric.agents[0], "lease-lost");
    assert!(fault.contains("7a3f4ab8-5d38-4b8f-9c55-0a1e0d7a2c11"), "{fault}");
    assert_eq!(fabric.kv(&own).unwrap().value, thief);
    fabric.ctl(&["del", &key(&own)]);
    let begin = Instant::now();
    wait_ok(&fabric.agents[0]);
    println!("FENCING taken back in {} ms", begin.elapsed().as_millis());
    assert_eq!(fabric.lease_key(0), own);
    fabric.agents[0].wait_ready(SOON).unwrap();
    fabric.reach_all();
}

#[test]
fn a_deleted_lease_is_claimed_again_and_no_packet_is_lost() {
    let fabric = fabric!(3, Some(VXLAN)).up();
    let streams = fabric.ring();
    let own = fabric.lease_key(0);
    for how in ["deleted", "revoked"] {
        let before = fabric.kv(&own).unwrap();
        match how {
            "deleted" => fabric.ctl(&["del", &before.key]),
            _ => fabric.ctl(&["lease", "revoke", &before.lease_id()]),
        };
        let begin = Instant::now();
        let after = wait("the lease", || {
            fabric.kv(&own).filter(|kv| kv.revision > before.revision).ok_or("gone".into())
        });
        println!("FENCING {how}: claimed again in {} ms", begin.elapsed().as_millis());
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        assert_eq!(after.json()["NodeID"], before.json()["NodeID"]);
        assert!(after.lease != 0 && after.lease != before.lease);
        for host in 0..3 {
            wait_ok(&fabric.agents[host]);
            assert_eq!(fabric.kernel(host).len(), fabric.kernel(0).len());
        }
    }
    nothing_lost(streams);
}

/// What flannel documents: an operator writes the key again without a lease, and it never expires.
#[test]
fn a_lease_that_an_operator_makes_permanent_stays_so() {
    let mut fabric = fabric!(2, Some(VXLAN)).up();
    let own = fabric.lease_key(0);
    let before = fabric.kv(&own).unwrap();
    fabric.put(&before.key, &before.value);
    fabric.ctl(&["lease", "revoke", &before.lease_id()]);
    throughout(Duration::from_secs(1), || {
        let kv = fabric.kv(&own).unwrap();
        assert_eq!((kv.lease, &kv.value), (0, &before.value));
    });
    wait_ok(&fabric.agents[0]);
    fabric.agents[0].restart().unwrap();
    let held = wait_status(&fabric.agents[0], "held", |s| s["lease"]["standing"] == "held");
    assert_eq!(held["lease"]["expires_in_s"], Value::Null);
    fabric.agents[0].wait_ready(SOON).unwrap();
    wait_ok(&fabric.agents[0]);
    assert_eq!((fabric.lease_key(0), fabric.kv(&own).unwrap().lease), (own, 0));
    fabric.reach_all();
}

/// Pods run in it, so the lease stays; that it does not fit is said.
#[test]
fn a_lease_that_no_longer_fits_is_kept_and_reported() {
    let mut fabric = fabric!(2, Some(VXLAN)).up();
    let own = fabric.lease_key(0);
    fabric.put(CONFIG, r#"{"Network":"10.244.0.0/16","SubnetLen":26,"Backend":{"Type":"vxlan"}}"#);
    let streams = fabric.ring();
    let fault = wait_fault(&fabric.agents[0], "restart-to-apply");
    assert!(fault.contains("Network or its subnets"), "{fault}");
    fabric.agents[0].restart().unwrap();
    fabric.agents[0].wait_ready(SOON).unwrap();
    let fault = wait_fault(&fabric.agents[0], "lease-outgrown");
    assert!(fault.contains(&own) && fault.contains("it is kept") && fault.contains("drain"), "{fault}");
    assert_eq!(fabric.lease_key(0), own);
    assert_eq!(status(&fabric.agents[0])["state"], "degraded");
    nothing_lost(streams);
    fabric.reach_all();
}

/// As cloned virtual machines behind NAT do. The second host takes nothing, until the first is gone.
#[test]
fn two_hosts_with_one_address() {
    let mut fabric = fabric!(2, Some(VXLAN));
    for agent in 0..2 {
        let options = fabric.options().arg("--public-ip").arg("192.168.77.1").arg("--iface").arg("eth0");
        fabric.start(&options);
        if agent == 0 {
            fabric.agents[0].wait_ready(SOON).unwrap();
        }
    }
    let own = fabric.lease_key(0);
    let fault = wait_fault(&fabric.agents[1], "duplicate-address");
    println!("FENCING {fault}");
    assert!(
        fault.contains("192.168.77.1") && fault.contains(&own) && fault.contains(&node(&fabric, 0)),
        "{fault}"
    );
    assert_eq!(status(&fabric.agents[1])["state"], "failed");
    assert_eq!(fabric.get("/coreos.com/network/subnets/").len(), 1);
    assert!(!fabric.agents[1].files.subnet.exists());
    wait_ok(&fabric.agents[0]);
    fabric.agents[0].twill(&["lease", "release", "--own"], &[]).unwrap();
    fabric.agents[1].wait_ready(SOON).unwrap();
    assert_eq!(faults(&wait_ok(&fabric.agents[1]), "duplicate-address").len(), 0);
}

/// Four subnets, five hosts: the fifth waits, says how many there are, and takes the first that is given back.
#[test]
fn a_pool_that_is_exhausted() {
    let network =
        r#"{"Network":"10.244.0.0/22","SubnetLen":24,"SubnetMin":"10.244.1.0","Backend":{"Type":"vxlan"}}"#;
    let mut fabric = fabric!(4, Some(network));
    for agent in 0..3 {
        let options = fabric.options();
        fabric.start(&options);
        fabric.agents[agent].wait_ready(SOON).unwrap();
    }
    let options = fabric.options();
    fabric.start(&options);
    let fault = wait_fault(&fabric.agents[3], "pool-exhausted");
    println!("FENCING {fault}");
    assert!(fault.contains("3 leases take all of its 3 subnets"), "{fault}");
    assert_eq!(status(&fabric.agents[3])["state"], "failed");
    let free = fabric.lease_key(1);
    fabric.agents[1].kill(Signal::SIGTERM).unwrap();
    fabric.agents[0].twill(&["lease", "release"], &[&free]).unwrap();
    fabric.agents[3].wait_ready(SOON).unwrap();
    assert_eq!(fabric.lease_key(3), free);
    // It has one, and the next host will not.
    wait_status(&fabric.agents[3], "a pool that is full, and nothing else", |status| {
        let faults = status["faults"].as_array().unwrap();
        status["state"] == "degraded" && faults.len() == 1 && faults[0]["code"] == "pool-low"
    });
}

/// Real agents that start at once on a pool with exactly enough room: each gets a subnet of its own.
#[test]
fn hosts_that_start_at_once_get_subnets_of_their_own() {
    let network = r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.8.0","Backend":{"Type":"vxlan"}}"#;
    let mut fabric = fabric!(8, Some(network));
    fabric.start_all();
    let keys: std::collections::BTreeSet<String> = (0..8).map(|agent| fabric.lease_key(agent)).collect();
    assert_eq!(keys.len(), 8);
    assert_eq!(fabric.get("/coreos.com/network/subnets/").len(), 8);
}
