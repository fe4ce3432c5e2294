//! The files an agent keeps: subnet.env for CNI plugins, and the snapshot for its own next start.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use twill_backends::fault::{Code, Fault};

use super::memory::Memory;
use super::{Agent, World};
use crate::subnet_env::SubnetEnv;

/// The shortest time between two writes of the snapshot.
const PAUSE: Duration = Duration::from_secs(1);

/// The files, and whether they are as wanted.
#[derive(Debug)]
pub(super) struct Papers {
    env: PathBuf,
    snapshot: PathBuf,
    written: bool,
    /// What subnet.env was made to say last.
    said: Option<String>,
    repairs: u64,
    env_fault: Option<Fault>,
    snapshot_fault: Option<Fault>,
    /// When the snapshot is to be written: it changed, and the last write is long enough ago.
    save_at: Option<Instant>,
    saved_at: Option<Instant>,
}

impl Papers {
    pub(super) const fn new(env: PathBuf, snapshot: PathBuf) -> Self {
        Self {
            env,
            snapshot,
            written: false,
            said: None,
            repairs: 0,
            env_fault: None,
            snapshot_fault: None,
            save_at: None,
            saved_at: None,
        }
    }

    /// What the last run of this node knew. A corrupt file counts as none, and is reported; so is one that another
    /// node wrote, which came with a cloned disk: its lease is the original's.
    pub(super) fn recall(&self, node: &str) -> Option<Memory> {
        let memory = Memory::load(&self.snapshot).unwrap_or_else(|error| {
            tracing::warn!(file = %self.snapshot.display(), %error, "the last snapshot cannot be used; starting without");
            None
        })?;
        let of = memory.own.as_ref().and_then(|own| own.attrs.node_id.as_deref());
        if let Some(other) = of.filter(|of| *of != node) {
            tracing::warn!(file = %self.snapshot.display(), other, "the last snapshot is another node's; starting without");
            return None;
        }
        Some(memory)
    }

    /// Whether subnet.env stands as wanted.
    pub(super) const fn written(&self) -> bool {
        self.written
    }

    /// How often somebody else had changed or removed subnet.env.
    pub(super) const fn repairs(&self) -> u64 {
        self.repairs
    }

    pub(super) fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.env_fault.iter().chain(&self.snapshot_fault)
    }

    /// When the snapshot is to be written, once there is one.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.save_at
    }

    /// What the snapshot holds changed.
    pub(super) fn touch(&mut self) {
        let next = self.saved_at.map_or_else(crate::now, |at| at + PAUSE);
        self.save_at = self.save_at.or(Some(next));
    }

    /// Writes subnet.env unless it says so already. Returns whether it had to be written.
    pub(super) fn keep_env(&mut self, want: &SubnetEnv) -> bool {
        let text = want.to_string();
        if std::fs::read_to_string(&self.env).is_ok_and(|found| found == text) {
            (self.written, self.said) = (true, Some(text));
            note(&mut self.env_fault, None);
            return false;
        }
        let failed = want.write(&self.env).err();
        let fault = failed
            .map(|error| Fault::new(Code::FileFailed, self.env.display().to_string(), error.to_string()));
        self.written = fault.is_none();
        note(&mut self.env_fault, fault);
        if self.written {
            self.repairs += u64::from(self.said.as_ref() == Some(&text));
            self.said = Some(text);
        }
        self.written
    }

    /// Removes subnet.env, so that no container is started without a fabric. Returns whether it was there.
    pub(super) fn remove_env(&self) -> io::Result<bool> {
        match std::fs::remove_file(&self.env) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the snapshot if it is due.
    pub(super) fn keep_snapshot(&mut self, now: Instant, memory: impl FnOnce() -> Option<Memory>) {
        if self.save_at.is_none_or(|at| at > now) {
            return;
        }
        self.save_at = None;
        let Some(memory) = memory() else { return };
        self.saved_at = Some(now);
        let failed = memory.save(&self.snapshot).err();
        if failed.is_some() {
            self.save_at = Some(now + PAUSE);
        }
        let subject = || self.snapshot.display().to_string();
        let fault = failed.map(|error| Fault::new(Code::FileFailed, subject(), error.to_string()));
        note(&mut self.snapshot_fault, fault);
    }
}

impl<W: World> Agent<W> {
    /// Keeps subnet.env and the snapshot as they should be.
    pub(super) fn keep_papers(&mut self, now: Instant) {
        let Some(plan) = &self.plan else { return };
        if self.may_announce_subnet(now) {
            let own = plan.own();
            let env = SubnetEnv {
                networks: own.network.pools.map(|_, pool| pool.network),
                subnets: own.subnets,
                mtu: plan.backend().mtu(plan.host()),
                masquerade: self.config.filter.masquerade,
            };
            if self.papers.keep_env(&env) {
                tracing::info!(file = %self.config.subnet_file.display(), "subnet file written");
            }
        }
        if self.is_worth_keeping() && self.papers.due().is_some_and(|at| at <= now) {
            let memory = self.known(now);
            self.papers.keep_snapshot(now, || memory);
        }
    }

    /// What is known, for the next start or for a process that takes over.
    pub(super) fn known(&self, now: Instant) -> Option<Memory> {
        let left = self.tenure.expires_at().map(|at| at.saturating_duration_since(now));
        Some(Memory {
            config: self.network.clone()?,
            own: self.tenure.lease().cloned(),
            expires: left.map(|left| SystemTime::now() + left),
            leases: self.leases.of_hosts().cloned().collect(),
            limits: self.probing.limits().clone(),
            choices: self.trying.choices().clone(),
            revision: self.store.revision,
        })
    }

    /// Whether what is known is good for the next start. While deletions are held the store is not trusted, so the
    /// snapshot from before stays: by its revision a restart notices the same.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.snapshot && self.plan.is_some() && self.leases.held_because().is_none()
    }
}

/// Replaces a fault, and logs when it changes.
fn note(slot: &mut Option<Fault>, fault: Option<Fault>) {
    if *slot != fault {
        match &fault {
            Some(fault) => tracing::warn!(%fault, "a file could not be written; trying again"),
            None => tracing::info!("files can be written again"),
        }
        *slot = fault;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use tempfile::TempDir;
    use twill_backends::family::PerFamily;
    use twill_backends::lease::Lease;
    use twill_backends::network::NetworkConfig;

    use super::*;
    use crate::store::Revision;

    const NODE: &str = "node-1";

    fn papers() -> (Papers, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Papers::new(dir.path().join("run/subnet.env"), dir.path().join("state/snapshot.json")), dir)
    }

    fn env(mtu: u32) -> SubnetEnv {
        let net = |text: &str| PerFamily { v4: text.parse().ok(), v6: None };
        SubnetEnv { networks: net("10.5.0.0/16"), subnets: net("10.5.1.0/24"), mtu, masquerade: true }
    }

    fn memory() -> Option<Memory> {
        let config = NetworkConfig::parse(r#"{"Network":"10.5.0.0/16"}"#).unwrap();
        let revision = Revision { cluster: 1, number: 1 };
        Some(Memory {
            config,
            own: None,
            expires: None,
            leases: Vec::new(),
            limits: BTreeMap::new(),
            choices: PerFamily::NONE,
            revision,
        })
    }

    fn codes(papers: &Papers) -> Vec<Code> {
        papers.faults().map(|fault| fault.code).collect()
    }

    #[test]
    fn a_file_that_is_right_is_no_complaint_whoever_wrote_it() {
        let (mut papers, dir) = papers();
        fs::write(dir.path().join("run"), "no directory").unwrap();
        assert!(!papers.keep_env(&env(1450)));
        assert_eq!((papers.written(), papers.faults().count()), (false, 1));
        fs::remove_file(dir.path().join("run")).unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(&papers.env, env(1450).to_string()).unwrap();
        assert!(!papers.keep_env(&env(1450)));
        assert_eq!((papers.written(), papers.faults().count()), (true, 0));
    }

    #[test]
    fn subnet_env_is_written_when_it_differs() {
        let (mut papers, _dir) = papers();
        assert!(!papers.written());
        assert!(papers.keep_env(&env(1450)) && papers.written());
        assert!(!papers.keep_env(&env(1450)));
        assert!(papers.keep_env(&env(1400)));
        assert_eq!(papers.repairs(), 0, "nobody else wrote it");
        fs::write(&papers.env, "FLANNEL_MTU=9000\n").unwrap();
        assert!(papers.keep_env(&env(1400)));
        assert_eq!(papers.repairs(), 1);
        assert_eq!(fs::read_to_string(&papers.env).unwrap(), env(1400).to_string());
        assert!(papers.remove_env().unwrap() && !papers.remove_env().unwrap());
    }

    #[test]
    fn files_that_cannot_be_written_are_faults_until_they_can() {
        let (mut papers, dir) = papers();
        fs::write(dir.path().join("run"), "").unwrap();
        fs::write(dir.path().join("state"), "").unwrap();
        papers.touch();
        let now = crate::now();
        assert!(!papers.keep_env(&env(1450)) && !papers.written());
        papers.keep_snapshot(now, memory);
        assert_eq!(codes(&papers), [Code::FileFailed, Code::FileFailed]);
        assert_eq!(papers.due(), Some(now + PAUSE), "it is tried again");
        fs::remove_file(dir.path().join("run")).unwrap();
        fs::remove_file(dir.path().join("state")).unwrap();
        assert!(papers.keep_env(&env(1450)) && papers.written());
        papers.keep_snapshot(now + PAUSE, memory);
        assert_eq!((codes(&papers), papers.recall(NODE)), (vec![], memory()));
    }

    /// `/dev/full` has no room for anything.
    #[test]
    fn a_full_disk_keeps_the_old_file() {
        let (mut papers, _dir) = papers();
        papers.keep_env(&env(1450));
        let temp = papers.env.with_file_name(format!(".subnet.env.{}", std::process::id()));
        std::os::unix::fs::symlink("/dev/full", temp).unwrap();
        assert!(!papers.keep_env(&env(1400)));
        assert!(papers.faults().next().unwrap().cause.contains("No space left"), "{:?}", papers.env_fault);
        assert_eq!(fs::read_to_string(&papers.env).unwrap(), env(1450).to_string());
        assert!(papers.keep_env(&env(1400)), "what was left beside it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn the_snapshot_is_written_at_most_once_a_second() {
        let (mut papers, _dir) = papers();
        assert_eq!((papers.due(), papers.recall(NODE)), (None, None));
        let now = crate::now();
        papers.touch();
        assert_eq!(papers.due(), Some(now));
        papers.keep_snapshot(now, memory);
        assert_eq!((papers.due(), papers.recall(NODE)), (None, memory()));
        papers.touch();
        papers.touch();
        assert_eq!(papers.due(), Some(now + PAUSE));
        papers.keep_snapshot(now, || panic!("too early"));
        papers.keep_snapshot(now + PAUSE, memory);
        assert_eq!(papers.due(), None);
    }

    #[test]
    fn a_corrupt_snapshot_counts_as_none() {
        let (papers, dir) = papers();
        fs::create_dir(dir.path().join("state")).unwrap();
        fs::write(&papers.snapshot, "junk").unwrap();
        assert_eq!(papers.recall(NODE), None);
    }

    #[test]
    fn another_nodes_snapshot_counts_as_none() {
        let (papers, _dir) = papers();
        let own = Lease::decode("10.5.1.0-24", br#"{"PublicIP":"192.0.2.1","NodeID":"us"}"#).unwrap();
        let memory = Memory { own: Some(own), ..memory().unwrap() };
        memory.save(&papers.snapshot).unwrap();
        assert_eq!(papers.recall("them"), None);
        assert_eq!(papers.recall("us"), Some(memory));
    }
}
