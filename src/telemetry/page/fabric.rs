//! The whole fabric, as those who look at the page are told it: all rows first, then those that are others than before.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use twill_backends::probe::Verdict;
use twill_backends::probe::hearsay::{Matrix, Telling};
use twill_backends::probe::row::{Leg, Said, Short};

/// What the age of a row is rounded up to, in seconds: that it grows is no news.
const AGES: u64 = 10;

/// What one who looks has been told of the fabric.
#[derive(Debug, Default)]
pub(super) struct Told {
    matrix: Option<Arc<Matrix>>,
    keys: Option<Vec<String>>,
    rows: BTreeMap<usize, String>,
}

/// The fabric, or what is another in it.
#[derive(Debug, Serialize)]
pub(super) struct Fabric {
    /// Whether all that hosts say of each other is told, and not only what fails.
    full: bool,
    /// Other hosts by their numbers, from 1; this one is 0. If they are told, what was told before is to be forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<String>>,
    /// What some of them say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rows: Vec<Box<RawValue>>,
    /// Who says nothing any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<usize>,
}

/// What a host says: its number, how many seconds ago if that is long, how many of its peers fail, and of whom it says what.
#[derive(Debug, Serialize)]
struct Row(usize, u64, u16, Vec<Cell>);

/// Of whom, the median round trip in microseconds or 0, and where anything is wrong, what becomes of packets there and
/// back. There are thousands of them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Cell {
    Well(usize, u64),
    Other(usize, u64, Verdict, char, char),
}

impl Told {
    /// What there is to tell, and it counts as told; `None` if nothing is.
    ///
    /// # Errors
    /// Something has no JSON.
    pub(super) fn next(&mut self, matrix: Option<&Arc<Matrix>>) -> serde_json::Result<Option<Fabric>> {
        let Some(matrix) = matrix else { return Ok(None) };
        if self.matrix.replace(Arc::clone(matrix)).is_some_and(|before| Arc::ptr_eq(&before, matrix)) {
            return Ok(None);
        }
        let keys: Vec<String> = matrix.hosts.keys().map(ToString::to_string).collect();
        let keys = (self.keys.as_ref() != Some(&keys)).then_some(keys);
        if let Some(keys) = &keys {
            (self.keys, self.rows) = (Some(keys.clone()), BTreeMap::new());
        }
        let (mut news, mut told) = (Vec::new(), BTreeMap::new());
        for (number, row) in rows(matrix) {
            let row = to_raw_value(&row)?;
            let before = self.rows.remove(&number);
            told.insert(number, row.get().to_owned());
            if before.as_deref() != Some(row.get()) {
                news.push(row);
            }
        }
        let gone: Vec<usize> = std::mem::replace(&mut self.rows, told).into_keys().collect();
        let none = keys.is_none() && news.is_empty() && gone.is_empty();
        Ok((!none).then_some(Fabric { full: matrix.full, keys, rows: news, gone }))
    }
}

/// What each host says. One with several leases says the same for each.
fn rows(matrix: &Matrix) -> impl Iterator<Item = (usize, Row)> {
    let mut numbers: BTreeMap<Short, Vec<usize>> = BTreeMap::from([(matrix.own, vec![0])]);
    for (at, short) in matrix.hosts.values().enumerate() {
        numbers.entry(*short).or_default().push(at + 1);
    }
    let of = move |short: &Short| numbers.get(short).cloned().unwrap_or_default();
    matrix.rows.iter().flat_map(move |(from, telling)| {
        let Telling { age, failing, cells } = telling;
        let age = age.map_or(0, |age| age.as_secs().next_multiple_of(AGES).max(AGES));
        let cells = || cells.iter().flat_map(|(about, said)| of(about).into_iter().map(|at| cell(at, said)));
        let rows: Vec<_> = of(from)
            .into_iter()
            .filter(|number| *number > 0)
            .map(|number| (number, Row(number, age, *failing, cells().collect())))
            .collect();
        rows
    })
}

fn cell(number: usize, said: &Said) -> Cell {
    let letter = |leg| match leg {
        Leg::Unknown => '?',
        Leg::Passes => '+',
        Leg::Lossy => '~',
        Leg::Cut => 'x',
    };
    let rtt = said.rtt_us().unwrap_or(0);
    match (said.verdict, said.there, said.back) {
        (Verdict::Ok, Leg::Passes, Leg::Passes) => Cell::Well(number, rtt),
        (verdict, there, back) => Cell::Other(number, rtt, verdict, letter(there), letter(back)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use twill_backends::lease::LeaseKey;
    use twill_backends::probe::{Finding, Measured, Up, Way};

    use super::*;

    fn said(verdict: Verdict) -> Said {
        let up = if verdict > Verdict::Unknown { Up::No } else { Up::Yes };
        let way = Measured {
            up,
            p50: Some(Duration::from_micros(200)),
            loss: Some(0.0),
            ..Measured::nothing(Way::Overlay, [10, 5, 2, 0].into())
        };
        Said::of(&Finding { verdict, ways: vec![way], ..Finding::default() })
    }

    /// This host and two others, of whom the first says this of the second.
    fn fabric(verdict: Verdict, age: Option<u64>) -> Matrix {
        let [own, one, two] = [0, 1, 2].map(|host: u64| Short::of(host << 32));
        let cells = vec![(own, said(Verdict::Ok)), (two, said(verdict))];
        let telling = Telling { age: age.map(Duration::from_secs), failing: 3, cells };
        let hosts = [("10.5.2.0-24", one), ("10.5.3.0-24", two)];
        Matrix {
            own,
            hosts: hosts.map(|(key, short)| (LeaseKey::new(key), short)).into(),
            full: true,
            rows: BTreeMap::from([
                (one, telling),
                (Short::of(9 << 32), Telling { age: None, failing: 0, cells: Vec::new() }),
            ]),
        }
    }

    fn tell(told: &mut Told, matrix: Matrix) -> Value {
        serde_json::to_value(told.next(Some(&Arc::new(matrix))).unwrap()).unwrap()
    }

    #[test]
    fn all_rows_are_told_first_and_then_what_changed() {
        let mut told = Told::default();
        assert!(told.next(None).unwrap().is_none());
        let first = json!({ "full": true, "keys": ["10.5.2.0-24", "10.5.3.0-24"], "rows": [[1, 0, 3, [[0, 215], [2, 215]]]] });
        assert_eq!(tell(&mut told, fabric(Verdict::Ok, None)), first);
        assert_eq!(tell(&mut told, fabric(Verdict::Ok, None)), Value::Null, "the same");
        let row = json!([1, 0, 3, [[0, 215], [2, 0, "one-way", "x", "+"]]]);
        assert_eq!(tell(&mut told, fabric(Verdict::OneWay, None)), json!({ "full": true, "rows": [row] }));
        let aged = tell(&mut told, fabric(Verdict::OneWay, Some(11)));
        assert_eq!(aged["rows"][0][1], 20);
        assert_eq!(
            tell(&mut told, fabric(Verdict::OneWay, Some(19))),
            Value::Null,
            "that it is older is no news"
        );
        let mut silent = fabric(Verdict::OneWay, None);
        silent.rows.clear();
        assert_eq!(tell(&mut told, silent), json!({ "full": true, "gone": [1] }));
    }

    #[test]
    fn who_joins_renumbers_all_and_who_has_two_leases_says_all_twice() {
        let mut told = Told::default();
        tell(&mut told, fabric(Verdict::Ok, None));
        let mut more = fabric(Verdict::Ok, None);
        more.hosts.insert(LeaseKey::new("10.5.1.0-24"), Short::of(1 << 32));
        let frame = tell(&mut told, more);
        assert_eq!(frame["keys"].as_array().unwrap().len(), 3);
        let rows = json!([[1, 0, 3, [[0, 215], [3, 215]]], [2, 0, 3, [[0, 215], [3, 215]]]]);
        assert_eq!(frame["rows"], rows);
    }
}
