//! What the store in memory does on demand, and under a paused clock.

use std::time::Duration;

use twill::store::table::Table;
use twill::store::{Guarded, LeaseAdmin, LeaseStore, MemoryStore, MemoryTable, StoreError, StoreEvent};

use crate::harness::{CONFIG, Events, claim, flannels};

fn store() -> (MemoryStore, MemoryTable) {
    let table = MemoryTable::default();
    table.set_config(Some(CONFIG));
    (Guarded::new(table.clone()), table)
}

#[tokio::test(start_paused = true)]
async fn a_lease_lives_for_a_day_unless_renewed() {
    let (store, table) = store();
    let network = store.config().await.unwrap();
    let mut events = Events::of(&store);
    events.snapshot().await;
    let held = store.acquire(&claim(1), &network).await.unwrap();
    events.next().await;
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    assert_eq!(store.renew(&held).await.unwrap(), held);
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    assert_eq!(table.records().len(), 1);
    tokio::time::sleep(Duration::from_secs(3601)).await;
    assert!(matches!(events.next().await, StoreEvent::Delete(key, _) if key == held.lease.key));
    assert!(matches!(store.renew(&held).await, Err(StoreError::Lost { holder: None, .. })));
}

#[tokio::test(start_paused = true)]
async fn an_expiry_wakes_who_follows() {
    let (store, _table) = store();
    let network = store.config().await.unwrap();
    let held = store.acquire(&claim(1), &network).await.unwrap();
    let mut stream = std::pin::pin!(store.watch());
    let begun = tokio::time::Instant::now();
    for _ in 0..2 {
        futures::StreamExt::next(&mut stream).await;
    }
    let event = futures::StreamExt::next(&mut stream).await;
    assert!(matches!(event, Some(StoreEvent::Delete(key, _)) if key == held.lease.key));
    assert_eq!(begun.elapsed().as_secs(), 24 * 3600);
}

#[tokio::test]
async fn failures_come_on_demand() {
    let (store, table) = store();
    let network = store.config().await.unwrap();
    table.fail_calls(1);
    assert!(matches!(store.acquire(&claim(1), &network).await, Err(StoreError::Unavailable { .. })));
    assert_eq!(table.writes(), 0);
    table.lose_replies(1);
    assert!(matches!(store.acquire(&claim(1), &network).await, Err(StoreError::Unavailable { .. })));
    assert_eq!(table.writes(), 1, "it took effect");
    let held = store.acquire(&claim(1), &network).await.unwrap();
    table.lose_replies(1);
    store.publish(&held, &held.lease.attrs).await.unwrap_err();
    let renewed = store.renew(&held).await.unwrap();
    assert_eq!(renewed.revision, held.revision + 1, "the write whose reply was lost counts as ours");
    table.lose_replies(1);
    store.release(renewed.clone()).await.unwrap_err();
    store.release(renewed).await.unwrap();
    assert!(table.records().is_empty());
}

#[tokio::test]
async fn outages_wipes_and_restored_backups_are_seen() {
    let (store, table) = store();
    table.put_raw("10.5.1.0-24", flannels(1).as_bytes(), false);
    let mut events = Events::of(&store);
    assert_eq!(events.snapshot().await, ["10.5.1.0-24"]);
    table.set_available(false);
    events.down().await;
    assert!(matches!(store.config().await, Err(StoreError::Unavailable { .. })));
    events.quiet(Duration::from_millis(50)).await;
    table.delete_raw("10.5.1.0-24");
    table.set_available(true);
    events.up().await;
    assert!(events.snapshot().await.is_empty());
    let before = store.table().list().await.unwrap().revision;
    table.set_revision(1);
    events.down().await;
    events.up().await;
    events.next().await;
    assert!(matches!(events.next().await, StoreEvent::Snapshot { revision, .. } if revision < before));
    table.wipe();
    events.down().await;
    events.up().await;
    assert!(matches!(events.next().await, StoreEvent::Config(Err(_))));
    assert!(
        matches!(events.next().await, StoreEvent::Snapshot { revision, .. } if revision.cluster != before.cluster)
    );
    assert!(matches!(store.config_text().await, Err(StoreError::NoConfig { .. })));
}

#[tokio::test(start_paused = true)]
async fn calls_take_as_long_as_they_are_told_to() {
    let (store, table) = store();
    table.set_delay(Duration::from_secs(3));
    let begun = tokio::time::Instant::now();
    store.config().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
}
