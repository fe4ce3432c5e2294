//! The one loop: lease events, kernel events, timers, signals.

pub mod identity;
