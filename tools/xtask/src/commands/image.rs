//! `cargo xtask image`: Debian 12 disks for the control domain and for guests, in `target/oxen/disks`.

use std::process::ExitCode;

use anyhow::Result;

use crate::disk::{self, ACCOUNT};
use crate::paths::Paths;
use crate::progress;

/// Makes the disks, or finds them as they are.
pub(crate) fn run(paths: &Paths) -> Result<ExitCode> {
    let disks = disk::ensure(paths)?;
    for disk in [&disks.dom0, &disks.guest] {
        progress::note(&format!(
            "{} boots with {} and {}",
            disk.image.display(),
            disk.kernel.display(),
            disk.initramfs.display()
        ));
    }
    progress::note(&format!("the account is {} with the password {}", ACCOUNT.0, ACCOUNT.1));
    Ok(ExitCode::SUCCESS)
}
