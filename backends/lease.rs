//! A lease: one host's claim to a part of the network, and its JSON, byte-compatible with flannel's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::family::{Family, PerFamily};

/// The name of a lease in its store, such as `10.5.52.0-24`, without the store's prefix. Opaque to all but the store
/// and the allocator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseKey(String);

/// The subnet of each address family; at least one.
pub type Subnets = PerFamily<IpNet>;

/// What a host publishes about itself: the value of a lease.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attrs {
    /// The address at which other hosts reach this one over IPv4.
    pub public_ip: Option<Ipv4Addr>,
    /// The same over IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// The backend, such as `vxlan`.
    pub backend_type: Option<String>,
    /// What the backend needs to know of a peer over IPv4.
    pub backend_data: Option<Value>,
    /// The same over IPv6.
    pub backend_v6_data: Option<Value>,
    /// Which node wrote it; absent when flanneld did.
    pub node_id: Option<String>,
    /// Which process of that node wrote it.
    pub session: Option<String>,
}

/// One host's claim to a part of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// Its name in the store.
    pub key: LeaseKey,
    /// What is claimed.
    pub subnets: Subnets,
    /// What the host publishes.
    pub attrs: Attrs,
}

/// A lease as one address family sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Endpoint<'a> {
    /// The family.
    pub family: Family,
    /// The subnet of that family.
    pub subnet: IpNet,
    /// The host's public address of that family.
    pub public: IpAddr,
    /// The backend's data of that family.
    pub data: Option<&'a Value>,
    /// The lease.
    pub lease: &'a Lease,
}

impl LeaseKey {
    /// Takes the text for a key. Nothing is checked: a store may name its leases as it likes.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
