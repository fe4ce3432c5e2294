//! What keeps a packet from its way, as codes, where nothing else has a name for it.

use twill_backends::codes;

codes! {
    /// What keeps a packet from its way.
    pub enum Hitch {
        MixedFamilies: Broken "mixed-families",
            "One of two addresses is of IPv4 and the other of IPv6.",
            "No packet can have both.",
            "give two addresses of one family";
        NoHost: Broken "no-host",
            "No host has a lease with an address, though it is in the pod network.",
            "Packets for it are dropped.",
            "see twill lease list; the agent of the host that should have it may not run";
        PodUnattached: Broken "pod-unattached",
            "No device of the host leads to its pods, or it is down.",
            "No packet comes to or from the pods of that host.",
            "start a pod, or see what the CNI plugin says: it makes the bridge from subnet.env";
        NoWay: Broken "no-way",
            "The kernel has no way to the address of another host, or the device that leads there is down.",
            "Nothing reaches that host, and nothing its pods.",
            "bring the underlay up, and give it a route: ip route get shows what the kernel does";
        LeaseOutdated: Broken "lease-outdated",
            "The lease of this host says something else than the host has.",
            "Other hosts send to an address, or to a device, that is not there any more.",
            "see twill status: the agent publishes what changed once the store answers";
        PeerShutOut: Broken "peer-shut-out",
            "What guards the tunnel's port lacks a peer.",
            "Frames from that host are dropped.",
            "see whether the agent runs (twill status); twill verify names every difference";
    }
}
