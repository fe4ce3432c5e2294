//! Packets that are sent at a time, and what becomes of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use twill_backends::checksums::Trial;

/// Packets that were sent, and answers that are due: by whom, and to the end of what, of which packet.
#[derive(Debug, Default)]
pub(super) struct Round {
    packets: Vec<Asked>,
    due: BTreeMap<(IpAddr, u32), usize>,
}

/// A packet that was sent.
#[derive(Debug)]
struct Asked {
    /// Which trial it belongs to.
    trial: usize,
    /// How many pieces it is cut into, and how many of them answered.
    pieces: u32,
    answered: u32,
    /// The end of the last of them, and whether it answered.
    end: u32,
    ended: bool,
}

impl Round {
    /// A packet was sent to `inner`, the pieces of which end so.
    pub(super) fn asked(&mut self, trial: usize, inner: IpAddr, ends: impl Iterator<Item = u32>) {
        let mut packet = Asked { trial, pieces: 0, answered: 0, end: 0, ended: false };
        for end in ends {
            self.due.insert((inner, end), self.packets.len());
            (packet.pieces, packet.end) = (packet.pieces + 1, end);
        }
        self.packets.push(packet);
    }

    /// An answer came, if it is one.
    pub(super) fn answered(&mut self, answer: Option<(IpAddr, u32)>) {
        let due = answer.and_then(|answer| Some((self.due.remove(&answer)?, answer.1)));
        if let Some((packet, end)) = due.and_then(|(at, end)| Some((self.packets.get_mut(at)?, end))) {
            packet.answered += 1;
            packet.ended |= packet.end == end;
        }
    }

    /// Whether there is nothing more to come: the last piece of each packet answered, and they answer in their order.
    pub(super) fn is_over(&self) -> bool {
        self.packets.iter().all(|packet| packet.ended)
    }

    /// Adds what arrived to the trials.
    pub(super) fn count(&self, trials: &mut [Trial]) {
        for packet in &self.packets {
            let Some(trial) = trials.get_mut(packet.trial) else { continue };
            let count = if packet.pieces > 1 { &mut trial.large } else { &mut trial.small };
            count.sent += 1;
            count.answered += u32::from(packet.arrived());
        }
    }
}

impl Asked {
    /// Whether all of it arrived. Where nothing on the way has to cut it, it arrives as one, and brings one answer.
    const fn arrived(&self) -> bool {
        self.ended && (self.answered == 1 || self.answered == self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use twill_backends::checksums::Count;
    use twill_backends::state::Checksums;

    use super::*;

    /// How many of a small packet (ends at 1) and a large one (ends at 2, 3 and 4) arrived.
    fn arrived(answers: &[u32]) -> (u32, u32) {
        let (to, other): (IpAddr, IpAddr) = ("10.5.2.0".parse().unwrap(), "10.5.3.0".parse().unwrap());
        let mut round = Round::default();
        round.asked(0, to, 1..=1);
        round.asked(0, to, 2..=4);
        round.answered(None);
        round.answered(Some((other, 1)));
        answers.iter().for_each(|end| round.answered(Some((to, *end))));
        let with = Checksums::default();
        let (small, large) = (Count::default(), Count::default());
        let mut trials = [Trial { to: "b".to_owned(), with, small, large, rate: 0 }];
        round.count(&mut trials);
        assert_eq!((trials[0].small.sent, trials[0].large.sent), (1, 1));
        assert_eq!(round.is_over(), answers.contains(&1) && answers.contains(&4));
        (trials[0].small.answered, trials[0].large.answered)
    }

    #[test]
    fn a_packet_arrives_whole_or_in_all_its_pieces_or_not() {
        for (answers, counts) in [
            (&[][..], (0, 0)),
            (&[1], (1, 0)),
            (&[1, 1, 4], (1, 1)),
            (&[1, 2, 3, 4], (1, 1)),
            (&[1, 2, 4], (1, 0)),
            (&[1, 2, 3], (1, 0)),
            (&[2], (0, 0)),
        ] {
            assert_eq!(arrived(answers), counts, "{answers:?}");
        }
    }
}
