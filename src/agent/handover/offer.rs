//! What a running agent tells its successor.

use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use twill_backends::lease::Lease;
use twill_backends::record::{Held, Term};
use twill_backends::tenure::{Holding, Standing, Tenure};
use uuid::Uuid;

use super::{OFFER, network_namespace};
use crate::agent::identity::Identity;
use crate::agent::memory::Memory;

/// What the successor goes on from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offer {
    version: u32,
    /// The node: a successor with another one is none.
    pub(super) node: Uuid,
    /// The network namespace: likewise.
    pub(super) namespace: u64,
    /// What the lease was written with.
    pub(super) session: Uuid,
    /// Whether containers can be started.
    pub(super) ready: bool,
    /// What is known, once there is a plan.
    pub(super) known: Option<Known>,
    /// What the descriptors are, in their order.
    pub(super) things: Vec<Thing>,
}

/// What a plan is made of, and the term of the lease.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    /// The snapshot, as it is kept on disk.
    memory: Value,
    standing: Stood,
}

/// Where the host stands with the lease of the snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stood {
    Held(Stored),
    Remembered,
    /// Lost, or another host's: nothing may be announced of it before it is claimed again.
    Lost,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    key: String,
    value: Value,
    revision: u64,
    /// The store's name for what is renewed; `None` for a reservation.
    grant: Option<i64>,
    ttl_ms: u64,
    renew_in_ms: Option<u64>,
    expires_in_ms: Option<u64>,
}

/// What a descriptor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Thing {
    /// The instance's lock.
    Lock,
    /// The listener of the agent's socket.
    Socket,
    /// The listener of the unix socket of the HTTP endpoints.
    Http,
    /// The listener for health.
    Health,
    /// The listener for the page; there is none without `--ui-listen`.
    Page,
    /// A queue of this TAP device.
    Tap(String),
    /// A UDP socket of this tunnel device.
    Udp(String),
}

impl Offer {
    pub(super) fn new(identity: &Identity, ready: bool, known: Option<Known>) -> Self {
        let Identity { node, session } = *identity;
        Self {
            version: OFFER,
            node,
            namespace: network_namespace(),
            session,
            ready,
            known,
            things: Vec::new(),
        }
    }

    /// Reads an offer.
    ///
    /// # Errors
    /// It is of another version; says which.
    pub(super) fn read(value: Value) -> Result<Self, String> {
        let theirs = value.get("version").and_then(Value::as_u64);
        if theirs != Some(OFFER.into()) {
            let theirs = theirs.map_or("none".to_owned(), |version| version.to_string());
            return Err(format!("its offer has version {theirs}, and this program understands {OFFER}"));
        }
        serde_json::from_value(value).map_err(|error| format!("its offer is not understood: {error}"))
    }
}

impl Known {
    /// What `memory` and `tenure` say.
    ///
    /// # Errors
    /// It cannot be written down.
    pub(super) fn new(memory: &Memory, tenure: &Tenure, now: Instant) -> io::Result<Self> {
        let standing = match (tenure.holding(), tenure.standing()) {
            (Some(holding), _) => Stood::Held(Stored::new(&holding, now)?),
            (None, Standing::Remembered(_)) => Stood::Remembered,
            (None, _) => Stood::Lost,
        };
        Ok(Self { memory: serde_json::from_slice(&memory.encode()?)?, standing })
    }

    /// Reads it back: the snapshot, and into a tenure that knows nothing yet where the host stands.
    ///
    /// # Errors
    /// A lease does not decode.
    pub(super) fn read(self, tenure: &mut Tenure, now: Instant) -> io::Result<Memory> {
        let memory = Memory::decode(&serde_json::to_vec(&self.memory)?)?;
        match (self.standing, memory.own.clone()) {
            (Stood::Held(stored), _) => tenure.go_on(stored.read(now)?),
            (Stood::Remembered, Some(own)) => tenure.remember(own, memory.expires_at(now)),
            (Stood::Lost, Some(own)) => tenure.go_on_without(own, now),
            (Stood::Remembered | Stood::Lost, None) => {}
        }
        Ok(memory)
    }
}

impl Stored {
    fn new(holding: &Holding, now: Instant) -> io::Result<Self> {
        let Held { lease, revision, term } = &holding.held;
        let left = |at: Option<Instant>| at.map(|at| millis(at.saturating_duration_since(now)));
        let (grant, ttl) = match term {
            Term::Permanent => (None, Duration::ZERO),
            Term::Renewable { grant, ttl } => (Some(*grant), *ttl),
        };
        Ok(Self {
            key: lease.key.to_string(),
            value: serde_json::from_slice(&lease.attrs.encode())?,
            revision: *revision,
            grant,
            ttl_ms: millis(ttl),
            renew_in_ms: left(holding.renew_at),
            expires_in_ms: left(holding.expires_at),
        })
    }

    fn read(self, now: Instant) -> io::Result<Holding> {
        let lease = Lease::decode(&self.key, self.value.to_string().as_bytes())
            .map_err(|fault| io::Error::other(fault.to_string()))?;
        let ttl = Duration::from_millis(self.ttl_ms);
        let term = self.grant.map_or(Term::Permanent, |grant| Term::Renewable { grant, ttl });
        let after = |millis: Option<u64>| millis.map(|millis| now + Duration::from_millis(millis));
        Ok(Holding {
            held: Held { lease, revision: self.revision, term },
            renew_at: after(self.renew_in_ms),
            expires_at: after(self.expires_in_ms),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use twill_backends::family::PerFamily;
    use twill_backends::lease::{Attrs, Subnets};
    use twill_backends::network::NetworkConfig;

    use super::*;
    use crate::store::Revision;

    fn tenure(term: Term, now: Instant) -> (Tenure, Lease) {
        let value = br#"{"PublicIP":"192.0.2.1","BackendType":"vxlan","NodeID":"n1","Session":"s1"}"#;
        let lease = Lease::decode("10.5.1.0-24", value).unwrap();
        let mut tenure = Tenure::new(lease.subnets, Duration::from_secs(60));
        tenure.want(Attrs { session: Some("s1".to_owned()), ..lease.attrs.clone() });
        tenure.next_call(now).unwrap();
        tenure.answered(Ok(Held { lease: lease.clone(), revision: 7, term }), now, |_| Duration::ZERO);
        (tenure, lease)
    }

    fn memory(lease: &Lease) -> Memory {
        Memory {
            config: NetworkConfig::parse(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap(),
            own: Some(lease.clone()),
            expires: None,
            leases: vec![lease.clone()],
            limits: BTreeMap::new(),
            choices: PerFamily::NONE,
            revision: Revision { cluster: 3, number: 9 },
        }
    }

    const IDENTITY: Identity = Identity { node: Uuid::nil(), session: Uuid::max() };

    #[test]
    fn what_is_offered_is_read_back() {
        let now = Instant::now();
        let ttl = Duration::from_secs(90);
        for term in [Term::Permanent, Term::Renewable { grant: -5, ttl }] {
            let (tenure, lease) = tenure(term, now);
            let memory = memory(&lease);
            let later = now + Duration::from_secs(10);
            let known = Known::new(&memory, &tenure, later).unwrap();
            let mut offer = Offer::new(&IDENTITY, true, Some(known));
            offer.things = vec![Thing::Lock, Thing::Tap("flannel.1".to_owned())];
            let text = serde_json::to_string(&offer).unwrap();
            let read = Offer::read(serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!((read.session, read.ready, &read.things), (Uuid::max(), true, &offer.things));
            let mut heir = Tenure::new(Subnets::default(), Duration::ZERO);
            assert_eq!(read.known.unwrap().read(&mut heir, later).unwrap(), memory);
            assert_eq!((heir.standing(), heir.holding()), (tenure.standing(), tenure.holding()));
            assert_eq!((heir.had(), heir.expires_at()), (tenure.had(), tenure.expires_at()));
        }
    }

    #[test]
    fn a_lease_that_is_lost_stays_lost_and_one_that_is_remembered_remembered() {
        let now = Instant::now();
        let pass_on = |tenure: &Tenure, lease: &Lease| {
            let mut heir = Tenure::new(Subnets::default(), Duration::ZERO);
            Known::new(&memory(lease), tenure, now).unwrap().read(&mut heir, now).unwrap();
            heir
        };
        let (mut tenure, lease) = tenure(Term::Permanent, now);
        tenure.saw_delete(&lease.key, 8, now);
        assert_eq!(pass_on(&tenure, &lease).standing(), &Standing::Lost(lease.clone()));
        let mut tenure = Tenure::new(Subnets::default(), Duration::ZERO);
        tenure.remember(lease.clone(), None);
        assert_eq!(pass_on(&tenure, &lease).standing(), &Standing::Remembered(lease));
    }

    #[test]
    fn an_offer_that_is_not_wholly_understood_is_refused() {
        let good = serde_json::to_value(Offer::new(&IDENTITY, false, None)).unwrap();
        Offer::read(good.clone()).unwrap();
        let with = |key: &str, value: Value| {
            let mut changed = good.clone();
            changed[key] = value;
            changed
        };
        for (value, why) in [
            (with("version", json!(OFFER + 1)), "version 3"),
            (with("version", json!("1")), "version none"),
            (json!({}), "version none"),
            (json!(null), "version none"),
            (with("more", json!(1)), "unknown field `more`"),
            (with("things", json!(["engine"])), "unknown variant `engine`"),
            (with("known", json!({ "memory": {}, "standing": "lost", "x": 1 })), "unknown field `x`"),
        ] {
            let error = Offer::read(value.clone()).unwrap_err();
            assert!(error.contains(why), "{value}: {error}");
        }
    }

    #[test]
    fn knowledge_that_does_not_decode_is_an_error() {
        let known = Known { memory: json!({ "version": 9 }), standing: Stood::Lost };
        let mut tenure = Tenure::new(Subnets::default(), Duration::ZERO);
        assert!(known.read(&mut tenure, Instant::now()).is_err());
    }
}
