//! Users, passwords and tokens.

use std::time::Duration;

use twill::store::table::Table;
use twill::store::{LeaseAdmin, LeaseStore, StoreError, StoreEvent};

use crate::harness::{CONFIG, Etcd, Events, PREFIX, claim, etcd, flannels, put, store, with_user};
use crate::proxy::Proxy;

/// Users root and flannel; the latter may do what flannel's documentation asks for.
fn enable(etcd: &Etcd) {
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["role", "add", "flannel"]);
    etcd.ctl(&["role", "grant-permission", "flannel", "readwrite", PREFIX, "--prefix=true"]);
    etcd.ctl(&["user", "add", "flannel:packets"]);
    etcd.ctl(&["user", "grant-role", "flannel", "flannel"]);
    etcd.ctl(&["auth", "enable"]);
}

#[tokio::test]
async fn tokens_that_expire_or_are_revoked_cost_nothing() {
    let etcd = etcd!("--auth-token-ttl", "1");
    etcd.store().set_config_text(CONFIG).await.unwrap();
    enable(&etcd);
    let store = store(with_user(etcd.config(), "flannel", "packets"));
    let network = store.config().await.unwrap();
    let held = store.acquire(&claim(1), &network).await.unwrap();
    let mut events = Events::of(&store);
    assert_eq!(events.snapshot().await.len(), 1);

    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(store.renew(&held).await.unwrap(), held);
    tokio::time::sleep(Duration::from_secs(3)).await;
    put(&store, "10.5.77.0-24", &flannels(7), false).await;

    // Every token of the user is void from here on.
    etcd.ctl(&["--user", "root:secret", "user", "grant-role", "flannel", "root"]);
    etcd.ctl(&["--user", "root:secret", "auth", "disable"]);
    etcd.ctl(&["auth", "enable"]);
    assert_eq!(store.renew(&held).await.unwrap(), held);
    put(&store, "10.5.78.0-24", &flannels(8), false).await;

    // The watch goes on, or starts over.
    let mut seen = Vec::new();
    while !seen.iter().any(|key| key == "10.5.78.0-24") {
        match events.next().await {
            StoreEvent::Put(lease, _) => seen.push(lease.key.as_str().to_owned()),
            StoreEvent::Snapshot { leases, .. } => {
                seen = leases.iter().map(|lease| lease.key.as_str().to_owned()).collect();
            }
            StoreEvent::Down(_) | StoreEvent::Up | StoreEvent::Config(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(seen.iter().any(|key| key == "10.5.77.0-24"), "{seen:?}");
}

#[tokio::test]
async fn a_restarted_etcd_has_forgotten_the_token() {
    let mut etcd = etcd!();
    etcd.store().set_config_text(CONFIG).await.unwrap();
    enable(&etcd);
    let store = store(with_user(etcd.config(), "flannel", "packets"));
    store.config().await.unwrap();
    let mut events = Events::of(&store);
    events.snapshot().await;
    etcd.stop();
    events.down().await;
    assert!(etcd.run());
    store.config().await.unwrap();
    events.up().await;
    events.snapshot().await;
    put(&store, "10.5.78.0-24", &flannels(8), false).await;
    assert!(matches!(events.next().await, StoreEvent::Put(..)));
}

/// All hosts of a member that went come to the next at once, which hashes all their passwords: it takes its time, and it
/// takes longer for each that left in the middle.
#[tokio::test]
async fn a_sign_in_that_takes_its_time_is_waited_for_the_second_time() {
    let etcd = etcd!();
    etcd.store().set_config_text(CONFIG).await.unwrap();
    enable(&etcd);
    let proxy = Proxy::start(etcd.port).await;
    let mut config = with_user(etcd.config(), "flannel", "packets");
    config.endpoints = vec![proxy.url()];
    let store = store(config);
    proxy.hold(true);
    let error = store.config().await.unwrap_err().to_string();
    assert!(error.contains("no sign-in within 3 s"), "{error}");
    let answers = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        proxy.hold(false);
    };
    let (config, ()) = tokio::join!(store.config(), answers);
    config.unwrap();
}

#[tokio::test]
async fn refusals_say_what_to_check() {
    let etcd = etcd!();
    etcd.store().set_config_text(CONFIG).await.unwrap();
    // A user is no harm where none is needed.
    store(with_user(etcd.config(), "flannel", "packets")).config().await.unwrap();
    enable(&etcd);

    let wrong = store(with_user(etcd.config(), "flannel", "wrong-password"));
    let error = wrong.config().await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("--etcd-username") && !error.to_string().contains("wrong-password"),
        "{error}"
    );

    let error = etcd.store().config().await.unwrap_err();
    assert!(error.to_string().contains("--etcd-username"), "{error}");

    etcd.ctl(&["--user", "root:secret", "role", "revoke-permission", "flannel", PREFIX, "--prefix=true"]);
    let config = format!("{PREFIX}/config");
    etcd.ctl(&["--user", "root:secret", "role", "grant-permission", "flannel", "read", &config]);
    let agents = store(with_user(etcd.config(), "flannel", "packets"));
    let error = agents.set_config_text(CONFIG).await.unwrap_err().to_string();
    assert!(error.contains("who writes PREFIX/config needs another user"), "{error}");

    let mut other = with_user(etcd.config(), "flannel", "packets");
    other.prefix = "/other".into();
    let other = store(other);
    let error = other.table().list().await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("permission denied") && error.to_string().contains("readwrite"),
        "{error}"
    );
    let mut events = Events::of(&other);
    assert!(events.down().await.contains("permission denied"));
    events.quiet(Duration::from_secs(2)).await;
}
