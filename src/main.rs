//! Twill's command line: flags, configuration, command, exit code.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use anstream::AutoStream;
use twill::{cli, commands};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let exit = match cli::parse(&args, &cli::environment(std::env::vars_os())) {
        Ok(command) => commands::run(command),
        Err(exit) => exit,
    };
    match exit.write(&mut AutoStream::auto(io::stdout()), &mut AutoStream::auto(io::stderr())) {
        Ok(()) => ExitCode::from(exit.code),
        Err(_) => ExitCode::FAILURE,
    }
}
