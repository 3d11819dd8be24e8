//! Layer 2: the tiny guests, each in a machine of its own: as the control domain, and made by a tiny control domain; and, before them,
//! the ways to boot ([`boot_paths`]).
//!
//! `guest_list` says which there are and how each must end; the guests' own console lines give their verdicts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::guest_list::{self, Guest, Role, WantedEnd};
use super::{End, Report, boot_paths};
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
    let cases = cases(paths, filter)?;
    let boots = if hypervisor == Hypervisor::Oxen { boots(paths, filter)? } else { Vec::new() };
    if cases.is_empty() && boots.is_empty() {
        return Ok(());
    }
    if hypervisor == Hypervisor::Oxen {
        artifacts::hypervisor(paths)?;
    }
    let programs = artifacts::test_guests(paths)?;
    for (case, guest) in boots {
        report.case(&format!("layer 2: {}", case.name()), || {
            boot_paths::one(paths, &programs, case, &guest)
                .unwrap_or_else(|error| End::Failed(format!("{error:#}"), None))
        });
    }
    for case in cases {
        report.case(&format!("layer 2: {}", case.name()), || {
            one(paths, &programs, &case, hypervisor).unwrap_or_else(|error| End::Failed(format!("{error:#}"), None))
        });
    }
    Ok(())
}

/// The ways to boot whose names contain the filter, with the guest that is booted.
fn boots(paths: &Paths, filter: Option<&str>) -> Result<Vec<(boot_paths::Case, Guest)>> {
    let guest = guest_list::read(&paths.root, Role::Control, None)?
        .into_iter()
        .find(|guest| guest.name == boot_paths::GUEST)
        .with_context(|| format!("guests.list has no control domain {}", boot_paths::GUEST))?;
    let wanted = boot_paths::ALL.into_iter().filter(|case| filter.is_none_or(|filter| case.name().contains(filter)));
    Ok(wanted.map(|case| (case, guest.clone())).collect())
}

/// One machine.
#[derive(Clone, Debug)]
struct Case {
    guest: Guest,
    role: Role,
    /// Physical CPUs.
    cpus: u32,
    /// How often the guest is made, in the role of a guest.
    rounds: u32,
}

/// The guest that is made and destroyed many times, and how often: afterwards there must be as much free memory as before.
const MADE_OFTEN: (&str, u32) = ("hello", 30);

impl Case {
    fn name(&self) -> String {
        let mut name = self.guest.test_name(self.role);
        if self.rounds > 1 {
            name += &format!(" {} times", self.rounds);
        }
        if self.cpus != self.guest.vcpus {
            name += &format!(" on {} CPU", self.cpus);
        }
        name
    }
}

/// All machines whose names contain the filter, in the list's order.
fn cases(paths: &Paths, filter: Option<&str>) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for role in [Role::Control, Role::Guest] {
        for guest in guest_list::read(&paths.root, role, None)? {
            cases.extend(cases_of(&guest, role));
        }
    }
    cases.retain(|case| filter.is_none_or(|filter| case.name().contains(filter)));
    Ok(cases)
}

fn cases_of(guest: &Guest, role: Role) -> Vec<Case> {
    let case = |cpus, rounds| Case { guest: guest.clone(), role, cpus, rounds };
    let mut cases: Vec<_> = physical_cpus(guest).map(|cpus| case(cpus, 1)).collect();
    if role == Role::Guest && guest.name == MADE_OFTEN.0 {
        cases.push(case(guest.vcpus, MADE_OFTEN.1));
    }
    cases
}

/// On how many CPUs a guest runs, one run each: as many as it has itself, and on one, where they take turns.
fn physical_cpus(guest: &Guest) -> impl Iterator<Item = u32> + use<> {
    [Some(guest.vcpus), (guest.vcpus > 1).then_some(1)].into_iter().flatten()
}

fn one(paths: &Paths, programs: &[(String, PathBuf)], case: &Case, hypervisor: Hypervisor) -> Result<End> {
    let guest = &case.guest;
    if guest.end == WantedEnd::Panic && hypervisor == Hypervisor::Xen {
        return Ok(End::Skipped("Xen has no crash kernel here, and goes on".to_owned()));
    }
    let elf = program(programs, &guest.name)?;
    let request = GuestRequest {
        args: if case.rounds > 1 { format!("rounds={}", case.rounds) } else { String::new() },
        smp: case.cpus,
        as_guest: (case.role == Role::Guest).then_some(guest.memory_mib),
        ..request(guest, hypervisor)
    };
    let name = format!("guest-{}", case.name().replace(' ', "-"));
    let view = View { name, screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    let outcome = guest::run(paths, elf, &request, &guest.qemu_args, view)?;
    Ok(judge(guest, outcome))
}

/// The request to boot a guest as the control domain of a machine with as many CPUs.
pub(super) fn request(guest: &Guest, hypervisor: Hypervisor) -> GuestRequest {
    GuestRequest {
        hypervisor,
        emulator: Emulator::Qemu,
        args: String::new(),
        xen_args: String::new(),
        cpu: None,
        smp: guest.vcpus,
        as_guest: None,
        vcpus: Some(guest.vcpus),
        mem: 1024,
        dom0_mem: CONTROL_MIB,
        icount: false,
        pvh: false,
        grub: false,
        timeout: LIMIT,
    }
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
pub(super) fn judge(guest: &Guest, outcome: GuestOutcome) -> End {
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
    fn several_vcpus_also_share_one_cpu_and_one_guest_is_made_often() {
        let guest = |name: &str, vcpus| Guest {
            name: name.into(),
            roles: vec![Role::Control, Role::Guest],
            vcpus,
            memory_mib: 64,
            qemu_args: Vec::new(),
            end: WantedEnd::Domain(DomainEnd::PowerOff),
        };
        let names = |guest: &Guest, role| cases_of(guest, role).iter().map(Case::name).collect::<Vec<_>>();
        assert_eq!(names(&guest("spin", 2), Role::Control), ["spin", "spin on 1 CPU"]);
        assert_eq!(names(&guest("spin", 2), Role::Guest), ["guest spin", "guest spin on 1 CPU"]);
        assert_eq!(names(&guest("hello", 1), Role::Control), ["hello"]);
        assert_eq!(names(&guest("hello", 1), Role::Guest), ["guest hello", "guest hello 30 times"]);
    }

    #[test]
    fn verdict_and_end_both_count() {
        let guest = Guest {
            name: "triple_fault".into(),
            roles: vec![Role::Control],
            vcpus: 1,
            memory_mib: 64,
            qemu_args: Vec::new(),
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
