//! What was typed after `twill migrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Env;
use crate::config::MigrateConfig;
use crate::migrate::cni;

/// What to do about a host that runs flanneld.
#[derive(Debug, Subcommand)]
pub(super) enum MigrateVerb {
    /// Say what Twill would do on this host, and what would break; exit 1 if anything would
    Check(MigrateArgs),
}

/// Where flanneld's flags and files are.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Take flanneld's flags from this unit of systemd, whatever runs
    #[arg(long, value_name = "FILE")]
    pub(super) unit: Option<PathBuf>,
    /// Take flanneld's variables from this file too; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) environment_file: Vec<PathBuf>,
    /// The proc file system, where a running flanneld is looked for
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(super) proc: PathBuf,
    /// Where flanneld.service is looked for; repeatable
    #[arg(long, value_name = "DIR", default_values = UNIT_DIRS)]
    pub(super) unit_dir: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) cni: CniArgs,
    /// flanneld's flags, in its own spelling, in place of those found
    #[arg(last = true, value_name = "FLAG")]
    pub(super) flags: Vec<String>,
}

/// Where CNI plugins have their files.
#[derive(Debug, Args)]
pub(super) struct CniArgs {
    /// Configurations of CNI networks
    #[arg(long, value_name = "DIR", default_value = cni::CONF_DIR)]
    pub(super) cni_conf_dir: PathBuf,
    /// What flannel's CNI plugin keeps of containers
    #[arg(long, value_name = "DIR", default_value = cni::STATE_DIR)]
    pub(super) cni_state_dir: PathBuf,
    /// What host-local keeps of addresses
    #[arg(long, value_name = "DIR", default_value = cni::NETWORKS_DIR)]
    pub(super) cni_networks_dir: PathBuf,
}

impl CniArgs {
    pub(super) fn resolve(self) -> cni::Dirs {
        cni::Dirs { conf: self.cni_conf_dir, state: self.cni_state_dir, networks: self.cni_networks_dir }
    }
}

/// Where systemd looks for units, the most important directory first.
const UNIT_DIRS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

impl MigrateArgs {
    /// With flanneld's variables, which may be those of the caller.
    pub(super) fn resolve(self, env: &Env) -> MigrateConfig {
        let theirs = env.iter().filter(|(name, _)| name.starts_with("FLANNELD_"));
        MigrateConfig {
            flags: self.flags,
            vars: theirs.map(|(name, value)| (name.clone(), value.clone())).collect(),
            unit: self.unit,
            environment_files: self.environment_file,
            proc: self.proc,
            unit_dirs: self.unit_dir,
            cni: self.cni.resolve(),
            json: self.json,
        }
    }
}
