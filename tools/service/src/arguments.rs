//! How a daemon reads its command line.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Runs `daemon` with the options that the arguments say, the first of which is the program's name; or prints help, or what is wrong.
pub fn run<O: Parser>(arguments: impl IntoIterator<Item = OsString>, daemon: impl FnOnce(&O) -> ExitCode) -> ExitCode {
    match O::try_parse_from(arguments) {
        Ok(options) => daemon(&options),
        Err(error) => {
            // Help goes to standard output, mistakes to standard error; if neither can be written, nobody is there to read.
            drop(error.print());
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
