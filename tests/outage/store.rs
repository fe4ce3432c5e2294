//! Garbage in etcd: in keys and values of leases, and in the network configuration.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ask::{ask_status, faults, status, throughout, wait, wait_fault, wait_log, wait_ok, wait_status};
use crate::fabric::{CONFIG, Fabric, SOON, TWILL, VXLAN, fabric, flannels, key, nothing_lost, run, subnet};

const GOOD: &str = "10.244.210.0-24";
const BAD_KEYS: [&str; 6] =
    ["garbage", "10.244.300.0-24", "10.244.9.0-33", "10.244.9.0", "10.244.9.0-24&", "../config"];

/// Values under good keys, none of which says where a host is.
fn bad_values() -> Vec<(String, String)> {
    let values = [
        "",
        "{",
        "[]",
        "null",
        "\"10.244.1.0\"",
        r#"{"PublicIP":"nowhere"}"#,
        r#"{"PublicIP":null,"BackendType":"vxlan"}"#,
        r#"{"PublicIP":"1.2.3.4","BackendType":7}"#,
        "{\"PublicIP\":\"1.2.3.4\"} {\"PublicIP\":\"1.2.3.5\"}",
        "\u{1}\u{7f}",
    ];
    values
        .iter()
        .enumerate()
        .map(|(i, value)| (format!("10.244.{}.0-24", 220 + i), (*value).to_owned()))
        .collect()
}

/// One bad lease is one complaint, whoever else there is.
#[test]
fn malformed_leases_are_reported_and_nobody_loses_a_peer() {
    let mut fabric = fabric!(3, Some(VXLAN)).up();
    let removals: Vec<_> = (0..3).map(|host| fabric.removals(host)).collect();
    let streams = fabric.ring();
    for bad in BAD_KEYS {
        fabric.put(&key(bad), &flannels("192.168.77.210", "0e:00:00:00:02:10"));
    }
    for (bad, value) in bad_values() {
        fabric.put(&key(&bad), &value);
    }
    let odd = r#"{"PublicIP":"192.168.77.211","PublicIPv6":null,"BackendType":"vxlan","BackendData":"AAAA"}"#;
    fabric.put(&key("10.244.211.0-24"), odd);
    fabric.put(&key(GOOD), &flannels("192.168.77.210", "0e:00:00:00:02:10"));
    let complained = |fabric: &Fabric| {
        for (host, agent) in fabric.agents.iter().enumerate() {
            fabric.wait_route(host, &subnet(GOOD));
            let status = wait_status(agent, "all complaints", |status| {
                let count = |code| faults(status, code).len();
                count("bad-lease-key") >= BAD_KEYS.len() && count("bad-lease-value") >= bad_values().len()
            });
            for (code, subject) in BAD_KEYS
                .iter()
                .map(|bad| ("bad-lease-key", (*bad).to_owned()))
                .chain(bad_values().into_iter().map(|(bad, _)| ("bad-lease-value", bad)))
                .chain([("incomplete-lease", "10.244.211.0-24".to_owned())])
            {
                let named =
                    faults(&status, code).iter().any(|f| f["subject"].as_str().unwrap().contains(&subject));
                assert!(named, "{code} {subject}: {status:#}");
            }
            assert_eq!(status["state"], "degraded");
            assert_eq!(agent.get("/readyz").unwrap().0, 200);
        }
    };
    complained(&fabric);
    fabric.agents[0].restart().unwrap();
    fabric.agents[0].wait_ready(SOON).unwrap();
    complained(&fabric);
    nothing_lost(streams);
    fabric.reach_all();
    for removals in &removals {
        assert_eq!(removals.seen(), Vec::<String>::new());
    }
    for bad in
        BAD_KEYS.iter().map(|bad| (*bad).to_owned()).chain(bad_values().into_iter().map(|(bad, _)| bad))
    {
        fabric.ctl(&["del", &key(&bad)]);
    }
    fabric.ctl(&["del", &key("10.244.211.0-24")]);
    for agent in &fabric.agents {
        wait_ok(agent);
    }
}

/// A peer whose value turns into garbage is the peer it was; its own host writes the value again.
#[test]
fn a_value_that_turns_into_garbage() {
    let fabric = fabric!(3, Some(VXLAN)).up();
    fabric.put(&key(GOOD), &flannels("192.168.77.210", "0e:00:00:00:02:10"));
    for host in 0..3 {
        fabric.wait_route(host, &subnet(GOOD));
    }
    let removals: Vec<_> = (0..3).map(|host| fabric.removals(host)).collect();
    let streams = fabric.ring();
    let own = fabric.lease_key(1);
    let before = fabric.kv(&own).unwrap();
    fabric.put(&key(GOOD), "{\"PublicIP\":");
    fabric.put(&key(&own), "not json");
    for agent in &fabric.agents {
        let fault = wait_fault(agent, "bad-lease-value");
        assert!(fault.contains("10.244."), "{fault}");
    }
    let again = wait("the value written again", || {
        let kv = fabric.kv(&own).ok_or("gone")?;
        if kv.value.starts_with('{') { Ok(kv) } else { Err(format!("{}{}", kv.value, fabric.logs())) }
    });
    assert_eq!(again.json()["NodeID"], before.json()["NodeID"]);
    for (host, agent) in fabric.agents.iter().enumerate() {
        let status = wait_status(agent, "one complaint", |s| faults(s, "bad-lease-value").len() == 1);
        assert_eq!(faults(&status, "bad-lease-value")[0]["subject"], GOOD);
        assert!(fabric.has_route(host, &subnet(GOOD)));
        assert_eq!(removals[host].seen(), Vec::<String>::new());
    }
    nothing_lost(streams);
}

/// At start there is nothing to fall back on: the agent waits for a configuration that can be used, and says exactly
/// what is wrong with the one there is.
#[test]
fn a_wrong_configuration_at_start() {
    let mut fabric = fabric!(1, None);
    let options = fabric.options();
    fabric.start(&options);
    let fault = wait_fault(&fabric.agents[0], "no-config");
    assert!(fault.contains(CONFIG) && fault.contains("twill config set '{"), "{fault}");
    let wrong = [
        ("{\"Network\":", "EOF"),
        ("{}", "Network"),
        (r#"{"Network":"10.244.0.0"}"#, "Network"),
        (r#"{"Network":"10.244.0.0/16","SubnetLen":8}"#, "SubnetLen"),
        (r#"{"Network":"10.244.0.0/16","SubnetMin":"10.9.0.0"}"#, "SubnetMin"),
    ];
    for (config, reason) in wrong {
        fabric.put(CONFIG, config);
        let status = wait_status(&fabric.agents[0], config, |status| {
            faults(status, "bad-config").iter().any(|fault| fault["cause"].as_str().unwrap().contains(reason))
        });
        println!("INPUT {config}: {}", faults(&status, "bad-config")[0]["cause"]);
        assert_eq!(status["state"], "failed");
        assert!(!fabric.agents[0].files.subnet.exists());
    }
    assert_eq!(fabric.lab.hosts[0].net.links().unwrap(), ["lo", "eth0"]);
    fabric.put(CONFIG, VXLAN);
    fabric.agents[0].wait_ready(SOON).unwrap();
    wait_ok(&fabric.agents[0]);
}

/// Later on the last good one stays in force.
#[test]
fn a_wrong_configuration_later() {
    let mut fabric = fabric!(2, Some(VXLAN)).up();
    let kernels = [fabric.kernel(0), fabric.kernel(1)];
    let streams = fabric.ring();
    for (config, code, reason) in [
        ("nonsense", "bad-config", "expected"),
        (
            r#"{"Network":"10.244.0.0/16","SubnetLen":8,"Backend":{"Type":"vxlan"}}"#,
            "bad-config",
            "SubnetLen",
        ),
        (r#"{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard"}}"#, "restart-to-apply", "Backend.type"),
    ] {
        fabric.put(CONFIG, config);
        for agent in &fabric.agents {
            let status = wait_status(agent, config, |status| {
                faults(status, code).iter().any(|fault| fault["cause"].as_str().unwrap().contains(reason))
            });
            assert_eq!(status["network"]["backend"], "vxlan");
        }
    }
    fabric.ctl(&["del", CONFIG]);
    for agent in &fabric.agents {
        let fault = wait_fault(agent, "no-config");
        assert!(fault.contains(CONFIG), "{fault}");
    }
    assert_eq!([fabric.kernel(0), fabric.kernel(1)], kernels);
    nothing_lost(streams);
    fabric.put(CONFIG, VXLAN);
    for agent in &mut fabric.agents {
        wait_ok(agent);
    }
}

/// A backend there is none of ends the start: with the line that would work, and before anything is touched.
#[test]
fn an_unsupported_type_is_refused() {
    for (config, named) in [
        (r#"{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard"}}"#, "wireguard"),
        (r#"{"Network":"10.244.0.0/16","Backend":{"Type":"nonesuch"}}"#, "nonesuch"),
        (r#"{"Network":"10.244.0.0/16"}"#, "Type"),
    ] {
        let mut fabric = fabric!(1, Some(config));
        let options = fabric.options();
        fabric.start(&options);
        let ended = fabric.agents[0].wait(SOON).unwrap();
        let log = fabric.agents[0].log();
        assert_eq!(ended.code(), Some(1), "{log}");
        assert!(log.contains(named) && log.contains(r#""Type":"vxlan""#), "{log}");
        println!("INPUT {}", log.lines().last().unwrap());
        assert_eq!(fabric.lab.hosts[0].net.links().unwrap(), ["lo", "eth0"]);
        assert_eq!(fabric.lab.hosts[0].net.sysctl("net/ipv4/ip_forward").unwrap(), "0");
        assert_eq!(fabric.lab.hosts[0].net.exec(&["nft", "list", "ruleset"]).unwrap(), "");
        assert_eq!(fabric.get("/coreos.com/network/subnets").len(), 0);
        assert!(!fabric.agents[0].files.subnet.exists());
    }
}

/// `twill config set` does not write what an agent would refuse.
#[test]
fn the_command_does_not_write_what_is_wrong() {
    let fabric = fabric!(1, Some(VXLAN));
    for wrong in ["nonsense", r#"{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard"}}"#] {
        let mut command = Command::new(TWILL);
        command.args(["config", "set", wrong, "--etcd-endpoints", &fabric.etcd.endpoint()]);
        let output = run(&fabric, 0, command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        println!("INPUT {stderr}");
    }
    assert_eq!(fabric.get(CONFIG)[0].value, VXLAN);
}

/// Without a lease nothing changes; with one, the agent ends cleanly whatever it is in the middle of.
#[test]
fn an_agent_that_waits_ends_when_told_to() {
    let mut fabric = fabric!(1, None);
    let options = fabric.options();
    fabric.start(&options);
    wait_log(&fabric.agents[0], "no usable network configuration");
    throughout(Duration::from_millis(500), || {
        assert_eq!(status(&fabric.agents[0])["state"], "failed");
    });
    assert!(ask_status(&fabric.agents[0]).is_ok());
    assert!(fabric.agents[0].kill(Signal::SIGTERM).unwrap().success());
}
