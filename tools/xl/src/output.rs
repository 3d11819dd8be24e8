//! What goes to standard output and to logs.
//!
//! `println!` panics when nobody reads any more (`xl list | head -1`) or a disk is full. A command that cannot print ends
//! quietly; a monitor that cannot log goes on watching.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stderr, stdout};

use crate::failure::{Failure, Outcome};

/// Prints bytes to standard output.
pub fn print(bytes: impl AsRef<[u8]>) -> Outcome {
    let mut output = stdout().lock();
    let printed = output.write_all(bytes.as_ref()).and_then(|()| output.flush());
    printed.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::silent(),
        _ => Failure::new(format!("printing: {error}")),
    })
}

/// Prints a line to standard output.
pub fn line(text: Arguments<'_>) -> Outcome {
    print(format!("{text}\n"))
}

/// Writes a line to the monitor's log, which is its standard output. If that fails there is nowhere to say so.
pub fn log(text: Arguments<'_>) {
    drop(writeln!(stdout(), "{text}"));
}

/// Writes a line for the user to standard error. If that fails there is nowhere to say so.
pub fn note(text: Arguments<'_>) {
    drop(writeln!(stderr(), "{text}"));
}
