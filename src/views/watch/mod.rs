//! A live view of one host: its state, its peers, and what happened, from one status after the other.

mod changes;
mod draw;

use std::collections::VecDeque;

use serde_json::Value;

pub use changes::{Change, Kind, begins, changes};

use super::peers::{self, Order};
use crate::agent::status::PeerStatus;

/// How many events are kept.
const KEPT: usize = 500;

/// What is shown, and how.
#[derive(Debug, Default)]
pub struct Watch {
    /// The last status.
    status: Option<Value>,
    /// Why there is no newer one.
    silent: Option<String>,
    peers: Vec<(PeerStatus, Value)>,
    order: Order,
    /// The first peer shown.
    top: usize,
    /// How many peers there was room for when it was drawn last.
    room: usize,
    /// What happened, each with its time; the last first.
    events: VecDeque<(String, String)>,
}

/// What somebody pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// One page up.
    PageUp,
    /// One page down.
    PageDown,
    /// To the first.
    Home,
    /// To the last.
    End,
    /// Another order.
    Sort,
    /// Enough.
    Quit,
}

impl Watch {
    /// Takes in what the agent said at a time of day, or why it said nothing. Returns what happened since.
    pub fn saw(&mut self, at: &str, answer: Result<Value, String>) -> Vec<String> {
        let mut events = match (&answer, &self.silent) {
            (Err(why), None) => vec![format!("the agent does not answer: {why}")],
            (Ok(_), Some(_)) if self.status.is_some() => vec!["the agent answers again".to_owned()],
            (Ok(_) | Err(_), _) => Vec::new(),
        };
        match answer {
            Ok(status) => {
                events.extend(changes(self.status.as_ref(), &status).into_iter().map(|change| change.text));
                self.peers = peers::read(&status);
                peers::sort(&mut self.peers, self.order);
                (self.status, self.silent) = (Some(status), None);
            }
            Err(why) => self.silent = Some(why),
        }
        for event in &events {
            self.events.push_front((at.to_owned(), event.clone()));
        }
        self.events.truncate(KEPT);
        events
    }

    /// Does what a key is for. Returns whether to go on.
    pub fn press(&mut self, key: Key) -> bool {
        let last = self.peers.len().saturating_sub(self.room);
        match key {
            Key::Up => self.top = self.top.saturating_sub(1),
            Key::Down => self.top += 1,
            Key::PageUp => self.top = self.top.saturating_sub(self.room),
            Key::PageDown => self.top += self.room,
            Key::Home => self.top = 0,
            Key::End => self.top = last,
            Key::Sort => {
                self.order = self.order.next();
                peers::sort(&mut self.peers, self.order);
            }
            Key::Quit => return false,
        }
        self.top = self.top.min(last);
        true
    }
}

#[cfg(test)]
mod tests;
