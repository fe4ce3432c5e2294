//! What the kernel is shown in one `sendmmsg` or `recvmmsg`, made once and filled before each.
#![allow(unsafe_code, reason = "control data and addresses of messages have no safe form without allocation")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc;
use socket2::SockAddr;

/// What the kernel is shown in one call. Filled before each, of fixed length.
pub(super) struct Arrays {
    pub(super) headers: Vec<libc::mmsghdr>,
    pub(super) vectors: Vec<libc::iovec>,
    pub(super) names: Vec<libc::sockaddr_storage>,
    pub(super) peers: Vec<SockAddr>,
    pub(super) controls: Vec<Control>,
}

// SAFETY: the pointers are written before each system call and not read after it; no other thread sees them.
unsafe impl Send for Arrays {}

/// Room for one control message of a number.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; 64]);

impl Arrays {
    pub(super) fn new(count: usize) -> Self {
        // SAFETY: all bytes zero is an `mmsghdr` that points nowhere, and an address of no family.
        let (header, name) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let nobody = SockAddr::from(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
        Self {
            headers: vec![header; count],
            vectors: Vec::with_capacity(4096),
            names: vec![name; count],
            peers: vec![nobody; count],
            controls: vec![Control([0; 64]); count],
        }
    }

    /// Who sent message `i`.
    pub(super) fn sender(&self, i: usize) -> IpAddr {
        let name = &raw const self.names[i];
        match libc::c_int::from(self.names[i].ss_family) {
            libc::AF_INET => {
                // SAFETY: the kernel wrote an address of this family, and the storage is large enough for any.
                let name = unsafe { &*name.cast::<libc::sockaddr_in>() };
                Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()).into()
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let name = unsafe { &*name.cast::<libc::sockaddr_in6>() };
                Ipv6Addr::from(name.sin6_addr.s6_addr).into()
            }
            _ => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// The length of each datagram of message `i`, if it is several.
    pub(super) fn segment(&self, i: usize) -> usize {
        let header = &raw const self.headers[i].msg_hdr;
        // SAFETY: the kernel filled header and control data, both of which live in `self`; the macros walk what it
        // wrote, and the number is read without alignment.
        unsafe {
            let mut control = libc::CMSG_FIRSTHDR(header);
            while !control.is_null() {
                if (*control).cmsg_level == libc::SOL_UDP && (*control).cmsg_type == libc::UDP_GRO {
                    let size = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
                    return usize::try_from(size).unwrap_or(0);
                }
                control = libc::CMSG_NXTHDR(header, control);
            }
        }
        0
    }
}

impl Control {
    /// `UDP_SEGMENT`; returns the length.
    pub(super) fn segment(&mut self, size: u16) -> usize {
        let header = self.0.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the buffer is aligned for the header and has room for it and for the number.
        unsafe {
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
            (*header).cmsg_level = libc::SOL_UDP;
            (*header).cmsg_type = libc::UDP_SEGMENT;
            libc::CMSG_DATA(header).cast::<u16>().write_unaligned(size);
            libc::CMSG_SPACE(size_of::<u16>() as u32) as usize
        }
    }
}

impl std::fmt::Debug for Arrays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrays").field("count", &self.headers.len()).finish()
    }
}
