//! What an agent says of itself without being asked.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_changes_is_written_up_soon_and_without_asking() {
    let host = Host::alone();
    put_peers(&host.table, 3);
    let agent = host.started().await;
    pause(1_000).await;
    let before = agent.view.status().await.unwrap();
    assert_eq!((before.state, before.peers.len()), (State::Ok, 2));
    assert!(before.age_ms <= 1_100 && before.readiness.ready, "{before:?}");
    put_peer_with(&host.table, 9, 9);
    pause(200).await;
    let after = agent.view.status().await.unwrap();
    assert_eq!(after.peers.len(), 3, "{after}");
    assert_eq!(after.network.unwrap().guard.unwrap().dropped["strangers"], 0);
}

#[tokio::test(start_paused = true)]
async fn why_an_agent_is_not_ready_is_told_and_an_outage_is_no_reason() {
    let host = Host::new(1, &MemoryTable::default());
    let mut agent = host.start();
    pause(1_000).await;
    let because = agent.view.unready();
    assert!(
        because[0].contains("not known") && because[0].contains("there is no network configuration"),
        "{because:?}"
    );
    host.table.set_config(Some(CONFIG));
    agent.is_ready().await;
    pause(200).await;
    assert_eq!(agent.view.unready(), Vec::<String>::new());
    host.table.set_available(false);
    pause(3_600_000).await;
    assert_eq!(agent.view.unready(), Vec::<String>::new());
    assert_eq!(agent.view.status().await.unwrap().state, State::Degraded);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_hangs_is_found_out_and_still_shown() {
    let host = Host::alone();
    put_peers(&host.table, 3);
    let agent = host.started().await;
    agent.is_well().await;
    let dropped = |status: Status| status.network.unwrap().guard.unwrap().dropped;
    let counted = dropped(agent.view.status().await.unwrap());
    host.firewall.stall();
    pause(10_000).await;
    assert_eq!(agent.view.stuck(), None, "a pass may take that long");
    pause(25_000).await;
    let stuck = agent.view.stuck().unwrap();
    assert_eq!(stuck.doing, "the firewall");
    assert!(stuck.seconds >= 30 && agent.view.unready()[0].contains("the firewall"), "{stuck}");
    // The program that tells what the firewall counts hangs as well.
    let status = tokio::time::timeout(Duration::from_secs(4), agent.view.status()).await.unwrap().unwrap();
    assert!(status.peers.len() == 2 && status.age_ms > 30_000, "{status:?}");
    assert_eq!(dropped(status), counted);
}
