//! What `/proc/net` and processes tell of UDP.

use std::fs;
use std::path::Path;

use crate::doctor::facts::{Program, Udp};

/// The network of this thread, which may have one of its own.
const NET: &str = "/proc/thread-self/net";

/// UDP packets received, and spoilt.
#[must_use]
pub fn udp() -> Udp {
    let text = |name: &str| fs::read_to_string(format!("{NET}/{name}")).unwrap_or_default();
    let (v4, v6) = (snmp(&text("snmp")), snmp6(&text("snmp6")));
    Udp { received: v4.received + v6.received, spoilt: v4.spoilt + v6.spoilt }
}

/// A line of names, and one of numbers.
fn snmp(text: &str) -> Udp {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return Udp::default() };
    let number = |name: &str| {
        let at = names.split_whitespace().position(|one| one == name)?;
        numbers.split_whitespace().nth(at)?.parse().ok()
    };
    Udp {
        received: number("InDatagrams").unwrap_or_default(),
        spoilt: number("InCsumErrors").unwrap_or_default(),
    }
}

/// A name and a number on each line.
fn snmp6(text: &str) -> Udp {
    let number = |name: &str| {
        let mut words =
            text.lines().map(str::split_whitespace).find(|words| words.clone().next() == Some(name))?;
        words.nth(1)?.parse().ok()
    };
    Udp {
        received: number("Udp6InDatagrams").unwrap_or_default(),
        spoilt: number("Udp6InCsumErrors").unwrap_or_default(),
    }
}

/// Sockets of programs that have a port; those of the kernel have no inode.
pub(super) fn inodes(port: u16) -> Vec<u64> {
    let tables = ["udp", "udp6"].map(|name| fs::read_to_string(format!("{NET}/{name}")).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(|line| inode(line, port)).collect()
}

fn inode(line: &str, port: u16) -> Option<u64> {
    let mut words = line.split_whitespace();
    let (_, local) = words.nth(1)?.rsplit_once(':')?;
    let inode = words.nth(7)?.parse().ok()?;
    (u16::from_str_radix(local, 16) == Ok(port) && inode != 0).then_some(inode)
}

/// The program that has a socket, as far as this process may see.
pub(super) fn holder(proc: &Path, inode: u64) -> Option<Program> {
    let socket = format!("socket:[{inode}]");
    let entries = fs::read_dir(proc).ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let open = fs::read_dir(proc.join(format!("{pid}/fd"))).into_iter().flatten().flatten();
        open.filter_map(|file| fs::read_link(file.path()).ok())
            .any(|link| link.as_os_str() == socket.as_str())
    };
    let pid = pids.find(has)?;
    let name = fs::read_to_string(proc.join(format!("{pid}/comm"))).unwrap_or_default();
    Some(Program { pid, name: name.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn counters_are_read_by_name() {
        let text = "Udp: InDatagrams NoPorts InErrors InCsumErrors\nUdp: 100 1 2 7\nUdpLite: InDatagrams\n";
        assert_eq!(snmp(text), Udp { received: 100, spoilt: 7 });
        let text = "Udp6InDatagrams                 \t9\nUdp6InCsumErrors                \t3\n";
        assert_eq!(snmp6(text), Udp { received: 9, spoilt: 3 });
        assert_eq!((snmp(""), snmp6("")), (Udp::default(), Udp::default()));
    }

    #[test]
    fn who_has_a_port_is_found_and_the_kernel_is_nobody() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(addr) else { continue };
            let inodes = inodes(socket.local_addr().unwrap().port());
            assert_eq!(inodes.len(), 1, "{addr}");
            assert_eq!(holder(Path::new("/proc"), inodes[0]).unwrap().pid, std::process::id());
        }
        let kernels = "  1: 00000000:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0 0";
        assert_eq!(inode(kernels, 8472), None);
        assert_eq!(inode(&kernels.replace(" 0 0 2 0", " 0 77 2 0"), 8472), Some(77));
    }
}
