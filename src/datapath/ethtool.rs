//! What a network device does to packets before it sends them (ethtool(8)), by ioctl: a generic netlink family of its own
//! would be a dependency for two numbers.
#![allow(unsafe_code, reason = "the request is a pointer in a union")]

use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Type};
use twill_backends::state::LinkName;

use super::tap;

/// `ETHTOOL_GTXCSUM` and `ETHTOOL_STXCSUM`: every transmit checksum of a device. A VXLAN device has one,
/// `tx-checksum-ip-generic`.
const GET: u32 = 0x16;
const SET: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

mod ioctl {
    #![allow(missing_docs, reason = "the macros document nothing")]
    use nix::libc;

    nix::ioctl_readwrite_bad!(siocethtool, libc::SIOCETHTOOL, libc::ifreq);
}

/// Whether checksums are left to the device. It is that of the network namespace of the calling thread.
///
/// # Errors
/// There is no such device, or it has nothing to say.
pub fn tx_checksum(dev: LinkName) -> io::Result<bool> {
    ask(dev, Value { cmd: GET, data: 0 }).map(|data| data != 0)
}

/// Leaves checksums to the device, or not. No packet is lost by it.
///
/// # Errors
/// There is no such device, it cannot, or there is no privilege.
pub fn set_tx_checksum(dev: LinkName, on: bool) -> io::Result<()> {
    ask(dev, Value { cmd: SET, data: on.into() }).map(drop)
}

fn ask(dev: LinkName, mut value: Value) -> io::Result<u32> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let mut request = tap::request(dev);
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and the value it points to live through the call, and the value is as the command has it.
    unsafe { ioctl::siocethtool(socket.as_raw_fd(), &raw mut request) }?;
    Ok(value.data)
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn every_host_has_a_device_that_says_so_and_none_of_another_name() {
        assert!(tx_checksum("lo".try_into().unwrap()).unwrap());
        let absent: LinkName = "no-such-link".try_into().unwrap();
        assert_eq!(tx_checksum(absent).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(set_tx_checksum(absent, true).is_err());
    }
}
