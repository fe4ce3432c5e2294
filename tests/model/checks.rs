//! What is tried, and what must be found in protocols that are wrong.

use std::collections::BTreeSet;

use stateright::{Checker, Model};
use twill_backends::lease::{LeaseKey, Subnets};
use twill_backends::network::NetworkConfig;

use crate::fabric::{Budget, ENDS_WELL, FOUNDED, Fabric, SOLE, UNTOUCHED};
use crate::flaws::Flaw;
use crate::host::Host;
use crate::store::Store;

const ONE: &str = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.1.0"}"#;
const TWO: &str = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.2.0"}"#;
/// Two hosts can take its one IPv4 subnet under different keys.
const DUAL: &str = r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.1.0",
    "EnableIPv6":true,"IPv6Network":"fd00:5::/48","IPv6SubnetMin":"fd00:5:0:1::","IPv6SubnetMax":"fd00:5:0:2::"}"#;

/// How many steps are tried in every order, unless `TWILL_MODEL_DEPTH` says so. A step takes a host from one answer of
/// the store to the next, so that a claim is four of them; what is wrong on purpose is found within as many.
const DEPTH: usize = 13;

const QUIET: Budget = Budget {
    timers: 1,
    silences: 0,
    repeats: 0,
    crashes: 0,
    expiries: 0,
    deletions: 0,
    pins: 0,
    resyncs: 0,
    rewinds: 0,
    changes: 0,
    releases: 0,
    flannels: 0,
};

fn fabric(network: &str, hosts: u8, budget: Budget) -> Fabric {
    Fabric {
        network: NetworkConfig::parse(network).unwrap(),
        hosts: (1..=hosts).map(|number| Host::new(number, false)).collect(),
        store: Store::default(),
        budget,
        flaw: Flaw::None,
        fair: false,
    }
}

fn subnets(key: &str) -> Subnets {
    LeaseKey::new(key).subnets().unwrap()
}

/// Of two hosts, the second had a lease of the same IPv4 subnet that the first will take, beside another IPv6 one.
fn race(budget: Budget) -> Fabric {
    let mut race = fabric(DUAL, 2, budget);
    race.hosts[1] = Host::new(2, false).with(subnets("10.5.1.0-24&fd00:5:0:2::-64"));
    race
}

/// A host on which pods use the subnet of its last run.
fn pods(mut fabric: Fabric, host: u8, key: &str) -> Fabric {
    fabric.hosts[usize::from(host) - 1] = Host::new(host, true).with(subnets(key));
    fabric
}

/// Tries everything that can happen in this many steps.
fn holds(fabric: Fabric) {
    let depth = std::env::var("TWILL_MODEL_DEPTH").ok().and_then(|depth| depth.parse().ok()).unwrap_or(DEPTH);
    let checker = fabric.checker().threads(2).target_max_depth(depth).spawn_bfs().join();
    println!("{} states within {depth} steps", checker.unique_state_count());
    if let Some((name, path)) = checker.discoveries().into_iter().next() {
        let state = path.last_state();
        let end = format!("{:?}\n{:?}", state.store.history, state.beliefs());
        let steps: Vec<_> = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
        panic!("not true: {name}\n{}\n{end}", steps.join("\n"));
    }
}

/// Tries until it finds that this is not true.
fn finds(fabric: Fabric, flaw: Flaw, property: &'static str) {
    let fabric = Fabric { flaw, fair: property == ENDS_WELL, ..fabric };
    let found = stateright::HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = fabric.checker().threads(2).finish_when(found).spawn_bfs().join();
    let found = checker.discovery(property).map(|path| path.into_actions().len());
    println!("{flaw:?}: {found:?} steps after {} states", checker.unique_state_count());
    assert!(found.is_some(), "{flaw:?} was not found to break: {property}");
}

#[test]
fn hosts_that_crash_and_writes_that_come_late() {
    holds(fabric(TWO, 2, Budget { silences: 1, crashes: 1, ..QUIET }));
}

#[test]
fn leases_that_expire_while_writes_come_late() {
    holds(fabric(ONE, 2, Budget { silences: 1, expiries: 1, repeats: 1, ..QUIET }));
}

#[test]
fn operators_who_delete_pin_and_release() {
    holds(fabric(ONE, 2, Budget { deletions: 1, pins: 1, releases: 1, resyncs: 1, ..QUIET }));
}

#[test]
fn hosts_that_change_while_replies_are_lost() {
    holds(fabric(TWO, 2, Budget { changes: 1, repeats: 1, ..QUIET }));
    holds(fabric(ONE, 2, Budget { changes: 1, silences: 1, ..QUIET }));
}

#[test]
fn hosts_that_find_another_history_while_writes_come_late() {
    holds(fabric(ONE, 2, Budget { rewinds: 1, changes: 1, expiries: 1, ..QUIET }));
    holds(race(Budget { rewinds: 1, silences: 1, deletions: 1, ..QUIET }));
}

#[test]
fn three_hosts_and_one_subnet() {
    holds(fabric(ONE, 3, Budget { expiries: 1, ..QUIET }));
}

#[test]
fn races_for_half_of_a_dual_stack_lease() {
    holds(race(Budget { silences: 1, crashes: 1, ..QUIET }));
    holds(race(Budget { silences: 1, deletions: 1, resyncs: 1, ..QUIET }));
}

#[test]
fn hosts_with_pods_that_remember_their_leases() {
    holds(pods(fabric(TWO, 2, Budget { crashes: 1, expiries: 1, ..QUIET }), 1, "10.5.1.0-24"));
}

/// Host 1 ran flanneld before, a flanneld elsewhere goes on, and host 2 has a reservation.
#[test]
fn flanneld_and_reservations() {
    let mut fabric = fabric(TWO, 2, Budget { flannels: 1, expiries: 1, crashes: 1, ..QUIET });
    let grant = fabric.store.grant().grant();
    fabric.store.put(&LeaseKey::new("10.5.1.0-24"), fabric.hosts[0].unsigned(), grant);
    fabric.store.put(&LeaseKey::new("10.5.2.0-24"), fabric.hosts[1].unsigned(), None);
    holds(fabric);
}

#[test]
fn a_free_subnet_is_taken_whatever_happened_before() {
    let fair = |fabric| holds(Fabric { fair: true, ..fabric });
    fair(fabric(ONE, 2, Budget { crashes: 1, expiries: 1, ..QUIET }));
    fair(fabric(ONE, 2, Budget { silences: 1, deletions: 1, ..QUIET }));
    fair(fabric(TWO, 1, Budget { crashes: 1, silences: 1, expiries: 1, ..QUIET }));
    fair(race(Budget { crashes: 1, ..QUIET }));
}

#[test]
fn writes_that_do_not_compare_are_found() {
    let budget = Budget { silences: 1, expiries: 1, changes: 1, ..QUIET };
    finds(fabric(ONE, 2, budget), Flaw::RewritesBlindly, UNTOUCHED);
    finds(fabric(ONE, 2, budget), Flaw::CreatesBlindly, UNTOUCHED);
    finds(fabric(ONE, 2, Budget { releases: 1, expiries: 1, ..QUIET }), Flaw::DeletesBlindly, UNTOUCHED);
}

#[test]
fn writes_over_a_lease_of_flanneld_are_found() {
    let budget = Budget { flannels: 1, expiries: 1, changes: 1, ..QUIET };
    finds(fabric(ONE, 1, budget), Flaw::RewritesBlindly, UNTOUCHED);
    finds(fabric(ONE, 1, budget), Flaw::CreatesBlindly, UNTOUCHED);
}

#[test]
fn a_host_that_takes_anothers_write_for_its_own_is_found() {
    finds(fabric(ONE, 2, QUIET), Flaw::TrustsWhatItFinds, FOUNDED);
}

#[test]
fn a_host_that_renews_what_it_lost_is_found() {
    let budget = Budget { expiries: 1, ..QUIET };
    finds(fabric(ONE, 2, budget), Flaw::RenewsWhatIsLost, UNTOUCHED);
}

#[test]
fn a_host_that_goes_on_with_what_came_late_is_found() {
    let budget = Budget { silences: 1, deletions: 1, resyncs: 1, ..QUIET };
    finds(race(budget), Flaw::RenewsWhatCameLate, SOLE);
}

#[test]
fn hosts_that_do_not_yield_are_found() {
    finds(race(QUIET), Flaw::YieldsToNobody, SOLE);
    finds(race(Budget { crashes: 1, ..QUIET }), Flaw::IgnoresWhatIsOlder, SOLE);
}

#[test]
fn a_host_that_gives_up_is_found() {
    finds(fabric(ONE, 1, Budget { expiries: 1, ..QUIET }), Flaw::GivesUp, ENDS_WELL);
}
