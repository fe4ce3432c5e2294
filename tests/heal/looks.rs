//! What the commands say that look at a fabric and change nothing, of fabrics that are broken in known ways.

use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::dump::{self, difference};
use crate::fabric::{Fabric, Families, need_namespaces, wait_for};
use crate::faults::{drop_at, mend};

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;
const FLAGS: [&str; 2] = ["--ip-masq", "--firewall=nftables"];

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command on the first host, which must exit with this code.
fn said(fabric: &Fabric, words: &[&str], code: i32) -> String {
    let output = fabric.twill(0, words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
    text(&output)
}

/// Without its agent, a host stays broken.
fn unattended(families: Families, backend: &str, flags: &[&str]) -> Fabric {
    let mut fabric = Fabric::new(families, backend, flags);
    fabric.agents[0].signal(Signal::SIGSTOP).unwrap();
    fabric
}

#[test]
fn verify_names_each_difference_and_whose_it_is() {
    need_namespaces!();
    let fabric = unattended(Families::Dual, VXLAN, &FLAGS);
    let net = &fabric.lab.hosts[0].net;
    let same = said(&fabric, &["verify"], 0);
    assert!(same.contains("entries are as 3 leases want them"), "{same}");
    let (peer, other) = (fabric.subnet(1, false), fabric.subnet(2, true));
    dump::sh(
        net,
        &format!(
            "ip route del {peer}; ip link set flannel-v6.1 mtu 1400
             ip -6 neigh replace {} lladdr 0a:00:00:00:00:09 dev flannel-v6.1 nud permanent
             nft delete table inet $(nft list tables inet | grep -o 'twill-[0-9a-f]*$')",
            other.addr()
        ),
    );
    let before = dump::of(net);
    let told = said(&fabric, &["verify"], 1);
    let key = |index: usize| fabric.status(index)["lease"]["key"].as_str().unwrap().to_owned();
    for part in [
        "3 differences in".to_owned(),
        format!(
            "route-missing: route {peer}, for {} at 192.168.77.2\n  wanted  via {} dev flannel.1",
            key(1),
            peer.addr()
        ),
        "device-differs: device flannel-v6.1\n  wanted  mtu 1430\n  found   mtu 1400\n".to_owned(),
        format!("neighbour-differs: neighbour {} on flannel-v6.1, for {} at ", other.addr(), key(2)),
        "  found   0a:00:00:00:00:09\n".to_owned(),
        "firewall-differs: firewall\n  to do   ".to_owned(),
    ] {
        assert!(told.contains(&part), "no {part:?} in\n{told}");
    }
    let json: Value = serde_json::from_str(&said(&fabric, &["verify", "--json"], 1)).unwrap();
    assert_eq!(
        (&json["same"], json["host"]["differences"].as_array().map(Vec::len)),
        (&false.into(), Some(3))
    );
    for code in ["route-missing", "device-differs", "neighbour-differs", "firewall-differs"] {
        assert!(json["codes"].as_array().unwrap().contains(&code.into()), "{}", json["codes"]);
        assert!(twill::catalogue::find(code).is_some(), "{code} is not explained");
    }
    assert_eq!(difference(&before, &dump::of(net)), Vec::<String>::new(), "verify changes nothing");
}

/// An agent that was killed leaves the flags to the caller, and a store that is away leaves its last snapshot.
#[test]
fn verify_works_without_agent_and_without_store() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, HOST_GW, &FLAGS);
    let instance = fabric.status(0)["instance"].as_str().unwrap().to_owned();
    let snapshot = fabric.agents[0].files.state.join(instance).join("snapshot.json");
    wait_for("a snapshot of all leases", || {
        let text = std::fs::read_to_string(&snapshot).unwrap_or_default();
        let known: Value = serde_json::from_str(&text).unwrap_or_default();
        let all = known["leases"].as_object().is_some_and(|leases| leases.len() == 3);
        all.then_some(()).ok_or(text)
    });
    fabric.agents[0].kill(Signal::SIGTERM).unwrap();
    said(&fabric, &["verify", FLAGS[0], FLAGS[1]], 0);
    let leases = fabric.lab.dir().join("leases");
    std::fs::rename(&leases, leases.with_extension("away")).unwrap();
    let told = said(&fabric, &["verify", FLAGS[0], FLAGS[1]], 0);
    assert!(told.contains("last snapshot"), "{told}");
    let peer = fabric.subnet(1, false);
    dump::run(&fabric.lab.hosts[0].net, &format!("ip route replace {peer} via 192.168.77.3 proto 70"));
    let told = said(&fabric, &["verify", FLAGS[0], FLAGS[1]], 1);
    assert!(told.contains("found   via 192.168.77.3 dev eth0"), "{told}");
}

/// Between the first pods of two hosts, in one family.
fn ends(fabric: &Fabric, from: usize, to: usize, v6: bool) -> [String; 2] {
    [from, to].map(|index| {
        let pod = fabric.pods[index].addresses.iter().find(|addr| addr.is_ipv6() == v6);
        pod.unwrap().to_string()
    })
}

fn traced(fabric: &Fabric, ends: &[String; 2], code: i32) -> String {
    said(fabric, &["trace", &ends[0], &ends[1]], code)
}

/// What is done to a host, which entry the trace then names, and with which words.
struct Damage<'a> {
    does: String,
    undoes: String,
    code: i32,
    names: String,
    because: &'a str,
}

fn each_is_named(fabric: &Fabric, v6: bool, rows: &[Damage<'_>]) {
    let (net, ends) = (&fabric.lab.hosts[0].net, ends(fabric, 0, 1, v6));
    for row in rows {
        dump::sh(net, &row.does);
        let told = traced(fabric, &ends, row.code);
        let first = told.lines().next().unwrap();
        assert!(first.contains(&row.names) && first.contains(row.because), "{}\n{told}", row.does);
        assert!(first.contains("; next: "), "{told}");
        dump::sh(net, &row.undoes);
        traced(fabric, &ends, 0);
    }
}

/// One that stops packets.
fn damage<'a>(does: &str, undoes: &str, names: String, because: &'a str) -> Damage<'a> {
    Damage { does: does.to_owned(), undoes: undoes.to_owned(), code: 2, names, because }
}

/// Each entry for the second host, missing and altered.
fn entries(fabric: &Fabric, v6: bool) -> Vec<Damage<'static>> {
    let (ip, dev, mtu) = if v6 { ("ip -6", "flannel-v6.1", 1430) } else { ("ip", "flannel.1", 1450) };
    let peer = fabric.subnet(1, v6);
    let gateway = peer.addr();
    let public = fabric.lab.hosts[1].addresses.iter().find(|addr| addr.is_ipv6() == v6).unwrap();
    let shown = dump::run(&fabric.lab.hosts[0].net, &format!("{ip} neigh show {gateway} dev {dev}"));
    let mac = shown.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap().to_owned();
    let route = format!("{ip} route replace {peer} via {gateway} dev {dev} proto 70 onlink");
    let neigh = format!("{ip} neigh replace {gateway} lladdr {mac} dev {dev} nud permanent");
    let fdb = format!("bridge fdb replace {mac} dev {dev} dst {public} self permanent");
    let (named, strange) =
        (format!("neighbour {gateway} on {dev}"), neigh.replace(&mac, "0a:00:00:00:00:09"));
    let link = |mtu: u32| format!("ip link set {dev} mtu {mtu}");
    vec![
        damage(&format!("{ip} route del {peer}"), &route, format!("route {peer}"), "the route is missing"),
        damage(
            &format!("{ip} neigh del {gateway} dev {dev}"),
            &neigh,
            named.clone(),
            "the neighbour is missing",
        ),
        damage(&strange, &neigh, named, "frames go to 0a:00:00:00:00:09"),
        damage(
            &format!("bridge fdb del {mac} dev {dev} dst {public} self"),
            &fdb,
            format!("FDB entry {mac} on {dev}"),
            "the FDB entry is missing",
        ),
        Damage { code: 1, ..damage(&link(1350), &link(mtu), format!("device {dev}"), "mtu 1350") },
    ]
}

/// What else stops IPv4 packets to the second host.
fn around(fabric: &Fabric) -> Vec<Damage<'static>> {
    let peer = fabric.subnet(1, false);
    let forward = |to: u8| format!("echo {to} > /proc/sys/net/ipv4/ip_forward");
    let inside = format!("{}/25", peer.addr());
    let element = |verb: &str| {
        let table = "$(nft list tables inet | grep -o 'twill-guard-[0-9a-f]*$')";
        format!("nft {verb} element inet {table} from4 '{{ 192.168.77.2 }}'")
    };
    let chain = "{ type filter hook forward priority 0; policy drop; }";
    vec![
        damage(&forward(0), &forward(1), "setting net.ipv4.ip_forward".to_owned(), "does not forward"),
        damage(
            &format!("ip route add {inside} via 192.168.77.254 proto static"),
            &format!("ip route del {inside}"),
            format!("route {peer}"),
            "goes first",
        ),
        damage(
            &format!("nft add table ip theirs; nft add chain ip theirs f '{chain}'"),
            "nft delete table ip theirs",
            "firewall".to_owned(),
            "drops what is forwarded",
        ),
        damage(
            &element("delete"),
            &element("add"),
            "guard of UDP 8472".to_owned(),
            "frames from 192.168.77.2 are dropped",
        ),
    ]
}

#[test]
fn a_trace_through_kernel_vxlan_names_what_is_broken() {
    need_namespaces!();
    let fabric = unattended(Families::Dual, VXLAN, &FLAGS);
    let net = &fabric.lab.hosts[0].net;
    for v6 in [false, true] {
        for (from, to) in [(0, 1), (1, 0), (1, 2)] {
            let told = traced(&fabric, &ends(&fabric, from, to, v6), 0);
            assert!(told.starts_with("goes through: "), "{told}");
        }
        each_is_named(&fabric, v6, &entries(&fabric, v6));
    }
    each_is_named(&fabric, false, &around(&fabric));
    let ends = ends(&fabric, 0, 1, false);
    let free = said(&fabric, &["trace", &ends[0], "10.244.255.250"], 2);
    assert!(free.contains("no host has a lease with 10.244.255.250"), "{free}");
    let json: Value =
        serde_json::from_str(&said(&fabric, &["trace", "--json", &ends[0], &ends[1]], 0)).unwrap();
    assert_eq!((&json["mtu"], &json["trace"]["hops"][0]["verdict"]), (&1430.into(), &"passes".into()));
    dump::run(net, "ip link del flannel.1");
    let told = traced(&fabric, &ends, 2);
    assert!(told.contains("(here, device flannel.1): tunnel-down: the device is missing"), "{told}");
    dump::run(net, "ip link set eth0 down");
    let told = said(&fabric, &["trace", "192.168.77.1", "192.168.77.2"], 2);
    assert!(told.contains("underlay"), "{told}");
}

#[test]
fn a_trace_through_routes_alone_names_what_is_broken() {
    need_namespaces!();
    let fabric = unattended(Families::V4, HOST_GW, &FLAGS);
    let peer = fabric.subnet(1, false);
    let route = format!("ip route replace {peer} via 192.168.77.2 dev eth0 proto 70");
    let row = |does: String, because| Damage {
        does,
        undoes: route.clone(),
        code: 2,
        names: format!("route {peer}"),
        because,
    };
    each_is_named(
        &fabric,
        false,
        &[
            row(format!("ip route del {peer}"), "the route is missing"),
            row(format!("ip route replace {peer} via 192.168.77.3 dev eth0 proto 70"), "leads elsewhere"),
        ],
    );
}

#[test]
fn a_trace_through_the_userspace_datapath_misses_an_agent_that_hangs() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, &[FLAGS[0], FLAGS[1], "--datapath=userspace"]);
    let ends = ends(&fabric, 0, 1, false);
    let told = traced(&fabric, &ends, 0);
    assert!(told.contains("the agent carries the frames of flannel.1"), "{told}");
    fabric.agents[0].signal(Signal::SIGSTOP).unwrap();
    let told = traced(&fabric, &ends, 2);
    assert!(
        told.contains("(here, datapath): no-agent: the agent carries the frames, and does not answer"),
        "{told}"
    );
}

/// Agents that serve HTTP to other hosts.
const SERVING: [&str; 4] = [FLAGS[0], FLAGS[1], "--healthz-ip=0.0.0.0", "--healthz-port=10254"];

#[test]
fn the_whole_fabric_is_shown_line_by_line() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, &SERVING);
    let peers = said(&fabric, &["peers"], 0);
    let keys: Vec<String> =
        (0..3).map(|index| fabric.status(index)["lease"]["key"].as_str().unwrap().to_owned()).collect();
    assert!(peers.contains(&keys[1]) && peers.contains(&keys[2]) && !peers.contains(&keys[0]), "{peers}");
    assert!(peers.lines().last().unwrap().starts_with("2 peers"), "{peers}");
    let json: Value = serde_json::from_str(&said(&fabric, &["peers", "--json", "--sort=key"], 0)).unwrap();
    assert_eq!(json["peers"].as_array().map(Vec::len), Some(2));
    fabric.agents[2].kill(Signal::SIGTERM).unwrap();
    let ok = |all: &str, key: &str| all.lines().any(|line| line.starts_with(key) && line.contains(" ok "));
    // Whoever does not answer within two seconds is silent, which may be on a machine that has much else to do.
    let all = wait_for("the two that are left", || {
        let all = said(&fabric, &["status", "--all"], 1);
        if keys[..2].iter().all(|key| ok(&all, key)) { Ok(all) } else { Err(all) }
    });
    let line = |key: &str| all.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{all}"));
    assert!(line(&keys[0]).contains("(here)"), "{all}");
    assert!(line(&keys[1]).contains("192.168.77.2"), "{all}");
    assert!(line(&keys[2]).contains("192.168.77.3") && line(&keys[2]).contains("silent"), "{all}");
    assert!(
        all.contains(&format!("{}: host-silent: not reachable at http://192.168.77.3:10254: ", keys[2])),
        "{all}"
    );
    let json: Value = serde_json::from_str(&said(&fabric, &["status", "--all", "--json"], 1)).unwrap();
    assert_eq!(json["hosts"].as_array().map(Vec::len), Some(3), "{json}");
    let verified = wait_for("both to be verified", || {
        let verified = said(&fabric, &["verify", "--all"], 2);
        let both = verified.contains(&format!("{}: as its leases want it", keys[1]));
        if both { Ok(verified) } else { Err(verified) }
    });
    assert!(verified.contains("entries are as 3 leases want them"), "{verified}");
    assert!(
        verified.contains(&format!("{}: could not be asked\n  host-silent: not reachable at", keys[2])),
        "{verified}"
    );
    fabric.agents[0].kill(Signal::SIGTERM).unwrap();
    for words in [["peers"].as_slice(), &["status"]] {
        assert!(said(&fabric, words, 2).contains("next: "), "{words:?}");
    }
}

/// A trace between the first pods of the first two hosts, made on this one, once it ends like this.
fn wait_traced(fabric: &Fabric, at: usize, exit: u8, code: Option<&str>) -> Value {
    let [src, dst] = ends(fabric, 0, 1, false);
    wait_for(&format!("a trace that ends with {exit} and {code:?}"), || {
        let output = fabric.twill(at, &["trace", "--json", &src, &dst]);
        let traced: Value = serde_json::from_slice(&output.stdout).map_err(|_| text(&output))?;
        let ends = output.status.code() == Some(exit.into()) && traced["code"].as_str() == code;
        if ends { Ok(traced) } else { Err(text(&output)) }
    })
}

/// What a hop of a host says.
fn hop(traced: &Value, host: &str, what: &str) -> Value {
    let hops = traced["trace"]["hops"].as_array().unwrap();
    let found = hops.iter().find(|hop| hop["host"] == *host && hop["what"] == *what);
    found.unwrap_or_else(|| panic!("no {what} of {host} in {traced:#}")).clone()
}

/// What is measured of a pair of hosts is in the trace of either, and of a third; and what the other's agent says.
#[test]
fn a_trace_says_what_agents_measured_and_what_the_others_say() {
    need_namespaces!();
    let mut fabric = Fabric::new(Families::V4, VXLAN, &SERVING);
    let keys: Vec<String> =
        (0..3).map(|index| fabric.status(index)["lease"]["key"].as_str().unwrap().to_owned()).collect();
    let [to, back] = [1, 0].map(|index: usize| format!("probe of {}", keys[index]));
    wait_for("all to be well, as measured by both", || {
        let traced = wait_traced(&fabric, 0, 0, None);
        let passes = |host: &str, what: &str, found: &str| {
            let hop = hop(&traced, host, what);
            hop["verdict"] == "passes" && hop["found"].as_str().is_some_and(|text| text.starts_with(found))
        };
        let mine = passes("here", &to, "ok for ") && hop(&traced, "here", &to)["mtu"] == 1450;
        let theirs = passes(&keys[1], "agent", "ok") && passes(&keys[1], &back, "ok for ");
        if mine && theirs { Ok(()) } else { Err(traced) }
    });
    assert!(said(&fabric, &["peers"], 0).lines().next().unwrap().contains("SINCE"));
    // What goes from the one to the other through the tunnel is eaten.
    let (cut, hosts) = (Instant::now(), &fabric.lab.hosts);
    drop_at(&hosts[1], &format!("ip saddr {} udp dport 8472", hosts[0].addresses[0]));
    // Whichever of the two finds it first, this one does as well.
    wait_for("this host's own finding", || {
        let traced = wait_traced(&fabric, 0, 2, Some("port-eaten"));
        let own = hop(&traced, "here", &to);
        if own["code"] == "port-eaten" { Ok(()) } else { Err(own) }
    });
    println!("TRACED after {} ms", cut.elapsed().as_millis());
    assert!(cut.elapsed() < Duration::from_secs(20), "{:?}", cut.elapsed());
    let told = traced_by(&fabric, 2);
    assert!(told.contains(&format!("({}, {to}): port-eaten: its agent says: ", keys[0])), "{told}");
    mend(&hosts[1]);
    wait_traced(&fabric, 0, 0, None);
    // The other host is not as it should be.
    let inside = fabric.subnet(2, false).subnets(25).unwrap().nth(1).unwrap();
    dump::run(&hosts[1].net, &format!("ip route add {inside} via 192.168.77.254 proto static"));
    let traced = wait_traced(&fabric, 0, 1, Some("foreign-route"));
    assert_eq!(hop(&traced, &keys[1], "agent")["found"], "degraded");
    dump::run(&hosts[1].net, &format!("ip route del {inside}"));
    wait_traced(&fabric, 0, 0, None);
    fabric.agents[1].kill(Signal::SIGTERM).unwrap();
    let traced = wait_traced(&fabric, 0, 1, Some("agent-down"));
    let agent = hop(&traced, &keys[1], "agent");
    assert_eq!(agent["verdict"], "told");
    assert!(agent["wanted"].as_str().unwrap().starts_with("silent: not reachable at http://192.168.77.2"));
}

/// What people read of the same, on a host that is neither end.
fn traced_by(fabric: &Fabric, at: usize) -> String {
    let [src, dst] = ends(fabric, 0, 1, false);
    let output = fabric.twill(at, &["trace", &src, &dst]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    text(&output)
}
