//! Many leases.

use std::time::{Duration, Instant};

use etcd_client::{Client, Txn, TxnOp};
use twill::store::table::Table;
use twill::store::{LeaseAdmin, StoreEvent};

use crate::harness::{CONFIG, Events, PREFIX, delete, etcd};

#[tokio::test]
async fn more_than_four_mebibytes_are_listed_and_followed() {
    let etcd = etcd!("--max-txn-ops", "2000");
    let store = etcd.store();
    store.set_config_text(CONFIG).await.unwrap();
    let mut client = Client::connect([etcd.url()], None).await.unwrap();
    let filler = "x".repeat(600);
    for block in 0..16_u32 {
        let puts: Vec<_> = (0..1000_u32)
            .map(|n| {
                let n = block * 1000 + n;
                let key = format!("{PREFIX}/subnets/10.{}.{}.{}-30", n / 16384, n / 64 % 256, n % 64 * 4);
                let value = format!(r#"{{"PublicIP":"10.99.{}.{}","Filler":"{filler}"}}"#, n / 256, n % 256);
                TxnOp::put(key, value, None)
            })
            .collect();
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    let begun = Instant::now();
    let listing = store.table().list().await.unwrap();
    println!("listed {} leases in {:?}", listing.records.len(), begun.elapsed());
    assert_eq!(listing.records.len(), 16_000);
    assert!(listing.records.iter().map(|record| record.value.len()).sum::<usize>() > 4 << 20);
    assert!(listing.records.is_sorted_by(|a, b| a.revision < b.revision || a.key < b.key));

    let mut events = Events::of(&store);
    assert_eq!(events.snapshot().await.len(), 16_000);
    // One transaction that is larger than 4 MiB: flannel's client would lose its watch over it.
    let puts: Vec<_> = (0..1500_u32)
        .map(|n| {
            let key = format!("{PREFIX}/subnets/10.50.{}.{}-30", n / 64, n % 64 * 4);
            TxnOp::put(key, format!(r#"{{"PublicIP":"10.98.0.1","Filler":"{filler}"}}"#), None)
        })
        .collect();
    client.txn(Txn::new().and_then(puts)).await.unwrap();
    for _ in 0..1500 {
        let event = events.next().await;
        assert!(matches!(event, StoreEvent::Put(..)), "{event:?}");
    }
    delete(&store, "10.50.0.0-30").await;
    assert!(matches!(events.next().await, StoreEvent::Delete(..)));
    events.quiet(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn the_commands_list_asks_for_many_expiries_at_once() {
    let etcd = etcd!();
    let store = etcd.store();
    for n in 0..500_u32 {
        let key = twill_backends::lease::LeaseKey::new(format!("10.5.{n}.0-24"));
        let term =
            if n % 2 == 0 { twill::store::Term::Permanent } else { store.table().begin().await.unwrap() };
        let write = twill::store::table::Write {
            key,
            guard: twill::store::table::Guard::Absent,
            value: b"{}".to_vec(),
            term,
        };
        if n < 255 {
            store.table().write(&write).await.unwrap();
        }
    }
    let entries = store.entries().await.unwrap();
    assert_eq!(entries.len(), 255);
    for entry in entries {
        assert_eq!(entry.permanent, entry.expires_in.is_none());
        assert!(entry.expires_in.is_none_or(|left| left > Duration::from_secs(86_000)));
    }
}
