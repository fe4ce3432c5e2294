//! What the doctor looks at, as values: checks are functions of them, and tests need no kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use twill_backends::fault::Fault;
use twill_backends::lease::Subnets;
use twill_backends::network::NetworkConfig;
use twill_backends::state::LinkName;

use crate::agent::preview::Preview;
use crate::agent::status::Status;
use crate::cni::fabric::Fabric as Env;
use crate::filter::look::Firewall;
use crate::kernel::Scope;
use crate::kernel::facts::HostFacts;
use crate::migrate::cni::Cni;
use crate::store::Entry;

/// Everything that was looked at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// When.
    pub now: SystemTime,
    /// Whether everything may be seen.
    pub privileged: bool,
    /// What the agent says.
    pub agent: Agent,
    /// What the store says.
    pub store: Store,
    /// What this host is to be.
    pub fabric: Fabric,
    /// Links, addresses and routes.
    pub host: HostFacts,
    /// What is not as wanted while no agent runs, or why none would start; `None` if that could not be asked.
    pub ahead: Option<Result<Preview, Refused>>,
    /// Why the kernel cannot make VXLAN devices, where that matters.
    pub no_vxlan: Option<String>,
    /// Settings by their path below `/proc/sys`.
    pub settings: BTreeMap<String, String>,
    /// UDP packets received, and those among them with a wrong checksum.
    pub udp: Udp,
    /// Sockets that have the tunnel's port.
    pub sockets: Vec<Socket>,
    /// Programs on this host's network that matter, by name.
    pub programs: Vec<Program>,
    /// Network managers that are told to leave the fabric's devices alone.
    pub told: BTreeSet<&'static str>,
    /// The firewall, or why it could not be read.
    pub firewall: Result<Firewall, String>,
    /// What subnet.env says; `Ok(None)` if there is none.
    pub env: Result<Option<Env>, String>,
    /// Where it is.
    pub env_path: PathBuf,
    /// The agent's directories.
    pub folders: Vec<Folder>,
    /// When the agent's snapshot was written.
    pub snapshot: Option<SystemTime>,
    /// Whether the clock is synchronized, where something says.
    pub synchronized: Option<bool>,
    /// Networks and containers of flannel's plugin.
    pub cni: Cni,
    /// Plugins that networks name and that are not installed, each with the file that names it.
    pub missing: Vec<(String, PathBuf)>,
}

/// What the agent says.
#[derive(Debug, Clone)]
pub enum Agent {
    /// It answers.
    Answers(Box<Status>),
    /// There is one, and it does not.
    Silent(Duration),
    /// There is none; says how that shows.
    Absent(String),
}

/// Why no agent would start.
#[derive(Debug, Clone)]
pub enum Refused {
    /// Each reason is a fault.
    Faults(Vec<Fault>),
    /// In words, with the next step.
    Error(String),
}

/// What the store says.
#[derive(Debug, Clone)]
pub struct Store {
    /// The network's configuration, or what is wrong with it or with the store.
    pub network: Result<NetworkConfig, Fault>,
    /// The leases, or what is wrong.
    pub entries: Result<Vec<Entry>, Fault>,
}

/// What this host is to be, as far as agent, store and state directory say.
#[derive(Debug, Clone, Default)]
pub struct Fabric {
    /// The network's configuration.
    pub network: Option<NetworkConfig>,
    /// The node id, if this host has one.
    pub node: Option<String>,
    /// This host's subnets.
    pub own: Subnets,
    /// The tunnel's devices.
    pub tunnels: Vec<LinkName>,
    /// Its VNI and port, where there is a tunnel.
    pub vxlan: Option<(u32, u16)>,
    /// The underlay interface.
    pub underlay: Option<LinkName>,
    /// What is ours.
    pub scope: Scope,
}

/// A program that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its process id.
    pub pid: u32,
    /// Its name, as far as the kernel keeps it.
    pub name: String,
}

/// A UDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its port.
    pub port: u16,
    /// Who has it, as far as can be seen.
    pub holder: Option<Program>,
}

/// Counters of UDP since the host was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Udp {
    /// Delivered.
    pub received: u64,
    /// Dropped for a wrong checksum.
    pub spoilt: u64,
}

/// A directory of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The directory, or the nearest above it that is there.
    pub path: PathBuf,
    /// Bytes that may be written.
    pub free: u64,
    /// Files that may be made.
    pub inodes: u64,
    /// Why nothing can be written there.
    pub unwritable: Option<String>,
}

impl Facts {
    /// The agent's status, if it answers.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match &self.agent {
            Agent::Answers(status) => Some(status),
            Agent::Silent(_) | Agent::Absent(_) => None,
        }
    }

    /// A setting by its path below `/proc/sys`.
    #[must_use]
    pub fn setting(&self, path: &str) -> Option<&str> {
        self.settings.get(path).map(String::as_str)
    }

    /// The devices through which the fabric's packets pass.
    pub fn devices(&self) -> impl Iterator<Item = LinkName> {
        self.fabric.tunnels.iter().copied().chain(self.fabric.underlay)
    }
}
