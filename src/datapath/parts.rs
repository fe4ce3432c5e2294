//! What a tunnel is served through: the descriptors that one process hands to another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The descriptors of one tunnel. Several processes may hold them, and even serve the tunnel at the same time: each
/// frame goes to one of them.
#[derive(Debug, Default)]
pub struct Parts {
    /// Queues of the TAP device.
    pub taps: Vec<OwnedFd>,
    /// UDP sockets, in the order they are served in.
    pub sockets: Vec<OwnedFd>,
}

impl Parts {
    /// Further descriptors of the same queues and sockets.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of<T: AsFd, U: AsFd>(taps: &[T], sockets: &[U]) -> io::Result<Self> {
        Ok(Self { taps: copies(taps)?, sockets: copies(sockets)? })
    }

    /// All of them.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.taps.iter().chain(&self.sockets).map(AsFd::as_fd)
    }

    /// The only queue and the only socket.
    ///
    /// # Errors
    /// There are more, or fewer.
    pub(super) fn pair(self) -> io::Result<(OwnedFd, OwnedFd)> {
        let Self { mut taps, mut sockets } = self;
        let counts = (taps.len(), sockets.len());
        match (taps.pop(), sockets.pop()) {
            (Some(tap), Some(socket)) if counts == (1, 1) => Ok((tap, socket)),
            _ => Err(io::Error::other(format!("{} queues and {} sockets, not one each", counts.0, counts.1))),
        }
    }
}

fn copies<F: AsFd>(of: &[F]) -> io::Result<Vec<OwnedFd>> {
    of.iter().map(|fd| fd.as_fd().try_clone_to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_copy_is_the_same_socket() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let parts = Parts::of::<UdpSocket, _>(&[], &[&socket]).unwrap();
        assert_eq!(parts.descriptors().count(), 1);
        let copy = UdpSocket::from(Parts { taps: Vec::new(), ..parts }.sockets.remove(0));
        assert_eq!(copy.local_addr().unwrap(), socket.local_addr().unwrap());
    }

    #[test]
    fn more_than_one_of_each_is_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (taps, sockets) in [(0, 1), (1, 0), (2, 1), (1, 2)] {
            let parts = Parts::of(&vec![&socket; taps], &vec![&socket; sockets]).unwrap();
            let error = parts.pair().unwrap_err().to_string();
            assert!(error.contains("not one each"), "{error}");
        }
        Parts::of(&[&socket], &[&socket]).unwrap().pair().unwrap();
    }
}
