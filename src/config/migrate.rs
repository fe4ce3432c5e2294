//! What `twill migrate check` is told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::migrate::cni::Dirs;

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
    /// Where CNI plugins have their files.
    pub cni: Dirs,
    /// One JSON object, else text.
    pub json: bool,
}
