//! Locks between processes, waited for a bounded time.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::{self, CniError};

/// How often a lock that another process has is tried.
const POLL: Duration = Duration::from_millis(5);

/// Takes the lock of a file, which is made if it is missing. The kernel lets go of it whatever way the process ends.
///
/// # Errors
/// Code 5 if the file cannot be used, 11 if another process keeps it too long.
pub(super) fn take(path: &Path, patience: Duration) -> Result<Flock<File>, CniError> {
    let failed =
        |cause: io::Error| CniError::new(error::IO, format!("cannot lock {}: {cause}", path.display()));
    let deadline = Instant::now() + patience;
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((file, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                let (path, limit) = (path.display(), patience.as_secs());
                return Err(CniError::new(error::AGAIN, format!("{path} was locked for {limit} s")));
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = take(&path, Duration::ZERO).unwrap();
        assert_eq!(take(&path, Duration::from_millis(20)).unwrap_err().code, error::AGAIN);
        let waits = thread::spawn({
            let path = path.clone();
            move || take(&path, Duration::from_secs(20)).map(drop)
        });
        drop(held);
        waits.join().unwrap().unwrap();
        assert_eq!(take(dir.path(), Duration::ZERO).unwrap_err().code, error::IO);
    }
}
