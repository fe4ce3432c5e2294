//! Starting, ending, and starting again.

use twill::kernel::facts::{BY_BOOT, RouteFact};
use twill_backends::state::{Route, RouteKind};

use super::*;

#[tokio::test(start_paused = true)]
async fn from_start_to_ready() {
    let host = Host::alone();
    put_peers(&host.table, 3);
    let agent = host.started().await;
    agent.is_well().await;
    let lease = host.lease().unwrap();
    let net = host.kernel.net();
    assert_eq!(net.links[&tunnel()].mtu, 1450);
    assert_eq!((net.routes.len(), net.fdb.len(), net.neighs.len()), (2, 2, 2));
    assert_eq!(net.sysctls["net/ipv4/ip_forward"], "1");
    let subnet = name(&lease).subnets().unwrap().v4.unwrap();
    let gateway = subnet.to_string().replace(".0/24", ".1/24");
    assert_eq!(
        host.env(),
        format!(
            "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET={gateway}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        )
    );
    assert_eq!(host.firewall.have().nets.len(), 1);
    assert!(host.memory().exists());
    let status = agent.status().await;
    assert_eq!((status.peers.len(), status.lease.unwrap().standing.as_str()), (2, "held"));
}

/// Whatever becomes known last, the end is the same, and nothing is touched before all is known.
#[tokio::test(start_paused = true)]
async fn the_order_of_inputs_does_not_matter() {
    let mut orders = vec![vec![]];
    for item in ["config", "underlay", "store", "peers"] {
        let insert = |order: &Vec<&'static str>| {
            (0..=order.len())
                .map(|at| {
                    let mut order = order.clone();
                    order.insert(at, item);
                    order
                })
                .collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(insert).collect();
    }
    let mut ends = Vec::new();
    for order in orders {
        let table = MemoryTable::default();
        table.set_available(false);
        let host = Host { kernel: FakeKernel::default(), ..Host::new(1, &table) };
        let mut agent = host.start();
        let mut known = 0;
        for input in &order {
            assert!(known == 3 || host.kernel.applied().is_empty(), "{order:?}");
            known += usize::from(*input != "peers");
            match *input {
                "config" => table.set_config(Some(CONFIG)),
                "underlay" => {
                    host.kernel.set_facts(FakeKernel::host(1).host_facts());
                }
                "store" => table.set_available(true),
                _ => drop(put_peers(&table, 4)),
            }
            pause(7_000).await;
        }
        agent.is_ready().await;
        agent.is_well().await;
        ends.push((host.kernel.net().routes, host.kernel.net().fdb, host.kernel.net().neighs));
    }
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test(start_paused = true)]
async fn without_a_store_and_a_memory_nothing_is_touched() {
    let host = Host::alone();
    host.table.set_available(false);
    let mut agent = host.start();
    pause(600_000).await;
    assert_eq!((host.kernel.applied(), host.firewall.writes(), host.env()), (vec![], 0, String::new()));
    let status = agent.status().await;
    assert_eq!((status.state, agent.codes().await), (State::Failed, vec!["store-down".to_owned()]));
    host.table.set_available(true);
    agent.is_ready().await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_waits_for_ever_hardly_works() {
    let host = Host::alone();
    host.table.set_config(None);
    let agent = host.start();
    pause(86_400_000).await;
    agent.shows(&["no-config"]).await;
    assert_eq!((host.kernel.observed(), host.table.writes()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_the_store_the_last_run_is_remembered_and_nothing_removed() {
    let host = Host::alone();
    put_peers(&host.table, 4);
    let agent = host.started().await;
    agent.is_well().await;
    pause(2_000).await;
    agent.stop().await;
    let wanted = host.kernel.net();
    let stray = Route {
        kind: RouteKind::Unicast,
        via: None,
        dev: Some(tunnel()),
        onlink: false,
        mtu: None,
        protocol: 70,
    };
    host.kernel.alter_silently(|net| {
        net.routes.remove(&route(2));
        net.routes.insert(route(99), stray);
    });
    host.table.set_available(false);
    let before = host.kernel.applied().len();
    let mut agent = host.start();
    pause(1_900).await;
    assert_eq!(host.kernel.applied().len(), before, "the store has two seconds");
    agent.is_ready().await;
    agent.shows(&["store-down", "store-down"]).await;
    let status = agent.status().await;
    assert_eq!((status.state, status.lease.unwrap().standing.as_str()), (State::Degraded, "remembered"));
    host.leads_to(&[2, 3, 4, 99]).await;
    pause(600_000).await;
    assert_eq!(removals(&host.kernel, before), []);
    host.table.delete_raw(&key(4));
    host.table.set_available(true);
    host.leads_to(&[2, 3]).await;
    agent.is_well().await;
    assert_eq!(agent.status().await.lease.unwrap().standing, "held");
    put_peer_with(&host.table, 4, 4);
    host.leads_to(&[2, 3, 4]).await;
    assert_eq!(host.kernel.net(), wanted);
}

/// Makes the lease that was remembered end before this start.
fn expire(host: &Host) {
    let text = std::fs::read_to_string(host.memory()).unwrap();
    let mut memory: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(memory["expires"].as_u64().unwrap() > 0);
    memory["expires"] = 1.into();
    std::fs::write(host.memory(), memory.to_string()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_is_announced_only_to_pods_that_run_already() {
    for pods in [false, true] {
        let host = Host::alone();
        put_peers(&host.table, 3);
        let agent = host.started().await;
        agent.stop().await;
        let env = host.env();
        expire(&host);
        if pods {
            let gateway = env.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).unwrap();
            host.add_bridge(gateway);
        }
        std::fs::remove_file(&host.config.subnet_file).unwrap();
        host.kernel.alter_silently(|net| *net = NetState::default());
        host.table.set_available(false);
        let agent = host.start();
        host.leads_to(&[2, 3]).await;
        pause(60_000).await;
        assert_eq!(host.env(), if pods { env } else { String::new() });
        assert_eq!(*agent.ready.borrow(), pods);
        host.table.set_available(true);
        agent.is_well().await;
        assert!(host.env().contains("FLANNEL_SUBNET=10.5."));
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_memory_is_none() {
    let host = Host::alone();
    host.started().await.stop().await;
    std::fs::write(host.memory(), "{").unwrap();
    host.table.set_available(false);
    let before = host.kernel.applied().len();
    let mut agent = host.start();
    pause(60_000).await;
    assert_eq!(host.kernel.applied().len(), before);
    host.table.set_available(true);
    agent.is_ready().await;
}

#[tokio::test(start_paused = true)]
async fn an_unsupported_backend_is_refused_with_nothing_touched() {
    for backend in [r#","Backend":{"Type":"ipip"}"#, r#","Backend":{"Type":"wireguard"}"#, ""] {
        let host = Host::alone();
        host.table.set_config(Some(&format!(r#"{{"Network":"10.5.0.0/16"{backend}}}"#)));
        let error = host.start().ended().await.unwrap_err();
        assert!(matches!(error, AgentError::Refused(_)), "{error}");
        assert!(error.to_string().contains(r#""Backend":{"Type":"vxlan"}"#), "{error}");
        assert_eq!((host.kernel.applied(), host.kernel.observed()), (vec![], 0));
        assert_eq!((host.firewall.writes(), host.table.records(), host.env()), (0, vec![], String::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_in_use_is_refused_unless_forced() {
    let mut host = Host::alone();
    let mut facts = host.kernel.host_facts();
    facts.routes.push(RouteFact {
        dst: "10.5.7.0/24".parse().unwrap(),
        protocol: BY_BOOT,
        ..facts.routes[0].clone()
    });
    host.kernel.set_facts(facts);
    let error = host.start().ended().await.unwrap_err().to_string();
    assert!(error.contains("10.5.7.0/24") && error.contains("--force"), "{error}");
    assert_eq!((host.kernel.applied(), host.firewall.writes(), host.table.records()), (vec![], 0, vec![]));
    host.config.force = true;
    host.started().await.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_be_looked_at_is_not_taken_for_free() {
    let host = Host::alone();
    host.kernel.blind(20);
    let mut agent = host.start();
    pause(100).await;
    assert_eq!(host.kernel.applied(), []);
    agent.is_ready().await;
    agent.is_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_writes_nothing_that_is_right_already() {
    let host = Host::alone();
    put_peers(&host.table, 4);
    let agent = host.started().await;
    agent.is_well().await;
    agent.stop().await;
    let (done, loaded, lease) = (host.kernel.applied().len(), host.firewall.writes(), host.lease().unwrap());
    let agent = host.started().await;
    agent.is_well().await;
    pause(120_000).await;
    assert_eq!((host.kernel.applied().len(), host.firewall.writes()), (done, loaded));
    assert_eq!(name(&host.lease().unwrap()), name(&lease));
}

#[tokio::test(start_paused = true)]
async fn at_rest_nothing_is_written_although_nobody_answers_trials() {
    let mut host = Host::alone();
    host.config.probe_port = Some(8475);
    put_peers(&host.table, 4);
    let agent = host.started().await;
    agent.is_well().await;
    pause(3_000).await;
    let written = || {
        let memory = std::fs::metadata(host.memory()).unwrap().modified().unwrap();
        (memory, host.kernel.applied().len(), host.firewall.writes())
    };
    let before = written();
    pause(120_000).await;
    assert_eq!(written(), before);
}

#[tokio::test(start_paused = true)]
async fn the_end_leaves_the_data_plane_in_place() {
    let host = Host::alone();
    put_peers(&host.table, 4);
    let agent = host.started().await;
    agent.is_well().await;
    let (net, filter) = (host.kernel.net(), host.firewall.have());
    agent.stop().await;
    assert_eq!((host.kernel.net(), host.firewall.have()), (net, filter));
    assert!(host.lease().is_some());
}

#[tokio::test(start_paused = true)]
async fn cleanup_on_exit_leaves_nothing() {
    let mut host = Host::alone();
    host.config.cleanup_on_exit = true;
    put_peers(&host.table, 4);
    let agent = host.started().await;
    agent.is_well().await;
    agent.stop().await;
    let net = NetState { sysctls: host.kernel.net().sysctls, ..NetState::default() };
    assert_eq!((host.kernel.net(), host.env()), (net, String::new()));
    assert!(!host.firewall.have().wants_rules());
}

#[tokio::test(start_paused = true)]
async fn a_release_ends_the_agent_and_only_gives_the_lease_back() {
    let host = Host::alone();
    let agent = host.started().await;
    agent.is_well().await;
    let net = host.kernel.net();
    let key = host.lease().unwrap().key;
    assert_eq!(agent.ask(Ask::Release).await, Ok(key.as_str().into()));
    agent.ended().await.unwrap();
    assert_eq!((host.lease(), host.kernel.net()), (None, net));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_leaves_the_agent_running() {
    let host = Host::alone();
    let agent = host.started().await;
    host.table.set_available(false);
    assert!(agent.ask(Ask::Release).await.unwrap_err().contains("does not answer"));
    host.table.set_available(true);
    agent.is_well().await;
    assert!(host.lease().is_some());
}

#[tokio::test(start_paused = true)]
async fn two_agents_see_each_other() {
    let table = MemoryTable::default();
    table.set_config(Some(CONFIG));
    let hosts = [Host::new(1, &table), Host::new(2, &table)];
    let agents = [hosts[0].started().await, hosts[1].started().await];
    for (host, other) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])] {
        let subnet = name(&other.lease().unwrap()).subnets().unwrap().v4.unwrap();
        let mac = other.kernel.net().links[&tunnel()].mac;
        until("the other is a peer", || {
            let net = host.kernel.net();
            net.routes.keys().any(|key| key.dst == subnet) && net.fdb.iter().any(|entry| entry.mac == mac)
        })
        .await;
    }
    for agent in &agents {
        agent.is_well().await;
        assert_eq!(agent.status().await.peers.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_without_a_configuration_is_waited_for() {
    let host = Host::alone();
    put_peers(&host.table, 3);
    let agent = host.started().await;
    pause(2_000).await;
    agent.stop().await;
    host.table.set_config(None);
    let before = host.kernel.applied().len();
    let mut agent = host.start();
    pause(3_600_000).await;
    agent.shows(&["no-config"]).await;
    assert_eq!(host.kernel.applied().len(), before);
    host.table.set_config(Some(CONFIG));
    agent.is_ready().await;
    agent.is_well().await;
}
