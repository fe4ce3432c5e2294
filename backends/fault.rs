//! Complaints as data: what a pure function could not plan, and what to do about it.

use std::fmt;

use serde::Serialize;

use crate::codes;

codes! {
    /// What kind of complaint.
    pub enum Code {
        BadLeaseKey: Warning "bad-lease-key",
            "A key below the prefix names no subnet.",
            "Nothing: the key is passed over, and whoever wrote it is not a peer.",
            "delete the key, or move it out of the prefix";
        BadLeaseValue: Warning "bad-lease-value",
            "The value of a lease does not decode.",
            "Pods of the host that wrote it cannot be reached from here, unless an earlier value is still in force.",
            "delete the key, or let its host write it again";
        OtherBackend: Broken "other-backend",
            "A peer's lease is of another backend.",
            "Pods here and pods there cannot reach each other.",
            "give every host the same Backend.Type and restart the host named";
        IncompleteLease: Broken "incomplete-lease",
            "A peer's lease lacks what the backend needs of it: an address, or the tunnel's Ethernet address.",
            "Pods of that host cannot be reached from here.",
            "restart the agent of the host named, so that it publishes its lease again";
        OutsideNetwork: Broken "outside-network",
            "A peer's lease lies outside the network.",
            "Pods of that host cannot be reached from here.",
            "restart the agent of the host named after its pods are gone, or widen Network";
        OverlappingLease: Broken "overlapping-lease",
            "Two leases overlap.",
            "Packets for what is in both go to one of the two hosts, and the other's pods do not get them.",
            "on the host of one of them: twill lease release --own; if that host is gone: twill lease release KEY";
        OverlapsOwnSubnet: Broken "overlaps-own-subnet",
            "A lease overlaps this host's own subnet.",
            "Pods of that host cannot be reached from here: packets stay on this host.",
            "on the host of one of them: twill lease release --own; if that host is gone: twill lease release KEY";
        DuplicateVtep: Broken "duplicate-vtep",
            "Two leases have one tunnel Ethernet address.",
            "Packets for the pods of one of the two go to the other.",
            "delete the tunnel device of one of the hosts and restart its agent";
        DuplicateAddress: Broken "duplicate-address",
            "Two hosts announce one public address.",
            "Packets for the pods of both go to whichever has the address, and the other's are lost.",
            "give each host an address of its own, or choose one with --iface or --public-ip";
        DuplicateIdentity: Broken "duplicate-identity",
            "Two processes hold one node id: a host was cloned with its state directory.",
            "The lease of this host is not renewed any more; packets flow until it expires.",
            "delete the state directory of the host that was cloned and restart its agent";
        LeaseLost: Broken "lease-lost",
            "Another host holds this host's subnet.",
            "Packets for the pods here go to the other host.",
            "drain this host's pods, then run: twill lease release --own, and restart the agent";
        PoolExhausted: Broken "pool-exhausted",
            "Every subnet of the network is leased.",
            "This host gets no lease, so that no pod can start on it.",
            "release leases of hosts that are gone (twill lease list), or widen Network";
        LeaseOutgrown: Warning "lease-outgrown",
            "The lease held does not fit the network configuration.",
            "Peers that go by the configuration may not route to pods here.",
            "drain this host's pods, then run: twill lease release --own, and restart the agent";
        PeerOffLink: Broken "peer-off-link",
            "A peer is not on a network of this host, though host-gw needs that.",
            "Pods of that host cannot be reached from here.",
            "use the vxlan backend, or put the hosts on one network";
        ForeignRoute: Broken "foreign-route",
            "A route of somebody else takes precedence over a wanted one.",
            "Packets for the peer's pods leave by the wrong way.",
            "delete the route printed";
        BadConfig: Broken "bad-config",
            "The network configuration cannot be used.",
            "The last good one stays in force; a host that starts without one does not come up.",
            "correct it: twill config set JSON";
        NoConfig: Broken "no-config",
            "There is no network configuration, or not any more.",
            "The last one stays in force; a host that starts without one does not come up.",
            "twill config set '{\"Network\":\"10.244.0.0/16\",\"Backend\":{\"Type\":\"vxlan\"}}'";
        RestartToApply: Warning "restart-to-apply",
            "The network configuration was changed in a way that takes effect at the next start.",
            "Nothing until hosts differ: those that restart go by the changed one, the others do not.",
            "restart the agents, one host after the other";
        DeletionsHeld: Warning "deletions-held",
            "Many leases vanished at once, or the store was made anew: what they need stays in the kernel.",
            "Nothing: packets flow as before; hosts that are gone for good keep their routes for a while.",
            "nothing if peers come back; otherwise they go when the hold is over (--delete-hold)";
        StoreDown: Warning "store-down",
            "The store does not answer.",
            "Packets flow; hosts that come, move or go are not learned of, and leases are not renewed.",
            "bring the store back; packets flow meanwhile";
        ForwardDropped: Broken "forward-dropped",
            "A firewall drops forwarded packets before Twill's rules can accept them.",
            "No packet passes between the pods here and other hosts.",
            "run: iptables -P FORWARD ACCEPT, or start with --firewall iptables";
        FirewallFailed: Broken "firewall-failed",
            "The firewall could not be brought to the wanted state.",
            "Pods may not reach addresses outside the network, or packets between hosts may be dropped.",
            "see the cause; Twill tries again by itself";
        PortUnguarded: Warning "port-unguarded",
            "Who sends to the tunnel's port is not checked as wanted.",
            "Anybody who reaches the port can put packets onto the pod network.",
            "see the cause; Twill tries again by itself. Or start with --outer-source-check off --inner-source-check off";
        KernelRefused: Broken "kernel-refused",
            "The kernel refused an operation, or does not do what it was told.",
            "What the subject names (a device, a peer's route) does not work.",
            "see the cause; Twill tries again by itself";
        DatapathFailed: Broken "datapath-failed",
            "The userspace datapath does not carry frames.",
            "No packet passes between the pods here and other hosts.",
            "see the cause; Twill tries again by itself";
        FileFailed: Warning "file-failed",
            "A file could not be written.",
            "Without subnet.env no pod can start; without its state a restart needs the store.",
            "make the path writable; Twill tries again by itself";
        NoUnderlay: Broken "no-underlay",
            "The underlay interface or its address is missing.",
            "No packet passes between the pods here and other hosts.",
            "bring the interface up and give it an address, or choose another with --iface";
        NetworkOverlap: Broken "network-overlap",
            "An address, a route or a peer of this host lies in the pod network.",
            "Packets to it go into the fabric, or packets to pods go to it; an agent does not start.",
            "choose another Network, or remove what is in the way; --force starts all the same";
        NetworkCovered: Warning "network-covered",
            "An on-link route of this host covers the pod network.",
            "If there are hosts in that part of it, this host does not reach them any more.",
            "choose a Network outside of it, unless there are none";
        NeighbourTable: Warning "neighbour-table-small",
            "The kernel's neighbour table has no room for all hosts that this one may speak to.",
            "The kernel drops entries in use, and packets with them (`neighbour: arp_cache: neighbor table overflow!`).",
            "raise net.ipv4.neigh.default.gc_thresh3 (net.ipv6 for IPv6) with sysctl -w, and in /etc/sysctl.d";
        PoolLow: Warning "pool-low",
            "More than 80 % of the network's subnets are leased.",
            "Nothing yet; once all are, a host that comes gets none.",
            "release leases of hosts that are gone (twill lease list), or widen Network";
        PeerUnreachable: Broken "peer-unreachable",
            "Nothing comes from a peer: it is down, or cut off, or what it sends is lost.",
            "Pods of that host cannot be reached from here.",
            "look whether the host named is up and reaches this one; one that is gone for good: twill lease release KEY";
        AgentDown: Warning "agent-down",
            "A peer's kernel answers, and its agent does not: it does not run, it hangs, or a firewall drops its probes.",
            "Packets to its pods pass; whatever breaks on that host stays broken, and its lease will expire.",
            "start the agent of the host named: systemctl start twill; if it runs: let UDP pass to its --probe-port";
        OverlayDown: Broken "overlay-down",
            "A peer answers from host to host, and not through the tunnel, and one of the two hosts is not as it should be.",
            "Pods of that host cannot be reached from here.",
            "see what else is wrong on both hosts: twill status";
        UnderlayDown: Warning "underlay-down",
            "A peer answers through the tunnel, and not from host to host at the probes' port.",
            "Packets to its pods pass; how wide the path is cannot be told as well.",
            "let UDP pass between the hosts at --probe-port, or start with --probe-port 0";
        PortEaten: Broken "port-eaten",
            "Two hosts reach each other and are as they should be, and what is sent to the tunnel's port is lost.",
            "Pods of that host cannot be reached from here.",
            "let UDP pass between the hosts at the tunnel's port, in host firewalls and in the network, or choose another Backend.Port";
        OneWay: Broken "one-way",
            "What a peer sends arrives, and what is sent to it does not.",
            "Pods of that host cannot be reached from here, though both hosts look well by themselves.",
            "look for what drops packets in that direction: a firewall, a route, a link that is broken one way";
        PathMtu: Warning "path-mtu",
            "The path to a peer carries less than the devices at its ends take.",
            "Senders are told what passes, so that TCP works; datagrams that are larger are cut or refused.",
            "widen the path, or set Backend.MTU to what passes everywhere";
        OffloadForced: Broken "offload-forced",
            "Checksums inside the tunnel are left to the underlay's device, as it was told, and arrive wrong.",
            "Packets of pods are dropped by the hosts they are sent to: ping may pass, connections do not.",
            "start with --checksum-offload auto; the agent finishes them then";
        ProbeFailed: Warning "probe-failed",
            "Peers cannot be probed, or not be answered.",
            "Packets flow; what the network between hosts does goes unnoticed.",
            "see the cause; Twill tries again by itself. Or choose another port with --probe-port";
    }
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

/// What stands before the next step in the text of an error.
const NEXT: &str = "; next: ";

impl Fault {
    /// The subject of one complaint about many peers, in place of one about each.
    pub const MANY_PEERS: &str = "peers";

    /// A complaint about `subject`. A cause that ends in `; next: …` brings its own next step.
    pub fn new(code: Code, subject: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { code, subject: subject.into(), cause: cause.into() }
    }

    /// The cause alone, and what to do about it: what the cause says, else what is true of all faults of its kind.
    #[must_use]
    pub fn cause_and_next(&self) -> (&str, &str) {
        self.cause.rsplit_once(NEXT).unwrap_or((&self.cause, self.code.entry().next))
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
