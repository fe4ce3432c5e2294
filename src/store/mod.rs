//! Where leases live.
