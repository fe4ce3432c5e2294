//! Has other hosts tell what arrives of packets whose checksums are left to the device, and decides by it who finishes
//! them, see [`twill_backends::checksums`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::watch;
use twill_backends::backend::Backend;
use twill_backends::checksums::{Choice, Trial, Wish, choose};
use twill_backends::family::{Family, PerFamily};
use twill_backends::fault::{Code, Fault};
use twill_backends::lease::LeaseKey;
use twill_backends::plan::Plan;
use twill_backends::state::{Checksums, Datapath, LinkName};

use super::status::ChecksumStatus;
use super::{Agent, World};
use crate::kernel::Kernel;
use crate::kernel::trial::{Bench, Place};

/// How many hosts are asked. One is enough to see what this host's device does; another may be down.
const PLACES: usize = 3;
/// How long after a trial that all of them answered there is another: what is on the way changes without notice.
const RARELY: Duration = Duration::from_secs(3600);
/// How long after another, at first and at most.
const SOON: Duration = Duration::from_secs(2);
const LATE: Duration = Duration::from_secs(600);

/// Of each family, how many hosts were asked, and what that showed.
type Outcome = PerFamily<(usize, Result<Vec<Trial>, String>)>;

/// Decides who finishes checksums.
#[derive(Debug, Default)]
pub(super) struct Trying {
    wish: Wish,
    /// The port to ask at; `None` if nobody is to be asked.
    port: Option<u16>,
    /// What is in force.
    choices: PerFamily<Choice>,
    /// The underlay that packets were last sent over.
    over: Option<(LinkName, PerFamily<IpAddr>)>,
    /// When to try; `None`: at once.
    at: Option<Instant>,
    /// How many trials in a row were not answered by all.
    silent: u32,
    /// How many hosts the tunnel led to when a trial last began; `None` before this process's first.
    peers: Option<usize>,
    /// Which of them the probes found to be lost then.
    lost: BTreeSet<LeaseKey>,
    /// What a trial had other than it is, and the next has to have too: a path that fails or mends while one setting after
    /// the other is tried looks like a setting that fails or mends it.
    doubts: PerFamily<Checksums>,
    /// Whether a trial is only to show that again.
    confirms: bool,
    /// A trial under way.
    outcome: Option<watch::Receiver<Option<Outcome>>>,
}

impl Trying {
    pub(super) fn new(wish: Wish, port: Option<u16>) -> Self {
        Self { wish, port, ..Self::default() }
    }

    /// What an earlier process found out, which holds until it is found to be otherwise: a restart is no reason to try.
    pub(super) fn recall(&mut self, choices: PerFamily<Choice>) {
        let known = |(_, choice): (Family, &Choice)| choice.tested && choice.wish == self.wish;
        if self.at.is_none() && !choices.is_empty() && choices.iter().all(known) {
            self.at = Some(crate::now() + RARELY);
        }
        let before = std::mem::take(&mut self.choices);
        self.choices = PerFamily { v4: before.v4.or(choices.v4), v6: before.v6.or(choices.v6) };
    }

    pub(super) const fn choices(&self) -> &PerFamily<Choice> {
        &self.choices
    }

    /// What the devices of a backend are to do.
    pub(super) fn checksums(&self) -> PerFamily<Checksums> {
        self.choices.clone().map(|_, choice| choice.checksums)
    }

    /// Has a choice for each device, as it is found where nothing is known.
    pub(super) async fn begin_with<K: Kernel>(&mut self, backend: &dyn Backend, kernel: &K) {
        for (family, link) in backend.links().iter() {
            let device = match self.choices.get(family) {
                Some(choice) if choice.wish == self.wish => continue,
                Some(choice) => Some(choice.checksums),
                None => kernel.checksums_of(*link).await,
            };
            self.choices.set(family, Some(Choice::untested(self.wish, device)));
        }
    }

    /// Another trial is worth while: something about the tunnel changed.
    pub(super) const fn again(&mut self) {
        self.at = None;
    }

    /// Begins a trial, if it is time to. Hosts that are `lost`, so that probes pass beside the tunnel and not through it,
    /// are asked before others.
    pub(super) fn try_now<K: Kernel>(
        &mut self,
        plan: &Plan,
        lost: &BTreeSet<LeaseKey>,
        kernel: &K,
        now: Instant,
    ) {
        let host = plan.host();
        let few = |peers: &usize| self.silent > 0 || *peers < PLACES;
        let arrived = self.peers.filter(few).is_some_and(|peers| plan.peers() != peers);
        if arrived || !lost.is_subset(&self.lost) {
            self.at = self.at.map(|at| at.min(now + SOON));
        }
        let over = (host.iface, host.addrs.map(|_, addr| addr.local));
        if self.over.replace(over).is_some_and(|before| Some(before) != self.over) {
            self.at = None;
        }
        let Some(port) = self.port else { return };
        let waits = self.outcome.is_some() || self.at.is_some_and(|at| at > now);
        if waits || host.datapath == Datapath::Userspace {
            return;
        }
        let trials: Vec<(Family, usize, BoxFuture<'static, _>)> = benches(plan, port, lost)
            .map(|(family, bench)| (family, bench.places.len(), kernel.trial(bench)))
            .collect();
        if trials.is_empty() {
            // To look for one among all peers in each turn would cost too much where the tunnel leads to none of them.
            self.at = Some(now + SOON);
            return;
        }
        (self.peers, self.lost) = (Some(plan.peers()), lost.clone());
        let (tell, outcome) = watch::channel(None);
        self.outcome = Some(outcome);
        tokio::spawn(async move {
            let mut found = Outcome::NONE;
            for (family, asked, trial) in trials {
                found.set(family, Some((asked, trial.await)));
            }
            tell.send_replace(Some(found));
        });
    }

    /// Waits for the end of a trial.
    pub(super) async fn ended(&self) {
        match &self.outcome {
            // One that ended badly says nothing.
            Some(outcome) => drop(outcome.clone().wait_for(Option::is_some).await),
            None => std::future::pending().await,
        }
    }

    /// Takes what a trial showed. Returns whether something else is to be from now on.
    pub(super) fn hear(&mut self, now: Instant) -> bool {
        let found = self.outcome.take().and_then(|outcome| outcome.borrow().clone()).unwrap_or_default();
        let before = self.checksums();
        let (mut all, mut sure) = (!found.is_empty(), true);
        for (family, (asked, trials)) in found.iter() {
            let Some(choice) = self.choices.get(family) else { continue };
            let trials = match trials {
                Ok(trials) => trials,
                Err(error) => {
                    all = false;
                    tracing::debug!(%family, error, "no trial of checksums");
                    continue;
                }
            };
            tracing::debug!(%family, ?trials, "a trial of checksums");
            let answering: BTreeSet<&str> = trials.iter().map(|trial| trial.to.as_str()).collect();
            all &= answering.len() == *asked;
            let next = choose(self.wish, choice, trials);
            let other = (next.checksums != choice.checksums).then_some(next.checksums);
            let doubted = self.doubts.get(family).copied();
            self.doubts.set(family, other);
            if other.is_some() && other != doubted {
                sure = false;
                continue;
            }
            if (next.checksums, next.tested) != (choice.checksums, choice.tested) {
                let Checksums { offload, udp } = next.checksums;
                tracing::info!(%family, offload, udp, because = next.because, "checksums");
            }
            self.choices.set(family, Some(next));
        }
        self.confirms = !sure && !self.confirms;
        if !self.confirms {
            let settled = all && sure;
            self.silent = if settled { 0 } else { self.silent.saturating_add(1) };
            let wait = if settled { RARELY } else { (SOON * (1 << self.silent.min(10))).min(LATE) };
            self.at = Some(now + wait);
        }
        before != self.checksums()
    }

    /// What is wrong: only what the operator insists on. Anything else was put right.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let insisted = |(_, choice): &(Family, &Choice)| choice.checksums.offload && choice.spoilt.is_some();
        let fault = |(family, choice): (Family, &Choice)| {
            let loss = choice.spoilt.clone().unwrap_or_default();
            Fault::new(Code::OffloadForced, format!("{family} tunnel"), loss)
        };
        self.choices.iter().filter(insisted).map(fault).collect()
    }

    /// For `status`.
    pub(super) fn status(&self, plan: &Plan) -> Vec<ChecksumStatus> {
        if plan.host().datapath == Datapath::Userspace {
            return Vec::new();
        }
        let links = plan.backend().links();
        let status = |(family, link): (Family, &LinkName)| {
            let choice = self.choices.get(family)?;
            Some(ChecksumStatus {
                device: link.to_string(),
                offload: choice.checksums.offload,
                because: choice.because.clone(),
                udp: choice.checksums.udp,
                udp_because: choice.udp_because.clone(),
                spoilt: choice.spoilt.clone(),
                tested: choice.tested,
            })
        };
        links.iter().filter_map(status).collect()
    }
}

impl<W: World> Agent<W> {
    /// Takes what a trial showed. One that nobody answered showed nothing.
    pub(super) fn hear_trial(&mut self) {
        let before = self.trying.choices.clone();
        self.replan |= self.trying.hear(crate::now());
        if self.trying.choices != before {
            self.papers.touch();
        }
    }
}

/// Some of the hosts that a tunnel leads to, for each family.
fn benches(plan: &Plan, port: u16, lost: &BTreeSet<LeaseKey>) -> impl Iterator<Item = (Family, Bench)> {
    let links: Vec<(Family, LinkName)> =
        plan.backend().links().iter().map(|(family, dev)| (family, *dev)).collect();
    links.into_iter().filter_map(move |(family, dev)| {
        let link = plan.want().links.get(&dev)?.clone();
        let source = plan.own().subnets.get(family)?.network();
        let mut peers: Vec<&LeaseKey> = plan.keys().collect();
        fastrand::shuffle(&mut peers);
        peers.sort_by_key(|key| !lost.contains(*key));
        let place = |key: &LeaseKey| {
            let (_, state) = plan.ways_to(key).find(|(of, _)| *of == family)?;
            let fdb = state.fdb?;
            let inner = vec![state.route.0.dst.network(), fdb.dst];
            Some(Place { to: key.to_string(), vtep: fdb.mac, outer: fdb.dst, inner })
        };
        let places: Vec<Place> = peers.into_iter().filter_map(place).take(PLACES).collect();
        (!places.is_empty()).then_some((family, Bench { dev, link, source, port, places }))
    })
}

#[cfg(test)]
mod tests {
    use twill_backends::checksums::Count;

    use super::*;

    /// What is in force after a trial in which packets arrive with these settings and no others.
    fn after(trying: &mut Trying, arrives: impl Fn(Checksums) -> bool) -> Checksums {
        let settings = [(true, true), (false, true), (true, false), (false, false)];
        let trial = |(offload, udp)| {
            let with = Checksums { offload, udp };
            let count = Count { sent: 4, answered: if arrives(with) { 4 } else { 0 } };
            Trial { to: "10.5.2.0-24".to_owned(), with, small: count, large: count, rate: 0 }
        };
        let found = PerFamily { v4: Some((1, Ok(settings.map(trial).to_vec()))), v6: None };
        trying.outcome = Some(watch::channel(Some(found)).1);
        let before = trying.checksums();
        assert_eq!(trying.hear(crate::now()), before != trying.checksums());
        trying.checksums().v4.unwrap()
    }

    #[test]
    fn what_only_one_trial_shows_changes_nothing() {
        let mut trying = Trying::default();
        let have = Checksums { offload: true, udp: true };
        trying.choices.v4 = Some(Choice::untested(Wish::Auto, Some(have)));
        // A path that mends while one setting after the other is tried.
        let mends = |with: Checksums| !with.udp;
        for _ in 0..2 {
            assert_eq!(after(&mut trying, mends), have);
            assert!(trying.confirms && trying.at.is_none(), "it is tried again at once");
            assert_eq!(after(&mut trying, |_| true), have);
            assert!(trying.at.take().is_some());
        }
        // Two trials that contradict each other are not followed by others at once.
        assert_eq!(after(&mut trying, mends), have);
        assert_eq!(after(&mut trying, |with| !with.offload), have);
        assert!(!trying.confirms && trying.at.is_some());
        assert!(!after(&mut trying, |with| !with.offload).offload);
    }
}
