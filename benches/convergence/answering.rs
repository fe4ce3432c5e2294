//! Hosts that answer probes, all of them in one namespace: each has a lease, an address and a secret, and no agent.
//!
//! # Why one prober stands for all
//! What they send when is decided by the code that agents have. It spreads its requests over its peers as each of many
//! hosts does; here every peer of its is one of the hosts on its way to the one agent, which so gets as many requests a
//! second as from as many agents, each with as many peers.
//!
//! # Why its requests are spread
//! A host sends several requests at once, and each to another host: those that come to one host come one by one.
//!
//! # Why the tunnel ends here
//! Frames are unwrapped and wrapped by hand, so that those of each host come from its own address, as the agent's guard
//! wants it; a VXLAN device of the kernel has one address.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ring::hmac;
use twill::lab::{EtcdProcess, Host, Lab, LabError};
use twill::probe::secret::{self, Party};
use twill_backends::family::Family;
use twill_backends::frame::vxlan::Vxlan;
use twill_backends::lease::{Lease, LeaseKey};
use twill_backends::probe::echo::{Echo, HEADER, SHORTEST, TAG};
use twill_backends::probe::{Course, Number, Outgoing, Prober, Way, headers};

use crate::datagram::{open, receive, transmit};
use crate::fabric::fill_with;

/// How many there can be: their public addresses are those of [`PUBLIC`].
const MOST: u32 = 1 << 10;
const PUBLIC: &str = "192.168.100.0/22";
/// Where they answer probes, and where their tunnels end.
const PORT: u16 = 8475;
const TUNNEL: u16 = 8472;
const VXLAN: Vxlan = Vxlan::new(1, false);
/// What the agent's devices take, and what the tunnel adds.
const MTU: u32 = 1450;
const OVERHEAD: u32 = 50;
/// Over what time requests that are due at once are spread: they do not count as lost for that.
const SPREAD: Duration = Duration::from_millis(200);
/// How long nobody looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Hosts that answer, until this is dropped.
pub(crate) struct Answering {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), LabError>>>,
}

/// One of the hosts.
struct Peer {
    line: Number,
    public: Ipv4Addr,
    tunnel: Ipv4Addr,
    mac: [u8; 6],
    name: u64,
    key: hmac::Key,
}

/// The agent, as they know it.
struct Agent {
    name: u64,
    public: Ipv4Addr,
    tunnel: Ipv4Addr,
    mac: [u8; 6],
    port: u16,
}

/// All of them.
struct Crowd {
    agent: Agent,
    peers: Vec<Peer>,
    numbers: BTreeMap<Number, usize>,
    prober: Prober,
    /// Requests that go one by one, when the next one does, and the time between two.
    waiting: VecDeque<Outgoing>,
    next: Instant,
    gap: Duration,
    /// The port of probes, and that of the tunnels.
    sockets: [(Way, UdpSocket); 2],
}

/// Writes the leases of that many hosts, which answer probes, and leads what is for them to `place`.
pub(crate) fn fill(lab: &Lab, etcd: &EtcdProcess, place: &Host, hosts: u32) {
    assert!(hosts <= MOST, "{PUBLIC} has no more addresses");
    lab.underlay.net.add_route(PUBLIC.parse().unwrap(), place.addresses[0]).unwrap();
    place.net.exec(&["ip", "route", "add", "local", PUBLIC, "dev", "lo"]).unwrap();
    let attributes = |n| {
        let Party { node, secret } = party(n);
        format!(r#","NodeID":"{node}","Probe":{{"Port":{PORT},"Key":"{secret}"}}"#)
    };
    fill_with(lab, etcd, 0..hosts, attributes);
}

fn party(n: u32) -> Party {
    Party { node: format!("node-{n}"), secret: format!("secret-{n}") }
}

impl Answering {
    /// The hosts of [`fill`] begin to answer the agent that has this lease, and to ask it.
    pub(crate) fn start(place: &Host, hosts: u32, agent: &Lease) -> Self {
        let (agent, stop) = (agent.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let answer = move || {
            let mut crowd = Crowd::new(hosts, &agent);
            while !stopped.load(Ordering::Relaxed) {
                crowd.turn();
            }
        };
        Self { stop, thread: Some(place.net.thread(answer).unwrap()) }
    }

    /// Whether they do still.
    pub(crate) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Had it failed, that is written already.
        self.thread.take().map(JoinHandle::join);
    }
}

impl Crowd {
    fn new(hosts: u32, lease: &Lease) -> Self {
        let listener = lease.attrs.probe.as_ref().unwrap();
        let own = Party { node: lease.attrs.node_id.clone().unwrap(), secret: listener.secret.clone() };
        let agent = Agent {
            name: secret::name(&own),
            public: lease.attrs.public_ip.unwrap(),
            tunnel: v4(lease.subnets.v4.unwrap().network()),
            mac: mac(lease),
            port: listener.port,
        };
        let now = Instant::now();
        let mut prober = Prober::new(1, now);
        prober.settled(true);
        let course = Course {
            overlay: Some(agent.tunnel.into()),
            underlay: agent.public.into(),
            port: agent.port,
            mtu: MTU,
            overhead: OVERHEAD,
            known: None,
        };
        let follow = |n: u32| {
            let [.., a, b] = n.to_be_bytes();
            let line = (LeaseKey::new(format!("10.{a}.{b}.0-24")), Family::V4);
            Peer::new(n, &own, prober.follow(&line, Some(course), now).unwrap())
        };
        let peers: Vec<Peer> = (0..hosts).map(follow).collect();
        let numbers = peers.iter().enumerate().map(|(n, peer)| (peer.line, n)).collect();
        let sockets = [(Way::Underlay, open(PORT)), (Way::Overlay, open(TUNNEL))];
        Self { agent, peers, numbers, prober, waiting: VecDeque::new(), next: now, gap: SPREAD, sockets }
    }

    /// Asks what is due, and takes what came.
    fn turn(&mut self) {
        let now = Instant::now();
        let requests = self.prober.requests(now);
        if !requests.is_empty() {
            self.waiting.extend(requests);
            self.gap = SPREAD / self.waiting.len() as u32;
        }
        if self.next <= now
            && let Some(request) = self.waiting.pop_front()
        {
            self.send(&request);
            self.next = now + self.gap;
        }
        let next = if self.waiting.is_empty() { None } else { Some(self.next) };
        let due = self.prober.due(now).into_iter().chain(next).min().unwrap();
        let due = due.saturating_duration_since(now).min(LOOK);
        let mut sockets =
            [0, 1].map(|index: usize| PollFd::new(self.sockets[index].1.as_fd(), PollFlags::POLLIN));
        // Less than a millisecond is none: the loop turns a few times more.
        poll(&mut sockets, PollTimeout::try_from(due).unwrap()).unwrap();
        let mut buffer = [0; 2048];
        for index in [0, 1] {
            while let Some((length, to)) = receive(&self.sockets[index].1, &mut buffer) {
                self.hear(self.sockets[index].0, &buffer[..length], to);
            }
        }
    }

    /// Takes what came to one of them.
    fn hear(&mut self, way: Way, datagram: &[u8], to: Ipv4Addr) {
        let [.., a, b] = to.octets();
        let Some(peer) = self.peers.get((usize::from(a) - 100) << 8 | usize::from(b)) else { return };
        let probe = match way {
            Way::Underlay => Some(datagram),
            Way::Overlay => VXLAN.open(datagram).ok().and_then(|frame| unwrap(frame, peer)),
        };
        let Some((name, echo)) = probe.and_then(Echo::decode) else { return };
        assert!(name == self.agent.name && echo.way == way, "{to}: {echo:?}");
        assert!(probe.is_some_and(|probe| secret::is_tagged(&peer.key, probe)), "{to}: {echo:?}");
        let size = u32::try_from(probe.map_or(0, <[u8]>::len)).unwrap() + headers(false);
        let line = peer.line;
        if let Some(answer) = self.prober.hear(line, &echo, size, Instant::now()) {
            self.send(&answer);
        }
    }

    fn send(&self, out: &Outgoing) {
        let peer = &self.peers[self.numbers[&out.line]];
        let length = usize::try_from(out.size - headers(false)).unwrap().max(SHORTEST);
        let header = out.echo.encode(peer.name, u16::try_from(length).unwrap());
        let mut probe = vec![0; length];
        probe[..HEADER].copy_from_slice(&header);
        probe[HEADER..HEADER + TAG].copy_from_slice(&secret::tag(&peer.key, &header));
        let [under, over] = &self.sockets;
        match out.echo.way {
            Way::Underlay => {
                transmit(
                    &under.1,
                    &probe,
                    peer.public,
                    SocketAddrV4::new(self.agent.public, self.agent.port),
                );
            }
            Way::Overlay => {
                let datagram = wrap(&probe, peer, &self.agent);
                transmit(&over.1, &datagram, peer.public, SocketAddrV4::new(self.agent.public, TUNNEL));
            }
        }
    }
}

impl Peer {
    /// As [`fill_with`] writes it.
    fn new(n: u32, agent: &Party, line: Number) -> Self {
        let [.., a, b] = n.to_be_bytes();
        let own = party(n);
        Self {
            line,
            public: Ipv4Addr::new(192, 168, 100 + a, b),
            tunnel: Ipv4Addr::new(10, a, b, 0),
            mac: [2, 0, 0, 0, a, b],
            name: secret::name(&own),
            key: secret::key(&own, agent),
        }
    }
}

/// A probe on its way through the tunnel.
fn wrap(probe: &[u8], peer: &Peer, agent: &Agent) -> Vec<u8> {
    let mut datagram = VXLAN.header().to_vec();
    PacketBuilder::ethernet2(peer.mac, agent.mac)
        .ipv4(peer.tunnel.octets(), agent.tunnel.octets(), 64)
        .udp(PORT, agent.port)
        .write(&mut datagram, probe)
        .unwrap();
    datagram
}

/// The probe in a frame, if it is one for the tunnel of this host.
fn unwrap<'f>(frame: &'f [u8], peer: &Peer) -> Option<&'f [u8]> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport) else {
        return None;
    };
    let here = ip.header().destination_addr() == peer.tunnel
        && frame.starts_with(&peer.mac)
        && udp.destination_port() == PORT;
    here.then_some(udp.payload())
}

fn v4(addr: IpAddr) -> Ipv4Addr {
    if let IpAddr::V4(addr) = addr { addr } else { unreachable!("{addr} is not of IPv4") }
}

fn mac(lease: &Lease) -> [u8; 6] {
    let data = lease.attrs.backend_data.as_ref().unwrap();
    let text = data["VtepMAC"].as_str().unwrap();
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}
