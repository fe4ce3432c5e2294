//! The files that TLS with etcd needs: read whenever a connection is made, and noticed when they are replaced.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use etcd_client::{Certificate, Identity, TlsOptions};

use super::failure::Failure;
use crate::config::TlsFiles;

/// What tells a file from the one that takes its place, without reading it: who renews certificates renames files,
/// switches links or writes in place. A file that is missing has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stamp(Vec<Option<(u64, u64, SystemTime)>>);

impl Stamp {
    /// Of the files as they are.
    pub(super) fn of(files: Option<&TlsFiles>) -> Self {
        use std::os::unix::fs::MetadataExt;
        let one = |path: &PathBuf| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.ino(), file.len(), file.modified().ok()?))
        };
        let files = files.into_iter().flat_map(|files| [&files.ca, &files.cert, &files.key]);
        Self(files.flatten().map(one).collect())
    }
}

/// Given roots are the only ones; without any, the system's count.
pub(super) async fn tls(files: Option<&TlsFiles>) -> Result<TlsOptions, Failure> {
    let mut tls = TlsOptions::new();
    let Some(files) = files else { return Ok(tls.with_enabled_roots()) };
    tls = match &files.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(pem(ca).await?)),
        None => tls.with_enabled_roots(),
    };
    if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
        tls = tls.identity(Identity::from_pem(pem(cert).await?, pem(key).await?));
    }
    Ok(tls)
}

async fn pem(path: &Path) -> Result<Vec<u8>, Failure> {
    tokio::fs::read(path).await.map_err(|error| {
        Failure::Refused(format!("reading {}: {error}; next: make it readable", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_replacing_a_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = TlsFiles { ca: Some(path("ca")), cert: None, key: None };
        let stamp = || Stamp::of(Some(&files));
        let mut seen = vec![Stamp::default(), stamp()];
        let mut step = |what: &str, change: &dyn Fn()| {
            change();
            let now = stamp();
            assert!(!seen.contains(&now), "{what}");
            assert_eq!(stamp(), now);
            seen.push(now);
        };
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        step("made", &|| write("ca", "one"));
        step("written", &|| write("ca", "three"));
        step("renamed", &|| {
            write("next", "three");
            std::fs::rename(path("next"), path("ca")).unwrap();
        });
        step("linked", &|| {
            write("target", "three");
            std::fs::remove_file(path("ca")).unwrap();
            std::os::unix::fs::symlink(path("target"), path("ca")).unwrap();
        });
        assert_eq!(Stamp::of(None), Stamp::default());
    }
}
