//! Others on this host who change the network.

use twill_backends::fault::{Code, Fault};

use super::agent::of_fault;
use crate::catalogue::refusal::Refusal;
use crate::doctor::Finding;
use crate::doctor::facts::Facts;
use crate::doctor::sign::Sign;

/// Network managers: the name of the program as the kernel keeps it, and what keeps it off our devices.
pub(in crate::doctor) const MANAGERS: [(&str, &str); 3] = [
    (
        "NetworkManager",
        "put manifests/networkmanager/twill.conf into /etc/NetworkManager/conf.d, then: nmcli general reload",
    ),
    (
        "systemd-network",
        "put manifests/networkd/10-twill.network into /etc/systemd/network, then: networkctl reload",
    ),
    ("dhcpcd", "add to /etc/dhcpcd.conf: denyinterfaces flannel* cni0 veth*, then: dhcpcd -n"),
];

/// Whether managers leave the fabric's devices alone.
pub(super) fn managers(facts: &Facts) -> Vec<Finding> {
    if facts.fabric.tunnels.is_empty() {
        return Vec::new();
    }
    let running = MANAGERS.iter().filter_map(|(name, next)| {
        let program = facts.programs.iter().find(|program| program.name == *name)?;
        let found = format!("it runs (pid {}), and its configuration does not name flannel*", program.pid);
        let finding = Finding::new(Sign::Managed.entry(), *name, found).next(*next);
        (!facts.told.contains(name)).then_some(finding)
    });
    running.collect()
}

/// Whether flanneld runs beside.
pub(super) fn flanneld(facts: &Facts) -> Vec<Finding> {
    let agent = facts.status().map(|status| status.pid);
    let other =
        facts.programs.iter().find(|program| program.name == "flanneld" && Some(program.pid) != agent);
    other
        .map(|program| {
            Finding::new(Refusal::FlanneldRuns.entry(), "flanneld", format!("pid {}", program.pid))
        })
        .into_iter()
        .collect()
}

/// Whether the firewall lets the fabric's packets pass, and is one.
pub(super) fn firewall(facts: &Facts) -> Vec<Finding> {
    let firewall = match &facts.firewall {
        Ok(firewall) => firewall,
        Err(_) if !facts.privileged => return Vec::new(),
        Err(why) => return vec![Finding::new(Code::FirewallFailed.entry(), "firewall", why)],
    };
    let mut findings = Vec::new();
    // Where flanneld's chains are, they accept in the chain that drops what is left.
    if facts.fabric.network.is_some() && !firewall.chains {
        let drop = firewall.drops.iter().map(|drop| {
            let text = drop.to_string();
            let (cause, next) = text.split_once(": ").unwrap_or((&text, ""));
            of_fault(&Fault::new(Code::ForwardDropped, &drop.chain, cause)).next(next)
        });
        findings.extend(drop.take(1));
    }
    if let (Some(legacy), Some(nft)) = (firewall.legacy.first(), firewall.compat.first()) {
        let found = format!("iptables-legacy: {legacy}; nftables: {nft}");
        findings.push(Finding::new(Sign::IptablesMixed.entry(), "iptables", found));
    }
    findings
}
