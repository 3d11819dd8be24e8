//! `cargo xtask docs`: manual pages and shell completions of our xl, in target/oxen/docs.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::paths::Paths;
use crate::progress;

/// Makes them. They come from xl's own declarations, so a program of its package writes them.
pub(crate) fn run(paths: &Paths) -> Result<ExitCode> {
    let out = paths.images.join("docs");
    let step = progress::step("making manual pages and completions");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&paths.root)
        .args(["run", "--quiet", "--package", "xl", "--example", "pages", "--"])
        .arg(&out)
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the pages cannot be made; cargo's messages are above");
    step.done();
    progress::note(&format!("made {}/man and {}/completions", out.display(), out.display()));
    Ok(ExitCode::SUCCESS)
}
