//! Tests against the real kernel, each in network namespaces of its own.

mod filter;
mod lab;
