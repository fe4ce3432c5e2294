//! `twill doctor`: looks at this host and at the store, and says what is wrong. Nothing is written.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use twill_backends::backend::from_config;
use twill_backends::family::Family;
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::Subnets;
use twill_backends::network::NetworkConfig;
use twill_backends::udp;
use twill_backends::vxlan::DEFAULT_PORT;

use super::preview::survey;
use super::{Failure, running, with_store};
use crate::agent::identity::Identity;
use crate::agent::memory::Memory;
use crate::agent::preview::Preview;
use crate::agent::privilege::may_change_network;
use crate::agent::socket::{Ask, ask};
use crate::agent::status::Status;
use crate::agent::{AgentError, underlay_choice};
use crate::cli::{Exit, Stream};
use crate::cni::fabric::Fabric as Env;
use crate::config::{Config, DoctorConfig};
use crate::doctor::facts::{self, Fabric, Facts, Refused, Store};
use crate::doctor::{Report, checks, look};
use crate::filter;
use crate::kernel::netlink::Netlink;
use crate::kernel::{Kernel, Scope};
use crate::migrate::cni;
use crate::store::{Entry, LeaseAdmin, StoreError};

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the store may take: an etcd member that is switched off costs a second, one that is frozen three.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// Examines this host. Exit 0 if nothing is wrong, 1 for warnings, 2 if something is broken.
pub(super) async fn run(config: DoctorConfig, typed: bool, json: bool) -> Result<Exit, Failure> {
    let config = DoctorConfig { agent: running::or_typed(typed, config.agent), ..config };
    let report = Report::of(checks::examine(&gather(&config).await?));
    let text = if json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
    Ok(Exit { text, stream: Stream::Stdout, code: report.exit() })
}

/// Looks at everything.
pub(super) async fn gather(config: &DoctorConfig) -> Result<Facts, Failure> {
    let site = &config.agent.site;
    let kernel = Netlink::open()?;
    // The agent last: what it found out while the store kept silent counts.
    let store = store(&config.agent).await;
    let agent = agent(config).await;
    let memory = Memory::load(&site.state_dir().join("snapshot.json")).ok().flatten();
    let fabric = fabric(&config.agent, &agent, &store, memory.as_ref(), &kernel).await;
    let ahead = ahead(&config.agent, &agent, &store);
    let instance = site.instance();
    let (host, firewall, synchronized, ahead) =
        tokio::join!(kernel.facts(None), filter::look::look(&instance), look::synchronized(), ahead);
    let cni = cni::read(&config.cni);
    let devices: Vec<_> = fabric.tunnels.iter().copied().chain(fabric.underlay).collect();
    let wants_vxlan = fabric.network.as_ref().is_some_and(|network| kind(network) == "vxlan");
    let state = site.state_dir();
    let written = fs::metadata(state.join("snapshot.json")).and_then(|file| file.modified()).ok();
    Ok(Facts {
        now: SystemTime::now(),
        privileged: may_change_network().is_ok(),
        host: host?,
        ahead,
        no_vxlan: if wants_vxlan { kernel.vxlan().await.err() } else { None },
        settings: look::settings(&devices),
        udp: look::udp(),
        sockets: fabric.vxlan.map(|(_, port)| look::sockets(&config.proc, port)).unwrap_or_default(),
        programs: look::programs(&config.proc),
        told: look::told(&config.root),
        firewall: firewall.map_err(|error| error.to_string()),
        env: Env::find(&config.agent.subnet_file),
        env_path: config.agent.subnet_file.clone(),
        folders: folders(&config.agent),
        snapshot: written,
        synchronized,
        missing: look::missing(&cni, &config.cni_bin_dir),
        cni,
        agent,
        store,
        fabric,
    })
}

async fn agent(config: &DoctorConfig) -> facts::Agent {
    match timeout(PATIENCE, ask(&config.agent.site.socket(), Ask::Status)).await {
        Err(_) => facts::Agent::Silent(PATIENCE),
        Ok(Err(error)) => facts::Agent::Absent(error.to_string()),
        Ok(Ok(answer)) => match serde_json::from_value::<Status>(answer) {
            Ok(status) => facts::Agent::Answers(Box::new(status)),
            Err(error) => facts::Agent::Absent(format!("what answers is no agent of this version: {error}")),
        },
    }
}

async fn store(config: &Config) -> Store {
    let place = config.site.store.to_string();
    let silent =
        || Fault::new(Code::StoreDown, &place, format!("no answer within {} s", STORE_PATIENCE.as_secs()));
    let asked = with_store!(&config.site.store, |store| {
        timeout(STORE_PATIENCE, async { tokio::join!(store.config_text(), store.entries()) }).await
    });
    let Ok((text, entries)) = asked else {
        return Store { network: Err(silent()), entries: Err(silent()) };
    };
    let network = text.map_err(|error| fault(&place, &error)).and_then(|text| NetworkConfig::parse(&text));
    Store { network, entries: entries.map_err(|error| fault(&place, &error)) }
}

/// A store's error under its code, as far as the agent has a fault of that name.
fn fault(place: &str, error: &StoreError) -> Fault {
    let code = match error {
        StoreError::NoConfig { .. } => Code::NoConfig,
        StoreError::BadConfig(fault) => return fault.clone(),
        StoreError::Unavailable { .. }
        | StoreError::Refused { .. }
        | StoreError::Claim(_)
        | StoreError::Lost { .. } => Code::StoreDown,
    };
    Fault::new(code, place, error.to_string())
}

/// What this host is to be: the agent knows best, then the store, then what the last run left.
async fn fabric(
    config: &Config,
    agent: &facts::Agent,
    store: &Store,
    memory: Option<&Memory>,
    kernel: &Netlink,
) -> Fabric {
    let network = store.network.clone().ok().or_else(|| memory.map(|memory| memory.config.clone()));
    let state = config.site.state_dir();
    let node = state.join("node.json").exists().then(|| Identity::peek(&state).node.to_string());
    let status = match agent {
        facts::Agent::Answers(status) => Some(&**status),
        facts::Agent::Silent(_) | facts::Agent::Absent(_) => None,
    };
    let own = match &store.entries {
        Ok(entries) => own(status, entries, node.as_deref()),
        Err(_) => own(status, &[], None)
            .or_else(|| memory.and_then(|memory| memory.own.as_ref()).map(|lease| lease.subnets)),
    };
    let own = own.unwrap_or_default();
    let underlay = match (status.and_then(|status| status.underlay.as_ref()), &network) {
        (Some(underlay), _) => underlay.interface.as_str().try_into().ok(),
        (None, Some(network)) => {
            let chosen = kernel.underlay(&underlay_choice(&config.interface, network)).await;
            chosen.ok().map(|underlay| underlay.name)
        }
        (None, None) => None,
    };
    let backend = network.as_ref().and_then(|network| from_config(network).ok());
    let links = backend.map(|backend| backend.links()).unwrap_or_default();
    let tunnels: Vec<_> = links.iter().map(|(_, link)| *link).collect();
    let scope = Scope {
        underlay,
        flanneld_ran: memory.is_none(),
        ..Scope::bare(&config.site.instance(), tunnels.iter().copied(), network.as_ref(), &own)
    };
    let vxlan = network.as_ref().filter(|_| !tunnels.is_empty()).and_then(vxlan);
    Fabric { network, node, own, tunnels, vxlan, underlay, scope }
}

fn own(status: Option<&Status>, entries: &[Entry], node: Option<&str>) -> Option<Subnets> {
    let told = status.and_then(|status| status.lease.as_ref()).map(|lease| {
        let mut subnets = Subnets::default();
        for net in lease.subnets.iter().filter_map(|net| net.parse::<ipnet::IpNet>().ok()) {
            subnets.set(Family::of_net(&net), Some(net));
        }
        subnets
    });
    let mine = |entry: &&Entry| {
        let lease = entry.lease.as_ref().ok();
        lease.is_some_and(|lease| node.is_some() && lease.attrs.node_id.as_deref() == node)
    };
    told.or_else(|| entries.iter().find(mine)?.lease.as_ref().ok().map(|lease| lease.subnets))
}

fn kind(network: &NetworkConfig) -> String {
    network.options().kind().unwrap_or_default()
}

/// The VNI and the port of the tunnel's devices.
fn vxlan(network: &NetworkConfig) -> Option<(u32, u16)> {
    let port = if kind(network) == "udp" { udp::PORT } else { DEFAULT_PORT };
    Some((network.options().uint("VNI", 1).ok()?, network.options().uint("Port", port).ok()?))
}

/// What an agent would do, where none runs and the store says for what.
async fn ahead(config: &Config, agent: &facts::Agent, store: &Store) -> Option<Result<Preview, Refused>> {
    let alone = matches!(agent, facts::Agent::Absent(_));
    if !alone || store.network.is_err() || store.entries.is_err() {
        return None;
    }
    let previewed = survey(config).await.map(|survey| Preview::from(&survey));
    Some(previewed.map_err(|error| match error.downcast_ref::<AgentError>() {
        Some(AgentError::Preflight(refusals)) => Refused::Faults(refusals.clone()),
        Some(AgentError::Refused(fault)) => Refused::Faults(vec![fault.clone()]),
        Some(AgentError::TakeOver(_)) | None => Refused::Error(crate::chain(&*error)),
    }))
}

fn folders(config: &Config) -> Vec<facts::Folder> {
    let (state, run) = (config.site.state_dir(), config.site.run_dir());
    let env = config.subnet_file.parent().unwrap_or(Path::new("/"));
    let mut folders: Vec<_> = [state.as_path(), run.as_path(), env].into_iter().map(look::folder).collect();
    folders.dedup();
    folders
}
