//! `cargo xtask build`: makes the images in `target/oxen`.

use std::process::ExitCode;

use anyhow::Result;

use crate::artifacts;
use crate::paths::Paths;
use crate::progress;

/// Builds everything there is.
pub(crate) fn run(paths: &Paths) -> Result<ExitCode> {
    let mut all = vec![artifacts::hypervisor(paths)?, artifacts::xl(paths)?];
    all.extend(artifacts::daemons(paths)?);
    for built in all {
        progress::note(&format!("made {}", built.display()));
    }
    Ok(ExitCode::SUCCESS)
}
