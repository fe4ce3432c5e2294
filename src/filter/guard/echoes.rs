//! Announcements of what this program changed itself.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than an announcement can be under way, and shorter than it takes until a number is another process's.
const AWAITED: Duration = Duration::from_secs(5);

/// Whose announcements are echoes. The kernel announces a change with the number of the socket that asked for it, and
/// gives the first socket of a process that process's number. A socket with another number is taken for a stranger's.
#[derive(Debug, Default)]
pub(super) struct Echoes(Vec<(u32, Instant)>);

impl Echoes {
    /// This process is about to make a change.
    pub(super) fn expect(&mut self, writer: u32) {
        let now = Instant::now();
        self.0.retain(|(_, until)| *until > now);
        self.0.push((writer, now + AWAITED));
    }

    /// Whether what this one changed is ours.
    pub(super) fn is_of(&self, writer: u32) -> bool {
        self.0.iter().any(|(other, until)| *other == writer && *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_echo_is_awaited_for_a_while() {
        let mut echoes = Echoes::default();
        echoes.expect(7);
        tokio::time::advance(AWAITED / 2).await;
        echoes.expect(8);
        assert!(echoes.is_of(7) && echoes.is_of(8) && !echoes.is_of(0));
        tokio::time::advance(AWAITED / 2).await;
        assert!(!echoes.is_of(7) && echoes.is_of(8));
        echoes.expect(9);
        assert_eq!(echoes.0.len(), 2);
    }
}
