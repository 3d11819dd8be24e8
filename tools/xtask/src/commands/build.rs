//! `cargo xtask build`: makes the images in `target/oxen`.

use std::process::ExitCode;

use anyhow::Result;

use crate::artifacts;
use crate::paths::Paths;
use crate::progress;

/// Builds everything there is.
pub(crate) fn run(paths: &Paths) -> Result<ExitCode> {
    for built in [artifacts::hypervisor(paths)?, artifacts::xl(paths)?, artifacts::xenstored(paths)?] {
        progress::note(&format!("made {}", built.display()));
    }
    Ok(ExitCode::SUCCESS)
}
