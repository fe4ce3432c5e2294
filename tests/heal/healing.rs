//! Whatever is broken under an agent is whole again, and pods' packets pass. How long they did not is printed.

use nix::sys::signal::Signal;

use crate::dump::{self, difference};
use crate::fabric::{Fabric, Families, PATIENCE, need_namespaces, wait_for};
use crate::faults::{self, Fault, How};

/// Breaks the first host in each of the ways while a stream runs, and waits each time until everything is as it was.
fn heal(fabric: &Fabric, backend: &str, faults: &[Fault]) {
    let before = fabric.state(0);
    for fault in faults {
        let streams = fabric.streams(100);
        fault.inject(fabric, 0);
        wait_for(fault.name, || {
            let differs = difference(&before, &fabric.state(0));
            if differs.is_empty() { Ok(()) } else { Err(differs) }
        });
        streams.wait_running();
        let report = streams.stop();
        println!("HEAL {} {backend} {:?} {} ms", fault.name, fabric.families, report.longest_gap.as_millis());
    }
    fabric.wait_settled();
}

fn vxlan(families: Families) {
    let fabric = Fabric::new(families, r#"{"Type":"vxlan"}"#, &["--ip-masq", "--firewall=nftables"]);
    let mut faults = faults::host(&fabric, 0);
    faults.extend(faults::nftables(&fabric, 0));
    faults.extend(families.ipv4().then(|| faults::tunnel(&fabric, 0, false)).into_iter().flatten());
    faults.extend(families.ipv6().then(|| faults::tunnel(&fabric, 0, true)).into_iter().flatten());
    // What hangs on a device is of one family; both together are put to the test by what moves devices.
    let moves = |name: &str| ["device", "uplink", "forwarding"].iter().any(|kind| name.starts_with(kind));
    faults.retain(|fault| families != Families::Dual || moves(fault.name));
    heal(&fabric, "vxlan", &faults);
}

fn host_gw(families: Families) {
    let fabric = Fabric::new(families, r#"{"Type":"host-gw"}"#, &["--ip-masq", "--firewall=nftables"]);
    let mut faults = faults::host(&fabric, 0);
    faults.extend(faults::nftables(&fabric, 0));
    faults.extend(families.ipv4().then(|| faults::direct(&fabric, 0, false)).into_iter().flatten());
    faults.extend(families.ipv6().then(|| faults::direct(&fabric, 0, true)).into_iter().flatten());
    heal(&fabric, "host-gw", &faults);
}

#[test]
fn vxlan_over_ipv4() {
    need_namespaces!();
    vxlan(Families::V4);
}

#[test]
fn vxlan_over_both_families() {
    need_namespaces!();
    vxlan(Families::Dual);
}

#[test]
fn vxlan_over_ipv6() {
    need_namespaces!();
    vxlan(Families::V6);
}

#[test]
fn host_gw_over_ipv4() {
    need_namespaces!();
    host_gw(Families::V4);
}

#[test]
fn host_gw_over_both_families() {
    need_namespaces!();
    host_gw(Families::Dual);
}

/// With a firewall that drops what is not accepted, so that rules that are gone are felt.
#[test]
fn iptables_chains() {
    need_namespaces!();
    let fabric = Fabric::new(Families::Dual, r#"{"Type":"host-gw"}"#, &["--ip-masq", "--firewall=iptables"]);
    for program in ["iptables", "ip6tables"] {
        dump::run(&fabric.lab.hosts[0].net, &format!("{program} -P FORWARD DROP"));
    }
    let mut faults = faults::iptables(false);
    faults.extend(faults::iptables(true));
    // The policy is the operator's: a flush of everything takes it away, and nobody brings it back.
    faults.retain(|fault| fault.name != "ruleset-flushed");
    heal(&fabric, "iptables", &faults);
    for program in ["iptables", "ip6tables"] {
        dump::run(&fabric.lab.hosts[0].net, &format!("{program} -P FORWARD ACCEPT"));
    }
    heal(&fabric, "iptables", &faults::iptables(false)[4..]);
}

#[test]
fn the_blackhole_of_the_own_subnet() {
    need_namespaces!();
    let fabric = Fabric::new(Families::Dual, r#"{"Type":"vxlan"}"#, &["--ip-blackhole-route"]);
    let gone = |v6: bool| {
        let (ip, own) = (if v6 { "ip -6" } else { "ip" }, fabric.subnet(0, v6));
        Fault {
            name: "blackhole-deleted",
            how: How::Shell(format!("{ip} route del blackhole {own} proto 70")),
        }
    };
    heal(&fabric, "vxlan", &[gone(false), gone(true)]);
}

/// A route of somebody else inside a peer's subnet takes packets away from us. It is theirs: it is reported, and left.
#[test]
fn a_foreign_route_is_reported_and_left() {
    need_namespaces!();
    let fabric = Fabric::new(Families::Dual, r#"{"Type":"vxlan"}"#, &[]);
    let host = &fabric.lab.hosts[0];
    let before = fabric.state(0);
    for v6 in [false, true] {
        let whole = fabric.subnet(1, v6);
        let half = whole.subnets(whole.prefix_len() + 1).unwrap().last().unwrap();
        let (ip, via) = if v6 { ("ip -6", "fd77::fe") } else { ("ip", "192.168.77.254") };
        let streams = fabric.streams(100);
        dump::run(&host.net, &format!("{ip} route add {half} via {via} proto static"));
        wait_for("the fault", || {
            let status = fabric.status(0);
            let told = status["faults"].to_string().contains(&half.to_string());
            (told && status["state"] == "degraded").then_some(()).ok_or(status)
        });
        assert!(dump::routes(&host.net).iter().any(|line| line.contains(&half.to_string())));
        dump::run(&host.net, &format!("{ip} route del {half} via {via}"));
        fabric.wait_settled();
        assert_eq!(difference(&before, &fabric.state(0)), Vec::<String>::new());
        streams.assert_lossless("a foreign route in the other half of the subnet");
    }
}

/// Everything at once, while no agent looks: a plan names it, a start repairs it.
#[test]
fn what_broke_while_no_agent_ran() {
    need_namespaces!();
    for (backend, tunnel) in [(r#"{"Type":"vxlan"}"#, true), (r#"{"Type":"host-gw"}"#, false)] {
        let mut fabric = Fabric::new(Families::Dual, backend, &["--ip-masq", "--firewall=nftables"]);
        let before = fabric.state(0);
        let mut faults = if tunnel { faults::host(&fabric, 0) } else { Vec::new() };
        faults.extend(tunnel.then(|| faults::nftables(&fabric, 0)).into_iter().flatten());
        for v6 in [false, true] {
            faults.extend(if tunnel {
                faults::tunnel(&fabric, 0, v6)
            } else {
                faults::direct(&fabric, 0, v6)
            });
            faults.extend(tunnel.then(|| faults::another_kind(v6)));
        }
        // Untagged routes are somebody else's to an agent that starts: it would refuse.
        faults.retain(|f| !matches!(f.name, "route-altered" | "route-retagged" | "route-blackhole"));
        for fault in faults {
            fabric.agents[0].kill(Signal::SIGKILL).unwrap();
            fault.inject(&fabric, 0);
            // Tunnels do not feel what happens to the uplink, which is up a moment after it was set so.
            let felt = !(tunnel && matches!(fault.how, How::UplinkDownUp | How::UplinkReplaced));
            wait_for(fault.name, || {
                let broken = difference(&before, &fabric.state(0));
                if broken.is_empty() == felt { Err(broken) } else { Ok(()) }
            });
            let plan = plan(&fabric);
            let file = fault.name.starts_with("subnet-file");
            assert_eq!(plan.contains("nothing to do"), !felt || file, "{}: {plan}", fault.name);
            fabric.agents[0].restart().unwrap();
            fabric.agents[0].wait_ready(PATIENCE).unwrap();
            wait_for(fault.name, || {
                let differs = difference(&before, &fabric.state(0));
                if differs.is_empty() { Ok(()) } else { Err((differs, plan.clone())) }
            });
        }
        fabric.wait_reachable();
    }
}

fn plan(fabric: &Fabric) -> String {
    let output = fabric.twill(0, &["plan", "--ip-masq", "--firewall=nftables"]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
