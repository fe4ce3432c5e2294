//! The host and the network's configuration change under a running agent.

use twill::agent::status::FaultStatus;

use super::*;

fn config(backend: &str) -> String {
    CONFIG.replace(r#"{"Type":"vxlan"}"#, backend)
}

async fn fault(agent: &Running, code: &str) -> FaultStatus {
    agent.shows(&[code]).await;
    agent.status().await.faults.remove(0)
}

#[tokio::test(start_paused = true)]
async fn another_address_is_published_in_the_same_lease() {
    let table = MemoryTable::default();
    table.set_config(Some(CONFIG));
    let (host, witness) = (Host::new(1, &table), Host::new(2, &table));
    let (mut agent, other) = (host.started().await, witness.started().await);
    let lease = host.lease().unwrap();
    host.move_to("192.168.77.111/24");
    until("the peer follows", || {
        witness.kernel.net().fdb.iter().any(|entry| entry.dst.to_string() == "192.168.77.111")
    })
    .await;
    agent.is_ready().await;
    agent.is_well().await;
    other.is_well().await;
    assert_eq!(name(&host.lease().unwrap()), name(&lease));
    let local = host.kernel.net().links[&tunnel()].vxlan().unwrap().local;
    assert_eq!(local.to_string(), "192.168.77.111");
    assert_eq!(host.table.records().len(), 2);
}

/// Where the tunnel is, and where peers are told it is.
fn at(host: &Host) -> (String, String) {
    let net = host.kernel.net();
    let attrs = Attrs::decode(&host.lease().unwrap().value).unwrap();
    (net.links[&tunnel()].vxlan().unwrap().local.to_string(), attrs.public_ip.unwrap().to_string())
}

#[tokio::test(start_paused = true)]
async fn an_address_that_comes_beside_the_one_in_use_moves_nothing() {
    let host = Host::alone();
    let mut facts = host.kernel.host_facts();
    facts.addrs[0].permanent = false;
    host.kernel.set_facts(facts.clone());
    let agent = host.started().await;
    agent.is_well().await;
    let (stays, writes) = (("192.168.77.1".to_owned(), "192.168.77.1".to_owned()), host.table.writes());
    let vip =
        AddrFact { net: "192.168.77.250/32".parse().unwrap(), permanent: true, ..facts.addrs[0].clone() };
    facts.addrs.insert(0, vip);
    host.kernel.set_facts(facts.clone());
    pause(10_000).await;
    assert_eq!((at(&host), host.table.writes()), (stays.clone(), writes));
    agent.stop().await;
    let agent = host.started().await;
    agent.is_well().await;
    assert_eq!(at(&host), stays, "a restart keeps it, too");
    facts.addrs.remove(1);
    host.kernel.set_facts(facts);
    let moved = ("192.168.77.250".to_owned(), "192.168.77.250".to_owned());
    until("the tunnel and what peers are told move", || at(&host) == moved).await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn an_underlay_that_is_away_for_a_while_changes_nothing() {
    let host = Host::alone();
    put_peers(&host.table, 4);
    let agent = host.started().await;
    agent.is_well().await;
    let (net, facts) = (host.kernel.net(), host.kernel.host_facts());
    host.kernel.set_facts(twill::kernel::facts::HostFacts { addrs: vec![], ..facts.clone() });
    let fault = fault(&agent, "no-underlay").await;
    assert!(fault.cause.contains("eth0"), "{}", fault.cause);
    pause(60_000).await;
    assert_eq!(host.kernel.net(), net);
    host.kernel.set_facts(facts);
    agent.is_well().await;
    assert_eq!(host.kernel.net(), net);
}

#[tokio::test(start_paused = true)]
async fn what_can_change_at_once_does() {
    let host = Host::alone();
    put_peers(&host.table, 3);
    let agent = host.started().await;
    agent.is_well().await;
    let before = host.kernel.applied().len();
    host.table.set_config(Some(&config(r#"{"Type":"vxlan","MTU":1300,"DirectRouting":true}"#)));
    until("the MTU is written", || host.env().contains("FLANNEL_MTU=1250")).await;
    agent.is_well().await;
    let net = host.kernel.net();
    assert_eq!(net.links[&tunnel()].mtu, 1250);
    assert_eq!(net.routes[&route(2)].dev.unwrap().as_str(), "eth0");
    assert!(net.fdb.is_empty());
    let links = |op: &&Op| matches!(op, Op::SetLink(..));
    assert_eq!(host.kernel.applied().iter().skip(before).filter(links).count(), 1, "changed in place");
    host.table.set_config(Some(CONFIG));
    until("the MTU is back", || host.env().contains("FLANNEL_MTU=1450")).await;
    agent.is_well().await;
    assert_eq!(host.kernel.net(), fresh_net(&host).await);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_is_reported_and_waits_for_a_restart() {
    for (text, named) in [
        (config(r#"{"Type":"vxlan","Port":4789}"#), "Backend.port"),
        (config(r#"{"Type":"host-gw"}"#), "Backend.type"),
        (CONFIG.replace("10.5.", "10.6."), "Network"),
    ] {
        let host = Host::alone();
        put_peers(&host.table, 3);
        let agent = host.started().await;
        agent.is_well().await;
        let net = host.kernel.net();
        host.table.set_config(Some(&text));
        assert!(fault(&agent, "restart-to-apply").await.cause.contains(named));
        pause(120_000).await;
        assert_eq!(host.kernel.net(), net);
        host.table.set_config(Some(CONFIG));
        agent.is_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_is_wrong_leaves_the_last_good_one_in_force() {
    let host = Host::alone();
    put_peers(&host.table, 3);
    let agent = host.started().await;
    agent.is_well().await;
    let (net, env) = (host.kernel.net(), host.env());
    for text in
        ["{", r#"{"Network":"10.5.0.0/16","SubnetLen":99}"#, &config(r#"{"Type":"vxlan","MTU":"big"}"#)]
    {
        host.table.set_config(Some(text));
        fault(&agent, "bad-config").await;
        host.kernel.announce(twill::kernel::Change::Underlay);
        pause(120_000).await;
        assert_eq!((host.kernel.net(), host.env()), (net.clone(), env.clone()), "{text}");
        host.table.set_config(Some(CONFIG));
        agent.is_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_vanishes_holds_deletions() {
    let host = Host::alone();
    put_peers(&host.table, 4);
    let agent = host.started().await;
    agent.is_well().await;
    host.table.set_config(None);
    agent.shows(&["no-config"]).await;
    host.table.delete_raw(&key(2));
    agent.shows(&["no-config", "deletions-held"]).await;
    pause(60_000).await;
    put_peer_with(&host.table, 9, 9);
    host.leads_to(&[2, 3, 4, 9]).await;
    host.table.set_config(Some(CONFIG));
    agent.shows(&["deletions-held"]).await;
    pause(300_000).await;
    host.leads_to(&[3, 4, 9]).await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_kept_alive_without_another_write() {
    for backend in [r#"{"Type":"vxlan"}"#, r#"{"Type":"host-gw"}"#, r#"{"Type":"vxlan","VNI":7,"Port":4789}"#]
    {
        let table = MemoryTable::new(Duration::from_secs(600));
        table.set_config(Some(&config(backend)));
        let mut host = Host::new(1, &table);
        host.config.renew_margin = Duration::from_secs(60);
        let agent = host.started().await;
        agent.is_well().await;
        let (writes, lease) = (host.table.writes(), host.lease().unwrap());
        pause(3_600_000).await;
        assert_eq!((host.table.writes(), host.lease().unwrap()), (writes, lease));
        assert!(*agent.ready.borrow());
        agent.stop().await;
        pause(601_000).await;
        assert_eq!(host.lease(), None, "it would have ended otherwise");
    }
}
