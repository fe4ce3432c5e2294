//! The pure half of Twill: leases in, desired host state out. No I/O, clock, randomness or logging.
#![forbid(unsafe_code)]
