//! The host's network stack, as far as Twill owns it.
