//! Masquerade and forward rules: rendered (pure), then applied as one transaction.
