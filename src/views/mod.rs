//! What the commands show that look at a running fabric: tables and lines made from what agents say. Pure.
//!
//! Hosts may run agents of other versions, so that only what is shown is read of what they say.

mod columns;
pub mod hosts;
pub mod peers;
pub mod status;
pub mod watch;
