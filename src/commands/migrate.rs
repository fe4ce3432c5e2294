//! `twill migrate check`: reads what a host that runs flanneld has, and judges it. Nothing is written.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use twill_backends::backend::from_config;
use twill_backends::network::NetworkConfig;

use super::preview::survey;
use super::{Failure, with_store};
use crate::agent::AgentError;
use crate::agent::flanneld::{self, Flanneld};
use crate::agent::preview::Preview;
use crate::agent::privilege::may_change_network;
use crate::agent::socket::{Ask, ask};
use crate::cli::{Command, Exit, Stream, parse};
use crate::cni::fabric::Fabric;
use crate::config::{Config, MigrateConfig};
use crate::kernel::Kernel;
use crate::kernel::netlink::Netlink;
use crate::migrate::{Device, Report, Seen, Severity, Source, cni, unit};
use crate::store::LeaseAdmin;
use crate::telemetry;

/// A command line of flanneld's, and where it was found.
struct Line {
    source: Source,
    flags: Vec<String>,
    vars: BTreeMap<String, String>,
}

/// Says what would happen on this host. Exit 1 if anything would break.
pub(super) async fn check(check: &MigrateConfig) -> Result<Exit, Failure> {
    telemetry::warnings_to_stderr(0);
    let report = Report::of(&look(check).await?);
    let text = if check.json { report.to_json()? + "\n" } else { report.to_string() };
    let code = u8::from(report.verdict == Severity::Breaks);
    Ok(Exit { text, stream: Stream::Stdout, code })
}

async fn look(check: &MigrateConfig) -> Result<Seen, Failure> {
    let mut running = flanneld::running(&check.proc);
    let line = line(check, &running)?;
    let config = meaning(&line);
    let mut agent = false;
    if let Ok(config) = &config {
        agent = ask(&config.site.socket(), Ask::Status).await.is_ok();
        // An agent may go by flanneld's name.
        let own = fs::read_to_string(config.site.run_dir().join("lock")).unwrap_or_default();
        running.retain(|one| !agent || one.pid.to_string() != own.trim());
    }
    let network = match &config {
        Ok(config) => Some(network(config).await),
        Err(_) => None,
    };
    let preview = match (&config, &network) {
        (Ok(config), Some(Ok(network))) if carries(network) => Some(preview(config).await),
        _ => None,
    };
    Ok(Seen {
        running,
        source: line.source,
        agent,
        env: config.as_ref().map_or(Ok(None), |config| Fabric::find(&config.subnet_file)),
        config,
        network,
        preview,
        devices: devices().await?,
        cni: cni::read(&check.cni),
        privileged: may_change_network().is_ok(),
    })
}

/// flanneld's command line: as given, of the unit named, of a process, of a unit found, or its defaults.
fn line(check: &MigrateConfig, running: &[Flanneld]) -> Result<Line, Failure> {
    let files = &check.environment_files;
    let of_unit = |path: &Path| -> Result<Line, Failure> {
        let unit::Unit { flags, vars } = unit::read(path, &check.unit_dirs, files)?;
        Ok(Line { source: Source::Unit(path.to_owned()), flags, vars })
    };
    if let (true, Some(path)) = (check.flags.is_empty(), &check.unit) {
        return of_unit(path);
    }
    let (source, flags, mut vars) = match (running.first(), unit::find(&check.unit_dirs)) {
        _ if !check.flags.is_empty() => (Source::Given, check.flags.clone(), check.vars.clone()),
        (Some(one), _) => (Source::Process(one.pid), one.flags.clone(), one.vars.clone().unwrap_or_default()),
        (None, Some(path)) => return of_unit(&path),
        (None, None) => (Source::Defaults, Vec::new(), check.vars.clone()),
    };
    for file in files {
        vars.extend(unit::variables(file)?);
    }
    Ok(Line { source, flags, vars })
}

/// What an agent of flanneld's name would make of the line, or the first thing it would say.
fn meaning(line: &Line) -> Result<Config, String> {
    let words = std::iter::once("flanneld").chain(line.flags.iter().map(String::as_str));
    let args: Vec<OsString> = words.map(OsString::from).collect();
    match parse(&args, &line.vars) {
        Ok(Command::Agent(config)) => Ok(config),
        Ok(_) => Err("these flags start no agent".to_owned()),
        Err(exit) if exit.code == 0 => {
            Err("with these flags flanneld prints its version or its help, and ends".to_owned())
        }
        Err(exit) => {
            let text = exit.text.lines().next().unwrap_or_default();
            let text = text.rsplit_once(" [").map_or(text, |(text, _)| text);
            Err(text.strip_prefix("flanneld: ").unwrap_or(text).to_owned())
        }
    }
}

/// Whether an agent could be asked what it would do: with any other backend it would only say again that it cannot.
fn carries(network: &NetworkConfig) -> bool {
    from_config(network).is_ok() && network.options().kind().as_deref() != Some("udp")
}

async fn network(config: &Config) -> Result<NetworkConfig, String> {
    let text = with_store!(&config.site.store, |store| store.config_text().await);
    let text = text.map_err(|error| error.to_string())?;
    NetworkConfig::parse(&text).map_err(|fault| fault.to_string())
}

async fn preview(config: &Config) -> Result<Preview, Vec<String>> {
    survey(config).await.map(|survey| Preview::from(&survey)).map_err(|error| {
        match error.downcast_ref::<AgentError>() {
            Some(AgentError::Preflight(refusals)) => {
                refusals.iter().map(|refusal| refusal.cause.clone()).collect()
            }
            Some(AgentError::Refused(_) | AgentError::TakeOver(_)) | None => vec![crate::chain(&*error)],
        }
    })
}

/// Devices that have flanneld's names.
async fn devices() -> Result<Vec<Device>, Failure> {
    let facts = Netlink::open()?.facts(None).await?;
    let addrs =
        |index| facts.addrs.iter().filter(move |addr| addr.index == index).map(|addr| addr.net.addr());
    let devices = facts
        .links
        .iter()
        .map(|link| Device { name: link.name.to_string(), addrs: addrs(link.index).collect() });
    Ok(devices.filter(|device| device.name.starts_with("flannel")).collect())
}
