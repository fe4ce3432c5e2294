//! Complaints as data: what a pure function could not plan, and what to do about it.

use std::fmt;

use serde::Serialize;

/// What kind of complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// A key below the prefix that names no subnet.
    BadLeaseKey,
    /// A lease whose value does not decode.
    BadLeaseValue,
    /// A lease of another backend.
    OtherBackend,
    /// A lease that lacks what the backend needs of it.
    IncompleteLease,
    /// A lease outside the network.
    OutsideNetwork,
    /// A lease that overlaps another one.
    OverlappingLease,
    /// A lease that overlaps this host's own subnet.
    OverlapsOwnSubnet,
    /// Two leases with one tunnel address.
    DuplicateVtep,
    /// Two hosts that announce one public address.
    DuplicateAddress,
    /// Two processes that hold one identity.
    DuplicateIdentity,
    /// Another host holds this host's subnet.
    LeaseLost,
    /// Every subnet is taken.
    PoolExhausted,
    /// The lease held does not fit the network configuration.
    LeaseOutgrown,
    /// A peer that is not on a network of this host, though the backend needs that.
    PeerOffLink,
    /// A route of somebody else that takes precedence over a wanted one.
    ForeignRoute,
    /// A network configuration that cannot be used.
    BadConfig,
    /// There is no network configuration, or not any more.
    NoConfig,
    /// A network configuration that takes effect at the next start.
    RestartToApply,
    /// Deletions that are held back.
    DeletionsHeld,
    /// The store does not answer.
    StoreDown,
    /// A firewall that drops forwarded packets before ours can accept them.
    ForwardDropped,
    /// The firewall could not be brought to the wanted state.
    FirewallFailed,
    /// Who sends to the tunnel's port is not checked as wanted.
    PortUnguarded,
    /// The kernel refused an operation.
    KernelRefused,
    /// The userspace datapath does not carry frames.
    DatapathFailed,
    /// A file could not be written.
    FileFailed,
    /// The underlay interface or its address is missing.
    NoUnderlay,
}

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Fault {
    /// What kind.
    pub code: Code,
    /// What it is about: a lease key, an interface, a file.
    pub subject: String,
    /// The cause, in words.
    pub cause: String,
}

impl Code {
    /// What an operator does about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::BadLeaseKey => "delete the key, or move it out of the prefix",
            Self::BadLeaseValue => "delete the key, or let its host write it again",
            Self::OtherBackend => "give every host the same Backend.Type and restart the host named",
            Self::IncompleteLease => {
                "restart the agent of the host named, so that it publishes its lease again"
            }
            Self::OutsideNetwork => {
                "restart the agent of the host named after its pods are gone, or widen Network"
            }
            Self::OverlappingLease | Self::OverlapsOwnSubnet => {
                "release one of the leases: twill lease release KEY"
            }
            Self::DuplicateVtep => "delete the tunnel device of one of the hosts and restart its agent",
            Self::DuplicateAddress => {
                "give each host an address of its own, or choose one with --iface or --public-ip"
            }
            Self::DuplicateIdentity => {
                "delete the state directory of the host that was cloned and restart its agent"
            }
            Self::LeaseLost => {
                "drain this host's pods, then run: twill lease release --own, and restart the agent"
            }
            Self::PoolExhausted => {
                "release leases of hosts that are gone (twill lease list), or widen Network"
            }
            Self::LeaseOutgrown => {
                "drain this host's pods, then run: twill lease release --own, and restart the agent"
            }
            Self::PeerOffLink => "use the vxlan backend, or put the hosts on one network",
            Self::ForeignRoute => "delete the route printed",
            Self::NoConfig => {
                "twill config set '{\"Network\":\"10.244.0.0/16\",\"Backend\":{\"Type\":\"vxlan\"}}'"
            }
            Self::BadConfig => "correct it: twill config set JSON",
            Self::RestartToApply => "restart the agents, one host after the other",
            Self::DeletionsHeld => {
                "nothing if peers come back; otherwise they go when the hold is over (--delete-hold)"
            }
            Self::StoreDown => "bring the store back; packets flow meanwhile",
            Self::ForwardDropped => "run: iptables -P FORWARD ACCEPT, or start with --firewall iptables",
            Self::FirewallFailed => "see the cause; Twill tries again by itself",
            Self::PortUnguarded => {
                "see the cause; Twill tries again by itself. Or start with --outer-source-check off --inner-source-check off"
            }
            Self::KernelRefused => "see the cause; Twill tries again by itself",
            Self::DatapathFailed => "see the cause; Twill tries again by itself",
            Self::FileFailed => "make the path writable; Twill tries again by itself",
            Self::NoUnderlay => {
                "bring the interface up and give it an address, or choose another with --iface"
            }
        }
    }
}

/// What stands before the next step in the text of an error.
const NEXT: &str = "; next: ";

impl Fault {
    /// A complaint about `subject`. A cause that ends in `; next: …` brings its own next step.
    pub fn new(code: Code, subject: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { code, subject: subject.into(), cause: cause.into() }
    }

    /// The cause alone, and what to do about it: what the cause says, else what is true of all faults of its kind.
    #[must_use]
    pub fn cause_and_next(&self) -> (&str, &str) {
        self.cause.rsplit_once(NEXT).unwrap_or((&self.cause, self.code.remedy()))
    }
}

impl fmt::Display for Code {
    /// The name that is stable, for scripts, such as `bad-lease-key`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        f.pad(name.as_str().unwrap_or_default())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cause, next) = self.cause_and_next();
        write!(f, "{}: {cause}{NEXT}{next}", self.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_next_step_and_the_cause_knows_better() {
        let general = Fault::new(Code::StoreDown, "store", "no answer");
        assert_eq!(
            general.to_string(),
            "store: no answer; next: bring the store back; packets flow meanwhile"
        );
        let own = Fault::new(Code::StoreDown, "store", "no answer; next: check the cable");
        assert_eq!(own.cause_and_next(), ("no answer", "check the cable"));
        assert_eq!(own.to_string(), "store: no answer; next: check the cable");
    }
}
