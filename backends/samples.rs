//! Small fabrics for unit tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use crate::family::PerFamily;
use crate::host::{Address, Host, Own, Policy};
use crate::lease::{Attrs, Lease, LeaseKey, Subnets};
use crate::mac::Mac;
use crate::network::{NetworkConfig, Pool};
use crate::state::Datapath;

pub(crate) type Families = PerFamily<()>;
pub(crate) const V4: Families = PerFamily { v4: Some(()), v6: None };
pub(crate) const V6: Families = PerFamily { v4: None, v6: Some(()) };
pub(crate) const DUAL: Families = PerFamily { v4: Some(()), v6: Some(()) };

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn pool(network: &str, subnet_len: u8, min: &str, max: &str) -> Pool {
    Pool { network: net(network), subnet_len, min: ip(min), max: ip(max) }
}

/// 10.5.0.0/16 in /24 and fd00:5::/48 in /64.
pub(crate) fn config(families: Families, backend: Value) -> NetworkConfig {
    NetworkConfig {
        pools: PerFamily {
            v4: families.v4.map(|()| pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")),
            v6: families.v6.map(|()| pool("fd00:5::/48", 64, "fd00:5:0:1::", "fd00:5:0:ffff::")),
        },
        nftables: false,
        backend: backend.as_object().cloned(),
    }
}

/// Host 1: 192.0.2.1 and 2001:db8:1::1 on eth0.
pub(crate) fn host() -> Host {
    let address = |text| Address { local: ip(text), public: ip(text) };
    Host {
        instance: "test".to_owned(),
        iface: "eth0".try_into().unwrap(),
        mtu: 1500,
        addrs: PerFamily { v4: Some(address("192.0.2.1")), v6: Some(address("2001:db8:1::1")) },
        on_link: vec![net("192.0.2.0/24"), net("2001:db8:1::/64")],
        datapath: Datapath::Kernel,
        checksums: PerFamily::NONE,
        macs: PerFamily { v4: Some(Mac([2, 0, 0, 0, 0, 1])), v6: Some(Mac([2, 0, 0, 0, 6, 1])) },
    }
}

/// Host 1 with the first subnet.
pub(crate) fn own(network: NetworkConfig) -> Own {
    let lease = lease(network.pools.map(|_, _| ()), 1);
    Own { key: lease.key, subnets: lease.subnets, network, former: Vec::new(), policy: Policy::default() }
}

/// The vxlan lease of host `n`.
pub(crate) fn lease(families: Families, n: u8) -> Lease {
    let subnets = Subnets {
        v4: families.v4.map(|()| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 5, n, 0), 24))),
        v6: families.v6.map(|()| {
            let base = Ipv6Addr::new(0xfd00, 5, 0, u16::from(n), 0, 0, 0, 0);
            IpNet::V6(Ipv6Net::new_assert(base, 64))
        }),
    };
    Lease {
        key: LeaseKey::of(&subnets),
        subnets,
        attrs: Attrs {
            public_ip: families.v4.map(|()| Ipv4Addr::new(192, 0, 2, n)),
            public_ipv6: families.v6.map(|()| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(n))),
            backend_type: Some("vxlan".to_owned()),
            backend_data: families.v4.map(|()| json!({"VNI": 1, "VtepMAC": Mac([2, 0, 0, 0, 0, n])})),
            backend_v6_data: families.v6.map(|()| json!({"VNI": 1, "VtepMAC": Mac([2, 0, 0, 0, 6, n])})),
            ..Attrs::default()
        },
        vacant: false,
    }
}
