//! What the firewall of a host must do for the fabric.

use ipnet::IpNet;
use serde::Serialize;

/// The rules wanted. The default wants none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Filter {
    /// One entry per address family, IPv4 first.
    pub nets: Vec<FilterNet>,
    /// Whether packets from pods to the outside take the host's address.
    pub masquerade: Option<Masquerade>,
    /// Whether packets from and to pods are accepted in the forward path.
    pub forward: bool,
}

/// The networks that rules of one address family speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FilterNet {
    /// The network of the whole fabric.
    pub network: IpNet,
    /// The part of it that is this host's.
    pub subnet: IpNet,
}

/// How to masquerade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Masquerade {
    /// Whether source ports are chosen at random, where the kernel can.
    pub random_fully: bool,
}
