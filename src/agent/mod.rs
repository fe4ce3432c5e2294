//! The one loop: lease events, kernel events, timers, signals.
