//! The test bench itself: what all other tests on a real kernel stand on.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use twill::lab::{Cancel, Lab, LabError, LabOptions, Netns, Pod, PodSubnet, Process, UPLINK, probe};

const SOON: Duration = Duration::from_secs(30);

/// Says why, and gives up, where network namespaces cannot be made.
macro_rules! need_namespaces {
    () => {
        if let Err(reason) = Lab::available() {
            println!("SKIP: {reason}");
            return;
        }
    };
}

fn subnet(host: u8, v4: bool, v6: bool) -> PodSubnet {
    PodSubnet {
        ipv4: v4.then(|| format!("10.244.{host}.1/24").parse().unwrap()),
        ipv6: v6.then(|| format!("fd00:244:0:{host}::1/64").parse().unwrap()),
        mtu: 1500,
    }
}

/// What host-gw would do: forwarding on, and a route to each other host's subnets.
fn route_by_hand(lab: &Lab, v4: bool, v6: bool) {
    for (i, host) in lab.hosts.iter().enumerate() {
        host.net.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
        host.net.set_sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        for (j, peer) in lab.hosts.iter().enumerate().filter(|(j, _)| *j != i) {
            for gateway in subnet(u8::try_from(j + 1).unwrap(), v4, v6).gateways() {
                let via = peer.address_like(gateway.addr()).unwrap();
                host.net.add_route(gateway.trunc(), via).unwrap();
            }
        }
    }
}

fn pods(lab: &Lab, v4: bool, v6: bool) -> Vec<Pod> {
    let pod = |(i, host): (usize, &twill::lab::Host)| {
        host.pod(&subnet(u8::try_from(i + 1).unwrap(), v4, v6)).unwrap()
    };
    lab.hosts.iter().enumerate().map(pod).collect()
}

fn assert_all_pairs(pods: &[Pod], families: usize) {
    for from in pods {
        for to in pods.iter().filter(|to| to.name != from.name) {
            assert_eq!(to.addresses.len(), families);
            for target in &to.addresses {
                probe::ping_until(&from.net, *target, SOON, &Cancel::default())
                    .unwrap_or_else(|error| panic!("{} to {}: {error}", from.name, to.name));
            }
        }
    }
}

fn all_pairs(v4: bool, v6: bool, segments: u8) {
    let options = LabOptions { ipv4: v4, ipv6: v6, segments, ..LabOptions::default() };
    let lab = Lab::new(&options).unwrap();
    if segments == 1 {
        route_by_hand(&lab, v4, v6);
        assert_all_pairs(&pods(&lab, v4, v6), usize::from(v4) + usize::from(v6));
    }
    for from in &lab.hosts {
        for target in lab.hosts.iter().flat_map(|to| &to.addresses) {
            probe::ping_until(&from.net, *target, SOON, &Cancel::default()).unwrap();
        }
    }
}

#[test]
fn pods_reach_each_other_over_hand_set_routes() {
    need_namespaces!();
    all_pairs(true, false, 1);
}

#[test]
fn pods_reach_each_other_in_both_families() {
    need_namespaces!();
    all_pairs(true, true, 1);
}

#[test]
fn pods_reach_each_other_without_ipv4() {
    need_namespaces!();
    all_pairs(false, true, 1);
}

#[test]
fn hosts_reach_each_other_across_segments() {
    need_namespaces!();
    all_pairs(true, true, 2);
}

/// The agent has to turn forwarding on; a lab that did would hide that.
#[test]
fn forwarding_is_left_to_the_agent() {
    need_namespaces!();
    let lab = Lab::new(&LabOptions { ipv6: true, ..LabOptions::default() }).unwrap();
    let pods = pods(&lab, true, true);
    for host in &lab.hosts {
        assert_eq!(host.net.sysctl("net/ipv4/ip_forward").unwrap(), "0");
        assert_eq!(host.net.sysctl("net/ipv6/conf/all/forwarding").unwrap(), "0");
    }
    let target = pods[1].addresses[0];
    assert_eq!(probe::ping(&pods[0].net, target, Duration::from_millis(100)).unwrap(), None);
}

#[test]
fn hosts_have_a_default_route_through_the_uplink() {
    need_namespaces!();
    let lab = Lab::new(&LabOptions { hosts: 1, ipv6: true, ..LabOptions::default() }).unwrap();
    let host = &lab.hosts[0];
    let v4 = host.net.exec(&["ip", "route", "show", "default"]).unwrap();
    let v6 = host.net.exec(&["ip", "-6", "route", "show", "default"]).unwrap();
    assert!(v4.contains("via 192.168.77.254 dev eth0"), "{v4}");
    assert!(v6.contains("via fd77::fe dev eth0"), "{v6}");
    let addresses: Vec<String> =
        host.net.addresses(UPLINK).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.168.77.1/24", "fd77::1/64"]);
}

fn wait_for_answers(stream: &probe::Stream, more: u64) {
    let (goal, begin) = (stream.answered() + more, Instant::now());
    while stream.answered() < goal {
        assert!(begin.elapsed() < SOON, "the stream does not run");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_quiet_stream_loses_nothing() {
    need_namespaces!();
    let lab = Lab::new(&LabOptions { hosts: 2, ipv6: true, ..LabOptions::default() }).unwrap();
    for target in &lab.hosts[1].addresses {
        let stream = probe::Stream::start(&lab.hosts[0].net, &lab.hosts[1].net, *target, 1000).unwrap();
        wait_for_answers(&stream, 300);
        let report = stream.stop().unwrap();
        assert!(report.sent >= 300, "{report:?}");
        assert_eq!((report.lost(), report.received), (0, report.sent), "{report:?}");
        assert_eq!(report.longest_gap, Duration::ZERO);
    }
}

/// The outage is made on the bridge's side of the wire, so that no address or route goes with it.
#[test]
fn a_stream_measures_an_outage() {
    need_namespaces!();
    let lab = Lab::new(&LabOptions { hosts: 2, ..LabOptions::default() }).unwrap();
    let (near, far) = (&lab.hosts[0].net, &lab.hosts[1].net);
    let stream = probe::Stream::start(near, far, lab.hosts[1].addresses[0], 1000).unwrap();
    wait_for_answers(&stream, 50);
    let begin = Instant::now();
    lab.underlay.net.link_down("n2").unwrap();
    let down = begin.elapsed();
    thread::sleep(Duration::from_millis(300));
    let up = begin.elapsed();
    lab.underlay.net.link_up("n2").unwrap();
    wait_for_answers(&stream, 50);
    let outside = begin.elapsed();
    let report = stream.stop().unwrap();
    assert!(report.lost() > 0 && report.received < report.sent, "{report:?}");
    assert!(report.longest_gap >= up - down, "{report:?}, down for {:?}", up - down);
    assert!(report.longest_gap <= outside, "{report:?}, all over after {outside:?}");
}

#[test]
fn tcp_moves_bytes() {
    need_namespaces!();
    let lab = Lab::new(&LabOptions { hosts: 2, ..LabOptions::default() }).unwrap();
    let (near, far) = (&lab.hosts[0].net, &lab.hosts[1].net);
    let half = Duration::from_millis(500);
    let rate = probe::tcp_gbps(near, far, lab.hosts[1].addresses[0], half, &Cancel::default()).unwrap();
    assert!(rate > 0.01, "{rate} Gbit/s");
}

#[test]
fn faults_break_what_they_name() {
    need_namespaces!();
    let lab = Lab::new(&LabOptions { hosts: 1, ipv6: true, ..LabOptions::default() }).unwrap();
    let net = &lab.hosts[0].net;
    net.set_mac(UPLINK, twill::lab::local_mac([1, 2, 3, 4, 5])).unwrap();
    assert!(net.exec(&["ip", "link", "show", UPLINK]).unwrap().contains("0a:01:02:03:04:05"));
    net.set_mtu(UPLINK, 1400).unwrap();
    assert!(net.exec(&["ip", "link", "show", UPLINK]).unwrap().contains("mtu 1400"));
    net.flush_addresses(UPLINK).unwrap();
    assert_eq!(net.addresses(UPLINK).unwrap(), []);
    lab.readdress(0).unwrap();
    assert_eq!(net.addresses(UPLINK).unwrap().len(), 2);
    let destination = "10.9.0.0/16".parse().unwrap();
    net.add_route(destination, "192.168.77.254".parse().unwrap()).unwrap();
    assert!(net.exec(&["ip", "route"]).unwrap().contains("10.9.0.0/16"));
    net.delete_route(destination).unwrap();
    assert!(!net.exec(&["ip", "route"]).unwrap().contains("10.9.0.0/16"));
    net.delete_link(UPLINK).unwrap();
    assert_eq!(net.links().unwrap(), ["lo"]);
    assert!(matches!(net.link_up(UPLINK), Err(LabError::NoDevice { .. })));
}

#[test]
fn a_failed_command_shows_its_stderr() {
    need_namespaces!();
    let net = Netns::new("failing", false).unwrap();
    let error = net.exec(&["ip", "link", "show", "nothing-here"]).unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn sleeper(net: &Netns, log: PathBuf) -> Process {
    let mut command = Command::new("sleep");
    command.arg("1000");
    Process::spawn(net, "a sleeper", command, &log).unwrap()
}

#[test]
fn a_process_runs_in_its_namespace_and_ends_with_its_handle() {
    need_namespaces!();
    let lab = Lab::new(&LabOptions { hosts: 1, ..LabOptions::default() }).unwrap();
    let host = &lab.hosts[0];
    let mut process = sleeper(&host.net, lab.dir().join("sleeper"));
    let there = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let pid = process.pid();
    assert_eq!(there(&pid.to_string()), host.net.run(|| there("thread-self")).unwrap());
    process.signal(Signal::SIGSTOP).unwrap();
    drop(process);
    assert!(!alive(pid), "a stopped process ends, too");
}

#[test]
fn a_process_does_not_outlive_its_namespace() {
    need_namespaces!();
    let folder = tempfile::tempdir().unwrap();
    let net = Netns::new("short", false).unwrap();
    let mut process = sleeper(&net, folder.path().join("log"));
    drop(net);
    let status = process.wait(SOON).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

/// What a lab leaves: nothing, whether it ends in order or in a panic.
#[test]
fn nothing_is_left_after_a_panic() {
    need_namespaces!();
    for panics in [false, true] {
        let (tell, told) = std::sync::mpsc::channel();
        let lab = thread::spawn(move || {
            let lab = Lab::new(&LabOptions { hosts: 2, visible: true, ..LabOptions::default() }).unwrap();
            let pods = pods(&lab, true, false);
            let process = sleeper(&pods[0].net, lab.dir().join("sleeper"));
            tell.send((lab.name().to_owned(), lab.dir().to_owned(), process.pid())).unwrap();
            let host = PathBuf::from("/run/netns").join(lab.hosts[0].net.name());
            assert!(host.exists(), "a visible host is found by ip netns");
            assert!(!panics, "on purpose");
        });
        let (name, dir, pid) = told.recv().unwrap();
        assert_eq!(lab.join().is_err(), panics);
        assert!(!alive(pid) && !dir.exists());
        let named = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        assert_eq!(named.filter(|e| e.file_name().to_string_lossy().starts_with(&name)).count(), 0);
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&name), "{mounts}");
    }
}

#[test]
fn labs_live_side_by_side() {
    need_namespaces!();
    let labs: Vec<Lab> =
        (0..2).map(|_| Lab::new(&LabOptions { hosts: 2, ..LabOptions::default() }).unwrap()).collect();
    let target: IpAddr = labs[0].hosts[1].addresses[0];
    for lab in &labs {
        probe::ping_until(&lab.hosts[0].net, target, SOON, &Cancel::default()).unwrap();
    }
    labs[0].underlay.net.link_down("n2").unwrap();
    let quick = Duration::from_millis(100);
    assert!(probe::ping(&labs[1].hosts[0].net, target, SOON).unwrap().is_some());
    assert!(probe::ping(&labs[0].hosts[0].net, target, quick).unwrap().is_none());
}

#[test]
fn an_etcd_starts_stops_and_forgets() {
    need_namespaces!();
    for ipv4 in [true, false] {
        let options = LabOptions { hosts: 1, ipv4, ipv6: !ipv4, ..LabOptions::default() };
        let lab = Lab::new(&options).unwrap();
        let mut etcd = match lab.etcd() {
            Ok(etcd) => etcd,
            Err(error @ LabError::Missing { .. }) => return println!("SKIP: {error}"),
            Err(error) => panic!("{error}"),
        };
        let health = |lab: &Lab, etcd: &twill::lab::EtcdProcess| {
            let server = etcd.endpoint().strip_prefix("http://").unwrap().parse().unwrap();
            probe::http_get(&lab.hosts[0].net, server, "/health").map(|(status, _)| status)
        };
        assert_eq!(health(&lab, &etcd).unwrap(), 200);
        etcd.stop().unwrap();
        assert!(health(&lab, &etcd).is_err());
        etcd.wipe().unwrap();
        assert_eq!(health(&lab, &etcd).unwrap(), 200);
    }
}
