//! Twill's command line: flags, configuration, command, exit code.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use twill::cli::{self, Command, Exit, Stream};
use twill::lab::demo;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let exit = match cli::parse(&args, &cli::environment(std::env::vars_os())) {
        Ok(command) => run(&command),
        Err(exit) => exit,
    };
    match exit.write(&mut io::stdout(), &mut io::stderr()) {
        Ok(()) => ExitCode::from(exit.code),
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(command: &Command) -> Exit {
    match command {
        Command::Version => {
            Exit { text: format!("twill {}\n", cli::VERSION), stream: Stream::Stdout, code: 0 }
        }
        Command::Demo(config) => {
            Exit { text: String::new(), stream: Stream::Stdout, code: demo::command(config) }
        }
        Command::Agent(_)
        | Command::Plan(_)
        | Command::Cleanup { .. }
        | Command::Status { .. }
        | Command::ConfigSet { .. }
        | Command::ConfigGet { .. }
        | Command::LeaseList { .. }
        | Command::LeaseReserve { .. }
        | Command::LeaseRelease { .. } => Exit {
            text: "twill: this build cannot do that yet\n".to_owned(),
            stream: Stream::Stderr,
            code: 70,
        },
    }
}
