//! Keeps the guard as wanted: who may send to the tunnel's port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use twill_backends::fault::{Code, Fault};
use twill_backends::guard::Guard;
use twill_backends::plan::Plan;
use twill_backends::state::Datapath;

use super::status::GuardStatus;
use crate::filter::{FilterError, Firewall};
use crate::reconcile::Pace;

/// Who may send, and whether the guard has to be looked at.
#[derive(Debug, Default)]
pub(super) struct Guarding {
    want: Option<Guard>,
    /// Whether it is known what is wanted.
    told: bool,
    /// Whether nobody else looks at who sends.
    alone: bool,
    /// Whether it was as wanted once: from then on, what has to be loaded had been taken away.
    kept: bool,
    /// What may have to change since the last pass: what these send, or `None`: anything.
    touched: Option<BTreeSet<IpAddr>>,
    pace: Pace,
    faults: Vec<Fault>,
    repairs: u64,
}

impl Guarding {
    /// These may send.
    pub(super) fn want(&mut self, plan: &Plan) {
        let want = plan.guard();
        self.alone = plan.host().datapath == Datapath::Kernel;
        if !std::mem::replace(&mut self.told, true) {
            warn_of_another_address(plan);
        } else if self.want.as_ref() == want {
            return;
        }
        let rules = |guard: Option<&Guard>| guard.map(|guard| guard.rules.clone());
        self.kept &= rules(self.want.as_ref()) == rules(want);
        self.want = want.cloned();
        self.touched = None;
        self.pace.restart();
    }

    /// The same plan, but for these senders.
    pub(super) fn follow(&mut self, plan: &Plan, changed: BTreeSet<IpAddr>) {
        if changed.is_empty() {
            return;
        }
        self.want = plan.guard().cloned();
        self.touched.iter_mut().for_each(|touched| touched.extend(&changed));
        self.pace.restart();
    }

    /// Something of the guard may have changed, or more may be done about it.
    pub(super) fn look(&mut self, now: Instant) {
        self.pace.hurry(now);
    }

    /// When the next pass is due; `None` while there is nothing to do.
    #[must_use]
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.pace.due(now)
    }

    /// What fails.
    #[must_use]
    pub(super) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// How often what somebody had taken away was loaded again.
    #[must_use]
    pub(super) const fn repairs(&self) -> u64 {
        self.repairs
    }

    /// Makes the guard as wanted. Nobody is shut out who was let in, unless `removals` may be made.
    pub(super) async fn pass<F: Firewall>(&mut self, firewall: &F, removals: bool) {
        let now = crate::now();
        let touched = self.touched.take();
        match firewall.guard(self.want.as_ref(), touched.as_ref(), removals).await {
            Ok(applied) => {
                self.touched = Some(BTreeSet::new());
                for line in applied.loaded.iter().chain(&applied.removed) {
                    tracing::info!(rules = %line, "guard");
                }
                self.repairs += u64::from(self.kept && !applied.loaded.is_empty());
                self.kept = true;
                self.pace.done();
                self.complain(applied.warnings);
            }
            Err(error) => {
                self.pace.failed(now);
                self.complain(vec![cause(&error)]);
            }
        }
    }

    fn complain(&mut self, causes: Vec<String>) {
        let faults: Vec<Fault> =
            causes.into_iter().map(|cause| Fault::new(Code::PortUnguarded, "firewall", cause)).collect();
        for fault in faults.iter().filter(|fault| !self.faults.contains(fault)) {
            tracing::warn!(%fault, "who sends into the fabric is not checked as wanted");
        }
        self.faults = faults;
    }

    /// What is wrong; nothing where the userspace datapath asks the same questions.
    pub(super) fn serious(&self) -> &[Fault] {
        if self.alone { self.faults() } else { &[] }
    }

    /// For `status`, less what only the firewall knows: what was dropped.
    pub(super) fn status(&self) -> Option<GuardStatus> {
        let Guard { rules, senders } = self.want.as_ref()?;
        let checks = [("outer", rules.outer), ("inner", rules.inner)];
        let checks = checks.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned());
        Some(GuardStatus {
            port: rules.port,
            checks: checks.collect(),
            senders: senders.len(),
            in_force: self.kept && self.faults.is_empty(),
            dropped: BTreeMap::new(),
        })
    }
}

/// Others know a host by the address it publishes, and see the one that its packets leave with.
fn warn_of_another_address(plan: &Plan) {
    let addrs = plan.host().addrs.iter().filter(|(_, addr)| addr.local != addr.public);
    for (_, addr) in addrs.filter(|_| plan.guard().is_some()) {
        tracing::warn!(
            published = %addr.public, leaves_with = %addr.local,
            "unless NAT gives this host's packets the address it publishes, other hosts drop them as a stranger's; next: \
             publish the address of the interface, or start the others with --outer-source-check off \
             --inner-source-check off"
        );
    }
}

fn cause(error: &FilterError) -> String {
    if let FilterError::Missing { program, package } = error {
        return format!("`{program}` is not installed; next: install the package {package}, or {OFF}");
    }
    if let FilterError::TooOld { found } = error {
        return format!("nft {found} is too old; next: upgrade the package nftables, or {OFF}");
    }
    crate::chain(error)
}

const OFF: &str = "start with --outer-source-check off --inner-source-check off";

#[cfg(test)]
mod tests {
    use twill_backends::guard::{GuardRules, Sender};

    use super::*;
    use crate::filter::fake::FakeFirewall;

    fn guard(peers: &[u8]) -> Guard {
        let rules = GuardRules { port: 8472, vni: 1, networks: Vec::new(), outer: true, inner: false };
        let sender = |n: &u8| Sender {
            addr: [192, 0, 2, *n].into(),
            subnet: format!("10.5.{n}.0/24").parse().unwrap(),
        };
        Guard { rules, senders: peers.iter().map(sender).collect() }
    }

    fn guarding(peers: &[u8]) -> Guarding {
        let mut guarding =
            Guarding { want: Some(guard(peers)), told: true, alone: true, ..Guarding::default() };
        guarding.pace.restart();
        guarding
    }

    fn addresses(firewall: &FakeFirewall) -> BTreeSet<u8> {
        let senders = firewall.guarded().into_iter().flat_map(|guard| guard.senders);
        senders
            .map(|sender| if let std::net::IpAddr::V4(v4) = sender.addr { v4.octets()[3] } else { 0 })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_loaded_once_and_again_when_it_went() {
        let (mut guarding, firewall) = (guarding(&[7]), FakeFirewall::default());
        guarding.pass(&firewall, true).await;
        assert_eq!((firewall.guarded(), guarding.repairs()), (Some(guard(&[7])), 0));
        assert_eq!(guarding.due(crate::now()), None);
        firewall.unguard();
        guarding.look(crate::now());
        guarding.pass(&firewall, true).await;
        assert_eq!((firewall.guarded(), guarding.repairs()), (Some(guard(&[7])), 1));
        let status = guarding.status().unwrap();
        assert_eq!(
            (status.senders, status.in_force, status.checks.as_slice()),
            (1, true, &["outer".to_owned()][..])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_shut_out_before_removals_may_be_made() {
        let firewall = FakeFirewall::default();
        guarding(&[7, 8]).pass(&firewall, true).await;
        let mut later = guarding(&[8, 9]);
        later.pass(&firewall, false).await;
        assert_eq!(addresses(&firewall), BTreeSet::from([7, 8, 9]));
        later.look(crate::now());
        later.pass(&firewall, true).await;
        assert_eq!(addresses(&firewall), BTreeSet::from([8, 9]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_a_fault_where_nobody_else_looks() {
        let (mut guarding, firewall) = (guarding(&[7]), FakeFirewall::default());
        firewall.fail_guard(1);
        guarding.pass(&firewall, true).await;
        let now = crate::now();
        assert!(guarding.due(now).unwrap() > now);
        assert_eq!(
            guarding.serious().iter().map(|fault| fault.code).collect::<Vec<_>>(),
            [Code::PortUnguarded]
        );
        assert!(!guarding.status().unwrap().in_force);
        guarding.alone = false;
        assert_eq!(guarding.serious(), []);
        guarding.pass(&firewall, true).await;
        assert!(guarding.faults().is_empty() && guarding.status().unwrap().in_force);
    }

    #[test]
    fn what_is_missing_is_named_with_the_next_step() {
        let missing = FilterError::Missing { program: "nft".into(), package: "nftables" };
        for error in [missing, FilterError::TooOld { found: "0.9.8".into() }] {
            let fault = Fault::new(Code::PortUnguarded, "firewall", cause(&error));
            let (cause, next) = fault.cause_and_next();
            assert!(
                cause.contains("nft")
                    && next.contains("nftables")
                    && next.contains("--outer-source-check off")
            );
        }
    }
}
