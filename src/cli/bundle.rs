//! What was typed after `twill bundle`.

use std::path::PathBuf;

use clap::Args;

use super::args::AgentArgs;
use super::doctor::LookArgs;
use crate::config::{BundleConfig, DoctorConfig, Out};

/// The agent's flags, where else to look, and where the archive goes.
#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    #[command(flatten)]
    pub(super) agent: AgentArgs,
    #[command(flatten)]
    pub(super) look: LookArgs,
    /// The archive's file; - is stdout; without it, twill-bundle-HOST-TIME.tar.gz in the current directory
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

pub(super) fn resolve(look: DoctorConfig, out: Option<PathBuf>) -> BundleConfig {
    let out = match out {
        None => Out::Here,
        Some(file) if file.as_os_str() == "-" => Out::Stdout,
        Some(file) => Out::File(file),
    };
    BundleConfig { look, out }
}
