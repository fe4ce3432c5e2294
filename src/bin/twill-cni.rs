//! Twill's CNI plugin, a drop-in replacement for flannel's: environment and stdin, the verb, stdout and exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use twill::cni;

fn main() -> ExitCode {
    let answer = cni::run(|name| std::env::var(name).ok(), io::stdin());
    let written = io::stdout().write_all(answer.stdout.as_bytes());
    let noted = io::stderr().write_all(answer.stderr.as_bytes());
    match (written, noted) {
        (Ok(()), Ok(())) => ExitCode::from(answer.code),
        _ => ExitCode::FAILURE,
    }
}
