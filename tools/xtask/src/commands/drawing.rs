//! `cargo xtask drawing`: draws docs/architecture.svg from its description.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::documents::drawing;
use crate::paths::Paths;
use crate::progress;

/// Draws it.
///
/// # Errors
/// The description is wrong, or the picture cannot be written.
pub(crate) fn run(paths: &Paths) -> Result<ExitCode> {
    let picture = drawing::draw(&paths.root)?;
    std::fs::write(paths.root.join(drawing::PICTURE), picture)
        .with_context(|| format!("cannot write {}", drawing::PICTURE))?;
    progress::note(&format!("drew {}", drawing::PICTURE));
    Ok(ExitCode::SUCCESS)
}
