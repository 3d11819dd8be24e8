//! Layer 2: each way in which a loader starts the hypervisor, and what it says where it cannot run.
//!
//! The other cases of layer 2 ([`super::guests`], which calls this one) are started by QEMU's own loader, by the Multiboot 1
//! header. These boot one tiny guest by the other headers, and on processors without what the hypervisor needs.

use std::path::PathBuf;

use anyhow::Result;

use super::guest_list::Guest;
use super::{End, guests};
use crate::exit::Verdict;
use crate::harness::dom0::View;
use crate::harness::guest::{self, GuestRequest};
use crate::harness::request::Hypervisor;
use crate::paths::Paths;

/// The tiny guest that is booted.
pub(super) const GUEST: &str = "hello";

/// One machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// By the PVH note, with one module: the control domain.
    Pvh,
    /// By GRUB and Multiboot 2, with one module.
    Grub,
    /// The same with two modules, of which the first makes a domain of the second.
    GrubTwoModules,
    /// On a processor without hardware virtualisation.
    NoSvm,
    /// On a processor that has it, but no nested paging.
    NoNestedPaging,
}

/// All cases, in the order in which they run.
pub(super) const ALL: [Case; 5] = [Case::Pvh, Case::Grub, Case::GrubTwoModules, Case::NoSvm, Case::NoNestedPaging];

impl Case {
    /// Its name in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pvh => "boot by PVH note",
            Self::Grub => "boot by GRUB",
            Self::GrubTwoModules => "boot by GRUB with two modules",
            Self::NoSvm => "boot without SVM",
            Self::NoNestedPaging => "boot without nested paging",
        }
    }

    /// What the hypervisor must say, if it cannot run.
    fn complaint(self) -> Option<&'static str> {
        match self {
            Self::NoSvm => Some("no AMD SVM"),
            Self::NoNestedPaging => Some("no nested paging"),
            Self::Pvh | Self::Grub | Self::GrubTwoModules => None,
        }
    }

    /// The request, from that of the guest as a control domain.
    fn request(self, mut request: GuestRequest, guest: &Guest) -> GuestRequest {
        match self {
            Self::Pvh => request.pvh = true,
            Self::Grub => request.grub = true,
            Self::GrubTwoModules => {
                request.grub = true;
                request.as_guest = Some(guest.memory_mib);
            }
            Self::NoSvm => request.cpu = Some("EPYC-v4,-svm".to_owned()),
            Self::NoNestedPaging => request.cpu = Some("EPYC-v4,-npt".to_owned()),
        }
        request
    }
}

/// Runs one case.
pub(super) fn one(paths: &Paths, programs: &[(String, PathBuf)], case: Case, guest: &Guest) -> Result<End> {
    let request = case.request(guests::request(guest, Hypervisor::Oxen), guest);
    let name = case.name().replace(' ', "-");
    let view = View { name, screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    let outcome = guest::run(paths, guests::program(programs, GUEST)?, &request, &[], view)?;
    Ok(match case.complaint() {
        None => guests::judge(guest, outcome),
        Some(wanted) => judge_complaint(wanted, &outcome.verdict, outcome.log),
    })
}

/// A machine on which the hypervisor cannot run must say so, and why.
fn judge_complaint(wanted: &str, verdict: &Verdict, log: PathBuf) -> End {
    match verdict {
        Verdict::Broken(why) if why.starts_with("Oxen cannot start") && why.contains(wanted) => End::Passed,
        Verdict::Status(0) => End::Failed("the hypervisor did not complain".to_owned(), Some(log)),
        other => End::from_unwanted(other, log),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_complaint_passes() {
        let judge = |verdict: &Verdict| judge_complaint("no AMD SVM", verdict, PathBuf::new());
        let broken = |why: &str| Verdict::Broken(why.to_owned());
        assert_eq!(judge(&broken("Oxen cannot start: this processor has no AMD SVM")), End::Passed);
        for bad in [
            broken("Oxen cannot start: no room"),
            broken("the emulator ended: no AMD SVM"),
            Verdict::Status(0),
            Verdict::TimedOut,
            Verdict::HypervisorPanic,
        ] {
            assert!(matches!(judge(&bad), End::Failed(..)), "{bad:?}");
        }
    }
}
