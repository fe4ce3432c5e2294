//! What only a directory can show: files by hand, several processes, expiry by sweeping, full and read-only disks.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use twill::store::table::Table;
use twill::store::{FileStore, FileTable, Guarded, LeaseAdmin, LeaseStore, StoreError, StoreEvent};
use twill_backends::lease::Attrs;

use crate::harness::{CONFIG, Events, claim, flannels, put};

fn store(dir: &Path) -> FileStore {
    Guarded::new(FileTable::new(dir))
}

#[tokio::test]
async fn a_lease_is_one_file_of_flannels_json() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.set_config_text(CONFIG).await.unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("config.json")).unwrap(), CONFIG);
    let network = store.config().await.unwrap();
    let held = store.acquire(&claim(1), &network).await.unwrap();
    let path = dir.path().join("subnets").join(held.lease.key.as_str());
    let text = fs::read(&path).unwrap();
    assert_eq!(Attrs::decode(&text).unwrap(), held.lease.attrs);
    let fields: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let expires = fields["Expires"].as_u64().unwrap();
    assert!((now + 86_390..=now + 86_400).contains(&expires), "{fields}");
    assert_eq!(fields["Revision"].as_u64(), Some(held.revision));
    assert!(String::from_utf8(text).unwrap().starts_with(r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"#));
}

#[tokio::test]
async fn files_written_by_hand_are_leases_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    fs::create_dir(dir.path().join("subnets")).unwrap();
    fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    fs::write(dir.path().join("subnets/10.5.52.0-24"), flannels(1)).unwrap();
    let mut events = Events::of(&store);
    assert_eq!(events.snapshot().await, ["10.5.52.0-24"]);
    let network = store.config().await.unwrap();
    let held = store.acquire(&claim(1), &network).await.unwrap();
    assert_eq!(held.lease.key.as_str(), "10.5.52.0-24");
    assert!(matches!(events.next().await, StoreEvent::Put(..)));
    // An edit in place, and a file taken away.
    fs::write(dir.path().join("subnets/10.5.52.0-24"), flannels(2)).unwrap();
    let event = events.next().await;
    assert!(matches!(&event, StoreEvent::Put(_, revision) if revision.number > held.revision), "{event:?}");
    assert!(matches!(store.publish(&held, &held.lease.attrs).await, Err(StoreError::Lost { .. })));
    fs::remove_file(dir.path().join("subnets/10.5.52.0-24")).unwrap();
    let event = events.next().await;
    assert!(
        matches!(&event, StoreEvent::Delete(_, revision) if revision.number > held.revision),
        "{event:?}"
    );
}

#[tokio::test]
async fn an_expiry_that_is_no_moment_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.set_config_text(CONFIG).await.unwrap();
    fs::create_dir(dir.path().join("subnets")).unwrap();
    let text = flannels(1).replacen('{', r#"{"Expires":9999999999999999999,"#, 1);
    fs::write(dir.path().join("subnets/10.5.52.0-24"), text).unwrap();
    let entries = store.entries().await.unwrap();
    assert!(matches!(&*entries, [entry] if entry.permanent && entry.expires_in.is_none()), "{entries:?}");
    assert_eq!(Events::of(&store).snapshot().await, ["10.5.52.0-24"]);
    let network = store.config().await.unwrap();
    assert_eq!(store.acquire(&claim(2), &network).await.unwrap().lease.attrs, claim(2).attrs);
}

#[tokio::test]
async fn what_expires_is_swept_by_whoever_follows() {
    let dir = tempfile::tempdir().unwrap();
    let short = Guarded::new(FileTable::with_ttl(dir.path(), Duration::from_secs(5)));
    short.set_config_text(CONFIG).await.unwrap();
    let network = short.config().await.unwrap();
    let held = short.acquire(&claim(1), &network).await.unwrap();
    let other = store(dir.path());
    let mut events = Events::of(&other);
    assert_eq!(events.snapshot().await.len(), 1);
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(short.renew(&held).await.unwrap(), held);
    }
    assert!(matches!(events.next().await, StoreEvent::Delete(key, _) if key == held.lease.key));
    assert!(!dir.path().join("subnets").join(held.lease.key.as_str()).exists());
    assert!(matches!(short.renew(&held).await, Err(StoreError::Lost { .. })));
}

#[tokio::test]
async fn a_directory_that_goes_away_is_down_not_empty() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let store = store(&dir);
    assert!(matches!(store.config().await, Err(StoreError::NoConfig { .. })));
    assert!(matches!(store.table().list().await, Err(StoreError::Unavailable { .. })));
    store.set_config_text(CONFIG).await.unwrap();
    put(&store, "10.5.1.0-24", &flannels(1), false).await;
    let mut events = Events::of(&store);
    assert_eq!(events.snapshot().await.len(), 1);
    fs::rename(&dir, root.path().join("away")).unwrap();
    events.down().await;
    fs::rename(root.path().join("away"), &dir).unwrap();
    events.up().await;
    assert_eq!(events.snapshot().await.len(), 1);
    // The directory is watched again: whoever looks at intervals would see each of these after one.
    let mut best = Duration::MAX;
    for node in 2..12 {
        let begun = Instant::now();
        put(&store, &format!("10.5.{node}.0-24"), &flannels(node), false).await;
        assert!(matches!(events.next().await, StoreEvent::Put(..)));
        best = best.min(begun.elapsed());
    }
    assert!(best < Duration::from_millis(700), "{best:?}");
    // Another one in its place is a snapshot of another store.
    fs::rename(&dir, root.path().join("away")).unwrap();
    store_elsewhere(&dir).await;
    loop {
        match events.next().await {
            StoreEvent::Snapshot { leases, .. } if leases.is_empty() => break,
            StoreEvent::Down(_) | StoreEvent::Up | StoreEvent::Config(_) | StoreEvent::Snapshot { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn store_elsewhere(dir: &Path) {
    store(dir).set_config_text(CONFIG).await.unwrap();
}

#[tokio::test]
async fn a_lock_held_for_long_is_waited_for_and_then_reported() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.set_config_text(CONFIG).await.unwrap();
    let lock = fs::File::open(dir.path().join(".lock")).unwrap();
    lock.lock().unwrap();
    let error = store.table().list().await.unwrap_err();
    assert!(
        matches!(error, StoreError::Unavailable { .. }) && error.to_string().contains(".lock"),
        "{error}"
    );
    let (listed, ()) = tokio::join!(store.table().list(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        lock.unlock().unwrap();
    });
    listed.unwrap();
}

#[tokio::test]
async fn a_key_that_is_no_file_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.set_config_text(CONFIG).await.unwrap();
    for key in ["../config.json", ".store", "", "a/b"] {
        let error = store.revoke(&twill_backends::lease::LeaseKey::new(key)).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    }
    assert!(dir.path().join("config.json").exists());
}

#[tokio::test]
async fn several_stores_of_one_directory_count_together() {
    let dir = tempfile::tempdir().unwrap();
    let stores: Vec<_> = (0..4).map(|_| store(dir.path())).collect();
    stores[0].set_config_text(CONFIG).await.unwrap();
    let network = stores[0].config().await.unwrap();
    let claims: Vec<_> = (1..=20).map(claim).collect();
    let calls = claims.iter().zip(stores.iter().cycle()).map(|(claim, store)| store.acquire(claim, &network));
    let held = futures::future::join_all(calls).await;
    let mut revisions: Vec<_> = held.into_iter().map(|held| held.unwrap().revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 20);
}

/// On a disk of 64 KiB that only this thread sees.
fn on_a_small_disk(test: impl FnOnce(&Path) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let run = move || {
        let none = None::<&str>;
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
            .and_then(|()| mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")))
        {
            println!("SKIP: cannot mount a small disk: {error}");
            return;
        }
        test(&path);
    };
    std::thread::spawn(run).join().unwrap();
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_full_disk_is_named_and_costs_nothing_that_is_there() {
    on_a_small_disk(|disk| {
        block_on(async {
            let store = store(disk);
            store.set_config_text(CONFIG).await.unwrap();
            let network = store.config().await.unwrap();
            let held = store.acquire(&claim(1), &network).await.unwrap();
            let filled = fs::write(disk.join(".filler"), vec![0; 1 << 20]);
            assert!(filled.is_err());
            for error in [
                store.publish(&held, &claim(2).attrs).await.unwrap_err(),
                store.acquire(&claim(3), &network).await.unwrap_err(),
                store.renew(&held).await.unwrap_err(),
            ] {
                let text = error.to_string();
                assert!(matches!(error, StoreError::Refused { .. }) && text.contains("free space"), "{text}");
            }
            assert_eq!(store.table().list().await.unwrap().records.len(), 1, "nothing half written");
            fs::remove_file(disk.join(".filler")).unwrap();
            assert_eq!(store.renew(&held).await.unwrap(), held);
        });
    });
}

#[test]
fn a_read_only_disk_can_be_followed_and_refuses_writes() {
    on_a_small_disk(|disk| {
        block_on(async {
            let store = store(disk);
            store.set_config_text(CONFIG).await.unwrap();
            let network = store.config().await.unwrap();
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, disk, None::<&str>, flags, None::<&str>).unwrap();
            let error = store.acquire(&claim(1), &network).await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, StoreError::Refused { .. }) && text.contains("writable"), "{text}");
            assert!(Events::of(&store).snapshot().await.is_empty());
        });
    });
}
