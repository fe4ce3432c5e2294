//! What `twill doctor` is told.

use std::path::PathBuf;

use super::Config;

/// Where the doctor looks beside the agent, the store and the kernel.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// The agent's own configuration.
    pub agent: Config,
    /// The proc file system, where programs are looked for.
    pub proc: PathBuf,
    /// Below which the configuration of network managers is.
    pub root: PathBuf,
    /// Configurations of CNI networks.
    pub cni_conf_dir: PathBuf,
    /// What flannel's CNI plugin keeps of containers.
    pub cni_state_dir: PathBuf,
    /// What host-local keeps of addresses.
    pub cni_networks_dir: PathBuf,
    /// CNI plugins.
    pub cni_bin_dir: PathBuf,
}
