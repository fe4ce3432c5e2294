//! What the packet path costs in user space, without system calls: time, throughput, and allocations, which must be
//! none. Sizes are those of the inner frames; the smallest is in truth 66 bytes, TCP with timestamps and no payload
//! (67 where it must have one). Cutting and joining make packets of up to 1,398 bytes of payload.
#![allow(missing_docs, reason = "criterion's macros define undocumented items")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, PacketBuilder, TcpHeader};
use twill_backends::frame::checksum::Sum;
use twill_backends::frame::coalesce::Coalescer;
use twill_backends::frame::parse::Layout;
use twill_backends::frame::path::{Way, admit, way};
use twill_backends::frame::segment::Segments;
use twill_backends::frame::table::{Peer, Permit, Table};
use twill_backends::frame::virtio::{Gso, Header, Partial};
use twill_backends::frame::vxlan::{self, Vxlan};
use twill_backends::mac::Mac;

const SIZES: [usize; 5] = [64, 512, 1400, 9000, 65_549];
const PEERS: [u32; 3] = [10, 1000, 10_000];
/// Of a path of 1,500 bytes: without outer headers, inner IP, and TCP with timestamps.
const PAYLOAD: u16 = 1398;
/// Ethernet, IPv4, TCP with timestamps.
const HEADERS: usize = 14 + 20 + 32;
const NET: Vxlan = Vxlan::new(1, false);
const PARTIAL: Partial = Partial { start: 34, offset: 16 };

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted.
struct Counting;

#[allow(unsafe_code, reason = "only an allocator sees every allocation")]
// SAFETY: every call is passed on unchanged to the system's allocator, whose contract is this one's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        // SAFETY: `at` came from `alloc` or `realloc` above, so from the system's allocator.
        unsafe { System.dealloc(at, memory) }
    }

    unsafe fn realloc(&self, at: *mut u8, memory: Memory, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: `at` came from `alloc` or `realloc` above, so from the system's allocator.
        unsafe { System.realloc(at, memory, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Asserts that `work`, once warm, allocates nothing.
fn allocates_nothing<T>(what: &str, mut work: impl FnMut() -> T) {
    black_box(work());
    let before = ALLOCATIONS.load(Relaxed);
    for _ in 0..1000 {
        black_box(work());
    }
    assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0, "{what}: allocations in 1000 calls");
}

fn peer(n: u32) -> Peer {
    let [_, _, a, b] = n.to_be_bytes();
    Peer {
        mac: Some(Mac([2, 0x5f, a ^ 0x35, b, a, b ^ 0x91])),
        addr: IpAddr::V4(Ipv4Addr::from(0xac10_0000 + n)),
        subnet: format!("10.{a}.{b}.0/24").parse().unwrap(),
        mtu: 1450,
    }
}

/// A TCP segment to and from peer 7.
fn tcp(seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut ip = Ipv4Header::new(0, 64, IpNumber::TCP, [10, 0, 7, 2], [10, 0, 7, 3]).unwrap();
    ip.dont_fragment = true;
    ip.identification = (seq / u32::from(PAYLOAD)) as u16;
    let mut tcp = TcpHeader::new(40_000, 5201, seq, 502);
    tcp.ack = true;
    tcp.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
    let mut out = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], peer(7).mac.unwrap().0)
        .ip(IpHeaders::Ipv4(ip, Default::default()))
        .tcp_header(tcp)
        .write(&mut out, payload)
        .unwrap();
    out
}

fn frame(size: usize) -> Vec<u8> {
    let frame = tcp(0, &vec![0x5a; size.saturating_sub(HEADERS)]);
    assert_eq!(frame.len(), size.max(HEADERS));
    frame
}

/// From the TAP to what `sendmsg` is given; returns the bytes to send.
fn send(table: &Table, virtio: &Header, frame: &mut [u8], arena: &mut [u8]) -> usize {
    let Ok(Way::To(peer, layout)) = way(table, frame) else { panic!("no way") };
    let mut segments = Segments::new(frame, &layout, virtio, NET.header()).unwrap();
    // What is too large is for the caller to say; that it is asked belongs to the cost.
    black_box(segments.packet_len(&layout) > peer.mtu as usize);
    let mut bytes = 0;
    while let Some(chunk) = segments.next_chunk(frame, arena) {
        bytes += chunk.bytes();
    }
    bytes
}

fn out(c: &mut Criterion) {
    let table = Table::new((0..1000).map(peer));
    let mut arena = vec![0; 16 * 1024];
    let cut =
        Header { partial: Some(PARTIAL), gso: Some((Gso::TcpV4 { ecn: false }, PAYLOAD)), ..Header::PLAIN };
    let partial = Header { partial: Some(PARTIAL), ..Header::PLAIN };
    for (name, virtio) in [("encapsulate", Header::PLAIN), ("encapsulate and sum", partial), ("segment", cut)]
    {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let mut frame = frame(size);
            let packets = virtio.gso.map_or(1, |_| (frame.len() - HEADERS).div_ceil(PAYLOAD.into()).max(1));
            let headers = if virtio.gso.is_some() { HEADERS } else { 0 };
            let want = frame.len() - headers + packets * (headers + vxlan::LEN);
            let mut work = || send(&table, &virtio, black_box(&mut frame), &mut arena);
            assert_eq!(work(), want);
            allocates_nothing(name, &mut work);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(&mut work));
        }
        group.finish();
    }
}

fn decapsulate(c: &mut Criterion) {
    let table = Table::new((0..1000).map(peer));
    let mut group = c.benchmark_group("decapsulate");
    for size in SIZES {
        let datagram = [&NET.header()[..], &frame(size)].concat();
        let from = peer(7).addr;
        let mut work = || admit(&table, NET, true, from, black_box(&datagram)).unwrap().1.len();
        assert_eq!(work(), size.max(HEADERS));
        allocates_nothing("decapsulate", &mut work);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(&mut work));
    }
    group.finish();
}

/// One frame of `size` as it comes from the wire, in one buffer.
fn received(size: usize) -> (Vec<u8>, Vec<Range<usize>>) {
    let payload = vec![0x5a; size.saturating_sub(HEADERS).max(1)];
    let (mut slab, mut ranges) = (Vec::new(), Vec::new());
    for (chunk, seq) in payload.chunks(PAYLOAD.into()).zip((0_u32..).step_by(PAYLOAD.into())) {
        slab.extend_from_slice(&NET.header());
        let frame = tcp(seq, chunk);
        ranges.push(slab.len()..slab.len() + frame.len());
        slab.extend(frame);
    }
    (slab, ranges)
}

fn coalesce(c: &mut Criterion) {
    let mut group = c.benchmark_group("coalesce");
    for size in SIZES {
        let (wire, ranges) = received(size);
        let mut slab = wire.clone();
        let mut coalescer = Coalescer::new(64, true);
        let mut work = || {
            // Joining rewrites the headers of the first packet.
            slab[..HEADERS + vxlan::LEN].copy_from_slice(&wire[..HEADERS + vxlan::LEN]);
            coalescer.clear();
            for range in &ranges {
                let layout = Layout::of(&slab[range.clone()]).unwrap();
                coalescer.push(&slab, range.clone(), &layout);
            }
            coalescer.finish(&mut slab);
            let [unit] = coalescer.units() else { panic!("one frame") };
            unit.head().len() + coalescer.tail(unit).map(|range| range.len()).sum::<usize>()
        };
        assert_eq!(work(), size.max(HEADERS + 1));
        allocates_nothing("coalesce", &mut work);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(&mut work));
    }
    group.finish();
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    group.throughput(Throughput::Elements(1));
    for size in PEERS {
        let peers: Vec<Peer> = (0..size).map(peer).collect();
        let table = Table::new(peers.clone());
        // A step that is prime to each size visits all peers in an order that no cache foresees.
        let order = || (0..peers.len()).map(|n| peers[n * 7919 % peers.len()]);
        let macs: Vec<[u8; 6]> = order().map(|peer| peer.mac.unwrap().0).collect();
        let addrs: Vec<IpAddr> = order().map(|peer| peer.addr).collect();
        let (mut macs, mut addrs) = (macs.iter().cycle(), addrs.iter().cycle());
        let mut forward = || table.at(*black_box(macs.next().unwrap())).unwrap().addr;
        allocates_nothing("forward", &mut forward);
        group.bench_function(BenchmarkId::new("forward", size), |b| b.iter(&mut forward));
        let mut reverse = || table.permits(*black_box(addrs.next().unwrap()), None);
        assert!(matches!(reverse(), Permit::Peer(_)));
        allocates_nothing("reverse", &mut reverse);
        group.bench_function(BenchmarkId::new("reverse", size), |b| b.iter(&mut reverse));
    }
    group.finish();
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for size in SIZES {
        let bytes = frame(size);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| Sum::ZERO.bytes(black_box(&bytes)).fold());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = out, decapsulate, coalesce, lookup, checksum
}
criterion_main!(benches);
