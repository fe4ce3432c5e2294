//! Gathers what the doctor looks at, as far as files and `/proc` tell it. Nothing is written.

mod proc;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use tokio::process::Command;
use twill_backends::family::Family;
use twill_backends::state::LinkName;

use super::checks::MANAGERS;
use super::facts::{Folder, Program, Socket};
use crate::agent::flanneld;
use crate::kernel::preflight::sysctl_name;
use crate::migrate::cni::Cni;

pub use proc::udp;

/// How long `timedatectl` may take, which asks a service.
const PATIENCE: Duration = Duration::from_secs(1);
/// Programs that matter beside managers and flanneld.
const KUBERNETES: [&str; 2] = ["kubelet", "kube-proxy"];

/// The settings that checks ask for, of these devices.
#[must_use]
pub fn settings(devices: &[LinkName]) -> BTreeMap<String, String> {
    let mut paths: Vec<String> = [
        Family::V4.forwarding(),
        Family::V6.forwarding(),
        "net/ipv4/conf/all/rp_filter",
        "net/bridge/bridge-nf-call-iptables",
        "net/netfilter/nf_conntrack_count",
        "net/netfilter/nf_conntrack_max",
    ]
    .map(str::to_owned)
    .into();
    for device in devices {
        let name =
            |family: Family, setting: &str| format!("net/{}/conf/{device}/{setting}", sysctl_name(family));
        paths.extend(["forwarding", "rp_filter"].map(|setting| name(Family::V4, setting)));
        paths.extend(["disable_ipv6", "accept_ra"].map(|setting| name(Family::V6, setting)));
    }
    let read = |path: String| {
        let value = fs::read_to_string(Path::new("/proc/sys").join(&path)).ok()?;
        Some((path, value.trim_end().to_owned()))
    };
    paths.into_iter().filter_map(read).collect()
}

/// The programs that matter, in this network namespace.
#[must_use]
pub fn programs(proc: &Path) -> Vec<Program> {
    let matters =
        |name: &str| MANAGERS.iter().any(|(manager, _)| *manager == name) || KUBERNETES.contains(&name);
    let all = flanneld::programs(proc).into_iter().filter(|(_, name)| matters(name));
    let flannelds = flanneld::running(proc).into_iter().map(|one| (one.pid, "flanneld".to_owned()));
    all.chain(flannelds).map(|(pid, name)| Program { pid, name }).collect()
}

/// Managers whose configuration names the fabric's devices; `root` is where `/etc` is.
#[must_use]
pub fn told(root: &Path) -> BTreeSet<&'static str> {
    let places = [
        (
            "NetworkManager",
            &[
                "etc/NetworkManager",
                "etc/NetworkManager/conf.d",
                "run/NetworkManager/conf.d",
                "usr/lib/NetworkManager/conf.d",
            ][..],
        ),
        ("systemd-network", &["etc/systemd/network", "run/systemd/network", "usr/lib/systemd/network"]),
        ("dhcpcd", &["etc"]),
    ];
    let named = |manager: &str, folder: &&str| {
        let files = fs::read_dir(root.join(folder)).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files = files.filter(|file| manager != "dhcpcd" || file.ends_with("dhcpcd.conf"));
        files.any(|file| fs::read_to_string(file).is_ok_and(|text| names_us(&text)))
    };
    let told = places.iter().filter(|(manager, folders)| folders.iter().any(|folder| named(manager, folder)));
    told.map(|(manager, _)| *manager).collect()
}

/// Whether a configuration speaks of our devices outside of its comments.
fn names_us(text: &str) -> bool {
    text.lines().any(|line| !line.trim_start().starts_with(['#', ';']) && line.contains("flannel"))
}

/// Sockets that have the port, other than the kernel's own.
#[must_use]
pub fn sockets(proc: &Path, port: u16) -> Vec<Socket> {
    proc::inodes(port).into_iter().map(|inode| Socket { port, holder: proc::holder(proc, inode) }).collect()
}

/// A directory, or what is there of it.
#[must_use]
pub fn folder(path: &Path) -> Folder {
    let path = path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned();
    let space = statvfs(&path);
    let (free, inodes) = space.map_or((u64::MAX, u64::MAX), |space| {
        let bytes = space.blocks_free().saturating_mul(space.fragment_size());
        // File systems that count no files have none in all.
        let inodes = if space.files() == 0 { u64::MAX } else { space.files_free() };
        (bytes, inodes)
    });
    let unwritable = access(&path, AccessFlags::W_OK).err().map(|error| error.desc().to_owned());
    Folder { path, free, inodes, unwritable }
}

/// Plugins that networks name and that are not in a directory.
#[must_use]
pub fn missing(cni: &Cni, bin: &Path) -> Vec<(String, PathBuf)> {
    let mut missing: Vec<(String, PathBuf)> = cni
        .networks
        .iter()
        .flat_map(|network| network.plugins.iter().map(|plugin| (plugin.clone(), network.file.clone())))
        .filter(|(plugin, _)| !bin.join(plugin).is_file())
        .collect();
    missing.sort();
    missing.dedup();
    missing
}

/// Whether the clock is synchronized, if systemd knows.
pub async fn synchronized() -> Option<bool> {
    let mut command = Command::new("timedatectl");
    command.args(["show", "--property=NTPSynchronized", "--value"]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_by_the_files_that_are_shipped() {
        let root = tempfile::tempdir().unwrap();
        assert!(told(root.path()).is_empty());
        for (file, text) in [
            (
                "etc/NetworkManager/conf.d/twill.conf",
                include_str!("../../manifests/networkmanager/twill.conf"),
            ),
            (
                "etc/systemd/network/10-twill.network",
                include_str!("../../manifests/networkd/10-twill.network"),
            ),
            ("etc/dhcpcd.conf", "# flannel\n"),
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(told(root.path()), ["NetworkManager", "systemd-network"].into());
        fs::write(root.path().join("etc/dhcpcd.conf"), "denyinterfaces flannel* cni0\n").unwrap();
        assert!(told(root.path()).contains("dhcpcd"));
    }

    #[test]
    fn the_nearest_directory_stands_for_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let found = folder(&dir.path().join("a/b"));
        assert_eq!((found.path.as_path(), found.unwritable), (dir.path(), None));
        assert!(found.free > 0 && found.inodes > 0);
    }
}
