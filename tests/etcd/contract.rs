//! What every store keeps to, run on each of the three.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use twill::store::table::Table;
use twill::store::{
    FileTable, Guarded, LeaseAdmin, LeaseStore, MemoryTable, Revision, StoreError, StoreEvent, Term,
};
use twill_backends::allocate::{Claim, ClaimError};
use twill_backends::fault::Code;
use twill_backends::lease::{Attrs, Lease, LeaseKey};
use twill_backends::network::NetworkConfig;

use crate::harness::{CONFIG, Events, attrs, claim, delete, etcd, flannels, put};

macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {
        mod on_etcd { $(
            #[tokio::test]
            async fn $name() {
                let etcd = super::etcd!();
                super::$name(&etcd.store()).await;
            }
        )* }
        mod on_file { $(
            #[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(&super::Guarded::new(super::FileTable::new(dir.path().join("store")))).await;
            }
        )* }
        mod on_memory { $(
            #[tokio::test]
            async fn $name() {
                super::$name(&super::Guarded::new(super::MemoryTable::default())).await;
            }
        )* }
    };
}

on_every_store! {
    a_lease_is_claimed_renewed_published_and_released,
    the_configuration_is_read_or_refused,
    a_node_finds_its_lease_again,
    a_lost_lease_is_never_written,
    another_process_with_our_identity_is_told,
    a_lease_that_is_gone_is_lost,
    a_reservation_stays_one,
    our_lease_made_permanent_by_hand_stays_permanent,
    what_flanneld_wrote_is_adopted,
    fifty_nodes_race_for_fifty_subnets,
    dual_stack_leases_never_overlap,
    changes_are_followed,
    malformed_leases_are_faults_not_losses,
    a_put_is_seen_at_once,
}

async fn configured<T: Table>(store: &Guarded<T>, text: &str) -> NetworkConfig {
    store.set_config_text(text).await.unwrap();
    store.config().await.unwrap()
}

fn lost(error: StoreError) -> (Option<Attrs>, String) {
    match error {
        StoreError::Lost { holder, cause, .. } => (holder.map(|attrs| *attrs), cause),
        other => panic!("{other:?}"),
    }
}

async fn value<T: Table>(store: &Guarded<T>, key: &LeaseKey) -> Option<(u64, Lease, bool)> {
    let record = store.table().read(key).await.unwrap()?;
    Some((record.revision, record.lease().unwrap(), record.grant.is_none()))
}

async fn a_lease_is_claimed_renewed_published_and_released<T: Table>(store: &Guarded<T>) {
    let config = configured(store, CONFIG).await;
    let held = store.acquire(&claim(1), &config).await.unwrap();
    let Term::Renewable { ttl, .. } = held.term else { panic!("{held:?}") };
    assert_eq!(ttl, twill::store::LEASE_TTL);
    assert_eq!(held.lease.attrs, attrs(1));
    assert_eq!(LeaseKey::of(&held.lease.subnets), held.lease.key);

    let renewed = store.renew(&held).await.unwrap();
    assert_eq!(renewed, held, "a renewal rewrites nothing");

    let moved = Attrs { public_ip: Some(Ipv4Addr::new(192, 168, 77, 99)), ..attrs(1) };
    let published = store.publish(&held, &moved).await.unwrap();
    assert!(published.revision > held.revision);
    let (revision, lease, permanent) = value(store, &held.lease.key).await.unwrap();
    assert_eq!((revision, lease.attrs, permanent), (published.revision, moved, false));
    // The caller may have missed that it published: the same process may go on from what it knows.
    let again = store.publish(&held, &attrs(1)).await.unwrap();
    assert_eq!(store.renew(&published).await.unwrap().revision, again.revision);

    store.release(again).await.unwrap();
    assert_eq!(value(store, &held.lease.key).await, None);
    store.release(published).await.expect("gone is what was asked for");
}

async fn the_configuration_is_read_or_refused<T: Table>(store: &Guarded<T>) {
    let error = store.config().await.unwrap_err();
    assert!(
        matches!(error, StoreError::NoConfig { .. }) && error.to_string().contains("twill config set"),
        "{error}"
    );
    for bad in [
        "",
        "{",
        r#"{"Network":"10.5.0.0/33"}"#,
        r#"{"Network":"10.5.0.0/16","Backend":{"Type":"nonsense"}}"#,
    ] {
        let error = store.set_config_text(bad).await.unwrap_err();
        assert!(matches!(error, StoreError::BadConfig(_)), "{bad}: {error}");
    }
    assert!(matches!(store.config_text().await, Err(StoreError::NoConfig { .. })), "nothing was written");
    assert!(configured(store, CONFIG).await.pools.v4.is_some());
    assert_eq!(store.config_text().await.unwrap(), CONFIG);
}

async fn a_node_finds_its_lease_again<T: Table>(store: &Guarded<T>) {
    let config = configured(store, CONFIG).await;
    let held = store.acquire(&claim(1), &config).await.unwrap();
    let restarted = Attrs { session: Some("another".into()), ..attrs(1) };
    let again = store.acquire(&Claim { attrs: restarted, ..Claim::default() }, &config).await.unwrap();
    assert_eq!(again.lease.key, held.lease.key);
    assert_eq!(store.renew(&again).await.unwrap(), again);
    assert_eq!(store.table().list().await.unwrap().records.len(), 1);
    // The process before is locked out.
    assert!(lost(store.renew(&held).await.unwrap_err()).1.contains("another process"));
}

async fn a_lost_lease_is_never_written<T: Table>(store: &Guarded<T>) {
    let config = configured(store, CONFIG).await;
    let held = store.acquire(&claim(1), &config).await.unwrap();
    let key = held.lease.key.clone();
    delete(store, key.as_str()).await;
    put(store, key.as_str(), &String::from_utf8(attrs(2).encode()).unwrap(), false).await;
    let before = store.table().list().await.unwrap();
    for _ in 0..2 {
        let renewed = store.renew(&held).await.unwrap_err();
        let published = store.publish(&held, &attrs(1)).await.unwrap_err();
        let released = store.release(held.clone()).await.unwrap_err();
        for error in [renewed, published, released] {
            let (holder, cause) = lost(error);
            assert_eq!(holder, Some(attrs(2)));
            assert!(cause.contains("node-2") && cause.contains("192.168.77.2"), "{cause}");
        }
    }
    assert_eq!(store.table().list().await.unwrap(), before, "nothing was written");
}

async fn another_process_with_our_identity_is_told<T: Table>(store: &Guarded<T>) {
    let config = configured(store, CONFIG).await;
    let held = store.acquire(&claim(1), &config).await.unwrap();
    let cloned =
        Attrs { session: Some("clone".into()), public_ip: Some(Ipv4Addr::new(192, 168, 77, 9)), ..attrs(1) };
    put(store, held.lease.key.as_str(), &String::from_utf8(cloned.encode()).unwrap(), false).await;
    let (holder, cause) = lost(store.publish(&held, &attrs(1)).await.unwrap_err());
    assert_eq!(holder, Some(cloned));
    assert!(cause.contains("192.168.77.9"), "{cause}");
}

async fn a_lease_that_is_gone_is_lost<T: Table>(store: &Guarded<T>) {
    let config = configured(store, CONFIG).await;
    let held = store.acquire(&claim(1), &config).await.unwrap();
    delete(store, held.lease.key.as_str()).await;
    assert_eq!(lost(store.renew(&held).await.unwrap_err()).0, None);
    assert_eq!(lost(store.publish(&held, &attrs(1)).await.unwrap_err()).0, None);
    assert_eq!(value(store, &held.lease.key).await, None, "it does not come back");
    // Claimed again, pinned to the same subnet.
    let pinned = Claim { previous: held.lease.subnets, pinned: true, ..claim(1) };
    assert_eq!(store.acquire(&pinned, &config).await.unwrap().lease.key, held.lease.key);
}

async fn a_reservation_stays_one<T: Table>(store: &Guarded<T>) {
    let config = configured(store, CONFIG).await;
    put(store, "10.5.33.0-24", r#"{"PublicIP":"192.168.77.1","PublicIPv6":null}"#, true).await;
    let held = store.acquire(&claim(1), &config).await.unwrap();
    assert_eq!((held.lease.key.as_str(), held.term), ("10.5.33.0-24", Term::Permanent));
    let held = store.renew(&held).await.unwrap();
    let held =
        store.publish(&held, &Attrs { backend_type: Some("host-gw".into()), ..attrs(1) }).await.unwrap();
    assert_eq!(held.term, Term::Permanent);
    assert!(value(store, &held.lease.key).await.unwrap().2, "it is lease-free");
    store.release(held.clone()).await.unwrap();
    let (_, lease, permanent) = value(store, &held.lease.key).await.unwrap();
    assert!(permanent && lease.attrs.backend_type.is_none(), "given back, it waits for its host");
    assert_eq!(store.acquire(&claim(1), &config).await.unwrap().lease.key, held.lease.key);
}

async fn our_lease_made_permanent_by_hand_stays_permanent<T: Table>(store: &Guarded<T>) {
    let config = configured(store, CONFIG).await;
    let held = store.acquire(&claim(1), &config).await.unwrap();
    put(store, held.lease.key.as_str(), &String::from_utf8(attrs(1).encode()).unwrap(), true).await;
    let renewed = store.renew(&held).await.unwrap();
    assert_eq!(renewed.term, Term::Permanent);
    assert!(value(store, &held.lease.key).await.unwrap().2);
    store.publish(&held, &attrs(1)).await.expect("from an older revision, too");
    assert!(value(store, &held.lease.key).await.unwrap().2);
}

async fn what_flanneld_wrote_is_adopted<T: Table>(store: &Guarded<T>) {
    let config = configured(store, CONFIG).await;
    put(store, "10.5.52.0-24", &flannels(1), false).await;
    put(store, "10.5.53.0-24", &flannels(2), false).await;
    let held = store.acquire(&claim(1), &config).await.unwrap();
    assert_eq!(held.lease.key.as_str(), "10.5.52.0-24");
    let (_, lease, permanent) = value(store, &held.lease.key).await.unwrap();
    assert_eq!((lease.attrs, permanent), (attrs(1), false));
    assert_eq!(store.renew(&held).await.unwrap(), held);
}

async fn fifty_nodes_race_for_fifty_subnets<T: Table>(store: &Guarded<T>) {
    let text = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.50.0","Backend":{"Type":"vxlan"}}"#;
    let config = configured(store, text).await;
    let claims: Vec<_> = (1..=50).map(claim).collect();
    let held = futures::future::join_all(claims.iter().map(|claim| store.acquire(claim, &config))).await;
    let mut keys: Vec<_> = held.into_iter().map(|held| held.unwrap().lease.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 50);
    let error = store.acquire(&claim(51), &config).await.unwrap_err();
    assert!(matches!(error, StoreError::Claim(ClaimError::Exhausted { taken: 50, .. })), "{error:?}");
}

async fn dual_stack_leases_never_overlap<T: Table>(store: &Guarded<T>) {
    let text = r#"{"Network":"10.5.0.0/24","SubnetLen":28,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}"#;
    let config = configured(store, text).await;
    // Half of the nodes come with an IPv6 subnet of their own, so that keys differ where IPv4 subnets are the same.
    let claims: Vec<_> = (1..=12)
        .map(|node| {
            let mut claim = claim(node);
            claim.attrs.public_ipv6 = Some(format!("fd00::{node}").parse().unwrap());
            claim.previous.v6 = (node % 2 == 0).then(|| format!("fd00:5:0:{node}00::/64").parse().unwrap());
            claim
        })
        .collect();
    let held = futures::future::join_all(claims.iter().map(|claim| store.acquire(claim, &config))).await;
    let leases: Vec<_> = held.into_iter().map(|held| held.unwrap().lease).collect();
    for (index, a) in leases.iter().enumerate() {
        for b in &leases[index + 1..] {
            assert!(!twill::store::table::overlap(&a.subnets, &b.subnets), "{} and {}", a.key, b.key);
        }
    }
    assert_eq!(store.table().list().await.unwrap().records.len(), 12);
}

async fn changes_are_followed<T: Table>(store: &Guarded<T>) {
    configured(store, CONFIG).await;
    put(store, "10.5.1.0-24", &flannels(1), false).await;
    let mut events = Events::of(store);
    assert!(matches!(events.next().await, StoreEvent::Config(Ok(_))));
    let StoreEvent::Snapshot { leases, faults, revision } = events.next().await else { panic!() };
    assert_eq!((leases.len(), faults.len()), (1, 0));
    assert!(revision.cluster != 0 && revision.number != 0);

    let at = put(store, "10.5.2.0-24", &flannels(2), false).await;
    let event = events.next().await;
    let StoreEvent::Put(lease, revision) = event else { panic!("{event:?}") };
    assert_eq!((lease.key.as_str(), revision), ("10.5.2.0-24", Revision { number: at, ..revision }));
    delete(store, "10.5.1.0-24").await;
    let event = events.next().await;
    assert!(
        matches!(&event, StoreEvent::Delete(key, now) if key.as_str() == "10.5.1.0-24" && now.number > at),
        "{event:?}"
    );
    store.set_config_text(&CONFIG.replace("vxlan", "host-gw")).await.unwrap();
    let event = events.next().await;
    assert!(matches!(&event, StoreEvent::Config(Ok(config)) if config.backend.is_some()), "{event:?}");
    store.table().write_config("nonsense").await.unwrap();
    let event = events.next().await;
    assert!(matches!(&event, StoreEvent::Config(Err(fault)) if fault.code == Code::BadConfig), "{event:?}");

    let config = configured(store, CONFIG).await;
    assert!(matches!(events.next().await, StoreEvent::Config(Ok(_))));
    let held = store.acquire(&claim(3), &config).await.unwrap();
    assert!(matches!(events.next().await, StoreEvent::Put(..)));
    store.renew(&held).await.unwrap();
    events.quiet(Duration::from_millis(1200)).await;
}

async fn malformed_leases_are_faults_not_losses<T: Table>(store: &Guarded<T>) {
    configured(store, CONFIG).await;
    put(store, "10.5.1.0-24", &flannels(1), false).await;
    put(store, "10.5.2.0-24", "{", false).await;
    put(store, "no-subnet", &flannels(3), false).await;
    let mut events = Events::of(store);
    events.next().await;
    let StoreEvent::Snapshot { leases, faults, .. } = events.next().await else { panic!() };
    assert_eq!(leases.len(), 1);
    let codes: Vec<_> = faults.iter().map(|(key, fault)| (fault.code, key.as_str())).collect();
    assert_eq!(codes, [(Code::BadLeaseValue, "10.5.2.0-24"), (Code::BadLeaseKey, "no-subnet")]);

    put(store, "10.5.1.0-24", r#"{"PublicIP":null}"#, false).await;
    let event = events.next().await;
    assert!(
        matches!(&event, StoreEvent::Bad(key, fault) if key.as_str() == "10.5.1.0-24" && fault.code == Code::BadLeaseValue),
        "{event:?}"
    );
    put(store, "10.5.1.0-24", &flannels(1), false).await;
    assert!(matches!(events.next().await, StoreEvent::Put(..)));
    // What does not decode is taken all the same.
    let text = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.3.0","Backend":{"Type":"vxlan"}}"#;
    let config = configured(store, text).await;
    assert_eq!(store.acquire(&claim(9), &config).await.unwrap().lease.key.as_str(), "10.5.3.0-24");
}

async fn a_put_is_seen_at_once<T: Table>(store: &Guarded<T>) {
    configured(store, CONFIG).await;
    let mut events = Events::of(store);
    events.snapshot().await;
    let mut best = Duration::MAX;
    for node in 1..=20 {
        let begun = Instant::now();
        let (key, value) = (format!("10.5.{node}.0-24"), flannels(node));
        let (_, event) = tokio::join!(put(store, &key, &value, true), events.next());
        assert!(matches!(event, StoreEvent::Put(..)), "{event:?}");
        best = best.min(begun.elapsed());
    }
    // Whoever looks at intervals would see each after one.
    assert!(best < Duration::from_millis(100), "{best:?}");
}
