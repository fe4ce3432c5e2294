//! The ruleset's generations: the kernel numbers each change and announces the number after it, so who heard of every one
//! has missed none.

use std::io;

use netlink_sys::{Socket, SocketAddr};

use super::news::{SUBSYSTEM, attribute, kind, messages};

/// `NETLINK_NETFILTER` of linux/netlink.h.
pub(super) const PROTOCOL: isize = 12;
/// `NFT_MSG_NEWGEN`, `NFT_MSG_GETGEN` and `NFTA_GEN_ID` of linux/netfilter/nf_tables.h.
const ANNOUNCED: u16 = 15;
const ASKED: u16 = 16;
const NUMBER: u16 = 1;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Longer than the answer.
const ROOM: usize = 4096;

/// The last generation that was heard of; nothing if none was, or some may have been missed.
#[derive(Debug, Default)]
pub(super) struct Generations(Option<u32>);

impl Generations {
    /// From what is so now on.
    pub(super) fn begin() -> Self {
        Self(current().ok())
    }

    /// Takes what a datagram announces. Returns whether changes before it were missed.
    pub(super) fn hear(&mut self, datagram: &[u8]) -> bool {
        let mut missed = false;
        for number in numbers(datagram) {
            let before = self.0.replace(number);
            missed |= before.is_some_and(|before| number != before && number != after(before));
        }
        missed
    }

    /// Whether all changes up to now were heard of.
    pub(super) fn are_all(&self) -> bool {
        self.0.is_some() && current().ok() == self.0
    }
}

/// The number of the one after this; none is 0.
const fn after(number: u32) -> u32 {
    if number == u32::MAX { 1 } else { number + 1 }
}

fn numbers(datagram: &[u8]) -> impl Iterator<Item = u32> {
    let announced = |message: &&[u8]| kind(message) == SUBSYSTEM << 8 | ANNOUNCED;
    messages(datagram).map_while(Result::ok).filter(announced).filter_map(|message| {
        let number = attribute(message.get(20..)?, NUMBER)?;
        Some(u32::from_be_bytes(number.try_into().ok()?))
    })
}

/// Asks the kernel. It answers before the request returns.
fn current() -> io::Result<u32> {
    let socket = Socket::new(PROTOCOL)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    let mut request = 20_u32.to_ne_bytes().to_vec();
    request.extend((SUBSYSTEM << 8 | ASKED).to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.resize(20, 0);
    socket.send(&request, 0)?;
    let mut answer = Vec::with_capacity(ROOM);
    socket.recv(&mut answer, 0)?;
    numbers(&answer)
        .next()
        .ok_or_else(|| io::Error::other("the kernel does not tell the ruleset's generation"))
}

#[cfg(test)]
mod tests {
    use super::super::news::tests::{attr, message};
    use super::*;

    fn generation(number: u32) -> Vec<u8> {
        message(ANNOUNCED, 0, &[attr(NUMBER, &number.to_be_bytes())])
    }

    #[test]
    fn whoever_heard_of_every_generation_missed_none() {
        let mut heard = Generations::default();
        assert!(!heard.hear(&generation(7)), "nothing is known of those before");
        assert!(!heard.hear(&[generation(8), message(0, 1, &[attr(1, b"x\0")]), generation(9)].concat()));
        assert!(!heard.hear(&generation(9)), "asked for, and then announced");
        assert!(!heard.hear(&message(0, 1, &[])) && !heard.hear(&[1, 2, 3]));
        assert!(heard.hear(&generation(11)));
        assert!(!heard.hear(&generation(12)));
        let mut last = Generations(Some(u32::MAX));
        assert!(!last.hear(&generation(1)));
    }
}
