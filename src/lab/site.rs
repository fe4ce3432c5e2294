//! What all parts of one lab share: its name, its folder, its way to be told to stop; and the sweep of what labs that
//! were killed with SIGKILL left on disk.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use super::netns::{NAMED, unbind};
use super::{Cancel, LabError};

const PREFIX: &str = "twill-lab-";
const LOCK: &str = "lock";
/// Counts the labs of this process, so that their names differ.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The shared part of a lab. The folder is removed with the last part of the lab.
#[derive(Debug)]
pub(crate) struct Site {
    /// Unique on this machine; prefix of the namespaces' names.
    pub(crate) name: String,
    /// The lab's folder.
    pub(crate) dir: PathBuf,
    /// Ends all waits.
    pub(crate) cancel: Cancel,
    /// Whether namespaces show up in `ip netns`.
    pub(crate) visible: bool,
    /// Held as long as the lab lives: a folder whose lock is free belongs to no one.
    _lock: Flock<File>,
}

impl Site {
    pub(crate) fn new(visible: bool, cancel: Cancel) -> Result<Self, LabError> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let dir = parent.join(&name);
        let lock = occupy(&dir).map_err(LabError::io(|| format!("create {}", dir.display())))?;
        Ok(Self { name, dir, cancel, visible, _lock: lock })
    }

    /// A folder of the lab, made if it does not exist.
    pub(crate) fn folder(&self, path: impl AsRef<Path>) -> Result<PathBuf, LabError> {
        let path = self.dir.join(path);
        fs::create_dir_all(&path).map_err(LabError::io(|| format!("create {}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "could not remove the lab's folder");
        }
    }
}

/// Makes the folder and locks it; it gets its name only when locked, so that no sweep takes it for abandoned.
fn occupy(dir: &Path) -> io::Result<Flock<File>> {
    let fresh = dir.with_extension("new");
    fs::DirBuilder::new().mode(0o700).create(&fresh)?;
    let lock = lock(&File::create(fresh.join(LOCK))?)?;
    fs::rename(&fresh, dir)?;
    Ok(lock)
}

fn lock(file: &File) -> io::Result<Flock<File>> {
    Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock).map_err(|(_file, errno)| errno.into())
}

/// Removes the folders and the namespace names of labs that no longer live.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(PREFIX) && !name.ends_with(".new") && abandoned(&entry.path()) {
            forget(&entry.path(), &name);
        }
    }
}

fn abandoned(dir: &Path) -> bool {
    let ours = fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw());
    ours && File::open(dir.join(LOCK)).is_ok_and(|file| lock(&file).is_ok())
}

fn forget(dir: &Path, name: &str) {
    let named = fs::read_dir(NAMED).into_iter().flatten().flatten();
    for entry in named.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}-"))) {
        unbind(&entry.path());
    }
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::debug!(dir = %dir.display(), %error, "could not remove an abandoned lab's folder");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_removes_its_folder() {
        let site = Site::new(false, Cancel::default()).unwrap();
        let dir = site.dir.clone();
        fs::write(site.folder("n1/state").unwrap().join("file"), "x").unwrap();
        drop(site);
        assert!(!dir.exists());
    }

    #[test]
    fn the_sweep_takes_abandoned_folders_only() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join("twill-lab-1-0");
        let alive = parent.path().join("twill-lab-2-0");
        let other = parent.path().join("something-else");
        fs::create_dir_all(dead.join("n1")).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        fs::create_dir(&other).unwrap();
        let held = occupy(&alive).unwrap();
        sweep(parent.path());
        assert!(!dead.exists() && alive.exists() && other.exists());
        drop(held);
        sweep(parent.path());
        assert!(!alive.exists());
    }
}
