//! What other hosts' probes say of the rest: their rows of the fabric, as far as they were heard.
//!
//! # How much is kept
//! Whoever sends 8 entries with each probe could fill any memory in a fabric of thousands. So among more than [`FULL`]
//! hosts only what fails is kept, of each host at most 64 entries, and 8,192 of all together; how many peers
//! of a host fail is known all the same. That is some 2 MiB at 10,000 hosts.
//!
//! # When it ends
//! An entry of a peer that fails is over when a probe has all that fail, and not this one. Where they are too many for one
//! probe, entries are dropped that did not come again though they had their turn. A row of which nothing more is heard is
//! told with its age, and then dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::row::{ENTRIES, Part, SPARED, Said, Short};
use crate::lease::LeaseKey;

/// Up to how many hosts, this one included, all of every row is kept.
pub const FULL: usize = 64;
/// How many entries are kept, of one host and of all.
const PER_ROW: usize = 64;
const CELLS: usize = 8192;
/// For how many of its probes an entry is good without being repeated: requests and answers, on both ways and in both
/// families, each have rounds of their own.
const ROUNDS: usize = 8;
/// How old a row is told without its age, and how old it may get: so long, and so many times between two probes.
const FRESH: (Duration, u32) = (Duration::from_secs(5), 3);
const OLD: (Duration, u32) = (Duration::from_secs(60), 10);

/// What other hosts say of the rest.
#[derive(Debug, Default)]
pub struct Hearsay {
    rows: BTreeMap<Short, Heard>,
    cells: usize,
    /// Whether only what fails is kept.
    many: bool,
}

/// What was heard of one.
#[derive(Debug)]
struct Heard {
    at: Instant,
    /// How many of its probes were heard.
    parts: u32,
    failing: u16,
    cells: BTreeMap<Short, Cell>,
}

#[derive(Debug)]
struct Cell {
    said: Said,
    /// Which of its probes said so last.
    part: u32,
}

/// The fabric, row by row: what each host says of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// What this host is called.
    pub own: Short,
    /// The other hosts that answer probes; of those that cannot be told apart, nothing is known.
    pub hosts: BTreeMap<LeaseKey, Short>,
    /// Whether all that is said is here, and not only what fails.
    pub full: bool,
    /// The rows of those who were heard.
    pub rows: BTreeMap<Short, Telling>,
}

/// The row of another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// How old it is, where it is older than usual.
    pub age: Option<Duration>,
    /// How many of its peers fail.
    pub failing: u16,
    /// What it says of others.
    pub cells: Vec<(Short, Said)>,
}

impl Heard {
    /// Drops what was not repeated though it has had its turn.
    fn tidy(&mut self) {
        let good = |peers: usize, room: usize| ROUNDS * (peers.div_ceil(room) + 1);
        let good = [good(FULL, SPARED), good(self.failing.into(), ENTRIES - SPARED)];
        let age = |cell: &Cell| self.parts.wrapping_sub(cell.part) as usize;
        self.cells.retain(|_, cell| age(cell) <= good[usize::from(cell.said.fails())]);
    }
}

impl Hearsay {
    /// There are so many hosts, this one included.
    pub fn among(&mut self, hosts: usize) {
        let many = hosts > FULL;
        if many && !self.many {
            let all = self.rows.values_mut();
            all.for_each(|heard| heard.cells.retain(|_, cell| cell.said.fails()));
            self.cells = self.rows.values().map(|heard| heard.cells.len()).sum();
        }
        self.many = many;
    }

    /// A probe of a host came, whose tag was right.
    pub fn hear(&mut self, from: Short, part: &Part, now: Instant) {
        let heard = self.rows.entry(from).or_insert_with(|| Heard {
            at: now,
            parts: 0,
            failing: 0,
            cells: BTreeMap::new(),
        });
        let before = heard.cells.len();
        (heard.at, heard.failing, heard.parts) = (now, part.failing, heard.parts.wrapping_add(1));
        if part.has_all_that_fail() {
            let fails =
                |about: &Short| part.entries.iter().any(|(other, said)| other == about && said.fails());
            heard.cells.retain(|about, cell| !cell.said.fails() || fails(about));
        }
        for (about, said) in &part.entries {
            let cell = Cell { said: *said, part: heard.parts };
            let room = heard.cells.len() < PER_ROW && self.cells + heard.cells.len() < CELLS + before;
            match heard.cells.get_mut(about) {
                _ if self.many && !said.fails() => drop(heard.cells.remove(about)),
                Some(known) => *known = cell,
                None if room => drop(heard.cells.insert(*about, cell)),
                None => {}
            }
        }
        if (heard.parts as usize).is_multiple_of(ROUNDS) {
            heard.tidy();
        }
        self.cells = self.cells + heard.cells.len() - before;
    }

    /// A host is no peer any more.
    pub fn forget(&mut self, from: Short) {
        if let Some(heard) = self.rows.remove(&from) {
            self.cells -= heard.cells.len();
        }
    }

    /// All that is known, of hosts by these names on the wire. `every`: the time between two probes of a peer. Rows that
    /// are old are dropped.
    pub fn matrix(
        &mut self,
        own: u64,
        names: &BTreeMap<LeaseKey, u64>,
        every: Duration,
        now: Instant,
    ) -> Matrix {
        let limit = |(least, times): (Duration, u32)| least + every * times;
        let age = |heard: &Heard| now.saturating_duration_since(heard.at);
        self.rows.retain(|_, heard| age(heard) <= limit(OLD));
        self.cells = self.rows.values().map(|heard| heard.cells.len()).sum();
        let twice = twice(names.values().copied().chain([own]));
        let known = |short: &Short| !twice.contains(short);
        let row = |heard: &Heard| Telling {
            age: Some(age(heard)).filter(|age| *age > limit(FRESH)),
            failing: heard.failing,
            cells: heard
                .cells
                .iter()
                .filter(|(about, _)| known(about))
                .map(|(about, cell)| (*about, cell.said))
                .collect(),
        };
        let hosts = names.iter().map(|(lease, name)| (lease.clone(), Short::of(*name)));
        Matrix {
            own: Short::of(own),
            hosts: hosts.filter(|(_, short)| known(short)).collect(),
            full: !self.many,
            rows: self
                .rows
                .iter()
                .filter(|(from, _)| known(from))
                .map(|(from, heard)| (*from, row(heard)))
                .collect(),
        }
    }
}

/// What more than one of these names is called.
fn twice(names: impl Iterator<Item = u64>) -> BTreeSet<Short> {
    let names: BTreeSet<u64> = names.collect();
    let shorts = names.iter().copied().map(Short::of);
    shorts.clone().zip(shorts.skip(1)).filter(|(a, b)| a == b).map(|(a, _)| a).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::Verdict;
    use crate::probe::row::Row;
    use crate::probe::row::tests::{said, verdict};

    const EVERY: Duration = Duration::from_secs(1);

    /// A name, and what it is short for.
    fn name(number: u32) -> u64 {
        u64::from(number) << 32 | 7
    }

    fn short(number: u32) -> Short {
        Short::of(name(number))
    }

    fn key(number: u32) -> LeaseKey {
        LeaseKey::new(format!("host-{number}"))
    }

    /// The row of a host among `peers`, all of whom are well but these.
    fn row(peers: u32, failing: &[u32]) -> Row {
        let said = |peer| verdict(if failing.contains(&peer) { Verdict::OneWay } else { Verdict::Ok });
        (0..peers).map(|peer| (short(peer), said(peer))).collect()
    }

    fn look(heard: &mut Hearsay, hosts: u32, now: Instant) -> Matrix {
        heard.matrix(name(u32::MAX), &(0..hosts).map(|host| (key(host), name(host))).collect(), EVERY, now)
    }

    /// Whom a host says to fail.
    fn failing(matrix: &Matrix, from: u32) -> Vec<Short> {
        let cells = &matrix.rows[&short(from)].cells;
        cells.iter().filter(|(_, said)| said.fails()).map(|(about, _)| *about).collect()
    }

    proptest! {
        /// Whatever is heard, of however many, what is kept stays within its bounds, and is counted.
        #[test]
        fn it_is_bounded(
            parts in prop::collection::vec((0_u32..300, prop::collection::vec((0_u32..20_000, said()), 0..=ENTRIES)), 0..600),
            hosts in 1..200_usize, forget in 0_u32..300,
        ) {
            let (mut heard, now) = (Hearsay::default(), Instant::now());
            heard.among(hosts);
            for (from, entries) in parts {
                let entries: Vec<_> = entries.into_iter().map(|(about, said)| (short(about), said)).collect();
                heard.hear(short(from), &Part { failing: 500, entries }, now);
                let kept: usize = heard.rows.values().map(|heard| heard.cells.len()).sum();
                prop_assert_eq!(heard.cells, kept);
            }
            heard.forget(short(forget));
            prop_assert!(!heard.rows.contains_key(&short(forget)));
            let kept: usize = heard.rows.values().map(|heard| heard.cells.len()).sum();
            prop_assert_eq!(heard.cells, kept);
            let mut rows = heard.rows.values();
            prop_assert!(rows.all(|heard| heard.cells.len() <= PER_ROW));
            if hosts > FULL {
                prop_assert!(heard.rows.values().all(|heard| heard.cells.values().all(|cell| cell.said.fails())));
            }
        }

        /// Whatever fails and heals, and whichever probes are lost, in the end it is known how it is.
        #[test]
        fn in_the_end_it_is_as_it_is_told(
            before in prop::collection::btree_set(0_u32..60, 0..60), after in prop::collection::btree_set(0_u32..60, 0..60),
            hosts in prop::sample::select(vec![61_usize, 500]), first: u32, lost: u64,
        ) {
            let (mut heard, now) = (Hearsay::default(), Instant::now());
            heard.among(hosts);
            let [before, after] = [before, after].map(|set| set.into_iter().collect::<Vec<_>>());
            let mut seq = first;
            for (failing, probes) in [(&before, 100), (&after, 400)] {
                let row = row(60, failing);
                for probe in 0..probes {
                    seq = seq.wrapping_add(1);
                    if lost >> (probe % 64) & 3 != 0 || probe % 3 == 0 {
                        heard.hear(short(99), &row.part(seq), now);
                    }
                }
            }
            let matrix = look(&mut heard, 100, now);
            let want: Vec<Short> = after.iter().map(|peer| short(*peer)).collect();
            prop_assert_eq!(failing(&matrix, 99), want);
            prop_assert_eq!(usize::from(matrix.rows[&short(99)].failing), after.len());
            let cells = matrix.rows[&short(99)].cells.len();
            prop_assert_eq!(cells, if hosts > FULL { after.len() } else { 60 });
        }
    }

    #[test]
    fn all_together_are_bounded() {
        let (mut heard, now) = (Hearsay::default(), Instant::now());
        heard.among(10_000);
        for turn in 0..40 {
            for from in 0..300 {
                let row = row(500, &(0..300).collect::<Vec<_>>());
                heard.hear(short(from), &row.part(turn), now);
            }
        }
        assert_eq!(heard.cells, CELLS);
        let matrix = look(&mut heard, 500, now);
        assert!(matrix.rows.values().all(|row| row.failing == 300), "how many fail is known of each");
        (0..300).for_each(|from| heard.forget(short(from)));
        assert_eq!(heard.cells, 0);
    }

    #[test]
    fn a_row_that_is_not_heard_any_more_ages_and_goes() {
        let (mut heard, now) = (Hearsay::default(), Instant::now());
        heard.hear(short(1), &row(3, &[2]).part(0), now);
        for (later, want) in [(8, Some(None)), (9, Some(Some(9))), (70, Some(Some(70))), (71, None)] {
            let matrix = look(&mut heard, 3, now + EVERY * later);
            let age = matrix.rows.get(&short(1)).map(|row| row.age);
            assert_eq!(age, want.map(|age: Option<u64>| age.map(Duration::from_secs)), "{later}");
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_told() {
        let (mut heard, now) = (Hearsay::default(), Instant::now());
        for from in [1, 2] {
            heard.hear(short(from), &row(4, &[3]).part(0), now);
        }
        let names =
            BTreeMap::from([(key(1), name(1)), (key(2), name(2)), (key(3), name(3)), (key(4), name(3) + 1)]);
        let matrix = heard.matrix(name(0), &names, EVERY, now);
        assert_eq!(matrix.hosts, BTreeMap::from([(key(1), short(1)), (key(2), short(2))]));
        assert_eq!((failing(&matrix, 1), matrix.rows[&short(1)].cells.len()), (vec![], 3));
        // Two leases of one host are called the same, and are.
        let names = BTreeMap::from([(key(1), name(1)), (key(2), name(1))]);
        assert_eq!(heard.matrix(name(0), &names, EVERY, now).hosts.len(), 2);
    }

    #[test]
    fn a_fabric_that_grows_keeps_what_fails() {
        let (mut heard, now) = (Hearsay::default(), Instant::now());
        heard.hear(short(1), &row(6, &[2, 3]).part(0), now);
        assert_eq!(heard.cells, 6);
        heard.among(FULL + 1);
        let matrix = look(&mut heard, 6, now);
        assert_eq!((heard.cells, matrix.full, failing(&matrix, 1)), (2, false, vec![short(2), short(3)]));
    }
}
