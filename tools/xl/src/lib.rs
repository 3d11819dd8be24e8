//! xl, the command line of the toolstack.
//!
//! In the order of the data: [`cli`] declares the commands, [`commands`] has one file for each, and what several of them
//! need is in [`session`] (hypervisor and xenstore), [`domain`] (creating, destroying, watching over a domain), [`console`],
//! [`userdata`], [`config`] (xl.cfg) and [`json`]. [`document`] tells people what the declarations say.

pub mod cli;
pub mod commands;
pub mod config;
pub mod console;
pub mod device_json;
pub mod document;
pub mod domain;
pub mod failure;
pub mod host_config;
pub mod json;
pub mod output;
pub mod session;
pub mod userdata;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use libxc::fault;
use rustix::process::{Signal, getpid, kill_process};

use crate::output::{note, print};

/// Runs the program with its arguments; the first is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match cli::Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error, &arguments)),
    };
    if let Err(error) = fail_as_told() {
        note(format_args!("xl: {error}"));
        return ExitCode::from(2);
    }
    let outcome = commands::run(&cli);
    if let Some(report) = fault::disarm() {
        tell(&report);
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                note(format_args!("xl: {failure}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Turns the switch of [`fault`] on if the environment says so. Programs that are started do not inherit it.
fn fail_as_told() -> Result<(), fault::Unknown> {
    let Some(text) = std::env::var_os(fault::VARIABLE) else { return Ok(()) };
    fault::arm(fault::parse(&text.to_string_lossy(), end)?);
    Ok(())
}

/// Ends this process as `kill -9` does.
fn end() -> ! {
    loop {
        if let Err(error) = kill_process(getpid(), Signal::KILL) {
            note(format_args!("xl: {error}"));
        }
    }
}

/// Says what the switch has done, for whoever turned it on.
fn tell(report: &fault::Report) {
    match &report.failed {
        Some(what) => note(format_args!("xl: {}: made to fail: {what}", fault::VARIABLE)),
        None => note(format_args!("xl: {}: nothing failed; {} were asked for", fault::VARIABLE, report.asked)),
    }
}

/// Says what is wrong with the arguments, or gives the help that was asked for. The exit codes are those of Xen's xl: 0 for
/// help, 2 for a wrong use of a command, 1 for what stands in front of commands and for one that does not exist.
fn usage(error: &clap::Error, arguments: &[OsString]) -> u8 {
    match error.kind() {
        // Without a command all commands are shown, on standard output, but that is no success.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => match print(error.render().to_string()) {
            Ok(()) | Err(_) => 1,
        },
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => u8::from(error.print().is_err()),
        kind => {
            if error.print().is_err() {
                return 1;
            }
            let is_option = |argument: &&OsString| argument.as_encoded_bytes().starts_with(b"-");
            let before_command = arguments.iter().skip(1).take_while(is_option);
            let wrong = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::String(text)) => text.as_str(),
                _ => "",
            };
            let global = kind == ErrorKind::UnknownArgument
                && before_command.into_iter().any(|argument| argument.to_string_lossy().starts_with(wrong));
            if kind == ErrorKind::InvalidSubcommand || global { 1 } else { 2 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_wrong_uses_are_xens() {
        let code = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            match cli::Cli::try_parse_from(&arguments) {
                Ok(_) => None,
                Err(error) => Some(usage(&error, &arguments)),
            }
        };
        assert_eq!(code("xl"), Some(1));
        assert_eq!(code("xl help"), Some(0));
        assert_eq!(code("xl list -h"), Some(0));
        assert_eq!(code("xl nonsense"), Some(1));
        assert_eq!(code("xl -V"), Some(1));
        assert_eq!(code("xl list --nonsense"), Some(2));
        assert_eq!(code("xl -v list -y"), Some(2));
        assert_eq!(code("xl pause"), Some(2));
        assert_eq!(code("xl list"), None);
    }
}
