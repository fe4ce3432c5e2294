//! What an agent says of itself.

mod guard;
mod history;
mod network;
mod peer;
mod readiness;
mod traffic;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::guard::GuardStatus;
pub use self::history::HistoryStatus;
pub use self::network::{ChecksumStatus, DatapathStatus, NetworkStatus, PoolStatus, TunnelStatus};
pub use self::peer::{FamilyStatus, PeerStatus, ProbeStatus, WayStatus};
pub use self::readiness::Readiness;
pub use self::traffic::TrafficStatus;
use crate::reconcile::{Durations, Tally};
use crate::style::duration;

/// The version of [`Status`] and of the requests; grows when a field changes its meaning or goes.
pub const VERSION: u32 = 1;

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The answer in one word.
    pub state: State,
    /// The version of the program.
    pub build: String,
    /// The process.
    pub pid: u32,
    /// How long it has run, in seconds.
    pub uptime_s: u64,
    /// How old this is, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// What `/readyz` says.
    #[serde(default)]
    pub readiness: Readiness,
    /// The node id.
    pub node: String,
    /// The instance: what links and tables of ours are marked with.
    pub instance: String,
    /// Where leases live.
    pub store: StoreStatus,
    /// The underlay, once there is one.
    pub underlay: Option<UnderlayStatus>,
    /// The network, once its configuration is known.
    pub network: Option<NetworkStatus>,
    /// The own lease, once there is one.
    pub lease: Option<LeaseStatus>,
    /// The other hosts.
    pub peers: Vec<PeerStatus>,
    /// What is wrong.
    pub faults: Vec<FaultStatus>,
    /// What was done to the kernel.
    pub reconcile: ReconcileStatus,
    /// What was wrong.
    #[serde(default)]
    pub history: HistoryStatus,
}

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All is as wanted.
    Ok,
    /// Packets flow, and something needs somebody's attention.
    Degraded,
    /// Not ready: no lease, or the kernel is not as wanted yet.
    Failed,
}

/// Where leases live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StoreStatus {
    /// The store and its place.
    pub place: String,
    /// Whether it answers.
    pub connected: bool,
    /// The last revision seen.
    pub revision: u64,
    /// How long it has been away, or else how long the oldest change of it waits for the kernel, in seconds.
    #[serde(default)]
    pub lag_s: f64,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// The underlay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnderlayStatus {
    /// The interface.
    pub interface: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The addresses that are published.
    pub public: Vec<String>,
}

/// The own lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeaseStatus {
    /// Its key.
    pub key: String,
    /// Its subnets.
    pub subnets: Vec<String>,
    /// `held`, `remembered`, `lost` or `parked`.
    pub standing: String,
    /// How long it lives without renewal, in seconds; `None` for a reservation.
    pub expires_in_s: Option<u64>,
}

/// A complaint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FaultStatus {
    /// Its kind: stable, for scripts.
    pub code: String,
    /// What it is about.
    pub subject: String,
    /// The cause.
    pub cause: String,
    /// What to do about it.
    pub next: String,
}

/// What was done to the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReconcileStatus {
    /// Whether the kernel is believed to be as wanted.
    pub converged: bool,
    /// Counts since the start.
    pub tally: Tally,
    /// How often something was repaired that nobody had asked to change.
    pub repairs: u64,
    /// The same by what was repaired.
    #[serde(default)]
    pub repaired: BTreeMap<String, u64>,
    /// How many other hosts the kernel leads to.
    #[serde(default)]
    pub programmed: usize,
    /// How long the passes took.
    #[serde(default)]
    pub durations: Durations,
}

impl Status {
    /// Whether something happened since `before` but that time passed.
    #[must_use]
    pub fn is_news_after(&self, before: &Self) -> bool {
        let timeless = |status: &Self| {
            let lease = status.lease.clone().map(|lease| LeaseStatus { expires_in_s: None, ..lease });
            Self { uptime_s: 0, age_ms: 0, lease, ..status.clone() }
        };
        timeless(self) != timeless(before)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10}{}, up {}, pid {}", "state", self.state, duration(self.uptime_s), self.pid)?;
        writeln!(f, "{:<10}{} (instance {}, twill {})", "node", self.node, self.instance, self.build)?;
        let store = &self.store;
        match &store.error {
            _ if store.connected => {
                writeln!(f, "{:<10}{}, revision {}", "store", store.place, store.revision)?
            }
            Some(error) => writeln!(f, "{:<10}{}: {error}", "store", store.place)?,
            None => writeln!(f, "{:<10}{}: not connected yet", "store", store.place)?,
        }
        if let Some(network) = &self.network {
            let nets = network.networks.join(", ");
            writeln!(
                f,
                "{:<10}{nets}, {}, MTU {}, {}",
                "network", network.backend, network.mtu, network.firewall
            )?;
        }
        if let Some(datapath) = self.network.as_ref().and_then(|network| network.datapath.as_ref()) {
            write!(f, "{datapath}")?;
        }
        if let Some(guard) = self.network.as_ref().and_then(|network| network.guard.as_ref()) {
            write!(f, "{guard}")?;
        }
        if let Some(underlay) = &self.underlay {
            let public = underlay.public.join(", ");
            writeln!(
                f,
                "{:<10}{} MTU {}, published as {public}",
                "underlay", underlay.interface, underlay.mtu
            )?;
        }
        if let Some(lease) = &self.lease {
            let term = lease.expires_in_s.map_or("for ever".to_owned(), |s| format!("for {}", duration(s)));
            writeln!(f, "{:<10}{}, {} {term}", "lease", lease.subnets.join(", "), lease.standing)?;
        }
        let r = &self.reconcile;
        let settled = if r.converged { "as wanted" } else { "not as wanted yet" };
        let (passes, operations) = (r.tally.passes, r.tally.operations);
        writeln!(
            f,
            "{:<10}{settled}; {passes} passes, {operations} operations, {} repairs",
            "kernel", r.repairs
        )?;
        writeln!(f, "{:<10}{}", "peers", self.peers.len())?;
        for peer in &self.peers {
            write!(f, "{peer}")?;
        }
        for fault in &self.faults {
            writeln!(
                f,
                "fault     {} {}: {}\n          next: {}",
                fault.code, fault.subject, fault.cause, fault.next
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use twill_backends::probe::Verdict;

    use super::*;

    pub(crate) fn status() -> Status {
        Status {
            version: VERSION,
            state: State::Degraded,
            build: "0.1.0".to_owned(),
            pid: 4711,
            uptime_s: 7_265,
            age_ms: 0,
            readiness: Readiness { ready: true, ..Readiness::default() },
            node: "0d6e".to_owned(),
            instance: "ff82d74b".to_owned(),
            store: StoreStatus {
                place: "etcd http://10.0.0.1:2379".to_owned(),
                connected: true,
                revision: 42,
                lag_s: 0.0,
                error: None,
            },
            underlay: Some(UnderlayStatus {
                interface: "eth0".to_owned(),
                mtu: 1500,
                public: vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()],
            }),
            network: Some(network()),
            lease: Some(LeaseStatus {
                key: "10.5.1.0-24".to_owned(),
                subnets: vec!["10.5.1.0/24".to_owned()],
                standing: "held".to_owned(),
                expires_in_s: Some(80_000),
            }),
            peers: vec![peer("10.5.2.0-24", Some("1f2e"), false), peer("10.5.3.0-24", None, true)],
            faults: vec![FaultStatus {
                code: "deletions-held".to_owned(),
                subject: "leases".to_owned(),
                cause: "the store was made anew".to_owned(),
                next: "nothing if peers come back".to_owned(),
            }],
            reconcile: ReconcileStatus {
                converged: true,
                tally: Tally { passes: 3, operations: 12, ..Tally::default() },
                repairs: 1,
                repaired: BTreeMap::from([("route".to_owned(), 1)]),
                programmed: 2,
                durations: Durations::default(),
            },
            history: HistoryStatus::default(),
        }
    }

    fn network() -> NetworkStatus {
        NetworkStatus {
            networks: vec!["10.5.0.0/16".to_owned(), "fd00:5::/48".to_owned()],
            backend: "vxlan".to_owned(),
            mtu: 1430,
            firewall: "nftables".to_owned(),
            datapath: None,
            guard: Some(GuardStatus {
                port: 8472,
                checks: vec!["outer".to_owned(), "inner".to_owned()],
                senders: 2,
                in_force: true,
                dropped: BTreeMap::from([("forged".to_owned(), 0), ("strangers".to_owned(), 7)]),
            }),
            pools: vec![PoolStatus { network: "10.5.0.0/16".to_owned(), size: 255, leased: 3 }],
            devices: vec!["flannel.1".to_owned()],
        }
    }

    fn peer(key: &str, node: Option<&str>, held: bool) -> PeerStatus {
        PeerStatus {
            key: key.to_owned(),
            node: node.map(str::to_owned),
            public: vec!["192.0.2.9".to_owned()],
            backend: "vxlan".to_owned(),
            held,
            probe: node.map(|_| probe()),
            traffic: node.map(|_| traffic()),
        }
    }

    fn traffic() -> TrafficStatus {
        TrafficStatus {
            received_packets: 20,
            received_bytes: 3_000,
            sent_packets: Some(10),
            sent_bytes: Some(1_500),
            dropped: BTreeMap::from([("oversize".to_owned(), 2)]),
        }
    }

    fn probe() -> ProbeStatus {
        let way = |way: &str, loss| WayStatus {
            way: way.to_owned(),
            family: "ipv4".to_owned(),
            address: "192.0.2.9".to_owned(),
            up: Some(true),
            rtt_p50_us: Some(312),
            rtt_p99_us: Some(1_249),
            loss: Some(loss),
            loss_there: None,
            mtu: Some(1_400),
            sent: 64,
            answered: 62,
            answer_age_ms: Some(400),
        };
        ProbeStatus {
            verdict: Verdict::Ok,
            cause: String::new(),
            since_s: Some(754),
            path: "kernel".to_owned(),
            mtu: 1_350,
            mtu_wanted: 1_450,
            ways: vec![way("overlay", 0.0), way("underlay", 0.03125)],
            families: vec![FamilyStatus {
                family: "ipv4".to_owned(),
                verdict: Verdict::Ok,
                cause: String::new(),
                since_s: 754,
                mtu: 1_350,
                mtu_wanted: 1_450,
            }],
        }
    }

    #[test]
    fn people_read_this() {
        let text = "\
state     degraded, up 2h1m, pid 4711
node      0d6e (instance ff82d74b, twill 0.1.0)
store     etcd http://10.0.0.1:2379, revision 42
network   10.5.0.0/16, fd00:5::/48, vxlan, MTU 1430, nftables
guard     UDP 8472: 2 may send, outer and inner source checked; dropped forged 0, strangers 7
underlay  eth0 MTU 1500, published as 192.0.2.1, 2001:db8::1
lease     10.5.1.0/24, held for 22h13m
kernel    as wanted; 3 passes, 12 operations, 1 repairs
peers     2
  10.5.2.0-24             192.0.2.9           vxlan    1f2e
                          ok for 12m34s, 0.3 ms (p99 1.2), 3 % lost, MTU 1350
  10.5.3.0-24             192.0.2.9           vxlan    flanneld  gone from the store, held
fault     deletions-held leases: the store was made anew
          next: nothing if peers come back
";
        assert_eq!(status().to_string(), text);
    }

    #[test]
    fn an_agent_that_knows_nothing_yet_says_so() {
        let status = Status {
            state: State::Failed,
            uptime_s: 0,
            store: StoreStatus { connected: false, revision: 0, error: None, ..status().store },
            underlay: None,
            network: None,
            lease: None,
            peers: Vec::new(),
            faults: Vec::new(),
            reconcile: ReconcileStatus {
                converged: false,
                tally: Tally::default(),
                repairs: 0,
                ..status().reconcile
            },
            ..status()
        };
        let text = "\
state     failed, up 0s, pid 4711
node      0d6e (instance ff82d74b, twill 0.1.0)
store     etcd http://10.0.0.1:2379: not connected yet
kernel    not as wanted yet; 0 passes, 0 operations, 0 repairs
peers     0
";
        assert_eq!(status.to_string(), text);
        let reserved = Status {
            store: StoreStatus { error: Some("refused".to_owned()), ..status.store.clone() },
            lease: self::status().lease.map(|lease| LeaseStatus { expires_in_s: None, ..lease }),
            ..status
        };
        let text = reserved.to_string();
        assert!(text.contains("held for ever\n") && text.contains(":2379: refused\n"), "{text}");
    }

    #[test]
    fn that_time_passed_is_no_news() {
        let (before, mut after) = (status(), status());
        (after.uptime_s, after.age_ms) = (8_000, 12);
        after.lease.as_mut().unwrap().expires_in_s = Some(7);
        assert!(!after.is_news_after(&before));
        after.reconcile.repairs += 1;
        assert!(after.is_news_after(&before));
    }

    #[test]
    fn programs_read_back_what_was_written() {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!((&json["state"], &json["version"]), (&"degraded".into(), &VERSION.into()));
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status());
    }

    /// `BLESS=1 cargo test --lib schema` writes it.
    #[test]
    fn the_published_schema_is_that_of_the_status() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/monitoring/status.schema.json");
        let schema = format!("{:#}\n", schemars::schema_for!(Status).as_value());
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &schema).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap_or_default() == schema, "{path} should read:\n{schema}");
    }
}
