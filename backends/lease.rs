//! A lease: one host's claim to a part of the network, and its JSON, byte-compatible with flannel's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::family::{Family, PerFamily};
use crate::fault::{Code, Fault};
use crate::json::brief;

mod attrs;
mod key;

pub use attrs::BadAttrs;

/// The name of a lease in its store, such as `10.5.52.0-24`, without the store's prefix. Opaque to all but the store
/// and the allocator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseKey(String);

/// The subnet of each address family; at least one.
pub type Subnets = PerFamily<IpNet>;

/// What a host publishes about itself: the value of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
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
    /// Where its agent answers probes; absent when it answers none.
    pub probe: Option<Listener>,
}

/// Where an agent answers probes, and how it proves that an answer is its own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Listener {
    /// The UDP port, on its tunnel addresses and its public ones.
    pub port: u16,
    /// Known to those who read the store, and to nobody else.
    pub secret: String,
}

/// One host's claim to a part of the network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Its name in the store.
    pub key: LeaseKey,
    /// What is claimed.
    pub subnets: Subnets,
    /// What the host publishes.
    pub attrs: Attrs,
    /// Whether it is a reservation that no host has taken: it never expires, and names no backend yet.
    pub vacant: bool,
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

impl fmt::Debug for Listener {
    /// The secret is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("port", &self.port).finish_non_exhaustive()
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Attrs {
    /// Whether they are, in a lease that never expires, those of a reservation that no host has taken.
    #[must_use]
    pub const fn is_vacant(&self) -> bool {
        self.backend_type.is_none()
    }

    /// The public address of one family.
    #[must_use]
    pub fn public(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.public_ip.map(IpAddr::V4),
            Family::V6 => self.public_ipv6.map(IpAddr::V6),
        }
    }

    /// The backend's data of one family.
    #[must_use]
    pub const fn data(&self, family: Family) -> Option<&Value> {
        match family {
            Family::V4 => self.backend_data.as_ref(),
            Family::V6 => self.backend_v6_data.as_ref(),
        }
    }
}

impl Lease {
    /// Reads what a store keeps: `key` without the store's prefix, and its value.
    ///
    /// # Errors
    /// [`Code::BadLeaseKey`] or [`Code::BadLeaseValue`] with the reason; the key's comes first.
    pub fn decode(key: &str, value: &[u8]) -> Result<Self, Fault> {
        let key = LeaseKey::new(key);
        let subnets = key.subnets()?;
        let attrs = Attrs::decode(value)
            .map_err(|error| Fault::new(Code::BadLeaseValue, brief(key.as_str()), error.to_string()))?;
        Ok(Self { key, subnets, attrs, vacant: false })
    }

    /// The lease as each address family sees it, IPv4 first, if it has both a subnet and a public address of that
    /// family. What is left out is in [`Lease::unreachable`].
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint<'_>> {
        Family::ALL.into_iter().filter_map(|family| {
            Some(Endpoint {
                family,
                subnet: *self.subnets.get(family)?,
                public: self.attrs.public(family)?,
                data: self.attrs.data(family),
                lease: self,
            })
        })
    }

    /// The families of which the lease has a subnet but no public address to reach it by.
    pub fn unreachable(&self) -> impl Iterator<Item = (Family, IpNet)> {
        let without = |family: &Family| self.attrs.public(*family).is_none();
        self.subnets.iter().map(|(family, net)| (family, *net)).filter(move |(family, _)| without(family))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUAL: &str = "10.5.52.0-24&fd00:5:0:56::-64";

    #[test]
    fn a_lease_has_one_endpoint_per_family() {
        let value = br#"{"PublicIP":"192.168.77.1","PublicIPv6":"fd00:77::1","BackendData":{"VNI":1},"BackendV6Data":{"VNI":2}}"#;
        let lease = Lease::decode(DUAL, value).unwrap();
        let seen: Vec<_> = lease
            .endpoints()
            .map(|e| (e.family, e.subnet.to_string(), e.public.to_string(), e.data.map(Value::to_string)))
            .collect();
        let data = |text: &str| Some(text.to_owned());
        assert_eq!(
            seen,
            [
                (Family::V4, "10.5.52.0/24".into(), "192.168.77.1".into(), data(r#"{"VNI":1}"#)),
                (Family::V6, "fd00:5:0:56::/64".into(), "fd00:77::1".into(), data(r#"{"VNI":2}"#)),
            ]
        );
        assert!(lease.endpoints().all(|e| e.lease.key.as_str() == DUAL));
        assert_eq!(lease.unreachable().count(), 0);
    }

    #[test]
    fn a_family_without_address_is_unreachable() {
        for (key, value, reachable, unreachable) in [
            (DUAL, r#"{"PublicIP":"1.2.3.4","PublicIPv6":null}"#, vec![Family::V4], vec![Family::V6]),
            (DUAL, r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::1"}"#, vec![Family::V6], vec![Family::V4]),
            ("10.5.52.0-24", r#"{"PublicIPv6":"fd00::1"}"#, vec![], vec![Family::V4]),
            ("10.5.52.0-24", r#"{"PublicIP":"1.2.3.4","PublicIPv6":"fd00::1"}"#, vec![Family::V4], vec![]),
            (
                "0.0.0.0-0&fd00:5::-64",
                r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::1"}"#,
                vec![Family::V6],
                vec![],
            ),
        ] {
            let lease = Lease::decode(key, value.as_bytes()).unwrap();
            assert_eq!(lease.endpoints().map(|e| e.family).collect::<Vec<_>>(), reachable, "{key} {value}");
            assert_eq!(lease.unreachable().map(|(f, _)| f).collect::<Vec<_>>(), unreachable, "{key} {value}");
        }
    }

    #[test]
    fn faults_say_which_half_is_wrong() {
        let code = |key, value: &str| Lease::decode(key, value.as_bytes()).unwrap_err().code;
        assert_eq!(code("junk", "junk"), Code::BadLeaseKey);
        assert_eq!(code("10.5.52.0-24", "junk"), Code::BadLeaseValue);
        let fault = Lease::decode("10.5.52.0-24", br#"{"PublicIP":null}"#).unwrap_err();
        assert_eq!(
            fault.cause,
            "the value of the lease does not decode: PublicIP is null; expected an IPv4 address in quotes"
        );
        assert_eq!(fault.subject, "10.5.52.0-24");
    }
}
