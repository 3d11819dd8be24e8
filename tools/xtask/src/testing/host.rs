//! Layer 1: the host tests of all architecture-independent code (`cargo test` of the default members).

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Report;
use crate::paths::Paths;
use crate::progress;

/// Counts in cargo's output.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failures: Vec<String>,
    ignored: usize,
}

/// Runs the tests whose names contain the filter.
pub(crate) fn run(paths: &Paths, filter: Option<&str>, report: &mut Report) -> Result<()> {
    let step = progress::step("layer 1: host tests");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&paths.root).args(["test", "--no-fail-fast"]);
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    let output = command.stdin(Stdio::null()).output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut counts = count(&text);
    if !output.status.success() {
        drop(step);
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        if counts.failures.is_empty() {
            // Code that does not compile has no failed test to name.
            counts.failures.push("cargo test".to_owned());
        }
    } else {
        step.done();
        println!("ok       layer 1: {} host tests", counts.passed);
    }
    report.add(counts.passed, counts.failures, counts.ignored);
    Ok(())
}

/// Reads the lines of Rust's test harness.
fn count(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output.lines() {
        let Some((name, end)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) else {
            continue;
        };
        match end.split([',', ' ']).next() {
            Some("ok") => counts.passed += 1,
            Some("FAILED") => counts.failures.push(format!("layer 1: {name}")),
            Some("ignored") => counts.ignored += 1,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_test_harness() {
        let text = "running 4 tests\ntest a::b ... ok\ntest a::c - should panic ... ok\ntest d ... FAILED\ntest e ... ignored, slow\n\ntest result: FAILED. 2 passed; 1 failed; 1 ignored\n";
        let counts = count(text);
        assert_eq!((counts.passed, counts.ignored), (2, 1));
        assert_eq!(counts.failures, ["layer 1: d"]);
    }
}
