//! The xenconsoled program: everything is in the library.

use std::process::ExitCode;

/// Programs are linked with musl, whose own allocator gives memory back to the kernel and takes it again all the time.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    xenconsoled::run(std::env::args_os())
}
