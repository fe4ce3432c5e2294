//! Two hosts joined by the subject: built once, stopped while another subject has its turn.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::sys::signal::Signal;

use super::ceiling::Ceiling;
use crate::config::{BenchConfig, Ends, Subject};
use crate::lab::command::{Ready, configure};
use crate::lab::probe::{Path, ping_until};
use crate::lab::{
    AgentOptions, AgentProcess, Host, Lab, LabError, LabOptions, Pod, PodSubnet, StoreAt, Tunnel, TunnelPeer,
    local_mac,
};

/// How long agents may take to be ready, and a first echo to pass.
const PATIENCE: Duration = Duration::from_secs(30);
/// The MTU of the underlay, and what VXLAN takes of it over IPv4 and IPv6.
const MTU: u32 = 1500;
const OVERHEAD: (u32, u32) = (50, 70);
const DEVICE: &str = "vxlan1";

/// The subject, ready to carry. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Fabric {
    pub(super) subject: Subject,
    pub(super) agents: Vec<AgentProcess>,
    carriers: Vec<Ceiling>,
    pods: Vec<Pod>,
    /// The hosts' addresses as the subject carries them.
    addresses: Vec<IpAddr>,
    lab: Lab,
}

impl Fabric {
    /// Builds it and sees that both pairs of ends reach each other.
    pub(super) fn build(subject: Subject, config: &BenchConfig, ready: &Ready) -> Result<Self, LabError> {
        let (ipv4, ipv6) = (!config.ipv6, config.ipv6);
        let cancel = ready.cancel.clone();
        let lab = Lab::new(&LabOptions { hosts: 2, ipv4, ipv6, mtu: MTU, cancel, ..LabOptions::default() })?;
        let (agents, carriers, pods, addresses) = Default::default();
        let mut fabric = Self { subject, agents, carriers, pods, addresses, lab };
        match subject {
            Subject::Bare => {
                fabric.addresses = fabric.lab.hosts.iter().map(|host| host.addresses[0]).collect()
            }
            Subject::ByHand | Subject::Ceiling => fabric.by_hand()?,
            Subject::Vxlan | Subject::HostGw | Subject::Userspace | Subject::Plain => {
                fabric.with_agents(config, ready)?;
            }
        }
        for ends in Ends::ALL {
            if let Some(path) = fabric.path(*ends) {
                ping_until(path.from, path.target, PATIENCE, &ready.cancel)?;
            }
        }
        fabric.pause()?;
        Ok(fabric)
    }

    /// From the first host to the second; `None` where the subject has no such ends.
    pub(super) fn path(&self, ends: Ends) -> Option<Path<'_>> {
        match (ends, self.lab.hosts.as_slice(), self.pods.as_slice()) {
            (Ends::Hosts, [from, to], _) => {
                Some(Path { from: &from.net, to: &to.net, target: *self.addresses.get(1)? })
            }
            (Ends::Pods, _, [from, to]) => {
                Some(Path { from: &from.net, to: &to.net, target: *to.addresses.first()? })
            }
            _ => None,
        }
    }

    /// Stops its agents: while another subject has its turn, this one costs nothing.
    pub(super) fn pause(&mut self) -> Result<(), LabError> {
        self.agents.iter_mut().try_for_each(|agent| agent.signal(Signal::SIGSTOP))
    }

    /// Lets its agents go on.
    pub(super) fn resume(&mut self) -> Result<(), LabError> {
        self.agents.iter_mut().try_for_each(|agent| agent.signal(Signal::SIGCONT))
    }

    fn with_agents(&mut self, config: &BenchConfig, ready: &Ready) -> Result<(), LabError> {
        let store = StoreAt::File(self.lab.dir().join("leases"));
        configure(&self.lab, &ready.program, &store, &network(self.subject, config.ipv6))?;
        let mut options = AgentOptions::new(&ready.program, store);
        if let Some(datapath) = datapath(self.subject) {
            let queues = config.queues.unwrap_or(0);
            options = options.arg("--datapath").arg(datapath).arg(format!("--datapath-queues={queues}"));
        }
        for host in &self.lab.hosts {
            self.agents.push(host.agent(&options)?);
        }
        for agent in &mut self.agents {
            agent.wait_ready(PATIENCE)?;
        }
        for (host, agent) in self.lab.hosts.iter().zip(&self.agents) {
            let subnet = agent.subnet()?;
            self.pods.push(host.pod(&subnet)?);
            let gateway = subnet.gateways().first().copied().ok_or_else(|| nothing(host))?;
            // host-gw has no device of its own: the bridge's address is what its routes lead to.
            let bridge = self.subject == Subject::HostGw;
            self.addresses.push(if bridge { gateway.addr() } else { gateway.network() });
        }
        Ok(())
    }

    /// Device, FDB entry, neighbour and route on both hosts, and pods behind bridges.
    fn by_hand(&mut self) -> Result<(), LabError> {
        let ends =
            self.lab.hosts.iter().zip(1..).map(|(host, n)| end(host, n)).collect::<Result<Vec<_>, _>>()?;
        for ((host, own), peer) in self.lab.hosts.iter().zip(&ends).zip(ends.iter().rev()) {
            let mtu = MTU - if own.public.is_ipv4() { OVERHEAD.0 } else { OVERHEAD.1 };
            let (name, local, mac, address) = (DEVICE.to_owned(), own.public, own.mac, own.address);
            let tunnel = Tunnel { name, vni: 1, port: 8472, local, mac, mtu, address };
            if self.subject == Subject::Ceiling {
                self.carriers.push(Ceiling::start(host, &tunnel, peer)?);
            } else {
                host.net.add_tunnel(&tunnel)?;
                host.net.add_tunnel_peer(DEVICE, peer)?;
            }
            host.net.set_sysctl("net/ipv4/ip_forward", "1")?;
            host.net.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
            let pod = host.pod(&pod_subnet(own.subnet, mtu))?;
            if self.subject == Subject::Ceiling {
                Ceiling::limit(&pod)?;
            }
            self.pods.push(pod);
            self.addresses.push(address);
        }
        Ok(())
    }
}

/// What the host number `n` is to the other one, set up by hand.
fn end(host: &Host, n: u8) -> Result<TunnelPeer, LabError> {
    let public = host.addresses.first().copied().ok_or_else(|| nothing(host))?;
    let subnet = if public.is_ipv4() {
        Ipv4Net::new(Ipv4Addr::new(10, 244, n, 0), 24).map(IpNet::V4)
    } else {
        Ipv6Net::new(Ipv6Addr::new(0xfd00, 0x244, 0, n.into(), 0, 0, 0, 0), 64).map(IpNet::V6)
    };
    let subnet = subnet.map_err(|_length| nothing(host))?;
    Ok(TunnelPeer { public, mac: local_mac([0x4e, 0, 0, 0, n]), address: subnet.addr(), subnet })
}

/// The subnet as the agent would tell it: the bridge has the first address.
fn pod_subnet(subnet: IpNet, mtu: u32) -> PodSubnet {
    let (mut ipv4, mut ipv6) = (None, None);
    match subnet {
        IpNet::V4(net) => ipv4 = Ipv4Net::new((u32::from(net.addr()) + 1).into(), net.prefix_len()).ok(),
        IpNet::V6(net) => ipv6 = Ipv6Net::new((u128::from(net.addr()) + 1).into(), net.prefix_len()).ok(),
    }
    PodSubnet { ipv4, ipv6, mtu }
}

/// The network config of the subject's fabric.
fn network(subject: Subject, ipv6: bool) -> String {
    let kind = if subject == Subject::HostGw { "host-gw" } else { "vxlan" };
    let network = if ipv6 {
        r#""EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:244::/48""#
    } else {
        r#""Network":"10.244.0.0/16""#
    };
    format!(r#"{{{network},"Backend":{{"Type":"{kind}"}}}}"#)
}

/// What `--datapath` says, if anything.
const fn datapath(subject: Subject) -> Option<&'static str> {
    match subject {
        Subject::Vxlan => Some("kernel"),
        Subject::Userspace => Some("userspace"),
        Subject::Plain => Some("plain"),
        Subject::Bare | Subject::ByHand | Subject::HostGw | Subject::Ceiling => None,
    }
}

fn nothing(host: &Host) -> LabError {
    LabError::Unreadable { what: "the addresses".into(), text: format!("{} has none", host.name) }
}
