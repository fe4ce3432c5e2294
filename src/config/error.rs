//! What can be wrong with a configuration; each message names the flag and the next step.

use ipnet::IpNet;
use thiserror::Error;
use twill_backends::codes;

codes! {
    /// What kind of mistake a command line has.
    pub enum BadLine {
        Value: Broken "bad-value",
            "The value of a flag or of its variable cannot be worked with.",
            "The command does nothing.",
            "give what the message asks for";
        Subnet: Broken "bad-subnet",
            "The subnets of a reservation do not make one.",
            "Nothing is reserved.",
            "give one subnet of each family, without bits behind its length";
        Owner: Broken "no-owner",
            "A reservation is for nobody.",
            "Nothing is reserved.",
            "give --node ID (see: twill status) or --public-ip IP";
        Endpoint: Broken "bad-endpoint",
            "The place of the store is not one: no endpoint, one that is no URL, or an empty prefix.",
            "The command does nothing.",
            "give --etcd-endpoints http://HOST:PORT or https://HOST:PORT, and a --etcd-prefix";
        Credentials: Broken "credentials-in-url",
            "An endpoint has a user name or a password in it, which would end up in logs.",
            "The command does nothing.",
            "give --etcd-username and TWILL_ETCD_PASSWORD, or a client certificate";
        Certificate: Broken "half-certificate",
            "Of a client certificate and its key one is missing.",
            "The command does nothing.",
            "give both --etcd-certfile and --etcd-keyfile, or neither";
        KubeSubnetMgr: Broken "leases-in-kubernetes",
            "Leases are to be read from Kubernetes, which Twill does not: it keeps them in etcd.",
            "The agent does not start.",
            "start without --kube-subnet-mgr, with --etcd-endpoints, after: twill config set JSON";
    }
}

/// A flag whose value cannot be worked with.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A number outside its range.
    #[error("--{flag} is {value}; give {range}")]
    OutOfRange {
        /// Flag name without dashes.
        flag: &'static str,
        /// As typed.
        value: i64,
        /// The accepted range with its unit.
        range: &'static str,
    },
    /// Not an address of the right family.
    #[error("--{flag} is `{value}`; give {expected}")]
    Address {
        /// Flag name without dashes.
        flag: &'static str,
        /// As typed.
        value: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// An `--iface-regex` that is not a regular expression.
    #[error("--iface-regex `{pattern}` is not a regular expression; correct or quote it: {source}")]
    Pattern {
        /// As typed.
        pattern: String,
        /// What the parser says.
        source: regex::Error,
    },
    /// Not a word out of a short list.
    #[error("--{flag} is `{value}`; give one of: {expected}")]
    Word {
        /// Flag name without dashes.
        flag: &'static str,
        /// As typed.
        value: String,
        /// The words that would do.
        expected: &'static str,
    },
    /// A path that has to be given in full.
    #[error("--{flag} is `{value}`; give an absolute path")]
    Path {
        /// Flag name without dashes.
        flag: &'static str,
        /// As typed.
        value: String,
    },
    /// A path that has to name a file.
    #[error("--{flag} is `{value}`; give the path of a file")]
    File {
        /// Flag name without dashes.
        flag: &'static str,
        /// As typed.
        value: String,
    },
    /// A subnet to reserve with bits set behind its length.
    #[error("{subnet} is not a subnet; the one it lies in is {network}")]
    HostBits {
        /// As typed.
        subnet: IpNet,
        /// Without them.
        network: IpNet,
    },
    /// Two subnets of one family for one reservation.
    #[error("{subnet} is the second subnet of its family; reserve one at a time")]
    TwoSubnets {
        /// The second one.
        subnet: IpNet,
    },
    /// A reservation for nobody.
    #[error("a reservation is for one node; give --node ID (see `twill status`) or --public-ip IP")]
    NoOwner,
    /// An etcd prefix without a name in it.
    #[error("--etcd-prefix is empty; give the key prefix of the fabric, flannel's is /coreos.com/network")]
    NoPrefix,
    /// No endpoint is left after empty ones are dropped.
    #[error("--etcd-endpoints names no endpoint; give a comma list such as http://10.0.0.1:2379")]
    NoEndpoints,
    /// An endpoint of another scheme, or without a host.
    #[error("--etcd-endpoints has `{endpoint}`; give http://HOST:PORT or https://HOST:PORT")]
    Endpoint {
        /// As typed.
        endpoint: String,
    },
    /// An endpoint with credentials in it, which would end up in logs. They are not repeated here.
    #[error(
        "--etcd-endpoints has a user name or password before `@{host}`; give --etcd-username and --etcd-password"
    )]
    Credentials {
        /// What follows the credentials.
        host: String,
    },
    /// Half of a client certificate.
    #[error("--{given} is set but --{missing} is not; give both, or neither (--etcd-cafile works alone)")]
    HalfCertificate {
        /// The flag that was given.
        given: &'static str,
        /// The flag that is missing.
        missing: &'static str,
    },
    /// A mode that needs the Kubernetes API.
    #[error(
        "--kube-subnet-mgr: Twill does not read leases from Kubernetes, it keeps them in etcd; \
         next: start without this flag, with --etcd-endpoints, after: etcdctl put {prefix}/config {config}"
    )]
    KubeSubnetMgr {
        /// The etcd prefix in force.
        prefix: String,
        /// A network config that works, quoted for a shell.
        config: &'static str,
    },
}

impl ConfigError {
    /// What kind of mistake it is.
    #[must_use]
    pub const fn code(&self) -> BadLine {
        match self {
            Self::OutOfRange { .. }
            | Self::Address { .. }
            | Self::Pattern { .. }
            | Self::Word { .. }
            | Self::Path { .. }
            | Self::File { .. } => BadLine::Value,
            Self::HostBits { .. } | Self::TwoSubnets { .. } => BadLine::Subnet,
            Self::NoOwner => BadLine::Owner,
            Self::NoPrefix | Self::NoEndpoints | Self::Endpoint { .. } => BadLine::Endpoint,
            Self::Credentials { .. } => BadLine::Credentials,
            Self::HalfCertificate { .. } => BadLine::Certificate,
            Self::KubeSubnetMgr { .. } => BadLine::KubeSubnetMgr,
        }
    }
}
