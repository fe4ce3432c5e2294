//! From what was seen on a host to findings. Pure.

use super::{Finding, Seen, Source};

mod containers;
mod fabric;
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
        let pid = flanneld.pid;
        all.push(Finding::note(
            "flanneld",
            format!("it runs (pid {pid}, prefix {})", flanneld.prefix()),
            "stop it right before Twill starts (systemctl stop flanneld); packets keep flowing",
        ));
        if flanneld.vars.is_none() {
            let cause =
                format!("the environment of the process {pid} may not be read, and may have flags in it");
            all.push(Finding::note("flanneld", cause, "run this command as root"));
        }
    }
    if let (Source::Process(pid), true) = (&seen.source, seen.running.len() > 1) {
        let cause = format!("several run; the flags judged are those of the process {pid}");
        all.push(Finding::note("flanneld", cause, "check each: give the flags of the others after --"));
    }
    if seen.agent {
        let cause = "an agent of this fabric runs already; what follows is what a restart of it would do";
        all.push(Finding::note("agent", cause, "see: twill status"));
    } else if seen.running.is_empty() {
        all.push(Finding::ok("flanneld", "none runs"));
    }
    if !seen.privileged {
        let cause = "without privilege, neither the firewall nor other processes can be read in full";
        all.push(Finding::note("privilege", cause, "run this command as root"));
    }
    all
}

fn flags(seen: &Seen) -> Vec<Finding> {
    let config = match &seen.config {
        Ok(config) => config,
        Err(text) => {
            let (cause, mut next) = split(text, "correct the flag, or leave it out");
            if cause.starts_with(KUBE) {
                next = ALL_AT_ONCE.to_owned();
            }
            return vec![Finding::breaks("flags", cause, next)];
        }
    };
    let ignored = |warning: &String| {
        let next = "nothing, unless you rely on it: it has no effect";
        Finding::note("flags", warning.clone(), next)
    };
    let all: Vec<Finding> = config.site.warnings.iter().map(ignored).collect();
    if all.is_empty() { vec![Finding::ok("flags", "all of them have an effect")] } else { all }
}

#[cfg(test)]
mod tests;
