//! The kernel, the firewall and the disk fail, or are changed behind the agent's back.

use twill::filter::PolicyDrop;
use twill::kernel::fake::Failure;
use twill::kernel::{Change, ForeignRoute};
use twill_backends::mac::Mac;

use super::*;

async fn fabric(last: u8) -> (Host, Running) {
    let host = Host::alone();
    put_peers(&host.table, last);
    let agent = host.started().await;
    agent.is_well().await;
    (host, agent)
}

#[tokio::test(start_paused = true)]
async fn one_kind_of_operation_that_fails_stops_no_other() {
    for rank in 0..=4 {
        let host = Host::alone();
        put_peers(&host.table, 4);
        host.kernel.fail(Failure::Rank(rank));
        let agent = host.start();
        pause(10_000).await;
        let codes = agent.codes().await;
        assert!(!codes.is_empty() && codes.iter().all(|code| code == "kernel-refused"), "{rank}: {codes:?}");
        let applied = host.kernel.applied();
        assert!(applied.iter().any(|op| op.rank() != rank), "{rank}");
        assert!(host.lease().is_some() && host.firewall.writes() == 1);
        host.kernel.heal();
        agent.is_well().await;
        assert_eq!(host.kernel.net(), fresh_net(&host).await);
    }
}

#[tokio::test(start_paused = true)]
async fn removals_that_fail_are_done_later() {
    for kind in ["ip route del", "bridge fdb del", "ip neigh del"] {
        let (host, agent) = fabric(4).await;
        host.kernel.fail(Failure::Matching(kind.to_owned()));
        host.table.delete_raw(&key(3));
        agent.shows(&["kernel-refused"]).await;
        put_peer_with(&host.table, 9, 9);
        until("the rest goes on", || host.kernel.net().routes.contains_key(&route(9))).await;
        host.kernel.heal();
        agent.is_well().await;
        assert_eq!(host.kernel.net(), fresh_net(&host).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_failure_is_made_good_in_a_moment() {
    for nth in 0..9 {
        let host = Host::alone();
        put_peers(&host.table, 3);
        host.kernel.fail(Failure::Nth(nth));
        let mut agent = host.start();
        agent.is_ready().await;
        agent.is_well().await;
        assert_eq!(host.kernel.net(), fresh_net(&host).await, "{nth}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_peer_breaks_does_not_keep_pods_from_starting() {
    let host = Host::alone();
    put_peers(&host.table, 4);
    host.kernel.fail(Failure::Matching("10.5.3.0/24".to_owned()));
    let mut agent = host.start();
    agent.is_ready().await;
    agent.shows(&["kernel-refused"]).await;
    host.leads_to(&[2, 4]).await;
    assert!(host.env().contains("FLANNEL_SUBNET"));
    pause(5_000).await;
    assert!(host.memory().exists());
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_cannot_be_read_is_asked_again() {
    let (host, agent) = fabric(4).await;
    let net = host.kernel.net();
    host.kernel.blind(5);
    host.kernel.announce(Change::Unknown("a lost message"));
    agent.shows(&["kernel-refused"]).await;
    agent.is_well().await;
    assert_eq!(host.kernel.net(), net);
}

#[tokio::test(start_paused = true)]
async fn changes_by_hand_are_undone_within_a_second() {
    let (host, agent) = fabric(4).await;
    let net = host.kernel.net();
    let link = net.links[&tunnel()].clone();
    let (neigh, mac) = net.neighs.iter().next().map(|(key, mac)| (*key, *mac)).unwrap();
    let altered = twill_backends::state::Link { mac: Mac([2, 9, 9, 9, 9, 9]), mtu: 1280, ..link.clone() };
    let hops = twill_backends::state::Route { via: None, ..net.routes[&route(2)] };
    let strays = twill_backends::state::Fdb { mac: Mac([2, 9, 9, 9, 9, 9]), ..*net.fdb.first().unwrap() };
    for op in [
        Op::DelLink(tunnel()),
        Op::SetLink(tunnel(), altered),
        Op::DelRoute(route(2), net.routes[&route(2)]),
        Op::SetRoute(route(2), hops),
        Op::SetRoute(route(88), hops),
        Op::DelNeigh(neigh),
        Op::SetNeigh(neigh, Mac([2, 9, 9, 9, 9, 9])),
        Op::DelFdb(*net.fdb.first().unwrap()),
        Op::SetFdb(strays),
        Op::SetSysctl("net/ipv4/ip_forward".to_owned(), "0".to_owned()),
    ] {
        let repairs = agent.status().await.reconcile.repairs;
        host.kernel.alter(&op);
        assert_ne!(host.kernel.net(), net, "{op}");
        pause(1_000).await;
        assert_eq!(host.kernel.net(), net, "{op}");
        assert!(agent.status().await.reconcile.repairs > repairs, "{op}");
    }
    assert_eq!(host.kernel.net().neighs[&neigh], mac);
    host.kernel.set_up(tunnel(), false);
    pause(1_000).await;
    assert_eq!(host.kernel.net(), net);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_announces_is_found_within_a_minute() {
    let (host, agent) = fabric(4).await;
    let net = host.kernel.net();
    host.kernel.alter_silently(|net| net.routes.clear());
    pause(61_000).await;
    assert_eq!(host.kernel.net(), net);
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn another_objects_failure_does_not_put_off_healing() {
    let (host, agent) = fabric(4).await;
    host.kernel.fail(Failure::Matching("10.5.9.0/24".to_owned()));
    put_peer_with(&host.table, 9, 9);
    agent.shows(&["kernel-refused"]).await;
    pause(60_000).await;
    let passes = async || agent.status().await.reconcile.tally.passes;
    let before = passes().await;
    pause(60_000).await;
    let tried = passes().await - before;
    assert!((6..=14).contains(&tried), "every 5 to 10 s, and at the resync: {tried}");
    for peer in [2, 3, 4] {
        // As far from the next try as can be.
        let last = passes().await;
        while passes().await == last {
            pause(5).await;
        }
        host.kernel.alter(&Op::DelRoute(route(peer), host.kernel.net().routes[&route(peer)]));
        pause(1_000).await;
        assert!(host.kernel.net().routes.contains_key(&route(peer)), "{peer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_in_use_is_one_fault_and_heals() {
    let host = Host::alone();
    put_peers(&host.table, 40);
    host.kernel.take_port();
    let mut agent = host.start();
    agent.shows(&["kernel-refused"]).await;
    pause(60_000).await;
    let status = agent.status().await;
    assert_eq!(status.faults.len(), 1, "{status}");
    assert!(status.faults[0].cause.contains("Address already in use"), "{status}");
    assert_eq!((status.state, host.env()), (State::Failed, String::new()));
    host.kernel.heal();
    agent.is_ready().await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_never_reads_back_as_written_is_named_and_let_be() {
    let host = Host::alone();
    put_peers(&host.table, 4);
    host.kernel.clamp_mtu(1400);
    let agent = host.start();
    agent.shows(&["kernel-refused"]).await;
    let status = agent.status().await;
    assert!(status.faults[0].cause.contains("mtu reads 1400, wanted 1450"), "{status}");
    host.leads_to(&[2, 3, 4]).await;
    let done = host.kernel.applied().len();
    pause(600_000).await;
    assert_eq!(host.kernel.applied().len(), done);
    host.table.set_config(Some(&CONFIG.replace(r#""vxlan""#, r#""vxlan","MTU":1450"#)));
    agent.is_well().await;
    host.table.set_config(Some(CONFIG));
    agent.shows(&["kernel-refused"]).await;
    host.kernel.heal();
    host.table.set_config(Some(&CONFIG.replace(r#""vxlan""#, r#""vxlan","MTU":1350"#)));
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_route_is_reported_and_left_alone() {
    let (host, agent) = fabric(4).await;
    host.kernel.alter(&Op::DelRoute(route(2), host.kernel.net().routes[&route(2)]));
    host.kernel.set_foreign(vec![ForeignRoute {
        dst: route(2).dst,
        metric: 0,
        line: "10.5.2.0/24 via 192.168.77.254 proto static".to_owned(),
    }]);
    agent.shows(&["foreign-route"]).await;
    pause(120_000).await;
    host.leads_to(&[3, 4]).await;
    host.kernel.set_foreign(Vec::new());
    host.leads_to(&[2, 3, 4]).await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_firewall_that_is_flushed_is_loaded_again() {
    let (host, agent) = fabric(3).await;
    let (want, writes) = (host.firewall.have(), host.firewall.writes());
    host.firewall.flush();
    pause(1_000).await;
    assert_eq!((host.firewall.have(), host.firewall.writes()), (want, writes + 1));
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_firewall_that_fails_is_reported_and_tried_again() {
    let (host, agent) = fabric(3).await;
    let want = host.firewall.have();
    host.firewall.fail(6);
    host.firewall.flush();
    agent.shows(&["firewall-failed"]).await;
    put_peer_with(&host.table, 9, 9);
    host.leads_to(&[2, 3, 9]).await;
    agent.is_well().await;
    assert_eq!(host.firewall.have(), want);
    host.firewall.obstruct(vec![PolicyDrop { v6: false, chain: "ip filter FORWARD".into(), iptables: true }]);
    agent.shows(&["forward-dropped"]).await;
    host.firewall.obstruct(Vec::new());
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_written_are_reported_and_tried_again() {
    let mut host = Host::alone();
    let (blocked, run) = (host.dir.path().join("blocked"), host.dir.path().join("blocked/run/subnet.env"));
    std::fs::write(&blocked, "a file where a directory should be").unwrap();
    host.config.subnet_file = run;
    host.config.site.dirs.state = blocked.join("state");
    let mut agent = host.start();
    agent.shows(&["file-failed", "file-failed"]).await;
    assert!(!*agent.ready.borrow());
    pause(60_000).await;
    std::fs::remove_file(&blocked).unwrap();
    agent.is_ready().await;
    agent.is_well().await;
    assert!(host.env().contains("FLANNEL_SUBNET") && host.memory().exists());
    std::fs::remove_file(&host.config.subnet_file).unwrap();
    until("subnet.env is back", || host.env().contains("FLANNEL_SUBNET")).await;
}
