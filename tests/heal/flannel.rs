//! What flanneld leaves on a host and in etcd, made by hand in its exact form (`spec/flannel.md`, sections 3.1, 4.1, 4.2,
//! 5, 6.2 and 6.3).

use std::fs;
use std::path::PathBuf;

use twill::lab::{EtcdProcess, Host, Lab, Pod, PodSubnet, StoreAt};

use crate::dump;
use crate::fabric::{Families, lab};

/// The prefix of flanneld's keys.
const PREFIX: &str = "/coreos.com/network";
/// A peer whose lease went while no flanneld looked: its routes and entries stayed on the others.
const VANISHED: usize = 8;

/// flanneld's backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Vxlan,
    HostGw,
}

/// flanneld's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    Iptables,
    Nftables,
}

/// Three hosts that flanneld ran on until a moment ago, each with a pod.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) pods: Vec<Pod>,
    pub(crate) etcd: EtcdProcess,
    pub(crate) lab: Lab,
    pub(crate) families: Families,
    backend: Backend,
    rules: Rules,
}

impl Left {
    pub(crate) fn new(families: Families, backend: Backend, rules: Rules) -> Self {
        let lab = lab(3, families);
        let etcd = lab.etcd().unwrap();
        let mut left = Self { pods: Vec::new(), etcd, lab, families, backend, rules };
        let kind = if backend == Backend::Vxlan { "vxlan" } else { "host-gw" };
        let nft = if rules == Rules::Nftables { r#""EnableNFTables":true,"# } else { "" };
        let config =
            families.config(&format!(r#"{{"Type":"{kind}"}}"#)).replacen('{', &format!("{{{nft}"), 1);
        left.etcd.etcdctl(&["put", &format!("{PREFIX}/config"), &config]).unwrap();
        for index in 0..left.lab.hosts.len() {
            left.lease(index);
            left.devices(index);
            left.peers(index);
            left.write_rules(index);
            left.write_env(index);
        }
        for (index, host) in left.lab.hosts.iter().enumerate() {
            let subnet = PodSubnet::from_subnet_env(&left.env(index)).unwrap();
            left.pods.push(host.pod(&subnet).unwrap());
        }
        left
    }

    /// Where the leases are.
    pub(crate) fn store(&self) -> StoreAt {
        StoreAt::Etcd { endpoints: self.etcd.endpoint() }
    }

    /// Where a host's agent will keep its subnet file: the lab decides.
    pub(crate) fn env_file(&self, index: usize) -> PathBuf {
        self.lab.dir().join(&self.lab.hosts[index].name).join("agent0").join("subnet.env")
    }

    /// The families in use; `true` is IPv6.
    pub(crate) fn families(&self) -> impl Iterator<Item = bool> + use<> {
        let (v4, v6) = (self.families.ipv4(), self.families.ipv6());
        [false, true].into_iter().filter(move |is_v6| if *is_v6 { v6 } else { v4 })
    }

    /// The devices of a host's tunnels.
    pub(crate) fn tunnels(&self) -> Vec<&'static str> {
        if self.backend == Backend::HostGw { Vec::new() } else { self.families().map(device).collect() }
    }

    /// The key of a host's lease; without IPv4, its part is the empty network.
    pub(crate) fn key(&self, index: usize) -> String {
        let part = |v6| subnet(index, v6).replace('/', "-");
        let v4 = if self.families.ipv4() { part(false) } else { "0.0.0.0-0".to_owned() };
        let v6 = if self.families.ipv6() { format!("&{}", part(true)) } else { String::new() };
        format!("{PREFIX}/subnets/{v4}{v6}")
    }

    fn lease(&self, index: usize) {
        let (ip, ip6) = (self.address(index, false), self.address(index, true));
        let ip6 = ip6.map_or("null".to_owned(), |ip| format!("\"{ip}\""));
        let mut value =
            format!(r#"{{"PublicIP":"{}","PublicIPv6":{ip6}"#, ip.unwrap_or("0.0.0.0".to_owned()));
        let data = |field: &str, v6| format!(r#","{field}":{{"VNI":1,"VtepMAC":"{}"}}"#, mac(index, v6));
        match self.backend {
            Backend::HostGw => value += r#","BackendType":"host-gw""#,
            Backend::Vxlan => {
                value += r#","BackendType":"vxlan""#;
                let fields = [("BackendData", false), ("BackendV6Data", true)];
                let used: Vec<bool> = self.families().collect();
                value.extend(fields.iter().filter(|(_, v6)| used.contains(v6)).map(|(f, v6)| data(f, *v6)));
            }
        }
        value += "}";
        let granted = self.etcd.etcdctl(&["lease", "grant", "86400"]).unwrap();
        let id = granted.split_whitespace().nth(1).unwrap();
        self.etcd.etcdctl(&["put", "--lease", id, &self.key(index), &value]).unwrap();
    }

    fn devices(&self, index: usize) {
        let net = &self.lab.hosts[index].net;
        net.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
        net.set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        for v6 in self.families().filter(|_| self.backend == Backend::Vxlan) {
            let (dev, mac, local) = (device(v6), mac(index, v6), self.address(index, v6).unwrap());
            let (base, full) = (base(index, v6), if v6 { 128 } else { 32 });
            dump::sh(
                net,
                &format!(
                    "ip link add {dev} address {mac} mtu 1450 txqueuelen 0 \
                     type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning || \
                     ip link add {dev} address {mac} mtu 1430 txqueuelen 0 \
                     type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning
                     echo 0 > /proc/sys/net/ipv6/conf/{dev}/accept_ra
                     ip addr add {base}/{full} dev {dev}; ip link set {dev} up"
                ),
            );
        }
    }

    fn peers(&self, index: usize) {
        let others = (0..self.lab.hosts.len()).filter(|other| *other != index);
        for peer in others.chain([VANISHED]) {
            for v6 in self.families() {
                let (net, mac) = (&self.lab.hosts[index].net, mac(peer, v6));
                let (subnet, base, dev) = (subnet(peer, v6), base(peer, v6), device(v6));
                let ip = if v6 { "ip -6" } else { "ip" };
                let like = self.address(0, v6).unwrap();
                let public = self.address(peer, v6).unwrap_or_else(|| {
                    let (net, _host) = like.rsplit_once(['.', ':']).unwrap();
                    format!("{net}{}{}", if v6 { ':' } else { '.' }, peer + 1)
                });
                let line = match self.backend {
                    Backend::HostGw => format!("{ip} route add {subnet} via {public} dev eth0"),
                    Backend::Vxlan => format!(
                        "{ip} neigh add {base} lladdr {mac} dev {dev} nud permanent
                         bridge fdb add {mac} dev {dev} dst {public} self permanent
                         {ip} route add {subnet} via {base} dev {dev} onlink"
                    ),
                };
                dump::sh(net, &line);
            }
        }
    }

    fn write_rules(&self, index: usize) {
        let net = &self.lab.hosts[index].net;
        for v6 in self.families() {
            let (n, p) = (network(v6), subnet(index, v6));
            let line = match self.rules {
                Rules::Iptables => iptables(v6, n, &p),
                Rules::Nftables => nftables(v6, n, &p),
            };
            dump::sh(net, &line);
        }
    }

    fn write_env(&self, index: usize) {
        let file = self.env_file(index);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, self.env(index)).unwrap();
    }

    /// What flanneld wrote; over IPv6, it promises more than the kernel grants the device.
    fn env(&self, index: usize) -> String {
        let line = |v6| {
            let (key, length) = if v6 { ("IPV6_", 64) } else { ("", 24) };
            let gateway =
                if v6 { format!("{}1", base(index, v6)) } else { format!("10.244.{}.1", index + 1) };
            format!("FLANNEL_{key}NETWORK={}\nFLANNEL_{key}SUBNET={gateway}/{length}\n", network(v6))
        };
        let lines: String = self.families().map(line).collect();
        let mtu = if self.backend == Backend::Vxlan { 1450 } else { 1500 };
        format!("{lines}FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n")
    }

    fn address(&self, index: usize, v6: bool) -> Option<String> {
        let host: &Host = self.lab.hosts.get(index)?;
        host.addresses.iter().find(|address| address.is_ipv6() == v6).map(ToString::to_string)
    }
}

/// The routes of a host to the vanished peer, and the entries of its tunnel: what nobody wants.
pub(crate) fn vanished(v6: bool) -> [String; 2] {
    [subnet(VANISHED, v6), mac(VANISHED, v6)]
}

pub(crate) fn subnet(index: usize, v6: bool) -> String {
    format!("{}/{}", base(index, v6), if v6 { 64 } else { 24 })
}

fn base(index: usize, v6: bool) -> String {
    if v6 { format!("fd00:244:0:{}::", index + 1) } else { format!("10.244.{}.0", index + 1) }
}

fn network(v6: bool) -> &'static str {
    if v6 { "fd00:244::/48" } else { "10.244.0.0/16" }
}

fn device(v6: bool) -> &'static str {
    if v6 { "flannel-v6.1" } else { "flannel.1" }
}

/// Random in life: locally administered, one for each device.
pub(crate) fn mac(index: usize, v6: bool) -> String {
    format!("f6:8c:be:44:{:02x}:{index:02x}", u8::from(v6))
}

fn iptables(v6: bool, n: &str, p: &str) -> String {
    let (program, multicast) = if v6 { ("ip6tables", "ff00::/8") } else { ("iptables", "224.0.0.0/4") };
    let masq = r#"-m comment --comment "flanneld masq""#;
    let fwd = r#"-m comment --comment "flanneld forward""#;
    format!(
        "{program}-restore --noflush <<'END'
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING {masq} -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN
-A FLANNEL-POSTRTG -s {p} -d {n} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {n} -d {p} {masq} -j RETURN
-A FLANNEL-POSTRTG ! -s {n} -d {p} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {n} ! -d {multicast} {masq} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {n} -d {n} {masq} -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD {fwd} -j FLANNEL-FWD
-A FLANNEL-FWD -s {n} {fwd} -j ACCEPT
-A FLANNEL-FWD -d {n} {fwd} -j ACCEPT
COMMIT
END"
    )
}

fn nftables(v6: bool, n: &str, p: &str) -> String {
    let (ip, multicast, table) =
        if v6 { ("ip6", "ff00::/8", "flannel-ipv6") } else { ("ip", "224.0.0.0/4", "flannel-ipv4") };
    format!(
        "nft -f - <<'END'
table {ip} {table} {{
  comment \"rules for {table}\"
  chain postrtg {{
    comment \"chain to manage traffic masquerading by flannel\"
    type nat hook postrouting priority srcnat; policy accept;
    meta mark 0x00004000 return
    {ip} saddr {p} {ip} daddr {n} return
    {ip} saddr {n} {ip} daddr {p} return
    {ip} saddr != {p} {ip} daddr {n} return
    {ip} saddr {n} {ip} daddr != {multicast} masquerade fully-random
    {ip} saddr != {n} {ip} daddr {n} masquerade fully-random
  }}
  chain forward {{
    comment \"chain to accept flannel traffic\"
    type filter hook forward priority filter; policy accept;
    {ip} saddr {n} accept
    {ip} daddr {n} accept
  }}
}}
END"
    )
}
