//! The set of leases, and how what a store reports changes it.
