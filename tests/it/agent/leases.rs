//! The store loses, changes and withholds leases.

use super::*;

/// An agent with peers 2 to `last`.
async fn fabric(last: u8) -> (Host, Running) {
    let host = Host::alone();
    put_peers(&host.table, last);
    let agent = host.started().await;
    agent.is_well().await;
    (host, agent)
}

#[tokio::test(start_paused = true)]
async fn peers_come_go_and_move() {
    let (host, agent) = fabric(4).await;
    put_peer_with(&host.table, 9, 9);
    host.leads_to(&[2, 3, 4, 9]).await;
    host.table.delete_raw(&key(3));
    host.leads_to(&[2, 4, 9]).await;
    put_peer_with(&host.table, 4, 44);
    until("the tunnel's address follows", || {
        host.kernel.net().fdb.iter().any(|entry| entry.mac.to_string().ends_with("2c"))
    })
    .await;
    agent.is_well().await;
    assert_eq!(host.kernel.net(), fresh_net(&host).await);
}

/// A lease that ends is some host's, whatever it says.
#[tokio::test(start_paused = true)]
async fn a_reservation_that_nobody_took_is_no_peer() {
    let (host, agent) = fabric(3).await;
    let vacant = br#"{"PublicIP":"192.168.77.9","PublicIPv6":null}"#;
    host.table.put_raw(&key(9), vacant, true);
    put_peer_with(&host.table, 4, 4);
    host.leads_to(&[2, 3, 4]).await;
    agent.is_well().await;
    assert_eq!(agent.status().await.peers.len(), 3);
    put_peer_with(&host.table, 9, 9);
    host.leads_to(&[2, 3, 4, 9]).await;
    host.table.put_raw(&key(9), vacant, true);
    host.leads_to(&[2, 3, 4]).await;
    agent.is_well().await;
    host.table.put_raw(&key(9), vacant, false);
    agent.shows(&["other-backend"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_and_comes_back_costs_nothing() {
    let (host, agent) = fabric(4).await;
    let done = host.kernel.applied().len();
    host.table.set_available(false);
    agent.shows(&["store-down"]).await;
    pause(3_600_000).await;
    assert_eq!(host.kernel.applied().len(), done);
    assert!(*agent.ready.borrow());
    host.table.delete_raw(&key(4));
    host.table.set_available(true);
    host.leads_to(&[2, 3]).await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn many_that_go_at_once_are_held() {
    let (host, agent) = fabric(9).await;
    (2..=9).for_each(|n| host.table.delete_raw(&key(n)));
    agent.shows(&["deletions-held"]).await;
    host.leads_to(&[2, 3, 4, 5, 6, 7, 8, 9]).await;
    assert!(agent.status().await.peers.iter().all(|peer| peer.held));
    put_peer_with(&host.table, 2, 2);
    pause(1_000).await;
    let held = agent.status().await.peers.into_iter().filter(|peer| peer.held);
    assert!(held.map(|peer| peer.key).eq((3..=9).map(key)));
    pause(305_000).await;
    host.leads_to(&[2]).await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_wiped_store_costs_no_route_and_not_the_subnet() {
    let (host, agent) = fabric(9).await;
    let (lease, env, net) = (host.lease().unwrap(), host.env(), host.kernel.net());
    let before = host.kernel.applied().len();
    host.table.wipe();
    host.table.set_config(Some(CONFIG));
    until("the lease is claimed again", || host.lease().is_some()).await;
    agent.shows(&["deletions-held"]).await;
    assert_eq!(name(&host.lease().unwrap()), name(&lease));
    assert!(agent.status().await.peers.iter().all(|peer| peer.held));
    put_peers(&host.table, 9);
    agent.is_well().await;
    assert!(!agent.status().await.peers.iter().any(|peer| peer.held));
    assert_eq!((host.env(), host.kernel.net()), (env, net));
    assert_eq!(removals(&host.kernel, before), []);
}

#[tokio::test(start_paused = true)]
async fn a_store_wiped_while_no_agent_looked_costs_nothing_either() {
    for waits in [0, 3_000] {
        let (host, agent) = fabric(9).await;
        pause(2_000).await;
        agent.stop().await;
        let lease = host.lease().unwrap();
        host.table.wipe();
        host.table.set_config(Some(CONFIG));
        host.table.set_available(waits == 0);
        let before = host.kernel.applied().len();
        let agent = host.start();
        pause(waits).await;
        host.table.set_available(true);
        agent.shows(&["deletions-held"]).await;
        until("the lease is claimed again", || host.lease().is_some()).await;
        assert_eq!(name(&host.lease().unwrap()), name(&lease));
        // What is held is not forgotten by another restart.
        pause(5_000).await;
        agent.stop().await;
        let agent = host.start();
        agent.shows(&["deletions-held"]).await;
        pause(5_000).await;
        assert_eq!(removals(&host.kernel, before), []);
        pause(310_000).await;
        agent.is_well().await;
        host.leads_to(&[]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_back_in_time_costs_nothing() {
    let (host, agent) = fabric(5).await;
    let before = host.kernel.applied().len();
    // The backup lacks peer 5 and this host's lease.
    let lease = host.lease().unwrap();
    host.table.delete_raw(lease.key.as_str());
    host.table.set_revision(3);
    host.table.delete_raw(&key(5));
    host.table.set_revision(2);
    agent.shows(&["deletions-held"]).await;
    until("the lease is claimed again", || host.lease().is_some()).await;
    assert_eq!(name(&host.lease().unwrap()), name(&lease));
    pause(60_000).await;
    assert_eq!(removals(&host.kernel, before), []);
    pause(300_000).await;
    host.leads_to(&[2, 3, 4]).await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_lost_after_the_store_went_back_is_claimed_again() {
    let (host, agent) = fabric(3).await;
    let lease = host.lease().unwrap();
    host.table.set_revision(2);
    pause(1_000).await;
    host.table.delete_raw(lease.key.as_str());
    until("the lease is claimed again", || host.lease().is_some()).await;
    assert_eq!(name(&host.lease().unwrap()), name(&lease));
    pause(300_000).await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_session_in_a_restored_store_is_taken_over() {
    let (host, agent) = fabric(3).await;
    let lease = host.lease().unwrap();
    let mut attrs = Attrs::decode(&lease.value).unwrap();
    attrs.session = Some("an earlier run".to_owned());
    host.table.put_raw(lease.key.as_str(), &attrs.encode(), false);
    host.table.set_revision(3);
    pause(10_000).await;
    agent.is_well().await;
    assert_ne!(Attrs::decode(&host.lease().unwrap().value).unwrap().session, attrs.session);
}

#[tokio::test(start_paused = true)]
async fn malformed_leases_are_reported_and_cost_nobody_a_peer() {
    let host = Host::alone();
    host.table.put_raw("nonsense", b"{}", false);
    host.table.put_raw(&key(50), b"{", false);
    put_peers(&host.table, 4);
    let agent = host.start();
    agent.shows(&["bad-lease-value", "bad-lease-key"]).await;
    host.leads_to(&[2, 3, 4]).await;
    host.table.put_raw(&key(3), b"[]", false);
    agent.shows(&["bad-lease-value", "bad-lease-value", "bad-lease-key"]).await;
    host.table.set_revision(1_000);
    pause(60_000).await;
    host.leads_to(&[2, 3, 4]).await;
    assert!(*agent.ready.borrow());
    put_peer_with(&host.table, 3, 3);
    host.table.delete_raw("nonsense");
    host.table.delete_raw(&key(50));
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_is_waited_for() {
    let host = Host::alone();
    let full = CONFIG.replace("10.5.119.0", "10.5.101.0");
    host.table.set_config(Some(&full));
    put_peer_with(&host.table, 100, 100);
    put_peer_with(&host.table, 101, 101);
    let mut agent = host.start();
    agent.shows(&["pool-exhausted"]).await;
    pause(3_600_000).await;
    assert_eq!((host.kernel.applied(), host.env()), (vec![], String::new()));
    assert!(host.kernel.observed() < 1_000, "{}", host.kernel.observed());
    host.table.delete_raw(&key(101));
    pause(50).await;
    assert_eq!(host.lease().unwrap().key.as_str(), key(101), "at once, not at the next look");
    agent.is_ready().await;
    agent.shows(&["pool-low"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_subnet_that_another_node_took_is_not_written_again() {
    let (host, mut agent) = fabric(3).await;
    let (lease, env) = (host.lease().unwrap(), host.env());
    let theirs = br#"{"PublicIP":"192.168.77.66","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:01:42"},"NodeID":"them","Session":"x"}"#;
    host.table.put_raw(lease.key.as_str(), theirs, false);
    until("not ready", || !*agent.ready.borrow()).await;
    pause(60_000).await;
    let writes = host.table.writes();
    assert!(agent.codes().await.contains(&"lease-lost".to_owned()));
    pause(3_600_000).await;
    assert_eq!((host.table.writes(), host.env()), (writes, env.clone()));
    let carried = host.kernel.net();
    assert!(carried.links.contains_key(&tunnel()), "pods of this host keep their way out");
    host.table.delete_raw(lease.key.as_str());
    agent.is_ready().await;
    agent.is_well().await;
    assert_eq!((name(&host.lease().unwrap()), host.env()), (name(&lease), env));
}

#[tokio::test(start_paused = true)]
async fn junk_over_the_own_lease_is_reported_until_it_goes() {
    let (host, agent) = fabric(3).await;
    let lease = host.lease().unwrap();
    host.table.put_raw(lease.key.as_str(), b"junk", false);
    pause(10_000).await;
    let codes = agent.codes().await;
    assert!(codes.contains(&"lease-lost".to_owned()), "{codes:?}");
    host.table.delete_raw(lease.key.as_str());
    agent.is_well().await;
    assert_eq!(name(&host.lease().unwrap()), name(&lease));
}

#[tokio::test(start_paused = true)]
async fn junk_over_the_own_lease_is_written_over_where_pods_prove_it_ours() {
    let (host, agent) = fabric(3).await;
    let lease = host.lease().unwrap();
    let subnet = name(&lease).subnets().unwrap().v4.unwrap().to_string();
    host.add_bridge(&subnet.replace(".0/24", ".1/24"));
    host.table.put_raw(lease.key.as_str(), b"junk", false);
    pause(10_000).await;
    agent.is_well().await;
    assert_eq!(host.lease().unwrap().value, lease.value);
}

#[tokio::test(start_paused = true)]
async fn of_two_hosts_with_one_identity_the_first_stops_writing() {
    let (host, agent) = fabric(3).await;
    let clone = Host { identity: host.identity.clone(), ..Host::new(7, &host.table) };
    let other = clone.started().await;
    until("the first is not ready", || !*agent.ready.borrow()).await;
    other.is_well().await;
    let fault = agent.status().await.faults.into_iter().find(|fault| fault.code == "duplicate-identity");
    let cause = fault.unwrap().cause;
    assert!(cause.contains("192.168.77.1") && cause.contains("192.168.77.7"), "{cause}");
    let writes = host.table.writes();
    host.move_to("192.168.77.111/24");
    pause(20 * 3_600_000).await;
    assert_eq!(host.table.writes(), writes);
    host.leads_to(&[2, 3]).await;
    other.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_subnet_in_use_survives_a_store_that_was_away_at_the_start() {
    let (host, agent) = fabric(3).await;
    let lease = host.lease().unwrap();
    agent.stop().await;
    host.table.set_available(false);
    let mut agent = host.start();
    agent.is_ready().await;
    // Pods come while nobody can be asked, and meanwhile the subnet goes to another host.
    let subnet = name(&lease).subnets().unwrap().v4.unwrap().to_string();
    host.add_bridge(&subnet.replace(".0/24", ".1/24"));
    let theirs = br#"{"PublicIP":"192.168.77.66","BackendType":"vxlan","BackendData":{"VtepMAC":"02:00:00:00:01:42"},"NodeID":"them","Session":"x"}"#;
    host.table.put_raw(lease.key.as_str(), theirs, false);
    host.table.set_available(true);
    until("not ready", || !*agent.ready.borrow()).await;
    pause(120_000).await;
    assert!(host.lease().is_none() && host.env().contains(&subnet.replace(".0/24", ".1/24")));
    assert!(agent.codes().await.contains(&"lease-lost".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_subnet_is_found_again_whatever_else_was_lost() {
    // The lease expired, or also subnet.env is gone, or the state directory.
    for lost in ["lease", "subnet.env", "state"] {
        let (host, agent) = fabric(3).await;
        let lease = host.lease().unwrap();
        pause(2_000).await;
        agent.stop().await;
        host.table.delete_raw(lease.key.as_str());
        match lost {
            "subnet.env" => std::fs::remove_file(&host.config.subnet_file).unwrap(),
            "state" => std::fs::remove_dir_all(&host.config.site.dirs.state).unwrap(),
            _ => {}
        }
        let agent = host.started().await;
        agent.is_well().await;
        assert_eq!(name(&host.lease().unwrap()), name(&lease), "{lost}");
    }
}
