//! Listing, reserving and revoking, on etcd and in a directory.

use std::net::IpAddr;

use twill::store::table::Table;
use twill::store::{FileTable, Guarded, LeaseAdmin, LeaseStore, Owner, StoreError, Term};
use twill_backends::lease::{LeaseKey, Subnets};

use crate::harness::{CONFIG, claim, etcd, flannels, put};

fn v4(text: &str) -> Subnets {
    Subnets { v4: Some(text.parse().unwrap()), v6: None }
}

fn node(id: &str) -> Owner {
    Owner::Node(id.to_owned())
}

async fn refused<T: Table>(store: &Guarded<T>, subnet: &str, owner: &Owner) -> String {
    match store.reserve(&v4(subnet), owner).await {
        Err(StoreError::Refused { cause, .. }) => cause,
        other => panic!("{subnet} for {owner}: {other:?}"),
    }
}

async fn reservations<T: Table>(store: &Guarded<T>) {
    store.set_config_text(CONFIG).await.unwrap();
    let network = store.config().await.unwrap();
    let key = store.reserve(&v4("10.5.40.0/24"), &node("node-1")).await.unwrap();
    assert_eq!(key.as_str(), "10.5.40.0-24");
    let held = store.acquire(&claim(1), &network).await.unwrap();
    assert_eq!((held.lease.key.as_str(), held.term), ("10.5.40.0-24", Term::Permanent));

    let address: IpAddr = "192.168.77.2".parse().unwrap();
    store.reserve(&v4("10.5.41.0/24"), &Owner::Address(address)).await.unwrap();
    assert_eq!(store.acquire(&claim(2), &network).await.unwrap().lease.key.as_str(), "10.5.41.0-24");

    // A lease becomes a reservation for its own host, and for no other.
    let third = store.acquire(&claim(3), &network).await.unwrap();
    let subnet = third.lease.subnets.v4.unwrap().to_string();
    let other = refused(store, &subnet, &node("node-9")).await;
    assert!(other.contains("overlaps the lease") && other.contains("twill lease release --own"), "{other}");
    store.reserve(&third.lease.subnets, &node("node-3")).await.unwrap();
    let renewed = store.renew(&third).await.unwrap();
    assert_eq!((renewed.term, &renewed.lease), (Term::Permanent, &third.lease));

    let again = refused(store, "10.5.50.0/24", &node("node-1")).await;
    assert!(again.contains("has the reservation 10.5.40.0-24 already"), "{again}");
    let other = refused(store, "10.5.40.0/24", &node("node-8")).await;
    assert!(other.contains("overlaps the reservation") && other.contains("stop the agent"), "{other}");
    assert!(refused(store, "10.5.40.0/25", &node("node-8")).await.contains("take a /24"));
    assert!(refused(store, "10.6.0.0/24", &node("node-8")).await.contains("10.5.10.0"));
    let v6 = Subnets { v4: None, v6: Some("fd00::/64".parse().unwrap()) };
    assert!(matches!(store.reserve(&v6, &node("node-8")).await, Err(StoreError::Refused { .. })));
    assert!(matches!(store.reserve(&Subnets::NONE, &node("node-8")).await, Err(StoreError::Refused { .. })));
}

async fn listing_and_revoking<T: Table>(store: &Guarded<T>) {
    store.set_config_text(CONFIG).await.unwrap();
    put(store, "10.5.1.0-24", &flannels(1), false).await;
    put(store, "10.5.2.0-24", "{", true).await;
    let entries = store.entries().await.unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries[0].lease.is_ok() && !entries[0].permanent);
    let left = entries[0].expires_in.unwrap().as_secs();
    assert!((86_390..=86_400).contains(&left), "{left}");
    assert!(entries[1].lease.is_err() && entries[1].permanent && entries[1].expires_in.is_none());
    for key in ["10.5.1.0-24", "10.5.2.0-24"] {
        assert!(store.revoke(&LeaseKey::new(key)).await.unwrap());
        assert!(!store.revoke(&LeaseKey::new(key)).await.unwrap());
    }
    assert_eq!(store.entries().await.unwrap(), []);
}

#[tokio::test]
async fn reservations_on_etcd() {
    let etcd = etcd!();
    reservations(&etcd.store()).await;
}

#[tokio::test]
async fn reservations_on_file() {
    let dir = tempfile::tempdir().unwrap();
    reservations(&Guarded::new(FileTable::new(dir.path()))).await;
}

#[tokio::test]
async fn listing_on_etcd() {
    let etcd = etcd!();
    listing_and_revoking(&etcd.store()).await;
}

#[tokio::test]
async fn listing_on_file() {
    let dir = tempfile::tempdir().unwrap();
    listing_and_revoking(&Guarded::new(FileTable::new(dir.path()))).await;
}
