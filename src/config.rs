//! Flags and files, resolved: validated, total, no clap.
//!
//! [`crate::cli`] reads what was typed and builds these values; everything after it only sees them.

mod bench;
mod bundle;
mod doctor;
mod error;
mod migrate;
mod store;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use twill_backends::checksums::Wish;

pub use bench::{BenchConfig, Ends, Measure, Subject};
pub use bundle::{BundleConfig, Out};
pub use doctor::DoctorConfig;
pub use error::{BadLine, ConfigError};
pub use migrate::MigrateConfig;
pub use store::{EtcdConfig, Secret, StoreConfig, TlsFiles, endpoints};

/// Everything an agent (or `plan`, or `cleanup`) is told by its operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which fabric is meant.
    pub site: Site,
    /// How the underlay interface is chosen.
    pub interface: InterfaceConfig,
    /// What the firewall has to do.
    pub filter: FilterConfig,
    /// Who carries frames, and how.
    pub datapath: DatapathConfig,
    /// The file CNI plugins read; `/run/flannel/subnet.env` unless told otherwise.
    pub subnet_file: PathBuf,
    /// How long before its expiry a lease is renewed at the latest; 1 to 1439 minutes.
    pub renew_margin: Duration,
    /// Whether a blackhole route covers the parts of the own subnet no pod uses.
    pub blackhole: bool,
    /// How often rules are checked that the kernel does not announce changes of; at least 1 s.
    pub resync: Duration,
    /// Where health is served over HTTP, if at all.
    pub health: Option<SocketAddr>,
    /// Where others than this host see the page, if at all.
    pub page: Option<SocketAddr>,
    /// Where this host answers probes of its peers; `None`: it neither answers nor sends any.
    pub probe_port: Option<u16>,
    /// How many of a hundred probed peers have to be reachable for this host to be ready.
    pub ready_peers: u8,
    /// How long suspicious mass deletions are held back.
    pub delete_hold: Duration,
    /// Give up every privilege that is not needed.
    pub confine: bool,
    /// Take over from the agent that runs, if one does.
    pub take_over: bool,
    /// Start although the preflight checks object.
    pub force: bool,
    /// Remove everything of ours on a clean exit.
    pub cleanup_on_exit: bool,
    /// klog's `-v`: 0 is INFO, 1 to 4 DEBUG, 5 and more TRACE.
    pub verbosity: u8,
}

/// Which fabric is meant: all that commands need which start nothing.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where leases live.
    pub store: StoreConfig,
    /// Where the agent of this fabric keeps its files and its socket.
    pub dirs: Dirs,
    /// What was typed and has no effect, and why; logged once.
    pub warnings: Vec<String>,
}

/// The roots of this program's own directories, shared by all instances on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// Survives a reboot: node identity, snapshots. `/var/lib/twill` unless told otherwise.
    pub state: PathBuf,
    /// Does not: socket, lock. `/run/twill` unless told otherwise.
    pub run: PathBuf,
}

/// How the underlay interface is chosen: names, then patterns, then reachability, else the default route.
#[derive(Clone, Debug, Default)]
pub struct InterfaceConfig {
    /// Interface names or addresses of this host, tried in order.
    pub names: Vec<String>,
    /// Matched, unanchored, against addresses and then names; tried after `names`.
    pub patterns: Vec<regex::Regex>,
    /// The interface that routes to this address; tried last.
    pub can_reach: Option<IpAddr>,
    /// The IPv4 address told to peers.
    pub public_ip: Option<Ipv4Addr>,
    /// The IPv6 address told to peers.
    pub public_ipv6: Option<Ipv6Addr>,
}

/// What the firewall has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterConfig {
    /// Masquerade traffic from pods to the outside; also FLANNEL_IPMASQ in subnet.env.
    pub masquerade: bool,
    /// Let masquerading pick source ports fully at random.
    pub random_fully: bool,
    /// Accept forwarded traffic from and to the fabric.
    pub forward: bool,
    /// Take frames from the addresses of live leases only.
    pub check_senders: bool,
    /// Which program's rules.
    pub mode: FirewallMode,
}

/// Who carries frames between this host's tunnel devices and the underlay, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatapathConfig {
    /// Who.
    pub mode: DatapathMode,
    /// Whether packets are dropped whose inner source is not in the subnet of the host that sent them.
    pub check_source: bool,
    /// Who finishes the checksums of what the kernel's device sends.
    pub checksums: Wish,
    /// How many threads of the userspace datapath serve a tunnel device, each a queue of it.
    pub queues: usize,
}

/// Who carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatapathMode {
    /// What the backend prefers, if it can: the kernel for vxlan, this program for udp.
    Auto,
    /// The kernel's VXLAN device.
    Kernel,
    /// This program, leaving as much to the kernel's offloads as it offers.
    Userspace,
    /// This program, frame by frame: for kernels whose offloads are at fault.
    Plain,
}

/// Which firewall carries the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirewallMode {
    /// What the network config says, else what fits the host.
    Auto,
    /// A table of our own through `nft`.
    Nftables,
    /// flanneld's chains through `iptables-restore`.
    Iptables,
}

/// What `twill demo` builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoConfig {
    /// How many hosts; 2 to 100.
    pub hosts: u16,
    /// Where the demo's leases live.
    pub store: DemoStore,
    /// Which backend carries the pods' packets.
    pub backend: DemoBackend,
    /// Dual-stack: a pair counts when both families pass.
    pub ipv6: bool,
    /// Leave everything up at the end.
    pub keep: bool,
    /// The last line of stdout is one JSON object.
    pub json: bool,
}

/// Where the demo's leases live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemoStore {
    /// A directory the demo makes.
    File,
    /// An etcd the demo starts.
    Etcd,
}

/// The backend of the demo's network config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemoBackend {
    /// VXLAN tunnels.
    Vxlan,
    /// Routes to the hosts, no tunnel.
    HostGw,
}

impl Site {
    /// Which fabric is meant; see [`StoreConfig::instance`].
    pub fn instance(&self) -> String {
        self.store.instance()
    }

    /// `<run>/<instance>` of the agent of this fabric.
    pub fn run_dir(&self) -> PathBuf {
        self.dirs.run.join(self.instance())
    }

    /// `<state>/<instance>` of the agent of this fabric.
    pub fn state_dir(&self) -> PathBuf {
        self.dirs.state.join(self.instance())
    }

    /// The unix socket of the agent of this fabric.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("agent.sock")
    }

    /// The unix socket that the HTTP endpoints of the agent of this fabric are on.
    pub fn http_socket(&self) -> PathBuf {
        self.run_dir().join("http.sock")
    }
}

impl DemoStore {
    /// As typed after `--store`.
    pub fn as_str(self) -> &'static str {
        match self {
            DemoStore::File => "file",
            DemoStore::Etcd => "etcd",
        }
    }
}

impl DemoBackend {
    /// As typed after `--backend`, and as `Backend.Type` in the network config.
    pub fn as_str(self) -> &'static str {
        match self {
            DemoBackend::Vxlan => "vxlan",
            DemoBackend::HostGw => "host-gw",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn everything_of_an_instance_lives_under_its_name() {
        let site = Site {
            store: StoreConfig::File { dir: "/srv/fabric".into() },
            dirs: Dirs { state: "/var/lib/twill".into(), run: "/run/twill".into() },
            warnings: Vec::new(),
        };
        let name = site.instance();
        assert_eq!(site.state_dir(), Path::new("/var/lib/twill").join(&name));
        assert_eq!(site.run_dir(), Path::new("/run/twill").join(&name));
        assert_eq!(site.socket(), Path::new("/run/twill").join(&name).join("agent.sock"));
    }
}
