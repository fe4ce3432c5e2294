//! `twill trace`: the hops between two addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::json;
use twill_backends::lease::LeaseKey;

use super::preview::survey;
use super::{Failure, running};
use crate::agent::socket::{Ask, ask};
use crate::agent::status::{Status, VERSION};
use crate::agent::survey::Survey;
use crate::cli::{Exit, Stream};
use crate::config::{Config, Site};
use crate::kernel::Kernel;
use crate::kernel::facts::HostFacts;
use crate::kernel::netlink::Netlink;
use crate::telemetry;
use crate::trace::{Agent, Cause, Firewall, Scene, Trace, Way, questions, trace};

/// What is to be traced, and how it is told.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) json: bool,
}

/// Names the hops. Exit 0 is through, 1 through with something amiss, 2 not through, or not to be looked at.
pub(super) async fn run(config: Config, typed: bool, request: Request) -> Result<Exit, Failure> {
    telemetry::warnings_to_stderr(config.verbosity);
    let trace = look(&running::or_typed(typed, config), &request).await?;
    let code = trace.answer().code();
    let text = if request.json {
        format!("{}\n", json!({ "version": VERSION, "exit": code, "mtu": trace.mtu(), "trace": trace }))
    } else {
        trace.to_string()
    };
    Ok(Exit { text, stream: Stream::Stdout, code })
}

async fn look(config: &Config, request: &Request) -> Result<Trace, Failure> {
    let survey = survey(config).await?;
    let (facts, ways) = ways(&survey, request).await?;
    let agents = own_agent(&config.site, &survey).await.into_iter().collect();
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

/// What this host's agent says of itself, if packets need it.
async fn own_agent(site: &Site, survey: &Survey) -> Option<(LeaseKey, Agent)> {
    survey.plan.tunnels().next()?;
    let answer = ask(&site.socket(), Ask::Status).await.ok()?;
    let status: Status = serde_json::from_value(answer).ok()?;
    Some((survey.plan.own().key.clone(), agent(&status)))
}

fn agent(status: &Status) -> Agent {
    let datapath = status.network.as_ref().and_then(|network| network.datapath.as_ref());
    let tunnels = datapath.iter().flat_map(|datapath| &datapath.tunnels);
    let fault = status.faults.first();
    Agent {
        state: status.state.to_string(),
        fault: fault.map(|fault| Cause {
            cause: format!("{}: {}", fault.code, fault.cause),
            next: fault.next.clone(),
        }),
        serves: tunnels.map(|tunnel| tunnel.device.clone()).collect(),
    }
}
