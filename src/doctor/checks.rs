//! From facts to findings. Pure: each check looks at one thing.

mod agent;
mod files;
mod kernel;
mod leases;
mod links;
mod others;
use super::Finding;
use super::facts::Facts;

pub(super) use others::MANAGERS;

/// A check.
type Check = fn(&Facts) -> Vec<Finding>;

/// In the order of what depends on what: agent, store, host, containers.
const CHECKS: &[Check] = &[
    agent::answer,
    agent::faults,
    agent::ahead,
    leases::store,
    leases::own,
    leases::twice,
    kernel::forwarding,
    kernel::reverse_path,
    kernel::ipv6,
    kernel::vxlan,
    kernel::bridge_netfilter,
    kernel::conntrack,
    kernel::checksums,
    kernel::offload,
    links::tunnels,
    links::vni,
    links::port,
    links::overlap,
    links::bridge,
    others::managers,
    others::flanneld,
    others::firewall,
    files::subnet_env,
    files::folders,
    files::clock,
    files::cni,
];

/// All that is wrong. What several checks find counts once, as the first of them found it.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for check in CHECKS {
        let known: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
        let more: Vec<Finding> =
            check(facts).into_iter().filter(|finding| !known.contains(&finding.code)).collect();
        findings.extend(more);
    }
    findings
}

#[cfg(test)]
mod tests;
