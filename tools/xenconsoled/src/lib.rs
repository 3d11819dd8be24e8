//! xenconsoled: the daemon that carries bytes between guests' console rings, pseudo-terminals and logs.
//!
//! Order of reading: `options`; `ring` (the page that a guest shares), `backlog` (output that nobody has read yet), `log` (files with
//! a size), `pty`; `console`, which is all of one guest's; `daemon`, the loop over all guests and xenstore.
//!
//! A console belongs to its guest: nothing is kept here that a restart would lose but the backlog. Output is in the log before the ring
//! says that it was read, so a kill may repeat the last bytes of a log and never loses any.

mod backlog;
mod console;
mod daemon;
mod log;
mod options;
mod pty;
mod ring;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with its arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    service::arguments::run::<options::Options>(arguments, daemon::run)
}
