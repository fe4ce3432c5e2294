//! What a tunnel is served through: the descriptors that one process hands to another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The descriptors of one tunnel. Several processes may hold them, and even serve the tunnel at the same time: each
/// frame goes to one of them.
#[derive(Debug, Default)]
pub struct Parts {
    /// Queues of the TAP device.
    pub taps: Vec<OwnedFd>,
    /// UDP sockets, in the order of the queues. Where there are several queues, each has one to receive at and one to
    /// send from.
    pub sockets: Vec<OwnedFd>,
}

/// What one thread serves.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) tap: OwnedFd,
    pub(super) socket: OwnedFd,
    /// What is sent from, if that is another socket.
    pub(super) sender: Option<OwnedFd>,
}

impl Parts {
    /// Further descriptors of the same queues and sockets.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of<'a>(
        taps: impl IntoIterator<Item = BorrowedFd<'a>>,
        sockets: impl IntoIterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<Self> {
        Ok(Self { taps: copies(taps)?, sockets: copies(sockets)? })
    }

    /// All of them.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.taps.iter().chain(&self.sockets).map(AsFd::as_fd)
    }

    /// What each thread is to serve.
    ///
    /// # Errors
    /// There are not as many sockets as the queues need.
    pub(super) fn split(self) -> io::Result<Vec<Part>> {
        let Self { taps, sockets } = self;
        let (queues, count) = (taps.len(), sockets.len());
        let each = if queues == 1 { 1 } else { 2 };
        if queues == 0 || count != queues * each {
            return Err(io::Error::other(format!("{queues} queues and {count} sockets do not go together")));
        }
        let mut sockets = sockets.into_iter();
        let parts = taps.into_iter().filter_map(|tap| {
            let socket = sockets.next()?;
            let sender = if each == 2 { sockets.next() } else { None };
            Some(Part { tap, socket, sender })
        });
        Ok(parts.collect())
    }
}

fn copies<'a>(of: impl IntoIterator<Item = BorrowedFd<'a>>) -> io::Result<Vec<OwnedFd>> {
    of.into_iter().map(|fd| fd.try_clone_to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_copy_is_the_same_socket() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let parts = Parts::of([], [socket.as_fd()]).unwrap();
        assert_eq!(parts.descriptors().count(), 1);
        let copy = UdpSocket::from(Parts { taps: Vec::new(), ..parts }.sockets.remove(0));
        assert_eq!(copy.local_addr().unwrap(), socket.local_addr().unwrap());
    }

    #[test]
    fn each_queue_has_the_sockets_it_needs_or_none_is_served() {
        let sockets: Vec<_> = (0..6).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let port = |fd: OwnedFd| UdpSocket::from(fd).local_addr().unwrap().port();
        let want = |n: usize| sockets[n].local_addr().unwrap().port();
        for (queues, count, fit) in
            [(1, 1, true), (2, 4, true), (3, 6, true), (0, 0, false), (0, 1, false), (1, 0, false)]
                .into_iter()
                .chain([(1, 2, false), (2, 1, false), (2, 2, false), (2, 3, false), (2, 5, false)])
        {
            let taps = sockets.iter().take(queues).map(AsFd::as_fd);
            let split = Parts::of(taps, sockets.iter().take(count).map(AsFd::as_fd)).unwrap().split();
            assert_eq!(split.is_ok(), fit, "{queues} queues, {count} sockets: {split:?}");
            for (n, part) in split.into_iter().flatten().enumerate() {
                let each = count / queues;
                assert_eq!((port(part.tap), port(part.socket)), (want(n), want(each * n)));
                assert_eq!(part.sender.map(port), (each == 2).then(|| want(2 * n + 1)));
            }
        }
    }
}
