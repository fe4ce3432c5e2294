//! `twill trace`: the hops between two addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use twill_backends::family::{Family, PerFamily};
use twill_backends::fault::Code;
use twill_backends::lease::LeaseKey;
use twill_backends::probe::Verdict;

use super::preview::survey;
use super::{Failure, fleet, running};
use crate::agent::socket::{Ask, ask};
use crate::agent::status::{FaultStatus, PeerStatus, ProbeStatus, Status, VERSION};
use crate::agent::survey::Survey;
use crate::catalogue::refusal::Refusal;
use crate::cli::{Exit, Stream};
use crate::config::{Config, Site};
use crate::kernel::Kernel;
use crate::kernel::facts::HostFacts;
use crate::kernel::netlink::Netlink;
use crate::telemetry;
use crate::trace::{Agent, Asked, Cause, Firewall, Probe, Scene, Trace, Way, others, questions, trace};
use crate::verify::Deviation;
use crate::views::hosts::Said;

/// How long this host's agent may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What agents complain of where a peer is not reached as it should be. In a large fabric some host always is not; the
/// trace has what was measured of the pair that it is about.
const OF_PEERS: [Code; 7] = [
    Code::UnderlayDown,
    Code::AgentDown,
    Code::OverlayDown,
    Code::PortEaten,
    Code::OneWay,
    Code::PeerUnreachable,
    Code::PathMtu,
];

/// What is to be traced, and how it is told.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// Where other agents serve HTTP, as typed.
    pub(super) port: Option<u16>,
    pub(super) json: bool,
}

/// Names the hops. Exit 0 is through, 1 through with something amiss, 2 not through, or not to be looked at.
pub(super) async fn run(config: Config, typed: bool, request: Request) -> Result<Exit, Failure> {
    telemetry::warnings_to_stderr(config.verbosity);
    let trace = look(&running::or_typed(typed, config), &request).await?;
    let answer = trace.answer();
    let (exit, code) = (answer.code(), answer.cause().map(|cause| &cause.code));
    let text = if request.json {
        let said =
            json!({ "version": VERSION, "exit": exit, "code": code, "mtu": trace.mtu(), "trace": trace });
        format!("{said}\n")
    } else {
        trace.to_string()
    };
    Ok(Exit { text, stream: Stream::Stdout, code: exit })
}

async fn look(config: &Config, request: &Request) -> Result<Trace, Failure> {
    let survey = survey(config).await?;
    let (looked, agents) = tokio::join!(ways(&survey, request), agents(config, &survey, request));
    let (facts, ways) = looked?;
    let Survey { plan, leases, observed, rules, shut_out, drops, .. } = &survey;
    let firewall = Firewall { rules, shut_out, drops };
    let scene = Scene { plan, leases, observed, facts: &facts, ways, firewall, agents };
    Ok(trace(&scene, request.src, request.dst))
}

/// How the kernel sends to each address that matters.
async fn ways(survey: &Survey, request: &Request) -> Result<(HostFacts, BTreeMap<IpAddr, Way>), Failure> {
    let kernel = Netlink::open()?;
    let facts = kernel.facts(None).await?;
    let mut ways = BTreeMap::new();
    for addr in questions(&survey.leases, request.src, request.dst) {
        let way = match kernel.facts(Some(addr)).await {
            Ok(asked) => asked.reach.and_then(|reach| {
                let link = asked.links.iter().find(|link| link.index == reach.index)?;
                Some(Way::Through { dev: link.name, via: reach.via, mtu: reach.mtu })
            }),
            Err(refused) => Some(Way::Nowhere(refused.to_string())),
        };
        ways.insert(addr, way.unwrap_or_else(|| Way::Nowhere("no route".to_owned())));
    }
    Ok((facts, ways))
}

/// What the agents of this host and of both ends say; those that there is no port for are not asked.
async fn agents(config: &Config, survey: &Survey, request: &Request) -> BTreeMap<LeaseKey, Asked> {
    let own = &survey.plan.own().key;
    let ours = others(&survey.leases, own, request.src, request.dst);
    let ours = ours.into_iter().filter(|lease| lease.attrs.node_id.is_some());
    let theirs = async {
        match fleet::port(request.port, &config.site) {
            Some(port) => fleet::ask(ours, port).await,
            None => BTreeMap::new(),
        }
    };
    let (here, said) = tokio::join!(own_agent(&config.site), theirs);
    let said = said.into_iter().filter_map(|(key, said)| Some((LeaseKey::new(key), asked(said)?)));
    said.chain([(own.clone(), here)]).collect()
}

async fn own_agent(site: &Site) -> Asked {
    let entry = Refusal::NoAgent.entry();
    let silent = |why| Asked::Silent(Cause::new(entry, why, entry.next));
    match timeout(PATIENCE, ask(&site.socket(), Ask::Status)).await {
        Ok(Ok(status)) => says(&status).unwrap_or_else(silent),
        Ok(Err(error)) => silent(error.to_string()),
        Err(_) => silent("no answer in time".to_owned()),
    }
}

fn asked(said: Said) -> Option<Asked> {
    let entry = Deviation::HostSilent.entry();
    match said {
        Said::Status(status) => {
            let silent = |why| Asked::Silent(Cause::new(entry, why, "upgrade it"));
            Some(says(&status).unwrap_or_else(silent))
        }
        Said::Silent(code, cause, next) => Some(Asked::Silent(Cause { code: code.into(), cause, next })),
        Said::Unasked => None,
    }
}

/// What a status says; if it is none, why.
fn says(status: &Value) -> Result<Asked, String> {
    let status =
        Status::deserialize(status).map_err(|error| format!("its status cannot be read: {error}"))?;
    let datapath = status.network.as_ref().and_then(|network| network.datapath.as_ref());
    let tunnels = datapath.iter().flat_map(|datapath| &datapath.tunnels);
    let of_peers = |fault: &&FaultStatus| OF_PEERS.iter().any(|code| code.entry().code == fault.code);
    let fault = status.faults.iter().find(|fault| !of_peers(fault)).map(|fault| Cause {
        code: fault.code.clone().into(),
        cause: format!("{}: {}", fault.subject, fault.cause),
        next: fault.next.clone(),
    });
    Ok(Asked::Says(Agent {
        state: status.state.to_string(),
        fault,
        settled: status.reconcile.converged,
        serves: tunnels.map(|tunnel| tunnel.device.clone()).collect(),
        peers: status.peers.iter().map(|peer| (LeaseKey::new(peer.key.clone()), probes(peer))).collect(),
    }))
}

/// What an agent measured of a peer in each family.
fn probes(peer: &PeerStatus) -> PerFamily<Probe> {
    let mut found = PerFamily::NONE;
    let Some(measured) = &peer.probe else { return found };
    // One that answers no probes is told without families.
    let why = if measured.verdict == Verdict::Unknown {
        &*measured.cause
    } else {
        "an agent of an earlier version does not tell address families apart"
    };
    for family in Family::ALL {
        let unknown = measured.families.is_empty().then(|| Probe::unknown(why));
        found.set(family, probe(measured, &family.to_string().to_lowercase()).or(unknown));
    }
    found
}

fn probe(measured: &ProbeStatus, family: &str) -> Option<Probe> {
    let found = measured.families.iter().find(|found| found.family == family)?;
    let ways = || measured.ways.iter().filter(|way| way.family == family);
    Some(Probe {
        verdict: found.verdict,
        cause: found.cause.clone(),
        since_s: Some(found.since_s),
        rtt_us: ways().find_map(|way| way.rtt_p50_us),
        answer_age_ms: ways().find_map(|way| way.answer_age_ms),
        mtu: ways().any(|way| way.mtu.is_some()).then_some(found.mtu),
        mtu_wanted: found.mtu_wanted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::status::tests::status;

    fn agent(status: &Status) -> Agent {
        match says(&serde_json::to_value(status).unwrap()).unwrap() {
            Asked::Says(agent) => agent,
            Asked::Silent(cause) => panic!("{cause}"),
        }
    }

    #[test]
    fn what_an_agent_says_is_read_by_family() {
        let mut status = status();
        let Agent { state, fault, settled, peers, .. } = agent(&status);
        let fault = fault.unwrap();
        assert_eq!((state.as_str(), &*fault.code, settled), ("degraded", "deletions-held", true));
        assert_eq!(fault.cause, "leases: the store was made anew");
        let probed = |peers: &BTreeMap<LeaseKey, PerFamily<Probe>>| {
            peers[&LeaseKey::new("10.5.2.0-24".to_owned())].clone()
        };
        let PerFamily { v4, v6 } = probed(&peers);
        let v4 = v4.unwrap();
        assert_eq!((v4.verdict, v4.since_s, v4.rtt_us), (Verdict::Ok, Some(754), Some(312)));
        assert_eq!((v4.answer_age_ms, v4.mtu, v4.mtu_wanted), (Some(400), Some(1_350), 1_450));
        assert_eq!(v6, None, "nothing is known of a family that is not there");
        assert!(peers[&LeaseKey::new("10.5.3.0-24".to_owned())].is_empty());
        let silent = status.peers[0].probe.as_mut().unwrap();
        (silent.verdict, silent.cause) = (Verdict::Unknown, "it answers no probes".to_owned());
        silent.families.clear();
        let v6 = probed(&agent(&status).peers).v6.unwrap();
        assert_eq!((v6.verdict, v6.cause.as_str()), (Verdict::Unknown, "it answers no probes"));
    }

    #[test]
    fn what_an_agent_complains_of_other_peers_is_not_of_the_pair() {
        let mut status = status();
        let mut of_another = status.faults[0].clone();
        of_another.code = Code::PeerUnreachable.to_string();
        status.faults.insert(0, of_another);
        assert_eq!(&*agent(&status).fault.unwrap().code, "deletions-held");
        status.faults.pop();
        assert_eq!(agent(&status).fault, None);
    }

    #[test]
    fn what_is_no_status_is_silence_with_a_code() {
        let Some(Asked::Silent(cause)) = asked(Said::Status(json!({ "state": "ok" }))) else { panic!() };
        assert_eq!((&*cause.code, cause.next.as_str()), ("host-silent", "upgrade it"));
        assert_eq!(asked(Said::Unasked), None);
    }
}
