//! What `twill doctor` is told.

use std::path::PathBuf;

use super::Config;
use crate::migrate::cni::Dirs;

/// Where the doctor looks beside the agent, the store and the kernel.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// The agent's own configuration.
    pub agent: Config,
    /// The proc file system, where programs are looked for.
    pub proc: PathBuf,
    /// Below which the configuration of network managers is.
    pub root: PathBuf,
    /// Where CNI plugins have their files.
    pub cni: Dirs,
    /// CNI plugins.
    pub cni_bin_dir: PathBuf,
}
