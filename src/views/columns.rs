//! Tables that fit the terminal: columns that matter less go where there is no room for them.

use crate::style::{Cell, FAINT, Table, paint};

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Of those that do not fit, the one with the least goes first; the heaviest stay in any case.
    pub(super) weight: u8,
}

/// The weight of what always stays.
pub(super) const STAYS: u8 = u8::MAX;
/// What the table puts between two columns.
const GAP: usize = 2;

/// The columns that there is room for, with their widths. `width`: of the terminal, if it is one.
pub(super) fn fit(columns: &[Column], rows: &[Vec<Cell>], width: Option<usize>) -> Vec<(usize, usize)> {
    let texts = |at: usize| rows.iter().filter_map(move |row| row.get(at)).map(|cell| cell.text.as_str());
    let known = |at: &usize| columns[*at].weight == STAYS || texts(*at).any(|text| !matches!(text, "" | "-"));
    let widest = |at: usize| {
        texts(at).chain([columns[at].name]).map(|text| text.chars().count()).max().unwrap_or_default()
    };
    let mut kept: Vec<(usize, usize)> = (0..columns.len()).filter(known).map(|at| (at, widest(at))).collect();
    while width.is_some_and(|width| kept.iter().map(|(_, wide)| wide + GAP).sum::<usize>() > width + GAP) {
        let goes = kept.iter().map(|(at, _)| *at).filter(|at| columns[*at].weight < STAYS);
        let Some(least) = goes.min_by_key(|at| columns[*at].weight) else { break };
        kept.retain(|(at, _)| *at != least);
    }
    kept
}

/// The table, with a head. `width`: of the terminal, if it is one.
pub(super) fn table(columns: &[Column], rows: Vec<Vec<Cell>>, width: Option<usize>) -> Table {
    let kept = fit(columns, &rows, width);
    let mut table = Table::default();
    table.row(kept.iter().map(|(at, _)| paint(FAINT, columns[*at].name)));
    for row in rows {
        table.row(kept.iter().map(|(at, _)| row.get(*at).cloned().unwrap_or_else(|| "".into())));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { name: "PEER", weight: STAYS },
        Column { name: "NODE", weight: 1 },
        Column { name: "RTT", weight: 2 },
    ];

    fn shown(width: Option<usize>, rtt: &str) -> String {
        let rows = vec![vec!["10.5.2.0-24".into(), "0d6e".into(), rtt.into()]];
        anstream::adapter::strip_str(&table(&COLUMNS, rows, width).to_string()).to_string()
    }

    #[test]
    fn what_matters_least_goes_first() {
        assert_eq!(shown(None, "0.2"), "PEER         NODE  RTT\n10.5.2.0-24  0d6e  0.2\n");
        assert_eq!(shown(Some(22), "0.2"), shown(None, "0.2"));
        assert_eq!(shown(Some(21), "0.2"), "PEER         RTT\n10.5.2.0-24  0.2\n");
        assert_eq!(shown(Some(1), "0.2"), "PEER\n10.5.2.0-24\n");
    }

    #[test]
    fn a_column_of_which_nothing_is_known_takes_no_room() {
        assert_eq!(shown(None, "-"), "PEER         NODE\n10.5.2.0-24  0d6e\n");
    }
}
