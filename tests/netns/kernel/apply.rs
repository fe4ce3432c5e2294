//! Every operation, and how it reads back.

use super::*;

#[test]
fn everything_reads_back_as_written() {
    in_namespace(async |kernel| {
        let done = converge(&kernel, &want()).await;
        // In one go: nothing had to be written twice.
        assert_eq!(
            done,
            diff(
                &want(),
                &NetState {
                    sysctls: [
                        ("net/ipv4/ip_forward".to_owned(), "0".to_owned()),
                        ("net/ipv6/conf/all/forwarding".to_owned(), "0".to_owned()),
                    ]
                    .into(),
                    ..NetState::default()
                }
            )
        );
        let shown = ip("-d link show flannel.1");
        for part in ["vxlan id 1 local 192.168.77.1", "dstport 8472", "nolearning", "qdisc noqueue", "qlen"] {
            assert_eq!(shown.contains(part), part != "qlen", "{part} in {shown}");
        }
        assert!(!shown.contains(" dev eth0"), "a parent link: {shown}");
        let route = ip("route show 10.5.2.0/24");
        assert_eq!(route.trim(), "10.5.2.0/24 via 10.5.2.0 dev flannel.1 proto 70 onlink");
    });
}

#[test]
fn nothing_is_written_twice() {
    in_namespace(async |kernel| {
        converge(&kernel, &want()).await;
        settle(&kernel).await;
        assert_eq!(converge(&kernel, &want()).await, []);
        silent(&kernel).await;
    });
}

#[test]
fn everything_goes_away_again() {
    in_namespace(async |kernel| {
        converge(&kernel, &want()).await;
        let mut nothing = NetState { sysctls: want().sysctls, ..NetState::default() };
        // The setting goes with its link.
        nothing.sysctls.remove("net/ipv6/conf/flannel.1/accept_ra");
        converge(&kernel, &nothing).await;
        assert_eq!(
            ip("route show table main").trim(),
            "192.168.77.0/24 dev eth0 proto kernel scope link src 192.168.77.1"
        );
        // What is gone already is no error.
        let removals = diff(&NetState::default(), &want());
        for answer in kernel.apply(&removals).await {
            answer.unwrap();
        }
    });
}

#[test]
fn links_change_in_place() {
    in_namespace(async |kernel| {
        let mut want = want();
        converge(&kernel, &want).await;
        let index = || ip("-o link show flannel.1").split(':').next().unwrap().to_owned();
        let before = index();
        ip("addr add 192.168.77.9/24 dev eth0");
        ip("addr add 10.9.9.9/24 dev flannel.1");
        ip("link set flannel.1 down");
        let link = want.links.get_mut(&name("flannel.1")).unwrap();
        link.mtu = 1350;
        link.mac = Mac([2, 0, 0, 0, 0, 7]);
        link.addrs = ["10.5.7.0/32".parse().unwrap()].into();
        let vxlan = link.vxlan_mut().unwrap();
        vxlan.local = addr("192.168.77.9");
        vxlan.learning = true;
        vxlan.checksums.offload = false;
        converge(&kernel, &want).await;
        assert!(!tx_checksum(name("flannel.1")).unwrap());
        want.links.get_mut(&name("flannel.1")).unwrap().vxlan_mut().unwrap().checksums.offload = true;
        converge(&kernel, &want).await;
        assert_eq!(index(), before, "the link was replaced");
    });
}

#[test]
fn a_mac_change_costs_the_neighbours_and_they_come_back() {
    in_namespace(async |kernel| {
        let want = want();
        converge(&kernel, &want).await;
        ip("link set flannel.1 address 02:00:00:00:00:99");
        let found = have(&kernel).await;
        assert!(!found.neighs.keys().any(|key| key.dev == name("flannel.1")), "the kernel kept them");
        let done = converge(&kernel, &want).await;
        assert!(done.iter().any(|op| matches!(op, Op::SetNeigh(..))), "{done:?}");
    });
}

#[test]
fn what_cannot_change_is_replaced() {
    in_namespace(async |kernel| {
        let mut want = want();
        converge(&kernel, &want).await;
        want.links.get_mut(&name("flannel.1")).unwrap().vxlan_mut().unwrap().port = 8473;
        let link = want.links.get_mut(&name("flannel-v6.1")).unwrap();
        link.vxlan_mut().unwrap().gbp = true;
        link.vxlan_mut().unwrap().vni = 7;
        link.vxlan_mut().unwrap().checksums.udp = false;
        let done = converge(&kernel, &want).await;
        assert!(
            done.iter().any(|op| matches!(op, Op::SetRoute(..))),
            "the routes went with the link: {done:?}"
        );
        want.links.get_mut(&name("flannel.1")).unwrap().vxlan_mut().unwrap().checksums.udp = false;
        converge(&kernel, &want).await;
        assert!(ip("-d link show flannel.1").contains("noudpcsum"));
        // Another family, and another kind of device.
        want.links.insert(name("flannel-v6.1"), link_of("192.168.77.1", 9));
        want.fdb.retain(|entry| entry.dst.is_ipv4());
        ip("link del flannel.1");
        ip("link add flannel.1 type bridge");
        converge(&kernel, &want).await;
    });

    fn link_of(local: &str, vni: u32) -> Link {
        let mut link = link(local, "fd05:0:0:1::/128");
        link.vxlan_mut().unwrap().vni = vni;
        link
    }
}

#[test]
fn entries_are_replaced_in_place() {
    in_namespace(async |kernel| {
        let mut want = want();
        converge(&kernel, &want).await;
        let (v4, v6) = (name("flannel.1"), name("flannel-v6.1"));
        want.neighs.insert(NeighKey { dev: v6, ip: addr("fd05:0:0:2::") }, MAC);
        want.fdb = [
            Fdb { dev: v4, mac: PEER_MAC, dst: addr("192.168.77.22") },
            Fdb { dev: v6, mac: PEER_MAC, dst: addr("fd77::22") },
        ]
        .into();
        // From the tunnel to a direct route and the other way round, in both families.
        want.routes.insert(key("10.5.2.0/24"), route("192.168.77.2", "eth0", false));
        want.routes.insert(key("fd05:0:0:2::/64"), route("fd77::2", "eth0", false));
        want.routes.insert(key("10.5.3.0/24"), route("10.5.3.0", "flannel.1", true));
        want.routes.insert(key("fd05:0:0:3::/64"), route("fd05:0:0:3::", "flannel-v6.1", true));
        converge(&kernel, &want).await;
        assert_eq!(ip("-6 route show fd05:0:0:2::/64").lines().count(), 1);
    });
}

#[test]
fn a_subnet_that_becomes_our_own_or_a_peers_changes_its_kind_of_route() {
    in_namespace(async |kernel| {
        let mut want = want();
        converge(&kernel, &want).await;
        for (own, peer) in [("10.5.1.0/24", "10.5.3.0/24"), ("fd05:0:0:1::/64", "fd05:0:0:3::/64")] {
            let (blackhole, direct) = (want.routes[&key(own)], want.routes[&key(peer)]);
            want.routes.insert(key(own), direct);
            want.routes.insert(key(peer), blackhole);
        }
        converge(&kernel, &want).await;
        for dst in ["fd05:0:0:1::/64", "fd05:0:0:3::/64"] {
            assert_eq!(ip(&format!("-6 route show {dst}")).lines().count(), 1, "{dst}");
        }
    });
}

#[test]
fn five_thousand_peers_go_in_and_read_back_beyond_the_limit_of_neighbours() {
    let limit = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3");
    in_namespace(async move |kernel| {
        let mut want = want();
        let dev = name("flannel.1");
        for peer in 0..5000u32 {
            let [_, _, high, low] = (peer + 100 * 256).to_be_bytes();
            let subnet = format!("10.5.{high}.{low}");
            let mac = Mac([2, 1, 0, 0, high, low]);
            want.neighs.insert(NeighKey { dev, ip: addr(&subnet) }, mac);
            want.fdb.insert(Fdb { dev, mac, dst: addr(&format!("192.168.{high}.{low}")) });
            want.routes.insert(key(&format!("{subnet}/32")), route(&subnet, "flannel.1", true));
        }
        assert!(want.len() > 15_000);
        converge(&kernel, &want).await;
        // The kernel makes no more than so many neighbours by itself, host by host; ours are not among them.
        match limit {
            Ok(limit) if limit.trim().parse::<u32>().unwrap() < 5_000 => {
                ip("neigh add 192.168.77.9 lladdr 02:00:00:00:00:09 nud reachable dev eth0");
                assert_eq!(have(&kernel).await.neighs.len(), want.neighs.len());
            }
            limit => println!("SKIP: the kernel's limit of neighbours is not exceeded: {limit:?}"),
        }
    });
}

#[test]
fn it_is_known_when_a_peer_was_last_sent_to() {
    in_namespace(async |kernel| {
        converge(&kernel, &want()).await;
        have(&kernel).await;
        let (least, place) = (Duration::from_millis(200), (name("flannel.1"), PEER_MAC));
        // Making an entry may count as using it.
        while kernel.used(least).await.unwrap().contains_key(&place) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let before = Instant::now();
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", "10.5.2.7:9").unwrap();
        let used = kernel.used(Duration::from_secs(60)).await.unwrap();
        assert!(used[&place] + Duration::from_millis(20) >= before, "{used:?} {before:?}");
    });
}

#[test]
fn one_failure_stops_nothing_and_names_its_cause() {
    in_namespace(async |kernel| {
        let mut want = want();
        want.routes.insert(key("10.5.4.0/24"), route("172.31.0.1", "eth0", false));
        want.routes.insert(key("10.5.6.0/24"), route("10.5.6.0", "nowhere", true));
        let answers = kernel.apply(&diff(&want, &NetState::default())).await;
        let errors: Vec<String> =
            answers.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].starts_with("ip route replace 10.5.4.0/24 via 172.31.0.1"), "{errors:?}");
        assert!(errors[0].contains("the gateway is not on a network of this host"), "{errors:?}");
        assert!(errors[1].contains("there is no such link"), "{errors:?}");
        assert!(have(&kernel).await.routes.contains_key(&key("10.5.2.0/24")));
    });
}

#[test]
fn a_port_in_use_by_another_device_is_named() {
    in_namespace(async |kernel| {
        ip("link add theirs type vxlan id 1 dstport 8472 local 192.168.77.1");
        let error = refusal(&kernel).await;
        assert!(error.contains("the device theirs has VNI 1 on UDP port 8472 already"), "{error}");
        assert!(error.contains("ip link del theirs"), "{error}");
    });
}

#[test]
fn a_port_in_use_by_a_socket_is_told() {
    in_namespace(async |kernel| {
        let _socket = std::net::UdpSocket::bind("0.0.0.0:8472").unwrap();
        let error = refusal(&kernel).await;
        assert!(error.contains("a UDP socket on this host has port 8472 already"), "{error}");
    });
}

async fn refusal(kernel: &Netlink) -> String {
    let op = Op::SetLink(name("flannel.1"), link("192.168.77.1", "10.5.1.0/32"));
    kernel.apply(&[op]).await.pop().unwrap().unwrap_err().to_string()
}

/// Says that this is the process without privilege, in the namespace of the test that started it.
const CHILD: &str = "TWILL_TEST_WITHOUT_PRIVILEGE";

#[test]
fn without_privilege_the_error_says_so() {
    in_namespace(async |_| {
        let exe = std::env::current_exe().unwrap();
        let output = Command::new("setpriv")
            .args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"])
            .arg(exe)
            .args(["--exact", "kernel::apply::the_process_without_privilege", "--ignored", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{why}");
    });
}

#[tokio::test]
#[ignore = "run by the test above, in a namespace and without capabilities"]
async fn the_process_without_privilege() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let kernel = Netlink::open().unwrap();
    let facts = kernel.facts(None).await.unwrap();
    assert!(facts.link(name("wire")).is_some(), "not in a namespace of its own: {facts:?}");
    let mut ops = diff(&want(), &NetState::default());
    // Some settings go by the owner of their file, who is root still.
    ops.retain(|op| !matches!(op, Op::SetSysctl(..)));
    for (op, answer) in ops.iter().zip(kernel.apply(&ops).await) {
        let error = answer.expect_err(&op.to_string()).to_string();
        let told = error.contains("no privilege: run as root or with CAP_NET_ADMIN");
        // What would be on the link cannot be tried.
        assert!(told || error.contains("there is no such link"), "{error}");
    }
}
