//! `cargo xtask guest`: one bare-metal guest as the control domain, directly on the hypervisor.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::exit::Verdict;
use crate::harness::dom0::View;
use crate::harness::guest::{self, GuestRequest};
use crate::paths::Paths;
use crate::progress;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct GuestArgs {
    /// The guest: an ELF file with a PVH entry note
    elf: PathBuf,
    #[command(flatten)]
    request: GuestRequest,
    /// Arguments for QEMU
    #[arg(last = true)]
    qemu_args: Vec<String>,
}

/// Runs one guest.
pub(crate) fn run(paths: &Paths, args: &GuestArgs) -> ExitCode {
    let verdict = match boot(paths, args) {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Broken(format!("{error:#}")),
    };
    progress::note(&verdict.describe());
    verdict.exit_code()
}

fn boot(paths: &Paths, args: &GuestArgs) -> Result<Verdict> {
    let view = View { name: "guest".to_owned(), screen: Box::new(std::io::stdout()), news: Box::new(|_| {}) };
    Ok(guest::run(paths, &args.elf, &args.request, &args.qemu_args, view)?.verdict)
}
