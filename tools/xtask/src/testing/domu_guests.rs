//! The tiny guests of `tests/guests` once more, as domains made by xl: part of layer 3.
//!
//! All of them run one after the other in a single machine with a Linux dom0, since its boot is what takes time. The
//! script in dom0 (`domu-guests.sh`) writes a line per guest, which comes out by `--get` and is judged here.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::guest_list::{self, Guest, Role, WantedEnd};
use super::guests::program;
use super::scenarios::Overrides;
use super::{End, Report};
use crate::artifacts;
use crate::console::crash::DomainEnd;
use crate::exit::Verdict;
use crate::harness::dom0::{self, Outcome, View};
use crate::harness::request::{Hypervisor, PathPair, Request};
use crate::paths::Paths;
use crate::progress;

/// Seconds for the boot and for each guest, on a slow and busy machine.
const BOOT_SECONDS: usize = 240;
const GUEST_SECONDS: usize = 60;

/// Runs the guests whose names contain the filter.
///
/// # Errors
/// The guests cannot be built, or the machine not be started.
pub(crate) fn run(paths: &Paths, filter: Option<&str>, overrides: Overrides, report: &mut Report) -> Result<()> {
    let guests = guest_list::read(&paths.root, Role::Guest, filter)?;
    if guests.is_empty() || report.interrupted {
        return Ok(());
    }
    let programs = artifacts::test_guests(paths)?;
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let request = request(&guests, &programs, work.path().to_path_buf(), overrides)?;
    let step = progress::quiet_step(&format!("layer 3: {} guests made by xl", guests.len()));
    let view =
        View { name: "scenario-domu-guests".to_owned(), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    let outcome = dom0::run(paths, &request, view)?;
    drop(step);
    let results = std::fs::read_to_string(work.path().join("results")).unwrap_or_default();
    let mut blamed = false;
    for guest in &guests {
        report.case(&format!("layer 3: {}", guest.test_name(Role::Guest)), || {
            judge(guest, &results, &outcome, !std::mem::replace(&mut blamed, true))
        });
    }
    Ok(())
}

/// The machine: all programs and a list of them are put into dom0.
fn request(guests: &[Guest], programs: &[(String, PathBuf)], work: PathBuf, overrides: Overrides) -> Result<Request> {
    let mut request = Request::from_words([])?;
    overrides.apply(&mut request);
    if request.hypervisor == Hypervisor::Xen {
        // The guests test XSAVE too, which the usual model for real Xen leaves out for the sake of dom0's liblzma; no
        // kernel is unpacked here.
        request.cpu = Some("EPYC,-rdtscp".to_owned());
    }
    request.timeout = Some(u64::try_from(BOOT_SECONDS + GUEST_SECONDS * guests.len())?);
    let mut list = String::new();
    for guest in guests {
        list += &format!("{} {} {}\n", guest.name, guest.vcpus, guest.memory_mib);
        request.put.push(PathPair {
            from: program(programs, &guest.name)?.display().to_string(),
            to: format!("/tests/{}", guest.name),
        });
    }
    let script = work.join("script");
    std::fs::write(work.join("list"), list)?;
    std::fs::write(&script, include_str!("domu-guests.sh"))?;
    request.put.push(PathPair { from: work.join("list").display().to_string(), to: "/tests/list".to_owned() });
    request.get.push(PathPair { from: "/tests/results".to_owned(), to: work.join("results").display().to_string() });
    request.script = Some(script);
    Ok(request)
}

/// One guest's end by its line in the results. The machine's own verdict counts where there is no line; `show` keeps its
/// log from being shown for every guest.
fn judge(guest: &Guest, results: &str, outcome: &Outcome, show: bool) -> End {
    let line = results.lines().find_map(|line| line.strip_prefix(guest.name.as_str())?.strip_prefix(' '));
    let Some((code, verdict)) = line.map(|line| line.split_once(' ').unwrap_or((line, ""))) else {
        return match &outcome.verdict {
            Verdict::Interrupted(_) => End::Interrupted,
            other => {
                let log = show.then(|| outcome.log.clone());
                End::Failed(format!("not run: {}", other.describe()), log)
            }
        };
    };
    let wanted = match guest.end {
        WantedEnd::Domain(DomainEnd::PowerOff) => "0",
        WantedEnd::Domain(DomainEnd::Reboot) => "1",
        WantedEnd::Domain(DomainEnd::Crash) => "3",
        // Only a control domain can; the list's reader sees to it.
        WantedEnd::Panic => "none",
    };
    let why = if verdict != format!("GUEST-TEST {} PASS", guest.name) {
        if verdict.is_empty() { "no verdict".to_owned() } else { verdict.to_owned() }
    } else if code != wanted {
        format!("the domain ended with reason {code} instead of {wanted}")
    } else {
        return End::Passed;
    };
    End::Failed(format!("{why}; log: {}", outcome.log.display()), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(name: &str, end: DomainEnd) -> Guest {
        Guest { name: name.into(), roles: vec![Role::Guest], vcpus: 1, memory_mib: 64, end: WantedEnd::Domain(end) }
    }

    fn judged(guest: &Guest, results: &str, verdict: Verdict) -> End {
        let outcome = Outcome { verdict, log: PathBuf::from("/log"), power_off_failed: false };
        judge(guest, results, &outcome, true)
    }

    #[test]
    fn lines_are_judged_by_verdict_and_reason() {
        let results = "grants 0 GUEST-TEST grants PASS\ngrant 3 GUEST-TEST grant PASS\nspin none \nhalt 0 GUEST-TEST halt FAIL x\n";
        let good = || Verdict::Status(0);
        assert_eq!(judged(&guest("grants", DomainEnd::PowerOff), results, good()), End::Passed);
        assert_eq!(judged(&guest("grant", DomainEnd::Crash), results, good()), End::Passed);
        for (name, end) in
            [("grant", DomainEnd::PowerOff), ("spin", DomainEnd::PowerOff), ("halt", DomainEnd::PowerOff)]
        {
            assert!(matches!(judged(&guest(name, end), results, good()), End::Failed(..)), "{name}");
        }
    }

    #[test]
    fn a_guest_without_a_line_failed_for_the_machines_reason() {
        let guest = guest("x", DomainEnd::PowerOff);
        let End::Failed(why, Some(_)) = judged(&guest, "", Verdict::HypervisorPanic) else {
            panic!("not failed");
        };
        assert!(why.contains("panicked"));
        assert_eq!(judged(&guest, "", Verdict::Interrupted(String::new())), End::Interrupted);
    }
}
