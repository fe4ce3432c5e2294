//! What `twill bench` compares, and how.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// An enum whose values have names to type, to print and to find in JSON.
macro_rules! named {
    ($(#[$about:meta])* $type:ident { $($(#[$doc:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type { $($(#[$doc])* $value,)* }

        impl $type {
            /// All of them, in the order of tables.
            pub const ALL: &[Self] = &[$(Self::$value),*];

            /// As typed and printed.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $name),* }
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|value| value.as_str() == text);
                found.copied().ok_or_else(|| {
                    let names: Vec<&str> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    format!("give some of {}", names.join(","))
                })
            }
        }
    };
}

named! {
    /// What carries the packets.
    Subject {
        /// The underlay itself, no overlay.
        Bare = "bare",
        /// Kernel VXLAN set up by hand, no agent: what all others are divided by.
        ByHand = "by-hand",
        /// The agent's vxlan, carried by the kernel.
        Vxlan = "vxlan",
        /// The agent's host-gw: routes, no tunnel.
        HostGw = "host-gw",
        /// The agent's vxlan, carried by the agent with the kernel's offloads.
        Userspace = "userspace",
        /// The same without offloads.
        Plain = "plain",
        /// A loop that takes frames through user space and looks at nothing: what the agent could carry at best.
        Ceiling = "ceiling",
    }
}

named! {
    /// Where traffic begins and ends.
    Ends {
        /// In the hosts' own namespaces.
        Hosts = "hosts",
        /// In pods behind the hosts' bridges.
        Pods = "pods",
    }
}

named! {
    /// What is measured.
    Measure {
        /// One TCP stream.
        Tcp1 = "tcp-1",
        /// Eight TCP streams.
        Tcp8 = "tcp-8",
        /// UDP datagrams of 64 bytes, as fast as they can be sent.
        Udp64 = "udp-64",
        /// UDP datagrams of 1400 bytes.
        Udp1400 = "udp-1400",
        /// Round trips without other traffic, one each 100 ms.
        Ping100 = "ping-100ms",
        /// Round trips without other traffic, one each 5 ms.
        Ping5 = "ping-5ms",
        /// Round trips beside a TCP stream, one each 5 ms.
        PingLoaded = "ping-loaded",
        /// What the agent costs without traffic.
        Idle = "idle",
    }
}

/// What `twill bench` does.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchConfig {
    /// What is compared; at least one.
    pub subjects: Vec<Subject>,
    /// From where to where; at least one.
    pub ends: Vec<Ends>,
    /// What is measured; at least one.
    pub measures: Vec<Measure>,
    /// How often each measure is taken of each subject; 1 to 100.
    pub runs: u16,
    /// How long each measure takes, warm-up not included; 0.1 to 60 s.
    pub duration: Duration,
    /// The congestion control of TCP, if not the system's.
    pub congestion: Option<String>,
    /// IPv6, underlay and overlay, in place of IPv4.
    pub ipv6: bool,
    /// How many datagrams a system call sends; 1 to 64.
    pub batch: usize,
    /// How many queues the userspace datapath serves, if not as many as help.
    pub queues: Option<u16>,
    /// The last line of stdout is one JSON object.
    pub json: bool,
    /// The folder for the JSON and the picture.
    pub out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for subject in Subject::ALL {
            assert_eq!(subject.as_str().parse(), Ok(*subject));
        }
        for measure in Measure::ALL {
            assert_eq!(measure.as_str().parse(), Ok(*measure));
        }
        assert_eq!("pods".parse(), Ok(Ends::Pods));
        assert_eq!("both".parse::<Ends>(), Err("give some of hosts,pods".into()));
    }
}
