//! The one loop: lease events, kernel events, timers, signals.

pub mod identity;
pub mod lock;
pub mod memory;
pub mod socket;
pub mod status;
pub mod tenure;
