//! The tiny guests of `tests/guests` once more, as domains made by xl: part of layer 3.
//!
//! They run in the machine of [`super::shared`], which says of each the reason of its end and its verdict; here they become
//! cases and are judged.

use anyhow::Result;

use super::guest_list::{self, Guest, Role, WantedEnd};
use super::guests::program;
use super::shared::{Case, Work};
use crate::artifacts;
use crate::console::crash::DomainEnd;
use crate::harness::request::PathPair;
use crate::paths::Paths;

/// Seconds for one guest.
pub(super) const SECONDS: u64 = 180;

/// The cases whose names contain the filter. `options` stands behind their names, as behind scenarios'.
///
/// # Errors
/// The guests cannot be built.
pub(super) fn cases(paths: &Paths, filter: Option<&str>, options: &str) -> Result<Vec<Case>> {
    let guests: Vec<(String, Guest)> = guest_list::read(&paths.root, Role::Guest, None)?
        .into_iter()
        .map(|guest| (format!("{} [{options}]", guest.test_name(Role::Guest)), guest))
        .filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter)))
        .collect();
    if guests.is_empty() {
        return Ok(Vec::new());
    }
    let programs = artifacts::test_guests(paths)?;
    guests
        .into_iter()
        .map(|(name, guest)| {
            Ok(Case {
                name: guest.name.clone(),
                shown: format!("layer 3: {name}"),
                file: program(&programs, &guest.name)?.to_path_buf(),
                needs: Vec::new(),
                work: Work::Tiny(guest),
            })
        })
        .collect()
}

/// The programs of the named guests, to be put where a scenario expects them.
///
/// # Errors
/// The guests cannot be built, or there is none of a name.
pub(super) fn programs(paths: &Paths, names: &[String]) -> Result<Vec<PathPair>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let built = artifacts::test_guests(paths)?;
    names
        .iter()
        .map(|name| Ok(PathPair { from: program(&built, name)?.display().to_string(), to: format!("/tests/{name}") }))
        .collect()
}

/// Whether a guest ended well: `text` is the reason of its end and its verdict.
pub(super) fn judge(guest: &Guest, text: &str) -> Result<(), String> {
    let (code, verdict) = text.split_once(' ').unwrap_or((text, ""));
    let wanted = match guest.end {
        WantedEnd::Domain(DomainEnd::PowerOff) => "0",
        WantedEnd::Domain(DomainEnd::Reboot) => "1",
        WantedEnd::Domain(DomainEnd::Crash) => "3",
        // Only a control domain can; the list's reader sees to it.
        WantedEnd::Panic => "none",
    };
    if verdict != format!("GUEST-TEST {} PASS", guest.name) {
        return Err(if verdict.is_empty() { "no verdict".to_owned() } else { verdict.to_owned() });
    }
    if code != wanted {
        return Err(format!("the domain ended with reason {code} instead of {wanted}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_and_reason_both_count() {
        let guest = |end| Guest {
            name: "x".into(),
            roles: vec![Role::Guest],
            vcpus: 1,
            memory_mib: 64,
            qemu_args: Vec::new(),
            end: WantedEnd::Domain(end),
        };
        assert_eq!(judge(&guest(DomainEnd::PowerOff), "0 GUEST-TEST x PASS"), Ok(()));
        assert_eq!(judge(&guest(DomainEnd::Crash), "3 GUEST-TEST x PASS"), Ok(()));
        for (end, text, why) in [
            (DomainEnd::Crash, "0 GUEST-TEST x PASS", "reason 0 instead of 3"),
            (DomainEnd::PowerOff, "none ", "no verdict"),
            (DomainEnd::PowerOff, "none", "no verdict"),
            (DomainEnd::PowerOff, "0 GUEST-TEST x FAIL because", "because"),
            (DomainEnd::PowerOff, "0 GUEST-TEST xy PASS", "xy"),
        ] {
            let reason = judge(&guest(end), text).unwrap_err();
            assert!(reason.contains(why), "{text}: {reason}");
        }
    }
}
