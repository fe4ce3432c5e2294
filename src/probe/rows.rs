//! What hosts tell each other of the rest of the fabric, with the probes that they send anyway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use twill_backends::lease::LeaseKey;
use twill_backends::probe::echo::HEADER;
use twill_backends::probe::hearsay::{Hearsay, Matrix};
use twill_backends::probe::row::{Part, Row, Said, Short};
use twill_backends::probe::{Finding, LineId};

/// How often those who look are told.
const EVERY: Duration = Duration::from_secs(1);

/// Where to look at the whole fabric, as far as this host knows it. It is put together only while somebody does.
#[derive(Debug, Clone, Default)]
pub struct Outlook(watch::Sender<Option<Arc<Matrix>>>);

impl Outlook {
    /// Looks from now on. Nothing is there at first.
    #[must_use]
    pub fn look(&self) -> watch::Receiver<Option<Arc<Matrix>>> {
        self.0.subscribe()
    }

    /// What is always the same.
    #[must_use]
    pub fn of(matrix: Matrix) -> Self {
        Self(watch::Sender::new(Some(Arc::new(matrix))))
    }
}

/// What this host says of others, and what they say of others.
#[derive(Debug)]
pub(super) struct Rows {
    own: u64,
    row: Row,
    heard: Hearsay,
    outlook: Outlook,
    /// When those who look are told again.
    next: Instant,
    shown: bool,
}

impl Rows {
    /// Of the host that is `own` on the wire.
    pub(super) fn new(own: u64, outlook: Outlook, now: Instant) -> Self {
        Self { own, row: Row::default(), heard: Hearsay::default(), outlook, next: now, shown: false }
    }

    /// This was found out of other hosts, who have these names on the wire.
    pub(super) fn found(&mut self, findings: &BTreeMap<LineId, Finding>, names: &BTreeMap<LeaseKey, u64>) {
        let said = findings.iter().filter_map(|((lease, _), finding)| {
            let name = names.get(lease)?;
            Some((Short::of(*name), Said::of(finding)))
        });
        self.row = said.collect();
        self.heard.among(names.len() + 1);
    }

    /// Adds to a probe of this number what it has room for.
    pub(super) fn write(&self, seq: u32, header: &mut [u8; HEADER]) {
        self.row.part(seq).write(header);
    }

    /// A probe of the host of this name came.
    pub(super) fn hear(&mut self, name: u64, probe: &[u8], now: Instant) {
        self.heard.hear(Short::of(name), &Part::read(probe), now);
    }

    /// The host of this name is no peer any more.
    pub(super) fn forget(&mut self, name: u64) {
        self.heard.forget(Short::of(name));
    }

    /// Tells those who look. `pace`: the time between two probes of a peer.
    pub(super) fn tell(&mut self, names: &BTreeMap<LeaseKey, u64>, pace: Duration, now: Instant) {
        let watched = self.outlook.0.receiver_count() > 0;
        if self.shown && !watched {
            self.outlook.0.send_replace(None);
            self.shown = false;
        } else if watched && now >= self.next {
            let matrix = self.heard.matrix(self.own, names, pace, now);
            self.outlook.0.send_replace(Some(Arc::new(matrix)));
            (self.shown, self.next) = (true, now + EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use twill_backends::probe::Verdict;
    use twill_backends::probe::Way;
    use twill_backends::probe::echo::{Echo, SHORTEST, Seen};

    use super::*;

    /// The names of three hosts.
    fn names() -> BTreeMap<LeaseKey, u64> {
        (1..4_u64).map(|host| (LeaseKey::new(format!("host-{host}")), host << 32)).collect()
    }

    fn finding(verdict: Verdict) -> Finding {
        Finding { verdict, ..Finding::default() }
    }

    /// A probe that carries what these rows say.
    fn probe(rows: &Rows, seq: u32) -> [u8; HEADER] {
        let seen = [Seen::default(); 2];
        let echo = Echo { answer: false, way: Way::Overlay, settled: true, seq, mtu: None, seen };
        let mut header = echo.encode(rows.own, SHORTEST as u16);
        rows.write(seq, &mut header);
        header
    }

    #[test]
    fn a_host_learns_what_another_found_out_and_only_while_somebody_looks() {
        let (outlook, now) = (Outlook::default(), Instant::now());
        let mut names = names();
        let mut here = Rows::new(1 << 32, outlook.clone(), now);
        let mut there = Rows::new(2 << 32, Outlook::default(), now);
        let own = names.keys().next().cloned().unwrap();
        let third = names.keys().last().cloned().unwrap();
        let found = [(own, Verdict::Ok), (third.clone(), Verdict::OneWay)];
        let findings =
            found.map(|(lease, verdict)| ((lease, twill_backends::family::Family::V4), finding(verdict)));
        there.found(&findings.into(), &names);
        names.pop_first();
        here.found(&BTreeMap::new(), &names);
        here.hear(2 << 32, &probe(&there, 5), now);
        here.tell(&names, EVERY, now);
        let looking = outlook.look();
        assert!(looking.borrow().is_none(), "nobody looked");
        here.tell(&names, EVERY, now);
        let matrix = looking.borrow().clone().unwrap();
        assert_eq!((matrix.own, matrix.hosts[&third]), (Short::of(1 << 32), Short::of(3 << 32)));
        let row = &matrix.rows[&Short::of(2 << 32)];
        assert_eq!((row.failing, row.cells.len()), (1, 2));
        let said: BTreeMap<Short, Verdict> =
            row.cells.iter().map(|(about, said)| (*about, said.verdict)).collect();
        assert_eq!(
            said,
            BTreeMap::from([(Short::of(1 << 32), Verdict::Ok), (Short::of(3 << 32), Verdict::OneWay)])
        );
        // A look later, and one at nobody who is left.
        here.tell(&names, EVERY, now + EVERY / 2);
        assert!(Arc::ptr_eq(&matrix, looking.borrow().as_ref().unwrap()));
        here.forget(2 << 32);
        here.tell(&names, EVERY, now + EVERY);
        assert!(looking.borrow().as_ref().unwrap().rows.is_empty());
        drop(looking);
        here.tell(&names, EVERY, now + EVERY * 2);
        assert!(outlook.look().borrow().is_none());
    }
}
