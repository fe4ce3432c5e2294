//! `src/kernel/netlink` against a real kernel.
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod apply;
mod monitor;
mod ours;
mod underlay;

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use twill::datapath::ethtool::tx_checksum;
use twill::kernel::netlink::Netlink;
use twill::kernel::{Change, Kernel, Scope};
use twill_backends::diff::{Op, diff};
use twill_backends::mac::Mac;
use twill_backends::state::{
    Checksums, Fdb, Link, LinkKind, LinkName, NeighKey, NetState, ROUTE_PROTOCOL, Route, RouteKey, RouteKind,
    Vxlan,
};

/// Runs a test in a network namespace of its own, which has `eth0` with an address of each family. It goes away with
/// its thread.
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
fn in_namespace(test: impl AsyncFnOnce(Netlink) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("SKIP: no network namespaces here: {error}");
            return;
        }
        // Addresses would be announced again when duplicate address detection is over.
        for scope in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0").unwrap();
        }
        for command in [
            "link set lo up",
            "link add eth0 type veth peer name wire",
            "link set wire up",
            "link set eth0 up",
            "addr add 192.168.77.1/24 dev eth0",
            "addr add fd77::1/64 dev eth0 nodad",
        ] {
            ip(command);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Netlink::open().unwrap()).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in this thread's namespace and returns what it prints.
#[track_caller]
fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn bridge(args: &str) -> String {
    let output = Command::new("bridge").args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "bridge {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn name(text: &str) -> LinkName {
    text.try_into().unwrap()
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const ALIAS: &str = "twill:test";
const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 1]);
const PEER_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 2]);
/// How long anything may take that is waited for, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(30);

fn scope() -> Scope {
    Scope {
        alias: ALIAS.to_owned(),
        links: [name("flannel.1"), name("flannel-v6.1")].into(),
        sysctls: [
            "net/ipv4/ip_forward".to_owned(),
            "net/ipv6/conf/all/forwarding".to_owned(),
            "net/ipv6/conf/flannel.1/accept_ra".to_owned(),
        ]
        .into(),
        networks: vec![("10.5.0.0/16".parse().unwrap(), 24), ("fd05::/48".parse().unwrap(), 64)],
        own: vec!["10.5.1.0/24".parse().unwrap(), "fd05:0:0:1::/64".parse().unwrap()],
        underlay: Some(name("eth0")),
        flanneld_ran: true,
        stand_ins: false,
    }
}

fn link(local: &str, address: &str) -> Link {
    let vxlan = Vxlan {
        vni: 1,
        port: 8472,
        local: addr(local),
        learning: false,
        gbp: false,
        checksums: Checksums::default(),
    };
    Link {
        kind: LinkKind::Vxlan(vxlan),
        mac: MAC,
        mtu: 1400,
        up: true,
        alias: ALIAS.to_owned(),
        addrs: [address.parse().unwrap()].into(),
    }
}

fn route(via: &str, dev: &str, onlink: bool) -> Route {
    Route {
        kind: RouteKind::Unicast,
        via: Some(addr(via)),
        dev: Some(name(dev)),
        onlink,
        mtu: None,
        protocol: ROUTE_PROTOCOL,
    }
}

fn key(dst: &str) -> RouteKey {
    RouteKey { dst: dst.parse().unwrap(), metric: if dst.contains(':') { 1024 } else { 0 } }
}

/// A host of a dual-stack VXLAN fabric with one peer, and one more behind a direct route.
fn want() -> NetState {
    let (v4, v6) = (name("flannel.1"), name("flannel-v6.1"));
    let mut want = NetState::default();
    want.links.insert(v4, link("192.168.77.1", "10.5.1.0/32"));
    want.links.insert(v6, link("fd77::1", "fd05:0:0:1::/128"));
    want.sysctls.insert("net/ipv4/ip_forward".to_owned(), "1".to_owned());
    want.sysctls.insert("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned());
    want.sysctls.insert("net/ipv6/conf/flannel.1/accept_ra".to_owned(), "0".to_owned());
    want.neighs.insert(NeighKey { dev: v4, ip: addr("10.5.2.0") }, PEER_MAC);
    want.neighs.insert(NeighKey { dev: v6, ip: addr("fd05:0:0:2::") }, PEER_MAC);
    want.fdb.insert(Fdb { dev: v4, mac: PEER_MAC, dst: addr("192.168.77.2") });
    want.fdb.insert(Fdb { dev: v6, mac: PEER_MAC, dst: addr("fd77::2") });
    want.routes.insert(key("10.5.2.0/24"), route("10.5.2.0", "flannel.1", true));
    want.routes.insert(key("fd05:0:0:2::/64"), route("fd05:0:0:2::", "flannel-v6.1", true));
    want.routes.insert(key("10.5.3.0/24"), route("192.168.77.3", "eth0", false));
    want.routes.insert(key("fd05:0:0:3::/64"), Route { mtu: Some(1300), ..route("fd77::3", "eth0", false) });
    let blackhole = Route { via: None, dev: None, kind: RouteKind::Blackhole, ..route("::", "eth0", false) };
    want.routes.insert(key("10.5.1.0/24"), blackhole);
    want.routes.insert(key("fd05:0:0:1::/64"), blackhole);
    want
}

async fn have(kernel: &Netlink) -> NetState {
    kernel.observe(&scope()).await.unwrap().net
}

/// Makes the kernel as wanted, and returns what that took.
async fn converge(kernel: &Netlink, want: &NetState) -> Vec<Op> {
    let mut done = Vec::new();
    for _ in 0..3 {
        let ops = diff(want, &have(kernel).await);
        if ops.is_empty() {
            break;
        }
        for answer in kernel.apply(&ops).await {
            answer.unwrap();
        }
        done.extend(ops);
    }
    assert_eq!(have(kernel).await, *want);
    done
}

/// The next change, within a deadline.
async fn next(kernel: &Netlink) -> Change {
    let waited = tokio::time::timeout(PATIENCE, kernel.changed(&scope())).await;
    waited.expect("the kernel announced nothing")
}

/// Lets the announcements so far pass.
async fn settle(kernel: &Netlink) {
    while tokio::time::timeout(Duration::from_millis(150), kernel.changed(&scope())).await.is_ok() {}
}

/// Asserts that nothing was announced, by announcing something and hearing only that.
async fn silent(kernel: &Netlink) {
    ip("neigh add 10.5.250.0 lladdr 02:00:00:00:00:fa dev flannel.1 nud permanent");
    let key = NeighKey { dev: name("flannel.1"), ip: addr("10.5.250.0") };
    let probe = Op::SetNeigh(key, Mac([2, 0, 0, 0, 0, 0xfa]));
    assert_eq!(next(kernel).await, Change::Did(vec![probe]));
    ip("neigh del 10.5.250.0 dev flannel.1");
    assert_eq!(next(kernel).await, Change::Did(vec![Op::DelNeigh(key)]));
}
