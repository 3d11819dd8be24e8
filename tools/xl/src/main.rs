//! The `xl` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    xl::run(std::env::args_os())
}
