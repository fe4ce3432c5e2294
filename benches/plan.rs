//! What it costs to plan and to compare: all peers, and one peer of many.
#![allow(missing_docs, reason = "criterion's macros define undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use twill_backends::backend::from_config;
use twill_backends::diff::{diff, diff_keys};
use twill_backends::family::PerFamily;
use twill_backends::host::{Address, Host, Own, Policy};
use twill_backends::lease::{Lease, LeaseKey};
use twill_backends::leases::{LeaseEvent, Leases};
use twill_backends::mac::Mac;
use twill_backends::network::NetworkConfig;
use twill_backends::plan::Plan;
use twill_backends::state::{Datapath, NetState};

const SIZES: [u32; 4] = [100, 1000, 5000, 20_000];

/// The lease of host `n`, read from what flanneld would write.
fn lease(n: u32, last_octet: u8) -> Lease {
    let (a, b) = (n >> 8, n & 255);
    let key = format!("10.{a}.{b}.0-24");
    let value = format!(
        r#"{{"PublicIP":"172.16.{a}.{b}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:{a:02x}:{b:02x}:{last_octet:02x}"}}}}"#
    );
    Lease::decode(&key, value.as_bytes()).unwrap()
}

fn plan() -> Plan {
    let network =
        NetworkConfig::parse(r#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#)
            .unwrap();
    let address = Address { local: [172, 16, 0, 0].into(), public: [172, 16, 0, 0].into() };
    let host = Host {
        instance: "bench".to_owned(),
        iface: "eth0".try_into().unwrap(),
        mtu: 1500,
        addrs: PerFamily { v4: Some(address), v6: None },
        on_link: vec!["172.16.0.0/12".parse().unwrap()],
        checksums: PerFamily::NONE,
        macs: PerFamily { v4: Some(Mac([2, 0, 0, 0, 0, 0])), v6: None },
        datapath: Datapath::Kernel,
    };
    let key = LeaseKey::new("10.0.0.0-24");
    let subnets = key.subnets().unwrap();
    let own = Own { key, subnets, network: network.clone(), former: Vec::new(), policy: Policy::default() };
    Plan::new(from_config(&network).unwrap(), host, own)
}

/// `peers` other hosts and this one.
fn fabric(peers: u32) -> (Leases, Plan) {
    let mut leases = Leases::new(Duration::from_secs(300));
    let all = (0..=peers).map(|n| lease(n, 0)).collect();
    leases.apply(LeaseEvent::Snapshot { leases: all, faults: Vec::new() }, Instant::now());
    let mut plan = plan();
    plan.reset(&leases);
    assert_eq!((plan.peers(), plan.faults().count()), (usize::try_from(peers).unwrap(), 0));
    (leases, plan)
}

fn all_peers(c: &mut Criterion) {
    let mut group = c.benchmark_group("all peers");
    for size in SIZES {
        group.throughput(Throughput::Elements(size.into()));
        let (leases, planned) = fabric(size);
        group.bench_function(BenchmarkId::new("plan", size), |b| {
            b.iter_batched_ref(plan, |plan| plan.reset(&leases), BatchSize::LargeInput);
        });
        group.bench_function(BenchmarkId::new("diff against nothing", size), |b| {
            b.iter(|| diff(black_box(planned.want()), &NetState::default()));
        });
        let have = planned.want().clone();
        assert!(diff(planned.want(), &have).is_empty());
        group.bench_function(BenchmarkId::new("diff of equals", size), |b| {
            b.iter(|| diff(black_box(planned.want()), &have));
        });
    }
    group.finish();
}

/// One host's tunnel address changes to and fro: event, plan, comparison.
fn one_peer(c: &mut Criterion) {
    let mut group = c.benchmark_group("one peer");
    for size in SIZES {
        let (mut leases, mut plan) = fabric(size);
        let mut have = plan.want().clone();
        let versions = [lease(size / 2, 1), lease(size / 2, 0)];
        let now = Instant::now();
        let mut turn = versions.iter().cycle();
        group.bench_function(BenchmarkId::new("event, plan, diff", size), |b| {
            b.iter(|| {
                let lease = turn.next().unwrap().clone();
                let changed: BTreeSet<LeaseKey> = leases.apply(LeaseEvent::Put(lease), now);
                let touched = plan.update(&leases, &changed);
                let ops = diff_keys(plan.want(), &have, &touched);
                assert_eq!(ops.len(), 3);
                ops.iter().for_each(|op| have.apply(op));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, all_peers, one_peer);
criterion_main!(benches);
