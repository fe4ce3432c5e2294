//! The side of the successor: what it is given, and the one who gives.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use twill_backends::state::LinkName;

use super::offer::{Known, Offer, Thing};
use super::{ASK, PATIENCE, TAKEN, answer, line, network_namespace, request, wire};
use crate::agent::identity::Identity;
use crate::datapath::parts::Parts;

/// How long an agent that handed over may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// What a process that takes over is given.
#[derive(Debug)]
pub struct Inheritance {
    /// The instance's lock.
    pub lock: OwnedFd,
    /// The listener of the agent's socket.
    pub socket: UnixListener,
    /// The listener of the unix socket of the HTTP endpoints.
    pub http: UnixListener,
    /// The listener for health, where there is one.
    pub health: Option<TcpListener>,
    /// The listener for the page, where there is one.
    pub page: Option<TcpListener>,
    /// Who the running agent is.
    pub identity: Identity,
    pub(super) ready: bool,
    pub(super) known: Option<Known>,
    pub(super) parts: BTreeMap<LinkName, Parts>,
    pub(super) predecessor: Predecessor,
}

/// Why a process cannot take over. The running agent goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// It does not hand over.
    #[error(
        "the running agent does not hand over: {0}; it goes on as before; next: stop it, then start this one without --take-over"
    )]
    Refused(String),
    /// It does not answer.
    #[error("the running agent does not answer at {path}: {cause}; next: look at its log, or stop it first")]
    Silent {
        /// Its socket.
        path: String,
        /// How it failed.
        cause: io::Error,
    },
    /// This process cannot go on from what it was given.
    #[error(
        "cannot go on from what the running agent knows: {0}; it goes on as before; next: stop it, then start this one without --take-over"
    )]
    Unfit(String),
}

/// The running agent, as long as it may go on.
#[derive(Debug)]
pub(super) struct Predecessor(UnixStream);

/// Asks the agent behind `path` to hand over. `None` if there is none.
///
/// # Errors
/// It refuses, does not answer, or offers what this program does not understand.
pub async fn ask(path: &Path) -> Result<Option<Inheritance>, TakeOverError> {
    let silent = |cause: io::Error| TakeOverError::Silent { path: path.display().to_string(), cause };
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(silent(error)),
    };
    let exchange = async {
        wire::send(&stream, &line(&request(ASK)), &[]).await?;
        wire::receive(&stream).await
    };
    let received = tokio::time::timeout(PATIENCE, exchange).await;
    let (line, fds) = received
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
        .map_err(silent)?;
    let value = answer(&line).map_err(silent)?.map_err(TakeOverError::Refused)?;
    let offer = Offer::read(value).map_err(TakeOverError::Unfit)?;
    Inheritance::new(offer, fds, Predecessor(stream)).map(Some).map_err(TakeOverError::Unfit)
}

impl Inheritance {
    fn new(offer: Offer, fds: Vec<OwnedFd>, predecessor: Predecessor) -> Result<Self, String> {
        let Offer { node, namespace, session, ready, known, things, .. } = offer;
        if namespace != network_namespace() {
            return Err("it runs in another network namespace".to_owned());
        }
        if things.len() != fds.len() {
            return Err(format!("{} descriptors came for {} things", fds.len(), things.len()));
        }
        let (mut lock, mut socket, mut http, mut health, mut page) = (None, None, None, None, None);
        let mut parts: BTreeMap<LinkName, Parts> = BTreeMap::new();
        for (thing, fd) in things.into_iter().zip(fds) {
            match thing {
                Thing::Lock => lock = Some(fd),
                Thing::Socket => socket = Some(UnixListener::from(fd)),
                Thing::Http => http = Some(UnixListener::from(fd)),
                Thing::Health => health = Some(TcpListener::from(fd)),
                Thing::Page => page = Some(TcpListener::from(fd)),
                Thing::Tap(dev) => parts.entry(name(&dev)?).or_default().taps.push(fd),
                Thing::Udp(dev) => parts.entry(name(&dev)?).or_default().sockets.push(fd),
            }
        }
        let (Some(lock), Some(socket), Some(http)) = (lock, socket, http) else {
            return Err("the lock or a socket is missing".to_owned());
        };
        let identity = Identity { node, session };
        Ok(Self { lock, socket, http, health, page, identity, ready, known, parts, predecessor })
    }
}

fn name(dev: &str) -> Result<LinkName, String> {
    LinkName::try_from(dev).map_err(|error| format!("{dev}: {error}"))
}

impl Predecessor {
    /// Says that this process is able to go on, and waits until it may. However long the other takes, there is
    /// nothing else to do: it may still go on.
    pub(super) async fn let_go(&self) -> Result<(), TakeOverError> {
        let sent = wire::send(&self.0, &line(&request(TAKEN)), &[]).await;
        match (sent, wire::receive(&self.0).await) {
            (_, Ok((line, _))) => {
                let word = answer(&line).map_err(|error| TakeOverError::Refused(error.to_string()))?;
                word.map(drop).map_err(TakeOverError::Refused)
            }
            // One that goes on says so before it hangs up.
            (_, Err(_)) => {
                tracing::warn!("the running agent ended before it let go");
                Ok(())
            }
        }
    }

    /// Waits for its end, which frees what it did not hand over.
    pub(super) async fn ended(self) {
        if tokio::time::timeout(ENDING, wire::receive(&self.0)).await.is_err() {
            tracing::warn!("the agent that handed over has not ended yet");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(say: &str) -> Result<(), TakeOverError> {
        let (near, far) = UnixStream::pair().unwrap();
        if !say.is_empty() {
            wire::send(&far, format!("{say}\n").as_bytes(), &[]).await.unwrap();
        }
        // What the successor says next is never read.
        drop(far);
        Predecessor(near).let_go().await
    }

    #[tokio::test]
    async fn a_successor_goes_on_if_it_may_or_if_nobody_is_left_to_say_no() {
        told(r#"{"version":1,"ok":null}"#).await.unwrap();
        told("").await.unwrap();
        let error = told(r#"{"version":1,"error":"not ready within 10 s"}"#).await.unwrap_err().to_string();
        assert!(error.contains("not ready within 10 s") && error.contains("goes on as before"), "{error}");
        told("{").await.unwrap_err();
    }

    #[tokio::test]
    async fn nobody_is_there_to_take_over_from() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        assert!(ask(&path).await.unwrap().is_none());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(ask(&path).await.unwrap().is_none(), "one that died left its socket");
    }

    #[tokio::test]
    async fn what_does_not_fit_together_is_refused() {
        let offer = |things: &str| {
            let identity = Identity { node: uuid::Uuid::nil(), session: uuid::Uuid::nil() };
            let mut offer = Offer::new(&identity, true, None);
            offer.things = serde_json::from_str(things).unwrap();
            offer
        };
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        for (things, count, why) in [
            (r#"["lock"]"#, 2, "2 descriptors came for 1 things"),
            (r#"["lock","socket"]"#, 2, "the lock or a socket is missing"),
            (r#"["lock","socket","http",{"tap":"a name that is too long"}]"#, 4, "a name that is too long"),
        ] {
            let (near, _far) = UnixStream::pair().unwrap();
            let fds = std::iter::repeat_with(fd).take(count).collect();
            let error = Inheritance::new(offer(things), fds, Predecessor(near)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
