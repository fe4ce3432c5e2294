//! What is announced.

use super::*;

/// A converged host whose own echoes have passed.
async fn converged(kernel: &Netlink) -> NetState {
    let want = want();
    converge(kernel, &want).await;
    settle(kernel).await;
    have(kernel).await;
    want
}

/// Alters the host and returns what is announced about it first.
async fn after(kernel: &Netlink, command: &str) -> Change {
    match command.strip_prefix("fdb ") {
        Some(_) => bridge(command),
        None => ip(command),
    };
    next(kernel).await
}

#[test]
fn every_entry_altered_by_hand_is_told_as_an_operation() {
    in_namespace(async |kernel| {
        let want = converged(&kernel).await;
        let (v4, v6) = (name("flannel.1"), name("flannel-v6.1"));
        let ours = |dst: &str| (key(dst), want.routes[&key(dst)]);
        let gone = |dst: &str| Change::Did(vec![Op::DelRoute(ours(dst).0, ours(dst).1)]);
        assert_eq!(after(&kernel, "route del 10.5.2.0/24").await, gone("10.5.2.0/24"));
        assert_eq!(after(&kernel, "route del 10.5.3.0/24").await, gone("10.5.3.0/24"));
        assert_eq!(after(&kernel, "-6 route del fd05:0:0:2::/64").await, gone("fd05:0:0:2::/64"));
        assert_eq!(after(&kernel, "route del blackhole 10.5.1.0/24").await, gone("10.5.1.0/24"));
        assert_eq!(after(&kernel, "-6 route del blackhole fd05:0:0:1::/64").await, gone("fd05:0:0:1::/64"));

        let key = NeighKey { dev: v4, ip: addr("10.5.2.0") };
        let change = after(&kernel, "neigh change 10.5.2.0 lladdr 02:00:00:00:00:33 dev flannel.1").await;
        assert_eq!(change, Change::Did(vec![Op::SetNeigh(key, Mac([2, 0, 0, 0, 0, 0x33]))]));
        let change = after(&kernel, "neigh del 10.5.2.0 dev flannel.1").await;
        let Change::Did(ops) = &change else { panic!("{change:?}") };
        assert!(ops.contains(&Op::DelNeigh(key)), "{ops:?}");
        let key = NeighKey { dev: v6, ip: addr("fd05:0:0:2::") };
        let change =
            after(&kernel, "neigh change fd05:0:0:2:: dev flannel-v6.1 lladdr 02:00:00:00:00:02 nud stale")
                .await;
        assert_eq!(change, Change::Did(vec![Op::DelNeigh(key)]));

        let entry = Fdb { dev: v4, mac: PEER_MAC, dst: addr("192.168.77.2") };
        let moved = Fdb { dst: addr("192.168.77.99"), ..entry };
        let replace = "fdb replace 02:00:00:00:00:02 dev flannel.1 dst 192.168.77.99 self permanent";
        assert_eq!(after(&kernel, replace).await, Change::Did(vec![Op::DelFdb(entry), Op::SetFdb(moved)]));
        let delete = "fdb del 02:00:00:00:00:02 dev flannel.1 dst 192.168.77.99 self";
        assert_eq!(after(&kernel, delete).await, Change::Did(vec![Op::DelFdb(moved)]));
    });
}

#[test]
fn a_route_replaced_by_hand_is_ours_that_is_lost() {
    in_namespace(async |kernel| {
        converged(&kernel).await;
        for command in [
            "route replace 10.5.2.0/24 via 192.168.77.66 dev eth0",
            "route replace 10.5.3.0/24 via 192.168.77.66 dev eth0 proto static",
            "-6 route replace fd05:0:0:2::/64 via fd77::66 dev eth0 proto static",
        ] {
            let dst = command.split(' ').find(|word| word.contains('/')).unwrap();
            match after(&kernel, command).await {
                // In flanneld's form it is taken for flanneld's, which is put right all the same.
                Change::Did(ops) => assert_eq!(ops[0].key(), twill_backends::diff::Key::Route(key(dst))),
                change @ (Change::Unknown(_) | Change::Underlay) => panic!("{command}: {change:?}"),
            }
        }
    });
}

#[test]
fn our_own_writes_echo_as_what_was_set() {
    in_namespace(async |kernel| {
        let mut want = converged(&kernel).await;
        want.neighs.insert(NeighKey { dev: name("flannel.1"), ip: addr("10.5.9.0") }, MAC);
        want.fdb.insert(Fdb { dev: name("flannel.1"), mac: MAC, dst: addr("192.168.77.9") });
        want.routes.insert(key("10.5.9.0/24"), route("10.5.9.0", "flannel.1", true));
        want.routes.insert(key("fd05:0:0:9::/64"), route("fd77::9", "eth0", false));
        want.routes.remove(&key("10.5.3.0/24"));
        want.routes.insert(key("fd05:0:0:3::/64"), route("fd77::33", "eth0", false));
        let mut belief = have(&kernel).await;
        let ops = converge(&kernel, &want).await;
        let mut heard = Vec::new();
        while heard.len() < ops.len() {
            let change = next(&kernel).await;
            let Change::Did(ops) = change else { panic!("{change:?}") };
            heard.extend(ops);
        }
        for op in &ops {
            belief.apply(op);
        }
        for op in &heard {
            assert!(belief.has(op), "{op} is no echo of {ops:?}");
        }
    });
}

#[test]
fn what_cannot_be_told_means_observe() {
    in_namespace(async |kernel| {
        for (command, reason) in [
            ("link del flannel.1", "a link of ours changed"),
            ("link set flannel.1 down", "a link of ours changed"),
            ("link set flannel.1 address 02:00:00:00:00:55", "a link of ours changed"),
            ("link set flannel.1 mtu 1300", "a link of ours changed"),
            ("link set flannel.1 alias mine", "a link of ours changed"),
            ("link set flannel.1 type vxlan learning", "a link of ours changed"),
            ("addr add 10.9.9.9/24 dev flannel.1", "an address of a link of ours changed"),
            ("addr del 10.5.1.0/32 dev flannel.1", "an address of a link of ours changed"),
            ("link set eth0 down", ""),
        ] {
            converged(&kernel).await;
            let change = after(&kernel, command).await;
            if reason.is_empty() {
                // The IPv6 address goes with it.
                assert_eq!(change, Change::Underlay, "{command}");
            } else {
                assert_eq!(change, Change::Unknown(reason), "{command}");
            }
        }
    });
}

#[test]
fn an_underlay_that_is_observed_before_it_is_heard_is_told_all_the_same() {
    in_namespace(async |kernel| {
        for command in [
            "link set eth0 mtu 1400",
            "addr add 192.168.77.7/24 dev eth0",
            "addr del 192.168.77.7/24 dev eth0",
        ] {
            converged(&kernel).await;
            ip(command);
            // A pass that tries again reads it before its message.
            have(&kernel).await;
            assert_eq!(next(&kernel).await, Change::Underlay, "{command}");
            settle(&kernel).await;
        }
    });
}

#[test]
fn the_underlay_is_watched() {
    in_namespace(async |kernel| {
        converged(&kernel).await;
        assert_eq!(after(&kernel, "addr add 192.168.77.7/24 dev eth0").await, Change::Underlay);
        assert_eq!(after(&kernel, "addr del 192.168.77.7/24 dev eth0").await, Change::Underlay);
        assert_eq!(after(&kernel, "link set eth0 mtu 1400").await, Change::Underlay);
        ip("addr flush dev eth0");
        ip("route flush cache");
        assert_eq!(next(&kernel).await, Change::Underlay);
        settle(&kernel).await;
        // Without IPv6 addresses it is only the flags that change.
        ip("-6 addr flush dev eth0");
        settle(&kernel).await;
        assert_eq!(
            after(&kernel, "link set eth0 down").await,
            Change::Unknown("the underlay went up or down")
        );
        assert_eq!(after(&kernel, "link del eth0").await, Change::Underlay);
    });
}

#[test]
fn waiting_for_an_underlay_hears_everything_that_could_be_one() {
    in_namespace(async |kernel| {
        let waiting = Scope { underlay: None, ..scope() };
        let next = async |command: &str| {
            ip(command);
            tokio::time::timeout(PATIENCE, kernel.changed(&waiting)).await.unwrap()
        };
        kernel.observe(&waiting).await.unwrap();
        assert_eq!(next("link add eth1 type bridge").await, Change::Underlay);
        assert_eq!(next("addr add 172.16.0.1/24 dev eth1").await, Change::Underlay);
        assert_eq!(next("route add default via 192.168.77.254").await, Change::Underlay);
    });
}

#[test]
fn noise_is_not_heard() {
    in_namespace(async |kernel| {
        converged(&kernel).await;
        for command in [
            "link add pod0 type veth peer name pod1",
            "link set pod0 up",
            "link set pod1 up",
            "addr add 172.16.0.1/24 dev pod0",
            "neigh add 172.16.0.2 lladdr 02:00:00:00:00:44 dev pod0 nud permanent",
            "route add 172.17.0.0/16 via 172.16.0.2",
            "-6 route add fd99::/64 dev pod0",
            "route add 10.5.1.7/32 dev pod0",
            "route add 10.5.2.0/24 dev pod0 table 77",
            "link set eth0 promisc on",
            "link set eth0 multicast off",
            "link del pod0",
        ] {
            ip(command);
        }
        silent(&kernel).await;
    });
}

#[test]
fn routes_of_others_inside_our_network_mean_observe() {
    in_namespace(async |kernel| {
        converged(&kernel).await;
        let change = after(&kernel, "route add 10.5.8.0/24 via 192.168.77.8 dev eth0 proto static").await;
        assert_eq!(change, Change::Unknown("somebody else's route appeared inside the network"));
        let change = after(&kernel, "route del 10.5.8.0/24").await;
        assert_eq!(change, Change::Unknown("somebody else's route inside the network went away"));
    });
}

#[test]
fn forwarding_is_watched() {
    in_namespace(async |kernel| {
        converged(&kernel).await;
        for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/{path}"), "0").unwrap();
            let change = next(&kernel).await;
            let Change::Did(ops) = &change else { panic!("{change:?}") };
            assert_eq!(ops, &[Op::SetSysctl(path.to_owned(), "0".to_owned())]);
        }
    });
}

#[test]
fn a_burst_is_one_change() {
    in_namespace(async |kernel| {
        converged(&kernel).await;
        let batch: String = (0..50)
            .map(|n| format!("neigh add 10.5.200.{n} lladdr 02:00:00:00:01:00 dev flannel.1 nud permanent\n"))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        let Change::Did(ops) = next(&kernel).await else { panic!() };
        assert_eq!(ops.len(), 50);
    });
}

#[test]
fn a_cancelled_wait_loses_nothing() {
    in_namespace(async |kernel| {
        converged(&kernel).await;
        ip("route del 10.5.2.0/24");
        // Long enough to read the message, too short for the burst to be over, unless the machine has much else to do.
        let impatient = tokio::time::timeout(Duration::from_millis(2), kernel.changed(&scope())).await;
        let change = match impatient {
            Ok(change) => change,
            Err(_elapsed) => next(&kernel).await,
        };
        assert!(matches!(&change, Change::Did(ops) if ops.len() == 1), "{change:?}");
    });
}

#[test]
fn lost_messages_mean_observe() {
    in_namespace(async |kernel| {
        converged(&kernel).await;
        // More than the receive buffer holds, while nobody reads.
        let entry = |n: u32| {
            let [_, _, high, low] = n.to_be_bytes();
            Op::SetNeigh(
                NeighKey { dev: name("flannel.1"), ip: addr(&format!("10.5.{high}.{low}")) },
                Mac([2, 3, 0, 0, high, low]),
            )
        };
        let set: Vec<Op> = (0..65_000).map(entry).collect();
        kernel.apply(&set).await;
        let mut reasons = Vec::new();
        while let Ok(change) = tokio::time::timeout(Duration::from_secs(1), kernel.changed(&scope())).await {
            if let Change::Unknown(reason) = change {
                reasons.push(reason);
            }
        }
        assert!(reasons.contains(&"messages of the kernel were lost"), "{reasons:?}");
    });
}
