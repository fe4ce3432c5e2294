//! Settings and features of the kernel.

use twill_backends::family::Family;

use crate::agent::status::ChecksumStatus;
use crate::doctor::Finding;
use crate::doctor::facts::Facts;
use crate::doctor::sign::Sign;
use crate::kernel::facts::BY_RA;

/// How much of the table of connections may be used, in percent.
const CROWDED: u64 = 90;
/// Wrong checksums that are nobody's fault, and how many UDP packets one in so many may be wrong.
const STRAY: u64 = 100;
const ONE_IN: u64 = 1_000;

/// A setting that is not as wanted, with the line that makes it so.
fn setting(sign: Sign, path: &str, found: &str, wanted: &str) -> Finding {
    let name = path.replace('/', ".");
    let next = format!("sysctl -w {name}={wanted}, and the same in /etc/sysctl.d");
    // A dot in a device's name is a slash in the notation of sysctl.
    let next = if path.contains('.') {
        format!("echo {wanted} > /proc/sys/{path}, and {}", sign.entry().next)
    } else {
        next
    };
    Finding::new(sign.entry(), name, found).wanted(wanted).next(next)
}

/// The families in use.
fn families(facts: &Facts) -> impl Iterator<Item = Family> {
    let network = facts.fabric.network.as_ref();
    network.into_iter().flat_map(|network| network.pools.iter().map(|(family, _)| family))
}

/// Whether packets are forwarded.
pub(super) fn forwarding(facts: &Facts) -> Vec<Finding> {
    let mut paths: Vec<String> = families(facts).map(|family| family.forwarding().to_owned()).collect();
    // A device may be exempt from what holds for all.
    if families(facts).any(|family| family == Family::V4) {
        paths.extend(facts.devices().map(|device| format!("net/ipv4/conf/{device}/forwarding")));
    }
    let off = |path: &String| facts.setting(path) == Some("0");
    paths
        .iter()
        .filter(|path| off(path))
        .map(|path| setting(Sign::ForwardingOff, path, "0", "1"))
        .take(1)
        .collect()
}

/// Whether packets may come by another way than the one back. The larger of two settings counts.
pub(super) fn reverse_path(facts: &Facts) -> Vec<Finding> {
    let value = |name: &str| facts.setting(&format!("net/ipv4/conf/{name}/rp_filter"))?.parse::<u8>().ok();
    let all = value("all").unwrap_or_default();
    let strict = facts.devices().find(|device| value(device.as_str()).is_some_and(|own| own.max(all) == 1));
    strict
        .map(|device| {
            let subject = if all == 1 { "all".to_owned() } else { device.to_string() };
            setting(Sign::ReversePath, &format!("net/ipv4/conf/{subject}/rp_filter"), "1 (strict)", "2")
        })
        .into_iter()
        .collect()
}

/// Whether IPv6 is on where it is needed, and the way out stays.
pub(super) fn ipv6(facts: &Facts) -> Vec<Finding> {
    if !families(facts).any(|family| family == Family::V6) {
        return Vec::new();
    }
    let path = |device: &str, name: &str| format!("net/ipv6/conf/{device}/{name}");
    let off = facts.devices().map(|device| path(device.as_str(), "disable_ipv6"));
    let off = off.filter(|path| facts.setting(path) == Some("1"));
    let mut findings: Vec<Finding> = off.map(|path| setting(Sign::Ipv6Off, &path, "1", "0")).collect();
    let advertised = facts.host.routes.iter().filter(|route| route.protocol == BY_RA);
    let uplinks = advertised.filter_map(|route| route.dev).filter(|dev| Some(*dev) == facts.fabric.underlay);
    let ignored =
        uplinks.map(|dev| path(dev.as_str(), "accept_ra")).find(|path| facts.setting(path) == Some("1"));
    findings.extend(ignored.map(|path| setting(Sign::AdvertisementsIgnored, &path, "1", "2")));
    findings
}

/// Whether the kernel has VXLAN, where it is to carry frames.
pub(super) fn vxlan(facts: &Facts) -> Vec<Finding> {
    facts.no_vxlan.iter().map(|why| Finding::new(Sign::NoVxlan.entry(), "vxlan", why)).collect()
}

/// Whether Services work between pods of one host.
pub(super) fn bridge_netfilter(facts: &Facts) -> Vec<Finding> {
    const PATH: &str = "net/bridge/bridge-nf-call-iptables";
    let kube =
        facts.programs.iter().find(|program| ["kubelet", "kube-proxy"].contains(&program.name.as_str()));
    let found = match facts.setting(PATH) {
        Some("0") => "0",
        Some(_) => return Vec::new(),
        None => "br_netfilter is not loaded",
    };
    let sign = Sign::BridgeNetfilter;
    kube.map(|_| Finding::new(sign.entry(), PATH.replace('/', "."), found).wanted("1")).into_iter().collect()
}

/// Whether connections find room.
pub(super) fn conntrack(facts: &Facts) -> Vec<Finding> {
    let number =
        |name: &str| facts.setting(&format!("net/netfilter/nf_conntrack_{name}"))?.parse::<u64>().ok();
    let (Some(count), Some(max)) = (number("count"), number("max")) else { return Vec::new() };
    // 0 is no limit.
    if max == 0 || count.saturating_mul(100) < max.saturating_mul(CROWDED) {
        return Vec::new();
    }
    let found = format!("{count} connections, room for {max}");
    let next = format!("sysctl -w net.netfilter.nf_conntrack_max={}, and the same in /etc/sysctl.d", max * 2);
    vec![Finding::new(Sign::ConntrackFull.entry(), "connections", found).next(next)]
}

/// Whether what comes is what was sent.
pub(super) fn checksums(facts: &Facts) -> Vec<Finding> {
    let udp = facts.udp;
    let many = udp.spoilt > STRAY && udp.spoilt > udp.received / ONE_IN;
    let found = format!("{} of {} UDP packets", udp.spoilt, udp.received + udp.spoilt);
    many.then(|| Finding::new(Sign::Checksums.entry(), "UDP", found)).into_iter().collect()
}

/// Whether the underlay's device gets checksums inside the tunnel right.
pub(super) fn offload(facts: &Facts) -> Vec<Finding> {
    let devices = facts.status().and_then(|status| status.network.as_ref()?.datapath.as_ref());
    let spoilt =
        devices.into_iter().flat_map(|datapath| &datapath.checksums).filter(|device| !device.offload);
    let finding = |device: &ChecksumStatus| {
        let found = device.spoilt.as_ref()?;
        Some(Finding::new(Sign::OffloadSpoilt.entry(), &device.device, found))
    };
    spoilt.filter_map(finding).collect()
}
