//! Whose is it, on a real host.

use super::*;

/// What flanneld leaves behind: devices without alias, boot routes through the tunnel and the underlay.
fn flanneld_was_here() {
    ip(
        "link add flannel.1 address 02:00:00:00:00:77 mtu 1450 type vxlan id 1 local 192.168.77.1 dev eth0 dstport 8472 nolearning",
    );
    ip("addr add 10.5.1.0/32 dev flannel.1");
    ip("link set flannel.1 up");
    for peer in [2, 4] {
        ip(&format!("neigh add 10.5.{peer}.0 lladdr 02:00:00:00:00:0{peer} dev flannel.1 nud permanent"));
        bridge(&format!("fdb add 02:00:00:00:00:0{peer} dev flannel.1 dst 192.168.77.{peer} self permanent"));
        ip(&format!("route add 10.5.{peer}.0/24 via 10.5.{peer}.0 dev flannel.1 onlink"));
    }
    ip("route add 10.5.3.0/24 via 192.168.77.3 dev eth0");
    ip("-6 route add fd05:0:0:3::/64 via fd77::3 dev eth0");
}

/// This host after flanneld, with flanneld's Ethernet address, and without the peer that is gone.
fn taken_over() -> NetState {
    let mut want = want();
    want.links.remove(&name("flannel-v6.1"));
    want.neighs.retain(|key, _| key.dev == name("flannel.1"));
    want.fdb.retain(|entry| entry.dev == name("flannel.1"));
    want.routes.retain(|_, route| route.dev != Some(name("flannel-v6.1")));
    let link = want.links.get_mut(&name("flannel.1")).unwrap();
    (link.mac, link.mtu) = (Mac([2, 0, 0, 0, 0, 0x77]), 1450);
    want
}

#[test]
fn what_flanneld_left_is_taken_over_without_a_gap() {
    in_namespace(async |kernel| {
        flanneld_was_here();
        let index = ip("-o link show flannel.1").split(':').next().unwrap().to_owned();
        assert_eq!(kernel.mac_of(name("flannel.1")).await, Some(Mac([2, 0, 0, 0, 0, 0x77])));
        settle(&kernel).await;
        let done = converge(&kernel, &taken_over()).await;
        assert_eq!(ip("-o link show flannel.1").split(':').next().unwrap(), index);
        assert!(ip("-d link show flannel.1").contains("dev eth0"), "the adopted device keeps its parent");
        // Each route was re-tagged by one replacement; only the gone peer's was removed.
        let removed: Vec<String> =
            done.iter().filter(|op| op.is_removal()).map(ToString::to_string).collect();
        assert_eq!(
            removed,
            [
                "ip route del 10.5.4.0/24 via 10.5.4.0 dev flannel.1 proto 3 onlink",
                "bridge fdb del 02:00:00:00:00:04 dev flannel.1 dst 192.168.77.4 self",
                "ip neigh del 10.5.4.0 dev flannel.1",
            ]
        );
        assert_eq!(ip("route show proto boot").trim(), "");
        assert_eq!(ip("-6 route show proto boot").trim(), "");
    });
}

#[test]
fn where_flanneld_never_ran_its_like_is_foreign() {
    in_namespace(async |kernel| {
        flanneld_was_here();
        let never = Scope { flanneld_ran: false, ..scope() };
        let observed = kernel.observe(&never).await.unwrap();
        assert_eq!(observed.net.routes, [].into());
        let lines: Vec<&str> = observed.foreign.iter().map(|route| route.line.as_str()).collect();
        assert_eq!(
            lines,
            [
                "10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink",
                "10.5.3.0/24 via 192.168.77.3 dev eth0",
                "10.5.4.0/24 via 10.5.4.0 dev flannel.1 onlink",
                "fd05:0:0:3::/64 via fd77::3 dev eth0 metric 1024",
            ]
        );
    });
}

#[test]
fn stand_ins_go_with_everything_of_ours_and_only_then() {
    in_namespace(async |kernel| {
        ip("link add flannel.1 type vxlan id 1 dstport 8472");
        ip("link add flannel.2 type vxlan id 2 dstport 8472");
        ip("link set flannel.2 alias twill:another");
        let index = |dev: &str| ip(&format!("-o link show {dev}")).split(':').next().unwrap().to_owned();
        let (own, anothers) = (index("flannel.1"), index("flannel.2"));
        let devices = [own.as_str(), anothers.as_str(), "99999", "1x"].map(|of| format!("twill-try{of}"));
        for (port, device) in (5_000..).zip(&devices) {
            ip(&format!("link add {device} type vxlan id 77 dstport {port}"));
        }
        ip("link add twill-try7 type bridge");
        let links = async |scope| {
            let links = kernel.observe(&scope).await.unwrap().net.links;
            links.into_keys().map(|name| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(links(scope()).await, ["flannel.1"]);
        let everything = Scope { stand_ins: true, ..scope() };
        let mut ours = ["flannel.1", &devices[0], "twill-try99999"];
        ours.sort_unstable();
        assert_eq!(links(everything.clone()).await, ours);
        let have = kernel.observe(&everything).await.unwrap().net;
        let results = kernel.apply(&diff(&NetState::default(), &have)).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(links(everything).await, Vec::<String>::new());
        let left = ip("-br link");
        assert!(left.contains(&devices[1]) && left.contains("twill-try7") && left.contains("twill-try1x"));
    });
}

#[test]
fn routes_of_others_are_left_and_listed() {
    in_namespace(async |kernel| {
        converge(&kernel, &want()).await;
        for route in [
            "10.5.8.0/24 via 192.168.77.8 dev eth0 proto static",
            "10.5.9.0/25 via 192.168.77.9 dev eth0",
            "10.5.10.0/24 via 192.168.77.10 dev eth0 metric 5",
            "unreachable 10.5.11.0/24",
            "10.5.12.0/24 nexthop via 192.168.77.2 nexthop via 192.168.77.3",
            "10.6.0.0/24 via 192.168.77.9 dev eth0",
            "10.0.0.0/8 via 192.168.77.9 dev eth0",
        ] {
            ip(&format!("route add {route}"));
        }
        let before = ip("route show table main");
        let observed = kernel.observe(&scope()).await.unwrap();
        let lines: Vec<&str> = observed.foreign.iter().map(|route| route.line.as_str()).collect();
        assert_eq!(
            lines,
            [
                "10.5.8.0/24 via 192.168.77.8 dev eth0 proto static",
                "10.5.9.0/25 via 192.168.77.9 dev eth0",
                "10.5.10.0/24 via 192.168.77.10 dev eth0 metric 5",
                "unreachable 10.5.11.0/24",
                "10.5.12.0/24 nexthop ...",
            ]
        );
        assert_eq!(observed.net, want());
        converge(&kernel, &want()).await;
        assert_eq!(ip("route show table main"), before);
    });
}

#[test]
fn a_removal_takes_exactly_its_route() {
    in_namespace(async |kernel| {
        ip("route add 10.5.2.0/24 via 192.168.77.2 dev eth0 proto static");
        ip("-6 route add fd05:0:0:2::/64 via fd77::2 dev eth0 proto static");
        let ours = [
            Op::DelRoute(key("10.5.2.0/24"), route("192.168.77.2", "eth0", false)),
            Op::DelRoute(key("fd05:0:0:2::/64"), route("fd77::2", "eth0", false)),
        ];
        for answer in kernel.apply(&ours).await {
            answer.unwrap();
        }
        assert_eq!(ip("route show 10.5.2.0/24").lines().count(), 1);
        assert_eq!(ip("-6 route show fd05:0:0:2::/64").lines().count(), 1);
    });
}

#[test]
fn a_tagged_route_of_any_shape_can_be_removed() {
    in_namespace(async |kernel| {
        let mut want = want();
        converge(&kernel, &want).await;
        for shape in [
            "10.5.20.0/24 proto 70 nexthop via 192.168.77.2 nexthop via 192.168.77.3",
            "10.5.21.0/24 dev eth0 scope link proto 70",
            "10.5.22.0/24 dev eth0 scope host proto 70",
            "10.5.23.0/24 via 192.168.77.2 dev eth0 metric 7 mtu 1200 proto 70",
            "blackhole 10.5.24.0/24 proto 70",
            "fd05:0:0:20::/64 proto 70 nexthop via fd77::2 nexthop via fd77::3",
            "fd05:0:0:21::/64 dev eth0 metric 7 proto 70",
        ] {
            ip(&format!("route add {shape}"));
        }
        // One of them stands where a route is wanted.
        want.routes.insert(key("10.5.20.0/24"), route("192.168.77.4", "eth0", false));
        let done = converge(&kernel, &want).await;
        assert_eq!(done.len(), 7, "{done:?}");
    });
}

#[test]
fn another_instances_device_is_never_touched() {
    in_namespace(async |kernel| {
        ip("link add flannel.1 type vxlan id 1 dstport 8472 local 192.168.77.1");
        ip("link set flannel.1 alias twill:other");
        assert_eq!(have(&kernel).await.links, [].into());
        let op = Op::SetLink(name("flannel.1"), link("192.168.77.1", "10.5.1.0/32"));
        let error = kernel.apply(&[op]).await.pop().unwrap().unwrap_err().to_string();
        assert!(error.contains("belongs to another instance (alias twill:other)"), "{error}");
        assert!(ip("link show flannel.1").contains("twill:other"));
    });
}

#[test]
fn a_device_left_by_another_vni_is_ours_by_its_alias() {
    in_namespace(async |kernel| {
        ip("link add flannel.9 type vxlan id 9 dstport 8472 local 192.168.77.1");
        ip(&format!("link set flannel.9 alias {ALIAS}"));
        let done = converge(&kernel, &want()).await;
        assert!(done.contains(&Op::DelLink(name("flannel.9"))), "{done:?}");
    });
}

#[test]
fn the_bridge_of_our_own_subnet_is_not_foreign() {
    in_namespace(async |kernel| {
        ip("link add cni0 type bridge");
        ip("link set cni0 up");
        ip("addr add 10.5.1.1/24 dev cni0");
        ip("route add 10.5.1.7/32 dev cni0");
        assert_eq!(kernel.observe(&scope()).await.unwrap().foreign, []);
        ip("addr add 10.5.40.1/24 dev cni0");
        let foreign = kernel.observe(&scope()).await.unwrap().foreign;
        assert_eq!(foreign[0].line, "10.5.40.0/24 dev cni0 proto kernel scope link src 10.5.40.1");
    });
}

#[test]
fn link_local_addresses_are_the_kernels_affair() {
    in_namespace(async |kernel| {
        converge(&kernel, &want()).await;
        assert!(ip("-6 addr show dev flannel.1").contains("fe80::"), "the kernel gave it none");
        converge(&kernel, &want()).await;
        assert!(ip("-6 addr show dev flannel.1").contains("fe80::"));
    });
}

#[test]
fn an_absent_accept_ra_is_as_good_as_off() {
    in_namespace(async |kernel| {
        let mut want = want();
        // Too small for IPv6, so that the kernel keeps it off this link.
        want.links.get_mut(&name("flannel.1")).unwrap().mtu = 1200;
        converge(&kernel, &want).await;
        assert!(!std::path::Path::new("/proc/sys/net/ipv6/conf/flannel.1").exists());
    });
}
