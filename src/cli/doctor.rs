//! What was typed after `twill doctor`.

use std::path::PathBuf;

use clap::Args;

use super::args::AgentArgs;
use super::migrate::CniArgs;
use crate::config::{Config, DoctorConfig};

/// The agent's flags, where else to look, and how to say it.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub(super) agent: AgentArgs,
    #[command(flatten)]
    pub(super) look: LookArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Where to look.
#[derive(Debug, Args)]
pub(super) struct LookArgs {
    /// The proc file system, where programs are looked for
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(super) proc: PathBuf,
    /// Below which the configuration of network managers is looked for
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(super) root: PathBuf,
    #[command(flatten)]
    pub(super) cni: CniArgs,
    /// CNI plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub(super) cni_bin_dir: PathBuf,
}

impl LookArgs {
    pub(super) fn resolve(self, agent: Config) -> DoctorConfig {
        DoctorConfig {
            agent,
            proc: self.proc,
            root: self.root,
            cni: self.cni.resolve(),
            cni_bin_dir: self.cni_bin_dir,
        }
    }
}
