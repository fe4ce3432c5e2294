//! Belief about the kernel; passes; retry with jittered backoff.
