//! How the kernel's entries differ from what is wanted of them, as codes.

use twill_backends::code::Entry;
use twill_backends::codes;
use twill_backends::diff::Op;
use twill_backends::family::Family;
use twill_backends::state::{Link, NetState};

use super::words;
use crate::doctor::sign::Sign;

codes! {
    /// How something of a host differs from what is wanted of it.
    pub enum Deviation {
        DeviceDiffers: Broken "device-differs",
            "The tunnel's device is there, and not as wanted: another number, port, address or MTU.",
            "Frames are sent, or taken, in a way that the other hosts do not expect; a smaller MTU alone costs large packets.",
            "a running agent sets it right within a second; if it does not: twill status";
        RouteMissing: Broken "route-missing",
            "The route to a peer's pods is not in the kernel.",
            "Packets to the pods of that host are dropped, or leave by the default route.",
            "a running agent makes it within a second; if it does not: twill status";
        RouteDiffers: Broken "route-differs",
            "The route to a peer's pods leads elsewhere, or has other attributes than wanted.",
            "Packets to the pods of that host take another way, or are cut where they need not be.",
            "a running agent sets it right within a second; if it does not, somebody else writes it, too: ip monitor route";
        NeighbourMissing: Broken "neighbour-missing",
            "The kernel does not know the Ethernet address of a peer's tunnel device.",
            "Packets to the pods of that host wait for an answer that never comes, and are dropped.",
            "a running agent makes it within a second; if it does not: twill status";
        NeighbourDiffers: Broken "neighbour-differs",
            "The kernel takes another Ethernet address for that of a peer's tunnel device.",
            "Frames for the pods of that host go to another one, which drops them.",
            "a running agent sets it right within a second; if it does not, somebody else writes it, too: ip monitor neigh";
        FdbMissing: Broken "fdb-missing",
            "The tunnel's device does not know at which host a peer's Ethernet address is.",
            "Frames for the pods of that host are dropped.",
            "a running agent makes it within a second; if it does not: twill status";
        FdbDiffers: Broken "fdb-differs",
            "The tunnel's device takes another host for a peer.",
            "Frames for the pods of that host go to another one, which drops them.",
            "a running agent sets it right within a second; if it does not, somebody else writes it, too: bridge monitor fdb";
        SettingDiffers: Broken "setting-differs",
            "A setting of the kernel is not as the fabric needs it.",
            "What the setting is named for: twill doctor says more of those that matter most.",
            "a running agent sets it right; if it does not, see who sets it: grep -r NAME /etc/sysctl.d";
        Stray: Warning "stray-entry",
            "Something of Twill's is in the kernel that no lease wants.",
            "Packets for a subnet that nobody has go to a host that drops them; nothing else.",
            "a running agent removes it; if it does not, deletions may be held back: twill status";
        FirewallDiffers: Broken "firewall-differs",
            "The firewall's rules are not those that are wanted.",
            "Pods may not reach addresses outside the network, packets between hosts may be dropped, or strangers let in.",
            "a running agent loads them again; if it does not: twill status";
        LeasesDiffer: Broken "leases-differ",
            "The agent of a host knows other leases than the store has.",
            "A host that it does not know is not reached from there; one that is gone keeps its route.",
            "see on that host whether its agent reaches the store: twill status";
        HostSilent: Warning "host-silent",
            "The agent of another host could not be asked over HTTP.",
            "Nothing by itself: what is so on that host is not known.",
            "see whether it runs with --healthz-ip and --healthz-port, and whether a firewall lets this host in";
    }
}

/// How the entry differs that an operation would set right.
pub(super) fn of(op: &Op, want: &NetState, have: &NetState) -> Entry {
    let either = |there: bool, differs: Deviation, missing: Deviation| {
        if there { differs.entry() } else { missing.entry() }
    };
    match op {
        Op::SetLink(name, link) => device(link, have.links.get(name)),
        Op::SetSysctl(path, _) if Family::ALL.iter().any(|family| family.forwarding() == path) => {
            Sign::ForwardingOff.entry()
        }
        Op::SetSysctl(..) => Deviation::SettingDiffers.entry(),
        Op::SetNeigh(key, _) => {
            either(have.neighs.contains_key(key), Deviation::NeighbourDiffers, Deviation::NeighbourMissing)
        }
        Op::SetFdb(entry) => {
            either(words::moved(have, entry).is_some(), Deviation::FdbDiffers, Deviation::FdbMissing)
        }
        Op::SetRoute(key, _) => {
            either(have.routes.contains_key(key), Deviation::RouteDiffers, Deviation::RouteMissing)
        }
        Op::DelFdb(entry) => {
            either(words::moved(want, entry).is_some(), Deviation::FdbDiffers, Deviation::Stray)
        }
        Op::DelRoute(..) | Op::DelNeigh(_) | Op::DelLink(_) => Deviation::Stray.entry(),
    }
}

/// How a tunnel's device differs.
#[must_use]
pub fn device(want: &Link, have: Option<&Link>) -> Entry {
    match have {
        Some(have) if have.up || !want.up => Deviation::DeviceDiffers.entry(),
        Some(_) | None => Sign::TunnelDown.entry(),
    }
}
