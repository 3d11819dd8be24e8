//! Several cases of layers 3 and 4 in one machine, one after the other: its boot is what takes time.
//!
//! The script in dom0 (`shared.sh`) goes through a list of cases and says how each ended; the ends are judged and reported
//! as they come. Cases come from [`super::scenarios`] and [`super::tiny`].

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::guest_list::Guest;
use super::{End, Report, tiny};
use crate::exit::Verdict;
use crate::harness::dom0::{self, Outcome, View};
use crate::harness::request::{PathPair, Request};
use crate::harness::watch::News;
use crate::paths::Paths;
use crate::progress;

/// Seconds for the boot and the end of the machine, on a slow and busy host.
const BOOT_SECONDS: u64 = 300;
/// Seconds between two cases.
const PAUSE_SECONDS: u64 = 60;

/// What is done in a case.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// A script runs, and may take this many seconds.
    Script(u32),
    /// A tiny guest is made by xl.
    Tiny(Guest),
}

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Its name in dom0, which is that of its file in /tests, too.
    pub(crate) name: String,
    /// Its name in the report.
    pub(crate) shown: String,
    /// The script or the program.
    pub(crate) file: PathBuf,
    /// Further files that must be in dom0.
    pub(crate) needs: Vec<PathPair>,
    /// What is done.
    pub(crate) work: Work,
}

impl Case {
    /// The line of the list in dom0.
    fn line(&self) -> String {
        match &self.work {
            Work::Script(seconds) => format!("scenario {} {seconds}\n", self.name),
            Work::Tiny(guest) => format!("tiny {} {} {}\n", self.name, guest.vcpus, guest.memory_mib),
        }
    }

    fn file_in_dom0(&self) -> String {
        match self.work {
            Work::Script(_) => format!("/tests/{}.sh", self.name),
            Work::Tiny(_) => format!("/tests/{}", self.name),
        }
    }

    fn seconds(&self) -> u64 {
        match self.work {
            Work::Script(seconds) => u64::from(seconds),
            Work::Tiny(_) => tiny::SECONDS,
        }
    }

    /// Whether an end is a success; the reason if it is not.
    fn judge(&self, text: &str) -> Result<(), String> {
        match &self.work {
            Work::Script(_) if text == "0" => Ok(()),
            Work::Script(_) => Err(format!("ended with status {text}")),
            Work::Tiny(guest) => tiny::judge(guest, text),
        }
    }
}

/// Runs the cases in a machine made by `request`, which has no script yet. `machine` names it in the report.
///
/// # Errors
/// The machine cannot be started.
pub(crate) fn run(
    paths: &Paths,
    machine: &str,
    mut request: Request,
    cases: &[Case],
    report: &mut Report,
) -> Result<()> {
    if cases.is_empty() || report.interrupted {
        return Ok(());
    }
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let (list, script) = (work.path().join("list"), work.path().join("script"));
    std::fs::write(&list, cases.iter().map(Case::line).collect::<String>())?;
    std::fs::write(&script, include_str!("shared.sh"))?;
    request.script = Some(script);
    request.put.push(PathPair { from: list.display().to_string(), to: "/tests/list".to_owned() });
    request
        .put
        .extend(cases.iter().map(|case| PathPair { from: case.file.display().to_string(), to: case.file_in_dom0() }));
    request.put.extend(cases.iter().flat_map(|case| case.needs.clone()));
    request.timeout = Some(limit(cases));
    let mut left: Vec<&Case> = cases.iter().collect();
    let outcome = {
        let mut step = Some(progress::quiet_step(&format!("{machine}: booting")));
        let (mut began, mut log) = (Instant::now(), PathBuf::new());
        let news = |news: News<'_>| match news {
            News::Booting { log: place } => log = place.to_path_buf(),
            News::CaseBegins(name) => {
                began = Instant::now();
                step = cases.iter().find(|case| case.name == name).map(|case| progress::quiet_step(&case.shown));
            }
            News::CaseEnded { name, text } => {
                drop(step.take());
                if let Some(at) = left.iter().position(|case| case.name == name) {
                    let case = left.remove(at);
                    let end = match case.judge(text) {
                        Ok(()) => End::Passed,
                        Err(why) => End::Failed(why, Some(log.clone())),
                    };
                    report.record(&case.shown, began.elapsed(), end);
                }
            }
            News::Milestone { .. } | News::Notice(_) => {}
        };
        let name = machine.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        dom0::run(paths, &request, View { name, screen: Box::new(std::io::sink()), news: Box::new(news) })?
    };
    end_machine(machine, &outcome, &left, report);
    Ok(())
}

/// Seconds to the first case, for each case, and to the end, at the most: the boot, or the longest case and what is between two.
fn limit(cases: &[Case]) -> u64 {
    cases.iter().map(|case| case.seconds() + PAUSE_SECONDS).fold(BOOT_SECONDS, u64::max)
}

/// Reports the cases that have not come to an end, and the machine if it ended wrongly.
fn end_machine(machine: &str, outcome: &Outcome, left: &[&Case], report: &mut Report) {
    let why = match &outcome.verdict {
        Verdict::Interrupted(_) => {
            report.record(machine, Duration::ZERO, End::Interrupted);
            return;
        }
        Verdict::Status(0) if outcome.power_off_failed => "the machine did not power off".to_owned(),
        Verdict::Status(0) if left.is_empty() => return,
        Verdict::Status(0) => "its end was not heard of".to_owned(),
        other => other.describe(),
    };
    let mut log = Some(outcome.log.clone());
    for case in left {
        report.record(&case.shown, Duration::ZERO, End::Failed(why.clone(), log.take()));
    }
    if left.is_empty() {
        report.record(machine, Duration::ZERO, End::Failed(why, log));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(name: &str) -> Case {
        Case {
            name: name.into(),
            shown: format!("layer 3: {name}"),
            file: format!("/w/{name}.sh").into(),
            needs: Vec::new(),
            work: Work::Script(60),
        }
    }

    fn outcome(verdict: Verdict, power_off_failed: bool) -> Outcome {
        Outcome { verdict, log: PathBuf::from("/none"), power_off_failed }
    }

    #[test]
    fn a_case_as_dom0_sees_it() {
        let case = script("guest-life");
        assert_eq!(
            (case.line().as_str(), case.file_in_dom0().as_str()),
            ("scenario guest-life 60\n", "/tests/guest-life.sh")
        );
        assert_eq!(case.judge("0"), Ok(()));
        assert!(case.judge("1").unwrap_err().contains("status 1"));
    }

    #[test]
    fn a_machine_that_hangs_is_given_up_after_its_longest_case() {
        assert_eq!(limit(&[script("a"), script("b")]), BOOT_SECONDS, "the boot takes longer");
        let long = Case { work: Work::Script(900), ..script("long") };
        assert_eq!(limit(&[script("a"), long, script("b")]), 900 + PAUSE_SECONDS);
    }

    #[test]
    fn cases_that_did_not_run_fail_for_the_machines_reason() {
        let (one, two) = (script("one"), script("two"));
        let mut report = Report::default();
        end_machine("m", &outcome(Verdict::HypervisorPanic, false), &[&one, &two], &mut report);
        assert_eq!(report.failures, ["layer 3: one", "layer 3: two"]);
    }

    #[test]
    fn a_machine_that_ends_wrongly_is_a_failure_of_its_own() {
        for bad in [outcome(Verdict::Status(0), true), outcome(Verdict::HypervisorPanic, false)] {
            let mut report = Report::default();
            end_machine("machine", &bad, &[], &mut report);
            assert_eq!(report.failures, ["machine"]);
        }
        let mut report = Report::default();
        end_machine("machine", &outcome(Verdict::Status(0), false), &[], &mut report);
        assert!(report.failures.is_empty());
        end_machine("machine", &outcome(Verdict::Interrupted(String::new()), false), &[], &mut report);
        assert!(report.interrupted);
    }
}
