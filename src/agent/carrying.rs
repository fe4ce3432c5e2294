//! Who carries frames, and the userspace datapath where that is this program.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use twill_backends::backend::Backend;
use twill_backends::fault::{Code, Fault};
use twill_backends::plan::Plan;
use twill_backends::state::{Datapath as Who, LinkName, Tunnel};

use super::carried::Carried;
use super::status::{DatapathStatus, TunnelStatus};
use crate::config::{DatapathConfig, DatapathMode};
use crate::datapath::parts::Parts;
use crate::datapath::peers::Peers;
use crate::datapath::{Datapath, Settings};
use crate::kernel::{Kernel, Used};
use crate::reconcile::Retry;

/// Keeps each tunnel device that the plan gives to this program served.
#[derive(Debug)]
pub(super) struct Carrying {
    config: DatapathConfig,
    who: Who,
    because: String,
    /// What the kernel was found to lack, once it was asked.
    kernel: Option<Result<(), String>>,
    /// What is to be served, and where its frames go and are counted: by whatever threads serve it meanwhile.
    want: BTreeMap<LinkName, (Tunnel, Arc<Peers>)>,
    /// Whether the peers changed since they were handed on.
    changed: bool,
    running: BTreeMap<LinkName, Datapath>,
    retry: Retry,
    faults: Vec<Fault>,
}

impl Carrying {
    pub(super) fn new(config: DatapathConfig) -> Self {
        Self {
            config,
            who: Who::Kernel,
            because: String::new(),
            kernel: None,
            want: BTreeMap::new(),
            changed: false,
            running: BTreeMap::new(),
            retry: Retry::default(),
            faults: Vec::new(),
        }
    }

    /// Decides who carries the frames of a backend. The kernel is asked once whether it can.
    pub(super) async fn choose<K: Kernel>(&mut self, backend: &dyn Backend, kernel: &K) {
        let Some(preferred) = backend.datapath() else { return };
        let (who, because) = match (self.config.mode, preferred) {
            (DatapathMode::Kernel, _) => (Who::Kernel, "--datapath kernel".to_owned()),
            (DatapathMode::Userspace, _) => (Who::Userspace, "--datapath userspace".to_owned()),
            (DatapathMode::Plain, _) => (Who::Userspace, "--datapath plain".to_owned()),
            (DatapathMode::Auto, Who::Userspace) => {
                (Who::Userspace, format!("what the {} backend prefers", backend.kind()))
            }
            (DatapathMode::Auto, Who::Kernel) => {
                if self.kernel.is_none() {
                    self.kernel = Some(kernel.vxlan().await);
                }
                match &self.kernel {
                    Some(Err(cause)) => {
                        (Who::Userspace, format!("the kernel makes no VXLAN devices here: {cause}"))
                    }
                    Some(Ok(())) | None => (Who::Kernel, "the kernel has VXLAN".to_owned()),
                }
            }
        };
        if because != self.because {
            tracing::info!(datapath = ?who, %because, "datapath");
        }
        (self.who, self.because) = (who, because);
    }

    /// Who carries frames.
    pub(super) const fn datapath(&self) -> Who {
        self.who
    }

    /// This is to be served from the next pass on.
    pub(super) fn want(&mut self, plan: &Plan) {
        let nobody = Peers::default();
        let had = |tunnel: &Tunnel| self.want.get(&tunnel.dev).map_or(&nobody, |(_, peers)| peers);
        let want = plan.tunnels().map(|(tunnel, table)| {
            let peers = Peers::after(had(tunnel), table, tunnel.pods);
            (tunnel.dev, (tunnel.clone(), Arc::new(peers)))
        });
        self.want = want.collect();
        self.changed = true;
        self.retry.restart();
    }

    /// When to try again what failed.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.retry.at()
    }

    /// Whether everything is served.
    pub(super) fn established(&self) -> bool {
        self.want.keys().all(|dev| self.running.contains_key(dev))
    }

    /// What fails.
    pub(super) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Serves what is to be served, and nothing else. `links`: whether the devices are as planned.
    pub(super) fn pass(&mut self, now: Instant, links: bool) {
        self.bury();
        let want = &self.want;
        self.running.retain(|dev, datapath| {
            want.get(dev).is_some_and(|(tunnel, _)| tunnel.vxlan == datapath.tunnel().vxlan)
        });
        if std::mem::take(&mut self.changed) {
            for (dev, datapath) in &self.running {
                want.get(dev).into_iter().for_each(|(_, peers)| datapath.set_peers(Arc::clone(peers)));
            }
        }
        if !links || self.retry.at().is_some_and(|at| at > now) {
            return;
        }
        let settings = self.settings();
        let mut faults = Vec::new();
        for (dev, (tunnel, peers)) in &self.want {
            if self.running.contains_key(dev) {
                continue;
            }
            match Datapath::open(tunnel, settings, Arc::clone(peers)) {
                Ok(datapath) => {
                    tracing::info!(%dev, port = tunnel.vxlan.port, offload = datapath.offload(), queues = datapath.queues(), "carrying frames");
                    self.running.insert(*dev, datapath);
                }
                Err(error) => {
                    faults.push(Fault::new(Code::DatapathFailed, dev.to_string(), error.to_string()));
                }
            }
        }
        self.settle(faults, now);
    }

    /// Serves what is to be served through the descriptors of another process, as far as they fit. What they do not
    /// fit is opened once that process has let go of it.
    pub(super) fn adopt(&mut self, mut parts: BTreeMap<LinkName, Parts>) {
        let settings = self.settings();
        for (dev, (tunnel, peers)) in &self.want {
            let Some(parts) = parts.remove(dev) else { continue };
            match Datapath::adopt(tunnel, settings, Arc::clone(peers), parts) {
                Ok(datapath) => {
                    tracing::info!(%dev, offload = datapath.offload(), "carrying frames through what was handed over");
                    self.running.insert(*dev, datapath);
                }
                Err(error) => {
                    tracing::warn!(%dev, %error, "what was handed over does not fit; frames will wait for moments");
                }
            }
        }
    }

    /// The descriptors of each device that is served, for a process that takes over.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&LinkName, &Parts)> {
        self.running.iter().map(|(dev, datapath)| (dev, datapath.parts()))
    }

    /// When frames last went to each peer, where this program carries them.
    pub(super) fn used(&self) -> Used {
        let each = self.running.iter();
        each.flat_map(|(dev, datapath)| datapath.used().into_iter().map(|(mac, at)| ((*dev, mac), at)))
            .collect()
    }

    /// Where what this program carries to and from each peer is counted.
    pub(super) fn carried(&self) -> Carried {
        Carried(self.want.values().map(|(_, peers)| Arc::clone(peers)).collect())
    }

    fn settings(&self) -> Settings {
        let DatapathConfig { mode, check_source, queues, .. } = self.config;
        Settings { offload: mode != DatapathMode::Plain, check_source, queues }
    }

    /// Takes note of threads that ended.
    fn bury(&mut self) {
        self.running.retain(|dev, datapath| {
            let Some(cause) = datapath.ended() else { return true };
            tracing::warn!(%dev, %cause, "the datapath ended; starting it again");
            false
        });
    }

    fn settle(&mut self, faults: Vec<Fault>, now: Instant) {
        if faults.is_empty() {
            self.retry.done();
        } else if self.retry.failed(now) {
            tracing::warn!(cause = %faults[0], "the datapath does not run; trying again");
        }
        self.faults = faults;
    }

    /// For `status`.
    pub(super) fn status(&self) -> DatapathStatus {
        let tunnels = self.running.iter().map(|(dev, datapath)| TunnelStatus {
            device: dev.to_string(),
            offload: datapath.offload(),
            queues: datapath.queues(),
            frames: datapath.counters().named(),
        });
        DatapathStatus {
            kind: match self.who {
                Who::Kernel => "kernel",
                Who::Userspace => "userspace",
            }
            .to_owned(),
            because: self.because.clone(),
            tunnels: tunnels.collect(),
            checksums: Vec::new(),
        }
    }
}
