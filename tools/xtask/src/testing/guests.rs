//! Layer 2: the tiny guests of `tests/guests` boot as the control domain and give their verdicts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::guest_list::{self, Guest, Role, WantedEnd};
use super::{End, Report};
use crate::artifacts;
use crate::exit::Verdict;
use crate::harness::dom0::View;
use crate::harness::guest::{self, GuestOutcome, GuestRequest};
use crate::harness::request::{Emulator, Hypervisor};
use crate::paths::Paths;

/// Seconds that one guest may take on a slow and busy machine.
const LIMIT: u64 = 120;
/// Memory of the control domain in MiB: the list's number is for guests made by xl.
const CONTROL_MIB: u32 = 256;

/// Builds and runs the guests whose names contain the filter.
///
/// # Errors
/// Hypervisor or guests cannot be built.
pub(crate) fn run(paths: &Paths, filter: Option<&str>, hypervisor: Hypervisor, report: &mut Report) -> Result<()> {
    let guests = guest_list::read(&paths.root, Role::Control, filter)?;
    if guests.is_empty() {
        return Ok(());
    }
    if hypervisor == Hypervisor::Oxen {
        artifacts::hypervisor(paths)?;
    }
    let programs = artifacts::test_guests(paths)?;
    for guest in guests {
        for cpus in physical_cpus(&guest) {
            report.case(&case_name(&guest, cpus), || {
                one(paths, &programs, &guest, hypervisor, cpus)
                    .unwrap_or_else(|error| End::Failed(format!("{error:#}"), None))
            });
        }
    }
    Ok(())
}

/// On how many CPUs a guest runs, one run each: as many as it has itself, and on one, where they take turns.
fn physical_cpus(guest: &Guest) -> impl Iterator<Item = u32> + use<> {
    [Some(guest.vcpus), (guest.vcpus > 1).then_some(1)].into_iter().flatten()
}

fn case_name(guest: &Guest, cpus: u32) -> String {
    let name = guest.test_name(Role::Control);
    if cpus == guest.vcpus { format!("layer 2: {name}") } else { format!("layer 2: {name} on {cpus} CPU") }
}

fn one(paths: &Paths, programs: &[(String, PathBuf)], guest: &Guest, hypervisor: Hypervisor, cpus: u32) -> Result<End> {
    if guest.end == WantedEnd::Panic && hypervisor == Hypervisor::Xen {
        return Ok(End::Skipped("Xen has no crash kernel here, and goes on".to_owned()));
    }
    let elf = program(programs, &guest.name)?;
    let request = GuestRequest {
        hypervisor,
        emulator: Emulator::Qemu,
        args: String::new(),
        xen_args: String::new(),
        cpu: None,
        smp: cpus,
        vcpus: Some(guest.vcpus),
        mem: 1024,
        dom0_mem: CONTROL_MIB,
        icount: false,
        pvh: false,
        timeout: LIMIT,
    };
    let view =
        View { name: format!("guest-{}", guest.name), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    let outcome = guest::run(paths, elf, &request, &[], view)?;
    Ok(judge(guest, outcome))
}

/// The program of a guest among those that were built.
pub(super) fn program<'a>(programs: &'a [(String, PathBuf)], name: &str) -> Result<&'a Path> {
    programs
        .iter()
        .find(|(built, _)| built == name)
        .map(|(_, path)| path.as_path())
        .with_context(|| format!("guests.list names {name}, but the package guests has no such program"))
}

/// A success needs the guest's own verdict and the right end of its domain.
fn judge(guest: &Guest, outcome: GuestOutcome) -> End {
    match guest.end {
        WantedEnd::Panic if outcome.verdict == Verdict::HypervisorPanic && outcome.said => return End::Passed,
        WantedEnd::Panic if outcome.verdict == Verdict::Status(0) => {
            return End::Failed("the hypervisor did not panic".to_owned(), Some(outcome.log));
        }
        _ if outcome.verdict != Verdict::Status(0) => return End::from_unwanted(&outcome.verdict, outcome.log),
        _ => {}
    }
    let why = match outcome.domain_end {
        _ if !outcome.said => "the guest ended without a verdict".to_owned(),
        Some(end) if guest.end == WantedEnd::Domain(end) => return End::Passed,
        Some(end) => format!("the domain ended by {end:?} instead of {:?}", guest.end),
        None => format!("the domain did not end by {:?}", guest.end),
    };
    End::Failed(why, Some(outcome.log))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::crash::DomainEnd;

    fn outcome(verdict: Verdict, said: bool, domain_end: Option<DomainEnd>) -> GuestOutcome {
        GuestOutcome { verdict, said, domain_end, log: PathBuf::new() }
    }

    #[test]
    fn several_vcpus_also_share_one_cpu() {
        let guest = |vcpus| Guest {
            name: "spin".into(),
            roles: vec![Role::Control],
            vcpus,
            memory_mib: 64,
            end: WantedEnd::Domain(DomainEnd::PowerOff),
        };
        assert_eq!(physical_cpus(&guest(1)).collect::<Vec<_>>(), [1]);
        assert_eq!(physical_cpus(&guest(2)).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(case_name(&guest(2), 2), "layer 2: spin");
        assert_eq!(case_name(&guest(2), 1), "layer 2: spin on 1 CPU");
    }

    #[test]
    fn verdict_and_end_both_count() {
        let guest = Guest {
            name: "triple_fault".into(),
            roles: vec![Role::Control],
            vcpus: 1,
            memory_mib: 64,
            end: WantedEnd::Domain(DomainEnd::Reboot),
        };
        let good = Verdict::Status(0);
        assert_eq!(judge(&guest, outcome(good.clone(), true, Some(DomainEnd::Reboot))), End::Passed);
        for bad in [
            outcome(good.clone(), true, Some(DomainEnd::PowerOff)),
            outcome(good.clone(), true, None),
            outcome(good, false, Some(DomainEnd::Reboot)),
            outcome(Verdict::Failed("x".into()), true, Some(DomainEnd::Reboot)),
            outcome(Verdict::HypervisorPanic, true, None),
        ] {
            assert!(matches!(judge(&guest, bad), End::Failed(..)));
        }
        let guest = Guest { end: WantedEnd::Panic, ..guest };
        assert_eq!(judge(&guest, outcome(Verdict::HypervisorPanic, true, None)), End::Passed);
        for bad in [
            outcome(Verdict::HypervisorPanic, false, None),
            outcome(Verdict::Status(0), true, Some(DomainEnd::PowerOff)),
            outcome(Verdict::TimedOut, true, None),
        ] {
            assert!(matches!(judge(&guest, bad), End::Failed(..)));
        }
    }
}
