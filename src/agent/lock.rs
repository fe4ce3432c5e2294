//! One agent per instance and host, and none beside a live flanneld of the same prefix.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::flanneld;

/// Held as long as the agent runs; the kernel lets go of it whatever way the process ends. A process that takes over
/// holds the same open file (flock(2)), so that the lock is never free in between.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Somebody else is at work here.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// An agent of this instance.
    #[error(
        "an agent of this fabric runs already (pid {pid}); next: let `twill agent --take-over` take over from it, stop it first, or give this one its own --store or --etcd-prefix"
    )]
    Agent {
        /// Its process id, as far as the lock file says.
        pid: String,
    },
    /// A flanneld of the same prefix, in this network namespace.
    #[error(
        "flanneld runs with the same prefix (pid {pid}); next: stop it (systemctl stop flanneld), packets keep flowing"
    )]
    Flanneld {
        /// Its process id.
        pid: u32,
    },
    /// The lock file cannot be used.
    #[error(
        "cannot lock {path}: {cause}; next: make the directory writable, or choose another with --run-dir"
    )]
    File {
        /// Which file.
        path: PathBuf,
        /// How it failed.
        cause: io::Error,
    },
}

impl Lock {
    /// Takes the lock of the instance whose directory this is.
    ///
    /// # Errors
    /// Another agent has it, or the directory is not writable.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = path(dir);
        let failed = |cause: io::Error| LockError::File { path: path.clone(), cause };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                write_pid(&mut file).map_err(failed)?;
                Ok(Self { file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(failed)?;
                Err(LockError::Agent { pid: pid.trim().to_owned() })
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Takes the lock that another process holds and handed over.
    ///
    /// # Errors
    /// It is not the lock of the instance whose directory this is.
    pub fn inherit(lock: OwnedFd, dir: &Path) -> Result<Self, LockError> {
        let path = path(dir);
        let failed = |cause: io::Error| LockError::File { path: path.clone(), cause };
        let file = File::from(lock);
        let (ours, theirs) = (fs::metadata(&path).map_err(failed)?, file.metadata().map_err(failed)?);
        if (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino()) {
            return Err(failed(io::Error::other("the running agent holds the lock of another file")));
        }
        Ok(Self { file })
    }

    /// Says in the file that this process holds the lock.
    ///
    /// # Errors
    /// As the file system answers; the lock is held all the same.
    pub fn sign(&mut self) -> io::Result<()> {
        write_pid(&mut self.file)
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Makes sure that no flanneld with this prefix runs in this network namespace: two agents of one lease would write
/// over each other.
///
/// # Errors
/// [`LockError::Flanneld`].
pub fn no_flanneld(prefix: &str) -> Result<(), LockError> {
    let rival = flanneld::running(Path::new("/proc")).into_iter().find(|one| one.prefix() == prefix);
    rival.map_or(Ok(()), |one| Err(LockError::Flanneld { pid: one.pid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(first);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_lock_goes_from_one_to_the_other_without_being_free() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let given = || first.as_fd().try_clone_to_owned().unwrap();
        let mut second = Lock::inherit(given(), dir.path()).unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("lock"), "").unwrap();
        let error = Lock::inherit(given(), other.path()).unwrap_err().to_string();
        assert!(error.contains("another file"), "{error}");
        drop(first);
        second.sign().unwrap();
        Lock::take(dir.path()).unwrap_err();
        drop(second);
        Lock::take(dir.path()).unwrap();
    }
}
