//! What else the agent must know of its host before it plans.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use twill_backends::allocate::Evidence;
use twill_backends::backend::{Backend, from_config};
use twill_backends::family::Family;
use twill_backends::fault::{Code, Fault};
use twill_backends::filter::Masquerade;
use twill_backends::host::{Host, Policy};
use twill_backends::lease::{Lease, Subnets};
use twill_backends::network::NetworkConfig;
use twill_backends::plan::Plan;

use super::{Agent, AgentError, World};
use crate::config::FirewallMode;
use crate::filter::Options;
use crate::kernel::preflight::{self, Plans, Preflight};
use crate::kernel::{Kernel, Scope};

impl<W: World> Agent<W> {
    /// Makes sure, once, that the network does not collide with what this host is attached to. Returns whether that
    /// could be looked at.
    pub(super) async fn preflight(
        &mut self,
        backend: &dyn Backend,
        host: &Host,
        network: &NetworkConfig,
    ) -> Result<bool, AgentError> {
        if self.cleared {
            return Ok(true);
        }
        self.flanneld_ran = self.flanneld_ran(network);
        let facts = match self.world.kernel().facts(None).await {
            Ok(facts) => facts,
            Err(error) => {
                let fault = Fault::new(Code::KernelRefused, "kernel", error.to_string());
                if self.obstacle.as_ref() != Some(&fault) {
                    tracing::warn!(%error, "cannot look at this host; trying again");
                }
                self.obstacle = Some(fault);
                return Ok(false);
            }
        };
        let public = |lease: &Lease| Family::ALL.map(|family| lease.attrs.public(family));
        let here = |addr: &IpAddr| host.addrs.iter().any(|(_, own)| own.public == *addr);
        let plans = Plans {
            networks: network.pools.iter().map(|(_, pool)| pool.network).collect(),
            underlay: host.addrs.iter().map(|(_, addr)| addr.local).collect(),
            peers: self.leases.of_hosts().flat_map(public).flatten().filter(|addr| !here(addr)).collect(),
        };
        let own = match self.lease_of_this_node() {
            None => self.lease_of_this_device(backend, host).await,
            own => own,
        };
        let had = own.map_or(self.tenure.had(), |lease| lease.subnets);
        let Preflight { refusals, warnings } =
            preflight::check(&facts, &self.scope(backend, host, network, had), &plans);
        for warning in warnings {
            tracing::warn!(%warning, "preflight");
        }
        // A host whose fabric runs already is not left without an agent for what came later: its pods need one.
        let ran = self.memory.as_ref().is_some_and(|memory| memory.config.pools == network.pools);
        if !refusals.is_empty() && !ran && !self.config.force {
            return Err(AgentError::Preflight(refusals));
        }
        for refusal in refusals {
            tracing::warn!(%refusal, "preflight");
        }
        self.cleared = true;
        Ok(true)
    }

    /// Whether flanneld ran on this host before Twill did: subnet.env names this network, or a lease with our address
    /// and no node id exists, and no run of ours has left a snapshot.
    fn flanneld_ran(&self, network: &NetworkConfig) -> bool {
        let named = self
            .previous
            .networks
            .iter()
            .any(|(family, net)| network.pools.get(family).is_some_and(|pool| pool.network == *net));
        let addrs = self.found.underlay.as_ref().map(|underlay| underlay.addrs).unwrap_or_default();
        let leased = self.leases.iter().any(|lease| {
            let here = addrs.iter().any(|(family, addr)| lease.attrs.public(family) == Some(*addr));
            here && lease.attrs.node_id.is_none()
        });
        self.memory.is_none() && (named || leased)
    }

    /// Looks at the host again right before a claim: pods may have come since.
    pub(super) async fn look_around(&mut self, now: Instant) {
        if !self.tenure.will_claim(now) {
            return;
        }
        if let Some(Ok(backend)) = self.network.as_ref().map(from_config) {
            let evidence = self.evidence(&*backend).await;
            self.tenure.note(evidence);
        }
    }

    /// What the kernel says about an earlier life of this host.
    pub(super) async fn evidence(&self, backend: &dyn Backend) -> Evidence {
        let mut evidence = Evidence::default();
        for (family, link) in backend.links().iter() {
            evidence.macs.set(family, self.world.kernel().mac_of(*link).await);
        }
        if let Ok(facts) = self.world.kernel().facts(None).await {
            let tunnels: Vec<u32> =
                backend.links().iter().filter_map(|(_, link)| Some(facts.link(*link)?.index)).collect();
            let carried = |net: &IpNet| {
                facts
                    .addrs
                    .iter()
                    .any(|addr| net.contains(&addr.net.addr()) && !tunnels.contains(&addr.index))
            };
            for (family, net) in self.tenure.had().iter().filter(|(_, net)| carried(net)) {
                evidence.carried.set(family, Some(*net));
            }
        }
        evidence
    }

    /// What the operator asked for on this host.
    pub(super) fn policy(&self) -> Policy {
        let filter = self.config.filter;
        Policy {
            masquerade: filter.masquerade.then_some(Masquerade { random_fully: filter.random_fully }),
            forward: filter.forward,
            blackhole: self.config.blackhole,
            outer_check: filter.check_senders,
            inner_check: self.config.datapath.check_source,
        }
    }

    /// Networks of an earlier configuration, as far as this host remembers: their leases are still peers.
    pub(super) fn former(&self, network: &NetworkConfig) -> Vec<IpNet> {
        let remembered =
            self.memory.iter().flat_map(|memory| memory.config.pools.iter().map(|(_, pool)| pool.network));
        let written = self.previous.networks.iter().map(|(_, net)| *net);
        let current = |net: &IpNet| network.pools.iter().any(|(_, pool)| pool.network == *net);
        let mut former: Vec<IpNet> = remembered.chain(written).filter(|net| !current(net)).collect();
        former.sort_unstable();
        former.dedup();
        former
    }

    /// Opens the firewall, once it is known which.
    pub(super) async fn open_firewall(&mut self, network: &NetworkConfig) {
        if self.firewall.is_some() {
            return;
        }
        let mode = match self.config.filter.mode {
            FirewallMode::Auto if network.nftables => FirewallMode::Nftables,
            mode @ (FirewallMode::Auto | FirewallMode::Nftables | FirewallMode::Iptables) => mode,
        };
        let options = Options {
            instance: self.config.site.instance(),
            mode,
            resync: self.config.resync,
            previous: self
                .previous
                .networks
                .iter()
                .map(|(_, net)| *net)
                .chain(self.former(network))
                .collect(),
            path: None,
        };
        self.firewall = Some(self.world.firewall(options).await);
    }

    /// What counts as ours while this is planned.
    pub(super) fn scope_of(&self, plan: &Plan) -> Scope {
        let own = plan.own();
        let sysctls = plan.want().sysctls.keys().cloned().collect();
        Scope { sysctls, ..self.scope(plan.backend(), plan.host(), &own.network, own.subnets) }
    }

    fn scope(&self, backend: &dyn Backend, host: &Host, network: &NetworkConfig, own: Subnets) -> Scope {
        let current = network.pools.iter().map(|(_, pool)| (pool.network, pool.subnet_len));
        let former = self.former(network).into_iter().filter_map(|net| {
            let subnet = own.get(Family::of_net(&net))?;
            Some((net, subnet.prefix_len()))
        });
        Scope {
            alias: host.alias(),
            links: backend.links().iter().map(|(_, link)| *link).collect(),
            sysctls: BTreeSet::new(),
            networks: current.chain(former).collect(),
            own: own.iter().map(|(_, net)| *net).collect(),
            underlay: Some(host.iface),
            flanneld_ran: self.flanneld_ran,
            stand_ins: false,
        }
    }
}
