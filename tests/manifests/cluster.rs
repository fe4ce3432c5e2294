//! The certificates and users of the etcd cluster, made by the shipped scripts.

use std::path::PathBuf;
use std::process::{Command, Output};

use twill::lab::{Lab, Netns};

use crate::shipped;

/// What `make-certificates` made for the hosts of a lab.
pub(crate) struct Certificates {
    pub(crate) folder: PathBuf,
    pub(crate) endpoints: String,
    addresses: Vec<String>,
}

impl Certificates {
    pub(crate) fn new(lab: &Lab) -> Self {
        let address = |index: usize| lab.hosts[index].addresses[0].to_string();
        let addresses: Vec<String> = (0..lab.hosts.len()).map(address).collect();
        let folder = lab.dir().join("certificates");
        let endpoints: Vec<String> =
            addresses.iter().map(|address| format!("https://{address}:2379")).collect();
        let certificates = Self { folder, endpoints: endpoints.join(","), addresses };
        certificates.make();
        certificates
    }

    /// Runs the script, for the first time or again.
    pub(crate) fn make(&self) {
        let mut make = Command::new(shipped::path("etcd/make-certificates"));
        make.arg(&self.folder);
        for (number, address) in self.addresses.iter().enumerate() {
            make.arg(format!("n{}={address}", number + 1));
        }
        let made = make.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Makes the users from a host that reaches the cluster.
    pub(crate) fn make_users(&self, net: &Netns) -> String {
        let mut make = Command::new(shipped::path("etcd/make-users"));
        make.args([&self.endpoints, &self.file("")]);
        net.output(make).unwrap()
    }

    /// Runs etcdctl with a client's certificate, or with none.
    pub(crate) fn ctl(&self, net: &Netns, client: Option<&str>, args: &[&str]) -> Output {
        let mut ctl = Command::new("etcdctl");
        ctl.env("ETCDCTL_API", "3").args(["--command-timeout", "15s", "--dial-timeout", "5s"]);
        ctl.args(["--endpoints", &self.endpoints, "--cacert", &self.file("ca.crt")]);
        if let Some(client) = client {
            let file = |name: &str| self.file(&format!("{client}/client.{name}"));
            ctl.args(["--cert", &file("crt"), "--key", &file("key")]);
        }
        net.run(|| ctl.args(args).output().unwrap()).unwrap()
    }

    /// Runs a `twill` command as this client, told by variables as the Job is.
    pub(crate) fn twill(&self, net: &Netns, client: &str, words: &[&str]) -> Output {
        let file = |name: &str| self.file(&format!("{client}/{name}"));
        let mut twill = Command::new(crate::machine::TWILL);
        twill.env("TWILL_ETCD_ENDPOINTS", &self.endpoints).env("TWILL_ETCD_CAFILE", file("ca.crt"));
        twill.env("TWILL_ETCD_CERTFILE", file("client.crt")).env("TWILL_ETCD_KEYFILE", file("client.key"));
        net.run(|| twill.args(words).output().unwrap()).unwrap()
    }

    /// Asks a member for its version over TLS with this certificate and key.
    pub(crate) fn version(&self, net: &Netns, port: u16, authority: &str, pair: &str) -> String {
        let ask = format!(
            "printf 'GET /version HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect {}:{port} -CAfile {} -cert {} -key {} 2>&1",
            self.addresses[0],
            self.file(authority),
            self.file(&format!("{pair}.crt")),
            self.file(&format!("{pair}.key")),
        );
        let output = net.run(|| Command::new("sh").args(["-c", &ask]).output().unwrap()).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
