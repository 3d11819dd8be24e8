//! The programs that make a bootable ISO image; installed only when `cargo xtask iso` asks for one.

use anyhow::Result;

use super::{apt, packages};
use crate::paths::{Paths, find_program};
use crate::progress;

/// Programs that must be there, beside GRUB's modules for BIOS machines.
const PROGRAMS: [&str; 3] = ["grub-mkrescue", "xorriso", "mformat"];
/// Folder of GRUB's modules for BIOS machines, from grub-pc-bin.
pub(crate) const MODULES: &str = "/usr/lib/grub/i386-pc";
/// Debian's packages with all of that.
const PACKAGES: [&str; 4] = ["grub-common", "grub-pc-bin", "xorriso", "mtools"];

fn present() -> bool {
    PROGRAMS.iter().all(|name| find_program(name).is_some()) && std::path::Path::new(MODULES).is_dir()
}

/// Makes sure that grub-mkrescue and what it calls are installed.
pub(crate) fn ensure(paths: &Paths) -> Result<()> {
    if present() {
        return Ok(());
    }
    let _lock = packages::lock(paths)?;
    if present() {
        return Ok(());
    }
    let step = progress::step("installing GRUB's image tools");
    if apt::install(&PACKAGES, None).is_err() {
        apt::update()?;
        apt::install(&PACKAGES, None)?;
    }
    anyhow::ensure!(
        present(),
        "grub-mkrescue, xorriso, mformat or {MODULES} are still missing after installing {}",
        PACKAGES.join(", ")
    );
    step.done();
    Ok(())
}
