//! Endpoint lists with members that are dead, silent, or lose a reply.

use std::time::{Duration, Instant};

use twill::store::table::Table;
use twill::store::{LeaseAdmin, LeaseStore, StoreError};

use crate::harness::{CONFIG, Events, claim, etcd, free_port, store};
use crate::proxy::Proxy;

fn dead() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_failed_call() {
    let etcd = etcd!();
    for dead_first in [true, false] {
        let mut config = etcd.config();
        config.endpoints = if dead_first { vec![dead(), etcd.url()] } else { vec![etcd.url(), dead()] };
        let store = store(config);
        store.set_config_text(CONFIG).await.unwrap();
        let network = store.config().await.unwrap();
        let held = store.acquire(&claim(1), &network).await.unwrap();
        for call in 0..1000 {
            match call % 4 {
                0 => drop(store.config().await.unwrap()),
                1 => drop(store.renew(&held).await.unwrap()),
                2 => drop(store.table().list().await.unwrap()),
                _ => drop(store.table().begin().await.unwrap()),
            }
        }
        let mut events = Events::of(&store);
        assert_eq!(events.snapshot().await.len(), 1);
    }
}

#[tokio::test]
async fn with_every_endpoint_dead_the_store_is_unavailable_and_says_why() {
    let endpoints = vec![dead(), dead()];
    let config = twill::config::EtcdConfig {
        endpoints: endpoints.clone(),
        prefix: "/p".into(),
        tls: None,
        user: None,
    };
    for user in [None, Some(("root".to_owned(), twill::config::Secret::new("secret")))] {
        let store = store(twill::config::EtcdConfig { user, ..config.clone() });
        let begun = Instant::now();
        let error = store.config().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10));
        let text = error.to_string();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{text}");
        assert!(text.contains("refused") && endpoints.iter().all(|url| text.contains(url)), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert!(Events::of(&store).down().await.contains("refused"));
    }
}

#[tokio::test]
async fn a_member_that_is_frozen_is_left_for_another() {
    let etcd = etcd!();
    let silent = Proxy::start(etcd.port).await;
    silent.swallow();
    let mut config = etcd.config();
    config.endpoints = vec![silent.url(), etcd.url()];
    // Which of them is asked first is drawn.
    let store = loop {
        let store = store(config.clone());
        store.set_config_text(CONFIG).await.unwrap();
        if silent.connections() > 0 {
            break store;
        }
    };
    let asked = silent.connections();
    for _ in 0..10 {
        store.config().await.unwrap();
    }
    assert_eq!(silent.connections(), asked, "the silent member is not asked first again");
}

#[tokio::test]
async fn a_member_that_was_not_connected_to_before_is_asked_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config =
        twill::config::EtcdConfig { endpoints: vec![url], prefix: "/p".into(), tls: None, user: None };
    let store = store(config);
    let mut met = 0;
    let hang_up = async {
        loop {
            drop(listener.accept().await.unwrap());
            met += 1;
        }
    };
    tokio::select! {
        () = hang_up => {}
        config = store.config() => assert!(matches!(config, Err(StoreError::Unavailable { .. })), "{config:?}"),
    }
    assert_eq!(met, 1);
}

#[tokio::test]
async fn a_learner_is_left_for_another() {
    let etcd = etcd!();
    let learner = etcd.learner();
    let mut config = etcd.config();
    config.endpoints = vec![learner.url(), etcd.url()];
    let setting = store(config.clone());
    setting.set_config_text(CONFIG).await.unwrap();
    let network = store(config.clone()).config().await.unwrap();
    let starting = store(config);
    starting.acquire(&claim(1), &network).await.unwrap();
    assert_eq!(Events::of(&starting).snapshot().await.len(), 1);
}

#[tokio::test]
async fn a_lost_reply_is_settled() {
    let etcd = etcd!();
    let proxy = Proxy::start(etcd.port).await;
    let mut config = etcd.config();
    config.endpoints = vec![proxy.url()];
    let (store, direct) = (store(config), etcd.store());
    direct.set_config_text(CONFIG).await.unwrap();
    let network = store.config().await.unwrap();

    // A claim: the reply to the transaction is lost, not the ones before.
    let created = async {
        let begun = Instant::now();
        let records = loop {
            let records = direct.table().list().await.unwrap().records;
            if !records.is_empty() {
                break records;
            }
            assert!(begun.elapsed() < Duration::from_secs(30));
        };
        assert!(proxy.triggered() > 0);
        proxy.cut();
        records
    };
    proxy.swallow_after("10.5.");
    let ours = claim(1);
    let (held, seen) = tokio::join!(store.acquire(&ours, &network), created);
    let held = held.unwrap();
    assert_eq!(held.revision, seen[0].revision, "the first write is the one that counts");
    assert_eq!(direct.table().list().await.unwrap().records, seen, "it was written once");
    assert_eq!(store.renew(&held).await.unwrap(), held);

    // A rewrite.
    let mut moved = held.lease.attrs.clone();
    moved.backend_type = Some("host-gw".into());
    let written = async {
        let mut records = direct.table().list().await.unwrap().records;
        while records[0].revision == held.revision {
            records = direct.table().list().await.unwrap().records;
        }
        proxy.cut();
        records
    };
    proxy.swallow_after("host-gw");
    let (published, seen) = tokio::join!(store.publish(&held, &moved), written);
    let published = published.unwrap();
    assert_eq!(published.revision, seen[0].revision);
    assert_eq!(direct.table().list().await.unwrap().records, seen);

    // A release.
    let deleted = async {
        while !direct.table().list().await.unwrap().records.is_empty() {}
        proxy.cut();
    };
    proxy.swallow_after("10.5.");
    let (released, ()) = tokio::join!(store.release(published), deleted);
    released.unwrap();
}
