//! Flags and files, resolved: validated, total, no clap.
