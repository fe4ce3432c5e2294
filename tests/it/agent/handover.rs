//! One agent takes over from another, on a clock that runs: sockets do not know of another.

use std::fs::File;
use std::os::fd::AsFd;

use twill::agent::handover::{self, Doors, Inheritance};
use twill::agent::socket::{self, Hall};

use super::*;

/// Asks an agent to hand over, through a socket like the program's.
async fn ask(host: &Host, agent: &Running) -> Inheritance {
    let path = host.dir.path().join("agent.sock");
    let listener = socket::bind(&path).unwrap();
    let doors = Doors {
        lock: File::open("/dev/null").unwrap().into(),
        socket: listener.as_fd().try_clone_to_owned().unwrap(),
        http: listener.as_fd().try_clone_to_owned().unwrap(),
        health: None,
        page: None,
    };
    let hall = Hall { visits: agent.visits.clone(), view: agent.view.clone(), doors: Arc::new(doors) };
    tokio::spawn(socket::serve(listener, hall));
    handover::ask(&path).await.unwrap().unwrap()
}

/// Starts an agent on the same host that goes on from there, while the other is given the time to end.
async fn succeed(host: &Host, inheritance: Inheritance, before: Running) -> Running {
    let (mut agent, ready) = host.agent(inheritance.identity.clone());
    let ended = async { drop(before.task.await) };
    let (done, ()) = tokio::join!(agent.succeed(inheritance), ended);
    done.unwrap();
    host.run(agent, ready)
}

async fn take_over(host: &Host, before: Running) -> Running {
    let inheritance = ask(host, &before).await;
    succeed(host, inheritance, before).await
}

#[tokio::test]
async fn a_successor_goes_on_without_writing() {
    let host = Host::alone();
    put_peers(&host.table, 4);
    let mut agent = host.started().await;
    agent.is_well().await;
    let (writes, done, loads) = (host.table.writes(), host.kernel.applied(), host.firewall.writes());
    for _ in 0..3 {
        agent = take_over(&host, agent).await;
        assert!(*agent.ready.borrow(), "ready from the first moment on");
        agent.is_well().await;
        assert_eq!(agent.status().await.lease.unwrap().standing, "held");
    }
    assert_eq!((host.table.writes(), host.firewall.writes()), (writes, loads));
    assert_eq!(host.kernel.applied(), done);
    put_peer_with(&host.table, 9, 9);
    host.leads_to(&[2, 3, 4, 9]).await;
}

#[tokio::test]
async fn a_successor_goes_on_although_the_other_is_killed_on_the_way() {
    let host = Host::alone();
    put_peers(&host.table, 3);
    let agent = host.started().await;
    agent.is_well().await;
    let inheritance = ask(&host, &agent).await;
    agent.task.abort();
    let agent = succeed(&host, inheritance, agent).await;
    agent.is_well().await;
}

#[tokio::test]
async fn an_agent_whose_successor_is_gone_repairs_what_happened_meanwhile() {
    let host = Host::alone();
    put_peers(&host.table, 3);
    let agent = host.started().await;
    agent.is_well().await;
    let inheritance = ask(&host, &agent).await;
    put_peer_with(&host.table, 4, 4);
    host.kernel.alter_silently(|net| net.routes.clear());
    pause(100).await;
    assert!(host.kernel.net().routes.is_empty(), "it writes while another may");
    drop(inheritance);
    host.leads_to(&[2, 3, 4]).await;
    agent.is_well().await;
}

#[tokio::test]
async fn deletions_that_are_held_stay_held() {
    let host = Host::alone();
    let peers = put_peers(&host.table, 12);
    let agent = host.started().await;
    agent.is_well().await;
    pause(1_100).await;
    peers.iter().skip(2).for_each(|n| host.table.delete_raw(&key(*n)));
    agent.shows(&["deletions-held"]).await;
    let done = host.kernel.applied().len();
    let agent = take_over(&host, agent).await;
    while !agent.status().await.store.connected {
        pause(5).await;
    }
    agent.shows(&["deletions-held"]).await;
    pause(100).await;
    assert_eq!(removals(&host.kernel, done), vec![]);
}

#[tokio::test]
async fn an_agent_that_knows_nothing_yet_hands_over_what_it_has() {
    let host = Host::alone();
    host.table.set_available(false);
    let before = host.start();
    let mut agent = take_over(&host, before).await;
    assert!(!*agent.ready.borrow());
    host.table.set_available(true);
    agent.is_ready().await;
    agent.is_well().await;
}

#[tokio::test]
async fn a_lease_that_went_meanwhile_is_claimed_again() {
    let host = Host::alone();
    let agent = host.started().await;
    agent.is_well().await;
    let lease = host.lease().unwrap();
    let inheritance = ask(&host, &agent).await;
    host.table.delete_raw(&name(&lease).to_string());
    let agent = succeed(&host, inheritance, agent).await;
    agent.is_well().await;
    until("the lease is back", || host.lease().is_some_and(|back| name(&back) == name(&lease))).await;
}
