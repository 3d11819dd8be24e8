//! xl, the command line of the toolstack.
//!
//! In the order of the data: [`cli`] declares the commands, [`commands`] has one file for each, and what several of them
//! need is in [`session`] (hypervisor and xenstore), [`domain`] (creating, destroying, watching over a domain), [`console`],
//! [`userdata`], [`config`] (xl.cfg) and [`json`].

pub mod cli;
pub mod commands;
pub mod config;
pub mod console;
pub mod domain;
pub mod failure;
pub mod json;
pub mod output;
pub mod session;
pub mod userdata;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::output::note;
use clap::Parser;
use clap::error::ErrorKind;

/// Runs the program with its arguments; the first is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                note(format_args!("xl: {failure}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Help that was asked for is a success; a command that does not exist exits with 1 and a wrong use of one with 2, as from
/// Xen's xl.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if printed.is_ok() => ExitCode::SUCCESS,
        ErrorKind::InvalidSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}
