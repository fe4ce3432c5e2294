//! What subnet.env says to the plugin. It is read as flannel's plugin does, line by line and without quotes, so that both
//! agree on every file; the agent's own reader understands more.

use std::fs;
use std::io;
use std::path::Path;

use ipnet::IpNet;
use twill_backends::family::{Family, PerFamily};

use super::error::{self, CniError};
use crate::subnet_env::infix;

/// The fabric, seen from this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fabric {
    /// All networks, IPv4 first.
    pub networks: Vec<IpNet>,
    /// This host's subnets.
    pub subnets: PerFamily<IpNet>,
    /// The MTU of containers, in bytes.
    pub mtu: u32,
    /// Whether the agent masquerades, so that the bridge need not.
    pub masquerade: bool,
}

/// What was found so far, until it is known to be whole.
#[derive(Default)]
struct Found {
    networks: PerFamily<Vec<IpNet>>,
    subnets: PerFamily<IpNet>,
    mtu: Option<u32>,
    masquerade: Option<bool>,
}

/// Why there is nothing to read.
#[derive(Debug)]
pub enum FabricError {
    /// No such file: the agent has not written it yet.
    Absent,
    /// It is there, and is of no use.
    Bad(CniError),
}

impl Fabric {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not there, cannot be read (code 5), or does not say all that is needed (999).
    pub fn read(path: &Path) -> Result<Self, FabricError> {
        let shown = path.display();
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Err(FabricError::Absent),
            Err(cause) => {
                let text = format!("cannot read subnet.env {shown}: {cause}");
                return Err(FabricError::Bad(CniError::new(error::IO, text)));
            }
        };
        let bad = |why| CniError::new(error::OTHER, format!("cannot use subnet.env {shown}: {why}"));
        Self::parse(&String::from_utf8_lossy(&text)).map_err(|why| FabricError::Bad(bad(why)))
    }

    /// The same for those who only look: it may not be there.
    ///
    /// # Errors
    /// Why it is of no use.
    pub fn find(path: &Path) -> Result<Option<Self>, String> {
        match Self::read(path) {
            Ok(fabric) => Ok(Some(fabric)),
            Err(FabricError::Absent) => Ok(None),
            Err(FabricError::Bad(error)) => Err(error.msg),
        }
    }

    /// Reads the text.
    ///
    /// # Errors
    /// The line that is wrong, or the list of keys that are missing, in flannel's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut found = Found::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            found.take(key, value).ok_or_else(|| format!("{key}={value} is wrong"))?;
        }
        found.whole()
    }
}

impl Found {
    /// Takes one line; `None` if its value is wrong. Other keys say nothing to the plugin.
    fn take(&mut self, key: &str, value: &str) -> Option<()> {
        for family in Family::ALL {
            let infix = infix(family);
            if key == format!("FLANNEL_{infix}NETWORK") {
                let mut nets = Vec::new();
                for entry in value.split(',') {
                    let net = network(entry, family)?;
                    if !nets.contains(&net) {
                        nets.push(net);
                    }
                }
                self.networks.set(family, Some(nets));
            } else if key == format!("FLANNEL_{infix}SUBNET") {
                self.subnets.set(family, Some(network(value, family)?));
            }
        }
        match key {
            "FLANNEL_MTU" => self.mtu = Some(value.parse().ok()?),
            "FLANNEL_IPMASQ" => self.masquerade = Some(value == "true"),
            _ => {}
        }
        Some(())
    }

    fn whole(self) -> Result<Fabric, String> {
        let missing: Vec<&str> = [
            (self.networks.is_empty(), "FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK"),
            (self.subnets.is_empty(), "FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET"),
            (self.mtu.is_none(), "FLANNEL_MTU"),
            (self.masquerade.is_none(), "FLANNEL_IPMASQ"),
        ]
        .iter()
        .filter_map(|(absent, keys)| absent.then_some(*keys))
        .collect();
        match (self.mtu, self.masquerade) {
            (Some(mtu), Some(masquerade)) if missing.is_empty() => {
                let networks = self.networks.iter().flat_map(|(_, nets)| nets).copied().collect();
                Ok(Fabric { networks, subnets: self.subnets, mtu, masquerade })
            }
            _ => Err(format!("missing {}", missing.join(", "))),
        }
    }
}

fn network(text: &str, family: Family) -> Option<IpNet> {
    text.parse::<IpNet>().ok().filter(|net| Family::of_net(net) == family).map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::subnet_env::SubnetEnv;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_agents_file_is_read() {
        let subnets = PerFamily { v4: Some(net("10.5.52.0/24")), v6: Some(net("fd00:5:0:56::/64")) };
        let networks = PerFamily { v4: Some(net("10.5.0.0/16")), v6: Some(net("fd00:5::/48")) };
        let written = SubnetEnv { networks, subnets, mtu: 1430, masquerade: true };
        let read = Fabric::parse(&written.to_string()).unwrap();
        let networks = vec![net("10.5.0.0/16"), net("fd00:5::/48")];
        assert_eq!(read, Fabric { networks, subnets, mtu: 1430, masquerade: true });
    }

    #[test]
    fn several_networks_are_kept_once_each_and_odd_truths_are_false() {
        let text = "FLANNEL_NETWORK=10.1.0.0/16,10.2.3.4/16,10.1.9.9/16\nFLANNEL_SUBNET=10.1.17.1/24\n\
                    FLANNEL_MTU=1472\nFLANNEL_IPMASQ=True\nfoo=bar\n# x\n";
        let read = Fabric::parse(text).unwrap();
        assert_eq!(read.networks, [net("10.1.0.0/16"), net("10.2.0.0/16")]);
        assert!(!read.masquerade && read.subnets.v6.is_none());
    }

    #[test]
    fn what_is_missing_is_listed_in_flannels_order() {
        let all = "missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, \
                   FLANNEL_MTU, FLANNEL_IPMASQ";
        for text in ["foo=bar", "", "FLANNEL_MTU", "FLANNEL_NETWORK\nFLANNEL_IPMASQ"] {
            assert_eq!(Fabric::parse(text).unwrap_err(), all, "{text}");
        }
        let text = "FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00::1/64\nFLANNEL_IPMASQ=true";
        assert_eq!(Fabric::parse(text).unwrap_err(), "missing FLANNEL_MTU");
    }

    #[test]
    fn a_wrong_value_is_quoted() {
        for line in [
            "FLANNEL_SUBNET=10.1.17.1",
            "FLANNEL_MTU=-1",
            "FLANNEL_NETWORK=fd00::/48",
            "FLANNEL_SUBNET=\"x\"",
        ] {
            assert!(Fabric::parse(line).unwrap_err().contains(line), "{line}");
        }
    }

    #[test]
    fn a_file_that_is_no_file_is_told_from_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Fabric::read(&dir.path().join("none")), Err(FabricError::Absent)));
        let Err(FabricError::Bad(error)) = Fabric::read(dir.path()) else { panic!("a folder was read") };
        assert!(error.code == error::IO && error.msg.contains("subnet.env"), "{error}");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(FLANNEL_(IPV6_)?(NETWORK|SUBNET|MTU|IPMASQ)=?[0-9a-f:./,]{0,20}\n|.{0,10}\n){0,8}") {
            if let Ok(fabric) = Fabric::parse(&text) {
                prop_assert!(!fabric.subnets.is_empty() && !fabric.networks.is_empty());
            }
        }
    }
}
