//! A container that is detached while it runs on: its end of the bridge goes with its address.
//!
//! # Why
//!
//! A runtime that has lost its daemon detaches what may still run, and does not say where (`CNI_NETNS` is empty). The
//! bridge plugin then gives the address back and leaves the wire: the next container with that address would share it.

use std::io;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use super::bridge;
use super::call::Call;
use super::delegate::BRIDGE;
use super::error::{self, CniError};
use super::netlink::{delete, ports};
use super::state::Saved;

/// Deletes the host's end of a container's wires, as the result of its ADD names them, if nobody can do so from inside.
///
/// # Errors
/// Code 5, naming the device.
pub(super) fn cut(call: &Call, saved: &Saved, result: Option<&Value>) -> Result<(), CniError> {
    let named = !call.netns.is_empty() && std::path::Path::new(&call.netns).exists();
    let (Some(result), BRIDGE, false) = (result, saved.kind(), named) else { return Ok(()) };
    // No bridge, no wires.
    let Ok(bridge) = if_nametoindex(bridge::name(&saved.config)) else { return Ok(()) };
    for name in ours(result) {
        let failed = |cause: io::Error| CniError::new(error::IO, format!("cannot delete {name}: {cause}"));
        let Ok(index) = if_nametoindex(name) else { continue };
        if ports(bridge).map_err(failed)?.contains(&index) {
            gone(delete(index)).map_err(failed)?;
        }
    }
    Ok(())
}

/// The devices of a result that are on the host.
fn ours(result: &Value) -> impl Iterator<Item = &str> {
    let interfaces = result["interfaces"].as_array().into_iter().flatten();
    let here = interfaces.filter(|one| one["sandbox"].as_str().unwrap_or_default().is_empty());
    here.filter_map(|one| one["name"].as_str())
}

/// A device whose namespace ended meanwhile is as it is to be.
fn gone(deleted: io::Result<()>) -> io::Result<()> {
    match deleted {
        Err(cause) if cause.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hosts_devices_are_told_from_the_containers() {
        let result = json!({ "interfaces": [
            { "name": "cni0" }, { "name": "veth1", "sandbox": "" }, { "name": "eth0", "sandbox": "/run/netns/c1" },
        ] });
        assert_eq!(ours(&result).collect::<Vec<_>>(), ["cni0", "veth1"]);
    }

    proptest! {
        #[test]
        fn any_result_is_read(text in r#"(null|7|\[\]|\{"interfaces":(7|\[7\]|\[\{"name":(7|"x")\}\])\})"#) {
            let result: Value = serde_json::from_str(&text).unwrap();
            prop_assert!(ours(&result).count() <= 1);
        }
    }
}
