use proptest::prelude::*;

use super::*;

fn peer(n: u32) -> Peer {
    let [_, _, a, b] = n.to_be_bytes();
    Peer {
        mac: Some(Mac([2, 0, 0, 0, a, b])),
        addr: [172, 16, a, b].into(),
        subnet: format!("10.{a}.{b}.0/24").parse().unwrap(),
        mtu: 1450,
    }
}

fn inner(ip: &str) -> Option<u128> {
    Some(number(ip.parse().unwrap()))
}

#[test]
fn each_of_many_peers_is_found_by_each_of_its_names() {
    for size in [0, 1, 2, 3, 100, 10_000] {
        let peers: Vec<Peer> = (0..size).map(peer).collect();
        let table = Table::new(peers.clone());
        for (place, peer) in peers.iter().enumerate() {
            assert_eq!(table.at(peer.mac.unwrap().0), Some(peer));
            assert_eq!(table.at(peer.mac.unwrap().0).map(|found| table.place(found)), Some(place));
            assert_eq!(table.tunnel(peer.subnet.network()), Some(peer));
            assert_eq!(table.permits(peer.addr, None), Permit::Peer(peer));
            assert_eq!(table.alone_at(peer.addr), Some(peer));
        }
        assert_eq!(table.at(peer(size).mac.unwrap().0), None);
        assert_eq!(table.tunnel(peer(size).subnet.network()), None);
        assert_eq!(table.permits(peer(size).addr, None), Permit::Unknown);
        assert_eq!(table.peers(), peers);
    }
}

#[test]
fn only_inner_sources_of_the_subnet_are_permitted() {
    let peer = peer(0x0203);
    let table = Table::new([peer]);
    for (ip, permit) in [
        ("10.2.3.0", Permit::Peer(&peer)),
        ("10.2.3.255", Permit::Peer(&peer)),
        ("10.2.4.0", Permit::Foreign),
        ("10.2.2.255", Permit::Foreign),
        ("172.16.2.3", Permit::Peer(&peer)),
        ("172.16.2.4", Permit::Foreign),
        ("::a02:300", Permit::Foreign),
    ] {
        assert_eq!(table.permits(peer.addr, inner(ip)), permit, "{ip}");
        assert_eq!(table.permits([172, 16, 9, 9].into(), inner(ip)), Permit::Unknown);
    }
}

#[test]
fn sources_of_a_socket_for_both_families_are_the_same_addresses() {
    let table = Table::new([peer(5)]);
    assert_eq!(
        table.permits("::ffff:172.16.0.5".parse().unwrap(), inner("10.0.5.9")),
        Permit::Peer(&peer(5))
    );
}

#[test]
fn peers_behind_one_address_keep_their_own_subnets() {
    let same = [1, 2, 3].map(|n| Peer { addr: [192, 0, 2, 1].into(), ..peer(n) });
    let table = Table::new(same);
    for peer in &same {
        let source = Some(number(peer.subnet.network()));
        assert_eq!(table.permits(peer.addr, source), Permit::Peer(peer));
    }
    assert_eq!(table.permits(same[0].addr, inner("10.0.4.1")), Permit::Foreign);
    assert_eq!(table.alone_at(same[0].addr), None);
}

#[test]
fn subnets_of_any_length_are_compared_in_full() {
    for (net, inside, outside) in [
        ("0.0.0.0/0", "255.255.255.255", "::"),
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.2"),
        ("fd00::/64", "fd00::ffff:ffff:ffff:ffff", "fd00:0:0:1::"),
        ("fd00::1/128", "fd00::1", "fd00::"),
        ("10.1.2.77/24", "10.1.2.1", "10.1.3.1"),
    ] {
        let peer = Peer { subnet: net.parse().unwrap(), ..peer(1) };
        let table = Table::new([peer]);
        assert_eq!(table.permits(peer.addr, inner(inside)), Permit::Peer(&peer), "{net}");
        assert_eq!(table.permits(peer.addr, inner(outside)), Permit::Foreign, "{net}");
    }
}

#[test]
fn a_peer_that_needs_no_tunnel_may_send_and_is_sent_nothing() {
    let table = Table::new([peer(1), Peer { mac: None, ..peer(2) }]);
    let direct = &table.peers()[1];
    assert_eq!(table.permits(direct.addr, None), Permit::Peer(direct));
    assert_eq!(table.tunnel(direct.subnet.network()), Some(direct));
    assert!(table.at([0; 6]).is_none());
}

proptest! {
    #[test]
    fn finds_what_a_search_of_the_list_finds(
        macs in proptest::collection::btree_set(any::<[u8; 6]>(), 0..200),
        absent: [u8; 6],
    ) {
        let peers: Vec<Peer> = macs.iter().map(|mac| Peer { mac: Some(Mac(*mac)), ..peer(1) }).collect();
        let table = Table::new(peers.clone());
        for mac in macs.iter().chain([&absent]) {
            prop_assert_eq!(table.at(*mac), peers.iter().find(|peer| peer.mac == Some(Mac(*mac))));
        }
    }
}
