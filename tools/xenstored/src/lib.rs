//! xenstored: the daemon that keeps the tree through which domains and toolstacks find each other.
//!
//! Order of reading: `path`, `perms`, `limits`; `store` (the tree, what a client may do to it, transactions); `engine` (clients,
//! watches, domains: bytes in, bytes and records out); `persist` and `ring` (what records and ring pages look like); all of
//! that without any I/O. Then `options` and `daemon`, which have it. docs/design/0007 says how it survives a kill.

mod daemon;
mod engine;
mod limits;
mod options;
mod path;
mod perms;
mod persist;
mod ring;
mod store;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with its arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    service::arguments::run::<options::Options>(arguments, daemon::run)
}
