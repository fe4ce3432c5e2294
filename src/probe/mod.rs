//! Peer probes: small UDP echoes between hosts, through the fabric and beside it.
//!
//! What to send when, and what the answers mean, is decided in [`twill_backends::probe`]. Here are the sockets, the tags,
//! and a thread of its own, so that an agent that is busy answers its peers all the same, and one that waits for an answer
//! is never late for anything else. Nothing is shared but values, in channels.

mod account;
mod known;
mod ping;
mod rows;
pub mod secret;
mod socket;
mod sockets;
mod task;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use twill_backends::family::PerFamily;
use twill_backends::lease::LeaseKey;
use twill_backends::probe::{Course, Finding, LineId};

pub use self::rows::Outlook;
use self::secret::Party;
use self::task::{Asked, Told};

/// What the agent asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// Where this host listens.
    pub port: u16,
    /// Its tunnel addresses.
    pub overlay: PerFamily<IpAddr>,
    /// Its addresses on the underlay.
    pub underlay: PerFamily<IpAddr>,
    /// Whether this host's kernel is as it should be.
    pub settled: bool,
}

/// The peers that answer probes, and `None` for those that no longer do. Of others nothing changes.
pub type Peers = BTreeMap<LeaseKey, Option<Peer>>;

/// A peer that answers probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub party: Party,
    /// How it is reached.
    pub courses: PerFamily<Course>,
}

/// What an agent has to act on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// The largest packet to each peer, in bytes, where it is less than what the devices take; `None` before there is
    /// anything to say.
    pub limits: Option<BTreeMap<LineId, u32>>,
    /// Why probes cannot be sent.
    pub trouble: Option<String>,
}

/// When frames were last sent to peers, and when that was found out.
type Traffic = Option<(BTreeMap<LineId, Instant>, Instant)>;

/// What was found out of each peer that is probed.
pub type Findings = Arc<BTreeMap<LineId, Finding>>;

/// The thread that probes. It ends when this is dropped.
#[derive(Debug)]
pub struct Probes {
    orders: watch::Sender<Order>,
    peers: mpsc::UnboundedSender<Peers>,
    traffic: watch::Sender<Traffic>,
    findings: watch::Receiver<Findings>,
    news: watch::Receiver<News>,
    outlook: Outlook,
}

impl Probes {
    /// Starts it, for the host that is `own`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(own: Party) -> io::Result<Self> {
        let (orders, ordered) = watch::channel(Order::default());
        let (peers, met) = mpsc::unbounded_channel();
        let (traffic, carried) = watch::channel(None);
        let (found, findings) = watch::channel(Arc::default());
        let (tell, news) = watch::channel(News::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outlook = Outlook::default();
        let asked = Asked { orders: ordered, peers: met, traffic: carried };
        let told = Told { findings: found, news: tell, outlook: outlook.clone() };
        let task = task::Task::new(own, asked, told);
        std::thread::Builder::new().name("probe".to_owned()).spawn(move || runtime.block_on(task.run()))?;
        Ok(Self { orders, peers, traffic, findings, news, outlook })
    }

    /// Changes what is asked for. `change` says whether it changed anything.
    pub fn order(&self, change: impl FnOnce(&mut Order) -> bool) {
        self.orders.send_if_modified(change);
    }

    /// Changes who is probed.
    pub fn meet(&self, peers: Peers) {
        // A thread that is gone probes nobody.
        self.peers.send(peers).ok();
    }

    /// Says to whom frames were sent.
    pub fn carried(&self, used: BTreeMap<LineId, Instant>, looked: Instant) {
        self.traffic.send_replace(Some((used, looked)));
    }

    /// What was found out.
    #[must_use]
    pub fn findings(&self) -> Findings {
        Arc::clone(&self.findings.borrow())
    }

    /// Where to look at what all hosts found out.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        self.outlook.clone()
    }

    /// What there is to act on, as of now.
    pub fn news(&mut self) -> News {
        self.news.borrow_and_update().clone()
    }

    /// Waits until there is something else to act on.
    pub async fn changed(&self) {
        let mut news = self.news.clone();
        if news.changed().await.is_err() {
            // The thread is gone; nothing will ever come.
            std::future::pending::<()>().await;
        }
    }
}
