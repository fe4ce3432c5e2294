//! Why a command does not do what it was asked, where that is no fault of the fabric.

use twill_backends::codes;

codes! {
    /// Why a command gives up.
    pub enum Refusal {
        NoAgent: Broken "no-agent",
            "No agent of this fabric answers on this host.",
            "Packets flow as the kernel was left; nothing follows hosts that come, move or go, and nothing is repaired.",
            "start it: systemctl start twill. If one runs, give this command its --store, --etcd-prefix and --run-dir";
        AgentRefuses: Warning "agent-refuses",
            "The agent does not do what a command asked of it.",
            "Nothing: it goes on as before.",
            "see the cause";
        StoreRefuses: Broken "store-refuses",
            "The store answers, and refuses what was asked: for want of a permission, of space, or by a rule of Twill's.",
            "What was asked is not done; leases that are held go on.",
            "see the cause; it names what to check";
        AgentRuns: Warning "agent-runs",
            "An agent of this fabric runs already.",
            "Nothing: it goes on, and this one ends.",
            "twill agent --take-over, or stop the other first";
        FlanneldRuns: Broken "flanneld-runs",
            "A flanneld runs on this host.",
            "Of one prefix, both would write the same lease; of two, each removes the firewall rules of the other.",
            "stop it: systemctl stop flanneld; packets keep flowing";
        NoLock: Broken "no-lock",
            "The lock of the agent's directory cannot be used.",
            "No agent starts.",
            "make the directory writable, or choose another with --run-dir";
        NoHandOver: Warning "no-hand-over",
            "The agent that runs does not let this one take over.",
            "Nothing: it goes on, and this one ends.",
            "see the cause, or stop it and start this one without --take-over";
        NoPrivilege: Broken "no-privilege",
            "The process may not change, or not see, the host's network.",
            "An agent does not start; a command that only looks does not see everything.",
            "run it as root, or give the unit AmbientCapabilities=CAP_NET_ADMIN";
        NoIdentity: Broken "no-identity",
            "The node id cannot be kept.",
            "No agent starts: after a restart it would be another host.",
            "make the state directory writable, or choose another with --state-dir";
    }
}
