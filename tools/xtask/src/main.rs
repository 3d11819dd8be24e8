//! The developer's tool of Oxen: builds images, boots them in QEMU, tests and measures.
//!
//! Run as `cargo xtask COMMAND`. The order of the data: a command (`commands`) makes sure that programs and packages are
//! there (`provision`), builds our own (`artifacts`), makes an image (`initramfs`, `disk`), boots it (`qemu`), follows its
//! console (`console`, `harness`) and turns the end into an exit code (`exit`). `testing` does so for many machines in a row,
//! `bench` reads numbers from them, and
//! `documents` makes what is in docs/ from all of it.

mod artifacts;
mod bench;
mod bochs;
mod changeset;
mod commands;
mod console;
mod disk;
mod documents;
mod exit;
mod harness;
mod initramfs;
mod iso;
mod lint;
mod paths;
mod progress;
mod provision;
mod qemu;
mod testing;

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
    /// Make our xl's manual pages and shell completions
    Docs,
    /// Draw docs/architecture.svg from its description
    Drawing,
    /// Make Debian 12 disks for the control domain and for guests
    Image,
    /// Boot a Linux control domain and run a script or a shell in it
    Dom0(Box<harness::request::Request>),
    /// Boot a bare-metal PVH guest as the control domain on Oxen
    Guest(commands::guest::GuestArgs),
    /// Make target/oxen/oxen.iso: hypervisor, dom0 kernel and initramfs behind GRUB
    Iso(Box<commands::iso::IsoArgs>),
    /// Make the tables of docs/interop.md from the scenarios and from results of tests
    Interop(commands::interop::InteropArgs),
    /// Show what docs/walkthrough.md shows, and put it there
    Walkthrough,
    /// Boot everything once: hypervisor, dom0, a guest and its console, power-off
    Demo(commands::demo::DemoArgs),
    /// Measure Oxen and Debian's Xen side by side, in instructions and in pages
    Bench(commands::bench::BenchArgs),
    /// Check formatting, clippy for every target, and the house rules
    Lint,
    /// Run the tests
    Test(commands::test::TestArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Paths::find().and_then(|paths| match &cli.command {
        Command::Build => commands::build::run(&paths),
        Command::Docs => commands::docs::run(&paths),
        Command::Drawing => commands::drawing::run(&paths),
        Command::Image => commands::image::run(&paths),
        Command::Dom0(request) => Ok(commands::dom0::run(&paths, request)),
        Command::Guest(args) => Ok(commands::guest::run(&paths, args)),
        Command::Iso(args) => commands::iso::run(&paths, args),
        Command::Interop(args) => commands::interop::run(&paths, args),
        Command::Walkthrough => commands::walkthrough::run(&paths),
        Command::Demo(args) => commands::demo::run(&paths, args),
        Command::Bench(args) => commands::bench::run(&paths, args),
        Command::Lint => commands::lint::run(&paths),
        Command::Test(args) => Ok(commands::test::run(&paths, args)),
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
