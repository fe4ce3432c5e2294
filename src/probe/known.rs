//! Who is probed: the name that each has on the wire, the key shared with it, and the numbers by which it is looked up.

use std::collections::BTreeMap;

use ring::hmac;
use twill_backends::family::PerFamily;
use twill_backends::lease::LeaseKey;
use twill_backends::probe::Number;

use super::secret::{self, Party};

/// A peer's lines.
pub(super) type Lines = PerFamily<Number>;

/// Everybody who is probed.
pub(super) struct Known {
    own: Party,
    peers: BTreeMap<LeaseKey, (Party, Lines)>,
    names: BTreeMap<LeaseKey, u64>,
    /// By name on the wire.
    speakers: BTreeMap<u64, Speaker>,
    /// Whose each line is.
    lines: BTreeMap<Number, u64>,
}

/// Who has a name on the wire. Several leases can be one's: what it says is of one of them.
struct Speaker {
    lease: LeaseKey,
    lines: Lines,
    key: hmac::Key,
}

impl Known {
    /// Nobody yet. `own`: this host.
    pub(super) const fn new(own: Party) -> Self {
        Self {
            own,
            peers: BTreeMap::new(),
            names: BTreeMap::new(),
            speakers: BTreeMap::new(),
            lines: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// The names of all on the wire.
    pub(super) const fn names(&self) -> &BTreeMap<LeaseKey, u64> {
        &self.names
    }

    /// Who has this name on the wire: the key shared with it, and its lines.
    pub(super) fn speaker(&self, name: u64) -> Option<(&hmac::Key, &Lines)> {
        self.speakers.get(&name).map(|speaker| (&speaker.key, &speaker.lines))
    }

    /// The key shared with the peer of this line.
    pub(super) fn key(&self, line: Number) -> Option<&hmac::Key> {
        self.lines.get(&line).and_then(|name| self.speakers.get(name)).map(|speaker| &speaker.key)
    }

    /// A lease is this party's from now on, and has these lines, or it is nobody's. Returns the name that nobody has any
    /// more.
    pub(super) fn follow(&mut self, lease: &LeaseKey, peer: Option<(Party, Lines)>) -> Option<u64> {
        let before = self.peers.remove(lease);
        for (_, line) in before.iter().flat_map(|(_, lines)| lines.iter()) {
            self.lines.remove(line);
        }
        let party = peer.as_ref().map(|(party, _)| party);
        let mut gone = None;
        if before.as_ref().map(|(party, _)| party) != party {
            gone = self.names.remove(lease).filter(|name| !self.hand_over(*name));
            if let Some(party) = party {
                self.name(lease, party);
            }
        }
        if let (Some((party, lines)), Some(name)) = (peer, self.names.get(lease)) {
            self.lines.extend(lines.iter().map(|(_, line)| (*line, *name)));
            let speaker = self.speakers.get_mut(name).filter(|speaker| speaker.lease == *lease);
            speaker.into_iter().for_each(|speaker| speaker.lines = lines);
            self.peers.insert(lease.clone(), (party, lines));
        }
        gone
    }

    /// Whoever has this name speaks for a lease that has it still. Returns whether there is one.
    fn hand_over(&mut self, name: u64) -> bool {
        let Some(speaker) = self.speakers.remove(&name) else { return false };
        let mut others = self.names.iter().filter(|(_, other)| **other == name).map(|(lease, _)| lease);
        let next = others.find_map(|lease| Some((lease.clone(), self.peers.get(lease)?.1)));
        if let Some((lease, lines)) = next {
            self.speakers.insert(name, Speaker { lease, lines, ..speaker });
            return true;
        }
        false
    }

    fn name(&mut self, lease: &LeaseKey, party: &Party) {
        let name = secret::name(party);
        self.names.insert(lease.clone(), name);
        let key = secret::key(&self.own, party);
        self.speakers.insert(name, Speaker { lease: lease.clone(), lines: Lines::NONE, key });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use twill_backends::family::Family;
    use twill_backends::probe::{Course, Prober};

    use super::*;

    fn party(name: &str) -> Party {
        Party { node: name.to_owned(), secret: format!("secret of {name}") }
    }

    /// The numbers that a prober gives to as many peers.
    fn numbers(peers: u8) -> Vec<Lines> {
        let now = Instant::now();
        let mut prober = Prober::new(0, now);
        let course = |host| Course {
            overlay: None,
            underlay: [192, 0, 2, host].into(),
            port: 1,
            mtu: 1450,
            overhead: 0,
            known: None,
        };
        let mut follow = |host: u8| {
            prober.follow(&(LeaseKey::new(format!("{host}")), Family::V4), Some(course(host)), now)
        };
        (0..peers).map(|host| Lines { v4: follow(host), v6: None }).collect()
    }

    #[test]
    fn who_is_no_peer_any_more_is_known_by_nothing() {
        let lines = numbers(2);
        let mut known = Known::new(party("own"));
        let leases = ["a", "b"].map(LeaseKey::new);
        for (lease, lines) in leases.iter().zip(&lines) {
            assert_eq!(known.follow(lease, Some((party(lease.as_str()), *lines))), None);
        }
        let (name, number) = (secret::name(&party("a")), lines[0].v4.unwrap());
        assert_eq!(known.speaker(name).unwrap().1, &lines[0]);
        assert!(known.key(number).is_some());
        assert_eq!(known.follow(&leases[0], None), Some(name));
        assert!(known.speaker(name).is_none() && known.key(number).is_none());
        assert_eq!((known.len(), known.names().len()), (1, 1));
        // The number is another's; and that one is another party in the end.
        assert_eq!(known.follow(&leases[1], Some((party("b"), lines[0]))), None);
        assert!(known.key(number).is_some() && known.key(lines[1].v4.unwrap()).is_none());
        assert_eq!(known.speaker(secret::name(&party("b"))).unwrap().1, &lines[0]);
        assert_eq!(known.follow(&leases[1], Some((party("c"), lines[0]))), Some(secret::name(&party("b"))));
        assert_eq!(known.speaker(secret::name(&party("c"))).unwrap().1, &lines[0]);
    }

    #[test]
    fn one_who_has_several_leases_speaks_for_one_of_them() {
        let (lines, one) = (numbers(2), party("one"));
        let mut known = Known::new(party("own"));
        let (leases, name) = (["a", "b"].map(LeaseKey::new), secret::name(&one));
        for (lease, lines) in leases.iter().zip(&lines) {
            assert_eq!(known.follow(lease, Some((one.clone(), *lines))), None);
        }
        assert_eq!(known.speaker(name).unwrap().1, &lines[1]);
        assert_eq!(known.follow(&leases[1], None), None);
        assert_eq!(known.speaker(name).unwrap().1, &lines[0]);
        assert_eq!(known.follow(&leases[0], None), Some(name));
    }
}
