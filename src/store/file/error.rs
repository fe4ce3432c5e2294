//! What goes wrong with files, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::StoreError;

/// A failure in the directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirError {
    /// A file operation failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// How.
        error: io::Error,
    },
    /// Another process holds the lock.
    #[error("{} is held by another process for {seconds} s", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A key that cannot be a file name.
    #[error("`{0}` is no lease key")]
    Key(String),
    /// The work was cut short.
    #[error("{0}")]
    Aborted(String),
}

impl DirError {
    /// For `map_err`.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }

    /// As the store's error: refused if it needs an operator, otherwise worth another attempt.
    pub(super) fn into_store(self, store: &str, what: &str) -> StoreError {
        let (store, cause) = (store.to_owned(), format!("cannot {what}: {self}"));
        match self.remedy() {
            Some(remedy) => StoreError::Refused { store, cause: format!("{cause}; next: {remedy}") },
            None => StoreError::Unavailable { store, cause },
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "of the many kinds of errors few have a remedy")]
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Key(_) => Some("take one of: twill lease list"),
            Self::Io { error, .. } => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("free space on its disk"),
                io::ErrorKind::ReadOnlyFilesystem => Some("mount its disk writable"),
                io::ErrorKind::PermissionDenied => Some("let this user write there"),
                io::ErrorKind::NotADirectory => Some("give --store file:DIR a directory"),
                _ => None,
            },
            Self::Locked { .. } | Self::Aborted(_) => None,
        }
    }
}
