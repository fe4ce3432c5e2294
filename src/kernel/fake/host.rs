//! What a host of the tests' underlay looks like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use twill_backends::mac::Mac;
use twill_backends::state::LinkName;

use crate::kernel::facts::{AddrFact, BY_BOOT, HostFacts, LinkFact, RouteFact};

/// The index of `eth0`.
const INDEX: u32 = 2;

/// The host of number `n`: see [`super::FakeKernel::host`].
pub(super) fn facts(n: u8) -> HostFacts {
    let Ok(name) = LinkName::try_from("eth0") else { return HostFacts::default() };
    let mac = Some(Mac([2, 0, 0, 0, 0, n]));
    let (v4, v6) = (Ipv4Net::new(v4(n), 24), Ipv6Net::new(v6(n), 64));
    let addrs = [v4.map(IpNet::from), v6.map(IpNet::from)].into_iter().flatten();
    HostFacts {
        links: vec![LinkFact {
            index: INDEX,
            name,
            mac,
            mtu: 1500,
            alias: String::new(),
            running: true,
            up: true,
            vxlan: None,
        }],
        addrs: addrs.map(addr).collect(),
        routes: vec![
            default_route(name, Ipv4Net::default().into(), self::v4(254).into()),
            default_route(name, Ipv6Net::default().into(), self::v6(254).into()),
        ],
        reach: None,
    }
}

const fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, n)
}

fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, n.into())
}

const fn addr(net: IpNet) -> AddrFact {
    AddrFact { index: INDEX, net, permanent: true, temporary: false, deprecated: false, tentative: false }
}

const fn default_route(dev: LinkName, dst: IpNet, via: IpAddr) -> RouteFact {
    RouteFact {
        dst,
        metric: if via.is_ipv4() { 0 } else { 1024 },
        kind: RouteFact::UNICAST,
        scope: 0,
        protocol: BY_BOOT,
        via: Some(via),
        dev: Some(dev),
        source: None,
        onlink: false,
        mtu: None,
        multipath: false,
    }
}
