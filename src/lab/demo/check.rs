//! What the demo measures: who reaches whom, and how fast.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Cancel, LabError, Pod, probe};

/// How long all pings together may take.
const REACH: Duration = Duration::from_secs(10);
/// What a pair is given at least, when others have used the time up.
const LEAST: Duration = Duration::from_millis(300);
const TRANSFER: Duration = Duration::from_secs(2);

/// What became of one ordered pair of pods.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// A pod and itself.
    Same,
    /// All families answer; the slowest round trip.
    Reached(Duration),
    /// Some family does not; which ones do.
    Partly(Vec<IpAddr>),
    /// Nothing answers.
    Lost,
}

/// All ordered pairs, row by row: `cells[from][to]`.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    /// The pods' names.
    pub(super) names: Vec<String>,
    pub(super) cells: Vec<Vec<Cell>>,
}

impl Matrix {
    /// Ordered pairs of different pods.
    pub(super) fn pairs(&self) -> usize {
        self.cells.iter().flatten().filter(|cell| **cell != Cell::Same).count()
    }

    /// Those of them where every family answers.
    pub(super) fn reachable(&self) -> usize {
        self.cells.iter().flatten().filter(|cell| matches!(cell, Cell::Reached(_))).count()
    }

    pub(super) fn reached(&self, from: usize, to: usize) -> bool {
        let cell = self.cells.get(from).and_then(|row| row.get(to));
        matches!(cell, Some(Cell::Reached(_)))
    }
}

/// Pings every pod from every other, each source on a thread of its own.
pub(super) fn reach(pods: &[Pod], cancel: &Cancel) -> Result<Matrix, LabError> {
    let deadline = Instant::now() + REACH;
    let rows = thread::scope(|scope| {
        let row = |from| scope.spawn(move || row(from, pods, deadline, cancel));
        let running: Vec<_> = pods.iter().map(row).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(Matrix { names: pods.iter().map(|pod| pod.name.clone()).collect(), cells: rows })
}

/// TCP from one pod to another over the first family they have, in Gbit/s.
pub(super) fn throughput(from: &Pod, to: &Pod, cancel: &Cancel) -> Result<f64, LabError> {
    to.addresses
        .first()
        .map_or(Ok(0.0), |target| probe::tcp_gbps(&from.net, &to.net, *target, TRANSFER, cancel))
}

fn row(from: &Pod, pods: &[Pod], deadline: Instant, cancel: &Cancel) -> Result<Vec<Cell>, LabError> {
    pods.iter()
        .map(|to| if to.name == from.name { Ok(Cell::Same) } else { cell(from, to, deadline, cancel) })
        .collect()
}

fn cell(from: &Pod, to: &Pod, deadline: Instant, cancel: &Cancel) -> Result<Cell, LabError> {
    let (mut answered, mut slowest) = (Vec::new(), Duration::ZERO);
    for target in &to.addresses {
        let limit = deadline.saturating_duration_since(Instant::now()).max(LEAST);
        match probe::ping_until(&from.net, *target, limit, cancel) {
            Ok(first) => {
                // The first echo waited for ARP or neighbour discovery.
                let second = probe::ping(&from.net, *target, LEAST)?.unwrap_or(first);
                slowest = slowest.max(second);
                answered.push(*target);
            }
            Err(LabError::Timeout { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(match answered.len() {
        0 => Cell::Lost,
        all if all == to.addresses.len() => Cell::Reached(slowest),
        _some => Cell::Partly(answered),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_answers_in_one_family_only_is_not_reachable() {
        let reached = Cell::Reached(Duration::from_millis(1));
        let partly = Cell::Partly(vec!["10.244.1.2".parse().unwrap()]);
        let matrix = Matrix {
            names: vec!["a".into(), "b".into()],
            cells: vec![vec![Cell::Same, reached], vec![partly, Cell::Same]],
        };
        assert_eq!((matrix.pairs(), matrix.reachable()), (2, 1));
        assert!(matrix.reached(0, 1) && !matrix.reached(1, 0) && !matrix.reached(7, 7));
    }
}
