//! The first container after a boot: what is kept of the containers before it goes.
//!
//! # Why
//!
//! No container outlives a boot, but the files of its addresses do, and not every runtime detaches or collects what it
//! had before: in the end there is no address for anybody.
//!
//! Two things must agree before anything is removed: the kernel's boot id is another than the one written down by this
//! plugin, and the bridge is not there. The first alone would not know of containers that another plugin of the same
//! files has attached since; the second alone, of a bridge that somebody has deleted under running containers.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::error::{self, CniError};
use super::netconf::NetConf;
use super::{bridge, lock, reservations, state};
use crate::files;

/// The kernel's name for this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Removes what is kept of a network's containers from before this boot, once for each boot.
///
/// # Errors
/// What could not be removed, or written down.
pub(super) fn settle(conf: &NetConf, delegate: &Value) -> Result<(), CniError> {
    let Ok(boot) = fs::read_to_string(BOOT_ID) else { return Ok(()) };
    let gone = || bridge::is_missing(delegate);
    settle_at(boot.trim(), conf, gone)
}

fn settle_at(boot: &str, conf: &NetConf, bridge_is_missing: impl Fn() -> bool) -> Result<(), CniError> {
    // Not the name of a container.
    let path = conf.data_dir.join(format!(".boot-{}", conf.name));
    if last(&path).as_deref() == Some(boot) {
        return Ok(());
    }
    state::make(&conf.data_dir)?;
    let _lock = lock::take(&conf.data_dir.join(bridge::LOCK), conf.patience)?;
    let last = last(&path);
    if last.as_deref() == Some(boot) {
        return Ok(());
    }
    if last.is_some() && bridge_is_missing() {
        forget(conf)?;
    }
    files::replace(&path, boot.as_bytes(), 0o600).map_err(|cause| {
        CniError::new(error::IO, format!("cannot write this boot down in {}: {cause}", path.display()))
    })
}

/// The boot that was written down; none if nothing was.
fn last(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().filter(|boot| !boot.is_empty())
}

/// Releases all addresses of the network, and forgets its attachments. There is nothing to detach.
fn forget(conf: &NetConf) -> Result<(), CniError> {
    let Some(dir) = reservations::dir(&conf.ipam, &conf.name) else { return Ok(()) };
    if let Some(error) = reservations::release(&dir, conf.patience, |_| false).into_iter().next() {
        return Err(error);
    }
    state::list(&conf.data_dir, &conf.name)?.iter().try_for_each(|(_, _, saved)| saved.remove())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cni::state::Saved;

    /// A network with a container, in a folder of its own.
    fn network() -> (tempfile::TempDir, NetConf) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let text = json!({
            "name": "cbr0", "dataDir": file("flannel"), "ipam": { "dataDir": file("networks") },
        });
        let conf = NetConf::parse(text.to_string().as_bytes()).unwrap();
        for (container, network) in [("c1", "cbr0"), ("d1", "other")] {
            let config = json!({ "name": network, "type": "bridge" });
            Saved { path: state::first(&conf.data_dir, container), config }.write().unwrap();
            let addresses = dir.path().join("networks").join(network);
            fs::create_dir_all(&addresses).unwrap();
            fs::write(addresses.join("10.1.17.2"), format!("{container}\r\neth0")).unwrap();
        }
        (dir, conf)
    }

    /// How many containers of each network are kept, and how many have addresses.
    fn left(dir: &tempfile::TempDir, conf: &NetConf) -> [(usize, usize); 2] {
        ["cbr0", "other"].map(|network| {
            let kept = state::list(&conf.data_dir, network).unwrap().len();
            (kept, reservations::list(&dir.path().join("networks").join(network)).len())
        })
    }

    #[test]
    fn what_another_boot_left_goes_once_and_no_other_networks() {
        let (dir, conf) = network();
        settle_at("boot 1", &conf, || true).unwrap();
        assert_eq!(left(&dir, &conf), [(1, 1); 2], "nothing says that these are older");
        settle_at("boot 1", &conf, || true).unwrap();
        assert_eq!(left(&dir, &conf), [(1, 1); 2], "the bridge may have been deleted");
        settle_at("boot 2", &conf, || true).unwrap();
        assert_eq!(left(&dir, &conf), [(0, 0), (1, 1)]);
    }

    #[test]
    fn where_there_is_a_bridge_somebody_has_attached_containers_since() {
        let (dir, conf) = network();
        for boot in ["boot 1", "boot 2", "boot 2"] {
            settle_at(boot, &conf, || false).unwrap();
            assert_eq!(left(&dir, &conf), [(1, 1); 2], "{boot}");
        }
        settle_at("boot 2", &conf, || true).unwrap();
        assert_eq!(left(&dir, &conf), [(1, 1); 2], "this boot is settled");
    }

    #[test]
    fn what_another_plugin_hands_out_is_left_to_the_runtime() {
        let (dir, mut conf) = network();
        conf.ipam.insert("type".to_owned(), "dhcp".into());
        for boot in ["boot 1", "boot 2"] {
            settle_at(boot, &conf, || true).unwrap();
        }
        assert_eq!(left(&dir, &conf), [(1, 1); 2]);
    }
}
