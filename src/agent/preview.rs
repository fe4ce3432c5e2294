//! What this agent would do, and the undoing of what it did: for commands, without the loop.

use twill_backends::backend::from_config;
use twill_backends::diff::{Op, diff};
use twill_backends::fault::Fault;
use twill_backends::filter::{Filter, FilterNet};
use twill_backends::lease::{Lease, LeaseKey, Subnets};
use twill_backends::state::NetState;

use super::survey::{Failure, Survey};
use super::{Agent, STORE_PATIENCE, World};
use crate::filter::Firewall;
use crate::kernel::{Kernel, Scope};

/// What a start would do on this host.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The lease that would be used.
    pub key: LeaseKey,
    /// Whether it would have to be claimed: this host has none.
    pub claim: bool,
    /// The subnets of this host from then on.
    pub subnets: Subnets,
    /// The largest packet of pods in bytes, as subnet.env would say.
    pub mtu: u32,
    /// What is ours on this host, as it would be.
    pub want: NetState,
    /// What is ours on this host, as it is.
    pub have: NetState,
    /// What would be loaded into the firewall, and removed from it: a line for each transaction, with its reason.
    pub rules: Vec<String>,
    /// What would be wrong.
    pub faults: Vec<Fault>,
}

impl Preview {
    /// The operations, each with its reason, and the faults.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let claim = self.claim.then(|| format!("claim lease {}  # this host has none", self.key));
        let ops = diff(&self.want, &self.have);
        let ops = ops.iter().map(|op| format!("{op}  # {}", reason(op, &self.have)));
        let faults = self.faults.iter().map(|fault| format!("# fault {}: {fault}", fault.code));
        claim.into_iter().chain(ops).chain(self.rules.iter().cloned()).chain(faults).collect()
    }
}

impl From<&Survey> for Preview {
    fn from(survey: &Survey) -> Self {
        let Survey { lease: Lease { key, subnets, .. }, claim, plan, observed, rules, faults, .. } = survey;
        Self {
            key: key.clone(),
            claim: *claim,
            subnets: *subnets,
            mtu: plan.backend().mtu(plan.host()),
            want: plan.want().clone(),
            have: observed.net.clone(),
            rules: rules.clone(),
            faults: faults.clone(),
        }
    }
}

impl<W: World> Agent<W> {
    /// Removes what is ours from the host, and says what that was.
    ///
    /// # Errors
    /// The kernel or the firewall could not be read or written.
    pub async fn remove(mut self, firewall_only: bool) -> Result<Vec<String>, Failure> {
        self.listen_once(STORE_PATIENCE).await;
        if self.network.is_none() {
            self.network = self.memory.as_ref().map(|memory| memory.config.clone());
        }
        self.scope = self.bare_scope();
        if let Some(network) = self.network.clone() {
            self.open_firewall(&network).await;
        }
        self.take_down(firewall_only).await
    }

    /// Removes what is in scope, the firewall's rules, and subnet.env, so that no container is started without a fabric.
    pub(super) async fn take_down(&mut self, firewall_only: bool) -> Result<Vec<String>, Failure> {
        let mut lines = Vec::new();
        if !firewall_only {
            let everything = Scope { stand_ins: true, ..self.scope.clone() };
            let have = self.world.kernel().observe(&everything).await?.net;
            let ops = diff(&NetState::default(), &have);
            for (op, result) in ops.iter().zip(self.world.kernel().apply(&ops).await) {
                result?;
                lines.push(op.to_string());
            }
            if self.papers.remove_env()? {
                lines.push(format!("rm {}", self.config.subnet_file.display()));
            }
        }
        if let Some(firewall) = &self.firewall {
            let removed = firewall.apply(&self.nothing_wanted()).await?;
            let guard = firewall.guard(None, None, true).await?;
            lines.extend(guard.removed);
            lines.extend(removed.removed);
            lines.extend(removed.warnings.into_iter().map(|warning| format!("# {warning}")));
        }
        Ok(lines)
    }

    /// What is ours whatever the configuration says, with what it says where it is known.
    fn bare_scope(&self) -> Scope {
        let network = self.network.as_ref();
        let backend = network.and_then(|network| from_config(network).ok());
        let links = backend.map(|backend| backend.links()).unwrap_or_default();
        let links = links.iter().map(|(_, link)| *link);
        Scope::bare(&self.config.site.instance(), links, network, &self.tenure.had())
    }

    /// No rules, for the networks that are known: in chains that several fabrics share, only ours go.
    fn nothing_wanted(&self) -> Filter {
        if let Some(plan) = &self.plan {
            return Filter { nets: plan.filter().nets.clone(), masquerade: None, forward: false };
        }
        let nets =
            self.network.iter().flat_map(|network| network.pools.iter()).filter_map(|(family, pool)| {
                let subnet = *self.tenure.had().get(family)?;
                Some(FilterNet { network: pool.network, subnet })
            });
        Filter { nets: nets.collect(), masquerade: None, forward: false }
    }
}

/// Why an operation is needed.
fn reason(op: &Op, have: &NetState) -> String {
    let is = |found: Option<String>| found.map_or("missing".to_owned(), |found| format!("is: {found}"));
    match op {
        Op::SetLink(name, _) => {
            is(have.links.get(name).map(|link| Op::SetLink(*name, link.clone()).to_string()))
        }
        Op::SetSysctl(path, _) => is(have.sysctls.get(path).cloned()),
        Op::SetNeigh(key, _) => is(have.neighs.get(key).map(ToString::to_string)),
        Op::SetFdb(_) => "missing".to_owned(),
        Op::SetRoute(key, _) => is(have.routes.get(key).map(|route| Op::SetRoute(*key, *route).to_string())),
        Op::DelRoute(..) | Op::DelFdb(_) | Op::DelNeigh(_) | Op::DelLink(_) => {
            "ours, and nobody needs it".to_owned()
        }
    }
}
