//! What a command line asks for.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use uuid::Uuid;

use super::generate::CompletionShell;
use crate::config::{BenchConfig, BundleConfig, Config, DemoConfig, DoctorConfig, MigrateConfig, Site};
use crate::views::peers::Order;

/// What a command line asks for.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one value per process")]
pub enum Command {
    /// Run the daemon.
    Agent(Config),
    /// Print the operations the agent would do.
    Plan(Config),
    /// Compare the host with its leases.
    Verify {
        /// Whose.
        config: Config,
        /// Whether flags of the agent were given: else those of the running agent count.
        typed: bool,
        /// All hosts, else this one.
        fabric: Option<Fabric>,
        /// One JSON object, else text.
        json: bool,
    },
    /// Name the hops between two addresses.
    Trace {
        /// Which host's.
        config: Config,
        /// Whether flags of the agent were given: else those of the running agent count.
        typed: bool,
        /// Where packets come from.
        src: IpAddr,
        /// Where they go.
        dst: IpAddr,
        /// Where other hosts' agents serve HTTP; `None`: where this host's does.
        port: Option<u16>,
        /// One JSON object, else text.
        json: bool,
    },
    /// Remove what is ours.
    Cleanup {
        /// Which agent's.
        config: Config,
        /// Firewall rules only.
        firewall_only: bool,
    },
    /// Ask the running agent how it is.
    Status {
        /// Whose socket.
        site: Site,
        /// One JSON object, else text.
        json: bool,
        /// All hosts, else this one.
        fabric: Option<Fabric>,
    },
    /// Show the running agent live.
    Watch {
        /// Whose socket.
        site: Site,
    },
    /// List the peers of the running agent.
    Peers {
        /// Whose socket.
        site: Site,
        /// What comes first.
        order: Order,
        /// One JSON object, else text.
        json: bool,
    },
    /// Check a network config and write it.
    ConfigSet {
        /// Which store.
        site: Site,
        /// As typed, not checked.
        json: String,
    },
    /// Print the network config.
    ConfigGet {
        /// Which store.
        site: Site,
    },
    /// List leases and reservations.
    LeaseList {
        /// Which store.
        site: Site,
        /// One JSON object per lease, else a table.
        json: bool,
    },
    /// Make a reservation; at least one subnet is given.
    LeaseReserve {
        /// Which store.
        site: Site,
        /// Its IPv4 subnet, without host bits.
        v4: Option<Ipv4Net>,
        /// Its IPv6 subnet, without host bits.
        v6: Option<Ipv6Net>,
        /// Who it is for.
        owner: Owner,
    },
    /// Give a lease back.
    LeaseRelease {
        /// Which store; its socket is that of the agent to ask.
        site: Site,
        /// Which lease.
        which: Release,
    },
    /// Say whether this host can be taken over from flanneld.
    MigrateCheck(MigrateConfig),
    /// Say what is wrong with this host.
    Doctor {
        /// Where to look.
        config: DoctorConfig,
        /// Whether flags of the agent were typed, and not only which fabric is meant.
        typed: bool,
        /// One JSON object, else text.
        json: bool,
    },
    /// Make an archive for a bug report.
    Bundle {
        /// Where to look, and where it goes.
        config: BundleConfig,
        /// Whether flags of the agent were given: else those of the running agent count.
        typed: bool,
    },
    /// Say what a code means.
    Explain {
        /// Which, as typed; `None` is all of them.
        code: Option<String>,
        /// One JSON object per code, else text.
        json: bool,
    },
    /// Build a fabric on this machine and test it.
    Demo(DemoConfig),
    /// Compare ways of carrying packets on this machine.
    Bench(BenchConfig),
    /// Make what a package has beside the program.
    Generate(Generate),
    /// Print the version.
    Version,
}

/// All hosts of a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fabric {
    /// Where their agents serve HTTP; `None`: where this host's does.
    pub port: Option<u16>,
}

/// What to make of the definition of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Generate {
    /// The completions of a shell, on stdout.
    Completions(CompletionShell),
    /// Manual pages.
    Man {
        /// The folder they are written into.
        dir: PathBuf,
    },
}

/// Who a reservation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The node with this id.
    Node(Uuid),
    /// The node that publishes this address.
    PublicIp(IpAddr),
}

/// Which lease to give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// The one with this key, not checked.
    Key(String),
    /// The one this host holds.
    Own,
}
