//! Debian 12 disks: one for the control domain, one for guests.
//!
//! [`recipe`] makes a Debian of packages with mmdebstrap, once for each recipe; [`assemble`] makes a disk of it with our own
//! programs on it, again whenever one of them has changed. `cargo xtask image` shows what came out; `harness` boots it for
//! `cargo xtask dom0 --disk`. No loop device and no mount is needed, so that it works in a plain chroot, too.

mod assemble;
mod recipe;

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::paths::{Paths, find_program};
use crate::progress;
use crate::provision::{apt, packages};

/// Name and password of the account that both disks have.
pub(crate) const ACCOUNT: (&str, &str) = ("root", "oxen");

/// A disk, and what boots it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// One ext4 file system, without a partition table.
    pub(crate) image: PathBuf,
    /// The kernel that is on it.
    pub(crate) kernel: PathBuf,
    /// The initramfs that is on it.
    pub(crate) initramfs: PathBuf,
}

/// Both disks.
#[derive(Clone, Debug)]
pub(crate) struct Disks {
    /// The control domain's, with the label `oxen-dom0`. The guest's disk, kernel and initramfs are in its `/guest`.
    pub(crate) dom0: Disk,
    /// A guest's, with the label `oxen-guest`.
    pub(crate) guest: Disk,
}

/// The label of the control domain's file system.
pub(crate) const DOM0_LABEL: &str = "oxen-dom0";

/// Makes both disks, unless they are there as they would be made now.
///
/// # Errors
/// A program is missing and cannot be installed, a package cannot be fetched, or the disk of this machine is full.
pub(crate) fn ensure(paths: &Paths) -> Result<Disks> {
    let contents = assemble::Contents::gather(paths)?;
    let key = assemble::key(&contents)?;
    if let Some(disks) = assemble::existing(paths, &key) {
        return Ok(disks);
    }
    programs(paths)?;
    let _lock = packages::lock(paths)?;
    if let Some(disks) = assemble::existing(paths, &key) {
        return Ok(disks);
    }
    let (dom0, guest) = recipe::both(paths)?;
    let step = progress::step("making the disks");
    let disks = assemble::make(paths, &contents, &key, &dom0, &guest).context("cannot make the disks")?;
    step.done();
    Ok(disks)
}

/// What makes a disk: programs, and the packages that have them. Whoever is not root needs fakeroot as well.
const PROGRAMS: [(&str, &str); 3] =
    [("mmdebstrap", "mmdebstrap"), ("mkfs.ext4", "e2fsprogs"), ("fakeroot", "fakeroot")];

/// Makes sure that the programs are installed.
fn programs(paths: &Paths) -> Result<()> {
    let missing = || -> Vec<&str> {
        PROGRAMS
            .iter()
            .filter(|(program, _)| *program != "fakeroot" || !apt::is_root())
            .filter(|(program, _)| find_program(program).is_none())
            .map(|(_, package)| *package)
            .collect()
    };
    if missing().is_empty() {
        return Ok(());
    }
    let _lock = packages::lock(paths)?;
    let names = missing();
    if names.is_empty() {
        return Ok(());
    }
    let step = progress::step(&format!("installing {}", names.join(", ")));
    if apt::install(&names, None).is_err() {
        apt::update()?;
        apt::install(&names, None)?;
    }
    step.done();
    Ok(())
}
