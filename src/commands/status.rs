//! `twill status` and `twill peers`: what this host's agent says of itself, of its peers, and of the whole fabric.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use serde_json::{Value, json};
use twill_backends::family::Family;
use twill_backends::lease::Lease;

use super::{Failure, fleet, lease, with_store};
use crate::agent::socket::{Ask, ask};
use crate::agent::status::{PeerStatus, State, Status, VERSION};
use crate::cli::{Exit, Stream};
use crate::config::Site;
use crate::store::{Entry, LeaseAdmin};
use crate::telemetry;
use crate::views::hosts::{self, Host, Said};
use crate::views::peers::{self, Health, Order};
use crate::views::status;

/// Prints what the agent says of itself. Exit 0 is ok, 1 degraded, 2 failed or no agent.
pub(super) async fn run(site: &Site, json: bool) -> Result<Exit, Failure> {
    let answer = ask(&site.socket(), Ask::Status).await?;
    let read: Status = serde_json::from_value(answer.clone())?;
    let code = match read.state {
        State::Ok => 0,
        State::Degraded => 1,
        State::Failed => 2,
    };
    let text = if json { format!("{answer}\n") } else { status::text(&read) };
    Ok(Exit { text, stream: Stream::Stdout, code })
}

/// Prints the peers. Exit 0 is all well, 1 some need attention or are cut off, 2 no agent.
pub(super) async fn peers(site: &Site, order: Order, json: bool) -> Result<Exit, Failure> {
    let answer = ask(&site.socket(), Ask::Status).await?;
    let mut found = peers::read(&answer);
    peers::sort(&mut found, order);
    let well = |(peer, _): &(PeerStatus, Value)| matches!(peer.health(), Health::Good | Health::Unknown);
    let code = u8::from(!found.iter().all(well));
    let text = if json {
        let values: Vec<&Value> = found.iter().map(|(_, value)| value).collect();
        format!("{}\n", json!({ "version": VERSION, "peers": values }))
    } else {
        peers::text(&found, width())
    };
    Ok(Exit { text, stream: Stream::Stdout, code })
}

/// Prints a line for each host. Exit 0 is all well, 1 some need attention, 2 some have failed or are cut off.
pub(super) async fn all(site: &Site, port: Option<u16>, json: bool) -> Result<Exit, Failure> {
    telemetry::warnings_to_stderr(0);
    let own = ask(&site.socket(), Ask::Status).await;
    let entries = with_store!(&site.store, |store| store.entries().await)?;
    let here = own.as_ref().ok().and_then(|status| status["lease"]["key"].as_str()).unwrap_or_default();
    let others = entries.iter().filter_map(|entry| entry.lease.as_ref().ok());
    let others = others.filter(|lease| lease.key.as_str() != here && has_agent(lease));
    let mut said = match fleet::port(port, site) {
        Some(port) => fleet::ask(others, port).await,
        None => BTreeMap::new(),
    };
    let known: BTreeMap<String, PeerStatus> =
        own.iter().flat_map(peers::read).map(|(peer, _)| (peer.key.clone(), peer)).collect();
    if let Ok(status) = &own {
        said.insert(here.to_owned(), Said::Status(status.clone()));
    }
    let hosts: Vec<Host> = entries
        .iter()
        .filter(|entry| entry.lease.as_ref().map_or(!entry.permanent, |lease| !lease.vacant))
        .map(|entry| host(entry, here, said.remove(entry.key.as_str()), &known))
        .collect();
    let code = hosts::code(&hosts);
    let text = if json {
        format!("{}\n", json!({ "version": VERSION, "hosts": hosts::json(&hosts) }))
    } else {
        hosts::text(&hosts, width())
    };
    Ok(Exit { text, stream: Stream::Stdout, code })
}

/// Whether an agent of ours has the lease, which can be asked.
fn has_agent(lease: &Lease) -> bool {
    let named = lease.attrs.node_id.is_some() && !lease.vacant;
    named && Family::ALL.iter().any(|family| lease.attrs.public(*family).is_some())
}

fn host(entry: &Entry, here: &str, said: Option<Said>, known: &BTreeMap<String, PeerStatus>) -> Host {
    let key = entry.key.to_string();
    let attrs = entry.lease.as_ref().map(|lease| lease.attrs.clone());
    let said = match &entry.lease {
        Ok(_) => said.unwrap_or(Said::Unasked),
        Err(fault) => {
            let (cause, next) = fault.cause_and_next();
            Said::Silent(fault.code.entry().code, cause.to_owned(), next.to_owned())
        }
    };
    let attrs = attrs.unwrap_or_default();
    let public = Family::ALL.iter().filter_map(|family| attrs.public(*family));
    Host {
        public: public.map(|addr| addr.to_string()).collect(),
        backend: attrs.backend_type.unwrap_or_default(),
        node: attrs.node_id,
        left: lease::left(entry),
        here: key == here,
        peer: known.get(&key).cloned(),
        key,
        said,
    }
}

/// The width of the terminal, if this goes to one.
fn width() -> Option<usize> {
    let terminal = std::io::stdout().is_terminal();
    let size = terminal.then(ratatui::crossterm::terminal::size)?.ok()?;
    Some(usize::from(size.0))
}
