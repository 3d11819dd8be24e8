//! `cargo xtask iso`: `target/oxen/oxen.iso`, to boot Oxen with a dom0 shell by GRUB, in an emulator or on a machine.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::harness::request::Request;
use crate::harness::{boot, dom0};
use crate::iso::{self, Entry, Protocol};
use crate::paths::Paths;
use crate::progress;
use crate::provision::grub;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct IsoArgs {
    #[command(flatten)]
    request: Request,
}

/// Seconds for which GRUB shows its menu.
const MENU_SECONDS: u32 = 5;
/// Marks init's messages; there is no harness that reads them.
const MARKER: &str = "dom0-init:";

/// Makes the image.
pub(crate) fn run(paths: &Paths, args: &IsoArgs) -> Result<ExitCode> {
    grub::ensure(paths)?;
    let prepared = dom0::prepare(paths, &args.request, MARKER, "iso")?;
    let entries = [1, 2].map(|vcpus| {
        let request = Request { smp: Some(vcpus), ..args.request.clone() };
        Entry {
            title: format!("Oxen, dom0 with {vcpus} vCPU{}", if vcpus == 1 { "" } else { "s" }),
            protocol: Protocol::Multiboot2,
            hypervisor_args: boot::hypervisor_line(&request),
            dom0_args: boot::dom0_line(&request),
        }
    });
    let out = paths.images.join("oxen.iso");
    let step = progress::step("making the ISO image");
    iso::make(&out, &prepared.files(), &entries, MENU_SECONDS)?;
    step.done();
    progress::note(&format!("made {}", out.display()));
    Ok(ExitCode::SUCCESS)
}
