//! A network card that gets packets in packets wrong: it finishes the outermost checksum of a frame, and leaves one that
//! is inside a tunnel as the kernel left it to the card, unfinished. Some cards and hypervisors do.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use nix::net::if_::if_nametoindex;
use twill_backends::frame::virtio::{Header, LEN};

use super::{Lab, LabError, Netns, UPLINK, local_mac};
use crate::datapath::packet::{Listener, Sender};

/// The card's other side, and what that is plugged into.
const ENDS: [&str; 2] = ["near", "far"];
/// The bridge that the host's port waits in; nothing else is in it.
const ALONE: &str = "alone";
const MTU: u32 = 1500;
/// How long to wait before looking for frames again.
const PAUSE: Duration = Duration::from_micros(100);

/// The card of one host, in both directions, as long as this lives.
#[derive(Debug)]
pub struct Spoiler {
    net: Netns,
    _directions: Vec<JoinHandle<Result<(), LabError>>>,
}

impl Spoiler {
    /// Puts it between a host and the others. From then on all hosts send packets of wire size, each with its checksum
    /// left to the card: a card that spoils what it is to cut is not needed as well.
    pub fn start(lab: &Lab, host: usize) -> Result<Self, LabError> {
        for host in &lab.hosts {
            let off = [
                "gso",
                "tso",
                "tx-udp_tnl-segmentation",
                "tx-udp_tnl-csum-segmentation",
                "tx-udp-segmentation",
            ];
            let mut command = vec!["ethtool", "-K", UPLINK];
            command.extend(off.iter().flat_map(|feature| [*feature, "off"]));
            host.net.exec(&command)?;
        }
        let net = &lab.underlay.net;
        net.add_bridge(ALONE, local_mac([0x77, 9, 0, 0, 253]), MTU)?;
        net.link_up(ALONE)?;
        net.add_veth(ENDS[0], net, ENDS[1], MTU)?;
        net.join_bridge(ENDS[0], "ub0")?;
        let port = lab.hosts.get(host).map(|host| host.name.clone()).unwrap_or_default();
        net.join_bridge(&port, ALONE)?;
        ENDS.iter().try_for_each(|end| net.link_up(end))?;
        let attempt = || "open the sockets of a card".to_owned();
        let plugs = net.run(|| [port.as_str(), ENDS[1]].map(Plug::open))?;
        let [near, far] = plugs.map(|plug| plug.map(Arc::new).map_err(LabError::io(attempt)));
        let (near, far) = (near?, far?);
        let directions = [(Arc::clone(&near), Arc::clone(&far)), (far, near)];
        let threads = directions.map(|(from, to)| net.thread(move || carry(&from, &to)));
        Ok(Self { net: net.clone(), _directions: threads.into_iter().collect::<Result<_, _>>()? })
    }
}

impl Drop for Spoiler {
    /// Takes one end away, which ends the threads.
    fn drop(&mut self) {
        if let Err(error) = self.net.delete_link(ENDS[1]) {
            tracing::debug!(%error, "a card is left over");
        }
    }
}

/// One side of the card.
#[derive(Debug)]
struct Plug {
    index: u32,
    listener: Listener,
    sender: Sender,
}

impl Plug {
    fn open(device: &str) -> io::Result<Self> {
        let index = if_nametoindex(device)?;
        let (listener, sender) = (Listener::open()?, Sender::open()?);
        listener.listen_to_all(index)?;
        Ok(Self { index, listener, sender })
    }
}

/// One direction, until an end is gone.
fn carry(from: &Plug, to: &Plug) {
    let mut room = [0; 4096];
    room[..LEN].copy_from_slice(&Header::PLAIN.encode()[..LEN]);
    loop {
        match from.listener.next(&mut room[LEN..]) {
            Ok(len) => {
                finish(&mut room[LEN..LEN + len]);
                if let Err(error) = to.sender.send(to.index, &room[..LEN + len])
                    && error.raw_os_error() == Some(nix::libc::ENXIO)
                {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(_) => return,
        }
    }
}

/// Finishes the outermost transport checksum, unless there is to be none.
fn finish(frame: &mut [u8]) {
    let Ok(headers) = PacketHeaders::from_ethernet_slice(frame) else { return };
    let (Some(net), Some(transport)) = (headers.net, headers.transport) else { return };
    let payload = headers.payload.slice();
    let summed = match (&transport, &net) {
        (TransportHeader::Udp(udp), _) if udp.checksum == 0 => return,
        (TransportHeader::Udp(udp), NetHeaders::Ipv4(ip, _)) => udp.calc_checksum_ipv4(ip, payload),
        (TransportHeader::Udp(udp), NetHeaders::Ipv6(ip, _)) => udp.calc_checksum_ipv6(ip, payload),
        (TransportHeader::Tcp(tcp), NetHeaders::Ipv4(ip, _)) => tcp.calc_checksum_ipv4(ip, payload),
        (TransportHeader::Tcp(tcp), NetHeaders::Ipv6(ip, _)) => tcp.calc_checksum_ipv6(ip, payload),
        _ => return,
    };
    let field = if matches!(transport, TransportHeader::Udp(_)) { 6 } else { 16 };
    let start = 14 + net.header_len();
    if let (Ok(sum), Some(place)) = (summed, frame.get_mut(start + field..start + field + 2)) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    /// A UDP datagram in a UDP datagram, both with a wrong checksum.
    #[test]
    fn the_outermost_checksum_is_finished_and_no_other() {
        let mut inner = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 5, 1, 1], [10, 5, 2, 1], 64);
        builder.udp(1, 2).write(&mut inner, b"inside").unwrap();
        let at = inner.len() - 6 - 2;
        inner[at] ^= 0xff;
        let mut good = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
        builder.udp(50_000, 8472).write(&mut good, &inner).unwrap();
        let mut frame = good.clone();
        frame[40] ^= 0xff;
        finish(&mut frame);
        assert_eq!(frame, good);
        frame[40..42].fill(0);
        let none = frame.clone();
        finish(&mut frame);
        assert_eq!(frame, none);
        finish(&mut frame[..20]);
    }
}
