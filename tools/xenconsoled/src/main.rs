//! The xenconsoled program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    xenconsoled::run(std::env::args_os())
}
