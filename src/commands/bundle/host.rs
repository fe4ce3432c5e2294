//! What this host is to be, what it is, and the files that say so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use twill_backends::diff::diff;
use twill_backends::state::NetState;
use uuid::Uuid;

use super::{Found, json, text};
use crate::agent::survey::Survey;
use crate::bundle::{Part, take};
use crate::filter::GUARD_TABLE;
use crate::store::Entry;

/// What is asked of the kernel, whatever is ours.
const COMMANDS: &[(&str, &str)] = &[
    ("kernel/uname.txt", "uname -a"),
    ("kernel/links.txt", "ip -d -s link"),
    ("kernel/addresses.txt", "ip addr"),
    ("kernel/routes-v4.txt", "ip -4 route show table all"),
    ("kernel/routes-v6.txt", "ip -6 route show table all"),
    ("kernel/rules-v4.txt", "ip -4 rule"),
    ("kernel/rules-v6.txt", "ip -6 rule"),
    ("kernel/neighbours.txt", "ip neigh"),
    ("kernel/fdb.txt", "bridge fdb"),
    ("kernel/udp.txt", "ss -u -a -n -p"),
    ("kernel/nft-tables.txt", "nft list tables"),
    ("kernel/modules.txt", "cat /proc/modules"),
];
/// The same of each firewall of the older kind.
const SAVES: [&str; 4] = ["iptables-save", "ip6tables-save", "iptables-legacy-save", "ip6tables-legacy-save"];

/// What the leases want of this host, and what there is, as the commands that would make it.
pub(super) fn state(found: &Found) -> Vec<Part> {
    let survey = found.survey.as_ref();
    let firewall = |survey: &Survey| json!({ "rules": survey.plan.filter(), "senders": survey.plan.guard() });
    let observed = |survey: &Survey| {
        let foreign = survey.observed.foreign.iter();
        foreign.fold(made(&survey.observed.net), |text, route| {
            format!("{text}# of somebody else: {}\n", route.line)
        })
    };
    let store = found.facts.as_ref().map(|facts| &facts.store).map_err(ToString::to_string);
    let network = store.clone().and_then(|store| store.network.as_ref().map_err(ToString::to_string));
    let entries = store.and_then(|store| store.entries.as_ref().map_err(ToString::to_string));
    vec![
        text(
            "state/desired.txt",
            "what the leases want, from nothing",
            survey.map(|survey| made(survey.plan.want())),
        ),
        text("state/observed.txt", "what is ours in the kernel, from nothing", survey.map(observed)),
        json("state/firewall.json", "the firewall as the leases want it", survey.map(firewall).as_ref()),
        json("state/config.json", "the network configuration in the store", network),
        Part::new("state/leases.txt", "the leases in the store", entries.map(|entries| leases(entries))),
    ]
}

fn made(net: &NetState) -> String {
    diff(net, &NetState::default()).iter().fold(String::new(), |text, op| format!("{text}{op}\n"))
}

/// A line for each, its value as it is.
fn leases(entries: &[Entry]) -> String {
    let line = |entry: &Entry| {
        let value = match &entry.lease {
            Ok(lease) => String::from_utf8_lossy(&lease.attrs.encode()).into_owned(),
            Err(fault) => format!("# {fault}"),
        };
        let left =
            entry.expires_in.map_or_else(|| "reserved".to_owned(), |left| format!("{} s", left.as_secs()));
        format!("{}\t{left}\t{value}\n", entry.key)
    };
    entries.iter().map(line).collect()
}

/// What the kernel has.
pub(super) async fn kernel(found: &Found) -> Vec<Part> {
    let mut parts = Vec::new();
    for (name, line) in COMMANDS {
        parts.push(take::command(name, &line.split(' ').collect::<Vec<_>>()).await);
    }
    let instance = found.look.agent.site.instance();
    for (name, table) in
        [("rules", format!("twill-{instance}")), ("guard", format!("{GUARD_TABLE}{instance}"))]
    {
        let words = ["nft", "-a", "list", "table", "inet", &table];
        parts.push(take::command(&format!("kernel/nft-{name}.txt"), &words).await);
    }
    for save in SAVES {
        let saved = take::printed(&[save]).await;
        let source = format!("{save}, what is flanneld's or ours of it");
        parts.push(Part::new(format!("kernel/{save}.txt"), source, saved.map(|saved| take::ours(&saved))));
    }
    let facts = found.facts.as_ref();
    let devices: BTreeSet<String> =
        facts.iter().flat_map(|facts| facts.devices()).map(|device| device.to_string()).collect();
    for device in devices {
        let words = ["ethtool", "-k", &device];
        parts.push(take::command(&format!("kernel/offloads-{device}.txt"), &words).await);
    }
    let settings = facts.map(|facts| {
        facts.settings.iter().fold(String::new(), |text, (path, value)| format!("{text}{path} = {value}\n"))
    });
    parts.push(text("kernel/sysctls.txt", "/proc/sys", settings));
    parts
}

/// The agent's files, and those of CNI plugins.
pub(super) fn files(found: &Found) -> Vec<Part> {
    let config = &found.look.agent;
    let (state, run) = (config.site.state_dir(), config.site.run_dir());
    let mut parts: Vec<Part> = within(&state, |_| true).iter().map(|path| of_state(path)).collect();
    parts.push(take::file("files/subnet.env", &config.subnet_file));
    let conf = &found.look.cni.conf;
    let networks = within(conf, |path| {
        path.extension()
            .is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|known| extension == *known))
    });
    parts.extend(networks.iter().map(|path| take::file(&format!("files/cni/{}", name(path)), path)));
    let cni = found.facts.as_ref().map(|facts| format!("{:#?}\n", facts.cni));
    parts.push(text("files/cni.txt", "networks and containers of flannel's plugin", cni));
    let folders = [state.as_path(), &run, conf, &found.look.cni_bin_dir];
    let listing = Ok::<_, String>(take::listing(&folders));
    parts.push(Part::new("files/listing.txt", "the folders of the agent and of CNI", listing));
    parts.push(take::file("files/os-release", Path::new("/etc/os-release")));
    parts
}

/// A file of the agent's state. One that is a secret is described.
fn of_state(path: &Path) -> Part {
    let name = format!("files/state/{}", name(path));
    if path.extension().is_none_or(|extension| extension != "key") {
        return take::file(&name, path);
    }
    let described = fs::read_to_string(path).map(|text| {
        let form =
            if Uuid::try_parse(text.trim()).is_ok() { "of the right form" } else { "not of the right form" };
        format!("a secret of {} bytes, {form}\n", text.len())
    });
    Part::new(name, path.display().to_string(), described)
}

/// The files of a folder, sorted.
fn within(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.is_file() && wanted(path)).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
