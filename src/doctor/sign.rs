//! What the doctor finds by itself, beside what the agent says.

use twill_backends::codes;

codes! {
    /// A sign of something wrong on this host.
    pub enum Sign {
        AgentSilent: Broken "agent-silent",
            "The agent is there and does not answer.",
            "Packets flow as the kernel was left; nothing follows hosts that come, move or go, and nothing is repaired.",
            "look at its log (journalctl -u twill), then: systemctl restart twill; packets keep flowing";
        NotSettled: Warning "not-settled",
            "The agent has not made the kernel as wanted yet.",
            "Pods of some hosts may not be reached from here.",
            "twill status; if it stays so: journalctl -u twill";
        CannotStart: Broken "cannot-start",
            "An agent would not start on this host.",
            "This host does not take part in the fabric.",
            "see the cause";
        KernelDiffers: Broken "kernel-differs",
            "What the fabric needs is not in the kernel, and no agent runs that would put it there.",
            "Pods of the hosts concerned cannot be reached from here, or none at all.",
            "start the agent: systemctl start twill (twill plan prints what it will do)";
        TunnelDown: Broken "tunnel-down",
            "The tunnel's device is missing or down.",
            "No packet passes between the pods here and other hosts.",
            "start the agent, which makes it again: systemctl start twill";
        VniTaken: Broken "vni-taken",
            "Another VXLAN device has the fabric's VNI and port.",
            "The tunnel's device cannot be made, or the frames for it go to the other.",
            "delete the other device, or choose another Backend.VNI or Port";
        PortTaken: Broken "port-taken",
            "Another program has the tunnel's UDP port.",
            "The tunnel's device cannot go up, or its frames end in that program.",
            "stop the program, or choose another Backend.Port";
        ForwardingOff: Broken "forwarding-off",
            "The kernel does not forward packets.",
            "No packet passes between the pods here and other hosts.",
            "switch it on with sysctl -w, and in /etc/sysctl.d, and see who switches it off";
        ReversePath: Warning "rp-filter-strict",
            "The reverse path filter is strict on a device of the fabric.",
            "Packets that come by another way than the one back (several uplinks, DirectRouting, host-gw) are dropped in silence.",
            "make it loose with sysctl -w, and in /etc/sysctl.d";
        Ipv6Off: Broken "ipv6-off",
            "IPv6 is switched off on a device that the fabric needs it on.",
            "No IPv6 packet passes between the pods here and other hosts.",
            "switch it on with sysctl -w, and in /etc/sysctl.d";
        AdvertisementsIgnored: Broken "ra-ignored",
            "The uplink has its way out from router advertisements, which a forwarding host does not take.",
            "When the route expires, this host loses its way to the others.",
            "set accept_ra to 2 with sysctl -w, and in /etc/sysctl.d";
        NoVxlan: Warning "no-vxlan",
            "The kernel has no VXLAN.",
            "Nothing by itself: the agent carries frames, at the price of processor time.",
            "modprobe vxlan, and restart the agent; or choose it for good with --datapath userspace";
        BridgeNetfilter: Warning "bridge-netfilter-off",
            "Bridged packets do not pass iptables, and Kubernetes runs here.",
            "A Service whose pod is on the client's own host does not answer.",
            "modprobe br_netfilter, and sysctl -w net.bridge.bridge-nf-call-iptables=1";
        ConntrackFull: Broken "conntrack-full",
            "The table of connections is full, or nearly.",
            "Packets of new connections are dropped (`nf_conntrack: table full, dropping packet`).",
            "raise net.netfilter.nf_conntrack_max with sysctl -w, and in /etc/sysctl.d";
        Checksums: Warning "bad-checksums",
            "UDP packets come with wrong checksums.",
            "If they are the tunnel's, frames are lost: a network card or a switch spoils them.",
            "on the host that sends: twill status says what its agent found of checksums; ethtool -K DEVICE tx off, of the underlay's device, shows whether that is at fault";
        OffloadSpoilt: Warning "offload-spoilt",
            "Checksums inside the tunnel that are left to the underlay's device arrive wrong; they are finished before.",
            "Nothing but speed: large packets are cut and summed up by the processor, before they are wrapped.",
            "update the driver of the underlay's network card, or the hypervisor; ethtool -i DEVICE says which";
        BridgeAddress: Broken "bridge-address",
            "The containers' bridge has an address of another subnet than the lease.",
            "No container can be started (`cni0 already has an IP address different from`), and answers take the wrong way.",
            "drain this host's pods, then: ip link del cni0; the CNI plugin makes it again";
        BridgeMtu: Warning "bridge-mtu",
            "The containers' bridge takes larger packets than the tunnel.",
            "Connections hang as soon as they send much, where ICMP is filtered.",
            "start the containers anew: their devices take the MTU of subnet.env";
        Managed: Warning "managed-devices",
            "A network manager runs that may change the tunnel's device and the containers' bridge.",
            "It takes their addresses away or gives them new ones, whenever it likes.",
            "tell it to leave them alone; manifests/ has the file (make install puts it in place)";
        IptablesMixed: Warning "iptables-mixed",
            "There are rules of iptables-legacy and of nftables on this host.",
            "Each tool shows half of them, and a packet has to pass both: what one accepts the other may drop.",
            "move all to one: update-alternatives --config iptables, then reboot";
        DuplicateNode: Broken "duplicate-node",
            "Two leases carry one node id: a host was cloned with its state directory.",
            "Each takes the other's lease for its own.",
            "delete the state directory of the clone and restart its agent";
        NoLease: Broken "no-lease",
            "This host has no lease.",
            "No pod can start on it, and none is reached.",
            "twill status says what is waited for";
        NoSubnetEnv: Broken "subnet-env-missing",
            "The file that CNI plugins read is not there.",
            "No container can be started.",
            "start the agent, which writes it; check that its --subnet-file is the plugin's subnetFile";
        OtherSubnetEnv: Broken "subnet-env-differs",
            "The file that CNI plugins read says something else than the lease.",
            "Containers that start get addresses that nobody routes to this host.",
            "start the agent, which writes it again; see who else writes it (another agent, flanneld)";
        CniFile: Warning "cni-file-bad",
            "A file of CNI on this host cannot be used.",
            "A network in it does not work, or an address in it is never given back.",
            "mend or remove the file";
        CniPlugin: Broken "cni-plugin-missing",
            "A CNI plugin that the configuration names is not installed.",
            "No container can be started.",
            "install it: apt-get install containernetworking-plugins, or make install for Twill's";
        StateUnwritable: Warning "state-unwritable",
            "A directory of the agent cannot be written.",
            "Without subnet.env no container starts; without its state a restart needs the store.",
            "make it writable: mount -o remount,rw, or chown; or choose another with --state-dir, --run-dir, --subnet-file";
        DiskFull: Warning "disk-full",
            "A directory of the agent is on a disk that is full.",
            "Without subnet.env no container starts; without its state a restart needs the store.",
            "make room";
        ClockBehind: Warning "clock-behind",
            "The clock went back: files of the agent are from the future.",
            "After a restart without the store the lease is taken for valid longer than it is; certificates may not be valid yet.",
            "set it right: chronyc makestep, or systemctl restart systemd-timesyncd";
        ClockUnsynchronized: Warning "clock-unsynchronized",
            "The clock is not synchronized.",
            "Once it is off by much, certificates are refused and logs of hosts cannot be compared.",
            "timedatectl set-ntp true, or see to the daemon that should: chronyc sources";
    }
}
