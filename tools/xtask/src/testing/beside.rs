//! A layer that runs beside another, in a process of its own: an emulated machine keeps about one processor busy, so that two
//! machines take hardly longer than one where there are two.
//!
//! Before: `commands::test`, which starts it. After: its report joins the [`Report`] of the process that waits for it.

use std::ffi::OsString;
use std::fs::File;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::Report;
use crate::progress;

/// The other process.
pub(crate) struct Beside {
    name: String,
    child: Child,
    folder: TempDir,
}

impl Beside {
    /// Starts `cargo xtask test` with these arguments. What it says is kept until its end.
    ///
    /// # Errors
    /// There is no program to start, or no place for what it says.
    pub(crate) fn start(name: &str, arguments: Vec<OsString>) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let child = Command::new(program)
            .arg("test")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("report"))?)
            .stderr(File::create(folder.path().join("messages"))?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        progress::note(&format!("{name} runs beside this one"));
        Ok(Self { name: name.to_owned(), child, folder })
    }

    /// Waits for the end, shows the report, and adds it to another.
    ///
    /// # Errors
    /// The process cannot be waited for, or its report cannot be read.
    pub(crate) fn finish(mut self, report: &mut Report) -> Result<()> {
        let step = progress::quiet_step(&format!("the end of {}", self.name));
        let status = self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        drop(step);
        let text = std::fs::read_to_string(self.folder.path().join("report")).context("cannot read the report")?;
        let mut found = Found::read(&text);
        print!("{}", found.shown);
        if !status.success() {
            if found.failures.is_empty() {
                found.failures.push(format!("{}: {status}", self.name));
            }
            let messages = std::fs::read(self.folder.path().join("messages")).unwrap_or_default();
            eprint!("{}", String::from_utf8_lossy(&messages));
        }
        report.add(found.passed, found.failures, found.skipped);
        report.interrupted |= found.is_interrupted;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It has ended already, unless something here went wrong; its machines end with it.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// What a report says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Its cases, without their sum.
    shown: String,
    passed: usize,
    failures: Vec<String>,
    skipped: usize,
    is_interrupted: bool,
}

impl Found {
    /// Reads what [`Report`] prints.
    fn read(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("failed: ") {
                found.failures.push(name.to_owned());
                continue;
            }
            let is_sum = line.ends_with(" skipped") || line.contains(" passed, ") && line.ends_with(" failed");
            if is_sum && line.starts_with(|first: char| first.is_ascii_digit()) {
                continue;
            }
            match line.split_whitespace().next() {
                Some("ok") => found.passed += 1,
                Some("skipped") => found.skipped += 1,
                Some("stopped") => found.is_interrupted = true,
                _ => {}
            }
            found.shown += line;
            found.shown.push('\n');
        }
        found
    }
}

/// The arguments that make a process run one layer as this one would.
pub(crate) fn arguments(layer: u8, options: &[(&str, Option<String>)]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--layer".into(), layer.to_string().into()];
    for (name, value) in options {
        if let Some(value) = value {
            words.extend([OsString::from(name), value.into()]);
        }
    }
    words
}

/// Whether this machine has a processor for another machine.
pub(crate) fn has_room() -> bool {
    std::thread::available_parallelism().is_ok_and(|count| count.get() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_is_printed() {
        let text = "ok       layer 4: boot (3.5 s)\nskipped  layer 4: a: not for xen\nFAILED   layer 4: b (1.0 s): ended with \
                    status 1\n    | ok in the log\n    log: /x\nfailed: layer 4: b\n1 skipped\n1 passed, 1 failed\n";
        let found = Found::read(text);
        assert_eq!((found.passed, found.skipped, found.is_interrupted), (1, 1, false));
        assert_eq!(found.failures, ["layer 4: b"]);
        assert!(found.shown.ends_with("    log: /x\n") && found.shown.contains("FAILED   layer 4: b"));
        assert!(Found::read("stopped  layer 4: c (0.1 s)\n").is_interrupted);
    }

    #[test]
    fn what_was_chosen_is_passed_on() {
        let words = arguments(4, &[("--tools", Some("oxen".into())), ("--hypervisor", None)]);
        assert_eq!(words, ["--layer", "4", "--tools", "oxen"]);
    }
}
