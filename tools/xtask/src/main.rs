//! The developer's tool of Oxen: builds images, boots them in QEMU, tests and measures.
//!
//! Run as `cargo xtask COMMAND`. The order of the data: a command (`commands`) makes sure that programs and packages are
//! there (`provision`), builds our own (`artifacts`), makes an image (`initramfs`), boots it (`qemu`), follows its
//! console (`console`, `harness`) and turns the end into an exit code (`exit`).

mod artifacts;
mod commands;
mod console;
mod exit;
mod harness;
mod initramfs;
mod paths;
mod progress;
mod provision;
mod qemu;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::paths::Paths;

/// Builds, boots, tests and measures Oxen
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the images in target/oxen
    Build,
    /// Boot a Linux control domain and run a script or a shell in it
    Dom0(Box<harness::request::Request>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Paths::find().and_then(|paths| match &cli.command {
        Command::Build => commands::build::run(&paths),
        Command::Dom0(request) => Ok(commands::dom0::run(&paths, request)),
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
