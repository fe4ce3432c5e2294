//! Two hundred hosts on one etcd, ended and stopped at random; then what etcd remembers is held against what they
//! believed, by the properties of the model checker.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Client, EventType, WatchOptions};
use fastrand::Rng;
use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use tokio::time::{sleep, sleep_until, timeout};
use twill::store::table::{Record, Table};
use twill::store::{EtcdTable, Guarded, Held, LeaseAdmin, LeaseStore, StoreError, StoreEvent};
use twill_backends::errand::Setback;
use twill_backends::lease::{LeaseKey, Subnets};
use twill_backends::network::NetworkConfig;
use twill_backends::tenure::{Call, Standing, Tenure};

use crate::harness::{Etcd, PREFIX, attrs, etcd};
use crate::history::{Belief, Change, Left, Stamp, overwritten, shared, unfounded};

const HOSTS: u8 = 200;
/// Fewer than there are hosts, so that some wait for others to go.
const SUBNETS: usize = 190;
const NETWORK: &str = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.190.0",
    "EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}"#;
/// Long enough that a slow machine renews in time: leases end because somebody ends them.
const TTL: Duration = Duration::from_secs(30);
const CHAOS: Duration = Duration::from_secs(12);
/// How long a host is stopped, at most.
const PAUSE: Duration = Duration::from_secs(4);
/// How long it may take until everybody has what they can have: generous, for slow machines.
const CALM: Duration = Duration::from_secs(60);

type Store = Guarded<EtcdTable>;
/// An answer of the store, and its revision when that had come.
type Calling = BoxFuture<'static, Result<(Held, u64), StoreError>>;

/// What everybody believed, and what they believe at present.
#[derive(Debug)]
struct Book {
    beliefs: Vec<Belief>,
    present: Vec<Option<Belief>>,
}

#[tokio::test]
async fn two_hundred_hosts_never_share_a_subnet() {
    let etcd = etcd!();
    let seed = std::env::var("TWILL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("TWILL_SEED={seed}");
    etcd.store().set_config_text(NETWORK).await.unwrap();
    let network = NetworkConfig::parse(NETWORK).unwrap();
    let book = Rc::new(RefCell::new(Book { beliefs: Vec::new(), present: vec![None; HOSTS.into()] }));
    let end = Instant::now() + CHAOS;
    let hosts = (0..HOSTS).map(|number| {
        let rng = Rng::with_seed(seed.wrapping_add(number.into()));
        Host { number, network: network.clone(), book: Rc::clone(&book) }.suffer(&etcd, end, rng)
    });
    let all = async { tokio::join!(join_all(hosts), meddle(&etcd, end, Rng::with_seed(seed))) };
    let settled = async {
        sleep(CHAOS).await;
        while book.borrow().present.iter().flatten().count() < SUBNETS {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        _ = all => panic!("the hosts ended"),
        settled = timeout(CHAOS + CALM, settled) => {
            let held = book.borrow().present.iter().flatten().count();
            assert!(settled.is_ok(), "TWILL_SEED={seed}: {held} of {SUBNETS} subnets are held");
        }
    }
    let history = history(&etcd).await;
    let beliefs = std::mem::take(&mut book.borrow_mut().beliefs);
    println!("{} changes of leases, {} leases held", history.len(), beliefs.len());
    assert!(beliefs.len() > usize::from(HOSTS), "TWILL_SEED={seed}: hardly anything happened");
    for wrong in [unfounded(&history, &beliefs), shared(&history, &beliefs), overwritten(&history)] {
        assert_eq!(wrong, None, "TWILL_SEED={seed}");
    }
}

struct Host {
    number: u8,
    network: NetworkConfig,
    book: Rc<RefCell<Book>>,
}

impl Host {
    /// Processes follow one another until `end`, each ended in the middle of whatever it does, or stopped for a while,
    /// in which its lease may be given away. The last one goes on.
    async fn suffer(self, etcd: &Etcd, end: Instant, mut rng: Rng) {
        let mut session = 0;
        let mut previous = Subnets::NONE;
        loop {
            let store = Arc::new(Guarded::new(EtcdTable::with_ttl(etcd.config(), TTL)));
            session += 1;
            if session == 1 && rng.bool() {
                // An IPv6 subnet of its own, so that keys differ where IPv4 subnets are the same.
                previous.v6 = format!("fd00:5:0:{:x}::/64", rng.u16(300..)).parse().ok();
            }
            let mut life = pin!(self.live(&store, session, previous));
            loop {
                let run = Duration::from_millis(rng.u64(..10_000));
                let last = Instant::now() >= end;
                let run = if last { Duration::from_secs(3_600) } else { run };
                if timeout(run, &mut life).await.is_ok() || rng.bool() {
                    break;
                }
                sleep(PAUSE.mul_f64(rng.f64())).await;
            }
            if let Some(belief) = self.book.borrow_mut().present[usize::from(self.number)].take() {
                previous = belief.key.subnets().unwrap();
            }
            sleep(Duration::from_millis(rng.u64(..500))).await;
        }
    }

    /// An agent as far as its lease goes.
    async fn live(&self, store: &Arc<Store>, session: u32, previous: Subnets) {
        let mut own = attrs(self.number);
        own.session = Some(format!("{}-{session}", self.number));
        own.public_ipv6 = format!("fd00::{}", self.number).parse().ok();
        let mut tenure = Tenure::new(previous, Duration::ZERO);
        tenure.want(own);
        let mut events = pin!(store.watch());
        let mut calling: Option<Calling> = None;
        let mut at = 0;
        loop {
            let now = Instant::now();
            if calling.is_none() {
                calling =
                    tenure.next_call(now).map(|call| ask(Arc::clone(store), self.network.clone(), call));
            }
            let due = tenure.due(now).unwrap_or(now + TTL).min(now + TTL);
            let answer = async {
                match &mut calling {
                    Some(call) => call.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = events.next() => hear(&mut tenure, event),
                answer = answer => {
                    calling = None;
                    let answer = answer.map(|(held, revision)| {
                        at = revision;
                        held
                    });
                    tenure.answered(answer.map_err(Setback::from), Instant::now(), |n| Duration::from_millis(50 << n.min(5)));
                }
                () = sleep_until(due.into()) => {}
            }
            self.note(&mut tenure, at);
        }
    }

    fn note(&self, tenure: &mut Tenure, at: u64) {
        tenure.remarks();
        let belief = match tenure.standing() {
            Standing::Held(held) => Stamp::of(&held.lease.attrs).map(|who| Belief {
                who,
                key: held.lease.key.clone(),
                since: held.revision,
                at,
            }),
            _ => None,
        };
        let mut book = self.book.borrow_mut();
        let what = |belief: &Option<Belief>| belief.as_ref().map(|b| (b.who.clone(), b.key.clone(), b.since));
        if what(&book.present[usize::from(self.number)]) != what(&belief) {
            book.beliefs.extend(belief.clone());
            book.present[usize::from(self.number)] = belief;
        }
    }
}

fn ask(store: Arc<Store>, network: NetworkConfig, call: Call) -> Calling {
    Box::pin(async move {
        let held = match call {
            Call::Acquire(claim) => store.acquire(&claim, &network).await?,
            Call::Renew(held) => store.renew(&held).await?,
            Call::Publish(held, attrs) => store.publish(&held, &attrs).await?,
        };
        Ok((held, store.table().list().await?.revision.number))
    })
}

fn hear(tenure: &mut Tenure, event: StoreEvent) {
    let now = Instant::now();
    match event {
        StoreEvent::Snapshot { leases, revision, .. } => {
            let own = tenure.lease().map(|lease| lease.key.clone());
            let own = own.and_then(|key| leases.iter().find(|lease| lease.key == key));
            tenure.saw_snapshot(own, revision.number, now);
        }
        StoreEvent::Put(lease, revision) => tenure.saw_put(&lease, revision.number, now),
        StoreEvent::Delete(key, revision) => tenure.saw_delete(&key, revision.number, now),
        StoreEvent::Bad(key, _) => tenure.saw_delete(&key, u64::MAX, now),
        StoreEvent::Up => tenure.saw_store_back(now),
        StoreEvent::Down(_) | StoreEvent::Config(_) => {}
    }
}

/// Leases are deleted, and etcd leases end.
async fn meddle(etcd: &Etcd, end: Instant, mut rng: Rng) {
    let store = etcd.store();
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.u64(..150))).await;
        let records = store.table().list().await.unwrap().records;
        match rng.choice(&records) {
            Some(record) if rng.bool() => drop(store.revoke(&record.key).await.unwrap()),
            Some(Record { grant: Some(grant), .. }) => store.table().end(*grant).await,
            _ => {}
        }
    }
    std::future::pending().await
}

/// All changes of leases since etcd began, as it tells them itself.
async fn history(etcd: &Etcd) -> Vec<Change> {
    let mut client = Client::connect([etcd.url()], None).await.unwrap();
    let prefix = format!("{PREFIX}/subnets/");
    let until = client.get("none", None).await.unwrap().header().unwrap().revision();
    let options = WatchOptions::new().with_prefix().with_start_revision(1).with_progress_notify();
    let mut stream = client.watch(prefix.clone(), Some(options)).await.unwrap();
    let mut changes = Vec::new();
    loop {
        // Once all is told, there is nothing more to come but what the hosts still do, or nothing.
        let Ok(message) = timeout(Duration::from_secs(5), stream.message()).await else { return changes };
        let message = message.unwrap().unwrap();
        for event in message.events() {
            let kv = event.kv().unwrap();
            let key = LeaseKey::new(kv.key_str().unwrap().strip_prefix(&prefix).unwrap());
            let left =
                if event.event_type() == EventType::Put { Left::by(kv.value()) } else { Left::Nothing };
            changes.push(Change { revision: kv.mod_revision().unsigned_abs(), key, left });
        }
        if changes.last().is_some_and(|last| i64::try_from(last.revision).unwrap() >= until) {
            return changes;
        }
    }
}
