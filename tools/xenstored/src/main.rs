//! The xenstored program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    xenstored::run(std::env::args_os())
}
