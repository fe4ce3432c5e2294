//! What can go wrong in a lab, with the cause and the next step.

use std::io;
use std::time::Duration;

/// Why a lab, a probe or a process in it could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel refused a network namespace.
    #[error(
        "could not make a network namespace: {0}; run as root, or where unprivileged user namespaces are allowed"
    )]
    Namespace(#[source] io::Error),
    /// A system call, a file or a socket failed.
    #[error("{attempt}: {source}")]
    Io {
        /// What was being attempted, as a clause: "create /tmp/x".
        attempt: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("{attempt}: {source}")]
    Netlink {
        /// What was being attempted, with the namespace and the device.
        attempt: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A namespace's own thread has ended, so nothing can be done in it.
    #[error("the thread of namespace {0} has ended")]
    Ended(String),
    /// No device of that name in the namespace.
    #[error("no device {device} in namespace {namespace}")]
    NoDevice {
        /// The namespace's name.
        namespace: String,
        /// The device's name.
        device: String,
    },
    /// A condition did not come true in time.
    #[error("{what}: not within {limit:?}; {detail}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// What was seen last.
        detail: String,
    },
    /// Ctrl-C, or a signal to end.
    #[error("interrupted")]
    Interrupted,
    /// A program is not installed.
    #[error("{program} is not installed; install it with: apt-get install {package}")]
    Missing {
        /// The program's name.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A process ended, or a command failed, when it should not have.
    #[error("{what} ended ({status}):{output}")]
    Exited {
        /// Which process.
        what: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote, after a space or a line break.
        output: String,
    },
    /// Text from outside (a subnet file, an HTTP answer, JSON) does not read as expected.
    #[error("{what} does not read as expected: {text}")]
    Unreadable {
        /// What was read.
        what: String,
        /// The text, or the part of it that is wrong.
        text: String,
    },
}

impl LabError {
    /// A closure for `map_err` on I/O: `.map_err(LabError::io(|| format!("open {path}")))`.
    pub(crate) fn io(attempt: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { attempt: attempt(), source }
    }
}
