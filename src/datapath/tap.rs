//! TAP devices: made persistent, and attached to.
//!
//! # Why two ways to open one
//! The `tun-tap` crate opens a device that gives whole frames with finished checksums; that works everywhere. It cannot
//! ask for the virtio header through which the stack leaves cutting and checksums to us, so for that the device is
//! opened here.
#![allow(unsafe_code, reason = "ioctls and writev have no safe form")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use twill_backends::state::LinkName;

use super::batch::{Batch, FrameIo, HEADROOM, Piece, Received, Refused, SLOT};

/// How many frames make a batch.
const FRAMES: usize = 32;
const DEVICE: &str = "/dev/net/tun";

// `TUN_F_*` of include/uapi/linux/if_tun.h: checksums, TCP over IPv4 and IPv6 with ECN, UDP over either.
const TCP: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;
const UDP: libc::c_ulong = 0x20 | 0x40;

mod ioctl {
    #![allow(missing_docs, reason = "the macros document nothing")]
    use nix::libc;

    nix::ioctl_write_ptr_bad!(
        tunsetiff,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_read_bad!(
        tungetiff,
        nix::request_code_read!(b'T', 210, size_of::<libc::c_uint>()),
        libc::ifreq
    );
    nix::ioctl_write_int!(tunsetpersist, b'T', 203);
    nix::ioctl_write_int!(tunsetoffload, b'T', 208);
    nix::ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
}

/// A queue of a TAP device that this process is attached to. Nobody else can be meanwhile.
#[derive(Debug)]
pub struct Tap {
    file: File,
    offload: bool,
    datagrams: bool,
    vectors: Vectors,
}

/// How many queues a device can have, which is settled when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queues {
    /// One. That is what the `tun-tap` crate opens.
    One,
    /// As many as are opened.
    Several,
}

/// Room for the vectors of one `writev`.
#[derive(Debug)]
struct Vectors(Vec<libc::iovec>);

// SAFETY: the pointers are written before each system call and not read after it; no other thread sees them.
unsafe impl Send for Vectors {}

/// Makes a TAP device that outlives its maker, in the network namespace of the calling thread. One that is there stays.
///
/// # Errors
/// The kernel's, with a hint at the next step.
pub fn make(dev: LinkName, queues: Queues) -> Result<(), super::DatapathError> {
    whole(dev, queues)
        .and_then(|file| Tap::new(file, false, false))
        .map(drop)
        .map_err(|cause| super::DatapathError::Tap { dev: dev.to_string(), cause })
}

/// What to do about an error of opening a device.
pub(super) fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "; run `modprobe tun`, or let the container have /dev/net/tun"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "; run as root or with CAP_NET_ADMIN, with access to /dev/net/tun"
        }
        Some(libc::EBUSY) => "; another process is attached to it: find it with `fuser /dev/net/tun`",
        Some(libc::EINVAL) => "; a device of this name and of another kind is there: `ip link del` it",
        _ => "",
    }
}

impl Tap {
    /// Attaches to `queues` queues of a device, or to as many as it has. It is made if it is not there, and is
    /// persistent from then on. With `offload`, large frames and unfinished checksums are asked for, and done without if
    /// the kernel does not offer them.
    ///
    /// # Errors
    /// The kernel's, with a hint at the next step.
    pub fn open(dev: LinkName, offload: bool, queues: usize) -> io::Result<Vec<Self>> {
        let first = Self::queue(dev, offload)?;
        let count = if flags(&first.file, dev)? & libc::IFF_MULTI_QUEUE == 0 { 1 } else { queues.max(1) };
        if count < queues {
            tracing::warn!(%dev, queues, "this device was made for one queue; delete it for more");
        }
        let offload = first.offload;
        let others = (1..count).map(|_| Self::queue(dev, offload));
        std::iter::once(Ok(first)).chain(others).collect()
    }

    fn queue(dev: LinkName, offload: bool) -> io::Result<Self> {
        if offload {
            let file = either(|queues| attach(dev, libc::IFF_VNET_HDR, queues))?;
            if let Some(tap) = Self::with_headers(file)? {
                return Ok(tap);
            }
        }
        let file = either(|queues| whole(dev, queues))?;
        set_offload(&file, 0)?;
        Self::new(file, false, false)
    }

    /// Takes a queue of a device that another process serves, or served.
    ///
    /// # Errors
    /// It is no queue of this device, or has virtio headers where no offload is wanted.
    pub fn adopt(queue: OwnedFd, dev: LinkName, offload: bool) -> io::Result<Self> {
        let file = File::from(queue);
        if flags(&file, dev)? & libc::IFF_VNET_HDR == 0 {
            return Self::new(file, false, false);
        }
        if !offload {
            return Err(io::Error::other("the queue was opened with offloads, and none are wanted"));
        }
        Self::with_headers(file)?.ok_or_else(|| io::Error::other("the queue lost its offloads"))
    }

    /// Asks for headers and offloads. `None` where the kernel does not offer them.
    fn with_headers(file: File) -> io::Result<Option<Self>> {
        let header = HEADROOM as libc::c_int;
        // SAFETY: the number lives through the call.
        unsafe { ioctl::tunsetvnethdrsz(file.as_raw_fd(), &raw const header) }?;
        let datagrams = set_offload(&file, TCP | UDP).is_ok();
        if !datagrams && set_offload(&file, TCP).is_err() {
            return Ok(None);
        }
        Self::new(file, true, datagrams).map(Some)
    }

    fn new(file: File, offload: bool, datagrams: bool) -> io::Result<Self> {
        // SAFETY: the call takes a number.
        unsafe { ioctl::tunsetpersist(file.as_raw_fd(), 1) }?;
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { file, offload, datagrams, vectors: Vectors(Vec::with_capacity(1024)) })
    }

    /// Whether frames have a virtio header.
    #[must_use]
    pub const fn offload(&self) -> bool {
        self.offload
    }

    /// Whether large UDP frames are understood too.
    #[must_use]
    pub const fn datagrams(&self) -> bool {
        self.datagrams
    }

    fn write(&mut self, batch: &Batch, pieces: &[Piece]) -> io::Result<()> {
        let vectors = &mut self.vectors.0;
        vectors.clear();
        for bytes in pieces.iter().skip(usize::from(!self.offload)).map(|piece| batch.bytes_of(*piece)) {
            vectors.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        }
        // SAFETY: each vector is a slice of the batch, which lives through the call and is only read by it.
        let done =
            unsafe { libc::writev(self.file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A queue of a device that has one, or, where that is refused because the device was made for several, of one that has.
fn either(open: impl Fn(Queues) -> io::Result<File>) -> io::Result<File> {
    open(Queues::One).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => open(Queues::Several),
        _ => Err(error),
    })
}

/// A queue that gives whole frames with finished checksums.
fn whole(dev: LinkName, queues: Queues) -> io::Result<File> {
    if queues == Queues::Several {
        return attach(dev, 0, queues);
    }
    let iface = tun_tap::Iface::without_packet_info(dev.as_str(), tun_tap::Mode::Tap)?;
    // SAFETY: the descriptor is open, and the crate gave it up.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(iface.into_raw_fd()) }))
}

/// A queue with further `IFF_*` flags.
fn attach(dev: LinkName, flags: libc::c_int, queues: Queues) -> io::Result<File> {
    let several = if queues == Queues::Several { libc::IFF_MULTI_QUEUE } else { 0 };
    let file = OpenOptions::new().read(true).write(true).open(DEVICE)?;
    let mut request = request(dev);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | flags | several) as libc::c_short;
    // SAFETY: the request lives through the call; its name ends with a zero, being of at most 15 bytes.
    unsafe { ioctl::tunsetiff(file.as_raw_fd(), &raw const request) }?;
    Ok(file)
}

/// A request about a device.
pub(super) fn request(dev: LinkName) -> libc::ifreq {
    // SAFETY: all bytes zero is an `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(dev.as_str().bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// The `IFF_*` flags of a queue, which must be one of this device.
fn flags(file: &File, dev: LinkName) -> io::Result<libc::c_int> {
    // SAFETY: all bytes zero is an `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the request lives through the call.
    unsafe { ioctl::tungetiff(file.as_raw_fd(), &raw mut request) }?;
    let name = request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0);
    if !name.eq(dev.as_str().bytes()) {
        return Err(io::Error::other("the queue is another device's"));
    }
    // SAFETY: the call wrote the flags.
    Ok(unsafe { request.ifr_ifru.ifru_flags }.into())
}

fn set_offload(file: &File, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the call takes a number.
    unsafe { ioctl::tunsetoffload(file.as_raw_fd(), flags) }?;
    Ok(())
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl FrameIo for Tap {
    fn recv(&mut self, batch: &mut Batch) -> io::Result<()> {
        let mut at = 0;
        while batch.received.len() < FRAMES {
            let Some(slot) = batch.slab().get_mut(at..at + SLOT) else { break };
            let skip = if self.offload { 0 } else { HEADROOM };
            slot[..HEADROOM].fill(0);
            let len = match self.file.read(&mut slot[skip..]) {
                Ok(len) => len + skip,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let (start, end) = (at + HEADROOM, at + len.max(HEADROOM));
            let from = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            batch.received.push(Received { start, end, from, segment: 0, cut: len == SLOT });
            // Whole cache lines, so that frames share none.
            at = end.next_multiple_of(64);
        }
        Ok(())
    }

    fn send(&mut self, batch: &Batch) -> Refused {
        let mut refused = Refused::default();
        for message in &batch.messages {
            if let Err(error) = self.write(batch, batch.pieces_of(message)) {
                match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::ENOBUFS) => refused.full += 1,
                    _ => refused.other += 1,
                }
            }
        }
        refused
    }
}
