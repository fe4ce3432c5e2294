//! The file CNI plugins depend on: read, and atomically written.
