//! TLS with a CA alone, with a client certificate, and what is refused.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use twill::config::TlsFiles;
use twill::store::{LeaseAdmin, LeaseStore, StoreEvent};

use crate::harness::{CONFIG, Events, claim, etcd, flannels, put, store, with_tls};

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    /// A CA, and a server and a client certificate it signed.
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.write("other-ca", &authority());
        let ca = authority();
        files.write("ca", &ca);
        let mut server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        server.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        files.sign("server", server, &ca);
        files.client(&ca);
        files
    }

    fn client(&self, ca: &CertifiedIssuer<'static, KeyPair>) {
        let mut client = CertificateParams::new(["node-1".to_owned()]).unwrap();
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign("client", client, ca);
    }

    fn write(&self, name: &str, ca: &CertifiedIssuer<'static, KeyPair>) {
        std::fs::write(self.path(name), ca.pem()).unwrap();
    }

    fn sign(&self, name: &str, params: CertificateParams, ca: &CertifiedIssuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, ca).unwrap();
        std::fs::write(self.path(name), cert.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}-key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn tls(ca: &Path, client: Option<(&Path, &Path)>) -> TlsFiles {
    TlsFiles {
        ca: Some(ca.to_owned()),
        cert: client.map(|(cert, _)| cert.to_owned()),
        key: client.map(|(_, key)| key.to_owned()),
    }
}

#[tokio::test]
async fn a_ca_alone_is_enough() {
    let files = Files::new();
    let etcd = etcd!(
        format!("--cert-file={}", files.text("server")),
        format!("--key-file={}", files.text("server-key"))
    );
    let good = store(with_tls(etcd.config(), tls(&files.path("ca"), None)));
    good.set_config_text(CONFIG).await.unwrap();
    let network = good.config().await.unwrap();
    good.acquire(&claim(1), &network).await.unwrap();

    for bad in [Some(tls(&files.path("other-ca"), None)), None] {
        let mut config = etcd.config();
        config.tls = bad;
        let error = store(config).config().await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
    let missing = store(with_tls(etcd.config(), tls(&files.path("missing"), None)));
    let error = missing.config().await.unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("next"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let files = Files::new();
    let etcd = etcd!(
        format!("--cert-file={}", files.text("server")),
        format!("--key-file={}", files.text("server-key")),
        format!("--trusted-ca-file={}", files.text("ca")),
        "--client-cert-auth"
    );
    let (cert, key) = (files.path("client"), files.path("client-key"));
    let with = store(with_tls(etcd.config(), tls(&files.path("ca"), Some((&cert, &key)))));
    with.set_config_text(CONFIG).await.unwrap();
    let without = store(with_tls(etcd.config(), tls(&files.path("ca"), None)));
    let error = without.config().await.unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
}

#[tokio::test]
async fn certificates_are_ignored_without_tls() {
    let files = Files::new();
    let etcd = etcd!();
    let (cert, key) = (files.path("client"), files.path("client-key"));
    let config = with_tls(etcd.config(), tls(&files.path("ca"), Some((&cert, &key))));
    store(config).set_config_text(CONFIG).await.unwrap();
}

#[tokio::test]
async fn a_replaced_certificate_is_used_from_the_next_connection_on() {
    let files = Files::new();
    let ca = authority();
    files.write("ca", &ca);
    let mut server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    server.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    files.sign("server", server, &ca);
    let etcd = etcd!(
        format!("--cert-file={}", files.text("server")),
        format!("--key-file={}", files.text("server-key")),
        format!("--trusted-ca-file={}", files.text("ca")),
        "--client-cert-auth"
    );
    // The client's certificate is still of another CA: refused. Replacing the file is all it takes.
    let (cert, key) = (files.path("client"), files.path("client-key"));
    let store = store(with_tls(etcd.config(), tls(&files.path("ca"), Some((&cert, &key)))));
    store.config().await.unwrap_err();
    files.client(&ca);
    store.set_config_text(CONFIG).await.unwrap();
}

/// An etcd that takes clients of the authority in `ca`, and shows what it signed.
fn flags(files: &Files) -> [String; 4] {
    [
        format!("--cert-file={}", files.text("server")),
        format!("--key-file={}", files.text("server-key")),
        format!("--trusted-ca-file={}", files.text("ca")),
        "--client-cert-auth".to_owned(),
    ]
}

/// A certificate of the client that is good for so long.
fn client_for(files: &Files, ca: &CertifiedIssuer<'static, KeyPair>, life: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut client = CertificateParams::new(["node-1".to_owned()]).unwrap();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    client.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + life;
    files.sign("client", client, ca);
}

fn server(files: &Files, ca: &CertifiedIssuer<'static, KeyPair>) {
    let mut server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    server.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    files.sign("server", server, ca);
}

/// Reads events until the lease is among them; whether the watch ended on the way.
async fn until(events: &mut Events<'_>, key: &str) -> bool {
    let mut ended = false;
    loop {
        match events.next().await {
            StoreEvent::Put(lease, _) if lease.key.as_str() == key => return ended,
            StoreEvent::Snapshot { leases, .. } if leases.iter().any(|lease| lease.key.as_str() == key) => {
                return ended;
            }
            StoreEvent::Down(_) => ended = true,
            _ => {}
        }
    }
}

#[tokio::test]
async fn certificates_are_replaced_while_the_watch_goes_on() {
    let files = Files::new();
    let ca = authority();
    files.write("ca", &ca);
    server(&files, &ca);
    client_for(&files, &ca, Duration::from_secs(3600));
    let [a, b, c, d] = flags(&files);
    let etcd = etcd!(a, b, c, d);
    let (cert, key) = (files.path("client"), files.path("client-key"));
    let config = with_tls(etcd.config(), tls(&files.path("ca"), Some((&cert, &key))));
    let (watching, writing) = (store(config.clone()), store(config));
    writing.set_config_text(CONFIG).await.unwrap();
    let mut events = Events::of(&watching);
    events.snapshot().await;
    // First a mistake, then what was meant: neither ends the watch, nor keeps a call from its answer.
    let broken = |files: &Files| client_for(files, &authority(), Duration::from_secs(3600));
    let good = |files: &Files| client_for(files, &ca, Duration::from_secs(3600));
    for (n, replace) in [(7, &broken as &dyn Fn(&Files)), (8, &good)] {
        replace(&files);
        // The watch looks at the files whenever it has been silent for a while.
        events.quiet(Duration::from_secs(3)).await;
        let lease = format!("10.5.7{n}.0-24");
        put(&writing, &lease, &flannels(n), false).await;
        assert!(!until(&mut events, &lease).await, "the watch ended");
        watching.config().await.unwrap();
    }
}

#[tokio::test]
async fn an_etcd_with_another_authority_is_followed_with_the_files_that_were_replaced() {
    let files = Files::new();
    let (old, new) = (authority(), authority());
    files.write("ca", &old);
    server(&files, &old);
    let [a, b, c, d] = flags(&files);
    let mut etcd = etcd!(a, b, c, d);
    client_for(&files, &old, Duration::from_secs(10));
    let (cert, key) = (files.path("client"), files.path("client-key"));
    let store = store(with_tls(etcd.config(), tls(&files.path("ca"), Some((&cert, &key)))));
    store.set_config_text(CONFIG).await.unwrap();
    let mut events = Events::of(&store);
    events.snapshot().await;
    put(&store, "10.5.77.0-24", &flannels(7), false).await;
    assert!(!until(&mut events, "10.5.77.0-24").await);
    // What the old certificate opened goes on when it ends.
    tokio::time::sleep(Duration::from_secs(11)).await;
    put(&store, "10.5.78.0-24", &flannels(8), false).await;
    assert!(!until(&mut events, "10.5.78.0-24").await);
    etcd.stop();
    assert!(etcd.run());
    let ended = events.down().await;
    assert!(ended.contains("ended"), "{ended}");
    files.write("ca", &new);
    server(&files, &new);
    client_for(&files, &new, Duration::from_secs(3600));
    etcd.stop();
    assert!(etcd.run());
    put(&store, "10.5.79.0-24", &flannels(9), false).await;
    until(&mut events, "10.5.79.0-24").await;
    let leases = store.entries().await.unwrap().len();
    assert_eq!(leases, 3, "nothing was lost on the way");
}
