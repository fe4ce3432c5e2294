//! The host's network stack, as far as Twill owns it.

pub mod facts;
pub mod fake;
pub mod netlink;
pub mod ownership;
pub mod preflight;
pub mod trial;
pub mod underlay;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use ipnet::IpNet;
use twill_backends::checksums::Trial;
use twill_backends::diff::Op;
use twill_backends::family::PerFamily;
use twill_backends::mac::Mac;
use twill_backends::state::{Checksums, LinkName, NetState};

use self::facts::HostFacts;
use self::trial::Bench;

/// What counts as ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// The alias on every link of ours.
    pub alias: String,
    /// Names of links that are ours even without the alias, unless they carry another instance's.
    pub links: BTreeSet<LinkName>,
    /// The settings that are ours, by path below `/proc/sys`.
    pub sysctls: BTreeSet<String>,
    /// The networks of the current and of the last configuration, each with its subnets' prefix length. Routes
    /// outside of them are never ours.
    pub networks: Vec<(IpNet, u8)>,
    /// Our own subnets: routes without a gateway inside of them lead to this host's containers.
    pub own: Vec<IpNet>,
    /// The underlay interface, through which direct routes lead.
    pub underlay: Option<LinkName>,
    /// Whether flanneld ran here, so that routes with its fingerprint are ours.
    pub flanneld_ran: bool,
    /// Whether the stand-ins of trials are ours, which is so only where no trial is under way.
    pub stand_ins: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// What is ours.
    pub net: NetState,
    /// Routes of others that lie inside a network of ours.
    pub foreign: Vec<ForeignRoute>,
    /// How many neighbours the kernel keeps at most, where it says: `gc_thresh3`.
    pub neighbours: PerFamily<u32>,
}

/// A route of somebody else inside a network of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRoute {
    /// Its destination.
    pub dst: IpNet,
    /// Its metric.
    pub metric: u32,
    /// The route as `ip route` prints it.
    pub line: String,
}

/// What changed under us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These objects are as these operations left them, whoever did that. Our own echoes are among them.
    Did(Vec<Op>),
    /// Something that cannot be told in operations: observe. Says what, for the log.
    Unknown(&'static str),
    /// Addresses or links of the underlay changed: choose the underlay again, then observe.
    Underlay,
}

/// The interface that carries the fabric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Its name.
    pub name: LinkName,
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its address of each family.
    pub addrs: PerFamily<IpAddr>,
    /// The networks it is attached to.
    pub on_link: Vec<IpNet>,
}

/// Why the kernel did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It refused an operation.
    #[error("{op}: {cause}")]
    Refused {
        /// The operation, as an operator would type it.
        op: String,
        /// The kernel's error, with the next step where one is known.
        cause: String,
    },
    /// It could not be asked.
    #[error("{attempt}: {cause}")]
    Unreachable {
        /// What was attempted.
        attempt: &'static str,
        /// How it failed, with the next step.
        cause: String,
    },
    /// No interface fits.
    #[error("no underlay interface: {0}")]
    NoUnderlay(String),
}

/// The host's network stack.
pub trait Kernel: Send + Sync {
    /// Reads everything in scope.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn observe(&self, scope: &Scope) -> impl Future<Output = Result<Observed, KernelError>> + Send;

    /// Carries out operations, given in the order of their ranks: those of one rank side by side, one rank after
    /// the other. One that fails does not stop the rest. Answers in the order asked.
    fn apply(&self, ops: &[Op]) -> impl Future<Output = Vec<Result<(), KernelError>>> + Send;

    /// Waits for the next change of what is in scope. Bursts are coalesced for 10 ms.
    fn changed(&self, scope: &Scope) -> impl Future<Output = Change> + Send;

    /// The host as it is, ours or not; with how `reach` is reached, where one is given.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn facts(&self, reach: Option<IpAddr>) -> impl Future<Output = Result<HostFacts, KernelError>> + Send;

    /// The interface that carries the fabric, chosen as the operator asked. Why a candidate was rejected is logged.
    ///
    /// # Errors
    /// [`KernelError::NoUnderlay`], which says why each candidate was rejected.
    fn underlay(
        &self,
        choice: &UnderlayChoice,
    ) -> impl Future<Output = Result<Underlay, KernelError>> + Send {
        async move {
            let chosen = underlay::choose(&self.facts(choice.can_reach).await?, choice)?;
            for reason in &chosen.rejected {
                tracing::info!(interface = %chosen.underlay.name, %reason, "rejected an underlay candidate");
            }
            Ok(chosen.underlay)
        }
    }

    /// Whether it can make VXLAN devices; the error says why not.
    fn vxlan(&self) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }

    /// The Ethernet addresses that frames were sent to within this time, through the tunnel devices that the last
    /// observation found, and when that was.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn used(&self, _: Duration) -> impl Future<Output = Result<Used, KernelError>> + Send {
        std::future::ready(Ok(Used::new()))
    }

    /// Sends packets to other hosts with each setting of a tunnel's device, which stays as it is, and sees what becomes
    /// of them. Whoever goes on with it need not have this any more. The error says why that cannot be.
    fn trial(&self, _: Bench) -> BoxFuture<'static, Result<Vec<Trial>, String>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Who finishes the checksums of what an existing VXLAN device sends.
    fn checksums_of(&self, link: LinkName) -> impl Future<Output = Option<Checksums>> + Send {
        async move { Some(self.facts(None).await.ok()?.link(link)?.vxlan.as_ref()?.checksums) }
    }

    /// The Ethernet address of an existing link.
    fn mac_of(&self, link: LinkName) -> impl Future<Output = Option<Mac>> + Send {
        async move { self.facts(None).await.ok()?.link(link)?.mac }
    }
}

/// When a frame was last sent to an Ethernet address through a device.
pub type Used = BTreeMap<(LinkName, Mac), Instant>;

/// How to choose the underlay interface: the operator's flags, the families in use, and what is in use already.
#[derive(Debug, Clone, Default)]
pub struct UnderlayChoice {
    /// Names or addresses, tried in order.
    pub names: Vec<String>,
    /// Patterns on addresses and names, tried in order after the names.
    pub patterns: Vec<regex::Regex>,
    /// An address that must be reachable through it, tried last.
    pub can_reach: Option<IpAddr>,
    /// The addresses to publish.
    pub public: PerFamily<IpAddr>,
    /// The families that must have an address.
    pub families: PerFamily<()>,
    /// The interface that carries the fabric already. It stays while it has the addresses used and is asked for.
    pub present: Option<LinkName>,
    /// The addresses that peers know. Of an interface's addresses they come first.
    pub used: PerFamily<IpAddr>,
}
