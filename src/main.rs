//! Twill's command line: flags, configuration, command, exit code.

fn main() {}
