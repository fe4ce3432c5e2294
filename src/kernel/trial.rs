//! What it takes to find out who may finish checksums, see [`twill_backends::checksums`].

use std::net::IpAddr;

use twill_backends::mac::Mac;
use twill_backends::state::{Link, LinkName};

/// What begins the name of a stand-in.
const STAND_IN: &str = "twill-try";

/// The name of the device that stands in for the tunnel's device of this number while a trial lasts.
#[must_use]
pub fn stand_in(tunnel: u32) -> Option<LinkName> {
    LinkName::try_from(format!("{STAND_IN}{tunnel}").as_str()).ok()
}

/// The number of the tunnel's device that a device of this name stands in for; `None` if it is no stand-in.
#[must_use]
pub fn stands_for(name: LinkName) -> Option<u32> {
    let number = name.as_str().strip_prefix(STAND_IN)?.parse().ok()?;
    (stand_in(number) == Some(name)).then_some(number)
}

/// A tunnel's device, and other hosts that packets may be sent to as if through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bench {
    /// The device. Nothing is changed about it.
    pub dev: LinkName,
    /// What it is.
    pub link: Link,
    /// This host's address in the fabric.
    pub source: IpAddr,
    /// The port to ask at, where nobody listens.
    pub port: u16,
    /// The other hosts.
    pub places: Vec<Place>,
}

/// Another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What a person knows it by.
    pub to: String,
    /// The Ethernet address of its tunnel device.
    pub vtep: Mac,
    /// Its address on the underlay.
    pub outer: IpAddr,
    /// Addresses of its own, of which one may answer.
    pub inner: Vec<IpAddr>,
}
