//! What a finding about a host that runs flanneld is about.

use twill_backends::codes;

codes! {
    /// What a finding of `twill migrate check` is about.
    pub enum About {
        Flanneld: Warning "flanneld",
            "Migration: which flanneld runs on this host, and of which fabric.",
            "Two agents of one fabric would write one lease.",
            "stop flanneld right before Twill starts";
        Agent: Warning "agent",
            "Migration: an agent of this fabric runs already.",
            "Nothing: what is said is what a restart of it would do.",
            "twill status";
        Privilege: Warning "privilege",
            "Migration: the check may not see everything.",
            "What it does not see, it does not warn of.",
            "run it as root";
        Flags: Broken "flags",
            "Migration: what becomes of flanneld's flags.",
            "With a flag that Twill refuses, an agent does not start; without one that is left out, something is lost.",
            "change the flag as the finding says";
        Store: Broken "store",
            "Migration: whether the fabric's configuration can be read.",
            "Without it an agent waits, and takes over nothing.",
            "give flanneld's flags after --, the prefix above all";
        Network: Broken "network",
            "Migration: whether the network's backend is one that Twill carries.",
            "Hosts of another backend do not understand each other while they move one by one.",
            "keep flanneld, or give all hosts a vxlan or host-gw backend at once";
        Start: Broken "start",
            "Migration: why an agent would not start here.",
            "Packets flow on, and nobody follows changes.",
            "remove what is in the way, then check again";
        Lease: Broken "lease",
            "Migration: whether this host's lease, and with it the subnet, stays.",
            "With another subnet, containers that run could not be reached.",
            "make the address, the prefix and the flags those that flanneld started with";
        Fabric: Broken "fabric",
            "Migration: leases of other hosts that Twill passes over or takes otherwise than flanneld.",
            "Containers of those hosts would not be reached from here.",
            "see to the lease named: twill lease list";
        Device: Broken "device",
            "Migration: whether the tunnel's device is taken over as it is.",
            "A device that is made anew loses packets, and peers that know its Ethernet address.",
            "make the configuration that which flanneld started with";
        Routes: Broken "routes",
            "Migration: whether the routes to peers are taken over as they are.",
            "Containers behind a route that goes are not reached.",
            "see to the leases named";
        Firewall: Warning "firewall",
            "Migration: which rules are replaced.",
            "Nothing: each is replaced in one transaction.",
            "nothing";
        SubnetEnv: Broken "subnet.env",
            "Migration: whether subnet.env says what Twill would write.",
            "Containers that come would be configured otherwise than those that run.",
            "see the finding: --ip-masq, --subnet-file and the Network are what flanneld started with";
        Cni: Warning "cni",
            "Migration: the CNI networks and files that flannel's plugin has on this host.",
            "A file that cannot be used may keep an address for ever.",
            "mend or remove the file named";
        Containers: Broken "containers",
            "Migration: containers that run, and whether their addresses stay this host's.",
            "Those with addresses of another subnet would not be reached.",
            "keep the subnet they have, or start them anew";
    }
}
