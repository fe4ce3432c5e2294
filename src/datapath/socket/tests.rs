//! The socket on the loopback device: what it sends, what it does where the kernel refuses, and what it receives.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::datapath::batch::Piece;
use crate::lab::{Lab, Netns};

const LOCAL: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];
/// More than any kernel cuts at once.
const TOO_MANY: usize = 200;

/// One that is read datagram by datagram.
fn reader(addr: &str) -> UdpSocket {
    let reader = UdpSocket::bind(addr).unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    reader
}

/// `count` datagrams of `len` bytes, of the number of the datagram; in one message if there are several.
fn add(batch: &mut Batch, to: SocketAddr, count: usize, len: usize) {
    let first = batch.pieces.len() as u32;
    for n in 0..count {
        let piece = batch.put(&vec![n as u8; len]).unwrap();
        batch.pieces.push(piece);
    }
    let segment = if count > 1 { len as u16 } else { 0 };
    let last = batch.pieces.len() as u32;
    batch.messages.push(Message { to, peer: 0, segment, pieces_each: 1, first, last });
}

/// The first byte and the length of each datagram that came.
fn came(reader: &UdpSocket, count: usize) -> Vec<(u8, usize)> {
    let mut bytes = [0; 65_536];
    let mut next = |_| reader.recv(&mut bytes).map(|len| (bytes[0], len)).unwrap();
    (0..count).map(&mut next).collect()
}

fn numbered(count: usize, len: usize) -> Vec<(u8, usize)> {
    (0..count).map(|n| (n as u8, len)).collect()
}

#[test]
fn datagrams_arrive_one_by_one_whether_the_kernel_cuts_or_not() {
    for (addr, gso) in LOCAL.into_iter().flat_map(|addr| [(addr, true), (addr, false)]) {
        let (reader, mut socket) = (reader(addr), Socket::open(addr.parse().unwrap(), false).unwrap());
        socket.gso = gso;
        let to = reader.local_addr().unwrap();
        let mut batch = Batch::new(0, 1 << 20);
        add(&mut batch, to, 40, 500);
        add(&mut batch, to, 1, 3);
        add(&mut batch, to, 2, 1400);
        assert_eq!(socket.send(&batch), Refused::default());
        let want = [numbered(40, 500), numbered(1, 3), numbered(2, 1400)].concat();
        assert_eq!(came(&reader, 43), want);
    }
}

/// How many datagrams of each message the last send refused. They are told in the order of the messages.
fn refused_of(socket: &Socket, batch: &Batch) -> Vec<u64> {
    let refused = socket.refused();
    assert!(refused.is_sorted_by_key(|(part, _)| part.first), "{refused:?}");
    let of = |message: &Message| {
        let within = |part: &Message| (message.first..message.last).contains(&part.first);
        refused.iter().filter(|(part, _)| within(part)).map(|(_, why)| why.total()).sum()
    };
    batch.messages.iter().map(of).collect()
}

#[test]
fn where_the_kernel_does_not_cut_datagrams_are_sent_one_by_one_from_then_on() {
    let (reader, mut socket) = (reader(LOCAL[0]), Socket::open(LOCAL[0].parse().unwrap(), false).unwrap());
    let to = reader.local_addr().unwrap();
    let mut batch = Batch::new(0, 1 << 20);
    add(&mut batch, to, 3, 10);
    add(&mut batch, to, TOO_MANY, 20);
    add(&mut batch, to, 3, 30);
    assert_eq!(socket.send(&batch), Refused::default());
    let want = [numbered(3, 10), numbered(TOO_MANY, 20), numbered(3, 30)].concat();
    assert_eq!(came(&reader, TOO_MANY + 6), want);
    assert!(!socket.gso);
    assert_eq!(socket.send(&batch), Refused::default());
    assert_eq!(came(&reader, TOO_MANY + 6), want);
    assert_eq!(refused_of(&socket, &batch), [0; 3]);
}

#[test]
fn what_is_too_big_is_counted_and_the_others_arrive() {
    if let Err(reason) = Lab::available() {
        println!("SKIP: {reason}");
        return;
    }
    let net = Netns::new("dp-too-big", false).unwrap();
    net.link_up("lo").unwrap();
    net.set_mtu("lo", 1500).unwrap();
    net.run(|| {
        for (addr, header) in LOCAL.into_iter().zip([28, 48]) {
            let (reader, mut socket) = (reader(addr), Socket::open(addr.parse().unwrap(), false).unwrap());
            let to = reader.local_addr().unwrap();
            let mut batch = Batch::new(0, 1 << 20);
            add(&mut batch, to, 1, 1500 - header);
            add(&mut batch, to, 1, 1501 - header);
            add(&mut batch, to, 5, 1600);
            add(&mut batch, to, 4, 700);
            // A smaller one may end a message.
            add(&mut batch, to, 2, 1600);
            batch.pieces.last_mut().unwrap().end -= 1000;
            // What is too big is no reason to give up that the kernel cuts.
            assert_eq!(socket.send(&batch), Refused { too_big: 7, ..Refused::default() });
            assert_eq!(refused_of(&socket, &batch), [0, 1, 5, 0, 1]);
            assert!(socket.gso);
            let want = [numbered(1, 1500 - header), numbered(4, 700), vec![(1, 600)]].concat();
            assert_eq!(came(&reader, 6), want);
        }
    })
    .unwrap();
}

#[test]
fn who_cannot_be_reached_costs_the_others_nothing() {
    if let Err(reason) = Lab::available() {
        println!("SKIP: {reason}");
        return;
    }
    let net = Netns::new("dp-no-route", false).unwrap();
    net.link_up("lo").unwrap();
    net.run(|| {
        let (reader, mut socket) =
            (reader(LOCAL[0]), Socket::open(LOCAL[0].parse().unwrap(), false).unwrap());
        let mut batch = Batch::new(0, 1 << 20);
        let nowhere = "192.0.2.1:9".parse().unwrap();
        add(&mut batch, nowhere, 3, 10);
        add(&mut batch, reader.local_addr().unwrap(), 3, 10);
        add(&mut batch, nowhere, 1, 10);
        assert_eq!(socket.send(&batch), Refused { other: 4, ..Refused::default() });
        assert_eq!(refused_of(&socket, &batch), [3, 0, 1]);
        assert!(socket.gso);
        assert_eq!(came(&reader, 3), numbered(3, 10));
    })
    .unwrap();
}

#[test]
fn what_comes_is_received_whole_and_with_its_sender() {
    for addr in LOCAL {
        let mut socket = Socket::open(addr.parse().unwrap(), false).unwrap();
        let mut sender = Socket::open(addr.parse().unwrap(), false).unwrap();
        let to = socket.socket.local_addr().unwrap().as_socket().unwrap();
        let mut batch = Batch::new(0, 1 << 20);
        add(&mut batch, to, 30, 900);
        add(&mut batch, to, 1, 0);
        add(&mut batch, to, 1, 60_000);
        assert_eq!(sender.send(&batch), Refused::default());
        let (mut batch, mut lens) = (Batch::new(4 * SLOT, 0), Vec::new());
        while lens.len() < 32 {
            batch.clear();
            let mut fds = [PollFd::new(socket.socket.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(5000_u16)), Ok(1));
            socket.recv(&mut batch).unwrap();
            for received in &batch.received {
                assert_eq!((received.from, received.cut), (to.ip(), false));
                let bytes = batch.bytes_of(Piece::new(received.start, received.end));
                match received.segment {
                    0 => lens.push(bytes.len()),
                    step => lens.extend(bytes.chunks(step).map(<[u8]>::len)),
                }
            }
        }
        assert_eq!(lens, [vec![900; 30], vec![0, 60_000]].concat());
        assert!(socket.recv(&mut batch).is_ok());
    }
}

#[test]
fn datagrams_without_checksum_are_received_over_either_family() {
    for addr in LOCAL {
        let mut socket = Socket::open(addr.parse().unwrap(), false).unwrap();
        let sender = Socket::open(addr.parse().unwrap(), false).unwrap();
        let (level, option) = match addr {
            "127.0.0.1:0" => (libc::SOL_SOCKET, libc::SO_NO_CHECK),
            _ => (libc::SOL_UDP, libc::UDP_NO_CHECK6_TX),
        };
        bind::set(&sender.socket, level, option, 1).unwrap();
        sender.socket.send_to(b"bare", &socket.socket.local_addr().unwrap()).unwrap();
        let mut fds = [PollFd::new(socket.socket.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(5000_u16)), Ok(1), "{addr}");
        let mut batch = Batch::new(SLOT, 0);
        socket.recv(&mut batch).unwrap();
        assert_eq!(batch.received.len(), 1, "{addr}");
    }
}

#[test]
fn datagrams_are_sent_with_a_checksum_over_ipv6_and_never_fragmented() {
    let get = |socket: &Socket, level, option| {
        let (mut value, mut len): (libc::c_int, libc::socklen_t) = (-1, 4);
        // SAFETY: value and length live through the call, and the length is that of the value.
        let done = unsafe {
            let value = (&raw mut value).cast();
            libc::getsockopt(socket.socket.as_raw_fd(), level, option, value, &raw mut len)
        };
        assert_eq!((done, len), (0, 4));
        value
    };
    let [v4, v6] = LOCAL.map(|addr| Socket::open(addr.parse().unwrap(), false).unwrap());
    assert_eq!(get(&v4, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_DO);
    assert_eq!(get(&v6, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER), libc::IPV6_PMTUDISC_DO);
    // RFC 6935, section 5: none but who was told to leaves it out.
    assert_eq!(get(&v6, libc::SOL_UDP, libc::UDP_NO_CHECK6_TX), 0);
    assert_eq!(get(&v4, libc::SOL_SOCKET, libc::SO_NO_CHECK), 0);
}
