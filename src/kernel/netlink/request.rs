//! Questions to the kernel, and its answers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_sys::AsyncSocket;
use nix::errno::Errno;
use rtnetlink::Handle;
use tokio::time::timeout;
use twill_backends::state::LinkName;

use super::parse::{self, SeenLink};
use crate::buffers::widen;
use crate::kernel::KernelError;

/// How often an interrupted dump is asked for again before what came is taken.
const DUMPS: usize = 4;
/// How long an answer may take: the kernel answers at once, unless its answer did not fit the receive buffer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The receive buffer in bytes: room for the answers to everything that is under way at once.
const RECEIVE_BUFFER: usize = 4 << 20;
/// `NLMSGERR_ATTR_MSG`: the kernel's explanation of a refusal.
const ATTR_MSG: u16 = 1;

/// One rtnetlink socket for questions, opened again if it breaks.
#[derive(Debug)]
pub(super) struct Requests(Mutex<Handle>);

/// The kernel's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    /// The kernel's own words (extended acknowledgement), often empty.
    pub(super) text: String,
}

impl Requests {
    /// Opens the socket in the network namespace of the calling thread. Needs a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        connect().map(|handle| Self(Mutex::new(handle)))
    }

    /// Everything of one kind. A table that does not exist yet is empty.
    pub(super) async fn dump(
        &self,
        attempt: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let mut found = Vec::new();
        for _ in 0..DUMPS {
            let (messages, interrupted) = match self.exchange(message.clone(), NLM_F_DUMP).await {
                Ok(answer) => answer,
                Err(refusal) if refusal.errno == Errno::ENOENT => return Ok(Vec::new()),
                Err(refusal) => {
                    return Err(KernelError::Unreachable { attempt, cause: refusal.to_string() });
                }
            };
            found = messages;
            if !interrupted {
                break;
            }
        }
        Ok(found)
    }

    /// Asks for one thing, or has one thing done; returns what came before the acknowledgement.
    pub(super) async fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        self.exchange(message, NLM_F_ACK | flags).await.map(|(messages, _)| messages)
    }

    /// The link of this name, without its addresses.
    pub(super) async fn link(&self, name: LinkName) -> Result<Option<SeenLink>, Refusal> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.as_str().to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.ask(RouteNetlinkMessage::GetLink(message), 0).await {
            Ok(answers) => Ok(links(&answers).next().map(SeenLink::asked)),
            Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Every link, by index, without addresses.
    pub(super) async fn links(&self) -> Result<BTreeMap<u32, SeenLink>, KernelError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.dump("list links", RouteNetlinkMessage::GetLink(message)).await?;
        Ok(links(&answers).map(SeenLink::asked).map(|seen| (seen.index, seen)).collect())
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Refusal> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.send(request)?;
        let (mut messages, mut interrupted) = (Vec::new(), false);
        while let Some(answer) =
            timeout(PATIENCE, answers.next()).await.map_err(|_| Refusal::from(Errno::ETIMEDOUT))?
        {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => messages.push(message),
                NetlinkPayload::Done(_) => return Ok((messages, interrupted)),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok((messages, interrupted)),
                NetlinkPayload::Error(error) => return Err(Refusal::from(&error)),
                _ => return Err(Refusal::from(Errno::ENOBUFS)),
            }
        }
        Err(Refusal::from(Errno::EPIPE))
    }

    /// Hands a request to the socket, which is opened again if it is gone.
    fn send(
        &self,
        request: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<impl futures::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + use<>, Refusal> {
        let mut handle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(answers) = handle.request(request.clone()) {
            return Ok(answers);
        }
        *handle = connect()
            .map_err(|error| Refusal::from(error.raw_os_error().map_or(Errno::EPIPE, Errno::from_raw)))?;
        handle.request(request).map_err(|_| Refusal::from(Errno::EPIPE))
    }
}

fn connect() -> io::Result<Handle> {
    let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    let socket = connection.socket_mut().socket_mut();
    widen(socket, RECEIVE_BUFFER)?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    tokio::spawn(connection);
    Ok(handle)
}

pub(super) fn links(answers: &[RouteNetlinkMessage]) -> impl Iterator<Item = SeenLink> {
    answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => parse::link(message),
        _ => None,
    })
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, text: String::new() }
    }
}

impl From<&ErrorMessage> for Refusal {
    fn from(error: &ErrorMessage) -> Self {
        let errno = Errno::from_raw(error.code.map_or(0, |code| code.get().saturating_neg()));
        // The header of the refused message comes first (`NETLINK_CAP_ACK`), its attributes follow.
        let attributes = error.header.get(16..).unwrap_or_default();
        let text = NlasIterator::new(attributes)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind() == ATTR_MSG)
            .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned());
        Self { errno, text: text.unwrap_or_default() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if matches!(self.errno, Errno::EPERM | Errno::EACCES) && self.text.is_empty() {
            return f.write_str("no privilege: run as root or with CAP_NET_ADMIN");
        }
        f.write_str(self.errno.desc())?;
        if self.text.is_empty() { Ok(()) } else { write!(f, " ({})", self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let mut error = ErrorMessage::default();
        error.code = std::num::NonZeroI32::new(-(Errno::EINVAL as i32));
        error.header = vec![0; 16];
        error.header.extend([12, 0, 1, 0]);
        error.header.extend(b"Bad via\0");
        assert_eq!(Refusal::from(&error).to_string(), "Invalid argument (Bad via)");
        error.header.truncate(16);
        assert_eq!(Refusal::from(&error).to_string(), "Invalid argument");
    }

    #[test]
    fn a_lack_of_privilege_says_what_to_do() {
        let text = Refusal::from(Errno::EPERM).to_string();
        assert_eq!(text, "no privilege: run as root or with CAP_NET_ADMIN");
    }
}
