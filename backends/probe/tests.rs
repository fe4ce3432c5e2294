//! Probers against each other, on a network of the test's making and a clock that jumps.

use std::time::{Duration, Instant};

use super::echo::Seen;
use super::purse::BURST;
use super::*;

/// How long a packet is under way.
const LATENCY: Duration = Duration::from_millis(2);
const STEP: Duration = Duration::from_millis(5);

/// What happens to a packet.
type Fate = Box<dyn Fn(&Packet) -> bool>;

/// A packet under way.
struct Packet {
    at: Instant,
    from: usize,
    way: Way,
    size: u32,
    echo: Echo,
}

/// Two hosts.
struct Net {
    now: Instant,
    hosts: [Prober; 2],
    /// The number that each gave the other.
    numbers: [Number; 2],
    /// Whether each host's agent runs.
    alive: [bool; 2],
    flying: Vec<Packet>,
    /// Whether a packet is lost.
    lost: Fate,
    /// The ways on which ICMP echoes are answered.
    pings: Vec<Way>,
    sent: usize,
}

fn id(host: usize) -> LineId {
    (LeaseKey::new(format!("10.5.{}.0-24", host + 1)), Family::V4)
}

fn course(host: usize) -> Course {
    let host = u8::try_from(host + 1).unwrap();
    Course {
        overlay: Some([10, 5, host, 0].into()),
        underlay: [192, 0, 2, host].into(),
        port: 8475,
        mtu: 1450,
        overhead: 50,
        known: None,
    }
}

impl Net {
    fn new() -> Self {
        Self::of([course(0), course(1)])
    }

    fn of(courses: [Course; 2]) -> Self {
        let now = Instant::now();
        let mut hosts = [0, 1].map(|_| Prober::new(u32::MAX - 50, now));
        let numbers = [0, 1].map(|host: usize| {
            let peer = 1 - host;
            hosts[host].settled(true);
            hosts[host].follow(&id(peer), Some(courses[peer]), now).unwrap()
        });
        let lost = Box::new(|_: &Packet| false);
        Self { now, hosts, numbers, alive: [true; 2], flying: Vec::new(), lost, pings: Vec::new(), sent: 0 }
    }

    fn loses(&mut self, lost: impl Fn(&Packet) -> bool + 'static) {
        self.lost = Box::new(lost);
    }

    fn put(&mut self, from: usize, out: Outgoing) {
        assert_eq!((out.line, out.to.port()), (self.numbers[from], 8475));
        self.sent += 1;
        if out.ping && self.pings.contains(&out.echo.way) {
            self.hosts[from].echoed(out.to.ip(), self.now);
        }
        let packet =
            Packet { at: self.now + LATENCY, from, way: out.echo.way, size: out.size, echo: out.echo };
        if !(self.lost)(&packet) {
            self.flying.push(packet);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for from in 0..2 {
                if self.alive[from] {
                    let out = self.hosts[from].requests(self.now);
                    out.into_iter().for_each(|out| self.put(from, out));
                    self.hosts[from].decide();
                }
            }
            let now = self.now;
            for packet in self.flying.extract_if(.., |packet| packet.at <= now).collect::<Vec<_>>() {
                let to = 1 - packet.from;
                if self.alive[to] {
                    let answer = self.hosts[to].hear(self.numbers[to], &packet.echo, packet.size, now);
                    answer.into_iter().for_each(|out| self.put(to, out));
                } else {
                    let addr = course(to);
                    let addr = if packet.way == Way::Overlay { addr.overlay.unwrap() } else { addr.underlay };
                    self.hosts[packet.from].refused(addr, now);
                }
            }
        }
    }

    fn finding(&mut self, host: usize) -> Finding {
        self.hosts[host].findings(self.now).next().unwrap().1
    }

    fn verdicts(&mut self) -> [Verdict; 2] {
        [0, 1].map(|host| self.finding(host).verdict)
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn peers_that_reach_each_other_are_well_and_know_how_far() {
    let mut net = Net::new();
    assert_eq!(net.verdicts(), [Verdict::Unknown; 2]);
    net.run(seconds(5));
    assert_eq!(net.verdicts(), [Verdict::Ok; 2]);
    for host in 0..2 {
        let finding = net.finding(host);
        assert_eq!((finding.limit, finding.ways.len()), (None, 2));
        for way in finding.ways {
            let mtu = if way.way == Way::Overlay { 1450 } else { 1500 };
            assert_eq!((way.loss, way.loss_there, way.mtu), (Some(0.0), Some(0.0), Some(mtu)), "{way:?}");
            assert!(way.p50.unwrap() >= LATENCY * 2 && way.p99.unwrap() < STEP * 4, "{way:?}");
        }
    }
}

#[test]
fn each_fault_of_the_network_is_told_within_four_seconds_and_so_is_its_end() {
    let faults: Vec<(Fate, [Verdict; 2])> = vec![
        (Box::new(|packet| packet.way == Way::Overlay), [Verdict::PortEaten; 2]),
        (Box::new(|packet| packet.way == Way::Underlay), [Verdict::UnderlayDown; 2]),
        (Box::new(|_| true), [Verdict::PeerDown; 2]),
        (Box::new(|packet| packet.from == 0), [Verdict::OneWay, Verdict::PeerDown]),
        (Box::new(|packet| packet.from == 1), [Verdict::PeerDown, Verdict::OneWay]),
        (Box::new(|packet| packet.from == 0 && packet.way == Way::Overlay), [Verdict::PortEaten; 2]),
    ];
    let mut net = Net::new();
    net.run(seconds(5));
    for (lost, verdicts) in faults {
        net.lost = lost;
        net.run(seconds(4));
        assert_eq!(net.verdicts(), verdicts);
        net.loses(|_| false);
        net.run(seconds(4));
        assert_eq!(net.verdicts(), [Verdict::Ok; 2], "after {verdicts:?}");
        assert_eq!(net.finding(0).limit, None, "a fault says nothing of the size");
    }
}

#[test]
fn a_verdict_is_told_with_how_long_it_has_held() {
    let mut net = Net::new();
    net.run(seconds(5));
    assert_eq!((net.finding(0).verdict, net.finding(0).since), (Verdict::Ok, Duration::ZERO));
    net.run(seconds(7));
    assert_eq!((net.finding(0).verdict, net.finding(0).since), (Verdict::Ok, seconds(7)));
    net.loses(|_| true);
    net.run(seconds(10));
    assert_eq!((net.finding(0).verdict, net.finding(0).since), (Verdict::PeerDown, Duration::ZERO));
    net.run(seconds(3));
    assert_eq!(net.finding(0).since, seconds(3));
}

#[test]
fn the_direction_that_is_eaten_is_told_by_both() {
    let mut net = Net::new();
    net.run(seconds(5));
    net.loses(|packet| packet.from == 0 && packet.way == Way::Overlay);
    net.run(seconds(10));
    assert!(net.finding(0).cause.contains("this host sends"), "{}", net.finding(0).cause);
    assert!(net.finding(1).cause.contains("port here"), "{}", net.finding(1).cause);
    let mut there = |host: usize| net.finding(host).ways[0].loss_there.unwrap();
    assert!(there(0) > 0.1 && there(1) < 0.1, "{} {}", there(0), there(1));
}

#[test]
fn a_peer_that_is_met_anew_takes_what_came_before_for_anothers() {
    let mut net = Net::new();
    net.run(seconds(60));
    net.hosts[0].follow(&id(1), None, net.now);
    net.numbers[0] = net.hosts[0].follow(&id(1), Some(course(1)), net.now).unwrap();
    net.run(seconds(5));
    net.loses(|packet| packet.from == 1 && packet.way == Way::Overlay);
    net.run(seconds(10));
    let there = net.finding(0).ways[0].loss_there.unwrap();
    assert!(there < 0.1, "{there}");
}

#[test]
fn an_agent_that_ended_is_told_from_a_host_that_did() {
    let mut net = Net::new();
    net.run(seconds(5));
    net.alive[1] = false;
    net.run(seconds(10));
    assert_eq!(net.finding(0).verdict, Verdict::AgentDown);
    net.loses(|_| true);
    net.run(seconds(10));
    assert_eq!(net.finding(0).verdict, Verdict::PeerDown);
    net.loses(|_| false);
    net.alive[1] = true;
    net.run(seconds(10));
    assert_eq!(net.finding(0).verdict, Verdict::Ok);
}

/// It hangs, or a firewall drops its probes: nobody says that nobody listens.
#[test]
fn an_agent_that_does_not_answer_is_told_from_a_host_that_is_down() {
    let mut net = Net::new();
    net.run(seconds(5));
    net.loses(|_| true);
    for (pings, verdict) in [
        (vec![Way::Overlay, Way::Underlay], Verdict::AgentDown),
        (vec![Way::Overlay], Verdict::AgentDown),
        (vec![Way::Underlay], Verdict::OverlayDown),
        (vec![], Verdict::PeerDown),
    ] {
        net.pings = pings;
        net.run(seconds(10));
        assert_eq!(net.verdicts(), [verdict; 2], "{:?}", net.pings);
    }
    // A kernel that answered when it failed before says nothing of a failure soon after.
    net.pings = vec![Way::Overlay];
    net.run(seconds(5));
    net.loses(|_| false);
    net.run(seconds(1));
    net.pings.clear();
    net.loses(|_| true);
    net.run(seconds(3));
    assert_eq!(net.verdicts(), [Verdict::PeerDown; 2]);
    net.pings = vec![Way::Overlay];
    net.loses(|packet| packet.from == 0);
    net.run(seconds(10));
    let finding = net.finding(0);
    assert_eq!((finding.verdict, finding.cause.contains("a firewall there")), (Verdict::AgentDown, true));
}

/// All sizes are lost alike, so that nothing is learnt of any.
#[test]
fn a_path_that_stalls_is_neither_narrow_nor_down() {
    for stall in [100, 300, 500] {
        let mut net = Net::new();
        let start = net.now;
        net.loses(move |packet| (packet.at - start).as_millis() % 1_700 < stall);
        net.run(seconds(5));
        for second in 0..120 {
            net.run(seconds(1));
            let findings = [0, 1].map(|host| net.finding(host));
            let told = findings.map(|finding| (finding.verdict, finding.limit));
            assert_eq!(told, [(Verdict::Ok, None); 2], "{stall} ms, after {second} s");
        }
    }
}

#[test]
fn a_host_that_is_not_as_it_should_be_is_blamed_first() {
    let mut net = Net::new();
    net.run(seconds(5));
    net.loses(|packet| packet.way == Way::Overlay);
    net.hosts[1].settled(false);
    net.run(seconds(10));
    assert_eq!(net.verdicts(), [Verdict::OverlayDown; 2]);
    assert!(net.finding(0).cause.contains("its host") && net.finding(1).cause.contains("this host"));
}

/// Whole packets, in pieces or not at all, through the tunnel and beside it.
#[test]
fn a_narrower_path_is_agreed_on_and_followed_both_ways() {
    for pieces in [false, true] {
        let mut net = Net::new();
        net.run(seconds(5));
        for mtu in [1400, 1300, 1500] {
            // One direction alone is narrow.
            let size = move |packet: &Packet| match packet.way {
                Way::Overlay if pieces => 0,
                Way::Overlay => packet.size + 50,
                Way::Underlay => packet.size,
            };
            net.loses(move |packet| packet.from == 1 && size(packet) > mtu);
            net.run(seconds(40));
            let limit = Some(mtu - 50).filter(|mtu| *mtu < 1450);
            assert_eq!([0, 1].map(|host| net.finding(host).limit), [limit; 2], "{mtu}, in pieces: {pieces}");
            assert_eq!(net.verdicts(), [Verdict::Ok; 2]);
        }
    }
}

#[test]
fn what_was_known_holds_from_the_start_and_while_nothing_passes() {
    let narrow = |host| Course { known: Some(1300), ..course(host) };
    let mut net = Net::of([narrow(0), narrow(1)]);
    assert_eq!(net.finding(0).limit, Some(1300));
    net.loses(|_| true);
    net.run(seconds(30));
    assert_eq!(net.finding(0).limit, Some(1300));
    net.loses(|_| false);
    net.run(seconds(60));
    assert_eq!(net.finding(0).limit, None);
}

#[test]
fn a_peer_that_is_gone_is_forgotten() {
    let mut net = Net::of([0, 1].map(|host| Course { known: Some(1300), ..course(host) }));
    let now = net.now;
    assert_eq!(net.hosts[0].limits().count(), 1);
    net.hosts[0].follow(&id(1), None, now);
    assert_eq!((net.hosts[0].limits().count(), net.hosts[0].due(now)), (0, None));
    assert_eq!(net.hosts[0].hear(net.numbers[0], &echo(), 84, now), None);
}

fn echo() -> Echo {
    Echo { answer: false, way: Way::Overlay, settled: true, seq: 1, mtu: None, seen: [Seen::default(); 2] }
}

/// A prober of many peers, each with its answers.
struct Many {
    now: Instant,
    prober: Prober,
    numbers: Vec<Number>,
    /// How often it was asked for requests.
    wakes: usize,
}

impl Many {
    fn new(peers: u16) -> Self {
        let now = Instant::now();
        let mut prober = Prober::new(7, now);
        prober.settled(true);
        let follow = |n: u16| {
            let [a, b] = n.to_be_bytes();
            let course =
                Course { underlay: [192, 0, a, b].into(), overlay: Some([10, a, b, 0].into()), ..course(0) };
            prober.follow(&Self::id(n), Some(course), now).unwrap()
        };
        let numbers = (0..peers).map(follow).collect();
        Self { now, prober, numbers, wakes: 0 }
    }

    fn id(n: u16) -> LineId {
        let [a, b] = n.to_be_bytes();
        (LeaseKey::new(format!("10.{a}.{b}.0-24")), Family::V4)
    }

    /// Lets time pass, and says what was sent. Requests are answered at once if they are to be.
    fn run(&mut self, time: Duration, answered: impl Fn(&Outgoing) -> bool) -> Vec<(Number, Way)> {
        let (mut sent, end) = (Vec::new(), self.now + time);
        while self.now < end {
            self.now = self.prober.due(self.now).unwrap().max(self.now + Duration::from_millis(1));
            self.wakes += 1;
            for out in self.prober.requests(self.now) {
                sent.push((out.line, out.echo.way));
                if answered(&out) {
                    let echo = Echo { answer: true, ..out.echo };
                    self.prober.hear(out.line, &echo, out.size, self.now);
                }
            }
        }
        sent
    }
}

/// As often as it is meant to be, with sizes looked at as well.
#[test]
fn each_of_many_has_its_turn_in_time_and_a_narrower_path_is_found() {
    let mut many = Many::new(500);
    many.run(seconds(60), |_| true);
    let (pace, time, narrow) = (many.prober.pace(), seconds(300), many.numbers[77]);
    let sent = many.run(time, |out| out.line != narrow || out.size < 1_400);
    let turns = |n: usize| sent.iter().filter(|sent| **sent == (many.numbers[n], Way::Overlay)).count();
    let due = (time.as_secs_f64() / pace.as_secs_f64()) as usize;
    assert!((due - 3..=due + 3).contains(&turns(8)), "{} of {due}", turns(8));
    many.prober.decide();
    let limits: Vec<_> = many.prober.limits().map(|(id, mtu)| (id.clone(), mtu)).collect();
    // Of the underlay's packets as many bytes are the tunnel's.
    assert_eq!(limits, [(Many::id(77), 1_349)]);
}

/// What can wait does, so that several go at once, and what tells of a fault does not.
#[test]
fn turns_go_together_while_all_is_well_and_a_silent_peer_is_asked_as_quickly_as_of_few() {
    let mut many = Many::new(1_000);
    many.run(seconds(300), |_| true);
    many.wakes = 0;
    let sent = many.run(seconds(60), |_| true).len();
    assert!(many.wakes * 3 <= sent && sent <= many.wakes * 8, "woke up {} times to send {sent}", many.wakes);
    let silent = many.numbers[77];
    let mut asked: Vec<(Instant, Way)> = Vec::new();
    while asked.first().is_none_or(|(first, _)| many.now < *first + seconds(2)) {
        let sent = many.run(Duration::from_millis(1), |out| out.line != silent);
        asked.extend(sent.iter().filter(|(line, _)| *line == silent).map(|(_, way)| (many.now, *way)));
    }
    // The first is given up after 300 ms. The other way is asked at once then, and each again every 200 ms.
    let (first, way) = asked[0];
    let other = asked.iter().find(|(_, other)| *other != way).unwrap().0;
    assert!(other <= first + Duration::from_millis(305), "{:?}", other - first);
    let times = |way| asked.iter().filter(|(_, asked)| *asked == way).count();
    assert!(times(Way::Overlay).min(times(Way::Underlay)) >= 7, "{asked:?}");
}

/// Which way fails is said once both were asked, though one is asked seldom.
#[test]
fn one_of_many_that_is_silent_is_not_named_before_both_ways_were_asked() {
    let mut many = Many::new(500);
    assert!(many.prober.pace() > seconds(25));
    many.run(seconds(60), |_| true);
    let (silent, number) = (Many::id(77), many.numbers[77]);
    let mut told = Vec::new();
    for _ in 0..800 {
        many.run(Duration::from_millis(100), |out| out.line != number);
        let (_, finding) = many.prober.findings(many.now).find(|(line, _)| **line == silent).unwrap();
        told.push(finding.verdict);
    }
    told.dedup();
    let rest = told.strip_prefix(&[Verdict::Ok]).unwrap();
    assert_eq!(rest.strip_prefix(&[Verdict::Unknown]).unwrap_or(rest), [Verdict::PeerDown]);
}

/// Those that carry packets have their turn more often, and all together cost no more.
#[test]
fn peers_that_carry_packets_are_asked_every_two_seconds() {
    let mut many = Many::new(1_000);
    many.run(seconds(300), |_| true);
    let busy: Vec<LineId> = [7, 500, 999].map(Many::id).into();
    let used = |many: &Many, ago: u64| busy.iter().map(|id| (id.clone(), many.now - seconds(ago))).collect();
    // A frame that may have been a probe says nothing.
    many.prober.carry(&used(&many, 90), many.now);
    assert_eq!(many.prober.busy, 0);
    let turns = |many: &mut Many| {
        let sent = many.run(seconds(60), |_| true);
        assert!(sent.len() <= (60 * PER_SECOND + BURST) as usize + 1, "{} sent", sent.len());
        let turns = |n: usize| sent.iter().filter(|sent| **sent == (many.numbers[n], Way::Overlay)).count();
        ([7, 500, 999].map(turns).into_iter().min().unwrap(), turns(8))
    };
    many.prober.carry(&used(&many, 0), many.now);
    assert_eq!(many.prober.busy, 3);
    let (often, seldom) = turns(&mut many);
    assert!(often >= 20 && (1..=4).contains(&seldom), "{often} {seldom}");
    for _ in 0..3 {
        many.run(seconds(10), |_| true);
        let later = many.now + seconds(1);
        many.prober.carry(&BTreeMap::new(), later);
    }
    assert_eq!(many.prober.busy, 0);
    assert!(turns(&mut many).0 <= 4);
    many.prober.carry(&used(&many, 0), many.now);
    many.prober.follow(&busy[0], None, many.now);
    assert_eq!(many.prober.busy, 2, "one that is gone carries nothing");
}

/// Whatever becomes of the packets: no more than that is sent, and every peer has its turn.
#[test]
fn a_thousand_peers_cost_no_more_than_was_promised() {
    for answered in [true, false] {
        let mut many = Many::new(1_000);
        let sent = many.run(seconds(120), |_| answered);
        assert!(sent.len() <= (120 * PER_SECOND + BURST) as usize + 1, "{} sent", sent.len());
        assert!(many.wakes <= sent.len() / 3, "woke up {} times to send {}", many.wakes, sent.len());
        let mut turns = BTreeMap::new();
        sent.into_iter().for_each(|turn| *turns.entry(turn).or_insert(0) += 1);
        assert_eq!(turns.len(), 2_000, "every way had its turn");
        if answered {
            let least = turns.iter().filter(|((_, way), _)| *way == Way::Overlay).map(|(_, n)| *n).min();
            assert!(least >= Some(3), "{least:?}");
        }
    }
}
