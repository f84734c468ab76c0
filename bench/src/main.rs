//! `chainring-bench`: measures, and what a figure is worth: the bound of the same minute beside
//! it, the spread over repetitions, and where and of what it was taken.
//!
//! Invariants: nothing but the result goes to stdout; exit codes are those of `chainring`; a
//! figure of runs whose logs were not identical ends with failure.

mod arguments;
mod place;
mod ring;
mod show;
mod spread;
mod stream;

use arguments::{Arguments, Command};
use chainring::cli::out::{Exit, Failure, Format, finish};
use clap::{Parser, error::ErrorKind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    match Arguments::try_parse_from(&arguments) {
        Ok(Arguments { format, command: Command::Ring(plan) }) => {
            finish(format, ring::measure(&plan).map(|measured| show::output(&plan, &measured)))
        }
        Err(error) => refuse(&error, &arguments),
    }
}

/// Help and version go to stdout and end well; the rest is wrong usage, in the format asked for.
fn refuse(error: &clap::Error, arguments: &[std::ffi::OsString]) -> ExitCode {
    let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = arguments.iter().any(|argument| argument == "--format=json")
        || arguments.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json");
    if json && !shown {
        let message = error.render().to_string();
        return finish(Format::Json, Err(Failure::new(Exit::Usage, "usage", message.trim())));
    }
    // Nobody is left to be told if the terminal is gone.
    let _ = error.print();
    ExitCode::from(if shown { Exit::Ok } else { Exit::Usage } as u8)
}
