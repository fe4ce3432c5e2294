//! TLS with a CA alone, with a client certificate, and what is refused.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use twill::config::TlsFiles;
use twill::store::{LeaseAdmin, LeaseStore};

use crate::harness::{CONFIG, claim, etcd, store, with_tls};

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
