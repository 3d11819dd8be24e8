//! `cargo xtask lint`: formatting, clippy for every target, and the house rules that no tool knows.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::lint;
use crate::paths::Paths;
use crate::progress;

/// The bare-metal packages, which the host's clippy does not see.
const BARE: [&str; 5] = ["machine", "xen-core", "oxen", "rt", "guests"];
const BARE_TARGET: &str = "x86_64-unknown-none";

/// Runs all checks and says what they found.
///
/// # Errors
/// A tool cannot be run, or a source file not be read.
pub(crate) fn run(paths: &Paths) -> Result<ExitCode> {
    let bare: Vec<&str> = BARE.iter().flat_map(|package| ["--package", package]).collect();
    let mut good = cargo(paths, "formatting", &["fmt", "--all", "--check"])?;
    good &= cargo(paths, "clippy for the host", &["clippy", "--all-targets", "--", "--deny", "warnings"])?;
    crate::artifacts::ensure_target(paths, BARE_TARGET)?;
    let words = [&["clippy", "--target", BARE_TARGET][..], &bare, &["--", "--deny", "warnings"]].concat();
    good &= cargo(paths, "clippy for bare metal", &words)?;
    let findings = lint::check(&paths.root)?;
    for finding in &findings {
        println!("{finding}");
    }
    progress::note(&format!("house rules: {} findings", findings.len()));
    Ok(if good && findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo(paths: &Paths, what: &str, words: &[&str]) -> Result<bool> {
    let step = progress::step(what);
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&paths.root)
        .args(words)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run cargo {}", words.join(" ")))?;
    if status.success() {
        step.done();
    } else {
        drop(step);
        progress::warn(&format!("{what}: cargo's messages are above"));
    }
    Ok(status.success())
}
