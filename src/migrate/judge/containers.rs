//! Containers: what flannel's plugin keeps of them, and how the next ones are configured.

use ipnet::IpNet;

use crate::migrate::{About, Finding, Seen};

/// How many names a line has.
const SHOWN: usize = 5;

/// What is found of containers.
pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let mut all = Vec::new();
    all.extend(seen.cni.odd.iter().map(|(path, why)| {
        let next = "mend or remove the file; a container kept in it gives no address back";
        Finding::note(About::Cni, format!("{} cannot be used: {why}", path.display()), next)
    }));
    all.push(networks(seen));
    all.extend(files(seen));
    all.push(kept(seen));
    all.extend(elsewhere(seen));
    if !seen.cni.lost.is_empty() {
        let cause =
            format!("addresses are taken by containers that no plugin knows: {}", listed(&seen.cni.lost));
        all.push(Finding::note(About::Cni, cause, "twill-cni releases them when the runtime calls GC"));
    }
    all
}

fn networks(seen: &Seen) -> Finding {
    let names: Vec<String> = seen.cni.networks.iter().map(|network| network.name.clone()).collect();
    if names.is_empty() {
        let next =
            "nothing, if containers are configured otherwise, from subnet.env; else check --cni-conf-dir";
        return Finding::note(About::Cni, "no network of flannel's plugin is configured", next);
    }
    Finding::ok(About::Cni, format!("networks of flannel's plugin: {}", listed(&names)))
}

/// Networks whose plugin reads another file than the agent would write.
fn files(seen: &Seen) -> Vec<Finding> {
    let Ok(config) = &seen.config else { return Vec::new() };
    let other = seen.cni.networks.iter().filter(|network| network.subnet_file != config.subnet_file);
    let finding = |network: &crate::migrate::cni::Network| {
        let (file, read) = (network.file.display(), network.subnet_file.display());
        let cause =
            format!("{file} reads {read}, and the agent would write {}", config.subnet_file.display());
        Finding::note(About::Cni, cause, "nothing, if another agent writes that; else set --subnet-file")
    };
    other.map(finding).collect()
}

fn kept(seen: &Seen) -> Finding {
    let count = seen.cni.containers.len();
    Finding::ok(
        About::Containers,
        format!("{count} kept by flannel's plugin; twill-cni deletes them the same"),
    )
}

/// Containers whose addresses are of another subnet than this host's.
fn elsewhere(seen: &Seen) -> Option<Finding> {
    let Some(Ok(preview)) = &seen.preview else { return None };
    let own: Vec<IpNet> = preview.subnets.iter().map(|(_, net)| *net).collect();
    let stray = |nets: &[IpNet]| nets.iter().any(|net| !own.contains(net));
    let names: Vec<String> =
        seen.cni.containers.iter().filter(|(_, nets)| stray(nets)).map(|(name, _)| name.clone()).collect();
    (!names.is_empty()).then(|| {
        let cause = format!("kept with addresses of another subnet than this host's: {}", listed(&names));
        Finding::note(
            About::Containers,
            cause,
            "restart those that still run; they are reached from this host only",
        )
    })
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
