//! Hosts in network namespaces on one machine: for `twill demo`, the benchmarks and the tests.
//!
//! ```text
//!   underlay      ub0 192.168.77.254/24, fd77::fe/64          (one bridge per segment, routing between them)
//!                  |              |              |
//!   hosts      n1 eth0 .1     n2 eth0 .2     n3 eth0 .3       agents run here
//!               cni0           cni0           cni0            the first address of the host's subnet
//!                |              |              |
//!   pods       n1p1 eth0      n2p1 eth0      n3p1 eth0        probes run here
//! ```
//!
//! Everything is a value that cleans up when dropped, after a panic too: processes end by pid, namespaces vanish with
//! their last handle and take their devices along, the folder goes with the last part of the lab. A lab that is killed
//! with SIGKILL leaves no process and no namespace; its folder (and names in `ip netns`, if it asked for them) are
//! swept by the next lab. Nothing is ever done in the network namespace of the caller, and no external program is
//! needed. All calls block; none needs a runtime or minds one.

mod agent;
mod ask;
pub mod bench;
mod command;
mod cost;
pub mod demo;
mod error;
mod etcd;
mod host;
mod links;
mod netns;
mod pod;
pub mod probe;
mod process;
mod relay;
pub mod report;
mod signals;
mod site;
mod spoiler;
mod tunnel;
mod underlay;
mod unprivileged;
mod view;
mod wait;

use std::path::Path;
use std::sync::Arc;

pub use agent::{AgentOptions, AgentProcess, StoreAt};
pub use command::CommandError;
pub use error::LabError;
pub use etcd::EtcdProcess;
pub use host::{Host, UPLINK};
pub use links::{Mac, local_mac};
pub use netns::Netns;
pub use pod::{BRIDGE, Pod, PodSubnet};
pub use process::{Process, copy_program, tail};
pub use spoiler::Spoiler;
pub use tunnel::{Tunnel, TunnelPeer};
pub use underlay::Underlay;
pub use unprivileged::Refusal;
pub use wait::{Cancel, Seen, until};

use site::Site;

/// What to build.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// How many hosts.
    pub hosts: u16,
    /// Whether hosts have an IPv4 address.
    pub ipv4: bool,
    /// Whether hosts have an IPv6 address.
    pub ipv6: bool,
    /// How many layer 2 segments; host `i` (from 0) is on segment `i % segments`. For each 250 hosts there are as many
    /// segments more; all in all at most 100.
    pub segments: u8,
    /// The MTU of the underlay, in bytes.
    pub mtu: u32,
    /// Whether `ip netns exec` finds the namespaces.
    pub visible: bool,
    /// Ends all waits of the lab when set.
    pub cancel: Cancel,
}

impl Default for LabOptions {
    /// Three hosts on one segment with IPv4.
    fn default() -> Self {
        Self {
            hosts: 3,
            ipv4: true,
            ipv6: false,
            segments: 1,
            mtu: 1500,
            visible: false,
            cancel: Cancel::default(),
        }
    }
}

/// A network of hosts. Fields are dropped in this order: hosts first, then what joins them, then the folder.
#[derive(Debug)]
pub struct Lab {
    /// The hosts `n1`, `n2`, ….
    pub hosts: Vec<Host>,
    /// What joins them.
    pub underlay: Underlay,
    site: Arc<Site>,
    options: LabOptions,
}

impl Lab {
    /// Whether this process may make network namespaces; the error says why not.
    pub fn available() -> Result<(), LabError> {
        Netns::new("probe", false).map(drop)
    }

    /// Builds the underlay and the hosts.
    pub fn new(options: &LabOptions) -> Result<Self, LabError> {
        let site = Arc::new(Site::new(options.visible, options.cancel.clone())?);
        let net = Netns::new(&format!("{}-underlay", site.name), options.visible)?;
        let underlay = Underlay::new(net, options)?;
        let mut lab = Self { hosts: Vec::new(), underlay, site, options: options.clone() };
        for _host in 0..options.hosts {
            lab.add_host()?;
        }
        Ok(lab)
    }

    /// Adds one more host and returns it.
    pub fn add_host(&mut self) -> Result<&Host, LabError> {
        let index = self.hosts.len();
        let number = u16::try_from(index + 1).unwrap_or(u16::MAX);
        let host = Host::new(&self.site, &self.underlay, number, self.segment(index))?;
        self.hosts.push(host);
        Ok(&self.hosts[index])
    }

    /// Gives `eth0` of the host at `index` its addresses and default routes back after a fault took them, as the host's
    /// network manager would; what is still there stays.
    pub fn readdress(&self, index: usize) -> Result<(), LabError> {
        let host = &self.hosts[index];
        host.net.link_down(UPLINK)?;
        host.net.flush_addresses(UPLINK)?;
        host.net.link_up(UPLINK)?;
        let number = u16::try_from(index + 1).unwrap_or(u16::MAX);
        self.underlay.address(&host.net, number, self.segment(index)).map(drop)
    }

    /// The lab's folder: files put there go with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.site.dir
    }

    /// The lab's name, the prefix of its namespaces' names.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.site.name
    }

    /// What ends the lab's waits.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.site.cancel
    }

    /// Starts an etcd of one member in the underlay's namespace, on the gateway's address.
    pub fn etcd(&self) -> Result<EtcdProcess, LabError> {
        let gone = || LabError::Ended(self.underlay.net.name().into());
        self.etcd_cluster(1)?.pop().ok_or_else(gone)
    }

    /// Starts an etcd of several members there.
    pub fn etcd_cluster(&self, members: u16) -> Result<Vec<EtcdProcess>, LabError> {
        EtcdProcess::start(&self.underlay, &self.site, members)
    }

    fn segment(&self, index: usize) -> u8 {
        let segments = usize::from(self.options.segments.max(1));
        u8::try_from(index % segments + segments * (index / usize::from(underlay::ROOM))).unwrap_or(u8::MAX)
    }
}
