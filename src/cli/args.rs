//! What was typed, as clap understands it. Names and types only: help, defaults and variables come from
//! [`super::table`].

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use ipnet::IpNet;
use uuid::Uuid;

use super::bench::BenchArgs;
use super::bundle::BundleArgs;
use super::demo::DemoArgs;
use super::doctor::DoctorArgs;
use super::generate::CompletionShell;
use super::go;
use super::looks::{PeersArgs, StatusArgs, TraceArgs, VerifyArgs};
use super::migrate::MigrateVerb;
use crate::config::Secret;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "twill", version, propagate_version = true, disable_help_subcommand = true)]
#[command(about = "A self-healing VXLAN overlay fabric for containers")]
// Of a flag given twice the last one counts, as in Go; wrappers append theirs.
#[command(args_override_self = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one value per process")]
pub(super) enum Verb {
    /// Run the daemon that keeps this host in the fabric
    Agent(AgentArgs),
    /// Print what the agent would change on this host, and why, without changing it
    Plan(AgentArgs),
    /// Compare this host's kernel and firewall with what every lease wants of them
    Verify(VerifyArgs),
    /// Name the hops a packet takes between two addresses of the fabric, and where it stops
    Trace(TraceArgs),
    /// Remove from this host every object of ours
    Cleanup {
        #[command(flatten)]
        agent: AgentArgs,
        /// Remove firewall rules only; the fabric stays up
        #[arg(long)]
        firewall_only: bool,
    },
    /// Show node, store, lease, peers and faults of the running agent
    Status(StatusArgs),
    /// Show state, peers and repairs of the running agent, live
    Watch {
        #[command(flatten)]
        site: SiteArgs,
    },
    /// List the other hosts and how they are reached, the worst first
    Peers(PeersArgs),
    /// Read or write the network config in the store
    #[command(subcommand)]
    Config(ConfigVerb),
    /// List, reserve or release leases
    #[command(subcommand)]
    Lease(LeaseVerb),
    /// Move a host from flanneld to Twill
    #[command(subcommand)]
    Migrate(MigrateVerb),
    /// Look at this host and its store, and say what is wrong and how to mend it; exit 0 nothing, 1 warnings, 2 broken
    Doctor(DoctorArgs),
    /// Write one archive for a bug report: what can be known of this host's fabric, secrets removed
    Bundle(BundleArgs),
    /// Say what a code means, what it breaks and what to do; without a code, list all
    Explain {
        /// As `twill status`, `twill doctor` or an error prints it
        code: Option<String>,
        /// Print one JSON object per code
        #[arg(long)]
        json: bool,
    },
    /// Build a fabric of several hosts on this machine and test it
    Demo(DemoArgs),
    /// Compare ways of carrying packets on this machine
    Bench(BenchArgs),
    /// Make what a package has beside the program
    #[command(subcommand, hide = true)]
    Generate(GenerateVerb),
    /// Print the version
    Version,
}

/// What packages have beside the program.
#[derive(Debug, Subcommand)]
pub(super) enum GenerateVerb {
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: CompletionShell,
    },
    /// Write manual pages
    Man {
        /// The folder, which is there already
        dir: PathBuf,
    },
}

/// What to do with the network config.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Check a network config and write it
    Set {
        #[command(flatten)]
        site: SiteArgs,
        /// For example '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'
        #[arg(value_name = "JSON")]
        json: String,
    },
    /// Print the network config
    Get {
        #[command(flatten)]
        site: SiteArgs,
    },
}

/// What to do with leases.
#[derive(Debug, Subcommand)]
pub(super) enum LeaseVerb {
    /// List leases and reservations
    List {
        #[command(flatten)]
        site: SiteArgs,
        /// Print one JSON object per lease
        #[arg(long)]
        json: bool,
    },
    /// Keep a subnet for one node, for ever
    Reserve {
        #[command(flatten)]
        site: SiteArgs,
        /// One subnet, or one of each family for a dual-stack lease
        #[arg(value_name = "SUBNET", required = true, num_args = 1..)]
        subnets: Vec<IpNet>,
        #[command(flatten)]
        owner: OwnerArgs,
    },
    /// Give a lease back
    Release {
        #[command(flatten)]
        site: SiteArgs,
        #[command(flatten)]
        lease: ReleaseArgs,
    },
}

/// Who a reservation is for.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct OwnerArgs {
    /// The node with this id (see `twill status`)
    #[arg(long, value_name = "ID")]
    pub(super) node: Option<Uuid>,
    /// The node that tells its peers this address
    #[arg(long = "public-ip", value_name = "IP", id = "owner_ip")]
    pub(super) public_ip: Option<std::net::IpAddr>,
}

/// Which lease.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct ReleaseArgs {
    /// Its key, as `twill lease list` prints it
    #[arg(value_name = "KEY")]
    pub(super) key: Option<String>,
    /// The one this host holds
    #[arg(long)]
    pub(super) own: bool,
}

/// Which fabric; shared by every command that talks about one.
#[derive(Clone, Debug, Args)]
pub(super) struct SiteArgs {
    #[arg(long)]
    pub(super) store: String,
    #[arg(long)]
    pub(super) etcd_endpoints: String,
    #[arg(long)]
    pub(super) etcd_prefix: String,
    #[arg(long)]
    pub(super) etcd_keyfile: String,
    #[arg(long)]
    pub(super) etcd_certfile: String,
    #[arg(long)]
    pub(super) etcd_cafile: String,
    #[arg(long)]
    pub(super) etcd_username: String,
    #[arg(long)]
    pub(super) etcd_password: Secret,
    #[arg(long)]
    pub(super) state_dir: String,
    #[arg(long)]
    pub(super) run_dir: String,
}

/// Everything the agent can be told. Flags without effect are not here; clap gets them from the table.
#[derive(Clone, Debug, Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    pub(super) site: SiteArgs,
    #[arg(long)]
    pub(super) iface: Vec<String>,
    #[arg(long)]
    pub(super) iface_regex: Vec<String>,
    #[arg(long)]
    pub(super) iface_can_reach: String,
    #[arg(long)]
    pub(super) subnet_file: String,
    #[arg(long)]
    pub(super) public_ip: String,
    #[arg(long)]
    pub(super) public_ipv6: String,
    #[arg(long, value_parser = go::int)]
    pub(super) subnet_lease_renew_margin: i64,
    #[arg(long, action = ArgAction::Set, value_parser = go::boolean)]
    pub(super) ip_masq: bool,
    #[arg(long, action = ArgAction::Set, value_parser = go::boolean)]
    pub(super) ip_masq_fully_random_disable: bool,
    #[arg(long, action = ArgAction::Set, value_parser = go::boolean)]
    pub(super) kube_subnet_mgr: bool,
    #[arg(long)]
    pub(super) healthz_ip: String,
    #[arg(long, value_parser = go::int)]
    pub(super) healthz_port: i64,
    #[arg(long, value_parser = go::int)]
    pub(super) iptables_resync: i64,
    #[arg(long, action = ArgAction::Set, value_parser = go::boolean)]
    pub(super) iptables_forward_rules: bool,
    #[arg(long, action = ArgAction::Set, value_parser = go::boolean)]
    pub(super) ip_blackhole_route: bool,
    #[arg(long, value_parser = go::int)]
    pub(super) v: i64,
    #[arg(long)]
    pub(super) firewall: String,
    #[arg(long)]
    pub(super) datapath: String,
    #[arg(long)]
    pub(super) outer_source_check: String,
    #[arg(long)]
    pub(super) inner_source_check: String,
    #[arg(long)]
    pub(super) checksum_offload: String,
    #[arg(long, value_parser = go::int)]
    pub(super) datapath_queues: i64,
    #[arg(long, value_parser = go::int)]
    pub(super) probe_port: i64,
    #[arg(long, value_parser = go::int)]
    pub(super) ready_peers: i64,
    #[arg(long)]
    pub(super) ui_listen: String,
    #[arg(long)]
    pub(super) confine: String,
    #[arg(long, action = ArgAction::Set, value_parser = go::boolean)]
    pub(super) take_over: bool,
    #[arg(long, action = ArgAction::Set, value_parser = go::boolean)]
    pub(super) force: bool,
    #[arg(long, action = ArgAction::Set, value_parser = go::boolean)]
    pub(super) cleanup_on_exit: bool,
    #[arg(long, value_parser = go::int)]
    pub(super) delete_hold: i64,
}
