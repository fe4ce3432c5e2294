use proptest::prelude::*;

use super::*;
use crate::backend::from_config;
use crate::host::Fact;
use crate::lease::Lease;
use crate::samples;

fn peer(n: u32) -> Peer {
    let [_, _, a, b] = n.to_be_bytes();
    Peer {
        mac: Mac([2, 0, 0, 0, a, b]),
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
            assert_eq!(table.at(peer.mac.0), Some(peer));
            assert_eq!(table.at(peer.mac.0).map(|found| table.place(found)), Some(place));
            assert_eq!(table.tunnel(peer.subnet.network()), Some(peer));
            assert_eq!(table.permits(peer.addr, None), Permit::Peer(peer));
            assert_eq!(table.alone_at(peer.addr), Some(peer));
        }
        assert_eq!(table.at(peer(size).mac.0), None);
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
fn a_table_is_what_the_plan_gives_one_device() {
    let config = samples::config(samples::V4, serde_json::json!({"Type": "vxlan"}));
    let backend = from_config(&config).unwrap();
    let (host, own) = (samples::host(), samples::own(config.clone()));
    let mut net = backend.base(&host, &own).net;
    let leases: Vec<Lease> = (7..=9).map(|n| samples::lease(samples::V4, n)).collect();
    for (lease, mtu) in leases.iter().zip([None, Some(1400), Some(9000)]) {
        let endpoint = lease.endpoints().next().unwrap();
        let fact = Fact { mtu, direct: Some(false) };
        net.add_peer(&backend.peer(&host, &own, endpoint, &fact).unwrap());
    }
    let dev = *backend.links().get(crate::family::Family::V4).unwrap();
    let table = Table::of(&net, &dev, 1450);
    assert_eq!(table.peers().iter().map(|peer| peer.mtu).collect::<Vec<_>>(), [1450, 1400, 1450]);
    for lease in &leases {
        let endpoint = lease.endpoints().next().unwrap();
        let peer = table.tunnel(endpoint.subnet.network()).unwrap();
        assert_eq!((peer.addr, peer.subnet), (endpoint.public, endpoint.subnet));
        assert_eq!(table.at(peer.mac.0), Some(peer));
    }
    let other = "flannel.99".try_into().unwrap();
    assert!(Table::of(&net, &other, 1450).peers().is_empty());
}

proptest! {
    #[test]
    fn finds_what_a_search_of_the_list_finds(
        macs in proptest::collection::btree_set(any::<[u8; 6]>(), 0..200),
        absent: [u8; 6],
    ) {
        let peers: Vec<Peer> = macs.iter().map(|mac| Peer { mac: Mac(*mac), ..peer(1) }).collect();
        let table = Table::new(peers.clone());
        for mac in macs.iter().chain([&absent]) {
            prop_assert_eq!(table.at(*mac), peers.iter().find(|peer| peer.mac.0 == *mac));
        }
    }
}
