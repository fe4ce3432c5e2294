//! What `twill bundle` is told.

use std::path::PathBuf;

use super::DoctorConfig;

/// Where a bundle is from, and where it goes.
#[derive(Clone, Debug)]
pub struct BundleConfig {
    /// Where to look: as the doctor does.
    pub look: DoctorConfig,
    /// Where the archive goes.
    pub out: Out,
}

/// Where an archive goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Into the current directory, by its own name.
    Here,
    /// Into this file.
    File(PathBuf),
    /// To the next program.
    Stdout,
}
