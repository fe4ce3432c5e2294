use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use twill_backends::mac::Mac;
use twill_backends::state::{Checksums, Fdb, LinkKind, NeighKey, Route, RouteKey, RouteKind, Vxlan};

use super::*;
use crate::kernel::fake::{Failure, FakeKernel};

const ALIAS: &str = "twill:x";

fn dev() -> LinkName {
    "flannel.1".try_into().unwrap()
}

fn link() -> Link {
    let local = Ipv4Addr::new(192, 168, 77, 1).into();
    Link {
        kind: LinkKind::Vxlan(Vxlan {
            vni: 1,
            port: 8472,
            local,
            learning: false,
            gbp: false,
            checksums: Checksums::default(),
        }),
        mac: mac(1),
        mtu: 1450,
        up: true,
        alias: ALIAS.to_owned(),
        addrs: BTreeSet::new(),
    }
}

const fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn key(n: u8) -> RouteKey {
    RouteKey { dst: format!("10.5.{n}.0/24").parse().unwrap(), metric: 0 }
}

fn route(n: u8) -> Route {
    let via = Some(Ipv4Addr::new(10, 5, n, 0).into());
    Route { kind: RouteKind::Unicast, via, dev: Some(dev()), onlink: true, mtu: None, protocol: 70 }
}

fn neigh(n: u8) -> NeighKey {
    NeighKey { dev: dev(), ip: Ipv4Addr::new(10, 5, n, 0).into() }
}

/// A tunnel with peers 2 to `last`.
fn want(last: u8) -> NetState {
    let mut net = NetState::default();
    net.links.insert(dev(), link());
    net.sysctls.insert(format!("net/ipv6/conf/{}/accept_ra", dev()), "0".to_owned());
    for n in 2..=last {
        net.neighs.insert(neigh(n), mac(n));
        net.fdb.insert(Fdb { dev: dev(), mac: mac(n), dst: Ipv4Addr::new(192, 168, 77, n).into() });
        net.routes.insert(key(n), route(n));
    }
    net
}

/// A reconciler with its kernel and its goal.
struct Bench {
    reconciler: Reconciler,
    kernel: FakeKernel,
    want: NetState,
    scope: Scope,
    removals: bool,
}

impl Bench {
    fn new(last: u8) -> Self {
        let want = want(last);
        let sysctls = want.sysctls.keys().cloned().collect();
        let scope = Scope { alias: ALIAS.to_owned(), links: [dev()].into(), sysctls, ..Scope::default() };
        Self { reconciler: Reconciler::default(), kernel: FakeKernel::default(), want, scope, removals: true }
    }

    /// One whose kernel is as wanted, with all echoes heard.
    async fn settled(last: u8) -> Self {
        let mut bench = Self::new(last);
        bench.pass().await;
        bench.hear().await;
        bench.pass().await;
        assert!(bench.reconciler.settled());
        bench
    }

    async fn pass(&mut self) -> Vec<Op> {
        let goal = Goal { scope: &self.scope, want: &self.want, removals: self.removals };
        self.reconciler.pass(&self.kernel, goal).await
    }

    async fn hear(&mut self) -> bool {
        let change = self.kernel.changed(&self.scope).await;
        self.reconciler.heard(&change, crate::now())
    }

    fn faults(&self) -> Vec<String> {
        self.reconciler.faults().iter().map(|fault| format!("{}: {}", fault.subject, fault.cause)).collect()
    }

    fn due(&self) -> Option<Duration> {
        let now = crate::now();
        self.reconciler.due(now).map(|at| at.saturating_duration_since(now))
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_makes_the_kernel_as_wanted_links_first() {
    let mut bench = Bench::new(3);
    assert_eq!((bench.reconciler.settled(), bench.due()), (false, Some(Duration::ZERO)));
    let done = bench.pass().await;
    assert_eq!(bench.kernel.net(), bench.want);
    assert!(matches!(done[0], Op::SetLink(..)) && done.len() == 8);
    assert_eq!((bench.reconciler.settled(), bench.reconciler.established()), (true, true));
    assert_eq!((bench.due(), bench.faults()), (None, vec![]));
    let tally = bench.reconciler.tally();
    assert_eq!((tally.passes, tally.operations, tally.refusals), (1, 8, 0));
    assert_eq!(tally.observations, 2, "what was on a link that was written has to be looked at");
}

#[tokio::test(start_paused = true)]
async fn echoes_of_our_own_change_nothing() {
    let mut bench = Bench::settled(3).await;
    bench.want = want(5);
    bench.reconciler.touch_all();
    let (done, observed) = (bench.pass().await, bench.kernel.observed());
    assert_eq!(done.len(), 6);
    assert!(!bench.hear().await, "six echoes");
    assert_eq!((bench.reconciler.settled(), bench.kernel.observed()), (true, observed));
}

#[tokio::test(start_paused = true)]
async fn what_was_touched_is_compared_and_nothing_else() {
    let mut bench = Bench::settled(3).await;
    bench.kernel.alter_silently(|net| net.routes.retain(|route, _| *route != key(2)));
    bench.want = want(4);
    bench.reconciler.touch([Key::Route(key(4))]);
    let done = bench.pass().await;
    assert_eq!(done, [Op::SetRoute(key(4), route(4))]);
    bench.reconciler.touch([]);
    assert_eq!(bench.due(), None);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changed_is_put_right_without_looking_at_the_rest() {
    let mut bench = Bench::settled(4).await;
    let observed = bench.kernel.observed();
    bench.kernel.alter(&Op::DelRoute(key(2), route(2)));
    bench.kernel.alter(&Op::SetNeigh(neigh(3), mac(99)));
    bench.kernel.alter(&Op::SetRoute(key(77), route(77)));
    assert!(bench.hear().await);
    assert_eq!(bench.pass().await.len(), 3);
    assert_eq!((bench.kernel.net(), bench.kernel.observed()), (bench.want.clone(), observed));
}

#[tokio::test(start_paused = true)]
async fn one_failure_stops_nothing_else_and_is_tried_again() {
    let mut bench = Bench::new(6);
    bench.kernel.fail(Failure::Matching("10.5.3.0/24".to_owned()));
    bench.pass().await;
    let missing = diff(&bench.want, &bench.kernel.net());
    assert_eq!(missing, [Op::SetRoute(key(3), route(3))]);
    assert_eq!(bench.faults().len(), 1);
    assert!(bench.faults()[0].contains("10.5.3.0/24") && bench.faults()[0].contains("made to fail"));
    assert_eq!((bench.reconciler.settled(), bench.reconciler.established()), (false, true));
    assert!(bench.due().unwrap() > Duration::ZERO);
    bench.kernel.heal();
    assert_eq!(bench.pass().await, missing);
    assert_eq!((bench.faults(), bench.due()), (vec![], None));
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_tried_ever_more_slowly() {
    let mut bench = Bench::new(3);
    bench.kernel.fail(Failure::Rank(4));
    let mut pauses = Vec::new();
    for _ in 0..10 {
        bench.pass().await;
        pauses.push(bench.due().unwrap());
    }
    assert!(pauses[0] <= Duration::from_millis(100) && pauses[9] >= Duration::from_secs(5), "{pauses:?}");
    bench.reconciler.doubt(crate::now());
    assert_eq!(bench.due(), Some(HURRIED), "something else changed: it does not wait that long");
    bench.reconciler.touch([Key::Route(key(9))]);
    assert_eq!(bench.due(), Some(Duration::ZERO), "something else is wanted");
}

#[tokio::test(start_paused = true)]
async fn a_standing_refusal_puts_no_healing_off_and_its_echoes_hurry_nothing() {
    let mut bench = Bench::settled(4).await;
    bench.want = want(9);
    bench.reconciler.touch_all();
    bench.kernel.fail(Failure::Matching("10.5.9.0/24".to_owned()));
    for _ in 0..10 {
        bench.pass().await;
    }
    assert!(!bench.hear().await, "echoes of what was not refused");
    assert!(bench.due().unwrap() > HURRIED);
    bench.kernel.alter(&Op::DelRoute(key(2), route(2)));
    assert!(bench.hear().await);
    assert_eq!(bench.due(), Some(HURRIED));
    assert_eq!(bench.pass().await, [Op::SetRoute(key(2), route(2))]);
    assert!(!bench.hear().await, "the echo of the repair");
    assert!(bench.due().unwrap() > HURRIED);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_cannot_be_read_is_a_fault() {
    let mut bench = Bench::settled(3).await;
    bench.kernel.blind(1);
    bench.reconciler.doubt(crate::now());
    assert_eq!(bench.pass().await, []);
    assert_eq!(bench.faults(), ["kernel: list links: made to fail"]);
    assert!(!bench.reconciler.established());
    bench.pass().await;
    assert!(bench.reconciler.settled() && bench.reconciler.established());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_written_is_looked_at_again_with_what_was_on_it() {
    let mut bench = Bench::settled(4).await;
    bench.want.links.get_mut(&dev()).unwrap().mac = mac(42);
    bench.reconciler.touch([Key::Link(dev())]);
    let done = bench.pass().await;
    assert!(matches!(done[0], Op::SetLink(..)));
    assert_eq!(done.len(), 4, "the kernel drops the neighbours of a link whose address changes: {done:?}");
    assert_eq!(bench.kernel.net(), bench.want);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_never_settles_is_named_and_let_be() {
    let mut bench = Bench::new(3);
    bench.kernel.clamp_mtu(1400);
    let done = bench.pass().await;
    let written = done.iter().filter(|op| matches!(op, Op::SetLink(..))).count();
    assert_eq!((written, bench.kernel.net().routes.len()), (LINK_ROUNDS, 2), "everything else is done");
    let fault = "flannel.1: does not read back as written after 3 attempts: mtu reads 1400, wanted 1450";
    assert_eq!(bench.faults(), [fault]);
    assert_eq!((bench.due(), bench.reconciler.established()), (None, true));
    bench.reconciler.doubt(crate::now());
    assert_eq!(bench.pass().await, [], "it is not tried again");
    assert_eq!(bench.faults(), [fault]);
    bench.kernel.heal();
    bench.kernel.alter_silently(|net| net.links.get_mut(&dev()).unwrap().mtu = 1300);
    bench.reconciler.doubt(crate::now());
    assert_eq!(bench.pass().await.len(), 1, "it is another link by now");
    assert_eq!((bench.faults(), bench.kernel.net()), (vec![], bench.want.clone()));
}

#[tokio::test(start_paused = true)]
async fn another_wish_for_a_stuck_link_is_tried() {
    let mut bench = Bench::new(3);
    bench.kernel.clamp_mtu(1400);
    bench.pass().await;
    bench.want.links.get_mut(&dev()).unwrap().mtu = 1350;
    bench.reconciler.touch_all();
    assert_eq!(bench.pass().await.len(), 1);
    assert_eq!(bench.kernel.net(), bench.want);
    bench.reconciler.doubt(crate::now());
    bench.pass().await;
    assert_eq!(bench.faults(), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_link_is_no_longer_stuck_once_it_is_wanted_as_it_is() {
    let mut bench = Bench::new(3);
    bench.kernel.clamp_mtu(1400);
    bench.pass().await;
    assert_eq!(bench.faults().len(), 1);
    for (mtu, faults) in [(1400, 0), (1450, 1)] {
        bench.want.links.get_mut(&dev()).unwrap().mtu = mtu;
        bench.reconciler.touch_all();
        bench.pass().await;
        assert_eq!(bench.faults().len(), faults, "{mtu}: {:?}", bench.faults());
    }
    bench.want = NetState::default();
    bench.reconciler.touch_all();
    bench.pass().await;
    assert_eq!(bench.faults(), [] as [&str; 0], "nobody wants it");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_somebody_takes_away_each_time_ends_the_pass_and_is_tried_again() {
    let mut bench = Bench::new(3);
    bench.kernel.lose_links();
    for _ in 0..2 {
        let done = bench.pass().await;
        let written = done.iter().filter(|op| matches!(op, Op::SetLink(..))).count();
        assert_eq!(written, LINK_ROUNDS, "{done:?}");
        let faults = bench.faults();
        assert!(faults.len() == 1 && faults[0].contains("gone after each of 3 attempts"), "{faults:?}");
        assert!(bench.due().unwrap() > Duration::ZERO && !bench.reconciler.established());
    }
    bench.kernel.heal();
    bench.pass().await;
    assert_eq!((bench.kernel.net(), bench.faults()), (bench.want.clone(), vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_does_not_go_up_is_one_fault() {
    let mut bench = Bench::new(50);
    bench.kernel.take_port();
    bench.pass().await;
    assert_eq!(bench.faults().len(), 1, "{:?}", bench.faults());
    assert!(bench.faults()[0].contains("Address already in use"));
    assert!(!bench.reconciler.established());
    bench.kernel.heal();
    bench.pass().await;
    assert_eq!((bench.kernel.net(), bench.faults()), (bench.want.clone(), vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_link_that_cannot_be_made_is_one_fault() {
    let mut bench = Bench::new(50);
    bench.kernel.fail(Failure::Rank(0));
    assert_eq!(bench.pass().await, []);
    assert_eq!(bench.faults().len(), 1, "{:?}", bench.faults());
    assert!(!bench.reconciler.established());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_works_keeps_its_peers_though_a_change_of_it_is_refused() {
    let mut bench = Bench::settled(3).await;
    bench.kernel.fail(Failure::Rank(0));
    bench.want = want(4);
    bench.want.links.get_mut(&dev()).unwrap().mtu = 1400;
    bench.reconciler.touch_all();
    bench.pass().await;
    assert!(bench.kernel.net().routes.contains_key(&key(4)));
    assert_eq!(bench.faults().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_before_it_may() {
    let mut bench = Bench::new(3);
    bench.kernel.alter_silently(|net| *net = want(5));
    bench.removals = false;
    bench.want = want(3);
    assert_eq!(bench.pass().await, []);
    assert_eq!(bench.kernel.net(), want(5));
    bench.removals = true;
    bench.reconciler.touch_all();
    assert_eq!(bench.pass().await.len(), 6);
    assert_eq!(bench.kernel.net(), bench.want);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_route_is_not_replaced_and_said_so() {
    let mut bench = Bench::new(4);
    let foreign = |dst: &str, metric| ForeignRoute {
        dst: dst.parse().unwrap(),
        metric,
        line: format!("{dst} via 192.0.2.254"),
    };
    bench.kernel.set_foreign(vec![
        foreign("10.5.2.0/24", 0),
        foreign("10.5.3.128/25", 0),
        foreign("10.5.4.0/24", 100),
        foreign("10.6.0.0/24", 0),
    ]);
    bench.pass().await;
    let net = bench.kernel.net();
    assert_eq!(net.routes.keys().copied().collect::<Vec<_>>(), [key(3), key(4)]);
    let faults = bench.faults();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("10.5.2.0/24 via") && faults[1].contains("10.5.3.128/25 via"));
    assert!(bench.reconciler.settled(), "there is nothing to try again");
    bench.kernel.set_foreign(Vec::new());
    bench.hear().await;
    assert_eq!(bench.pass().await, [Op::SetRoute(key(2), route(2))]);
    assert_eq!(bench.faults(), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn without_a_belief_nothing_is_taken_for_a_change() {
    let mut bench = Bench::new(3);
    let change = Change::Did(vec![Op::DelRoute(key(2), route(2))]);
    assert!(!bench.reconciler.heard(&change, crate::now()));
    assert!(bench.reconciler.heard(&Change::Unknown("a lost message"), crate::now()));
    bench.pass().await;
    assert_eq!(bench.kernel.net(), bench.want);
}
