//! Hosts that run flanneld in the same fabric, by data: this one is set up by hand as flanneld would.

use serde_json::Value;
use twill::lab::PodSubnet;

use crate::ask::{wait, wait_ok};
use crate::fabric::{VXLAN, fabric, flannels, key, subnet};

const KEY: &str = "10.244.200.0-24";
const MAC: &str = "0e:aa:bb:cc:dd:ee";

/// What flanneld decodes of a lease: Go's encoding/json into a struct, which skips fields that it does not know.
struct Decoded {
    public_ip: String,
    mac: String,
}

fn decode(value: &str) -> Decoded {
    let lease: Value = serde_json::from_str(value).unwrap();
    let fields: Vec<&String> = lease.as_object().unwrap().keys().collect();
    assert_eq!(fields[..4], ["PublicIP", "PublicIPv6", "BackendType", "BackendData"], "{value}");
    assert_eq!((&lease["PublicIPv6"], &lease["BackendType"]), (&Value::Null, &"vxlan".into()), "{value}");
    assert_eq!(lease["BackendData"]["VNI"], 1);
    assert_eq!(lease["BackendData"].as_object().unwrap().len(), 2, "{value}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Decoded { public_ip: text(&lease["PublicIP"]), mac: text(&lease["BackendData"]["VtepMAC"]) }
}

#[test]
fn a_host_as_flanneld_sets_it_up_is_a_peer_and_has_peers() {
    let mut fabric = fabric!(3, Some(VXLAN));
    for _host in 0..2 {
        let options = fabric.options();
        fabric.start(&options);
    }
    fabric.settle();
    fabric.add_pods();
    let host = &fabric.lab.hosts[2];
    let exec = |line: &str| host.net.exec(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
    host.net.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
    exec(&format!(
        "ip link add flannel.1 address {MAC} type vxlan id 1 local 192.168.77.3 dev eth0 dstport 8472 nolearning"
    ));
    exec("ip link set flannel.1 mtu 1450 up");
    exec("ip addr add 10.244.200.0/32 dev flannel.1");
    let grant = fabric.ctl(&["lease", "grant", "86400"]);
    let grant = grant.split_whitespace().nth(1).unwrap().to_owned();
    fabric.ctl(&["put", "--lease", &grant, &key(KEY), &flannels("192.168.77.3", MAC)]);
    for agent in 0..2 {
        let own = fabric.lease_key(agent);
        let decoded = decode(&fabric.kv(&own).unwrap().value);
        let (net, via) = (subnet(&own), own.trim_end_matches("-24").to_owned());
        exec(&format!("ip neigh replace {via} lladdr {} dev flannel.1 nud permanent", decoded.mac));
        exec(&format!("bridge fdb append {} dev flannel.1 dst {}", decoded.mac, decoded.public_ip));
        exec(&format!("ip route replace {net} via {via} dev flannel.1 onlink"));
    }
    let pod = host.pod(&PodSubnet { ipv4: "10.244.200.1/24".parse().ok(), ipv6: None, mtu: 1450 }).unwrap();
    fabric.pods.push(pod);
    fabric.reach_all();
    for agent in &fabric.agents {
        let status = wait_ok(agent);
        let peer = status["peers"].as_array().unwrap().iter().find(|peer| peer["key"] == KEY).unwrap();
        assert_eq!((&peer["node"], &peer["public"][0]), (&Value::Null, &"192.168.77.3".into()));
    }
    let kv = fabric.kv(KEY).unwrap();
    assert_eq!(kv.value, flannels("192.168.77.3", MAC), "nobody else writes it");
    assert_eq!(kv.lease_id(), grant);
    fabric.ctl(&["lease", "revoke", &grant]);
    for agent in 0..2 {
        wait("the peer forgotten", || {
            if fabric.has_route(agent, "10.244.200.0/24") { Err(fabric.logs()) } else { Ok(()) }
        });
    }
}
