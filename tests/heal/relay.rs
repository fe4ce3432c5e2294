//! A bad line: frames between one host and the others pass through this program, which loses some, and holds others
//! back until later ones have passed.

use std::sync::Arc;
use std::thread::JoinHandle;

use tun_tap::{Iface, Mode};
use twill::lab::{Lab, LabError, Netns, local_mac};

/// At most so many frames pass one that is held back.
const REACH: usize = 5;
/// An Ethernet frame of an underlay of 1500 bytes.
const FRAME: usize = 1514;
/// Both ends of the line, in the underlay's namespace.
const ENDS: [&str; 2] = ["near", "far"];

/// How many frames of a hundred are lost, and how many held back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) lost: u8,
    pub(crate) late: u8,
}

/// What became of the frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Toll {
    pub(crate) passed: u64,
    pub(crate) lost: u64,
    /// Those that later ones have passed.
    pub(crate) late: u64,
}

/// The line of one host, in both directions, as long as this lives.
#[derive(Debug)]
pub(crate) struct Relay {
    net: Netns,
    directions: Vec<JoinHandle<Result<Toll, LabError>>>,
}

impl Relay {
    /// Puts the relay between a host and the others: the host's port moves to a bridge of its own, and a TAP in either
    /// bridge is one end of the line. What passes are frames of wire size with complete checksums.
    pub(crate) fn start(lab: &Lab, host: usize, line: Line) -> Self {
        let net = &lab.underlay.net;
        net.add_bridge("alone", local_mac([0x77, 9, 0, 0, 254]), 1500).unwrap();
        net.link_up("alone").unwrap();
        let ends = ENDS.map(|name| net.run(|| Iface::without_packet_info(name, Mode::Tap)).unwrap().unwrap());
        for (end, bridge) in ENDS.into_iter().zip(["ub0", "alone"]) {
            net.join_bridge(end, bridge).unwrap();
            net.link_up(end).unwrap();
        }
        net.join_bridge(&lab.hosts[host].name, "alone").unwrap();
        let ends = Arc::new(ends);
        let directions = [(0, 1), (1, 0)].map(|(from, to)| {
            let ends = Arc::clone(&ends);
            net.thread(move || carry(&ends[from], &ends[to], line, from as u64)).unwrap()
        });
        Self { net: net.clone(), directions: directions.into() }
    }

    /// Ends it: what became of the frames of both directions.
    pub(crate) fn stop(mut self) -> Toll {
        self.cut();
        let tolls = self.directions.drain(..).map(|direction| direction.join().unwrap().unwrap());
        tolls.fold(Toll::default(), |a, b| Toll {
            passed: a.passed + b.passed,
            lost: a.lost + b.lost,
            late: a.late + b.late,
        })
    }

    /// Takes the ends away, which ends the threads that read them.
    fn cut(&self) {
        ENDS.iter().for_each(|end| drop(self.net.delete_link(end)));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

/// One direction, until its ends are gone. The fate of each frame comes from the seed.
fn carry(from: &Iface, to: &Iface, line: Line, seed: u64) -> Toll {
    let (mut rng, mut toll) = (fastrand::Rng::with_seed(seed), Toll::default());
    let (mut frame, mut held) = ([0; FRAME], Vec::<(usize, Vec<u8>)>::new());
    while let Ok(len) = from.recv(&mut frame) {
        let fate = rng.u8(..100);
        if fate < line.lost {
            toll.lost += 1;
        } else if fate < line.lost + line.late {
            held.push((rng.usize(1..=REACH), frame[..len].to_vec()));
        } else {
            toll.passed += 1;
            to.send(&frame[..len]).ok();
            held.retain_mut(|(wait, late)| {
                *wait -= 1;
                if *wait == 0 {
                    toll.late += 1;
                    to.send(late).ok();
                }
                *wait > 0
            });
        }
    }
    toll
}
