//! The image: busybox, its names, and a page that says who asked for it. An archive as `docker save` writes it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

/// Where Debian's busybox-static has it.
pub(crate) const BUSYBOX: &str = "/usr/bin/busybox";
/// How containerd knows the image.
pub(crate) const IMAGE: &str = "docker.io/library/twill-test:1";
/// What of busybox is used inside.
const NAMES: [&str; 5] = ["sh", "httpd", "ip", "timeout", "wget"];
/// Answers with the address that the connection came from.
const WHO: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' $REMOTE_ADDR\n";

/// The files of the container: also what a server on a host serves.
pub(crate) fn root(dir: &Path) -> PathBuf {
    dir.join("image/root")
}

/// Makes the archive. Returns its path.
pub(crate) fn build(dir: &Path) -> PathBuf {
    let (image, root) = (dir.join("image"), root(dir));
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("www/cgi-bin")).unwrap();
    for name in NAMES {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let who = root.join("www/cgi-bin/who");
    fs::write(&who, WHO).unwrap();
    run(Command::new("chmod").arg("755").arg(&who));
    // By a process of its own: a descriptor that a fork inherits would make an exec fail with ETXTBSY.
    run(Command::new("cp").arg(BUSYBOX).arg(root.join("bin/busybox")));
    tar(&root, &image.join("layer.tar"), &["."]);
    let sum = run(Command::new("sha256sum").arg(image.join("layer.tar")));
    let digest = format!("sha256:{}", sum.split_whitespace().next().unwrap());
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest] },
    });
    fs::write(image.join("config.json"), config.to_string()).unwrap();
    let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    fs::write(image.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join("image.tar");
    tar(&image, &archive, &["manifest.json", "config.json", "layer.tar"]);
    archive
}

/// As Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tar(from: &Path, archive: &Path, what: &[&str]) {
    run(Command::new("tar")
        .arg("-C")
        .arg(from)
        .args(["--owner=0", "--group=0", "-cf"])
        .arg(archive)
        .args(what));
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
