//! Lines with descriptors, over a unix socket (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How many descriptors go in one message; the kernel takes 253 (`SCM_MAX_FD`).
const MOST: usize = 128;
/// The longest line in bytes: more than any fabric's leases.
const LONGEST: usize = 64 << 20;
/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// Sends a line, its end included, and descriptors with its first bytes.
///
/// # Errors
/// The other side is gone.
pub(super) async fn send(stream: &UnixStream, line: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut rest = line;
    for fds in fds.chunks(MOST) {
        // Descriptors go with at least one byte.
        let (one, more) = rest.split_at(1.min(rest.len()));
        stream.async_io(Interest::WRITABLE, || send_some(stream, one, fds)).await?;
        rest = more;
    }
    while !rest.is_empty() {
        let sent = stream.async_io(Interest::WRITABLE, || send_some(stream, rest, &[])).await?;
        rest = &rest[sent..];
    }
    Ok(())
}

fn send_some(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives a line, after which the other side waits, and the descriptors that come with it.
///
/// # Errors
/// The other side is gone, or sends what is no line.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut fds) = (Vec::new(), Vec::new());
    let mut chunk = vec![0; CHUNK];
    while line.last() != Some(&b'\n') {
        let got = stream.async_io(Interest::READABLE, || receive_some(stream, &mut chunk, &mut fds)).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&chunk[..got]);
        if line.len() > LONGEST {
            return Err(io::Error::other("a line without end"));
        }
    }
    Ok((line, fds))
}

fn receive_some(stream: &UnixStream, chunk: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut chunks = [IoSliceMut::new(chunk)];
    let got = rustix::net::recvmsg(stream, &mut chunks, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("not all descriptors came: is the limit of open files reached?"));
    }
    Ok(got.bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn lines_and_descriptors_arrive_in_order_and_whole() {
        let (near, far) = UnixStream::pair().unwrap();
        for (count, length) in [(0, 2), (1, 3), (300, 3 << 20)] {
            let files: Vec<File> = (0..count)
                .map(|n| {
                    let mut file = tempfile::tempfile().unwrap();
                    write!(file, "{n}").unwrap();
                    file
                })
                .collect();
            let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            let mut line = vec![b'x'; length];
            line[length - 1] = b'\n';
            let (sent, received) = tokio::join!(send(&near, &line, &fds), receive(&far));
            sent.unwrap();
            let (got, fds) = received.unwrap();
            assert_eq!((got, fds.len()), (line, count));
            for (n, fd) in fds.into_iter().enumerate() {
                let (mut file, mut text) = (File::from(fd), String::new());
                file.rewind().unwrap();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, n.to_string());
            }
        }
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_heard() {
        let (near, far) = UnixStream::pair().unwrap();
        // What the near side never reads must not take away what it said.
        send(&far, b"unread\n", &[]).await.unwrap();
        send(&near, b"no\n", &[]).await.unwrap();
        drop(near);
        assert_eq!(receive(&far).await.unwrap().0, b"no\n");
        receive(&far).await.unwrap_err();
        assert!(send(&far, b"x\n", &[]).await.is_err());
    }
}
