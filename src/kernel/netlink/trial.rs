//! Tries what arrives whole at other hosts, with each setting of a tunnel's device, without touching that device.
//!
//! # How
//! A stand-in, a VXLAN device with a name, a VNI and a port of its own, sends frames to the other hosts' tunnel port with
//! the fabric's VNI: an FDB entry may name both. So the frames take the way that those of the tunnel take, through the
//! same code, network card and underlay, and arrive in the tunnel; answers come back through the tunnel's own device,
//! where they are overheard. For the stand-in itself nobody knows the number that the kernel would take a frame by.

mod round;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourAttribute;
use tokio::net::UdpSocket;
use twill_backends::checksums::{Count, Trial};
use twill_backends::frame::syn::{self, Ends};
use twill_backends::mac::Mac;
use twill_backends::state::{Checksums, Fdb, Link, LinkKind, LinkName, Vxlan};

use self::round::Round;
use super::request::Requests;
use super::{build, link};
use crate::datapath::ethtool;
use crate::datapath::packet::{Listener, Sender};
use crate::datapath::tap::Queues;
use crate::kernel::trial::{Bench, Place, stand_in};

/// How often each packet is sent.
const ROUNDS: u32 = 3;
/// How long answers may take.
const PATIENCE: Duration = Duration::from_millis(400);
/// What a small and a large packet carry, in bytes, and the pieces of the large one: they pass any underlay.
const SMALL: u16 = 64;
const LARGE: u16 = 4000;
const PIECE: u16 = 1000;
/// How many large packets are sent to see how fast they leave, how often, and what each carries at most, in bytes. The
/// best of many short bursts is one that nothing came between.
const BURST: u32 = 4;
const BURSTS: u32 = 8;
const LARGEST: u16 = 60_000;
/// Where they go: to a VNI that nobody has.
const NOBODY: Mac = Mac([2, 0x74, 0, 0, 0, 0xfe]);
const NOWHERE: u32 = 0xff_fffd;
/// Headers of IPv6 and TCP.
const HEADERS: u32 = 60;

/// Sockets of the network namespace in which they were opened.
pub(super) struct Tools {
    requests: Requests,
    sender: Sender,
    listener: Listener,
}

/// Places that answer, each by one address.
type Awake<'a> = Vec<(&'a Place, IpAddr)>;

impl Tools {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { requests: Requests::open()?, sender: Sender::open()?, listener: Listener::open()? })
    }

    /// What became of packets with each setting.
    pub(super) async fn run(&self, bench: &Bench) -> Result<Vec<Trial>, String> {
        let Some(vxlan) = bench.link.vxlan() else { return Ok(Vec::new()) };
        let seen = self.requests.link(bench.dev).await.map_err(|refusal| refusal.to_string())?;
        let seen = seen.ok_or_else(|| format!("{} is gone", bench.dev))?;
        let port = fastrand::u16(49_152..);
        let listening = self.listener.listen(seen.index, bench.source.is_ipv6(), port);
        let answers = listening.and_then(|()| self.listener.awaited());
        let answers = answers.map_err(|error| format!("cannot hear answers: {error}"))?;
        let name = stand_in(seen.index).ok_or("there is no name for a stand-in")?;
        let stand_in = StandIn { tools: self, bench, vxlan, name, port, answers };
        let have = vxlan.checksums.udp;
        let mut trials = stand_in.with_udp(have).await?;
        // Over IPv6 a checksum outside is the rule (RFC 8200), and packets without are refused by most.
        if vxlan.local.is_ipv4() {
            let others = stand_in.with_udp(!have).await?;
            if trials.is_empty() && !others.is_empty() {
                // Nobody may have been there yet.
                trials = stand_in.with_udp(have).await?;
            }
            trials.extend(others);
        }
        Ok(trials)
    }
}

/// A device in the tunnel's place.
struct StandIn<'a> {
    tools: &'a Tools,
    bench: &'a Bench,
    vxlan: &'a Vxlan,
    name: LinkName,
    /// Where answers come to, and are overheard.
    port: u16,
    answers: UdpSocket,
}

impl StandIn<'_> {
    /// Makes the device, tries both ways, and takes it away again.
    async fn with_udp(&self, udp: bool) -> Result<Vec<Trial>, String> {
        let tried = match self.make(udp).await {
            Ok(index) => self.both(index, udp).await,
            Err(cause) => Err(cause),
        };
        if let Ok(Some(seen)) = self.tools.requests.link(self.name).await {
            let gone =
                self.tools.requests.ask(RouteNetlinkMessage::DelLink(build::link(seen.index)), 0).await;
            gone.map(drop).unwrap_or_else(|refusal| {
                tracing::warn!(%refusal, name = %self.name, "a device is left over");
            });
        }
        tried.map_err(|cause| format!("{}: {cause}", self.name))
    }

    async fn make(&self, udp: bool) -> Result<u32, String> {
        let any: IpAddr = match self.vxlan.local {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let free = std::net::UdpSocket::bind((any, 0))
            .and_then(|socket| socket.local_addr())
            .map_err(|e| e.to_string())?;
        let vxlan = Vxlan {
            vni: fastrand::u32(1..NOWHERE),
            port: free.port(),
            checksums: Checksums { offload: false, udp },
            ..self.vxlan.clone()
        };
        let want = Link {
            kind: LinkKind::Vxlan(vxlan),
            alias: String::new(),
            addrs: [].into(),
            ..self.bench.link.clone()
        };
        let requests = &self.tools.requests;
        link::set(requests, self.name, &want, Queues::One).await?;
        let seen = requests.link(self.name).await.map_err(|refusal| refusal.to_string())?;
        let index = seen.ok_or("it went away")?.index;
        for place in &self.bench.places {
            self.lead(index, (place.vtep, place.outer), self.vxlan.vni).await?;
        }
        if let Some(place) = self.bench.places.first() {
            self.lead(index, (NOBODY, place.outer), NOWHERE).await?;
        }
        Ok(index)
    }

    /// Has frames to an Ethernet address sent to a host's tunnel.
    async fn lead(&self, index: u32, (mac, dst): (Mac, IpAddr), vni: u32) -> Result<(), String> {
        let mut entry = build::fdb(index, &Fdb { dev: self.name, mac, dst });
        entry.attributes.push(NeighbourAttribute::Port(self.vxlan.port));
        entry.attributes.push(NeighbourAttribute::Vni(vni));
        let set = RouteNetlinkMessage::NewNeighbour(entry);
        let answer = self.tools.requests.ask(set, NLM_F_CREATE | NLM_F_REPLACE).await;
        answer.map(drop).map_err(|refusal| refusal.to_string())
    }

    /// Tries what is left to the device, and then what is finished before. Only those places count that answered before,
    /// so that one that comes or goes meanwhile is not taken for one that a setting does not reach.
    async fn both(&self, index: u32, udp: bool) -> Result<Vec<Trial>, String> {
        let awake = self.awake(index).await?;
        if awake.is_empty() {
            return Ok(Vec::new());
        }
        let mut trials = Vec::new();
        for offload in [true, false] {
            self.leave(offload)?;
            trials.extend(self.tried(index, &awake, Checksums { offload, udp }).await?);
        }
        let rates = self.rates(index)?;
        for trial in &mut trials {
            trial.rate = if trial.with.offload { rates.0 } else { rates.1 };
        }
        Ok(trials)
    }

    /// Leaves checksums to the device, or not.
    fn leave(&self, offload: bool) -> Result<(), String> {
        ethtool::set_tx_checksum(self.name, offload)
            .map_err(|error| format!("cannot change tx-checksum-ip-generic: {error}"))
    }

    /// The places that answer what is right in any case.
    async fn awake(&self, index: u32) -> Result<Awake<'_>, String> {
        let places: Awake<'_> = self
            .bench
            .places
            .iter()
            .flat_map(|place| place.inner.iter().map(move |inner| (place, *inner)))
            .collect();
        let with = Checksums { offload: false, udp: true };
        let mut trials: Vec<Trial> = places.iter().map(|(place, _)| nothing(place, with)).collect();
        for _ in 0..ROUNDS {
            let mut round = Round::default();
            self.ask(index, &places, SMALL, &mut round)?;
            self.hear(round, &mut trials).await;
        }
        let mut awake = Awake::new();
        for ((place, inner), trial) in places.into_iter().zip(&trials) {
            if trial.small.answered > 0 && awake.iter().all(|(other, _)| other.to != place.to) {
                awake.push((place, inner));
            }
        }
        Ok(awake)
    }

    async fn tried(&self, index: u32, awake: &Awake<'_>, with: Checksums) -> Result<Vec<Trial>, String> {
        let mut trials: Vec<Trial> = awake.iter().map(|(place, _)| nothing(place, with)).collect();
        for _ in 0..ROUNDS {
            let mut round = Round::default();
            self.ask(index, awake, SMALL, &mut round)?;
            self.ask(index, awake, LARGE, &mut round)?;
            self.hear(round, &mut trials).await;
        }
        Ok(trials)
    }

    /// Sends a packet of `len` bytes to each place.
    fn ask(&self, index: u32, awake: &Awake<'_>, len: u16, round: &mut Round) -> Result<(), String> {
        for (trial, (place, inner)) in awake.iter().enumerate() {
            let seq = fastrand::u32(..);
            let frame = self.packet((place.vtep, *inner), seq, len, PIECE).unwrap_or_default();
            self.tools.sender.send(index, &frame).map_err(|error| format!("cannot send: {error}"))?;
            round.asked(trial, *inner, syn::answers(seq, len, PIECE));
        }
        Ok(())
    }

    /// Counts what arrived, once there is no more to come.
    async fn hear(&self, mut round: Round, trials: &mut [Trial]) {
        let mut room = [0; 128];
        let listen = async {
            while !round.is_over() {
                // One that hears no more has lost its device.
                let Ok(len) = self.answers.recv(&mut room).await else { return };
                round.answered(syn::answered(&room[..len], self.port));
            }
        };
        tokio::time::timeout(PATIENCE, listen).await.ok();
        round.count(trials);
    }

    /// How fast large packets leave with checksums left to the device, and without, in Mbit/s: at best, for whatever else
    /// runs makes it less, and by turns, so that it makes both less. 0 if they do not.
    fn rates(&self, index: u32) -> Result<(u64, u64), String> {
        let piece = u16::try_from(self.bench.link.mtu.saturating_sub(HEADERS)).unwrap_or(LARGEST);
        let len = LARGEST / piece.max(1) * piece;
        let frame = self.packet((NOBODY, self.bench.source), 0, len, piece).unwrap_or_default();
        let burst = || {
            let began = Instant::now();
            (0..BURST).try_for_each(|_| self.tools.sender.send(index, &frame)).ok()?;
            let bits = u64::from(BURST) * u64::from(len) * 8;
            bits.checked_div(u64::try_from(began.elapsed().as_micros()).ok()?)
        };
        let (mut with, mut without) = (0, 0);
        for _ in 0..BURSTS {
            self.leave(true)?;
            with = with.max(burst().unwrap_or_default());
            self.leave(false)?;
            without = without.max(burst().unwrap_or_default());
        }
        Ok((with, without))
    }

    fn packet(&self, (mac, to): (Mac, IpAddr), seq: u32, len: u16, piece: u16) -> Option<Vec<u8>> {
        let macs = [self.bench.link.mac, mac];
        let ends = Ends { macs, from: self.bench.source, to, ports: [self.port, self.bench.port] };
        syn::segment(&ends, seq, len, piece)
    }
}

fn nothing(place: &Place, with: Checksums) -> Trial {
    Trial { to: place.to.clone(), with, small: Count::default(), large: Count::default(), rate: 0 }
}
