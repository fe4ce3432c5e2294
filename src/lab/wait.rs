//! Waiting for a condition with a deadline, and being told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::LabError;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A flag that ends every wait of a lab: set by Ctrl-C in `twill demo`.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends all waits, present and future.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether [`Cancel::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// [`LabError::Interrupted`] if cancelled.
    pub fn check(&self) -> Result<(), LabError> {
        if self.is_cancelled() { Err(LabError::Interrupted) } else { Ok(()) }
    }
}

/// What one look at a condition found.
#[derive(Debug)]
pub enum Seen<T> {
    /// It holds.
    Yes(T),
    /// Not yet; the text says what was seen and ends up in the timeout's message.
    NotYet(String),
}

/// Looks every 10 ms until `look` says [`Seen::Yes`] or fails, `limit` is over, or `cancel` is set.
pub fn until<T>(
    what: &str,
    limit: Duration,
    cancel: &Cancel,
    mut look: impl FnMut() -> Result<Seen<T>, LabError>,
) -> Result<T, LabError> {
    let deadline = Instant::now() + limit;
    loop {
        cancel.check()?;
        match look()? {
            Seen::Yes(value) => return Ok(value),
            Seen::NotYet(detail) if Instant::now() >= deadline => {
                return Err(LabError::Timeout { what: what.to_owned(), limit, detail });
            }
            Seen::NotYet(_) => thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let value = until("third look", Duration::from_secs(5), &Cancel::default(), || {
            looks += 1;
            Ok(if looks == 3 { Seen::Yes(looks) } else { Seen::NotYet(String::new()) })
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_timeout_says_what_was_seen_last() {
        let error = until::<()>("never", Duration::from_millis(20), &Cancel::default(), || {
            Ok(Seen::NotYet("nothing there".into()))
        })
        .unwrap_err();
        assert!(error.to_string().contains("nothing there"), "{error}");
    }

    #[test]
    fn cancel_ends_a_wait_at_once() {
        let cancel = Cancel::default();
        cancel.clone().cancel();
        let begin = Instant::now();
        let error =
            until::<()>("never", Duration::from_secs(60), &cancel, || Ok(Seen::NotYet(String::new())));
        assert!(matches!(error, Err(LabError::Interrupted)));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
