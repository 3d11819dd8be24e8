//! House rules of CONTRIBUTING.md that compilers do not check, as functions of a source file's text.
//!
//! [`check`] reads all Rust files that git knows; [`rules`] holds one function per rule; [`modules`] finds files that no
//! `mod` line names, which nobody would ever compile. The drawing must be what its source says, too.

mod modules;
mod rules;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::documents::drawing;

/// Something that a rule forbids, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    file: String,
    /// Counted from 1; 0 is the whole file.
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Checks all Rust sources of the workspace.
///
/// # Errors
/// git cannot be run, or a file not be read.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let files = sources(root)?;
    let mut findings = Vec::new();
    for (file, text) in &files {
        for (line, what) in rules::all(file, text) {
            findings.push(Finding { file: file.clone(), line, what });
        }
    }
    for file in modules::orphans(&files) {
        findings.push(Finding { file, line: 0, what: "no `mod` line and no Cargo target names this file".into() });
    }
    if !drawing::is_current(root)? {
        findings.push(Finding {
            file: drawing::PICTURE.into(),
            line: 0,
            what: "behind its source: run cargo xtask drawing".into(),
        });
    }
    Ok(findings)
}

/// The Rust files that git knows or would add, with their text.
fn sources(root: &Path) -> Result<BTreeMap<String, String>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.rs"])
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    let mut files = BTreeMap::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let path = root.join(name);
        // A file that was deleted but not yet in git's index any less.
        if path.is_file() {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
            files.insert(name.to_owned(), text);
        }
    }
    Ok(files)
}
