//! Room in the kernel for what a socket receives.

use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// Makes room for so many bytes: beyond the host's limit where we may, up to it where we may not.
pub(crate) fn widen(socket: &impl AsFd, bytes: usize) -> nix::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &bytes).or_else(|_| setsockopt(socket, sockopt::RcvBuf, &bytes))
}
