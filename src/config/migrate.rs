//! What `twill migrate check` is told.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where to look for flanneld and what it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateConfig {
    /// flanneld's flags. If there are none: those of a flanneld that runs, else of its unit, else none.
    pub flags: Vec<String>,
    /// `FLANNELD_*` variables of this process, which go with given flags.
    pub vars: BTreeMap<String, String>,
    /// The unit to read, whatever runs.
    pub unit: Option<PathBuf>,
    /// Further environment files; the last one that sets a variable counts.
    pub environment_files: Vec<PathBuf>,
    /// The proc file system.
    pub proc: PathBuf,
    /// Where units are, the most important directory first.
    pub unit_dirs: Vec<PathBuf>,
    /// Where CNI configurations are.
    pub cni_conf_dir: PathBuf,
    /// Where flannel's plugin keeps containers.
    pub cni_state_dir: PathBuf,
    /// Where host-local keeps addresses.
    pub cni_networks_dir: PathBuf,
    /// One JSON object, else text.
    pub json: bool,
}
