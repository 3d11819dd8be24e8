//! `cargo xtask test`: four layers, from host tests to whole systems, and one report.
//!
//! [`host`] is layer 1, [`guests`] layer 2, [`scenarios`] layers 3 and 4: each of those runs in a machine of its own or, by
//! [`shared`], with others and with the [`tiny`] guests in one. Each adds its cases to the [`Report`]. When all layers run, 4 runs
//! [`beside`] 3.

pub(crate) mod beside;
pub(crate) mod boot_paths;
pub(crate) mod guest_list;
pub(crate) mod guests;
pub(crate) mod header;
pub(crate) mod host;
pub(crate) mod scenarios;
pub(crate) mod shared;
pub(crate) mod tiny;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::exit::Verdict;
use crate::progress;

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Passed,
    /// With the reason, and the console's log if there is one.
    Failed(String, Option<PathBuf>),
    /// With the reason.
    Skipped(String),
    /// The person wants no more.
    Interrupted,
}

impl End {
    /// A machine's verdict that is not the wanted one.
    pub(crate) fn from_unwanted(verdict: &Verdict, log: PathBuf) -> Self {
        match verdict {
            Verdict::Interrupted(_) => Self::Interrupted,
            other => Self::Failed(other.describe(), Some(log)),
        }
    }
}

/// What the whole command found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: usize,
    skipped: usize,
    failures: Vec<String>,
    /// The person wants no more; further cases do not run.
    pub(crate) interrupted: bool,
}

/// Lines of a failed machine's console that are shown.
const SHOWN_LINES: usize = 30;

impl Report {
    /// Runs one case and counts its end; does nothing after an interruption. A case whose emulator dies by a known defect of its own
    /// runs once more, and that is said.
    pub(crate) fn case(&mut self, name: &str, mut run: impl FnMut() -> End) {
        if self.interrupted {
            return;
        }
        let started = Instant::now();
        let step = progress::quiet_step(name);
        let mut end = run();
        if let End::Failed(why, _) = &end
            && is_known_defect(why)
        {
            println!("again    {name}: {why}");
            end = run();
        }
        drop(step);
        self.record(name, started.elapsed(), end);
    }

    /// Counts and shows the end of a case that has taken this time; does nothing after an interruption.
    pub(crate) fn record(&mut self, name: &str, took: Duration, end: End) {
        if self.interrupted {
            return;
        }
        let seconds = took.as_secs_f64();
        match end {
            End::Passed => {
                println!("ok       {name} ({seconds:.1} s)");
                self.passed += 1;
            }
            End::Skipped(why) => {
                println!("skipped  {name}: {why}");
                self.skipped += 1;
            }
            End::Interrupted => {
                println!("stopped  {name} ({seconds:.1} s)");
                self.interrupted = true;
            }
            End::Failed(why, log) => {
                println!("FAILED   {name} ({seconds:.1} s): {why}");
                if let Some(log) = log {
                    show_end(&log);
                }
                self.failures.push(name.to_owned());
            }
        }
    }

    /// Counts cases that someone else has run and shown.
    pub(crate) fn add(&mut self, passed: usize, failures: Vec<String>, skipped: usize) {
        self.passed += passed;
        self.failures.extend(failures);
        self.skipped += skipped;
    }

    /// Prints the sum. True when nothing failed and something ran.
    pub(crate) fn finish(self) -> bool {
        for name in &self.failures {
            println!("failed: {name}");
        }
        if self.skipped > 0 {
            println!("{} skipped", self.skipped);
        }
        println!("{}", summary(self.passed, self.failures.len()));
        if !self.interrupted && self.passed == 0 && self.failures.is_empty() {
            progress::warn("no test ran");
            return false;
        }
        self.failures.is_empty() && !self.interrupted
    }
}

/// Whether a machine ended because of the emulator itself (tests/guests/README.md): QEMU 10.0 looks a device's access up in the wrong
/// table now and then when another processor changes the memory map.
fn is_known_defect(why: &str) -> bool {
    why.contains("iotlb_to_section: Assertion")
}

fn summary(passed: usize, failed: usize) -> String {
    format!("{passed} passed, {failed} failed")
}

/// The end of a log, for the person who has to find the reason.
fn show_end(log: &std::path::Path) {
    if let Ok(bytes) = std::fs::read(log) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
            println!("    | {}", line.trim_end());
        }
    }
    println!("    log: {}", log.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_runs_after_an_interruption() {
        let mut report = Report::default();
        report.case("a", || End::Interrupted);
        report.case("b", || panic!("must not run"));
        assert!(!report.finish());
    }

    #[test]
    fn a_known_defect_of_the_emulator_has_one_more_try() {
        let why =
            "the emulator ended (signal: 6): iotlb_to_section: Assertion `section_index < d->map.sections_nb' failed.";
        let mut runs = 0;
        let mut report = Report::default();
        report.case("a", || {
            runs += 1;
            if runs == 1 { End::Failed(why.into(), None) } else { End::Passed }
        });
        assert_eq!((runs, report.passed), (2, 1));
        report.case("b", || {
            runs += 1;
            End::Failed(why.into(), None)
        });
        assert_eq!((runs, report.failures.len()), (4, 1), "twice is a failure");
        report.case("c", || {
            runs += 1;
            End::Failed("the emulator ended (signal: 6): something else".into(), None)
        });
        assert_eq!((runs, report.failures.len()), (5, 2), "what is not known is a failure at once");
    }

    #[test]
    fn one_failure_fails_all_and_so_does_an_empty_run() {
        let mut report = Report::default();
        report.case("a", || End::Passed);
        report.case("b", || End::Skipped("no".into()));
        assert_eq!((report.passed, report.skipped, report.failures.len()), (1, 1, 0));
        report.case("c", || End::Failed("why".into(), None));
        assert!(!report.finish());
        assert!(!Report::default().finish());
        assert_eq!(summary(3, 1), "3 passed, 1 failed");
    }
}
