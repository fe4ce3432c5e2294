//! etcd stopped, frozen, cut off, compacted, wiped, restored.

use std::time::Duration;

use nix::sys::signal::Signal;
use twill::store::table::Table;
use twill::store::{LeaseAdmin, LeaseStore, Revision, StoreError, StoreEvent};

use crate::harness::{CONFIG, Events, claim, delete, etcd, flannels, put, store};
use crate::proxy::Proxy;

#[tokio::test]
async fn a_restart_is_down_up_and_a_snapshot() {
    let mut etcd = etcd!();
    let store = etcd.store();
    store.set_config_text(CONFIG).await.unwrap();
    let network = store.config().await.unwrap();
    let held = store.acquire(&claim(1), &network).await.unwrap();
    let mut events = Events::of(&store);
    assert_eq!(events.snapshot().await.len(), 1);
    etcd.stop();
    events.down().await;
    assert!(matches!(store.renew(&held).await, Err(StoreError::Unavailable { .. })));
    events.quiet(Duration::from_secs(3)).await;
    assert!(etcd.run());
    events.up().await;
    assert_eq!(events.snapshot().await, [held.lease.key.as_str()]);
    assert_eq!(store.renew(&held).await.unwrap(), held);
    put(&store, "10.5.77.0-24", &flannels(7), false).await;
    assert!(matches!(events.next().await, StoreEvent::Put(..)));
}

#[tokio::test]
async fn a_dead_etcd_at_start_is_down_until_it_comes() {
    let mut etcd = etcd!();
    etcd.store().set_config_text(CONFIG).await.unwrap();
    etcd.stop();
    let store = etcd.store();
    assert!(matches!(store.config().await, Err(StoreError::Unavailable { .. })));
    let mut events = Events::of(&store);
    events.down().await;
    assert!(etcd.run());
    events.up().await;
    events.snapshot().await;
}

#[tokio::test]
async fn a_frozen_etcd_is_noticed_and_so_is_its_return() {
    let etcd = etcd!();
    let store = etcd.store();
    store.set_config_text(CONFIG).await.unwrap();
    let mut events = Events::of(&store);
    events.snapshot().await;
    etcd.signal(Signal::SIGSTOP);
    events.down().await;
    events.quiet(Duration::from_secs(4)).await;
    etcd.signal(Signal::SIGCONT);
    events.up().await;
    events.snapshot().await;
}

#[tokio::test]
async fn a_network_cut_without_a_word_is_noticed() {
    let etcd = etcd!();
    let proxy = Proxy::start(etcd.port).await;
    let mut config = etcd.config();
    config.endpoints = vec![proxy.url()];
    let store = store(config);
    store.set_config_text(CONFIG).await.unwrap();
    let mut events = Events::of(&store);
    events.snapshot().await;
    proxy.swallow();
    events.down().await;
    put(&etcd.store(), "10.5.77.0-24", &flannels(7), false).await;
    proxy.cut();
    events.up().await;
    assert_eq!(events.snapshot().await, ["10.5.77.0-24"]);
}

#[tokio::test]
async fn an_idle_watch_stays_up() {
    let etcd = etcd!();
    let store = etcd.store();
    store.set_config_text(CONFIG).await.unwrap();
    let mut events = Events::of(&store);
    events.snapshot().await;
    events.quiet(Duration::from_secs(8)).await;
    put(&store, "10.5.77.0-24", &flannels(7), false).await;
    assert!(matches!(events.next().await, StoreEvent::Put(..)));
}

#[tokio::test]
async fn compaction_while_disconnected_loses_nothing() {
    let etcd = etcd!();
    let proxy = Proxy::start(etcd.port).await;
    let mut config = etcd.config();
    config.endpoints = vec![proxy.url()];
    let (store, direct) = (store(config), etcd.store());
    store.set_config_text(CONFIG).await.unwrap();
    put(&direct, "10.5.1.0-24", &flannels(1), false).await;
    let mut events = Events::of(&store);
    assert_eq!(events.snapshot().await, ["10.5.1.0-24"]);
    proxy.swallow();
    delete(&direct, "10.5.1.0-24").await;
    let mut last = 0;
    for round in 0..50 {
        last = put(&direct, "10.5.2.0-24", &flannels(round), false).await;
    }
    etcd.ctl(&["compact", &last.to_string()]);
    events.down().await;
    proxy.cut();
    events.up().await;
    assert_eq!(events.snapshot().await, ["10.5.2.0-24"]);
    put(&direct, "10.5.3.0-24", &flannels(3), false).await;
    assert!(matches!(events.next().await, StoreEvent::Put(..)));
    // Compaction under a live watch is no event at all.
    let last = put(&direct, "10.5.4.0-24", &flannels(4), false).await;
    etcd.ctl(&["compact", &last.to_string()]);
    assert!(matches!(events.next().await, StoreEvent::Put(..)));
    events.quiet(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_wiped_etcd_is_another_cluster() {
    let mut etcd = etcd!();
    let store = etcd.store();
    store.set_config_text(CONFIG).await.unwrap();
    let network = store.config().await.unwrap();
    let held = store.acquire(&claim(1), &network).await.unwrap();
    let mut events = Events::of(&store);
    events.next().await;
    let StoreEvent::Snapshot { revision: before, .. } = events.next().await else { panic!() };
    etcd.wipe();
    events.down().await;
    events.up().await;
    let config = events.next().await;
    assert!(
        matches!(&config, StoreEvent::Config(Err(fault)) if fault.code == twill_backends::fault::Code::NoConfig),
        "{config:?}"
    );
    let StoreEvent::Snapshot { leases, revision, .. } = events.next().await else { panic!() };
    assert!(leases.is_empty());
    assert!(revision.number < before.number && revision != Revision::default(), "{revision:?}");
    // A lease from before is gone, and can be had again, whatever revision guarded it.
    assert!(matches!(store.renew(&held).await, Err(StoreError::Lost { holder: None, .. })));
    store.set_config_text(CONFIG).await.unwrap();
    assert!(matches!(events.next().await, StoreEvent::Config(Ok(_))));
    let mut pinned = claim(1);
    (pinned.previous, pinned.pinned) = (held.lease.subnets, true);
    assert_eq!(store.acquire(&pinned, &network).await.unwrap().lease.key, held.lease.key);
}

#[tokio::test]
async fn an_agent_stopped_past_its_lease_finds_it_gone() {
    let etcd = etcd!();
    let short =
        twill::store::Guarded::new(twill::store::EtcdTable::with_ttl(etcd.config(), Duration::from_secs(5)));
    short.set_config_text(CONFIG).await.unwrap();
    let network = short.config().await.unwrap();
    let held = short.acquire(&claim(1), &network).await.unwrap();
    let mut events = Events::of(&short);
    events.snapshot().await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(short.renew(&held).await.unwrap(), held, "renewed, it outlives its term");
    }
    assert!(matches!(events.next().await, StoreEvent::Delete(key, _) if key == held.lease.key));
    assert!(matches!(short.renew(&held).await, Err(StoreError::Lost { holder: None, .. })));
    put(&short, held.lease.key.as_str(), &flannels(2), true).await;
    for error in [short.renew(&held).await, short.publish(&held, &held.lease.attrs).await] {
        assert!(matches!(error, Err(StoreError::Lost { holder: Some(_), .. })), "{error:?}");
    }
}

#[tokio::test]
async fn etcd_leases_that_are_not_needed_are_ended() {
    let etcd = etcd!();
    let store = etcd.store();
    store.set_config_text(CONFIG).await.unwrap();
    let network = store.config().await.unwrap();
    for session in 0..5 {
        let mut claim = claim(1);
        claim.attrs.session = Some(session.to_string());
        store.acquire(&claim, &network).await.unwrap();
    }
    let left = || etcd.ctl(&["lease", "list"]).lines().count() - 1;
    assert_eq!(left(), 1, "restarts leave none behind");
    let held = store.acquire(&claim(1), &network).await.unwrap();
    store.release(held).await.unwrap();
    assert_eq!(left(), 0);
    assert!(store.table().list().await.unwrap().records.is_empty());
}

#[tokio::test]
async fn a_lease_on_a_foreign_grant_comes_back_to_ours() {
    let etcd = etcd!();
    let store = etcd.store();
    store.set_config_text(CONFIG).await.unwrap();
    let network = store.config().await.unwrap();
    let held = store.acquire(&claim(1), &network).await.unwrap();
    let value = String::from_utf8(held.lease.attrs.encode()).unwrap();
    put(&store, held.lease.key.as_str(), &value, false).await;
    let renewed = store.renew(&held).await.unwrap();
    assert!(renewed.revision > held.revision);
    assert_eq!(store.renew(&renewed).await.unwrap(), renewed);
    let grant = store.table().read(&held.lease.key).await.unwrap().unwrap().grant.unwrap();
    assert!(matches!(renewed.term, twill::store::Term::Renewable { grant: ours, .. } if ours == grant));
}

/// Connections of before are left: calls make another one, and the watch goes on with a snapshot. Nothing is down.
#[tokio::test]
async fn a_host_that_moves_connects_anew() {
    let etcd = etcd!();
    let store = etcd.store();
    store.set_config_text(CONFIG).await.unwrap();
    let network = store.config().await.unwrap();
    let mut events = Events::of(&store);
    assert!(events.snapshot().await.is_empty());
    for move_number in 1..4 {
        store.moved();
        let held = store.acquire(&claim(move_number), &network).await.unwrap();
        let own = held.lease.key.as_str().to_owned();
        // The watch of before may have told of the claim in the same moment.
        let mut event = events.next().await;
        while !matches!(event, StoreEvent::Config(_)) {
            assert!(matches!(event, StoreEvent::Put(..)), "{event:?}");
            event = events.next().await;
        }
        let StoreEvent::Snapshot { leases, .. } = events.next().await else { panic!("no snapshot") };
        if leases.iter().all(|lease| lease.key.as_str() != own) {
            let event = events.next().await;
            assert!(matches!(&event, StoreEvent::Put(lease, _) if lease.key.as_str() == own), "{event:?}");
        }
    }
}
