//! What the commands say that look at a fabric and change nothing, of fabrics that are broken in known ways.

use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::dump::{self, difference};
use crate::fabric::{Fabric, Families, need_namespaces, wait_for};

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
        format!("route {peer}, for {} at 192.168.77.2\n  wanted  via {} dev flannel.1", key(1), peer.addr()),
        "device flannel-v6.1\n  wanted  mtu 1430\n  found   mtu 1400\n".to_owned(),
        format!("neighbour {} on flannel-v6.1, for {} at ", other.addr(), key(2)),
        "  found   0a:00:00:00:00:09\n".to_owned(),
        "firewall\n  to do   ".to_owned(),
    ] {
        assert!(told.contains(&part), "no {part:?} in\n{told}");
    }
    let json: Value = serde_json::from_str(&said(&fabric, &["verify", "--json"], 1)).unwrap();
    assert_eq!(
        (&json["same"], json["host"]["differences"].as_array().map(Vec::len)),
        (&false.into(), Some(3))
    );
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
