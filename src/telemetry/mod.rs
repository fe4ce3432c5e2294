//! Logs, counters, the HTTP endpoints.
