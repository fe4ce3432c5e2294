//! Processes of a lab: started in a namespace, written to a log, ended by pid, never outliving the lab.
#![allow(unsafe_code, reason = "a parent-death signal can only be asked for between fork and exec")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

use super::wait::{Cancel, Seen, until};
use super::{LabError, Netns};

/// How long a process may take to end after SIGTERM before SIGKILL follows, when it is dropped.
const GRACE: Duration = Duration::from_secs(1);
/// How many of the last lines of a log a message shows.
const TAIL_LINES: usize = 12;

/// A running process in a namespace. Dropping it ends it: SIGTERM, and SIGKILL a second later.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    log: PathBuf,
}

/// Copies a program that is to be run. Another process writes it: a child that some other thread of this one forks
/// meanwhile would hold it open for writing, and for that moment nobody could run it (`ETXTBSY`).
///
/// # Errors
/// What `cp` says.
pub fn copy_program(from: &Path, to: &Path) -> Result<(), LabError> {
    let what = format!("cp {} {}", from.display(), to.display());
    let copied = Command::new("cp").args([from, to]).output();
    let output = copied.map_err(LabError::io(|| format!("run {what}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = format!(" {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Err(LabError::Exited { what, status: output.status.to_string(), output: said })
}

impl Process {
    /// Starts `command` in `net`, in a process group of its own (a Ctrl-C in the terminal reaches the lab, not it),
    /// stdout and stderr appended to `log`. The kernel kills it if the lab dies in whatever way.
    pub fn spawn(net: &Netns, what: &str, mut command: Command, log: &Path) -> Result<Self, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let open = || -> io::Result<(File, File)> {
            let file = OpenOptions::new().create(true).append(true).open(log)?;
            Ok((file.try_clone()?, file))
        };
        let (stdout, stderr) = open().map_err(LabError::io(|| format!("open {}", log.display())))?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        let parent = getpid();
        // SAFETY: between fork and exec only async-signal-safe calls are made (prctl, getppid), nothing is allocated,
        // and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
            });
        }
        let child = net
            .on_own_thread(move || command.spawn())?
            .map_err(LabError::io(|| format!("start {what} ({program})")))?;
        Ok(Self { what: what.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .map_err(|errno| LabError::io(|| format!("send {signal} to {}", self.what))(errno.into()))
    }

    /// Its exit status, if it has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().map_err(LabError::io(|| format!("look at {}", self.what)))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        let what = format!("the end of {}", self.what);
        until(&what, limit, &Cancel::default(), || {
            Ok(self.exited()?.map_or_else(|| Seen::NotYet("it still runs".into()), Seen::Yes))
        })
    }

    /// Ends it: SIGTERM, and after `grace` SIGKILL. A stopped process is continued first.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus, LabError> {
        self.signal(Signal::SIGTERM)?;
        self.signal(Signal::SIGCONT)?;
        if let Ok(status) = self.wait(grace) {
            return Ok(status);
        }
        self.signal(Signal::SIGKILL)?;
        self.child.wait().map_err(LabError::io(|| format!("wait for the end of {}", self.what)))
    }

    /// All it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_else(|error| format!("{}: {error}", self.log.display()))
    }

    /// [`LabError::Exited`] with the end of its log, if it has ended.
    pub fn check_alive(&mut self) -> Result<(), LabError> {
        let Some(status) = self.exited()? else { return Ok(()) };
        Err(LabError::Exited {
            what: self.what.clone(),
            status: status.to_string(),
            output: tail(&self.log()),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop(GRACE) {
            tracing::warn!(process = self.what, %error, "could not end a process of the lab");
        }
    }
}

/// The last lines of a log, indented, for a message.
#[must_use]
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines[from..].iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn tail_keeps_the_last_lines() {
        let log: String = (1..=40).map(|n| format!("line {n}\n")).collect();
        let text = tail(&log);
        assert!(text.starts_with("\n    line 29") && text.ends_with("line 40"), "{text}");
        assert_eq!(tail(""), "");
    }
}
