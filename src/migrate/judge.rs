//! From what was seen on a host to findings. Pure.

use super::{About, Finding, Seen, Source};
use crate::config::{Config, StoreConfig};

mod containers;
mod fabric;
mod former;
mod host;

/// How the refusal of leases in Kubernetes begins.
const KUBE: &str = "--kube-subnet-mgr";
/// flannelds that read Node objects do not see leases in etcd, and the other way round.
const ALL_AT_ONCE: &str = "keep flanneld on this cluster; or move all its hosts at once: twill config set, then twill lease \
                           reserve each Node's podCIDR, then start without this flag";

/// All findings: flanneld and its flags, the fabric, the host, its containers.
#[must_use]
pub fn findings(seen: &Seen) -> Vec<Finding> {
    let mut all = processes(seen);
    all.extend(flags(seen));
    all.extend(former::findings(seen));
    all.extend(fabric::findings(seen));
    all.extend(host::findings(seen));
    all.extend(containers::findings(seen));
    all
}

/// Splits an error's text at its next step.
fn split(text: &str, otherwise: &str) -> (String, String) {
    let (cause, next) = text.rsplit_once("; next: ").unwrap_or((text, otherwise));
    (cause.to_owned(), next.to_owned())
}

fn processes(seen: &Seen) -> Vec<Finding> {
    let mut all = Vec::new();
    for flanneld in &seen.running {
        let (pid, prefix) = (flanneld.pid, flanneld.prefix());
        all.push(if seen.config.as_ref().is_ok_and(|config| !is_of(config, &prefix)) {
            let next =
                "move it too: its firewall rules have the same names, and Twill takes them for its own";
            Finding::note(
                About::Flanneld,
                format!("one of another fabric runs (pid {pid}, prefix {prefix})"),
                next,
            )
        } else {
            let next = "stop it right before Twill starts (systemctl stop flanneld); packets keep flowing";
            Finding::note(About::Flanneld, format!("it runs (pid {pid}, prefix {prefix})"), next)
        });
        if flanneld.contained {
            let cause = format!("the process {pid} is in a container: paths in its flags are those in there");
            let next = "give its flags after --, with the paths that its files have on the host";
            all.push(Finding::note(About::Flanneld, cause, next));
        }
        if flanneld.vars.is_none() {
            let cause =
                format!("the environment of the process {pid} may not be read, and may have flags in it");
            all.push(Finding::note(About::Flanneld, cause, "run this command as root"));
        }
    }
    if let (Source::Process(pid), true) = (&seen.source, seen.running.len() > 1) {
        let cause = format!("several run; the flags judged are those of the process {pid}");
        all.push(Finding::note(About::Flanneld, cause, "check each: give the flags of the others after --"));
    }
    if seen.agent {
        let cause = "an agent of this fabric runs already; what follows is what a restart of it would do";
        all.push(Finding::note(About::Agent, cause, "see: twill status"));
    } else if seen.running.is_empty() {
        all.push(Finding::ok(About::Flanneld, "none runs"));
    }
    if !seen.privileged {
        let cause = "without privilege, neither the firewall nor other processes can be read in full";
        all.push(Finding::note(About::Privilege, cause, "run this command as root"));
    }
    all
}

/// Whether a fabric has its keys there.
fn is_of(config: &Config, prefix: &str) -> bool {
    matches!(&config.site.store, StoreConfig::Etcd(etcd) if etcd.prefix == prefix)
}

fn flags(seen: &Seen) -> Vec<Finding> {
    let config = match &seen.config {
        Ok(config) => config,
        Err(text) => {
            let (cause, mut next) = split(text, "correct the flag, or leave it out");
            if cause.starts_with(KUBE) {
                next = ALL_AT_ONCE.to_owned();
            }
            return vec![Finding::breaks(About::Flags, cause, next)];
        }
    };
    let ignored = |warning: &String| {
        let next = "nothing, unless you rely on it: it has no effect";
        Finding::note(About::Flags, warning.clone(), next)
    };
    let all: Vec<Finding> = config.site.warnings.iter().map(ignored).collect();
    if all.is_empty() { vec![Finding::ok(About::Flags, "all of them have an effect")] } else { all }
}

#[cfg(test)]
mod tests;
