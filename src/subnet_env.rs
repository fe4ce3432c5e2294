//! The file CNI plugins depend on: read, and atomically written.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use twill_backends::family::{Family, PerFamily};
use twill_backends::lease::Subnets;

use crate::files;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv {
    /// The network of each family.
    pub networks: PerFamily<IpNet>,
    /// This host's subnet of each family.
    pub subnets: Subnets,
    /// The MTU of pods, in bytes.
    pub mtu: u32,
    /// Whether the agent masquerades, so that the CNI plugin need not.
    pub masquerade: bool,
}

/// What an earlier run, or flanneld, left in the file, as far as it can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Previous {
    /// The networks.
    pub networks: PerFamily<IpNet>,
    /// The subnets, with their host bits masked off.
    pub subnets: Subnets,
}

impl SubnetEnv {
    /// Replaces the file. Mode 0644 whatever the umask: other users' plugins read it.
    ///
    /// # Errors
    /// As the file system answers.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        files::replace(path, self.to_string().as_bytes(), 0o644)
    }
}

impl fmt::Display for SubnetEnv {
    /// The lines, in the order in which flanneld writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for family in Family::ALL {
            let infix = infix(family);
            if let Some(network) = self.networks.get(family) {
                writeln!(f, "FLANNEL_{infix}NETWORK={network}")?;
            }
            if let Some(subnet) = self.subnets.get(family) {
                writeln!(f, "FLANNEL_{infix}SUBNET={}/{}", gateway(subnet), subnet.prefix_len())?;
            }
        }
        writeln!(f, "FLANNEL_MTU={}", self.mtu)?;
        writeln!(f, "FLANNEL_IPMASQ={}", self.masquerade)
    }
}

impl Previous {
    /// Reads the file; one that is missing or unreadable says nothing.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        std::fs::read_to_string(path).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Reads dotenv text: comments, `export`, quotes and `KEY: value` are understood. A list counts only if exactly
    /// one of its entries is a network of the right family.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut previous = Self::default();
        for (key, value) in text.lines().filter_map(assignment) {
            for family in Family::ALL {
                let infix = infix(family);
                if key == format!("FLANNEL_{infix}NETWORK") {
                    previous.networks.set(family, single(value, family));
                } else if key == format!("FLANNEL_{infix}SUBNET") {
                    previous.subnets.set(family, single(value, family));
                }
            }
        }
        previous
    }
}

/// The first address of a subnet: that of the bridge.
fn gateway(subnet: &IpNet) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(base) => IpAddr::from((base.to_bits().saturating_add(1)).to_be_bytes()),
        IpAddr::V6(base) => IpAddr::from((base.to_bits().saturating_add(1)).to_be_bytes()),
    }
}

/// What stands after `FLANNEL_` in the keys of a family.
pub(crate) const fn infix(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "IPV6_",
    }
}

/// The key and the value of a line of dotenv text.
pub(crate) fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let at = line.find(['=', ':']).filter(|_| !line.starts_with('#'))?;
    let (key, value) = (line[..at].trim_end(), line[at + 1..].trim());
    let quoted = |quote: char| {
        let inner = value.strip_prefix(quote)?;
        inner.find(quote).map(|end| &inner[..end])
    };
    let bare = || value.split(" #").next().unwrap_or(value).trim_end();
    Some((key, quoted('"').or_else(|| quoted('\'')).unwrap_or_else(bare)))
}

fn single(value: &str, family: Family) -> Option<IpNet> {
    let mut nets = value
        .split(',')
        .filter_map(|entry| entry.trim().parse::<IpNet>().ok())
        .filter(|net| Family::of_net(net) == family)
        .map(|net| net.trunc());
    nets.next().filter(|_| nets.next().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn dual() -> SubnetEnv {
        SubnetEnv {
            networks: PerFamily { v4: Some(net("10.5.0.0/16")), v6: Some(net("fd00:5::/48")) },
            subnets: PerFamily { v4: Some(net("10.5.52.0/24")), v6: Some(net("fd00:5:0:56::/64")) },
            mtu: 1430,
            masquerade: true,
        }
    }

    #[test]
    fn text_is_flannels_to_the_byte() {
        let text = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_IPV6_NETWORK=fd00:5::/48\n\
                    FLANNEL_IPV6_SUBNET=fd00:5:0:56::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n";
        assert_eq!(dual().to_string(), text);
        let v4 = SubnetEnv {
            networks: PerFamily { v6: None, ..dual().networks },
            subnets: PerFamily { v6: None, ..dual().subnets },
            mtu: 1450,
            masquerade: false,
        };
        let text = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.52.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
        assert_eq!(v4.to_string(), text);
    }

    #[test]
    fn what_is_written_reads_back() {
        let read = Previous::parse(&dual().to_string());
        assert_eq!(read, Previous { networks: dual().networks, subnets: dual().subnets });
    }

    #[test]
    fn dotenv_syntax_is_understood() {
        for line in [
            "FLANNEL_SUBNET=10.5.52.1/24",
            "export FLANNEL_SUBNET=10.5.52.1/24",
            "FLANNEL_SUBNET=\"10.5.52.1/24\"",
            "FLANNEL_SUBNET='10.5.52.1/24' # mine",
            "FLANNEL_SUBNET: 10.5.52.1/24",
            "  FLANNEL_SUBNET = 10.5.52.1/24 # mine",
            "FLANNEL_SUBNET=10.5.52.1/24,not-a-cidr",
        ] {
            assert_eq!(Previous::parse(line).subnets.v4, Some(net("10.5.52.0/24")), "{line}");
        }
    }

    #[test]
    fn lists_and_rubbish_count_as_nothing() {
        for line in [
            "FLANNEL_SUBNET=10.5.52.1/24,10.5.53.1/24",
            "FLANNEL_SUBNET=not-a-cidr",
            "FLANNEL_SUBNET=fd00::1/64",
            "#FLANNEL_SUBNET=10.5.52.1/24",
            "FLANNEL_SUBNET",
        ] {
            assert_eq!(Previous::parse(line), Previous::default(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".*") {
            let subnets = Previous::parse(&text).subnets;
            prop_assert!(subnets.iter().all(|(family, net)| Family::of_net(net) == family));
        }
    }
}
