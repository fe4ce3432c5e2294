//! The peers that are probed, each by a number: to look one up by its name, for each packet, takes longer than all else that
//! is done about the packet here.

use std::collections::BTreeMap;

use super::LineId;
use super::line::Line;

/// A peer that is probed, in one address family. Once that is over, the number is given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u32);

/// All that are probed.
#[derive(Debug, Default)]
pub(super) struct Lines {
    numbers: BTreeMap<LineId, Number>,
    /// By number; `None` where it is free.
    lines: Vec<Option<Box<Line>>>,
    free: Vec<Number>,
}

impl Number {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Lines {
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn number(&self, id: &LineId) -> Option<Number> {
        self.numbers.get(id).copied()
    }

    pub(super) fn get(&self, number: Number) -> Option<&Line> {
        self.lines.get(number.index())?.as_deref()
    }

    pub(super) fn get_mut(&mut self, number: Number) -> Option<&mut Line> {
        self.lines.get_mut(number.index())?.as_deref_mut()
    }

    /// Adds one that is not there yet. There is room for 2³² of them.
    pub(super) fn add(&mut self, id: LineId, line: Line) -> Number {
        let number = self.free.pop().unwrap_or_else(|| {
            self.lines.push(None);
            Number((self.lines.len() - 1) as u32)
        });
        self.lines[number.index()] = Some(Box::new(line));
        self.numbers.insert(id, number);
        number
    }

    pub(super) fn remove(&mut self, id: &LineId) -> Option<Line> {
        let number = self.numbers.remove(id)?;
        self.free.push(number);
        self.lines[number.index()].take().map(|line| *line)
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&LineId, &Line)> {
        self.numbers.iter().filter_map(|(id, number)| Some((id, self.get(*number)?)))
    }

    /// Does this to each, by name.
    pub(super) fn each<T>(
        &mut self,
        mut change: impl FnMut(&LineId, Number, &mut Line) -> T,
    ) -> impl Iterator<Item = (&LineId, T)> {
        let lines = &mut self.lines;
        self.numbers.iter().filter_map(move |(id, number)| {
            let line = lines.get_mut(number.index())?.as_deref_mut()?;
            Some((id, change(id, *number, line)))
        })
    }

    /// All of them, in no order that means anything.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        self.lines.iter_mut().filter_map(Option::as_deref_mut)
    }
}
