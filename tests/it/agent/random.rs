//! Whatever happens, and in whatever order: once it is quiet, the host is as if its agent had just been started.

use proptest::prelude::*;
use twill::kernel::fake::Failure;
use twill_backends::mac::Mac;
use twill_backends::state::Fdb;

use super::*;

/// Something that happens to a host.
#[derive(Debug, Clone)]
enum Event {
    Put(u8, u8),
    Delete(u8),
    Junk(u8),
    Available(bool),
    FailCalls(usize),
    LoseReplies(usize),
    Wipe,
    BackInTime,
    Configure(Option<u16>),
    LoseOwnLease,
    Refuse(u8),
    RefuseNth(usize),
    Blind(usize),
    Heal,
    DeleteLink,
    Break(u8),
    BreakSilently,
    Down,
    PortTaken,
    Flush,
    RefuseRules(usize),
    Move(u8),
    Restart,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    prop_oneof![
        6 => (2_u8..9, 2_u8..12).prop_map(|(n, mac)| Put(n, mac)),
        3 => (2_u8..9).prop_map(Delete),
        1 => (2_u8..9).prop_map(Junk),
        2 => any::<bool>().prop_map(Available),
        1 => (1_usize..4).prop_map(FailCalls),
        1 => (1_usize..3).prop_map(LoseReplies),
        1 => Just(Wipe),
        1 => Just(BackInTime),
        2 => proptest::option::of(1_300_u16..1_303).prop_map(Configure),
        1 => Just(LoseOwnLease),
        1 => (0_u8..9).prop_map(Refuse),
        2 => (0_usize..20).prop_map(RefuseNth),
        1 => (1_usize..4).prop_map(Blind),
        2 => Just(Heal),
        1 => Just(DeleteLink),
        3 => (2_u8..9).prop_map(Break),
        1 => Just(BreakSilently),
        1 => Just(Down),
        1 => Just(PortTaken),
        1 => Just(Flush),
        1 => (1_usize..4).prop_map(RefuseRules),
        1 => (1_u8..2).prop_map(|n| Move(n * 111)),
        2 => Just(Restart),
        6 => (0_u64..3_000).prop_map(Wait),
    ]
}

async fn befall(host: &Host, agent: Running, event: Event) -> Running {
    let (table, kernel) = (&host.table, &host.kernel);
    match event {
        Event::Put(n, mac) => put_peer_with(table, n, mac),
        Event::Delete(n) => table.delete_raw(&key(n)),
        Event::Junk(n) => table.put_raw(&key(n), b"junk", false),
        Event::Available(available) => table.set_available(available),
        Event::FailCalls(count) => table.fail_calls(count),
        Event::LoseReplies(count) => table.lose_replies(count),
        Event::Wipe => table.wipe(),
        Event::BackInTime => table.set_revision(2),
        Event::Configure(None) => table.set_config(None),
        Event::Configure(Some(mtu)) => {
            table.set_config(Some(&CONFIG.replace(r#""vxlan""#, &format!(r#""vxlan","MTU":{mtu}"#))));
        }
        Event::LoseOwnLease => host.lease().iter().for_each(|record| table.delete_raw(record.key.as_str())),
        Event::Refuse(rank) => kernel.fail(Failure::Rank(rank)),
        Event::RefuseNth(n) => kernel.fail(Failure::Nth(n)),
        Event::Blind(times) => kernel.blind(times),
        Event::Heal => kernel.heal(),
        Event::DeleteLink => kernel.alter(&Op::DelLink(tunnel())),
        Event::Break(n) => {
            if let Some(route) = kernel.net().routes.get(&super::route(n)) {
                kernel.alter(&Op::DelRoute(super::route(n), *route));
            }
            let stray = Fdb { dev: tunnel(), mac: Mac([2, 7, 7, 7, 7, n]), dst: [192, 0, 2, n].into() };
            if kernel.net().links.contains_key(&tunnel()) {
                kernel.alter(&Op::SetFdb(stray));
            }
        }
        Event::BreakSilently => kernel.alter_silently(|net| net.neighs.clear()),
        Event::Down => kernel.set_up(tunnel(), false),
        Event::PortTaken => kernel.take_port(),
        Event::Flush => host.firewall.flush(),
        Event::RefuseRules(count) => host.firewall.fail(count),
        Event::Move(n) => host.move_to(&format!("192.168.77.{n}/24")),
        Event::Restart => {
            agent.stop().await;
            return host.start();
        }
        Event::Wait(millis) => pause(millis).await,
    }
    agent
}

async fn live(events: Vec<Event>) {
    let host = Host::alone();
    put_peers(&host.table, 4);
    let mut agent = host.started().await;
    for event in events {
        agent = befall(&host, agent, event).await;
    }
    host.kernel.heal();
    host.table.set_available(true);
    host.table.fail_calls(0);
    host.table.lose_replies(0);
    host.table.set_config(Some(CONFIG));
    for n in 2..9 {
        // What nobody can read is put right by its host.
        if host.table.records().iter().any(|record| record.key.as_str() == key(n) && record.value == b"junk")
        {
            put_peer_with(&host.table, n, n);
        }
    }
    // Deletions are held for as long as that, and each of several times.
    pause(3 * 300_000).await;
    agent.is_ready().await;
    let shown = agent.codes().await;
    assert!(shown.iter().all(|code| code == "duplicate-vtep"), "{}", agent.status().await);
    let (net, filter, env) = (host.kernel.net(), host.firewall.have(), host.env());
    agent.stop().await;
    let fresh = Host { identity: host.identity.clone(), ..Host::new(1, &host.table) };
    let facts = host.kernel.host_facts();
    fresh.kernel.set_facts(facts);
    let agent = fresh.started().await;
    pause(10_000).await;
    agent.stop().await;
    assert_eq!((net, filter, env), (fresh.kernel.net(), fresh.firewall.have(), fresh.env()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_the_host_is_as_after_a_start(events in proptest::collection::vec(event(), 1..30)) {
        let clock = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        clock.block_on(live(events));
    }
}
