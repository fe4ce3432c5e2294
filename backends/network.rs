//! The network configuration: the JSON that every host of the fabric shares.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::family::{Family, PerFamily};
use crate::fault::{Code, Fault};
use crate::json::Fields;

mod options;
mod pool;

pub use options::BackendOptions;
pub(crate) use pool::overlap;

/// The part of the configuration that concerns one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pool {
    /// What subnets are taken from.
    pub network: IpNet,
    /// The prefix length of each subnet.
    pub subnet_len: u8,
    /// The base address of the first subnet that may be taken.
    pub min: IpAddr,
    /// The base address of the last.
    pub max: IpAddr,
}

/// The configuration of the network: validated, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The families that are enabled; at least one.
    pub pools: PerFamily<Pool>,
    /// `EnableNFTables`: whether it asks for nftables rather than leaving the choice to the host.
    pub nftables: bool,
    /// `Backend`, whose keys are the backend's own. `None` when absent, empty when null.
    pub backend: Option<Map<String, Value>>,
}

impl NetworkConfig {
    /// Reads and checks what `twill config set` or an operator wrote.
    ///
    /// JSON is taken as Go takes it: names in any case, unknown ones ignored, of several the last. Host bits of a
    /// network are cleared. A null is no value, except that no IPv4 address and no network may be null. Defaults
    /// and limits are flannel's; more is refused only where flannel would fail later: IPv4 written as IPv6, a
    /// minimum above the maximum, no family enabled, a `Backend` that is not an object.
    ///
    /// # Errors
    /// [`Code::BadConfig`], whose cause names the field and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Fields::parse(text.as_bytes()).and_then(|fields| Self::read(&fields)).map_err(bad)
    }

    fn read(fields: &Fields) -> Result<Self, String> {
        let flag = |name| fields.scalar(name, "true or false", Value::as_bool);
        let v4 = (flag("EnableIPv4")?.unwrap_or(true), v4_wish(fields)?);
        let v6 = (flag("EnableIPv6")?.unwrap_or(false), v6_wish(fields)?);
        let nftables = flag("EnableNFTables")?.unwrap_or(false);
        let backend = fields.custom("Backend", "an object such as {\"Type\":\"vxlan\"}", |value| {
            if value.is_null() { Some(Map::new()) } else { value.as_object().cloned() }
        })?;
        BackendOptions::new(backend.as_ref()).text("Type").map_err(|fault| fault.cause)?;
        let pool = |(on, wish): (bool, pool::Wish)| on.then(|| wish.pool()).transpose();
        let pools = PerFamily { v4: pool(v4)?, v6: pool(v6)? };
        if pools.is_empty() {
            return Err(
                "EnableIPv4 is false and EnableIPv6 is not true, so that no family is left".to_owned()
            );
        }
        Ok(Self { pools, nftables, backend })
    }

    /// The network of each enabled family.
    #[must_use]
    pub fn networks(&self) -> PerFamily<IpNet> {
        self.pools.map(|_, pool| pool.network)
    }

    /// The backend's own options.
    #[must_use]
    pub const fn options(&self) -> BackendOptions<'_> {
        BackendOptions::new(self.backend.as_ref())
    }
}

fn bad(cause: String) -> Fault {
    Fault::new(Code::BadConfig, "network config", cause)
}

fn v4_wish(fields: &Fields) -> Result<pool::Wish, String> {
    let network =
        fields.custom("Network", "an IPv4 network in quotes, such as \"10.5.0.0/16\"", |value| {
            value.as_str()?.parse::<Ipv4Net>().ok()
        })?;
    let addr = |name| {
        fields.custom(name, "an IPv4 address in quotes", |value| {
            value.as_str()?.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        })
    };
    Ok(pool::Wish {
        family: Family::V4,
        network: network.map(|net| IpNet::V4(net.trunc())),
        len: length(fields, "SubnetLen")?,
        min: addr("SubnetMin")?,
        max: addr("SubnetMax")?,
    })
}

fn v6_wish(fields: &Fields) -> Result<pool::Wish, String> {
    let network =
        fields.custom("IPv6Network", "an IPv6 network in quotes, such as \"fd00:5::/48\"", |value| {
            value.as_str()?.parse::<Ipv6Net>().ok()
        })?;
    let addr = |name| {
        let addr = fields.custom(name, "an IPv6 address in quotes, or null", |value| {
            if value.is_null() { Some(None) } else { value.as_str()?.parse::<Ipv6Addr>().ok().map(Some) }
        })?;
        Ok::<_, String>(addr.flatten().map(IpAddr::V6))
    };
    Ok(pool::Wish {
        family: Family::V6,
        network: network.map(|net| IpNet::V6(net.trunc())),
        len: length(fields, "IPv6SubnetLen")?,
        min: addr("IPv6SubnetMin")?,
        max: addr("IPv6SubnetMax")?,
    })
}

fn length(fields: &Fields, name: &str) -> Result<u64, String> {
    Ok(fields.scalar(name, "a whole number", Value::as_u64)?.unwrap_or(0))
}

#[cfg(test)]
mod tests;
