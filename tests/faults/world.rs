//! What scenarios happen to: hosts with agents and pods, and an etcd.

use std::time::Duration;

use twill::lab::{EtcdProcess, Lab, LabError, LabOptions, StoreAt};

use crate::dump::difference;
use crate::fabric::{Fabric, Families, wait_for};

/// Who carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The kernel's VXLAN device.
    Vxlan,
    /// Routes, and no tunnel.
    HostGw,
    /// VXLAN carried by the agent.
    Userspace,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::Userspace => "userspace",
        }
    }

    /// Whether packets pass while no agent runs.
    pub(crate) fn in_kernel(self) -> bool {
        self != Self::Userspace
    }

    pub(crate) fn config(self) -> &'static str {
        if self == Self::HostGw { r#"{"Type":"host-gw"}"# } else { r#"{"Type":"vxlan"}"# }
    }

    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Userspace => &["--ip-masq", "--firewall=nftables", "--datapath=userspace"],
            Self::Vxlan | Self::HostGw => &["--ip-masq", "--firewall=nftables", "--datapath=kernel"],
        }
    }
}

/// Three hosts with an agent and a pod each, a fourth with neither, and an etcd. Faults happen to the first host.
/// Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) fabric: Fabric,
    pub(crate) etcd: EtcdProcess,
    pub(crate) backend: Backend,
}

impl World {
    /// Builds it on one segment; the error says why it cannot be built here.
    pub(crate) fn new(backend: Backend) -> Result<Self, String> {
        Self::on(LabOptions { hosts: 4, ..LabOptions::default() }, backend, backend.config())
    }

    /// [`World::new`] with an underlay and a backend's configuration of its own.
    pub(crate) fn on(options: LabOptions, backend: Backend, config: &str) -> Result<Self, String> {
        Lab::available().map_err(|reason| reason.to_string())?;
        let lab = Lab::new(&options).unwrap();
        let etcd = match lab.etcd() {
            Err(error @ LabError::Missing { .. }) => return Err(error.to_string()),
            etcd => etcd.unwrap(),
        };
        let store = StoreAt::Etcd { endpoints: etcd.endpoint() };
        let fabric = Fabric::over(store, lab, Families::V4, config, [backend.flags(); 3]);
        Ok(Self { fabric, etcd, backend })
    }

    /// What the kernels of all hosts have, and the subnet files.
    pub(crate) fn state(&self) -> Vec<Vec<String>> {
        (0..self.fabric.agents.len()).map(|host| self.fabric.state(host)).collect()
    }

    /// Waits until all is on all hosts as it was `before`, and no agent has anything to say.
    pub(crate) fn wait_as(&self, before: &[Vec<String>]) {
        for (host, before) in before.iter().enumerate() {
            wait_for(&format!("n{} as it was", host + 1), || {
                let differs = difference(before, &self.fabric.state(host));
                if differs.is_empty() {
                    Ok(())
                } else {
                    Err((differs, self.fabric.status(host)["faults"].clone()))
                }
            });
        }
        self.fabric.wait_settled();
    }

    /// How many lines all agents have logged.
    pub(crate) fn logged(&self) -> usize {
        self.fabric.agents.iter().map(|agent| agent.log().lines().count()).sum()
    }
}

/// Whether outages last as long as in the field.
pub(crate) fn long() -> bool {
    std::env::var_os("TWILL_LONG").is_some()
}

/// How long something lasts: that of the field with `TWILL_LONG`, else less.
pub(crate) fn lasting(field: Duration, short: Duration) -> Duration {
    if long() { field } else { short }
}
