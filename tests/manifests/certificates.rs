//! What `make-certificates` writes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::shipped;

fn command(folder: &Path, members: &[&str]) -> Command {
    let mut command = Command::new(shipped::path("etcd/make-certificates"));
    command.arg(folder).args(members);
    command
}

fn make(folder: &Path, members: &[&str]) -> Output {
    command(folder, members).output().unwrap()
}

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Every file below a folder, by its path from there.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(dir) = folders.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn each_member_and_each_client_gets_its_own() {
    let dir = TempDir::new().unwrap();
    let made = make(dir.path(), &["a=192.0.2.1", "b=2001:db8::2", "c=192.0.2.3"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let at = |name: &str| dir.path().join(name).display().to_string();
    let verified = |authority: &str, file: &str| openssl(&["verify", "-CAfile", &at(authority), &at(file)]);
    for file in
        ["a/server.crt", "b/server.crt", "twill/client.crt", "twill-config/client.crt", "root/client.crt"]
    {
        assert!(verified("ca.crt", file).ends_with("OK\n"), "{file}");
        assert!(!verified("peer-ca.crt", file).contains("OK"), "{file}");
    }
    assert!(verified("peer-ca.crt", "b/peer.crt").ends_with("OK\n"));
    let text = openssl(&["x509", "-noout", "-text", "-in", &at("b/server.crt")]);
    assert!(text.contains("IP Address:2001:DB8:0:0:0:0:0:2") && text.contains("DNS:b"), "{text}");
    let text = openssl(&["x509", "-noout", "-text", "-in", &at("twill/client.crt")]);
    assert!(text.contains("CN = twill\n") && !text.contains("Server Authentication"), "{text}");
    let env = fs::read_to_string(at("b/member.env")).unwrap();
    let cluster = "a=https://192.0.2.1:2380,b=https://[2001:db8::2]:2380,c=https://192.0.2.3:2380";
    assert!(env.contains(&format!("ETCD_INITIAL_CLUSTER={cluster}\n")), "{env}");
    for name in files(dir.path()).keys().filter(|name| name.ends_with(".key")) {
        assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o077, 0, "{name}");
    }
    // No member and no client has what makes others.
    assert!(!files(dir.path()).keys().any(|name| name.contains('/') && name.ends_with("ca.key")));
}

#[test]
fn a_second_run_renews_and_adds() {
    let dir = TempDir::new().unwrap();
    assert!(make(dir.path(), &["a=192.0.2.1"]).status.success());
    let before = files(dir.path());
    assert!(make(dir.path(), &["a=192.0.2.1", "b=192.0.2.2"]).status.success());
    let after = files(dir.path());
    for kept in ["ca.crt", "ca.key", "peer-ca.key", "token"] {
        assert_eq!(before[kept], after[kept], "{kept}");
    }
    for renewed in ["a/server.crt", "a/peer.key", "twill/client.crt"] {
        assert_ne!(before[renewed], after[renewed], "{renewed}");
    }
    let env = |member: &str| fs::read_to_string(dir.path().join(member).join("member.env")).unwrap();
    assert!(env("b").contains("ETCD_INITIAL_CLUSTER_STATE=new\n"), "none may run yet");
    let made =
        command(dir.path(), &["a=192.0.2.1", "c=192.0.2.3"]).env("STATE", "existing").output().unwrap();
    assert!(made.status.success());
    assert!(env("c").contains("ETCD_INITIAL_CLUSTER_STATE=existing\n"));
}

#[test]
fn wrong_words_are_refused_before_anything_is_made() {
    let dir = TempDir::new().unwrap();
    for words in
        [&[][..], &["a"], &["a=host.example"], &["A=192.0.2.1"], &["root=192.0.2.1"], &["../x=192.0.2.1"]]
    {
        let made = make(dir.path(), words);
        assert_eq!(made.status.code(), Some(64), "{words:?}");
        assert!(!made.stderr.is_empty(), "{words:?}");
        assert!(files(dir.path()).is_empty(), "{words:?}");
    }
}
